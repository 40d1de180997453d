//! Bodies on their way through, frame by frame, counted and never collected.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::access;
use super::connection::Conn;
use super::forward::Exchange;
use super::refusal::Reason;
use super::substance::Substance;

/// A body did not come to its end. Whoever reads on is told by a reset, or by a close without an end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// Its stream was cancelled.
    #[error("the body was cut off")]
    CutOff,
    /// Its connection or its framing failed. The cause holds HTTP/2's reason, which hyper passes on.
    #[error("the body broke off")]
    Failed(#[source] hyper::Error),
}

/// A request's body towards the model server.
pub(super) struct Upload {
    /// None: known to be empty.
    inner: Option<Incoming>,
    conn: Rc<Conn>,
    record: Option<access::Key>,
}

impl Upload {
    pub(super) fn new(inner: Incoming, conn: Rc<Conn>, record: Option<access::Key>) -> Self {
        Self { inner: (!inner.is_end_stream()).then_some(inner), conn, record }
    }

    /// Another one just as empty, if this one is.
    pub(super) fn again(&self) -> Option<Self> {
        self.inner.is_none().then(|| Self { inner: None, conn: Rc::clone(&self.conn), record: self.record })
    }

    /// Its request's record for the access log.
    pub(super) const fn record(&self) -> Option<access::Key> {
        self.record
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.inner.is_some() {
            self.conn.got_body();
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut *inner).poll_frame(cx) else {
            this.conn.awaits_body();
            return Poll::Pending;
        };
        this.conn.got_body();
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.conn.worker.counters().received(data.len());
                    access::received(&this.conn.worker, this.record, data.len());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(Broken::Failed(error)))),
            // hyper takes a cancelled stream for one that ended; half an upload must not pass for a whole one.
            None if this.conn.over_http2() && !inner.is_end_stream() => Poll::Ready(Some(Err(Broken::CutOff))),
            None => Poll::Ready(None),
        }
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
    Upstream(Box<Download>),
}

/// The model server's body, and the exchange that ends with it.
pub(super) struct Download {
    inner: Incoming,
    /// Until the end. Dropped before it: the client left.
    exchange: Option<Exchange>,
    substance: Substance,
}

impl Answer {
    pub(super) const fn empty() -> Self {
        Self::Own(Bytes::new())
    }

    /// Streams `inner`; the exchange ends with its last byte.
    pub(super) fn stream(inner: Incoming, exchange: Exchange, substance: Substance) -> Self {
        let mut download = Download { inner, exchange: Some(exchange), substance };
        download.end_if_whole();
        Self::Upstream(Box::new(download))
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
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
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
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(exchange) = &mut self.exchange {
                    if let Some(trailers) = frame.trailers_ref() {
                        exchange.trailers(trailers);
                    }
                    let data = frame.data_ref().map_or(&[][..], |data| &data[..]);
                    // Trailers are an end, and that counts.
                    let substance = frame.is_trailers() || self.substance.has(data);
                    exchange.passed(data.len(), substance);
                }
                // Nothing follows trailers.
                if frame.is_trailers() {
                    self.end()
                } else {
                    self.end_if_whole()
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => self.fail(Broken::Failed(error)),
            // As above. Without a length there is no telling: a server may well reset a stream that it has
            // answered, to be spared the rest of the upload.
            None if 0 < self.inner.size_hint().lower() => self.fail(Broken::CutOff),
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn fail(&mut self, broken: Broken) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(exchange) = self.exchange.take() {
            exchange.fail(Reason::UpstreamAborted);
        }
        Poll::Ready(Some(Err(broken)))
    }
}
