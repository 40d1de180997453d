//! To come.

use super::Scene;
use crate::config::ExecCheck;
use crate::engine::Outcome;

pub(super) async fn attempt(_spec: &ExecCheck, _scene: &Scene) -> Outcome {
    todo!()
}
