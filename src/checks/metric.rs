//! To come.

use std::sync::Mutex;

use super::{Memory, Scene};
use crate::config::MetricCheck;
use crate::engine::Outcome;
use crate::scrape::Scraper;

pub(super) async fn attempt(
    _spec: &MetricCheck,
    _scraper: Option<&Scraper>,
    _memory: &Mutex<Memory>,
    _scene: &Scene,
) -> Outcome {
    todo!()
}
