//! One metrics page of somebody else: fetched by one at a time, kept as bytes, read as samples.
//!
//! Owns the fetch and the last page. There is never a second fetch under way, whichever thread or runtime
//! asks; a caller that goes away in the middle of its fetch leaves the next one to start anew. It refuses
//! pages beyond [`MERGE_BYTES_MAX`] and compressed ones (it did not ask for them), and judges nothing.

pub mod text;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use http::{Request, Response, Uri};

use crate::clock::Clock;
use crate::config::{MetricsPage, TlsClient};
use crate::engine::Time;
use crate::limits::MERGE_BYTES_MAX;
use crate::net::Failure;
use crate::net::http::{Target, fetch};

/// OpenMetrics for its exemplars, else what every server speaks.
const ACCEPTED: &str = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
/// Servers that mount their page (Starlette) send `/metrics` to `/metrics/`.
const REDIRECTS_MAX: usize = 2;

/// Fetches one page; concurrent callers share one fetch.
#[derive(Debug)]
pub struct Scraper {
    page: MetricsPage,
    clock: Clock,
    last: Mutex<Last>,
    /// Held for the time of a fetch.
    turn: tokio::sync::Mutex<()>,
}

/// What the last fetches came to.
#[derive(Debug, Default)]
struct Last {
    page: Option<Arc<Page>>,
    /// When the last fetch failed and why; a caller's own deadline is no such failure.
    failure: Option<(Time, String)>,
}

/// A page as it came.
#[derive(Clone, Debug)]
pub struct Page {
    pub body: Bytes,
    /// The `Content-Type` as it came.
    pub content_type: String,
    /// When it had come whole.
    pub fetched_at: Time,
}

impl Page {
    /// Which of the two formats it is in.
    pub fn format(&self) -> text::Format {
        text::Format::of_content_type(&self.content_type)
    }
}

impl Scraper {
    /// A scraper that reads at most [`MERGE_BYTES_MAX`].
    pub fn new(page: MetricsPage, clock: Clock) -> Self {
        Self { page, clock, last: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// The page: the last one if it is not older than `max_age`, else a new one. Waits for a fetch that is
    /// under way rather than start a second, and shares its failure. The error is for a person.
    pub async fn page(&self, max_age: Duration, timeout: Duration) -> Result<Arc<Page>, String> {
        let asked_at = self.clock.now();
        let oldest = |page: &Arc<Page>| asked_at.since(page.fetched_at) <= max_age;
        if let Some(page) = self.last().page.as_ref().filter(|page| oldest(page)) {
            return Ok(Arc::clone(page));
        }
        let turn = async {
            let _turn = self.turn.lock().await;
            if let Some(shared) = self.ended_since(asked_at) {
                return shared;
            }
            let fetched = self.fetch().await;
            let mut last = self.last();
            match &fetched {
                Ok(page) => *last = Last { page: Some(Arc::clone(page)), failure: None },
                Err(reason) => last.failure = Some((self.clock.now(), reason.clone())),
            }
            fetched
        };
        tokio::time::timeout(timeout, turn).await.unwrap_or_else(|_| {
            Err(format!("no metrics page from {} within {}", self.whom(), humantime::format_duration(timeout)))
        })
    }

    /// `host:port` of the page, for people.
    pub fn whom(&self) -> String {
        self.target().map_or_else(|_| "nowhere".to_owned(), |target| target.address())
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result of a fetch that ended while the caller was waiting for its turn.
    fn ended_since(&self, asked_at: Time) -> Option<Result<Arc<Page>, String>> {
        let last = self.last();
        if let Some((at, reason)) = last.failure.as_ref().filter(|(at, _)| *at > asked_at) {
            debug_assert!(last.page.as_ref().is_none_or(|page| page.fetched_at <= *at));
            return Some(Err(reason.clone()));
        }
        last.page.as_ref().filter(|page| page.fetched_at > asked_at).map(|page| Ok(Arc::clone(page)))
    }

    fn target(&self) -> Result<Target, Failure> {
        Target::of(&self.page.uri, &TlsClient::default())
    }

    async fn fetch(&self) -> Result<Arc<Page>, String> {
        let whom = self.whom();
        let failed = |reason: String| format!("no metrics page from {whom}: {reason}");
        let target = self.target().map_err(|failure| failed(failure.reason))?;
        let mut uri = self.page.uri.clone();
        let mut response = ask(&target, &uri).await.map_err(&failed)?;
        for _ in 0..REDIRECTS_MAX {
            let Some(next) = redirect(&response, &uri) else { break };
            uri = next;
            response = ask(&target, &uri).await.map_err(&failed)?;
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !response.status().is_success() {
            return Err(failed(format!("it answered {}", response.status())));
        }
        if !matches!(header(CONTENT_ENCODING), "" | "identity") {
            return Err(failed("it is compressed, which was not asked for".to_owned()));
        }
        let content_type = header(CONTENT_TYPE).to_owned();
        Ok(Arc::new(Page { content_type, fetched_at: self.clock.now(), body: response.into_body() }))
    }
}

async fn ask(target: &Target, uri: &Uri) -> Result<Response<Bytes>, String> {
    let request = Request::get(uri.clone()).header(ACCEPT, ACCEPTED).body(Bytes::new());
    let request = request.map_err(|error| error.to_string())?;
    fetch(target, request, MERGE_BYTES_MAX).await.map_err(|failure| failure.reason)
}

/// Where a redirect leads if it stays on the same server; any other is an answer that is no page.
fn redirect(response: &Response<Bytes>, from: &Uri) -> Option<Uri> {
    if !matches!(response.status().as_u16(), 301 | 302 | 307 | 308) {
        return None;
    }
    let to: Uri = response.headers().get(LOCATION)?.to_str().ok()?.parse().ok()?;
    let same = to.authority().is_none_or(|authority| {
        Some(authority.host()) == from.host() && authority.port_u16() == from.port_u16() && to.scheme() == from.scheme()
    });
    if !same || !to.path().starts_with('/') {
        return None;
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = to.path_and_query().cloned();
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests;
