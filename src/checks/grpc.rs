//! To come.

use super::Scene;
use crate::config::GrpcCheck;
use crate::engine::Outcome;

pub(super) async fn attempt(_spec: &GrpcCheck, _scene: &Scene) -> Outcome {
    todo!()
}
