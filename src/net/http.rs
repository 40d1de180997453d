//! One HTTP/1.1 question on one fresh connection.
//!
//! Owns connect, TLS, request and a bounded body, driven in the caller's own task: dropping the future closes
//! the socket. It follows no redirect, keeps no connection, asks for no compression, and never says a path,
//! a query, a header or a body of the request in an error, for those may hold secrets.

use std::io;
use std::path::PathBuf;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONNECTION, HOST, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::connect::{connect, io_failure, split_host_port};
use super::{Failure, UNHEARD, Waiting, tls};
use crate::config::TlsClient;

/// `User-Agent` of every question we ask.
pub const AGENT: &str = concat!("probegate/", env!("CARGO_PKG_VERSION"));
/// A response head larger than this is no answer to a health question.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Whom to ask.
#[derive(Clone, Debug)]
pub enum Target {
    /// `host:port`, over TLS if it says how.
    Tcp { address: String, tls: Option<TlsClient> },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// The target of an `http://` or `https://` URL; `tls` is used for the latter.
    pub fn of(uri: &Uri, tls: &TlsClient) -> Result<Self, Failure> {
        let (port, tls) = match uri.scheme_str() {
            Some("http") => (80, None),
            Some("https") => (443, Some(tls.clone())),
            _ => return Err(Failure::local("the URL must begin with http:// or https://")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| Failure::local("the URL names no host"))?;
        Ok(Self::Tcp { address: format!("{host}:{}", uri.port_u16().unwrap_or(port)), tls })
    }

    /// For people: `127.0.0.1:8501`.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp { address, .. } => address.clone(),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

/// Asks, and reads the whole answer. A body beyond `body_bytes_max` is a failure, any status is none.
/// The deadline is the caller's: drop the future.
///
/// Of the request's URI path and query are sent, and its user and password as `Authorization` unless there is
/// one; `Host`, `User-Agent` and `Connection: close` are added unless they are there.
pub async fn fetch(
    target: &Target,
    request: Request<Bytes>,
    body_bytes_max: usize,
) -> Result<Response<Bytes>, Failure> {
    fetch_watched(target, request, body_bytes_max, UNHEARD).await
}

/// As [`fetch`], telling what it waits for.
pub async fn fetch_watched(
    target: &Target,
    request: Request<Bytes>,
    body_bytes_max: usize,
    waiting: Waiting<'_>,
) -> Result<Response<Bytes>, Failure> {
    let whom = target.address();
    let request = prepare(request, &whom, matches!(target, Target::Unix(_)))?;
    let wire = Wire { whom: &whom, body_bytes_max, waiting };
    match target {
        Target::Unix(path) => {
            waiting(format!("a connection to {whom}"));
            let stream = UnixStream::connect(path).await.map_err(|error| io_failure(&whom, &error))?;
            wire.ask(stream, request).await
        }
        Target::Tcp { address, tls: None } => wire.ask(connect(address, waiting).await?, request).await,
        Target::Tcp { address, tls: Some(tls) } => {
            let stream = connect(address, waiting).await?;
            let host = split_host_port(address).map_or(address.as_str(), |(host, _)| host);
            let stream = tls::handshake(stream, tls, host, &whom, &[b"http/1.1"], waiting).await?;
            wire.ask(stream, request).await
        }
    }
}

/// Brings a request into the form in which it goes on the wire.
fn prepare(request: Request<Bytes>, whom: &str, unix: bool) -> Result<Request<Full<Bytes>>, Failure> {
    let (mut parts, body) = request.into_parts();
    let unusable = |_| Failure::local("the request cannot be written: not a valid header value");
    if let Some(credentials) = parts.uri.authority().and_then(userinfo)
        && !parts.headers.contains_key(AUTHORIZATION)
    {
        let mut value = HeaderValue::try_from(format!("Basic {}", base64(&credentials))).map_err(unusable)?;
        value.set_sensitive(true);
        parts.headers.insert(AUTHORIZATION, value);
    }
    if !parts.headers.contains_key(HOST) {
        let host = match parts.uri.authority() {
            Some(authority) => authority.as_str().rsplit('@').next().unwrap_or_default(),
            None if unix => "localhost",
            None => whom,
        };
        parts.headers.insert(HOST, HeaderValue::try_from(host).map_err(unusable)?);
    }
    if !parts.headers.contains_key(CONNECTION) {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if !parts.headers.contains_key(USER_AGENT) {
        parts.headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    }
    let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    Ok(Request::from_parts(parts, Full::new(body)))
}

/// `user:password` of a URL, percent-decoded.
fn userinfo(authority: &Authority) -> Option<Vec<u8>> {
    let (credentials, _) = authority.as_str().rsplit_once('@')?;
    let mut out = Vec::with_capacity(credentials.len() + 1);
    let mut bytes = credentials.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digits = (ahead.next().and_then(hex_digit), ahead.next().and_then(hex_digit));
        if let (b'%', (Some(high), Some(low))) = (byte, digits) {
            out.push(high << 4 | low);
            bytes = ahead;
        } else {
            out.push(byte);
        }
    }
    if !credentials.contains(':') {
        out.push(b':');
    }
    Some(out)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// RFC 4648 with padding: the one use of it is `Authorization: Basic`.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = (bits >> (18 - 6 * at) & 63) as usize;
            out.push(if at <= chunk.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    out
}

/// One connection and what is said about it.
struct Wire<'a> {
    whom: &'a str,
    body_bytes_max: usize,
    waiting: Waiting<'a>,
}

impl Wire<'_> {
    async fn ask<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        (self.waiting)(format!("an answer from {}", self.whom));
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.failure(&error, Heard::Nothing))?;
        let mut connection = pin!(connection);
        let mut exchange = pin!(async {
            let response = sender.send_request(request).await.map_err(|error| self.failure(&error, Heard::Nothing))?;
            (self.waiting)(format!("the rest of the answer from {}", self.whom));
            self.read(response).await
        });
        // One task drives both. A connection that ends first leaves what it had read to the exchange.
        tokio::select! {
            answer = &mut exchange => answer,
            _ = &mut connection => exchange.await,
        }
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Response<Bytes>, Failure> {
        let (parts, mut body) = response.into_parts();
        let too_large =
            || Failure::answer(format!("the answer of {} is larger than {} bytes", self.whom, self.body_bytes_max));
        if body.size_hint().lower() > self.body_bytes_max as u64 {
            return Err(too_large());
        }
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.failure(&error, Heard::Head))?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > self.body_bytes_max {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
        Ok(Response::from_parts(parts, whole.freeze()))
    }

