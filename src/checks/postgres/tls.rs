//! TLS for the PostgreSQL client, on the product's own handshake; and the end of a query that nobody awaits.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_rustls::client::TlsStream as RustlsStream;

use super::Place;
use crate::checks::bounded::Bounded;
use crate::config::{PostgresCheck, TlsClient};
use crate::limits::CHECK_BODY_BYTES_MAX;
use crate::net::connect::connect;
use crate::net::{Failure, UNHEARD, tls};

/// A server that hangs does not hear a cancellation either.
const CANCEL_MAX: Duration = Duration::from_secs(1);

/// One handshake to come. The client asks for it after the server has agreed to TLS.
pub(super) struct Handshake<'a> {
    pub(super) tls: &'a TlsClient,
    pub(super) host: &'a str,
    pub(super) whom: &'a str,
}

/// A stream inside TLS.
pub(super) struct Inside(RustlsStream<Bounded>);

impl<'a> TlsConnect<Bounded> for Handshake<'a> {
    type Stream = Inside;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Inside, Failure>> + Send + 'a>>;

    fn connect(self, stream: Bounded) -> Self::Future {
        Box::pin(async move {
            let inside = tls::handshake(stream, self.tls, self.host, self.whom, &[], UNHEARD).await?;
            Ok(Inside(inside))
        })
    }
}

impl TlsStream for Inside {
    /// None: SCRAM goes without binding, which servers accept unless they demand it.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Inside {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Inside {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Ends the query on the server when the attempt is dropped. A server notices a closed socket only when it
/// writes to it: without this a slow query would run on, and the next attempt would add another.
pub(super) struct CancelOnDrop(Option<(CancelToken, Place, TlsClient)>);

impl CancelOnDrop {
    pub(super) fn new(token: CancelToken, place: &Place, spec: &PostgresCheck) -> Self {
        Self(Some((token, place.clone(), spec.tls.clone().unwrap_or_default())))
    }

    /// The query has ended by itself.
    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let (Some((token, place, client)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(tokio::time::timeout(CANCEL_MAX, async move {
            // Nobody is left to hear of a failure, and the server ends such a query in its own time.
            let _ = cancel(&token, &place, &client).await;
        }));
    }
}

async fn cancel(token: &CancelToken, place: &Place, client: &TlsClient) -> Result<(), Failure> {
    let stream = if place.unix {
        let stream = tokio::net::UnixStream::connect(&place.whom).await;
        Bounded::new(stream.map_err(|error| Failure::unreachable(error.to_string()))?, CHECK_BODY_BYTES_MAX)
    } else {
        Bounded::new(connect(&place.whom, UNHEARD).await?, CHECK_BODY_BYTES_MAX)
    };
    let handshake = Handshake { tls: client, host: &place.host, whom: &place.whom };
    token.cancel_query_raw(stream, handshake).await.map_err(|error| Failure::unreachable(error.to_string()))
}
