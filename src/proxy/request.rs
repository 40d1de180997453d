//! One request: may it pass, and where to.
//!
//! Whether it may pass is one atomic word that the driver sets when the judgement changes; here it is only read.

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;

use super::access::{About, Recording};
use super::admission::{self, Terms};
use super::body::Answer;
use super::connection::Conn;
use super::forward::{self, Ticket, Way};
use super::headers::Hop;
use super::line::Applicant;
use super::origins::Origin;
use super::places::Place;
use super::refusal::Reason;
use super::{Shared, headers};
use crate::config::UpstreamProtocol;
use crate::limits;

/// Answers one request: forwards it, or says why not.
pub(super) async fn serve(conn: Rc<Conn>, mut request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    if let Some(answer) = probe(&conn, &request) {
        conn.enter();
        conn.leave(conn.worker.now());
        return Ok(answer.map(Answer::Own));
    }
    let from = Asker::of(&request);
    let recording = Recording::begin(&conn.worker, || About::of(&request));
    let shared = &conn.worker.shared;
    let (mut limits, terms) = shared.rules(request.uri().path());
    limits.hold = terms.hold;
    let began = conn.worker.now();
    let place = match admission::at_once(shared.passage(), terms) {
        Ok(place) => place,
        // Boxed: rare, and its state would make every connection's larger.
        Err(terms) => match Box::pin(wait(&conn, &terms, weight(&request), priority(shared, &request))).await {
            Ok(place) => place,
            Err(reason) => {
                recording.into_iter().for_each(|recording| recording.fail(reason));
                return Ok(refusal(&conn, reason, from));
            }
        },
    };
    let origin = Origin::of(conn.peer.ip(), &request);
    let ticket = Ticket::new(&conn, began, place, limits.patience).asked_by(origin);
    let ticket = ticket.by_method(request.method().is_safe()).recorded(recording);
    let hop = hop_of(limits.protocol, &request);
    let tunnel = match headers::prepare_request(&mut request, conn.client(), limits.forwarded_headers, hop) {
        Ok(tunnel) => tunnel,
        Err(reason) => {
            ticket.fail(reason);
            return Ok(refusal(&conn, reason, from));
        }
    };
    let answered = forward::forward(ticket, request, Way { hop, tunnel }, limits).await;
    let mut response = answered.unwrap_or_else(|reason| refusal(&conn, reason, from));
    if conn.is_leaving() {
        say_goodbye(&conn, &mut response, from);
    }
    Ok(response)
}

/// In which words a client understands a refusal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asker {
    Http1,
    Http2,
    /// Over HTTP/2: nothing else carries its trailers.
    Grpc,
}

impl Asker {
    fn of<B>(request: &Request<B>) -> Self {
        if request.version() != Version::HTTP_2 {
            return Self::Http1;
        }
        let grpc =
            request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if grpc { Self::Grpc } else { Self::Http2 }
    }
}

fn hop_of<B>(protocol: UpstreamProtocol, request: &Request<B>) -> Hop {
    match protocol {
        UpstreamProtocol::Http1 => Hop::Http1,
        UpstreamProtocol::H2c => Hop::Http2,
        // What speaks WebSocket mostly speaks HTTP/1.1 only.
        UpstreamProtocol::Auto if request.version() == Version::HTTP_2 && request.method() != Method::CONNECT => {
            Hop::Http2
        }
        UpstreamProtocol::Auto => Hop::Http1,
    }
}

fn probe(conn: &Conn, request: &Request<Incoming>) -> Option<Response<Bytes>> {
    let probes = conn.worker.shared.wiring.probes.as_ref()?;
    probes.answer(request.method(), request.uri(), request.headers(), conn.peer)
}

fn weight(request: &Request<Incoming>) -> u64 {
    request.body().size_hint().exact().unwrap_or(limits::TRAFFIC_BUFFER_BYTES_MAX as u64)
}

fn priority(shared: &Shared, request: &Request<Incoming>) -> i8 {
    shared.priority(|name| request.headers().get(name).and_then(|value| value.to_str().ok()))
}

/// Waits for admission where that is allowed, and counts a request that gets none.
/// `bytes`: what its body will weigh.
pub(super) async fn wait(conn: &Rc<Conn>, terms: &Terms, bytes: u64, priority: i8) -> Result<Place, Reason> {
    let mut waiting = Waiting { conn, ended: Some(Reason::ClientGone) };
    conn.enter();
    // Connections live as long as their requests: an address is nobody else's.
    let who = Applicant { priority, bytes, flow: Rc::as_ptr(conn).addr() as u64 };
    let admitted = admission::wait(conn, terms, who).await;
    waiting.ended = admitted.as_ref().err().copied();
    admitted
}

/// A request before its admission. Dropped without a word, the client left.
struct Waiting<'a> {
    conn: &'a Conn,
    ended: Option<Reason>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.ended {
            self.conn.worker.counters().refuse(reason);
        }
        self.conn.leave(self.conn.worker.now());
    }
}

fn refusal(conn: &Conn, reason: Reason, to: Asker) -> Response<Answer> {
    let about = if reason == Reason::NotReady { conn.worker.shared.deciding_check() } else { None };
    let said = match to {
        Asker::Grpc => reason.grpc_response(about.as_deref()),
        Asker::Http1 | Asker::Http2 => reason.response(about.as_deref()),
    };
    let mut response = said.map(Answer::Own);
    if reason == Reason::Draining {
        say_goodbye(conn, &mut response, to);
    }
    response
}

/// The client's next request is to go elsewhere.
fn say_goodbye(conn: &Conn, response: &mut Response<Answer>, to: Asker) {
    match to {
        Asker::Http1 => {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Asker::Http2 | Asker::Grpc => conn.retire(),
    }
}
