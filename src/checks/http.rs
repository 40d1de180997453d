//! To come.

use super::Scene;
use crate::config::HttpCheck;
use crate::engine::Outcome;

pub(super) async fn attempt(_spec: &HttpCheck, _scene: &Scene) -> Outcome {
    todo!()
}
