//! To come.

use super::Scene;
use crate::config::TlsCheck;
use crate::engine::Outcome;

pub(super) async fn attempt(_spec: &TlsCheck, _scene: &Scene) -> Outcome {
    todo!()
}
