//! HTTP/1.1 from the client to a model server that speaks it too: the way that most requests take.
//!
//! Owns the bytes: a head is read once and rewritten into one buffer, a body is passed on as it came while its
//! framing is checked. What may pass, where to, and what is counted is decided where HTTP/2 asks as well.
//! It refuses whatever two readers could read in two ways, and it holds no buffer for a connection at rest:
//! bytes are read into the worker's own and leave it before anybody else reads.

mod chunked;
mod client;
mod exchange;
mod fields;
mod framing;
mod request;
mod response;
mod scratch;
mod serve;
#[cfg(test)]
mod tests;

pub(super) use client::{Wire, poll_write_all};
pub(super) use scratch::Scratch;
pub(super) use serve::serve;

/// Fields of one message.
const FIELDS_MAX: usize = 100;
