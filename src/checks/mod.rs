//! Collectors of active evidence: one file a kind, one attempt in, one outcome out.
//!
//! A collector owns its socket, file or child for the time of one attempt and nothing longer. It refuses to
//! judge: it says what it saw, and the engine decides what that means. Dropping an attempt's future closes
//! the socket or kills the process group. Whatever happens inside, an attempt ends as an outcome: a deadline
//! says what was waited for, a panic is no evidence.

mod attempt;
mod bounded;
mod bytes_text;
mod cgroup;
mod disk;
mod dns;
mod exec;
mod golden;
mod grpc;
pub mod heartbeat;
mod http;
mod json;
mod lane;
mod memory;
mod metric;
mod postgres;
mod proc;
mod process;
mod progress;
mod redis;
mod saturation;
mod scene;
mod tcp;
mod threads;
mod tls;
#[cfg(test)]
mod trial;

pub use threads::{ThreadState, threads_of};

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{CheckSpec, Config, Kind, MemoryOf, MetricsPage};
use crate::engine::{CheckId, CheckPlan, Outcome};
use crate::limits::PAGE_AGE_MAX;
use crate::scrape::Scraper;
use scene::Scene;

/// The collectors of one configuration. Made anew at a reload, taking over what must outlive it.
pub struct Collectors {
    clock: Clock,
    collectors: Vec<Arc<Collector>>,
    board: Arc<heartbeat::Board>,
    scrapers: HashMap<MetricsPage, Arc<Scraper>>,
    /// The model server's own page.
    upstream_page: Option<MetricsPage>,
}

/// One check's collector: what to do, and what it must remember from one attempt to the next.
struct Collector {
    spec: CheckSpec,
    memory: Arc<Mutex<Memory>>,
    scraper: Option<Arc<Scraper>>,
    board: Arc<heartbeat::Board>,
    /// A metrics page may be so old.
    page_age: Duration,
}

/// What an attempt leaves for the next one of the same check.
#[derive(Debug, Default)]
struct Memory {
    /// The last reading of a counter and when, for rates and resets.
    counter: Option<(crate::engine::Time, f64)>,
    /// When the metrics page that was judged last had come.
    page: Option<crate::engine::Time>,
    /// The last reading of the selected processes' CPU time.
    cpu: Option<process::CpuReading>,
    /// Where this check's blocking calls run, one at a time.
    lane: lane::Lane,
}

impl Collectors {
    /// Collectors for `config`. `previous` gives heartbeats, scrapers of the same pages, and what checks of
    /// the same name and the same words remember.
    pub fn new(config: &Config, clock: Clock, previous: Option<&Self>) -> Arc<Self> {
        let upstream_page = config.upstream.metrics.clone();
        let pages = upstream_page.iter().chain(config.checks.iter().filter_map(page_of));
        let scrapers: HashMap<_, _> = pages
            .map(|page| {
                let kept = previous.and_then(|previous| previous.scrapers.get(page)).cloned();
                (page.clone(), kept.unwrap_or_else(|| Arc::new(Scraper::new(page.clone(), clock))))
            })
            .collect();
        let board: Arc<heartbeat::Board> = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.board));
        board.expect(&config.checks, clock.now());
        let remembered = previous.map(Self::memories).unwrap_or_default();
        let collectors = config.checks.iter().enumerate().map(|(index, spec)| {
            Arc::new(Collector {
                memory: remembered.get(&identity(spec)).cloned().unwrap_or_default(),
                scraper: page_of(spec).and_then(|page| scrapers.get(page)).cloned(),
                board: Arc::clone(&board),
                page_age: config.engine.checks.get(index).map_or(Duration::ZERO, page_age),
                spec: spec.clone(),
            })
        });
        let collectors = collectors.collect();
        Arc::new(Self { clock, collectors, board, scrapers, upstream_page })
    }

    /// One attempt. It ends by `timeout` at the latest, and then says what it was waiting for.
    pub fn attempt(&self, check: CheckId, timeout: Duration) -> impl Future<Output = Outcome> + Send + 'static {
        let collector = self.collectors.get(check.index()).cloned();
        let page_age = collector.as_ref().map_or(Duration::ZERO, |collector| collector.page_age);
        let lane = collector.as_ref().map(|collector| collector.lane()).unwrap_or_default();
        let scene = Scene::new(self.clock, timeout, page_age, lane);
        async move {
            match collector {
                Some(collector) => attempt::run(&collector, scene).await,
                // The engine was told of another configuration: its reload has to come first.
                None => Outcome::unknown("there is no such check", Duration::ZERO),
            }
        }
    }

    /// The scraper of the model server's own metrics page, shared with `/metrics`: never two scrapes at once.
    pub fn upstream_scraper(&self) -> Option<Arc<Scraper>> {
        self.upstream_page.as_ref().and_then(|page| self.scrapers.get(page)).cloned()
    }

    /// Where heartbeats arrive, whoever carries them.
    pub fn board(&self) -> &Arc<heartbeat::Board> {
        &self.board
    }

    fn memories(&self) -> HashMap<String, Arc<Mutex<Memory>>> {
        self.collectors.iter().map(|c| (identity(&c.spec), Arc::clone(&c.memory))).collect()
    }
}

