//! One exchange with the model server: a connection, the request, the answer's head.
//!
//! A request is sent a second time only when a kept connection died before a head came back, and only if
//! hyper hands it back untouched (nothing of it was written) or it is safe to do twice and has no body. A body
//! that was begun is never replayed.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::header::UPGRADE;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::upgrade::OnUpgrade;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::access::{self, Recording};
use super::admission;
use super::body::{Answer, Upload};
use super::channels::Channel;
use super::connection::Conn;
use super::flights::Flight;
use super::headers::{Hop, Tunnel};
use super::origins::Origin;
use super::places::Place;
use super::pool::Sender;
use super::refusal::Reason;
use super::substance::Substance;
use super::tally::{Turn, Verdict};
use super::upstreams::Picked;
use super::{Limits, dial, headers, upgrade};
use crate::engine::Time;

/// A request in flight, from its head to its last byte. Dropped without a word, the client left.
pub(super) struct Ticket {
    pub(super) conn: Rc<Conn>,
    began: Time,
    /// The model server's status, once its head is there.
    code: u16,
    /// What its answer says about the model server so far.
    verdict: Verdict,
    /// Held until the end.
    _place: Place,
    flight: Flight,
    /// When its head came.
    answered: Option<Time>,
    /// Requests in flight when it began, itself among them.
    sharing: u32,
    /// The same with those that nobody waited for any more.
    shared_by: u32,
    /// How long its route lets the model server be silent; zero if it does not say.
    patience: Duration,
    /// Who asked for what.
    origin: Origin,
    tunnel: bool,
    /// At the upstream that took it, where there are several.
    turn: Option<Turn>,
    /// When it ended, once it has and has been counted.
    settled: Option<Time>,
    /// Where it may get a line in the access log.
    recording: Option<Recording>,
}

/// A ticket and the connection that carries it.
pub(super) struct Exchange {
    ticket: Ticket,
    lease: Lease,
}

/// A connection to the model server for the time of an exchange.
pub(super) enum Lease {
    /// For this exchange alone.
    Own(SocketAddr, Sender),
    /// Together with others.
    Shared(Rc<Channel>),
}

/// An answer's head, the connection that it came by, and its turn at the upstream.
type Taken = (Response<Incoming>, Lease, Option<Turn>);

/// What a request is, beside its head and its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) hop: Hop,
    pub(super) tunnel: Option<Tunnel>,
}

/// What became of a sent request.
enum Sent {
    Answered(Response<Incoming>),
    /// Nothing was written: it may go elsewhere.
    HandedBack(Request<Upload>),
    Failed(Reason),
}

impl Ticket {
    pub(super) fn new(conn: &Rc<Conn>, began: Time, place: Place, patience: Duration) -> Self {
        conn.enter();
        let flight = conn.worker.counters().begin(conn.worker.now(), patience);
        let sharing = u32::try_from(conn.worker.shared.counters.in_flight()).unwrap_or(u32::MAX);
        let shared_by = conn.worker.shared.counters.shared_by();
        Self {
            conn: Rc::clone(conn),
            began,
            code: 0,
            verdict: Verdict::Neither,
            _place: place,
            flight,
            answered: None,
            sharing,
            shared_by,
            patience,
            origin: Origin::of_caller(conn.peer.ip()),
            tunnel: false,
            turn: None,
            settled: None,
            recording: None,
        }
    }

