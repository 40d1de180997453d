//! One client connection over HTTP/1: request after request, each admitted, sent and answered in its turn.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::Response;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::client::{Ask, Asked, Client, Wire};
use super::exchange::{Ended, Exchange};
use super::request::{Request, Rules};
use crate::config::UpstreamProtocol;
use crate::limits;
use crate::proxy::access::Recording;
use crate::proxy::connection::Conn;
use crate::proxy::forward::Ticket;
use crate::proxy::origins::Origin;
use crate::proxy::refusal::Reason;
use crate::proxy::upstreams::Picked;
use crate::proxy::{Limits, access, admission, dial, forward, request, upgrade};

/// What a request leaves behind.
enum After {
    /// Another may follow.
    Next,
    /// The connection ends; with `unread`, though the client may still be sending.
    Close { unread: bool },
    /// The client left, or is to be left without another word.
    Gone,
    /// The connection is a tunnel.
    Tunnel(Box<Tunnel>),
}

/// What a tunnel joins, beside the client.
struct Tunnel {
    ticket: Ticket,
    link: TcpStream,
    /// The server's first bytes.
    first: Vec<u8>,
}

/// Serves a client until it leaves, expires, or the worker finishes. `first`: what was read of it already.
pub(in crate::proxy) async fn serve<S: Wire>(conn: &Rc<Conn>, stream: S, first: Vec<u8>) {
    let mut client = Client::new(stream, first);
    let scratch = &conn.worker.scratch;
    loop {
        let limits = conn.worker.shared.limits();
        if limits.protocol == UpstreamProtocol::H2c {
            // A reload has changed what the model server speaks; the next connection is served accordingly.
            return closed(conn, client, false).await;
        }
        let rules = Rules {
            forwarded: limits.forwarded_headers.then(|| conn.client()),
            show: conn.worker.shared.wiring.probes.is_some(),
        };
        let Some(read) = poll_fn(|cx| client.poll_request(cx, conn, rules)).await else { return };
        client.lend(scratch);
        let after = match read {
            Ok(request) => answered(conn, &mut client, request).await,
            Err(reason) => refuse_unread(conn, &mut client, reason),
        };
        if let After::Tunnel(tunnel) = after {
            return tunnelled(tunnel, client).await;
        }
        if matches!(after, After::Gone) || !flushed(conn, &mut client).await {
            return;
        }
        client.give_back(scratch);
        if let After::Close { unread } = after {
            return closed(conn, client, unread).await;
        }
    }
}

// What follows is boxed, and made outside of the task that waits on it: a connection at rest is to weigh little, and an
// allocation is a small part of a request.

fn answered<'a, S: Wire>(
    conn: &'a Rc<Conn>,
    client: &'a mut Client<S>,
    request: Request,
) -> Pin<Box<impl Future<Output = After> + 'a>> {
    Box::pin(answer(conn, client, request))
}

fn tunnelled<S: Wire>(tunnel: Box<Tunnel>, client: Client<S>) -> Pin<Box<impl Future<Output = ()>>> {
    Box::pin(run(tunnel, client))
}

fn closed<S: Wire>(conn: &Conn, client: Client<S>, unread: bool) -> Pin<Box<impl Future<Output = ()>>> {
    Box::pin(client.close(&conn.worker.scratch, unread))
}

/// Answers what could not be read as a request.
fn refuse_unread<S: Wire>(conn: &Conn, client: &mut Client<S>, reason: Reason) -> After {
    conn.enter();
    conn.worker.counters().refuse(reason);
    conn.leave(conn.worker.now());
    let asked = Asked { is_head: false, http10: false, keep_alive: false, upgrade: false };
    client.respond(&reason.response(None), asked);
    After::Close { unread: true }
}

/// Waits until the client has taken what it is owed. `false`: it did not.
async fn flushed<S: Wire>(conn: &Conn, client: &mut Client<S>) -> bool {
    poll_fn(|cx| if conn.poll_alive(cx) { client.poll_flush(cx).map(|done| done.is_ok()) } else { Poll::Ready(false) })
        .await
}

