//! To come.

use super::Scene;
use crate::config::RedisCheck;
use crate::engine::Outcome;

pub(super) async fn attempt(_spec: &RedisCheck, _scene: &Scene) -> Outcome {
    todo!()
}
