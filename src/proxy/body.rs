//! Bodies on their way through, frame by frame, counted and never collected.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connection::Conn;
use super::forward::Exchange;
use super::refusal::Reason;

/// A request's body towards the model server.
pub(super) struct Upload {
    /// None: known to be empty.
    inner: Option<Incoming>,
    conn: Rc<Conn>,
}

impl Upload {
    pub(super) fn new(inner: Incoming, conn: Rc<Conn>) -> Self {
        Self { inner: (!inner.is_end_stream()).then_some(inner), conn }
    }

    /// Another one just as empty, if this one is.
    pub(super) fn again(&self) -> Option<Self> {
        self.inner.is_none().then(|| Self { inner: None, conn: Rc::clone(&self.conn) })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = Pin::new(inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.conn.worker.counters().received(data.len());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An answer's body towards the client.
pub(super) enum Answer {
    /// Ours, whole.
    Own(Bytes),
    /// The model server's, as it comes.
    Upstream(Download),
}

/// The model server's body, and the exchange that ends with it.
pub(super) struct Download {
    inner: Incoming,
    /// Until the end. Dropped before it: the client left.
    exchange: Option<Exchange>,
}

impl Answer {
    pub(super) const fn empty() -> Self {
        Self::Own(Bytes::new())
    }

    /// Streams `inner`; the exchange ends with its last byte.
    pub(super) fn stream(inner: Incoming, exchange: Exchange) -> Self {
        let mut download = Download { inner, exchange: Some(exchange) };
        download.end_if_whole();
        Self::Upstream(download)
    }
}

impl Download {
    /// hyper does not ask again after a frame that it knows to be the last.
    fn end_if_whole(&mut self) {
        if self.inner.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.finish();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Own(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Own(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Upstream(download) => download.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_empty(),
            Self::Upstream(download) => download.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(download) => download.inner.size_hint(),
        }
    }
}

impl Download {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(exchange) = &self.exchange {
                    exchange.passed(frame.data_ref().map_or(0, Bytes::len));
                }
                // Nothing follows trailers.
                if frame.is_trailers() { self.end() } else { self.end_if_whole() }
            }
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Err(_))) => {
                if let Some(exchange) = self.exchange.take() {
                    exchange.fail(Reason::UpstreamAborted);
                }
            }
            Poll::Pending => {}
        }
        polled
    }
}
