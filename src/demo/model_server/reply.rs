//! Answers in the making: JSON, text, and errors that say what was expected.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::Serialize;
use serde_json::json;

use super::server::Rejected;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(super) type Reply = Response<Body>;

/// Why a request is answered with an error: a status and a sentence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The error object of both APIs: Open Inference Protocol v2 asks for exactly `{"error": "..."}`.
    pub(super) fn reply(&self) -> Reply {
        let mut reply = json_reply(self.status, &json!({ "error": self.message }));
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        reply
    }
}

impl From<Rejected> for Fault {
    fn from(rejected: Rejected) -> Self {
        let status = match rejected {
            Rejected::Loading => StatusCode::SERVICE_UNAVAILABLE,
            Rejected::QueueFull(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        Self::new(status, rejected.to_string())
    }
}

/// A JSON answer that ends with a line feed, for people at a terminal.
pub(super) fn json_reply(status: StatusCode, body: &impl Serialize) -> Reply {
    // Our own types have string keys and no failing serializers.
    let mut text = serde_json::to_vec(body).unwrap_or_default();
    text.push(b'\n');
    with_type(status, "application/json", text)
}

pub(super) fn text_reply(content_type: &'static str, text: String) -> Reply {
    with_type(StatusCode::OK, content_type, text.into_bytes())
}

pub(super) fn method_not_allowed(allow: &'static str) -> Reply {
    let message = format!("this path takes {allow}");
    let mut reply = Fault::new(StatusCode::METHOD_NOT_ALLOWED, message).reply();
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}

fn with_type(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
