//! One exchange with the model server: a connection, the request, the answer's head.
//!
//! A request is sent a second time only when a kept connection died before a head came back, and only if
//! hyper hands it back untouched (nothing of it was written) or it is safe to do twice and has no body. A body
//! that was begun is never replayed.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{HOST, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::body::{Answer, Upload};
use super::connection::Conn;
use super::pool::Sender;
use super::refusal::Reason;
use super::upstreams::Picked;
use super::{Limits, headers, upgrade};
use crate::engine::Time;
use crate::limits;

/// A request in flight, from its head to its last byte. Dropped without a word, the client left.
pub(super) struct Ticket {
    pub(super) conn: Rc<Conn>,
    began: Time,
    /// The model server's status, once its head is there.
    code: u16,
    limited: bool,
    /// When it ended, once it has and has been counted.
    settled: Option<Time>,
}

/// A ticket and the connection that carries it.
pub(super) struct Exchange {
    ticket: Ticket,
    lease: (SocketAddr, Sender),
}

/// What became of a sent request.
enum Sent {
    Answered(Response<Incoming>),
    /// Nothing was written: it may go elsewhere.
    HandedBack(Request<Upload>),
    Failed(Reason),
}

impl Ticket {
    /// `limited`: it holds a place under `max_in_flight`.
    pub(super) fn new(conn: &Rc<Conn>, limited: bool) -> Self {
        conn.enter();
        conn.worker.counters().begin();
        Self { conn: Rc::clone(conn), began: conn.worker.now(), code: 0, limited, settled: None }
    }

    fn answered(&mut self, code: StatusCode) {
        self.code = code.as_u16();
        let now = self.conn.worker.now();
        let counters = self.conn.worker.counters();
        counters.progress(now);
        counters.answered(self.code, now.since(self.began));
    }

    /// It ended whole.
    fn finish(mut self, now: Time) {
        self.settled = Some(now);
        self.conn.worker.counters().finished(self.code, now.since(self.began), now);
    }

    /// It was a tunnel and ended.
    pub(super) fn finish_tunnel(mut self) {
        self.settled = Some(self.conn.worker.now());
        self.conn.worker.counters().tunnelled(self.code);
    }

    /// It ended otherwise.
    pub(super) fn fail(mut self, reason: Reason) {
        self.settled = Some(self.conn.worker.now());
        self.conn.worker.counters().refuse(reason);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let worker = &self.conn.worker;
        let ended = self.settled.unwrap_or_else(|| {
            worker.counters().refuse(Reason::ClientGone);
            worker.now()
        });
        worker.counters().end();
        if self.limited {
            worker.shared.counters.limited.fetch_sub(1, Ordering::Relaxed);
        }
        self.conn.leave(ended);
    }
}

impl Exchange {
    /// A frame of the answer passed.
    pub(super) fn passed(&self, bytes: usize) {
        let worker = &self.ticket.conn.worker;
        worker.counters().progress(worker.now());
        worker.counters().sent(bytes);
    }

    /// The answer's last byte was read: the connection is free for the next.
    pub(super) fn finish(self) {
        let worker = &self.ticket.conn.worker;
        let now = worker.now();
        let (address, sender) = self.lease;
        worker.pool.borrow_mut().put(address, sender, now);
        self.ticket.finish(now);
    }

    pub(super) fn fail(self, reason: Reason) {
        self.ticket.fail(reason);
    }
}

/// Carries an admitted request to an upstream and its answer's head back. On an error the ticket is settled.
pub(super) async fn forward(
    ticket: Ticket,
    mut request: Request<Incoming>,
    upgrading: bool,
    limits: Limits,
) -> Result<Response<Answer>, Reason> {
    let client = upgrading.then(|| hyper::upgrade::on(&mut request));
    let conn = Rc::clone(&ticket.conn);
    let request = request.map(|body| Upload::new(body, Rc::clone(&conn)));
    let (response, lease) = match exchange(&conn, request, limits).await {
        Ok(done) => done,
        Err(reason) => {
            ticket.fail(reason);
            return Err(reason);
        }
    };
    Ok(answer(ticket, response, lease, client))
}

fn answer(
    mut ticket: Ticket,
    mut response: Response<Incoming>,
    lease: (SocketAddr, Sender),
    client: Option<hyper::upgrade::OnUpgrade>,
) -> Response<Answer> {
    ticket.answered(response.status());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = client
    {
        headers::prepare_switch(response.headers_mut());
        upgrade::tunnel(ticket, client, hyper::upgrade::on(&mut response));
        return response.map(|_| Answer::empty());
    }
    headers::prepare_response(response.headers_mut());
    response.map(|body| Answer::stream(body, Exchange { ticket, lease }))
}

