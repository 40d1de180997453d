//! To come.

use super::Scene;
use crate::config::DnsCheck;
use crate::engine::Outcome;

pub(super) async fn attempt(_spec: &DnsCheck, _scene: &Scene) -> Outcome {
    todo!()
}
