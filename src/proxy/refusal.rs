//! What the proxy says when it does not forward.
//!
//! One closed list of reasons: the metric label, the `x-probegate-reason` header and the body's `error` are
//! the same word. A refusal names the deciding check at most; evidence is for the probe and admin listeners.

use std::fmt::Write;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use crate::limits;

/// The header that tells our own answers from the model server's.
pub const REASON_HEADER: HeaderName = HeaderName::from_static("x-probegate-reason");

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a request got no answer of the model server's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// The request itself is wrong in a way that no upstream should see.
    BadRequest,
    /// The client left. Counted, never sent.
    ClientGone,
    /// As many client connections as allowed. Said without reading a request.
    ConnectionsFull,
    /// CONNECT, or an upgrade that cannot be carried.
    ConnectUnsupported,
    /// The drain's time for new requests is over.
    Draining,
    /// The model server took the request and sent no head in time.
    FirstByteTimeout,
    /// The request's head is longer, or has more fields, than allowed.
    HeadTooLarge,
    /// No backend is enabled.
    NoUpstream,
    /// The readiness gate fails.
    NotReady,
    /// As many requests in flight as allowed, and as many that wait.
    QueueFull,
    /// It waited for its turn for as long as it may.
    QueueTimeout,
    /// A `saturation` check is down, and sheds.
    Saturated,
    /// Plain HTTP where TLS is spoken. Said without reading a request.
    TlsRequired,
    /// The model server's answer broke off after its head. Counted, never sent.
    UpstreamAborted,
    /// No connection to the model server in time.
    UpstreamConnectTimeout,
    /// The model server's answer is not HTTP.
    UpstreamInvalid,
    /// Nobody listens at the model server's address.
    UpstreamRefused,
    /// The model server closed the connection before the head.
    UpstreamReset,
    /// No way to the model server but not refused either.
    UpstreamUnreachable,
    /// The URI is longer than allowed.
    UriTooLong,
}

impl Reason {
    /// Every reason, in the order of its discriminant.
    pub const ALL: [Self; 20] = [
        Self::BadRequest,
        Self::ClientGone,
        Self::ConnectionsFull,
        Self::ConnectUnsupported,
        Self::Draining,
        Self::FirstByteTimeout,
        Self::HeadTooLarge,
        Self::NoUpstream,
        Self::NotReady,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Saturated,
        Self::TlsRequired,
        Self::UpstreamAborted,
        Self::UpstreamConnectTimeout,
        Self::UpstreamInvalid,
        Self::UpstreamRefused,
        Self::UpstreamReset,
        Self::UpstreamUnreachable,
        Self::UriTooLong,
    ];

