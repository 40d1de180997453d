//! The traffic plane: accepts, asks the gate, forwards, counts.
//!
//! Each worker is one OS thread with its own runtime, its own accept socket and its own connections to the
//! model server: a request never crosses a thread, and meets no lock and no channel on its way. The plane
//! counts and the engine concludes: what may pass is read from the published judgement, never decided here.
//!
//! `run` makes one [`Shared`], binds with [`bind`], runs [`worker`] on a thread of its own for each listener
//! and hands every published snapshot to [`Shared::apply`].

mod access;
mod admission;
mod bind;
mod body;
mod channels;
mod connection;
mod counters;
mod dial;
mod durations;
mod flights;
mod forward;
mod headers;
mod http1;
mod least_loaded;
mod line;
mod origins;
mod places;
mod pool;
mod refusal;
mod request;
mod rules;
mod secured;
mod substance;
mod tally;
#[cfg(test)]
mod tests;
mod upgrade;
mod upstreams;
mod websocket;
mod worker;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, Uri};
use tokio::sync::{Notify, mpsc};
use tokio_rustls::rustls::ServerConfig;

pub use access::{AccessLines, AccessWriter, access_log};
pub use bind::bind;
pub use counters::Counters;
pub use flights::InFlight;
pub use refusal::{REASON_HEADER, Reason};
pub use upstreams::UpstreamsError;
pub use worker::{Order, worker};

use crate::clock::Clock;
use crate::config::{AccessLog, Algorithm, Config, UpstreamProtocol};
use crate::engine::{BackendId, BackendState, Cause, DrainPhase, Ends, OnTimeout, Passage, Sign, Snapshot};
use crate::publish::Published;
use admission::Terms;
use places::Gate;
use rules::Rules;
use upstreams::{Admit, Upstreams, Weighted};

/// Answers probe paths on the traffic listener, for `listen.expose_probes`.
pub trait ProbeHook: Send + Sync {
    /// The answer if the request is for a probe path, `None` if it is the model server's. Must not wait.
    fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, from: SocketAddr) -> Option<Response<Bytes>>;
}

/// What ties the traffic plane to the rest.
pub struct Wiring {
    /// How many workers will run; each calls [`worker`] once with its own index below this.
    pub workers: usize,
    /// Where refused connects are reported. Bounded; a full channel loses the sign, never the request.
    pub signs: Option<mpsc::Sender<(BackendId, Sign)>>,
    /// Present when the probe paths are to be answered here too.
    pub probes: Option<Arc<dyn ProbeHook>>,
    /// Where requests' lines go, where they may be asked for. Bounded; a full queue loses the line.
    pub access: Option<AccessLines>,
}

/// What all workers share: settings, upstreams, the gate, the counters.
pub struct Shared {
    clock: Clock,
    published: Arc<Published>,
    counters: Arc<Counters>,
    setup: ArcSwap<Setup>,
    gate: AtomicU8,
    /// A drain has begun: whoever keeps a connection is told to take the next one elsewhere.
    leaving: AtomicBool,
    /// How clients are shaken hands with; none: they speak plain HTTP.
    tls: ArcSwapOption<ServerConfig>,
    /// The one place of a trial.
    trial: Arc<Gate>,
    /// Told when what was closed may have opened, for those who wait.
    changed: Notify,
    wiring: Wiring,
}

/// What a reload may change. Swapped as a whole.
struct Setup {
    limits: Limits,
    algorithm: Algorithm,
    list: Vec<Weighted>,
    upstreams: Arc<Upstreams>,
    rules: Rules,
    access: Option<AccessLog>,
}

/// The settings that a request needs, copied out of the setup before it waits for anything.
#[derive(Clone, Copy, Debug)]
struct Limits {
    hold: Option<Duration>,
    first_byte_timeout: Option<Duration>,
    /// How long the route lets the model server be silent; zero if it does not say.
    patience: Duration,
    connect_timeout: Duration,
    upstream_idle: Duration,
    client_idle: Duration,
    max_connections: usize,
    forwarded_headers: bool,
    protocol: UpstreamProtocol,
}

impl Shared {
    /// Everything closed until a snapshot says otherwise; the published one is applied at once. `backends` are
    /// the resolved addresses in the order of `config.upstream.backends`.
    pub fn new(
        config: &Config,
        backends: &[SocketAddr],
        published: Arc<Published>,
        clock: Clock,
        wiring: Wiring,
    ) -> Result<Arc<Self>, UpstreamsError> {
        let setup = Setup::new(config, backends, wiring.workers, None)?;
        let shared = Self {
            clock,
            counters: Arc::new(Counters::new(wiring.workers, clock)),
            setup: ArcSwap::from_pointee(setup),
            trial: Gate::new(Some(1)),
            gate: AtomicU8::new(Passage::NotReady as u8),
            leaving: AtomicBool::new(false),
            tls: ArcSwapOption::empty(),
            changed: Notify::new(),
            wiring,
            published,
        };
        let first = shared.published.load_full();
        shared.apply(&first);
        Ok(Arc::new(shared))
    }