impl fmt::Debug for Collectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collectors").field("checks", &self.collectors.len()).finish_non_exhaustive()
    }
}

/// What an attempt of a check says that has nothing to look at by itself.
const BY_TRAFFIC: &str = "judged by the traffic of a running sidecar";

/// A check is the same one if its name and every word of it are. `Debug` says every word, and never a secret.
fn identity(spec: &CheckSpec) -> String {
    format!("{spec:?}")
}

/// The metrics page that a check reads, if it reads one.
fn page_of(spec: &CheckSpec) -> Option<&MetricsPage> {
    match &spec.kind {
        Kind::Metric(metric) => Some(&metric.page),
        Kind::Progress(progress) => progress.counter.as_ref().map(|counter| &counter.page),
        Kind::Saturation(check) => check.gauge.as_ref().map(|gauge| &gauge.page),
        Kind::Memory(memory) => match &memory.of {
            MemoryOf::Metric { page, .. } => Some(page),
            _ => None,
        },
        _ => None,
    }
}

/// Half of the interval, and never so old that a verdict would be late for it: several checks on one page cost
/// it one scrape, wherever in the interval each of them is.
fn page_age(plan: &CheckPlan) -> Duration {
    (plan.interval / 2).min(PAGE_AGE_MAX)
}

impl Collector {
    async fn attempt(&self, scene: &Scene) -> Outcome {
        // Boxed one by one: a task of the size of the largest kind (20 KB) for each of 10 000 checks is 200 MB.
        let attempt: Pin<Box<dyn Future<Output = Outcome> + Send + '_>> = match &self.spec.kind {
            Kind::Dns(spec) => Box::pin(dns::attempt(spec, scene)),
            Kind::Disk(spec) => Box::pin(disk::attempt(spec, scene)),
            Kind::Exec(spec) => Box::pin(exec::attempt(spec, scene)),
            Kind::Golden(spec) => Box::pin(golden::attempt(spec, scene)),
            Kind::Grpc(spec) => Box::pin(grpc::attempt(spec, scene)),
            Kind::Heartbeat(spec) => Box::pin(heartbeat::attempt(&self.spec.name, spec, &self.board, scene)),
            Kind::Http(spec) => Box::pin(http::attempt(spec, scene)),
            Kind::Memory(spec) => Box::pin(memory::attempt(spec, self.scraper.as_deref(), &self.memory, scene)),
            Kind::Metric(spec) => Box::pin(metric::attempt(spec, self.scraper.as_deref(), &self.memory, scene)),
            // Judged by the engine from the traffic alone.
            Kind::Outcomes(_) => Box::pin(std::future::ready(scene.pass().remark(BY_TRAFFIC))),
            Kind::Postgres(spec) => Box::pin(postgres::attempt(spec, scene)),
            Kind::Process(spec) => Box::pin(process::attempt(spec, &self.memory, scene)),
            Kind::Progress(spec) => Box::pin(progress::attempt(spec, self.scraper.as_deref(), scene)),
            Kind::Redis(spec) => Box::pin(redis::attempt(spec, scene)),
            Kind::Saturation(spec) => Box::pin(saturation::attempt(spec, self.scraper.as_deref(), scene)),
            Kind::Tcp(spec) => Box::pin(tcp::attempt(spec, scene)),
            Kind::Tls(spec) => Box::pin(tls::attempt(spec, scene)),
        };
        attempt.await
    }

    fn lane(&self) -> lane::Lane {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).lane.clone()
    }

    /// Whether silence by the deadline is no evidence, rather than a failure: what a page would have said
    /// is not known when there is no page.
    fn silence_is_unknown(&self) -> bool {
        page_of(&self.spec).is_some() && !matches!(self.spec.kind, Kind::Progress(_))
    }
}

#[cfg(test)]
mod tests;