    /// The word for header, body and label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::ClientGone => "client_gone",
            Self::ConnectionsFull => "connections_full",
            Self::ConnectUnsupported => "connect_unsupported",
            Self::Draining => "draining",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::HeadTooLarge => "head_too_large",
            Self::NoUpstream => "no_upstream",
            Self::NotReady => "not_ready",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Saturated => "saturated",
            Self::TlsRequired => "tls_required",
            Self::UpstreamAborted => "upstream_aborted",
            Self::UpstreamConnectTimeout => "upstream_connect_timeout",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UriTooLong => "uri_too_long",
        }
    }

    /// The status it is sent (or counted) with. 499 is nginx's number for a client that left.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::TlsRequired => 400,
            Self::ClientGone => 499,
            Self::ConnectUnsupported => 501,
            Self::FirstByteTimeout => 504,
            Self::UpstreamAborted | Self::UpstreamInvalid | Self::UpstreamReset => 502,
            Self::UriTooLong => 414,
            Self::HeadTooLarge => 431,
            Self::ConnectionsFull
            | Self::Draining
            | Self::NoUpstream
            | Self::NotReady
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::Saturated
            | Self::UpstreamConnectTimeout
            | Self::UpstreamRefused
            | Self::UpstreamUnreachable => 503,
        }
    }

    /// Whether the same request may be sent again soon: nothing of it has reached the model server.
    pub const fn retryable(self) -> bool {
        self.status() == 503
    }

    /// Whether there was no room for it.
    pub const fn full(self) -> bool {
        matches!(self, Self::ConnectionsFull | Self::QueueFull | Self::QueueTimeout | Self::Saturated)
    }

    /// Whether it counts as shed: the server could not take it now, through no fault of the request.
    pub const fn shed(self) -> bool {
        matches!(
            self,
            Self::Draining
                | Self::NoUpstream
                | Self::NotReady
                | Self::QueueFull
                | Self::QueueTimeout
                | Self::Saturated
                | Self::ConnectionsFull
        )
    }

    /// The status for a gRPC client: exhausted where the limit is ours, else unavailable, which it may retry.
    const fn grpc_status(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            // INTERNAL: such a request is never well formed gRPC.
            Self::BadRequest | Self::HeadTooLarge | Self::UpstreamInvalid | Self::UriTooLong => "13",
            // UNIMPLEMENTED
            Self::ConnectUnsupported => "12",
            // DEADLINE_EXCEEDED: unlike an unavailable server, this one has begun the work.
            Self::FirstByteTimeout => "4",
            // RESOURCE_EXHAUSTED
            Self::QueueFull | Self::QueueTimeout | Self::Saturated | Self::ConnectionsFull => "8",
            // UNAVAILABLE
            _ => "14",
        })
    }

    /// Whether the model server failed: it did not answer, not in time, or not whole.
    pub(super) const fn is_servers_failure(self) -> bool {
        matches!(self, Self::FirstByteTimeout | Self::UpstreamAborted | Self::UpstreamInvalid | Self::UpstreamReset)
    }

    const fn message(self) -> &'static str {
        match self {
            Self::BadRequest => "the request is malformed",
            Self::ClientGone => "the client left",
            Self::ConnectionsFull => "too many connections",
            Self::ConnectUnsupported => "CONNECT is not served here",
            Self::Draining => "this instance is shutting down",
            Self::FirstByteTimeout => "the model server did not begin its answer in time",
            Self::HeadTooLarge => "the request's head is too large",
            Self::NoUpstream => "no model server is in rotation",
            Self::NotReady => "the model server is not ready",
            Self::QueueTimeout => "too many requests in flight for too long",
            Self::QueueFull => "too many requests in flight",
            Self::Saturated => "the model server has more work than it can do",
            Self::TlsRequired => "this port speaks HTTPS, not HTTP",
            Self::UpstreamAborted => "the model server broke off its answer",
            Self::UpstreamConnectTimeout => "the model server did not accept a connection in time",
            Self::UpstreamInvalid => "the model server's answer is not valid HTTP",
            Self::UpstreamRefused => "the model server refused the connection",
            Self::UpstreamReset => "the model server closed the connection before it answered",
            Self::UpstreamUnreachable => "the model server cannot be reached",
            Self::UriTooLong => "the URI is too long",
        }
    }

    /// The answer to send. `about` is the deciding check's name, where one decided.
    pub(super) fn response(self, about: Option<&str>) -> Response<Bytes> {
        let mut response = Response::new(self.body(about));
        // Every status above is a valid one.
        *response.status_mut() = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(REASON_HEADER, HeaderValue::from_static(self.as_str()));
        if self.retryable() {
            headers.insert(RETRY_AFTER, HeaderValue::from(limits::RETRY_AFTER_SECONDS));
        }
        response
    }

    /// The same for a gRPC client: a head alone, whose fields are the trailers too.
    pub(super) fn grpc_response(self, about: Option<&str>) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, self.grpc_status());
        headers.insert(GRPC_MESSAGE, grpc_message(&self.text(about)));
        headers.insert(REASON_HEADER, HeaderValue::from_static(self.as_str()));
        if self.retryable() {
            headers.insert(RETRY_AFTER, HeaderValue::from(limits::RETRY_AFTER_SECONDS));
        }
        response
    }

    fn text(self, about: Option<&str>) -> String {
        match about {
            Some(check) => format!("{}: {check}", self.message()),
            None => self.message().to_owned(),
        }
    }

    fn body(self, about: Option<&str>) -> Bytes {
        let mut body = serde_json::Map::new();
        body.insert("error".to_owned(), self.as_str().into());
        body.insert("message".to_owned(), self.text(about).into());
        if self.retryable() {
            body.insert("retry_after".to_owned(), limits::RETRY_AFTER_SECONDS.into());
        }
        let mut text = serde_json::Value::Object(body).to_string();
        text.push('\n');
        Bytes::from(text)
    }
}

/// Percent-encoded as the gRPC protocol wants it: printable ASCII stays, but for the sign itself.
fn grpc_message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => encoded.push_str("%25"),
            b' '..=b'~' => encoded.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    HeaderValue::from_str(&encoded).unwrap_or_else(|_| HeaderValue::from_static("refused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_at_its_own_place() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }

    #[test]
    fn a_refusal_says_what_why_and_when_to_come_back() {
        let response = Reason::NotReady.response(Some("redis \"a\""));
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["x-probegate-reason"], "not_ready");
        assert_eq!(response.headers()["retry-after"], "1");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["error"], "not_ready");
        assert_eq!(body["message"], "the model server is not ready: redis \"a\"");
        assert_eq!(body["retry_after"], 1);
    }

    #[test]
    fn a_grpc_client_is_told_by_status_and_message_in_the_head() {
        let response = Reason::NotReady.grpc_response(Some("caf\u{e9} 100%"));
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "the model server is not ready: caf%C3%A9 100%25");
        assert_eq!(response.headers()["x-probegate-reason"], "not_ready");
        assert!(response.body().is_empty());
        assert_eq!(Reason::QueueFull.grpc_response(None).headers()["grpc-status"], "8");
    }

    #[test]
    fn what_may_have_reached_the_model_server_is_not_called_retryable() {
        for reason in [Reason::FirstByteTimeout, Reason::UpstreamReset, Reason::UpstreamInvalid] {
            assert!(!reason.response(None).headers().contains_key("retry-after"), "{reason:?}");
        }
    }
}