    fn failure(&self, error: &hyper::Error, heard: Heard) -> Failure {
        let whom = self.whom;
        if let Some(cause) = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>()) {
            return match (heard, cause.kind()) {
                (Heard::Nothing, io::ErrorKind::UnexpectedEof) => io_failure(whom, cause),
                (Heard::Nothing, _) => tls::failure(cause, whom),
                (Heard::Head, io::ErrorKind::ConnectionReset) => {
                    Failure::answer(format!("connection reset by {whom} in the middle of the answer"))
                }
                (Heard::Head, io::ErrorKind::UnexpectedEof) => {
                    Failure::answer(format!("connection closed by {whom} in the middle of the answer"))
                }
                (Heard::Head, _) => Failure::answer(format!("the body of {whom} is garbled: {cause}")),
            };
        }
        match heard {
            Heard::Head => Failure::answer(format!("connection closed by {whom} in the middle of the answer")),
            Heard::Nothing if error.is_parse_too_large() => {
                Failure::answer(format!("the response head of {whom} is too large"))
            }
            Heard::Nothing if error.is_parse() => Failure::answer(format!("{whom} does not speak HTTP/1.1")),
            Heard::Nothing if error.is_user() => Failure::local(format!("the request cannot be sent: {error}")),
            Heard::Nothing => Failure::unreachable(format!("connection closed by {whom} without an answer")),
        }
    }
}

/// How far an exchange had come.
#[derive(Clone, Copy)]
enum Heard {
    Nothing,
    Head,
}

#[cfg(test)]
mod tests;
