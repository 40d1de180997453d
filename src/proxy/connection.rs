//! One client connection: hyper's state machine, and when it must end.
//!
//! Deadlines are not timers here: the worker's tick looks at every connection four times a second, so that a
//! request sets none. HTTP/1 or HTTP/2 is told by the first bytes, before hyper sees one, under the same deadline.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::server::conn;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::rustls::ServerConfig;

use super::dial::Here;
use super::headers::Client;
use super::worker::Worker;
use super::{http1, request, secured};
use crate::config::UpstreamProtocol;
use crate::engine::Time;
use crate::limits;
use crate::net::sniff::{Protocol, Rewound, sniff};

/// One client connection, as its requests and the worker's tick see it.
pub(super) struct Conn {
    pub(super) worker: Rc<Worker>,
    pub(super) peer: SocketAddr,
    /// Requests that are not over yet.
    active: Cell<u32>,
    /// Whether a whole head, or HTTP/2's preface, ever came.
    greeted: Cell<bool>,
    http2: Cell<bool>,
    /// Whether the client speaks TLS.
    secure: Cell<bool>,
    /// Since when nothing is active.
    idle_since: Cell<Time>,
    /// Since when the client owes a part of its body. HTTP/1 only: a stream of calls may pause as it likes.
    owes_since: Cell<Option<Time>>,
    expired: Cell<bool>,
    /// It serves what it has and is told to take no more.
    retiring: Cell<bool>,
    waker: OnceCell<Waker>,
}

impl Conn {
    /// A request begins.
    pub(super) fn enter(&self) {
        self.greeted.set(true);
        self.active.set(self.active.get() + 1);
    }

    /// A request is over.
    pub(super) fn leave(&self, now: Time) {
        self.active.set(self.active.get().saturating_sub(1));
        self.idle_since.set(now);
    }

    /// Whether the client speaks HTTP/2.
    pub(super) fn over_http2(&self) -> bool {
        self.http2.get()
    }

    /// Who the client is, for the model server to be told.
    pub(super) fn client(&self) -> Client {
        Client { ip: self.peer.ip(), https: self.secure.get() }
    }

    /// Nothing more of the body is there, though the model server would take it.
    pub(super) fn awaits_body(&self) {
        if self.owes_since.get().is_none() && !self.http2.get() {
            self.owes_since.set(Some(self.worker.now()));
        }
    }

    /// Some of it came, or nobody waits for it any more.
    pub(super) fn got_body(&self) {
        self.owes_since.set(None);
    }

    /// Ends the connection once what is active on it is over. HTTP/1 says so in a header instead.
    pub(super) fn retire(&self) {
        self.retiring.set(true);
        self.wake();
    }

    fn overdue(&self, now: Time, client_idle: Duration) -> bool {
        if self.owes_since.get().is_some_and(|since| client_idle <= now.since(since)) {
            return true;
        }
        let patience = if self.greeted.get() { client_idle } else { limits::FIRST_HEAD.min(client_idle) };
        self.active.get() == 0 && now.since(self.idle_since.get()) >= patience
    }

    /// Whether the connection may go on. Whoever waits on its behalf asks at each turn, and is woken when the
    /// answer changes.
    pub(super) fn poll_alive(&self, cx: &Context<'_>) -> bool {
        self.waker.get_or_init(|| cx.waker().clone());
        !self.expired.get()
    }

