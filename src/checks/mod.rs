//! Collectors of active evidence: one file a kind, one attempt in, one outcome out.
//!
//! A collector owns its socket, file or child for the time of one attempt and nothing longer. It refuses to
//! judge: it says what it saw, and the engine decides what that means. Dropping an attempt's future closes
//! the socket or kills the process group.

mod disk;
mod dns;
mod exec;
mod grpc;
pub mod heartbeat;
mod http;
mod memory;
mod metric;
mod postgres;
mod process;
mod redis;
mod tcp;
mod tls;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{CheckSpec, Config, Kind, MetricsPage};
use crate::engine::{CheckId, Fault, Outcome};
use crate::scrape::Scraper;

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
    memory: Mutex<Memory>,
    scraper: Option<Arc<Scraper>>,
    board: Arc<heartbeat::Board>,
}

/// What an attempt leaves for the next one of the same check.
#[derive(Debug, Default)]
struct Memory {
    /// The last reading of a counter and when, for rates and resets.
    counter: Option<(crate::engine::Time, f64)>,
}

/// What one attempt has at hand, and where it says what it is waiting for.
struct Scene {
    clock: Clock,
    started: crate::engine::Time,
    waiting_for: Arc<Mutex<String>>,
}

impl Scene {
    /// Says what the attempt waits for now; the reason of a timeout is made of it: "waiting for PONG from 127.0.0.1:6379".
    fn waiting_for(&self, what: impl Into<String>) {
        *self.waiting_for.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = what.into();
    }

    /// Time since the attempt began.
    fn elapsed(&self) -> Duration {
        self.clock.now().since(self.started)
    }
}

impl Collectors {
    /// Collectors for `config`. `previous` gives heartbeats and scrapers that stay the same.
    pub fn new(config: &Config, clock: Clock, previous: Option<&Self>) -> Arc<Self> {
        let _ = (config, clock, previous);
        todo!()
    }

    /// One attempt. It ends by `timeout` at the latest, and then says what it was waiting for.
    pub fn attempt(&self, check: CheckId, timeout: Duration) -> impl Future<Output = Outcome> + Send + 'static {
        let collector = Arc::clone(&self.collectors[check.index()]);
        let waiting_for = Arc::new(Mutex::new(String::from("it to begin")));
        let scene = Scene { clock: self.clock, started: self.clock.now(), waiting_for: Arc::clone(&waiting_for) };
        async move {
            tokio::time::timeout(timeout, collector.attempt(&scene)).await.unwrap_or_else(|_| {
                let what = waiting_for.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                Outcome::fail(
                    Fault::Timeout,
                    format!("timeout after {}, waiting for {what}", humantime::format_duration(timeout)),
                    timeout,
                )
            })
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
}

impl Collector {
    async fn attempt(&self, scene: &Scene) -> Outcome {
        match &self.spec.kind {
            Kind::Dns(spec) => dns::attempt(spec, scene).await,
            Kind::Disk(spec) => disk::attempt(spec, scene).await,
            Kind::Exec(spec) => exec::attempt(spec, scene).await,
            Kind::Grpc(spec) => grpc::attempt(spec, scene).await,
            Kind::Heartbeat(spec) => heartbeat::attempt(&self.spec.name, spec, &self.board, scene).await,
            Kind::Http(spec) => http::attempt(spec, scene).await,
            Kind::Memory(spec) => memory::attempt(spec, self.scraper.as_deref(), scene).await,
            Kind::Metric(spec) => metric::attempt(spec, self.scraper.as_deref(), &self.memory, scene).await,
            Kind::Postgres(spec) => postgres::attempt(spec, scene).await,
            Kind::Process(spec) => process::attempt(spec, &self.memory, scene).await,
            Kind::Redis(spec) => redis::attempt(spec, scene).await,
            Kind::Tcp(spec) => tcp::attempt(spec, scene).await,
            Kind::Tls(spec) => tls::attempt(spec, scene).await,
        }
    }
}
