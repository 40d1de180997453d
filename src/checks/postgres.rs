//! To come.

use super::Scene;
use crate::config::PostgresCheck;
use crate::engine::Outcome;

pub(super) async fn attempt(_spec: &PostgresCheck, _scene: &Scene) -> Outcome {
    todo!()
}
