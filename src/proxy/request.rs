//! One request: may it pass, and where to.
//!
//! The gate is one atomic word that the driver sets when the judgement changes; here it is only read.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;

use super::body::Answer;
use super::connection::Conn;
use super::forward::{self, Ticket};
use super::refusal::Reason;
use super::{Passage, headers};

/// Answers one request: forwards it, or says why not.
pub(super) async fn serve(conn: Rc<Conn>, mut request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    if let Some(answer) = probe(&conn, &request) {
        conn.enter();
        conn.leave(conn.worker.now());
        return Ok(answer.map(Answer::Own));
    }
    let limits = conn.worker.shared.limits();
    let ticket = match admit(&conn, limits.max_in_flight) {
        Ok(ticket) => ticket,
        Err(reason) => return Ok(refuse(&conn, reason)),
    };
    let upgrading = match headers::prepare_request(&mut request, conn.peer.ip(), limits.forwarded_headers) {
        Ok(upgrading) => upgrading,
        Err(reason) => {
            ticket.fail(reason);
            return Ok(refusal(&conn, reason));
        }
    };
    let answered = forward::forward(ticket, request, upgrading, limits).await;
    let mut response = answered.unwrap_or_else(|reason| refusal(&conn, reason));
    if conn.worker.shared.passage() == Passage::Draining {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn probe(conn: &Conn, request: &Request<Incoming>) -> Option<Response<Bytes>> {
    let probes = conn.worker.shared.wiring.probes.as_ref()?;
    probes.answer(request.method(), request.uri(), request.headers(), conn.peer)
}

/// The gate and the limit. Admitted, the request is in flight until its ticket ends.
fn admit(conn: &Rc<Conn>, max_in_flight: Option<usize>) -> Result<Ticket, Reason> {
    let shared = &conn.worker.shared;
    match shared.passage() {
        Passage::Open => {}
        Passage::NotReady => return Err(Reason::NotReady),
        Passage::Draining => return Err(Reason::Draining),
    }
    let Some(max) = max_in_flight else { return Ok(Ticket::new(conn, false)) };
    let all = &shared.counters.limited;
    if all.fetch_add(1, Ordering::Relaxed) >= max {
        all.fetch_sub(1, Ordering::Relaxed);
        return Err(Reason::QueueFull);
    }
    Ok(Ticket::new(conn, true))
}

/// Counts and answers a request that was not admitted.
fn refuse(conn: &Conn, reason: Reason) -> Response<Answer> {
    conn.enter();
    conn.worker.counters().refuse(reason);
    conn.leave(conn.worker.now());
    refusal(conn, reason)
}

fn refusal(conn: &Conn, reason: Reason) -> Response<Answer> {
    let about = if reason == Reason::NotReady { conn.worker.shared.deciding_check() } else { None };
    let mut response = reason.response(about.as_deref()).map(Answer::Own);
    if reason == Reason::Draining {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
