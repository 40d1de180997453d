//! To come.

use super::Scene;
use crate::config::HeartbeatCheck;
use crate::engine::{Outcome, Time};

/// The last beat of each heartbeat check, by its name.
#[derive(Debug, Default)]
pub struct Board {}

impl Board {
    /// Notes a beat.
    pub fn beat(&self, _check: &str, _status: &str, _now: Time) {
        todo!()
    }
}

pub(super) async fn attempt(_name: &str, _spec: &HeartbeatCheck, _board: &Board, _scene: &Scene) -> Outcome {
    todo!()
}