/// Who asks for what, while the head is still there.
fn origin(conn: &Conn, request: &Request) -> Origin {
    let chain = if request.was_forwarded { request.field("x-forwarded-for") } else { None };
    let forwarded = chain.map(str::as_bytes);
    let length = request.body.left().map(|left| left + request.received as u64);
    Origin::new(conn.peer.ip(), forwarded, request.path().as_bytes(), length)
}

async fn answer<S: Wire>(conn: &Rc<Conn>, client: &mut Client<S>, mut request: Request) -> After {
    let shared = &conn.worker.shared;
    let asked = Asked {
        is_head: request.is_head,
        http10: request.http10,
        keep_alive: request.keep_alive,
        upgrade: request.upgrade,
    };
    if let Some(response) = probe(conn, &request) {
        conn.enter();
        conn.leave(conn.worker.now());
        return say(client, &response, &request, asked);
    }
    let recording = Recording::begin(&conn.worker, || request.about());
    let (mut limits, terms) = shared.rules(request.path());
    limits.hold = terms.hold;
    let began = conn.worker.now();
    let place = match admission::at_once(shared.passage(), terms) {
        Ok(place) => place,
        // Boxed: rare, and its state would make every connection's larger.
        Err(terms) => {
            let bytes = request.body.left().unwrap_or(limits::TRAFFIC_BUFFER_BYTES_MAX as u64);
            let priority = shared.priority(|name| request.field(name.as_str()));
            let waiting = request::wait(conn, &terms, bytes + request.received as u64, priority);
            match Box::pin(unless_gone(conn, client, &request, waiting)).await {
                Some(Ok(place)) => place,
                Some(Err(reason)) => {
                    recording.into_iter().for_each(|recording| recording.fail(reason));
                    return refuse(conn, client, reason, &request, asked);
                }
                None => return After::Gone,
            }
        }
    };
    let ticket = Ticket::new(conn, began, place, limits.patience).asked_by(origin(conn, &request));
    let mut ticket = ticket.by_method(request.is_safe).recorded(recording);
    conn.worker.counters().received(request.received);
    access::received(&conn.worker, ticket.record(), request.received);
    match forward(conn, client, &mut request, &mut ticket, asked, limits).await {
        (Ended::Whole(response), link) => {
            let now = conn.worker.now();
            if let Some((address, link)) = link.filter(|_| response.reusable) {
                conn.worker.links.borrow_mut().put(address, link, now);
            }
            ticket.finish(now);
            conn.worker.scratch.put(request.out);
            if response.keep_alive { After::Next } else { After::Close { unread: !request.body.is_over() } }
        }
        (Ended::Switched(first), Some((_, link))) => {
            ticket.becomes_tunnel();
            After::Tunnel(Box::new(Tunnel { ticket, link, first }))
        }
        (Ended::Failed(reason), _) => {
            ticket.fail(reason);
            refuse(conn, client, reason, &request, asked)
        }
        (Ended::Broken, _) => {
            ticket.fail(Reason::UpstreamAborted);
            After::Gone
        }
        // The ticket's end tells that nobody waited for it.
        (Ended::Gone | Ended::Dead | Ended::Switched(..), _) => After::Gone,
    }
}

/// A connection to the model server that an exchange has ended on.
type Link = Option<(SocketAddr, TcpStream)>;

