//! WebSocket's handshake where one side speaks HTTP/1.1 and the other HTTP/2: only the former has a key and its proof.

use std::hash::{BuildHasher, RandomState};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// What a server appends to the key (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The proof that a key was understood: 20 bytes in Base64.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Accept([u8; 28]);

impl Accept {
    /// Of the `sec-websocket-key` that a client sent.
    pub(super) fn of(key: &HeaderValue) -> Self {
        let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
        let mut text = [0; 28];
        // 20 bytes are 28 digits.
        let _ = STANDARD.encode_slice(proof.as_ref(), &mut text);
        Self(text)
    }

    pub(super) fn value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// A key unlike any before. It proves that the server knows WebSocket and is no secret.
pub(super) fn key() -> HeaderValue {
    let halves = [0_u8, 1].map(|half| RandomState::new().hash_one(half).to_ne_bytes());
    let key = STANDARD.encode(halves.concat());
    HeaderValue::from_str(&key).unwrap_or_else(|_| HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_the_rfc() {
        let proof = Accept::of(&HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(proof.value(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_sixteen_bytes_and_new_each_time() {
        assert_eq!(STANDARD.decode(key().as_bytes()).unwrap().len(), 16);
        assert_ne!(key(), key());
    }
}