    /// Whether the client is to send its next request elsewhere: from the drain's first moment, for a kept connection
    /// does not move when endpoints do.
    pub(super) fn is_leaving(&self) -> bool {
        self.worker.connections.is_finishing() || self.worker.shared.is_leaving()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

/// A worker's open connections and tunnels.
#[derive(Default)]
pub(super) struct Connections {
    slots: RefCell<Slots>,
    open: Cell<usize>,
    finishing: Cell<bool>,
    emptied: Notify,
}

#[derive(Default)]
struct Slots {
    all: Vec<Option<Rc<Conn>>>,
    free: Vec<usize>,
}

impl Connections {
    /// Ends what has been silent for too long.
    pub(super) fn sweep(&self, now: Time, client_idle: Duration) {
        for conn in self.slots.borrow().all.iter().flatten().filter(|conn| conn.overdue(now, client_idle)) {
            conn.expired.set(true);
            conn.wake();
        }
    }

    /// From now on connections end as soon as nothing is active on them.
    pub(super) fn finish(&self) {
        self.finishing.set(true);
        self.slots.borrow().all.iter().flatten().for_each(|conn| conn.wake());
    }

    /// Whether connections end as soon as nothing is active on them.
    pub(super) const fn is_finishing(&self) -> bool {
        self.finishing.get()
    }

    /// Waits until no connection and no tunnel is open.
    pub(super) async fn emptied(&self) {
        while self.open.get() > 0 {
            self.emptied.notified().await;
        }
    }

    fn insert(&self, conn: Rc<Conn>) -> usize {
        let slots = &mut *self.slots.borrow_mut();
        if let Some(place) = slots.free.pop() {
            slots.all[place] = Some(conn);
            return place;
        }
        slots.all.push(Some(conn));
        slots.all.len() - 1
    }

    fn remove(&self, place: usize) {
        let slots = &mut *self.slots.borrow_mut();
        slots.all[place] = None;
        slots.free.push(place);
    }
}

/// Counts a connection or a tunnel as open until it is dropped.
pub(super) struct Open(Rc<Worker>);

impl Open {
    pub(super) fn new(worker: &Rc<Worker>) -> Self {
        let open = &worker.connections.open;
        open.set(open.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let connections = &self.0.connections;
        connections.open.set(connections.open.get() - 1);
        if connections.open.get() == 0 {
            connections.emptied.notify_waiters();
        }
    }
}

/// A place among the worker's connections, given back when dropped.
struct Place {
    conn: Rc<Conn>,
    place: usize,
    _open: Open,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.conn.worker.connections.remove(self.place);
        self.conn.worker.disconnected();
    }
}

/// Serves one client until it leaves, expires, or the worker finishes.
pub(super) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let now = worker.now();
    let conn = Rc::new(Conn {
        peer,
        active: Cell::new(0),
        greeted: Cell::new(false),
        http2: Cell::new(false),
        secure: Cell::new(false),
        idle_since: Cell::new(now),
        owes_since: Cell::new(None),
        expired: Cell::new(false),
        retiring: Cell::new(false),
        waker: OnceCell::new(),
        worker,
    });
    let place = Place {
        place: conn.worker.connections.insert(Rc::clone(&conn)),
        _open: Open::new(&conn.worker),
        conn: Rc::clone(&conn),
    };
    // A small answer must not wait for the client's acknowledgement of the one before. Failing is harmless.
    let _ = stream.set_nodelay(true);
    // Whoever takes no byte for so long is gone or might as well be: the kernel ends the connection then.
    let client_idle = conn.worker.shared.limits().client_idle;
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(client_idle));
    match conn.worker.shared.tls() {
        None => speak(&conn, stream).await,
        Some(tls) => secured(&conn, stream, tls).await,
    }
    drop(place);
}

/// What a task that serves a client waits on, boxed and made outside of it: a task has room for the largest of all that
/// it may ever wait on, ten thousand connections at rest have ten thousand of them, and this one is large or rare.
type Aside<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

fn secured(conn: &Rc<Conn>, stream: TcpStream, tls: Arc<ServerConfig>) -> Aside<'_> {
    Box::pin(async {
        if let Some(stream) = secured::handshake(conn, stream, tls).await {
            conn.secure.set(true);
            speak(conn, stream).await;
        }
    })
}