/// Sends on a kept connection while one is alive, else on a new one; to another upstream if the first cannot be
/// reached.
async fn forward<S: Wire>(
    conn: &Rc<Conn>,
    client: &mut Client<S>,
    request: &mut Request,
    ticket: &mut Ticket,
    asked: Asked,
    limits: Limits,
) -> (Ended, Link) {
    let mut second = false;
    let record = ticket.record();
    let mut next = forward::pick_for(conn, request.path(), record, None);
    let mut nobody = Reason::NoUpstream;
    loop {
        let Some(mut picked) = next else {
            // Boxed, as all that is rare here.
            let pick = || forward::pick_for(conn, request.path(), record, None);
            let waiting = forward::await_upstream(conn, pick, nobody, limits, ticket.began());
            match Box::pin(unless_gone(conn, client, request, waiting)).await {
                Some(Ok(picked)) => next = Some(picked),
                Some(Err(reason)) => return (Ended::Failed(reason), None),
                None => return (Ended::Gone, None),
            }
            continue;
        };
        request.add_missing_host(picked.address);
        let kept = conn.worker.links.borrow_mut().take(picked.address, conn.worker.now(), limits.upstream_idle);
        let (mut link, reused) = match kept {
            Some(link) => (link, true),
            None => match Box::pin(unless_gone(conn, client, request, dialled(conn, &picked, limits))).await {
                Some(Ok(link)) => (link, false),
                Some(Err(reason)) => {
                    nobody = picked.failed(reason);
                    let other = || forward::pick_for(conn, request.path(), record, Some(picked.address));
                    next = if second { None } else { other() };
                    second = true;
                    continue;
                }
                None => return (Ended::Gone, None),
            },
        };
        let patience = limits.first_byte_timeout.map(|limit| Box::pin(sleep(limit)));
        let turn = &mut picked.turn;
        let mut exchange = Exchange::new(client, request, ticket, asked, (&mut link, reused), turn, patience);
        match poll_fn(|cx| exchange.poll(cx)).await {
            // The same upstream, for it has said nothing against itself.
            Ended::Dead => next = Some(picked),
            Ended::Failed(reason) => return (Ended::Failed(picked.failed(reason)), None),
            ended => return (ended, Some((picked.address, link))),
        }
    }
}

async fn dialled(conn: &Conn, picked: &Picked, limits: Limits) -> Result<TcpStream, Reason> {
    dial::connect(&conn.worker, picked, limits.connect_timeout).await
}

/// `None`: the client left, or its time is up.
async fn unless_gone<S: Wire, F: Future>(
    conn: &Conn,
    client: &mut Client<S>,
    request: &Request,
    what: F,
) -> Option<F::Output> {
    let mut what = pin!(what);
    // With a body still to come its end tells, later.
    let watched = request.body.is_over();
    let ask = if request.http10 { Ask::Wait } else { Ask::Interim };
    poll_fn(|cx| {
        if !conn.poll_alive(cx) {
            return Poll::Ready(None);
        }
        if let Poll::Ready(output) = what.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if watched && client.poll_gone(cx, &conn.worker.scratch, ask).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

fn probe(conn: &Conn, request: &Request) -> Option<Response<Bytes>> {
    let (hook, seen) = (conn.worker.shared.wiring.probes.as_ref()?, request.seen.as_ref()?);
    hook.answer(&seen.method, &seen.uri, &seen.headers, conn.peer)
}

fn refuse<S: Wire>(conn: &Conn, client: &mut Client<S>, reason: Reason, request: &Request, asked: Asked) -> After {
    let about = if reason == Reason::NotReady { conn.worker.shared.deciding_check() } else { None };
    let keep_alive =
        asked.keep_alive && !conn.is_leaving() && reason != Reason::Draining && reason != Reason::BadRequest;
    say(client, &reason.response(about.as_deref()), request, Asked { keep_alive, ..asked })
}

/// Answers by ourselves. A client that still sends a body is told to stop by the connection's end.
fn say<S: Wire>(client: &mut Client<S>, response: &Response<Bytes>, request: &Request, asked: Asked) -> After {
    let whole = request.body.is_over();
    let keep_alive = asked.keep_alive && whole && !client.is_closed();
    client.respond(response, Asked { keep_alive, ..asked });
    if keep_alive { After::Next } else { After::Close { unread: !whole } }
}

/// Bytes both ways until either side is done. How a tunnel ends is its protocol's business.
async fn run<S: Wire>(tunnel: Box<Tunnel>, mut client: Client<S>) {
    let Tunnel { ticket, mut link, first } = *tunnel;
    let conn = Rc::clone(&ticket.conn);
    let worker = &conn.worker;
    client.out().extend_from_slice(&first);
    if flushed(&conn, &mut client).await {
        worker.counters().sent(first.len());
        let (stream, ahead) = client.into_parts();
        worker.counters().received(ahead.len());
        if link.write_all(&ahead).await.is_ok() {
            upgrade::relay(&ticket, stream, link).await;
        }
    }
    ticket.finish_tunnel();
}