/// Sends on a kept connection while one is alive, else on a new one; to another upstream if the first cannot
/// be reached.
async fn exchange(
    conn: &Rc<Conn>,
    mut request: Request<Upload>,
    limits: Limits,
) -> Result<(Response<Incoming>, (SocketAddr, Sender)), Reason> {
    let worker = &conn.worker;
    let mut picked = pick(conn, &request, None).ok_or(Reason::NoUpstream)?;
    let mut second = false;
    loop {
        let address = picked.address;
        add_missing_host(&mut request, address);
        loop {
            let kept = worker.pool.borrow_mut().take(address, worker.now(), limits.upstream_idle);
            let Some(mut sender) = kept else { break };
            let spare = spare_of(&request);
            match send(&mut sender, request, limits.first_byte_timeout).await {
                Sent::Answered(response) => return Ok((response, (address, sender))),
                Sent::HandedBack(back) => request = back,
                Sent::Failed(reason @ Reason::UpstreamReset) => request = spare.ok_or(reason)?,
                Sent::Failed(reason) => return Err(reason),
            }
        }
        // Boxed: rare, and its state would make every connection's larger.
        match Box::pin(connect(conn, picked, limits.connect_timeout)).await {
            Ok(mut sender) => {
                return match send(&mut sender, request, limits.first_byte_timeout).await {
                    Sent::Answered(response) => Ok((response, (address, sender))),
                    Sent::HandedBack(_) => Err(Reason::UpstreamReset),
                    Sent::Failed(reason) => Err(reason),
                };
            }
            Err(reason) if second => return Err(reason),
            Err(reason) => picked = pick(conn, &request, Some(address)).ok_or(reason)?,
        }
        second = true;
    }
}

fn pick(conn: &Conn, request: &Request<Upload>, except: Option<SocketAddr>) -> Option<Picked> {
    conn.worker.shared.setup.load().upstreams.pick(request.uri().path().as_bytes(), except)
}

/// Only HTTP/1.0 clients come without one, and an HTTP/1.1 server insists.
fn add_missing_host(request: &mut Request<Upload>, address: SocketAddr) {
    if !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(&address.to_string())
    {
        request.headers_mut().insert(HOST, host);
    }
}

/// The same request once more, if doing it twice is doing it once (RFC 9110, 9.2.2) and it has no body. Model
/// servers are mostly asked by POST, so that the copy is rare.
fn spare_of(request: &Request<Upload>) -> Option<Request<Upload>> {
    if !request.method().is_safe() || request.headers().contains_key(UPGRADE) {
        return None;
    }
    let mut spare = Request::new(request.body().again()?);
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}

async fn send(sender: &mut Sender, request: Request<Upload>, first_byte: Option<Duration>) -> Sent {
    let sent = sender.try_send_request(request);
    let result = match first_byte {
        None => sent.await,
        Some(limit) => match timeout(limit, sent).await {
            Ok(result) => result,
            Err(_elapsed) => return Sent::Failed(Reason::FirstByteTimeout),
        },
    };
    match result {
        Ok(response) => Sent::Answered(response),
        Err(mut error) => match error.take_message() {
            Some(request) => Sent::HandedBack(request),
            None => Sent::Failed(reason_of(&error.into_error())),
        },
    }
}

fn reason_of(error: &hyper::Error) -> Reason {
    if error.is_parse() {
        Reason::UpstreamInvalid
    } else if error.is_user() {
        // Our only part in it is the body, and that is the client's: it broke off.
        Reason::ClientGone
    } else {
        Reason::UpstreamReset
    }
}

async fn connect(conn: &Conn, to: Picked, within: Duration) -> Result<Sender, Reason> {
    let stream = match timeout(within, TcpStream::connect(to.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            conn.worker.sign_refused(to.id);
            return Err(Reason::UpstreamRefused);
        }
        Ok(Err(_)) => return Err(Reason::UpstreamUnreachable),
        Err(_elapsed) => return Err(Reason::UpstreamConnectTimeout),
    };
    // A small request must not wait for an acknowledgement. Failing is harmless.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits::TRAFFIC_BUFFER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Reason::UpstreamUnreachable)?;
    // Ends with its sender, or when the model server closes; whoever waits on it is told by hyper.
    spawn_local(connection.with_upgrades());
    Ok(sender)
}
