//! A pod beside a recording of a real one: reads a trace file, simulates its pod, gives the same rows.
//!
//! It owns the file format and the app that the recordings were made with. What the kubelet does with that
//! app is [`super::kubelet`]'s.

mod app;
mod file;
mod run;

#[cfg(test)]
mod tests;

pub use file::{Answer, Clock, Program, Recording, TraceError, TraceFile};
pub use run::{Row, run};
