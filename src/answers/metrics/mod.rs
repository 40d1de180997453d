//! `/metrics`: ours merged with the model server's own, made on its own thread, asked for by message.
//!
//! It owns the waiting (bounded, once for all who ask at the same time) and refuses to fail: whatever the
//! model server does, our own page goes out with a 200.

mod exposition;
mod merge;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::negotiate::preferred;
use crate::clock::Clock;
use crate::limits;
use crate::scrape::text::Format;
use crate::scrape::{Page, Scraper};
use crate::telemetry::Telemetry;
use merge::{Merge, Theirs};

/// What the page is written in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PageFormat {
    /// OpenMetrics 1.0: exemplars, units, `# EOF`.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
}

/// Asks for pages, from any thread. Cloned freely.
#[derive(Clone)]
pub struct MetricsHandle {
    asks: mpsc::Sender<Ask>,
    upstream: Arc<ArcSwap<Option<Arc<dyn PageSource>>>>,
}

/// Makes the pages. Runs on the metrics thread.
pub struct MetricsService {
    asks: mpsc::Receiver<Ask>,
    upstream: Arc<ArcSwap<Option<Arc<dyn PageSource>>>>,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    /// A fetch that somebody gave up waiting for.
    under_way: Option<JoinHandle<Result<Arc<Page>, String>>>,
    /// Whether the last fetch succeeded: only then is the next one waited for.
    trusted: bool,
}

/// Where the model server's page comes from.
#[tonic::async_trait]
trait PageSource: Send + Sync {
    async fn fetch(&self) -> Result<Arc<Page>, String>;
}

struct Ask {
    format: PageFormat,
    reply: oneshot::Sender<Bytes>,
}

/// Scrapers that may wait for the metrics thread; more wait for a place among these.
const ASKS_MAX: usize = 64;
/// Said instead of a page when the metrics thread does not answer.
const NOBODY: &str = "# TYPE probegate_metrics_thread_up gauge\nprobegate_metrics_thread_up 0\n";
const OPENMETRICS_TYPE: &str = "application/openmetrics-text";

impl PageFormat {
    /// What a scraper asks for. Without a wish it is the older format, which everybody reads.
    pub(super) fn preferred(headers: &HeaderMap) -> Self {
        match preferred(headers, &[OPENMETRICS_TYPE], "text/plain") {
            Some(_) => Self::OpenMetrics,
            None => Self::Text,
        }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl MetricsHandle {
    /// A page, within [`limits::METRICS_ANSWER_TIMEOUT`].
    pub async fn page(&self, format: PageFormat) -> Bytes {
        let (reply, page) = oneshot::channel();
        let asked = async {
            self.asks.send(Ask { format, reply }).await.ok()?;
            page.await.ok()
        };
        match timeout(limits::METRICS_ANSWER_TIMEOUT, asked).await {
            Ok(Some(page)) => page,
            _ if format == PageFormat::OpenMetrics => format!("{NOBODY}# EOF\n").into(),
            _ => Bytes::from_static(NOBODY.as_bytes()),
        }
    }

    /// The model server's page from now on, or none: at the start and at a reload.
    pub fn merge_with(&self, scraper: Option<Arc<Scraper>>) {
        self.upstream.store(Arc::new(scraper.map(|scraper| scraper as Arc<dyn PageSource>)));
    }
}

impl MetricsService {
    /// The two ends. Nothing is merged until [`MetricsHandle::merge_with`].
    pub fn new(telemetry: Arc<Telemetry>, clock: Clock) -> (MetricsHandle, Self) {
        let (sender, asks) = mpsc::channel(ASKS_MAX);
        let upstream = Arc::new(ArcSwap::from_pointee(None));
        let handle = MetricsHandle { asks: sender, upstream: Arc::clone(&upstream) };
        (handle, Self { asks, upstream, telemetry, clock, under_way: None, trusted: true })
    }

    /// Makes pages until `shutdown`, or until nobody can ask any more.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.answer(ask).await,
                    None => return,
                },
                () = &mut shutdown => return,
            }
        }
    }

    /// One round: one fetch, one page a format, for everybody who asked until the fetch ended.
    async fn answer(&mut self, first: Ask) {
        let started = self.clock.now();
        let theirs = self.fetch().await;
        let took = self.clock.now().since(started);
        let mut asks = vec![first];
        while let Ok(ask) = self.asks.try_recv() {
            asks.push(ask);
        }
        asks.retain(|ask| !ask.reply.is_closed());
        let Ok(ours) = self.telemetry.encode() else { return };
        let theirs = theirs.map(|fetched| fetched.map(|page| Theirs { page, took }));
        let merge = Merge::new(&ours, theirs.as_ref());
        for format in [PageFormat::OpenMetrics, PageFormat::Text] {
            let (wanted, others): (Vec<_>, Vec<_>) = asks.into_iter().partition(|ask| ask.format == format);
            asks = others;
            if !wanted.is_empty() {
                let page = Bytes::from(merge.render(format));
                for ask in wanted {
                    // Who has gone away meanwhile needs no page.
                    let _ = ask.reply.send(page.clone());
                }
            }
        }
    }

    /// The model server's page, if it has one; the error is for a person. A fetch that takes too long goes on
    /// by itself, and the next scrape looks what became of it: a server that hangs costs one long wait, not
    /// one a scrape.
    async fn fetch(&mut self) -> Option<Result<Arc<Page>, String>> {
        let source = Arc::clone(self.upstream.load().as_ref().as_ref()?);
        if let Some(finished) = self.under_way.take_if(|fetch| fetch.is_finished()) {
            let result = finished.await.unwrap_or_else(|error| Err(error.to_string()));
            self.trusted = result.is_ok();
            if let Ok(page) = result
                && self.clock.now().since(page.fetched_at) <= limits::MERGE_SHARE
            {
                return Some(Ok(page));
            }
        }
        let patience = if self.trusted { limits::MERGE_TIMEOUT } else { limits::MERGE_GRACE };
        let fetch = self.under_way.get_or_insert_with(|| tokio::spawn(async move { source.fetch().await }));
        let Ok(result) = timeout(patience, fetch).await else {
            self.trusted = false;
            return Some(Err("no answer yet".to_owned()));
        };
        self.under_way = None;
        let result = result.unwrap_or_else(|error| Err(error.to_string()));
        self.trusted = result.is_ok();
        Some(result)
    }
}

