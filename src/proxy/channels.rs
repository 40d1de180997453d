//! The HTTP/2 connections to the model server: for each address and worker one, shared by all its requests, and
//! more while the model server takes fewer streams on one than there are requests.
//!
//! A request beyond that number would wait inside the connection, unsent, and pass for one that the model server
//! does not answer. Each connection counts what is on it, and a full one is no connection to send on.
//!
//! Refuses to ping: a model server that computes answers no ping, and busy is not dead. A connection whose
//! peer is gone is ended by the kernel's word, and the next request dials anew.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::http2::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};

use super::body::Upload;
use super::dial::Here;
use crate::engine::Time;
use crate::limits;

/// One connection. Who holds it has a request on it.
pub(super) struct Channel {
    sender: RefCell<SendRequest<Upload>>,
    connection: Wire,
    used: Cell<Time>,
}

/// hyper's end of a connection, which knows what the peer allows.
/// None once it has ended: what it held back is told so by its being dropped.
pub(super) type Wire = Rc<RefCell<Option<Connection<TokioIo<TcpStream>, Upload, Here>>>>;

/// The place of an address: its connections that live, and whose turn it is to dial.
#[derive(Default)]
pub(super) struct Slot {
    channels: RefCell<Vec<Rc<Channel>>>,
    dialling: Mutex<()>,
}

/// The slots by address. A pod has few addresses: a list beats a map.
#[derive(Default)]
pub(super) struct Channels {
    slots: Vec<(SocketAddr, Rc<Slot>)>,
}

impl Channels {
    pub(super) fn slot(&mut self, address: SocketAddr) -> Rc<Slot> {
        if let Some((_, slot)) = self.slots.iter().find(|(at, _)| *at == address) {
            return Rc::clone(slot);
        }
        let slot = Rc::new(Slot::default());
        self.slots.push((address, Rc::clone(&slot)));
        slot
    }

    /// Closes what nobody uses and has not for `max_idle`, or what is no longer wanted. Requests on a connection
    /// end as they would.
    pub(super) fn sweep(&mut self, now: Time, max_idle: Duration, wanted: impl Fn(SocketAddr) -> bool) {
        self.slots.retain(|(address, slot)| {
            let wanted = wanted(*address);
            slot.sweep(now, max_idle, wanted);
            // A slot that somebody holds is about to be dialled.
            wanted || 1 < Rc::strong_count(slot)
        });
    }
}

impl Slot {
    /// A connection that lives and has room for one request more.
    pub(super) fn live(&self) -> Option<Rc<Channel>> {
        self.channels.borrow().iter().find(|channel| !channel.is_closed() && has_room(channel)).cloned()
    }

    /// Where there may be no further connection: the live one with the fewest requests. They wait on it.
    pub(super) fn least(&self) -> Option<Rc<Channel>> {
        let channels = self.channels.borrow();
        let live = channels.iter().filter(|channel| !channel.is_closed());
        if live.clone().count() < limits::H2_UPSTREAM_CONNECTIONS_MAX {
            return None;
        }
        live.min_by_key(|channel| Rc::strong_count(channel)).cloned()
    }

    /// Waits for the turn to dial. Somebody else may have done so meanwhile: look again.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.dialling.lock().await
    }

    /// Takes a new connection in, behind those that live.
    pub(super) fn install(&self, sender: SendRequest<Upload>, connection: Wire, now: Time) -> Rc<Channel> {
        let channel = Rc::new(Channel { sender: RefCell::new(sender), connection, used: Cell::new(now) });
        let channels = &mut *self.channels.borrow_mut();
        channels.retain(|channel| !channel.is_closed());
        channels.push(Rc::clone(&channel));
        channel
    }

    fn sweep(&self, now: Time, max_idle: Duration, wanted: bool) {
        self.channels.borrow_mut().retain(|channel| {
            let busy = 1 < Rc::strong_count(channel);
            wanted && !channel.is_closed() && (busy || now.since(channel.used.get()) < max_idle)
        });
    }
}

/// The slot's own hold is not a request. Where the model server has not said how many it takes, all of them are sent:
/// it does not answer, and further connections would not either.
fn has_room(channel: &Rc<Channel>) -> bool {
    let requests = Rc::strong_count(channel) - 1;
    match channel.streams_max() {
        0 => true,
        max => requests < max,
    }
}

impl Channel {
    /// A request's last byte has come.
    pub(super) fn used(&self, now: Time) {
        self.used.set(now);
    }

    /// How many streams the model server takes on it; 0 until it has said so.
    pub(super) fn streams_max(&self) -> usize {
        self.connection.borrow().as_ref().map_or(0, Connection::current_max_send_streams)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.borrow().is_closed()
    }

    /// For the time of a call: sending does not wait.
    pub(super) fn sender(&self) -> std::cell::RefMut<'_, SendRequest<Upload>> {
        self.sender.borrow_mut()
    }
}
