//! Real peers for tests: private, on a free port of loopback, gone when the guard is dropped.
//!
//! The files import nothing of this crate, so that the integration tests include the same ones.

pub(crate) mod postgres;
pub(crate) mod redis;
