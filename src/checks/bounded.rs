//! A stream of which only so much is read: a peer that floods us ends in an error, not in our memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Whatever a check talks over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream that gives `left` bytes more and then fails with [`io::ErrorKind::FileTooLarge`].
pub(super) struct Bounded {
    inner: Box<dyn Stream>,
    left: usize,
}

impl Bounded {
    pub(super) fn new(inner: impl Stream + 'static, max: usize) -> Self {
        Self { inner: Box::new(inner), left: max }
    }
}

impl AsyncRead for Bounded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let this = &mut *self;
        let room = buf.remaining().min(this.left);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        this.left -= count;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn the_limit_passes_and_one_byte_more_fails() {
        let (mut far, near) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut far, b"12345").await.expect("room");
        let mut near = Bounded::new(near, 4);
        let mut four = [0; 4];
        near.read_exact(&mut four).await.expect("within the limit");
        assert_eq!(&four, b"1234");
        assert_eq!(near.read_u8().await.expect_err("past it").kind(), io::ErrorKind::FileTooLarge);
    }
}
