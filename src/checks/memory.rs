//! To come.

use super::Scene;
use crate::config::MemoryCheck;
use crate::engine::Outcome;
use crate::scrape::Scraper;

pub(super) async fn attempt(_spec: &MemoryCheck, _scraper: Option<&Scraper>, _scene: &Scene) -> Outcome {
    todo!()
}
