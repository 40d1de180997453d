//! What follows a `101`: bytes both ways until either side is done.
//!
//! Bytes count like those of bodies, and what the model server sends is progress of its.
//! The tunnel counts as a request in flight and as an open connection of its worker until it ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::task::spawn_local;

use super::access;
use super::connection::Open;
use super::forward::{Lease, Ticket};
use super::refusal::Reason;
use super::worker::Worker;

/// Joins client and upstream once both have switched.
pub(super) fn tunnel(ticket: Ticket, lease: Lease, client: OnUpgrade, upstream: OnUpgrade) {
    let open = Open::new(&ticket.conn.worker);
    spawn_local(async move {
        // Counted as open until here, so that a finishing worker waits for it.
        let _open = open;
        // A stream of a shared connection is taken until here.
        let _lease = lease;
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else {
            ticket.fail(Reason::UpstreamAborted);
            return;
        };
        relay(&ticket, TokioIo::new(client), TokioIo::new(upstream)).await;
        ticket.finish_tunnel();
    });
}

/// Bytes both ways until both are done, or either breaks. How a tunnel ends is its protocol's business: a reset
/// is an end like any other.
pub(super) async fn relay<C, U>(ticket: &Ticket, client: C, upstream: U)
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (worker, record) = (&*ticket.conn.worker, ticket.record());
    let mut client = Metered { io: client, worker, record, side: Side::Client };
    let mut upstream = Metered { io: upstream, worker, record, side: Side::Upstream };
    let (sent, received) = copy_bidirectional(&mut client, &mut upstream).await.unwrap_or_default();
    tracing::trace!(sent, received, "tunnel ended");
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Upstream,
}

/// One end of a tunnel, counting what comes out of it.
struct Metered<'a, IO> {
    io: IO,
    worker: &'a Worker,
    record: Option<access::Key>,
    side: Side,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Metered<'_, IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        match self.side {
            Side::Client => {
                self.worker.counters().received(read);
                access::received(self.worker, self.record, read);
            }
            Side::Upstream => {
                self.worker.counters().progress(self.worker.now());
                self.worker.counters().sent(read);
                access::sent(self.worker, self.record, read);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Metered<'_, IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
