//! The lab: health designs against faults in virtual time.
//!
//! It owns a simulated world (the kubelet, model servers, dependencies, clients) that is deterministic from a
//! seed, and refuses the real one: no clock, no network, no files but those that a command hands in. The
//! engine that judges in it is the very engine that runs in the pod.

pub mod autoscaler;
#[cfg(test)]
mod fixture;
pub mod fuzz;
pub mod html;
pub mod kubelet;
pub mod queue;
pub mod replay;
pub mod report;
pub mod rng;
pub mod scenario;
pub mod shipped;
pub mod sweep;
pub mod trace;
pub mod world;
