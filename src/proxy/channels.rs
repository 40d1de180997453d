//! The HTTP/2 connections to the model server: one for each address and worker, shared by all its requests.
//!
//! Refuses to ping: a model server that computes answers no ping, and busy is not dead. A connection whose
//! peer is gone is ended by the kernel's word, and the next request dials anew.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::http2::SendRequest;
use tokio::sync::{Mutex, MutexGuard};

use super::body::Upload;
use crate::engine::Time;

/// One connection. Who holds it has a request on it.
pub(super) struct Channel {
    sender: RefCell<SendRequest<Upload>>,
    used: Cell<Time>,
}

/// The place of an address: its connection, if it has one that lives, and whose turn it is to dial.
#[derive(Default)]
pub(super) struct Slot {
    current: RefCell<Option<Rc<Channel>>>,
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
    /// The connection, if there is one that lives.
    pub(super) fn live(&self) -> Option<Rc<Channel>> {
        self.current.borrow().as_ref().filter(|channel| !channel.is_closed()).cloned()
    }

    /// Waits for the turn to dial. Somebody else may have done so meanwhile: look again.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.dialling.lock().await
    }

    /// Takes a new connection in place of the last.
    pub(super) fn install(&self, sender: SendRequest<Upload>, now: Time) -> Rc<Channel> {
        let channel = Rc::new(Channel { sender: RefCell::new(sender), used: Cell::new(now) });
        self.current.replace(Some(Rc::clone(&channel)));
        channel
    }

    fn sweep(&self, now: Time, max_idle: Duration, wanted: bool) {
        let current = &mut *self.current.borrow_mut();
        let keep = current.as_ref().is_some_and(|channel| {
            let busy = 1 < Rc::strong_count(channel);
            wanted && !channel.is_closed() && (busy || now.since(channel.used.get()) < max_idle)
        });
        if !keep {
            *current = None;
        }
    }
}

impl Channel {
    /// A request's last byte has come.
    pub(super) fn used(&self, now: Time) {
        self.used.set(now);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.borrow().is_closed()
    }

    /// For the time of a call: sending does not wait.
    pub(super) fn sender(&self) -> std::cell::RefMut<'_, SendRequest<Upload>> {
        self.sender.borrow_mut()
    }
}
