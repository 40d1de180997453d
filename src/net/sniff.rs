//! HTTP/1 or HTTP/2 on one port: read until the first bytes tell, then hand all of them on.
//!
//! It owns nothing but those bytes and refuses to wait: the caller sets the deadline.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 with prior knowledge says first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A stream whose first bytes were read already and are read again. No more than a preface is ever taken, so
/// that they fit in place and the rest is read straight into its reader's buffer.
#[derive(Debug)]
pub(crate) struct Rewound<S> {
    first: [u8; PREFACE.len()],
    /// Of `first`, these are still to be read again.
    from: u8,
    to: u8,
    stream: S,
}

/// Reads as much as is needed to tell. A client that closes early speaks HTTP/1, which knows how to end that.
pub(crate) async fn sniff<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(Protocol, Rewound<S>)> {
    let mut first = [0; PREFACE.len()];
    let mut known = 0;
    loop {
        let read = stream.read(&mut first[known..]).await?;
        known += read;
        let protocol = if first[..known] != PREFACE[..known] || read == 0 {
            Protocol::Http1
        } else if known == PREFACE.len() {
            Protocol::Http2
        } else {
            continue;
        };
        // At most the preface's 24.
        return Ok((protocol, Rewound { first, from: 0, to: known as u8, stream }));
    }
}

impl<S> Rewound<S> {
    /// The stream, and the bytes that are still to be read again.
    pub(crate) fn into_parts(self) -> (S, Vec<u8>) {
        let first = self.first[usize::from(self.from)..usize::from(self.to)].to_vec();
        (self.stream, first)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.from < this.to {
            let first = &this.first[usize::from(this.from)..usize::from(this.to)];
            let count = first.len().min(buf.remaining());
            buf.put_slice(&first[..count]);
            // Not more than there was.
            this.from += count as u8;
            // What follows is likely there already. If not, or if the stream broke, the next read says so.
            let _ = Pin::new(&mut this.stream).poll_read(cx, buf);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn told(parts: &[&[u8]]) -> (Protocol, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(4096);
        let parts: Vec<_> = parts.iter().map(|part| part.to_vec()).collect();
        let writer = tokio::spawn(async move {
            for part in parts {
                client.write_all(&part).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (protocol, mut stream) = sniff(server).await.unwrap();
        writer.await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        (protocol, all)
    }

    #[tokio::test]
    async fn the_preface_is_recognised_however_it_is_cut_and_no_byte_is_lost() {
        for cut in 1..PREFACE.len() {
            let (protocol, all) = told(&[&PREFACE[..cut], &PREFACE[cut..], b"rest"]).await;
            assert_eq!(
                (protocol, all.as_slice()),
                (Protocol::Http2, [&PREFACE[..], b"rest"].concat().as_slice()),
                "{cut}"
            );
        }
    }

    #[tokio::test]
    async fn everything_else_is_http1_at_the_first_byte_that_differs() {
        for first in [&b"GET / HTTP/1.1\r\n"[..], b"PRIVATE / HTTP/1.1\r\n", b"P", b"", b"\x16\x03\x01"] {
            let (protocol, all) = told(&[first]).await;
            assert_eq!((protocol, all.as_slice()), (Protocol::Http1, first));
        }
    }
}
