//! To come.

use std::sync::Mutex;

use super::{Memory, Scene};
use crate::config::ProcessCheck;
use crate::engine::Outcome;

pub(super) async fn attempt(_spec: &ProcessCheck, _memory: &Mutex<Memory>, _scene: &Scene) -> Outcome {
    todo!()
}
