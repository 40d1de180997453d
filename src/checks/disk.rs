//! To come.

use super::Scene;
use crate::config::DiskCheck;
use crate::engine::Outcome;

pub(super) async fn attempt(_spec: &DiskCheck, _scene: &Scene) -> Outcome {
    todo!()
}
