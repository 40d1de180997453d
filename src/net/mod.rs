//! Outgoing connections: to resolve, to connect, to shake hands, to ask one HTTP question.
//!
//! Owns sockets towards others for the time of one question, and the words in which their failure is told.
//! It keeps nothing open (a probe on a kept connection tests the connection), retries nothing, follows no
//! redirect, and prints no URL, header or body of a request: those may hold secrets. Dropping a future of
//! this module closes its socket.

pub mod connect;
pub mod http;
mod nursery;
pub mod resolve;
pub(crate) mod sniff;
pub mod tls;
pub mod tls_server;
mod trust;

pub use nursery::Nursery;

use crate::engine::Fault;

/// Why there is no connection or no answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// [`Fault::Answer`] says that somebody is there and said something else than was asked for.
    pub fault: Fault,
    /// For a person, without secrets: "connection refused by 127.0.0.1:6379".
    pub reason: String,
}

impl Failure {
    pub fn new(fault: Fault, reason: impl Into<String>) -> Self {
        Self { fault, reason: reason.into() }
    }

    /// It answered, wrongly.
    pub fn answer(reason: impl Into<String>) -> Self {
        Self::new(Fault::Answer, reason)
    }

    /// Something is missing on this machine.
    pub fn local(reason: impl Into<String>) -> Self {
        Self::new(Fault::Local, reason)
    }

    /// There is no way to it.
    pub fn unreachable(reason: impl Into<String>) -> Self {
        Self::new(Fault::Unreachable, reason)
    }
}

/// Told at each step what is being waited for: "the TLS handshake of api:443". A timeout's reason is made of it.
pub type Waiting<'a> = &'a (dyn Fn(String) + Sync);

/// For those who do not want to know.
pub const UNHEARD: Waiting<'static> = &|_| {};

#[cfg(test)]
pub(crate) mod peer;
