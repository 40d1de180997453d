//! The sidecar as the engine's driver sees it: collectors, traffic plane and answers of one configuration,
//! and the change to the next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::certificates::Certificates;
use super::driver::{Attempting, World};
use super::hang::{Hang, Shelf};
use super::logging::Logging;
use super::upstream::Resolved;
use crate::answers::{MetricsHandle, ProbeAnswers};
use crate::checks::Collectors;
use crate::clock::Clock;
use crate::config::{self, Config, Kind};
use crate::control::Refusal;
use crate::engine::{CheckId, Ends, Origins, Plan, Snapshot, Traffic};
use crate::proxy::{Counters, Shared};

/// What runs now.
pub(super) struct Sidecar {
    pub(super) clock: Clock,
    pub(super) config: Config,
    pub(super) backends: Vec<SocketAddr>,
    pub(super) collectors: Arc<Collectors>,
    pub(super) traffic: Arc<Shared>,
    pub(super) counters: Arc<Counters>,
    pub(super) probes: Arc<ProbeAnswers>,
    pub(super) metrics: MetricsHandle,
    pub(super) logging: Option<Arc<Logging>>,
    pub(super) board: SharedBoard,
    pub(super) drain_max: DrainMax,
    pub(super) certificates: Arc<Certificates>,
    pub(super) shelf: Shelf,
}

/// Where the notify socket finds the board, which stays the same one over reloads.
pub(super) type SharedBoard = Arc<crate::checks::heartbeat::Board>;

/// `drain.max` as last configured, for whoever waits for the end of a drain on another thread.
#[derive(Clone, Debug)]
pub(super) struct DrainMax(Arc<AtomicU64>);

impl DrainMax {
    pub(super) fn new(max: Duration) -> Self {
        let this = Self(Arc::default());
        this.set(max);
        this
    }

    pub(super) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, max: Duration) {
        self.0.store(u64::try_from(max.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl World for Sidecar {
    fn attempt(&self, check: CheckId, timeout: Duration) -> Attempting {
        Box::pin(self.collectors.attempt(check, timeout))
    }

    fn apply(&self, snapshot: &Snapshot) {
        self.traffic.apply(snapshot);
    }

    fn in_flight(&self) -> u64 {
        self.counters.in_flight()
    }

    fn traffic(&self, left_over: u64) -> Traffic {
        self.counters.left_over(left_over);
        self.counters.traffic()
    }

    fn ends(&self) -> Vec<Ends> {
        self.traffic.ends()
    }

    fn origins(&self) -> Origins {
        self.counters.origins()
    }

    fn report_hang(&self, hang: &Hang<'_>) {
        let process = match self.config.checks.get(hang.check.index()).map(|spec| &spec.kind) {
            Some(Kind::Progress(progress)) => progress.process.as_ref().map(|(select, _)| select),
            _ => None,
        };
        let file = self.config.report_file.as_deref();
        hang.write(&self.counters.flights(), process, self.clock, file, &self.shelf);
    }

    fn heartbeat(&self, check: &str, status: &str) -> Result<CheckId, Refusal> {
        self.board.beat(check, status, self.clock.now()).map_err(|error| Refusal::NotFound(error.to_string()))?;
        let index = self.config.engine.checks.iter().position(|plan| plan.name == check);
        let id = index.and_then(|index| u32::try_from(index).ok()).map(CheckId);
        id.ok_or_else(|| Refusal::NotFound(format!("no check is named \"{check}\"")))
    }

    fn adopt(&mut self, new: Resolved) -> Result<(Arc<Plan>, Vec<&'static str>), String> {
        // The one step that may refuse comes first: after it there is no way back, and none is needed.
        self.traffic.configure(&new.config, &new.backends).map_err(|error| error.to_string())?;
        let mut waiting = config::waits_for_restart(&self.config, &new.config);
        // Once there is a thread for it, it may be turned off and on again.
        waiting.retain(|key| *key != "log.access" || !self.traffic.has_access_log());
        if let Some(logging) = &self.logging
            && logging.set_level(&new.config.log.level).is_err()
        {
            waiting.push("log.level");
        }
        self.collectors = Collectors::new(&new.config, self.clock, Some(&self.collectors));
        self.probes.show_details(new.config.details.show);
        self.metrics.merge_with(self.collectors.upstream_scraper());
        self.drain_max.set(new.config.engine.drain.max);
        self.certificates.adopt(new.config.tls.as_ref(), new.identity);
        let leaves = |address: &String| !new.config.engine.backends.iter().any(|stays| stays.address == *address);
        if self.config.engine.backends.iter().any(|old| leaves(&old.address)) {
            self.counters.upstream_left();
        }
        self.backends = new.backends;
        // What waits for a restart stays as it runs, so that a later reload still finds it different.
        let (listen, running) = (self.config.listen.clone(), self.config.clone());
        let (ring_file, trace_file) = (running.ring_file, running.trace_file);
        self.config = Config { listen, notify_socket: running.notify_socket, ring_file, trace_file, ..new.config };
        self.config.log.format = running.log.format;
        if !self.traffic.has_access_log() {
            self.config.log.access = None;
        }
        self.config.traffic.workers = running.traffic.workers;
        Ok((Arc::clone(&self.config.engine), waiting))
    }
}