#[tonic::async_trait]
impl PageSource for Scraper {
    async fn fetch(&self) -> Result<Arc<Page>, String> {
        self.page(limits::MERGE_SHARE, limits::MERGE_TIMEOUT).await
    }
}

/// The format that a page says it is in.
fn format_of(page: &Page) -> Format {
    Format::of_content_type(&page.content_type)
}

impl fmt::Debug for MetricsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsHandle").finish_non_exhaustive()
    }
}

impl fmt::Debug for MetricsService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsService").field("trusted", &self.trusted).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// A model server's page in the test's hands.
    struct Fake {
        fetches: AtomicUsize,
        delay: Duration,
        result: Result<&'static str, &'static str>,
        clock: Clock,
    }

    #[tonic::async_trait]
    impl PageSource for Fake {
        async fn fetch(&self) -> Result<Arc<Page>, String> {
            self.fetches.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(self.delay).await;
            let body = self.result.map_err(str::to_owned)?;
            Ok(Arc::new(Page { body: body.into(), content_type: "text/plain".into(), fetched_at: self.clock.now() }))
        }
    }

    fn service(delay: Duration, result: Result<&'static str, &'static str>) -> (MetricsHandle, Arc<Fake>) {
        let clock = Clock::start();
        let (handle, service) = MetricsService::new(Arc::new(Telemetry::new()), clock);
        let fake = Arc::new(Fake { fetches: AtomicUsize::new(0), delay, result, clock });
        handle.upstream.store(Arc::new(Some(Arc::clone(&fake) as Arc<dyn PageSource>)));
        tokio::spawn(service.run(std::future::pending()));
        (handle, fake)
    }

    async fn text(handle: &MetricsHandle) -> String {
        String::from_utf8(handle.page(PageFormat::Text).await.to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_scrapers_cause_one_fetch() {
        let (handle, fake) = service(Duration::from_millis(100), Ok("theirs 1\n"));
        let asks: Vec<_> = (0..100)
            .map(|_| {
                let handle = handle.clone();
                tokio::spawn(async move { text(&handle).await })
            })
            .collect();
        for ask in asks {
            assert!(ask.await.unwrap().contains("\ntheirs 1\n"));
        }
        assert!(fake.fetches.load(Ordering::Relaxed) <= 2, "the asks beyond the queue's length make a second round");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_server_costs_one_long_wait_and_then_next_to_none() {
        let (handle, fake) = service(Duration::from_secs(3600), Ok("theirs 1\n"));
        let waits = async || {
            let from = tokio::time::Instant::now();
            let page = text(&handle).await;
            assert!(
                page.contains("probegate_build_info") && page.contains("probegate_upstream_metrics_up 0\n"),
                "{page}"
            );
            from.elapsed()
        };
        assert!(waits().await <= limits::MERGE_TIMEOUT + Duration::from_millis(10));
        for _ in 0..10 {
            assert!(waits().await <= limits::MERGE_GRACE + Duration::from_millis(10));
        }
        assert_eq!(fake.fetches.load(Ordering::Relaxed), 1, "never a second fetch beside one under way");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_server_never_fails_our_own_page() {
        let (handle, _) = service(Duration::ZERO, Err("connection refused"));
        let page = handle.page(PageFormat::OpenMetrics).await;
        let page = std::str::from_utf8(&page).unwrap();
        assert!(page.contains("probegate_upstream_metrics_up 0\n") && page.ends_with("# EOF\n"), "{page}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_metrics_thread_is_told_within_the_answers_time() {
        let (handle, service) = MetricsService::new(Arc::new(Telemetry::new()), Clock::start());
        drop(service);
        assert_eq!(text(&handle).await, NOBODY);
        let (handle, _stuck) = MetricsService::new(Arc::new(Telemetry::new()), Clock::start());
        assert_eq!(text(&handle).await, NOBODY);
    }

    #[test]
    fn prometheus_own_accept_header_gets_openmetrics_and_no_wish_gets_text() {
        let wish = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::ACCEPT, accept.parse().unwrap());
            PageFormat::preferred(&headers)
        };
        assert_eq!(
            wish("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"),
            PageFormat::OpenMetrics
        );
        assert_eq!(wish("text/plain;version=0.0.4"), PageFormat::Text);
        assert_eq!(wish("*/*"), PageFormat::Text);
        assert_eq!(PageFormat::preferred(&HeaderMap::new()), PageFormat::Text);
    }
}