    /// Takes over a judgement. Call it with every published snapshot, from one thread; cheap, and a no-op where
    /// nothing changed.
    pub fn apply(&self, snapshot: &Snapshot) {
        let setup = self.setup.load();
        let mut news = false;
        for (id, backend) in (0..).zip(snapshot.backends.iter()) {
            let admit = match backend.state {
                BackendState::Up => Admit::Anything,
                BackendState::Probation => Admit::Trial,
                BackendState::Down | BackendState::Ejected => Admit::Nothing,
            };
            news |= setup.upstreams.admit(BackendId(id), admit);
        }
        self.leaving.store(snapshot.drain.phase != DrainPhase::Serving, Ordering::Release);
        let passage = Passage::of(snapshot) as u8;
        news |= self.gate.swap(passage, Ordering::AcqRel) != passage;
        if news {
            self.changed.notify_waiters();
        }
    }

    /// Takes over what a reload may change, from the thread that calls [`Shared::apply`]. A backend that stays
    /// keeps its word of the engine and its idle connections. The next snapshot that is applied must be
    /// one of the new plan, for backends are known by their place in it. On an error everything stays as it was.
    pub fn configure(&self, config: &Config, backends: &[SocketAddr]) -> Result<(), UpstreamsError> {
        let before = self.setup.load_full();
        self.setup.store(Arc::new(Setup::new(config, backends, self.wiring.workers, Some(&before))?));
        Ok(())
    }

    /// Who connects from now on speaks TLS with this, or plain HTTP. Open connections go on as they are.
    pub fn serve_tls(&self, tls: Option<Arc<ServerConfig>>) {
        self.tls.store(tls);
    }

    /// Whether requests' lines have somewhere to go.
    pub fn has_access_log(&self) -> bool {
        self.wiring.access.is_some()
    }

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.load_full()
    }

    /// The numbers, for the driver, the watchdog and the metrics page.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// How requests to each upstream address ended, in the order of the backends.
    pub fn ends(&self) -> Vec<Ends> {
        self.setup.load().upstreams.ends()
    }

    fn limits(&self) -> Limits {
        self.setup.load().limits
    }

    /// What holds for a request to this path.
    fn rules(&self, path: &str) -> (Limits, Terms) {
        let setup = self.setup.load();
        let (terms, route) = setup.rules.of(path);
        let limits = route.map_or(setup.limits, |route| Limits {
            first_byte_timeout: route.first_byte_timeout,
            patience: route.stall_after,
            ..setup.limits
        });
        (limits, terms.clone())
    }

    /// How far forward in the queue a request stands, where its header says so.
    fn priority<'a>(&self, field: impl FnOnce(&HeaderName) -> Option<&'a str>) -> i8 {
        self.setup.load().rules.priority(field)
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    fn passage(&self) -> Passage {
        match self.gate.load(Ordering::Acquire) {
            0 => Passage::Open,
            2 => Passage::Draining,
            3 => Passage::Loading,
            4 => Passage::Trial,
            5 => Passage::Saturated,
            _ => Passage::NotReady,
        }
    }

    /// The name of the check that decides that we are not ready, if one does.
    fn deciding_check(&self) -> Option<String> {
        let snapshot = self.published.load();
        snapshot.ready.why.iter().find_map(|why| match why.cause {
            Cause::Check(id) => snapshot.checks.get(id.index()).map(|check| check.name.clone()),
            _ => None,
        })
    }
}

impl Setup {
    fn new(
        config: &Config,
        backends: &[SocketAddr],
        workers: usize,
        before: Option<&Self>,
    ) -> Result<Self, UpstreamsError> {
        let timeouts = |index: usize| {
            let check = config.engine.backends.get(index).and_then(|b| config.engine.checks.get(b.check.index()));
            check.is_none_or(|check| check.on_timeout != OnTimeout::Unknown)
        };
        let algorithm = config.upstream.algorithm;
        let list: Vec<Weighted> = config
            .upstream
            .backends
            .iter()
            .zip(backends)
            .enumerate()
            .map(|(index, (backend, &address))| Weighted { address, weight: backend.weight, timeouts: timeouts(index) })
            .collect();
        let limits = Limits::new(config);
        let access = config.log.access;
        let rules = Rules::new(&config.traffic, before.map(|before| &before.rules));
        if let Some(before) = before.filter(|before| before.list == list && before.algorithm == algorithm) {
            return Ok(Self { limits, algorithm, list, upstreams: Arc::clone(&before.upstreams), rules, access });
        }
        let mut upstreams = Upstreams::new(algorithm, &list, workers)?;
        if let Some(before) = before {
            upstreams.inherit(&before.upstreams);
        }
        Ok(Self { limits, algorithm, list, upstreams: Arc::new(upstreams), rules, access })
    }
}

impl Limits {
    fn new(config: &Config) -> Self {
        let traffic = &config.traffic;
        Self {
            hold: traffic.hold,
            first_byte_timeout: traffic.first_byte_timeout,
            patience: Duration::ZERO,
            connect_timeout: traffic.connect_timeout,
            upstream_idle: traffic.upstream_idle,
            client_idle: traffic.client_idle,
            max_connections: traffic.max_connections,
            forwarded_headers: traffic.forwarded_headers,
            protocol: config.upstream.protocol,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("passage", &self.passage()).finish_non_exhaustive()
    }
}
