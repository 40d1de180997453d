//! What follows a `101`: bytes both ways until either side is done.
//!
//! Bytes count like those of bodies, and what the model server sends is progress of its.
//! The tunnel counts as a request in flight and as an open connection of its worker until it ends.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::spawn_local;

use super::access;
use super::connection::Open;
use super::forward::{Lease, Ticket};
use super::http1::{Scratch, poll_write_all};
use super::refusal::Reason;

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
    let received = |count| {
        worker.counters().received(count);
        access::received(worker, record, count);
    };
    let sent = |count| {
        let now = worker.now();
        worker.counters().progress(now);
        worker.counters().flights().worked(now);
        worker.counters().sent(count);
        access::sent(worker, record, count);
    };
    if let Err(error) = join((client, received), (upstream, sent), &worker.scratch).await {
        tracing::trace!(%error, "tunnel broke");
    }
}

/// Joins two ends, each with the count of what comes out of it.
async fn join<A, B>(
    (mut a, from_a): (A, impl Fn(usize)),
    (mut b, from_b): (B, impl Fn(usize)),
    scratch: &Scratch,
) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut there, mut back) = (Way::default(), Way::default());
    poll_fn(|cx| {
        let there = there.poll(cx, &mut a, &mut b, scratch, &from_a)?;
        let back = back.poll(cx, &mut b, &mut a, scratch, &from_b)?;
        if there.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// One direction of a tunnel. At rest it holds no buffer: bytes are read into the worker's, and leave it at once
/// unless the other side does not take them.
#[derive(Default)]
struct Way {
    /// Read and not yet taken, from `taken` on.
    pending: Vec<u8>,
    taken: usize,
    /// Written, and perhaps still in a buffer of the other side's.
    unflushed: bool,
    end: End,
}

#[derive(Clone, Copy, Default)]
enum End {
    #[default]
    Open,
    /// No more comes; the other side is not told yet.
    Read,
    Told,
}

impl Way {
    /// Ready once `from` has ended and `to` was told. Bytes are counted when they come.
    fn poll<F, T>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        scratch: &Scratch,
        count: impl Fn(usize),
    ) -> Poll<io::Result<()>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        loop {
            ready!(poll_write_all(cx, to, &self.pending, &mut self.taken))?;
            (self.pending, self.taken) = (Vec::new(), 0);
            match self.end {
                End::Open => {}
                End::Read => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.end = End::Told;
                    continue;
                }
                End::Told => return Poll::Ready(Ok(())),
            }
            let mut input = scratch.input();
            let mut buffer = ReadBuf::new(&mut input);
            let Poll::Ready(read) = Pin::new(&mut *from).poll_read(cx, &mut buffer) else {
                if std::mem::take(&mut self.unflushed) && Pin::new(&mut *to).poll_flush(cx)?.is_pending() {
                    self.unflushed = true;
                }
                return Poll::Pending;
            };
            read?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                self.end = End::Read;
                continue;
            }
            count(bytes.len());
            self.unflushed = true;
            let written = match Pin::new(&mut *to).poll_write(cx, bytes)? {
                Poll::Ready(written) => written,
                Poll::Pending => 0,
            };
            self.pending.extend_from_slice(&bytes[written..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn on_one_thread<F: Future>(what: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(what)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn whatever_goes_in_comes_out_in_order_and_counted_however_narrow_the_ends(
            up in prop::collection::vec(any::<u8>(), 0..200_000),
            down in prop::collection::vec(any::<u8>(), 0..2_000),
            narrow in 1_usize..5_000,
            wide in 1_usize..100_000,
        ) {
            let (received, sent) = (Cell::new(0), Cell::new(0));
            on_one_thread(async {
                let scratch = Scratch::new();
                let (mut client, ours) = duplex(wide);
                let (theirs, mut server) = duplex(narrow);
                let tunnel = join(
                    (ours, |count| received.set(received.get() + count)),
                    (theirs, |count| sent.set(sent.get() + count)),
                    &scratch,
                );
                let (mut out, mut back) = (Vec::new(), Vec::new());
                let client = async {
                    client.write_all(&up).await.unwrap();
                    // It says no more, and still listens.
                    client.shutdown().await.unwrap();
                    client.read_to_end(&mut back).await.unwrap();
                };
                let server = async {
                    server.read_to_end(&mut out).await.unwrap();
                    server.write_all(&down).await.unwrap();
                    server.shutdown().await.unwrap();
                };
                let (ended, (), ()) = tokio::join!(tunnel, client, server);
                ended.unwrap();
                assert!(out == up && back == down);
            });
            prop_assert_eq!((received.get(), sent.get()), (up.len(), down.len()));
        }
    }

    #[test]
    fn an_end_that_breaks_ends_the_tunnel() {
        on_one_thread(async {
            let scratch = Scratch::new();
            let (mut client, ours) = duplex(16);
            let (theirs, server) = duplex(16);
            drop(server);
            client.write_all(b"anybody there?").await.unwrap();
            let error = join((ours, |_| {}), (theirs, |_| {}), &scratch).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        });
    }
}
