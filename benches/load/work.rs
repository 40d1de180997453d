//! The work that is driven through every contender: what a request is, byte for byte, and what must come back.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// 60 bytes each, as a small model's question and answer are.
pub(crate) const QUESTION: &[u8; 60] = br#"{"instances":[[5.1,3.5,1.4,0.2]],"model":"iris","version":1}"#;
pub(crate) const ANSWER: &[u8; 60] = br#"{"predictions":[{"label":"setosa","probability":0.9731205}]}"#;
/// 128 x 128 float32, in and out.
pub(crate) const TENSOR_BYTES: usize = 64 * 1024;
/// A WebSocket message: below 126 bytes, so that its header is two.
pub(crate) const FRAME_BYTES: usize = 60;
/// Between two tokens of a stream: 50 a second.
pub(crate) const TOKEN_INTERVAL_MS: u64 = 20;
/// How a token's stamp begins; a digit string follows.
pub(crate) const TOKEN_MARK: &[u8] = b"{\"at\":";
pub(crate) const GRPC_PATH: &str = "/inference.GRPCInferenceService/ModelInfer";

#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    /// POST of 60 bytes of JSON, 60 bytes back
    Json,
    /// POST of 64 KiB, 64 KiB back
    Tensor,
    /// SSE: a token every 20 ms on each stream
    Tokens,
    /// gRPC unary over h2c, 60 bytes each way, one call at a time on each connection
    Grpc,
    /// WebSocket echo of 60 bytes
    Websocket,
}

impl Work {
    /// What the count of a run counts.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Json | Self::Tensor => "request",
            Self::Tokens => "token",
            Self::Grpc => "call",
            Self::Websocket => "message",
        }
    }

    /// Of the whole bench, unless told otherwise.
    pub(crate) fn connections(self) -> &'static [usize] {
        match self {
            Self::Json => &[1, 32, 256, 1_000],
            Self::Tensor | Self::Grpc => &[32],
            Self::Tokens | Self::Websocket => &[256],
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Tensor => "tensor",
            Self::Tokens => "tokens",
            Self::Grpc => "grpc",
            Self::Websocket => "websocket",
        })
    }
}

/// A whole POST.
pub(crate) fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nhost: model.test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A GET without a body.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: model.test\r\naccept: */*\r\n\r\n").into_bytes()
}

/// The opening of a WebSocket. The key is RFC 6455's own example, so that its answer is known.
pub(crate) fn open_websocket(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nhost: model.test\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
    )
    .into_bytes()
}

pub(crate) const WEBSOCKET_OPENED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
connection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
