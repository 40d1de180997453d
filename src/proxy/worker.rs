//! One worker: a thread's runtime, its accept loop and its tick.
//!
//! The tick proves that the loop turns (the watchdog reads the beats) and does what no request should pay
//! for: ends silent clients and ages idle upstream connections.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::MissedTickBehavior;

use super::access::Records;
use super::channels::Channels;
use super::connection::{self, Connections};
use super::counters::WorkerCounters;
use super::http1::Scratch;
use super::pool::{Pool, Sender};
use super::refusal::Reason;
use super::{Limits, Shared, secured};
use crate::engine::{BackendId, Sign, Time};
use crate::limits;

/// What a worker is told to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// Accept and serve.
    Serve,
    /// Accept no more, end idle connections, let requests finish for at most so long, then return.
    Finish { within: Duration },
}

/// A worker's own things. Never leaves its thread.
pub(super) struct Worker {
    index: usize,
    pub(super) shared: Arc<Shared>,
    /// Idle connections to model servers, of whoever speaks HTTP/1 through hyper.
    pub(super) pool: RefCell<Pool<Sender>>,
    /// The same, of our own HTTP/1.
    pub(super) links: RefCell<Pool<TcpStream>>,
    pub(super) scratch: Scratch,
    pub(super) channels: RefCell<Channels>,
    pub(super) connections: Connections,
    pub(super) records: RefCell<Records>,
    last_sign: Cell<Option<Time>>,
}

/// Runs worker `index` on the calling thread until it is told to finish and has. A dropped `orders` sender
/// means to stop at once.
///
/// # Errors
/// No runtime or no registration of the listener: out of file descriptors, or a listener that blocks.
pub fn worker(
    index: usize,
    listener: TcpListener,
    shared: Arc<Shared>,
    orders: watch::Receiver<Order>,
) -> io::Result<()> {
    give_way();
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let worker = Rc::new(Worker {
        index,
        shared,
        pool: RefCell::default(),
        links: RefCell::default(),
        scratch: Scratch::new(),
        channels: RefCell::default(),
        connections: Connections::default(),
        records: RefCell::default(),
        last_sign: Cell::new(None),
    });
    listener.set_nonblocking(true)?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        spawn_local(tick(Rc::clone(&worker)));
        serve_until_told(&worker, listener, orders).await;
        Ok(())
    })
}

/// Lets the threads that judge and that answer probes go first where all share a core that is full: without it the last
/// thousandth of probes waits for a whole slice of this thread. Costs nothing against other containers, for each has a
/// group of its own, and nothing where there is room. Where it is refused, all are equal as before.
fn give_way() {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), limits::WORKER_NICE);
}

async fn serve_until_told(worker: &Rc<Worker>, listener: tokio::net::TcpListener, mut orders: watch::Receiver<Order>) {
    let told = async {
        loop {
            if let Order::Finish { within } = *orders.borrow_and_update() {
                return within;
            }
            if orders.changed().await.is_err() {
                return Duration::ZERO;
            }
        }
    };
    let within = tokio::select! {
        within = told => within,
        () = accept(worker, &listener) => Duration::ZERO,
    };
    // Closed before anything else, so that the kernel sends nobody here any more.
    drop(listener);
    worker.connections.finish();
    let _ = tokio::time::timeout(within, worker.connections.emptied()).await;
}

async fn accept(worker: &Rc<Worker>, listener: &tokio::net::TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if worker.connected() => {
                spawn_local(connection::serve(Rc::clone(worker), stream, peer));
            }
            Ok((stream, _)) => {
                worker.counters().refuse(Reason::ConnectionsFull);
                refuse_connection(stream, if worker.shared.tls().is_some() { secured::NO_ROOM } else { FULL });
            }
            // The client left before its turn: nobody's fault.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(worker = worker.index, %error, "cannot accept; trying again soon");
                tokio::time::sleep(limits::ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// What is said over plain HTTP when there is no place.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nx-probegate-reason: connections_full\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Said without reading a request: it costs nothing and the client learns why.
fn refuse_connection(stream: TcpStream, words: &[u8]) {
    // Non-blocking; a client that cannot take these bytes at once is closed without them.
    let _ = stream.into_std().and_then(|mut stream| stream.write(words));
}

async fn tick(worker: Rc<Worker>) {
    let mut beat = tokio::time::interval(limits::WORKER_BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let now = worker.now();
        worker.counters().beat(now);
        let setup = worker.shared.setup.load_full();
        let Limits { upstream_idle, client_idle, .. } = setup.limits;
        worker.pool.borrow_mut().sweep(now, upstream_idle, |address| setup.upstreams.contains(address));
        worker.links.borrow_mut().sweep(now, upstream_idle, |address| setup.upstreams.contains(address));
        worker.channels.borrow_mut().sweep(now, upstream_idle, |address| setup.upstreams.contains(address));
        worker.connections.sweep(now, client_idle);
    }
}

impl Worker {
    /// Below [`super::Wiring::workers`].
    pub(super) const fn index(&self) -> usize {
        self.index
    }

    pub(super) fn counters(&self) -> &WorkerCounters {
        self.shared.counters.worker(self.index)
    }

    pub(super) fn now(&self) -> Time {
        self.shared.clock.now()
    }

    /// Tells the engine that nobody listens there; seldom enough that a storm of requests is one sign.
    pub(super) fn sign_refused(&self, backend: BackendId) {
        let Some(signs) = &self.shared.wiring.signs else { return };
        let now = self.now();
        if self.last_sign.get().is_none_or(|last| now.since(last) >= limits::SIGN_INTERVAL) {
            self.last_sign.set(Some(now));
            // A full channel means that the engine has plenty to read already.
            let _ = signs.try_send((backend, Sign::Refused));
        }
    }

    /// Takes a place for one more client connection, if there is one.
    fn connected(&self) -> bool {
        let all = &self.shared.counters.connections;
        let max = self.shared.limits().max_connections;
        if all.fetch_add(1, Ordering::Relaxed) < max {
            return true;
        }
        all.fetch_sub(1, Ordering::Relaxed);
        false
    }

    pub(super) fn disconnected(&self) {
        self.shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