    /// Tells who asked for what more closely than by the connection.
    pub(super) const fn asked_by(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Tells whether its method is a safe one: then it asks the model server for no work.
    pub(super) fn by_method(self, is_safe: bool) -> Self {
        let flights = self.conn.worker.counters().flights();
        if is_safe {
            flights.asks(self.flight);
        } else {
            flights.work_comes(self.began);
        }
        self
    }

    /// What becomes of it is noted here too.
    pub(super) fn recorded(mut self, recording: Option<Recording>) -> Self {
        self.recording = recording;
        self
    }

    /// For those who see a part of it pass.
    pub(super) fn record(&self) -> Option<access::Key> {
        self.recording.as_ref().map(Recording::key)
    }

    /// The head came, and says so much about the model server; what follows it is of this substance.
    pub(super) fn answered(&mut self, code: u16, verdict: Verdict, follows: &Substance) {
        self.code = code;
        self.says(verdict);
        if let Some(recording) = &self.recording {
            recording.answered(self.code);
        }
        let now = self.conn.worker.now();
        self.answered = Some(now);
        let counters = self.conn.worker.counters();
        if verdict != Verdict::Good {
            counters.flights().refused(self.flight);
        }
        if !follows.is_promised() {
            counters.progress(now);
            counters.flights().moved(self.flight, now);
            self.turn.iter().for_each(|turn| turn.moved(now));
        }
        counters.answered(self.code, now.since(self.began));
    }

    fn says(&mut self, verdict: Verdict) {
        self.verdict = verdict;
        if let Some(turn) = &mut self.turn {
            turn.says(verdict);
        }
    }

    /// A part of the answer passed; `substance`: it was more than a sign that the connection is open.
    pub(super) fn passed(&self, bytes: usize, substance: bool) {
        let worker = &self.conn.worker;
        if substance {
            let now = worker.now();
            worker.counters().progress(now);
            worker.counters().flights().moved(self.flight, now);
            self.turn.iter().for_each(|turn| turn.moved(now));
        }
        worker.counters().sent(bytes);
        if let Some(recording) = &self.recording {
            recording.sent(bytes);
        }
    }

    /// The upstream that answers it.
    pub(super) fn taken(&mut self, turn: Option<Turn>) {
        self.turn = turn;
    }

    /// When the request came.
    pub(super) const fn began(&self) -> Time {
        self.began
    }

    /// It ended whole. An answer that does not tell how the server works counts as nothing, wherever ends are counted:
    /// on trial it decides nothing either. No answer at all always tells.
    pub(super) fn finish(mut self, now: Time) {
        self.settled = Some(now);
        let worker = &self.conn.worker;
        if !worker.shared.counters.tells(worker.index(), self.flight, now) {
            self.says(Verdict::Neither);
        }
        self.recording.take().into_iter().for_each(Recording::finish);
        let (counters, took) = (self.conn.worker.counters(), now.since(self.began));
        counters.finished(self.code, took, now);
        counters.judged(self.verdict, self.origin, self.silent_part(took), self.shared_by, now);
        if let Some(turn) = self.turn.take() {
            turn.finish();
        }
    }

    /// How much of the time that it took the model server was silent: all of it, unless it streamed. A stream is
    /// heard all the while, and who leaves it is missed at the next write.
    fn silent_part(&self, took: Duration) -> Duration {
        let head = self.answered.map_or(took, |at| at.since(self.began));
        if head * 2 < took { head } else { took }
    }

    /// Somebody gave up on it.
    fn abandon(&self, now: Time) {
        let flights = self.conn.worker.counters().flights();
        flights.abandon(now, flights.last(self.flight).unwrap_or(self.began), self.sharing, self.patience);
    }

    /// From now on it is a tunnel: its silence says nothing.
    pub(super) fn becomes_tunnel(&mut self) {
        self.tunnel = true;
        self.conn.worker.counters().flights().becomes_tunnel(&mut self.flight);
        if let Some(turn) = &mut self.turn {
            turn.switched();
        }
    }

    /// It was a tunnel and ended.
    pub(super) fn finish_tunnel(mut self) {
        self.settled = Some(self.conn.worker.now());
        self.recording.take().into_iter().for_each(Recording::finish);
        self.conn.worker.counters().tunnelled(self.code);
    }

    /// It ended otherwise.
    pub(super) fn fail(mut self, reason: Reason) {
        let now = self.conn.worker.now();
        self.settled = Some(now);
        self.recording.take().into_iter().for_each(|recording| recording.fail(reason));
        self.conn.worker.counters().failed(reason, self.origin);
        if let Some(turn) = self.turn.take() {
            turn.fail(reason);
        }
        // Given up by us or by the client, it may still be worked on.
        if matches!(reason, Reason::FirstByteTimeout | Reason::ClientGone) {
            self.abandon(now);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let worker = &self.conn.worker;
        let ended = self.settled.unwrap_or_else(|| {
            worker.counters().refuse(Reason::ClientGone);
            let now = worker.now();
            if !self.tunnel {
                self.abandon(now);
            }
            now
        });
        if self.tunnel {
            worker.counters().flights().tunnel_ends();
        }
        worker.counters().end(self.flight, ended);
        self.conn.leave(ended);
    }
}

impl Exchange {
    /// See [`Ticket::passed`].
    pub(super) fn passed(&self, bytes: usize, substance: bool) {
        self.ticket.passed(bytes, substance);
    }

    /// The answer's trailers passed.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        self.ticket.says(self.ticket.verdict.with(trailers));
    }

    /// The answer's last byte was read: the connection is free for the next.
    pub(super) fn finish(self) {
        let worker = &self.ticket.conn.worker;
        let now = worker.now();
        match self.lease {
            Lease::Own(address, sender) => worker.pool.borrow_mut().put(address, sender, now),
            Lease::Shared(channel) => channel.used(now),
        }
        self.ticket.finish(now);
    }

    pub(super) fn fail(self, reason: Reason) {
        self.ticket.fail(reason);
    }
}

/// Carries an admitted request to an upstream and its answer's head back. On an error the ticket is settled.
pub(super) async fn forward(
    mut ticket: Ticket,
    mut request: Request<Incoming>,
    way: Way,
    limits: Limits,
) -> Result<Response<Answer>, Reason> {
    let client = way.tunnel.map(|tunnel| (tunnel, hyper::upgrade::on(&mut request)));
    let conn = Rc::clone(&ticket.conn);
    let record = ticket.record();
    let request = request.map(|body| Upload::new(body, Rc::clone(&conn), record));
    let done = match way.hop {
        Hop::Http1 => exchange(&conn, request, limits, ticket.began).await,
        Hop::Http2 => exchange_shared(&conn, request, limits, ticket.began).await,
    };
    match done {
        Ok((response, lease, turn)) => {
            ticket.taken(turn);
            answer(ticket, response, lease, client)
        }
        Err(reason) => {
            ticket.fail(reason);
            Err(reason)
        }
    }
}

fn answer(
    mut ticket: Ticket,
    mut response: Response<Incoming>,
    lease: Lease,
    client: Option<(Tunnel, OnUpgrade)>,
) -> Result<Response<Answer>, Reason> {
    let substance = Substance::of(response.headers());
    let verdict = Verdict::of(response.status(), response.headers());
    ticket.answered(response.status().as_u16(), verdict, &substance);
    let Some((tunnel, client)) = client else {
        headers::prepare_response(response.headers_mut());
        return Ok(response.map(|body| Answer::stream(body, Exchange { ticket, lease }, substance)));
    };
    let switched = match tunnel {
        Tunnel::Upgrade | Tunnel::ConnectToUpgrade => response.status() == StatusCode::SWITCHING_PROTOCOLS,
        Tunnel::Connect | Tunnel::UpgradeToConnect(_) => response.status().is_success(),
    };
    if switched {
        ticket.becomes_tunnel();
        headers::prepare_switch(response.headers_mut(), tunnel);
        upgrade::tunnel(ticket, lease, client, hyper::upgrade::on(&mut response));
        match tunnel {
            Tunnel::ConnectToUpgrade => *response.status_mut() = StatusCode::OK,
            Tunnel::UpgradeToConnect(_) => *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS,
            Tunnel::Upgrade | Tunnel::Connect => {}
        }
        return Ok(response.map(|_| Answer::empty()));
    }
    if tunnel == Tunnel::ConnectToUpgrade && response.status().is_success() {
        // A success would tell the client that there is a tunnel.
        ticket.fail(Reason::UpstreamInvalid);
        return Err(Reason::UpstreamInvalid);
    }
    headers::prepare_response(response.headers_mut());
    Ok(response.map(|body| Answer::stream(body, Exchange { ticket, lease }, substance)))
}

/// Sends on a kept connection while one is alive, else on a new one; to another upstream if the first cannot
/// be reached.
async fn exchange(conn: &Rc<Conn>, mut request: Request<Upload>, limits: Limits, began: Time) -> Result<Taken, Reason> {
    let worker = &conn.worker;
    let mut picked = match pick(conn, &request, None) {
        Some(picked) => picked,
        None => {
            Box::pin(await_upstream(conn, || pick(conn, &request, None), Reason::NoUpstream, limits, began)).await?
        }
    };
    let mut second = false;
    loop {
        let address = picked.address;
        headers::add_missing_host(&mut request, Hop::Http1, address);
        loop {
            let kept = worker.pool.borrow_mut().take(address, worker.now(), limits.upstream_idle);
            let Some(mut sender) = kept else { break };
            let spare = spare_of(&request);
            match sent(sender.try_send_request(request), limits.first_byte_timeout).await {
                Sent::Answered(response) => return Ok((response, Lease::Own(address, sender), picked.turn)),
                Sent::HandedBack(back) => request = back,
                Sent::Failed(reason @ Reason::UpstreamReset) => {
                    request = spare.ok_or(reason).map_err(|reason| picked.failed(reason))?;
                }
                Sent::Failed(reason) => return Err(picked.failed(reason)),
            }
        }
        // Boxed: rare, and its state would make every connection's larger.
        match Box::pin(dial::http1(worker, &picked, limits.connect_timeout)).await {
            Ok(mut sender) => {
                return match sent(sender.try_send_request(request), limits.first_byte_timeout).await {
                    Sent::Answered(response) => Ok((response, Lease::Own(address, sender), picked.turn)),
                    Sent::HandedBack(_) => Err(picked.failed(Reason::UpstreamReset)),
                    Sent::Failed(reason) => Err(picked.failed(reason)),
                };
            }
            Err(reason) => {
                picked.failed(reason);
                let other = if second { None } else { pick(conn, &request, Some(address)) };
                second = true;
                picked = match other {
                    Some(other) => other,
                    None => {
                        Box::pin(await_upstream(conn, || pick(conn, &request, None), reason, limits, began)).await?
                    }
                };
            }
        }
    }
}

/// The same over the connection that all share. A stream that was reset says that the server did not want it:
/// only where the whole connection died, and was not new, is the request sent again, and once.
async fn exchange_shared(
    conn: &Rc<Conn>,
    mut request: Request<Upload>,
    limits: Limits,
    began: Time,
) -> Result<Taken, Reason> {
    let worker = &conn.worker;
    let mut picked = match pick(conn, &request, None) {
        Some(picked) => picked,
        None => {
            Box::pin(await_upstream(conn, || pick(conn, &request, None), Reason::NoUpstream, limits, began)).await?
        }
    };
    let (mut second, mut retried) = (false, false);
    loop {
        headers::add_missing_host(&mut request, Hop::Http2, picked.address);
        let live = worker.channels.borrow_mut().slot(picked.address).live();
        let (channel, new) = match live {
            Some(channel) => (channel, false),
            None => match Box::pin(dial::http2(worker, &picked, limits.connect_timeout)).await {
                Ok(dialled) => dialled,
                Err(reason) => {
                    picked.failed(reason);
                    let other = if second { None } else { pick(conn, &request, Some(picked.address)) };
                    second = true;
                    picked = match other {
                        Some(other) => other,
                        None => {
                            Box::pin(await_upstream(conn, || pick(conn, &request, None), reason, limits, began)).await?
                        }
                    };
                    continue;
                }
            },
        };
        let last = new || retried;
        let spare = if last { None } else { spare_of(&request) };
        let sending = channel.sender().try_send_request(request);
        request = match sent(sending, limits.first_byte_timeout).await {
            Sent::Answered(response) => return Ok((response, Lease::Shared(channel), picked.turn)),
            Sent::HandedBack(back) if !last => back,
            Sent::HandedBack(_) => return Err(picked.failed(Reason::UpstreamReset)),
            Sent::Failed(reason @ Reason::UpstreamReset) => {
                // The streams of a dead connection hear of it before the connection's own task does.
                yield_now().await;
                spare.filter(|_| channel.is_closed()).ok_or(reason).map_err(|reason| picked.failed(reason))?
            }
            Sent::Failed(reason) => return Err(picked.failed(reason)),
        };
        retried = true;
    }
}

/// Nobody is there. While the request may be held, the model server may be on its way back: not a byte was sent.
pub(super) async fn await_upstream(
    conn: &Conn,
    pick: impl Fn() -> Option<Picked>,
    reason: Reason,
    limits: Limits,
    began: Time,
) -> Result<Picked, Reason> {
    let nobody = matches!(reason, Reason::NoUpstream | Reason::UpstreamRefused);
    while nobody && admission::pause(conn, began, limits.hold).await {
        if let Some(picked) = pick() {
            return Ok(picked);
        }
    }
    Err(reason)
}

fn pick(conn: &Conn, request: &Request<Upload>, except: Option<SocketAddr>) -> Option<Picked> {
    pick_for(conn, request.uri().path(), request.body().record(), except)
}

/// The upstream for a request to this path. `record`: where that is noted.
pub(super) fn pick_for(
    conn: &Conn,
    path: &str,
    record: Option<access::Key>,
    except: Option<SocketAddr>,
) -> Option<Picked> {
    let picked = conn.worker.shared.setup.load().upstreams.pick(conn.worker.index(), path.as_bytes(), except)?;
    access::sent_to(&conn.worker, record, picked.address);
    Some(picked)
}

/// The same request once more, if doing it twice is doing it once (RFC 9110, 9.2.2) and it has no body. Model
/// servers are mostly asked by POST, so that the copy is rare.
fn spare_of(request: &Request<Upload>) -> Option<Request<Upload>> {
    if !request.method().is_safe() || request.headers().contains_key(UPGRADE) {
        return None;
    }
    let mut spare = Request::new(request.body().again()?);
    *spare.version_mut() = request.version();
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}

async fn sent(
    sending: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Upload>>>>,
    first_byte: Option<Duration>,
) -> Sent {
    let result = match first_byte {
        None => sending.await,
        Some(limit) => match timeout(limit, sending).await {
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
