//! To come.

use super::Scene;
use crate::config::TcpCheck;
use crate::engine::Outcome;

pub(super) async fn attempt(_spec: &TcpCheck, _scene: &Scene) -> Outcome {
    todo!()
}
