//! Answers to whoever asks: the kubelet and Prometheus on the probe listener, people on the admin listener.
//!
//! Everything here reads the published [`Snapshot`](crate::engine::Snapshot) and puts it into words. Nothing
//! here judges, runs a check or waits for one: a probe's answer is a pointer load and one write. The metrics
//! page, which may take seconds, is made on another thread and asked for by message.

mod admin;
mod dialects;
mod grpc;
mod metrics;
mod negotiate;
mod opinion;
mod probes;
pub mod report;
mod route;
#[cfg(test)]
mod sample;

pub use admin::{AdminAnswers, AdminListener, EventReaders, serve_admin};
pub use metrics::{MetricsHandle, MetricsService, PageFormat};
pub use probes::{ProbeAnswers, SelfCheck, serve_probes};
