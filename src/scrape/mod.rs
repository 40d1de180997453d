//! One metrics page of somebody else: fetched by one at a time, kept as bytes, read as samples.

pub mod text;

use std::time::Duration;

use crate::config::MetricsPage;
use crate::engine::Time;

/// Fetches one page; concurrent callers share one fetch.
#[derive(Debug)]
pub struct Scraper {}

/// A page as it came.
#[derive(Clone, Debug)]
pub struct Page {
    pub body: bytes::Bytes,
    /// The `Content-Type` as it came.
    pub content_type: String,
    pub fetched_at: Time,
}

impl Scraper {
    /// A scraper that reads at most `limits::MERGE_BYTES_MAX`.
    pub fn new(_page: MetricsPage, _clock: crate::clock::Clock) -> Self {
        Self {}
    }

    /// The page: the last one if it is not older than `max_age`, else a new one. Waits for a fetch that is
    /// under way rather than start a second. The error is for a person.
    pub async fn page(&self, _max_age: Duration, _timeout: Duration) -> Result<std::sync::Arc<Page>, String> {
        todo!()
    }
}