/// HTTP, whatever carries it. What ALPN agreed on is not asked: the first bytes say what is spoken.
async fn speak<S>(conn: &Rc<Conn>, stream: S)
where
    S: http1::Wire + Send + 'static,
{
    let Some(Ok((protocol, stream))) = unless_expired(conn, pin!(sniff(stream))).await else { return };
    match protocol {
        Protocol::Http1 if conn.worker.shared.limits().protocol != UpstreamProtocol::H2c => {
            let (stream, first) = stream.into_parts();
            http1::serve(conn, stream, first).await;
        }
        protocol => through_hyper(conn, protocol, stream).await,
    }
}

fn through_hyper<S>(conn: &Rc<Conn>, protocol: Protocol, stream: Rewound<S>) -> Aside<'_>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match protocol {
        Protocol::Http1 => Box::pin(drive_http1(conn, stream)),
        Protocol::Http2 => Box::pin(drive_http2(conn, stream)),
    }
}

/// `None`: it took too long, or the worker ends.
pub(super) async fn unless_expired<F: Future>(conn: &Conn, mut what: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| {
        if conn.expired.get() || conn.worker.connections.finishing.get() {
            return Poll::Ready(None);
        }
        conn.waker.get_or_init(|| cx.waker().clone());
        what.as_mut().poll(cx).map(Some)
    })
    .await
}

async fn drive_http1<S>(conn: &Rc<Conn>, stream: Rewound<S>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| request::serve(Rc::clone(conn), request));
    let mut http = pin!(http1_builder().serve_connection(TokioIo::new(stream), service).with_upgrades());
    let mut told = false;
    poll_fn(|cx| {
        if conn.expired.get() {
            return Poll::Ready(());
        }
        if conn.worker.connections.finishing.get() && !told {
            told = true;
            http.as_mut().graceful_shutdown();
        }
        // What breaks a client's connection (it left, it spoke nonsense) hyper has answered already.
        http.as_mut().poll(cx).map(|_ended| ())
    })
    .await;
}

/// HTTP/2 ends with a farewell: a stream that crosses it is known not to have been served, and may go elsewhere.
async fn drive_http2<S>(conn: &Rc<Conn>, stream: Rewound<S>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    conn.greeted.set(true);
    conn.http2.set(true);
    let service = service_fn(|request| request::serve(Rc::clone(conn), request));
    let mut http = pin!(http2_builder().serve_connection(TokioIo::new(stream), service));
    let mut told_at = None;
    poll_fn(|cx| {
        let ending = conn.expired.get() || conn.retiring.get() || conn.worker.connections.finishing.get();
        match told_at {
            None if ending => {
                told_at = Some(conn.worker.now());
                http.as_mut().graceful_shutdown();
            }
            // The sweep wakes what is expired at every tick.
            Some(at)
                if conn.expired.get()
                    && conn.active.get() == 0
                    && conn.worker.now().since(at) >= limits::H2_LAST_WORDS =>
            {
                return Poll::Ready(());
            }
            _ => {}
        }
        http.as_mut().poll(cx).map(|_ended| ())
    })
    .await;
}

fn http1_builder() -> conn::http1::Builder {
    let mut builder = conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The worker's tick ends silent connections; a timer per request would cost an allocation each.
        .header_read_timeout(None)
        .max_header_size(limits::HEAD_BYTES_MAX)
        .max_buf_size(limits::TRAFFIC_BUFFER_BYTES_MAX);
    builder
}

fn http2_builder() -> conn::http2::Builder<Here> {
    let mut builder = conn::http2::Builder::new(Here);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(limits::H2_PING_INTERVAL)
        .keep_alive_timeout(limits::H2_PING_TIMEOUT)
        .max_concurrent_streams(limits::H2_STREAMS_MAX)
        .max_header_list_size(limits::HEAD_BYTES_MAX as u32)
        .initial_stream_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CLIENT_WINDOW_BYTES)
        .max_send_buf_size(limits::TRAFFIC_BUFFER_BYTES_MAX)
        .enable_connect_protocol();
    builder
}
