//! The traffic plane: accepts, asks the gate, forwards, counts.
//!
//! Each worker is one OS thread with its own runtime, its own accept socket and its own connections to the
//! model server: a request never crosses a thread, and meets no lock and no channel on its way. The plane
//! counts and the engine concludes: what may pass is read from the published judgement, never decided here.
//!
//! `run` makes one [`Shared`], binds with [`bind`], runs [`worker`] on a thread of its own for each listener
//! and hands every published snapshot to [`Shared::apply`].

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
mod pool;
mod refusal;
mod request;
mod substance;
#[cfg(test)]
mod tests;
mod upgrade;
mod upstreams;
mod worker;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, Uri};
use tokio::sync::{Notify, mpsc};

pub use bind::bind;
pub use counters::Counters;
pub use flights::InFlight;
pub use refusal::{REASON_HEADER, Reason};
pub use upstreams::UpstreamsError;
pub use worker::{Order, worker};

use crate::clock::Clock;
use crate::config::{Algorithm, Config, UpstreamProtocol};
use crate::engine::{BackendId, Cause, DrainPhase, InstancePhase, Sign, Snapshot, Status};
use crate::publish::Published;
use admission::{Gate, Terms};
use upstreams::{Upstreams, Weighted};

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
}

/// What all workers share: settings, upstreams, the gate, the counters.
pub struct Shared {
    clock: Clock,
    published: Arc<Published>,
    counters: Arc<Counters>,
    setup: ArcSwap<Setup>,
    gate: AtomicU8,
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
    terms: Terms,
    /// The longest path first.
    routes: Vec<RouteRules>,
}

/// What differs for one path and below.
struct RouteRules {
    path: String,
    first_byte_timeout: Option<Duration>,
    terms: Terms,
    /// Whether the gate is its own.
    own: bool,
}

/// The settings that a request needs, copied out of the setup before it waits for anything.
#[derive(Clone, Copy, Debug)]
struct Limits {
    hold: Option<Duration>,
    first_byte_timeout: Option<Duration>,
    connect_timeout: Duration,
    upstream_idle: Duration,
    client_idle: Duration,
    max_connections: usize,
    forwarded_headers: bool,
    protocol: UpstreamProtocol,
}

/// Whether requests may pass: the judgement, brought down to one word when it changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Passage {
    Open = 0,
    NotReady = 1,
    Draining = 2,
    /// Not ready because the model server starts or is gone: worth waiting for.
    Loading = 3,
    /// One request at a time, for it decides the way back.
    Trial = 4,
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
        let setup = Setup::new(config, backends, None)?;
        let shared = Self {
            clock,
            counters: Arc::new(Counters::new(wiring.workers, clock)),
            setup: ArcSwap::from_pointee(setup),
            trial: Gate::new(1),
            gate: AtomicU8::new(Passage::NotReady as u8),
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
            news |= setup.upstreams.enable(BackendId(id), backend.enabled);
        }
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
        self.setup.store(Arc::new(Setup::new(config, backends, Some(&before))?));
        Ok(())
    }

    /// The numbers, for the driver, the watchdog and the metrics page.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    fn limits(&self) -> Limits {
        self.setup.load().limits
    }

    /// What holds for a request to this path.
    fn rules(&self, path: &str) -> (Limits, Terms) {
        let setup = self.setup.load();
        let common = (setup.limits, &setup.terms);
        let (limits, terms) = setup.routes.iter().find(|route| route.covers(path)).map_or(common, |route| {
            (Limits { first_byte_timeout: route.first_byte_timeout, ..setup.limits }, &route.terms)
        });
        (limits, terms.clone())
    }

    fn passage(&self) -> Passage {
        match self.gate.load(Ordering::Acquire) {
            0 => Passage::Open,
            2 => Passage::Draining,
            3 => Passage::Loading,
            4 => Passage::Trial,
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
    fn new(config: &Config, backends: &[SocketAddr], before: Option<&Self>) -> Result<Self, UpstreamsError> {
        let algorithm = config.upstream.algorithm;
        let list: Vec<Weighted> = config
            .upstream
            .backends
            .iter()
            .zip(backends)
            .map(|(backend, &address)| Weighted { address, weight: backend.weight })
            .collect();
        let limits = Limits::new(config);
        let (terms, routes) = rules_of(config, before);
        if let Some(before) = before.filter(|before| before.list == list && before.algorithm == algorithm) {
            return Ok(Self { limits, algorithm, list, upstreams: Arc::clone(&before.upstreams), terms, routes });
        }
        let upstreams = Upstreams::new(algorithm, &list)?;
        if let Some(before) = before {
            upstreams.inherit(&before.upstreams);
        }
        Ok(Self { limits, algorithm, list, upstreams: Arc::new(upstreams), terms, routes })
    }
}

/// Limits as configured. A gate that was there before stays, with whoever is inside.
fn rules_of(config: &Config, before: Option<&Setup>) -> (Terms, Vec<RouteRules>) {
    let traffic = &config.traffic;
    let gate = gate(before.and_then(|before| before.terms.gate.as_ref()), traffic.max_in_flight);
    let terms = Terms { gate, queue: traffic.queue, hold: traffic.hold };
    let routes = traffic.routes.iter().map(|route| {
        let same = |old: &&RouteRules| old.own && old.path == route.path;
        let old = before.and_then(|before| before.routes.iter().find(same)).and_then(|old| old.terms.gate.as_ref());
        let own = route.max_in_flight.is_some();
        let gate = if own { self::gate(old, route.max_in_flight) } else { terms.gate.clone() };
        RouteRules {
            path: route.path.clone(),
            first_byte_timeout: route.first_byte_timeout,
            terms: Terms { gate, queue: route.queue, hold: route.hold },
            own,
        }
    });
    let routes = routes.collect();
    (terms, routes)
}

fn gate(old: Option<&Arc<Gate>>, max: Option<usize>) -> Option<Arc<Gate>> {
    let max = max?;
    let Some(old) = old else { return Some(Gate::new(max)) };
    old.resize(max);
    Some(Arc::clone(old))
}

impl RouteRules {
    /// Its own path, and what is below it.
    fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Limits {
    fn new(config: &Config) -> Self {
        let traffic = &config.traffic;
        Self {
            hold: traffic.hold,
            first_byte_timeout: traffic.first_byte_timeout,
            connect_timeout: traffic.connect_timeout,
            upstream_idle: traffic.upstream_idle,
            client_idle: traffic.client_idle,
            max_connections: traffic.max_connections,
            forwarded_headers: traffic.forwarded_headers,
            protocol: config.upstream.protocol,
        }
    }
}

impl Passage {
    fn of(snapshot: &Snapshot) -> Self {
        if snapshot.drain.phase >= DrainPhase::Finishing {
            return Self::Draining;
        }
        // While endpoints propagate the gate fails only so that nobody new is sent: whoever comes is served.
        let propagating = snapshot.drain.phase == DrainPhase::Propagating;
        let ready = &snapshot.ready;
        let only_draining = propagating && ready.why.iter().all(|why| !blocks(&why.cause));
        if ready.status != Status::Fail || only_draining {
            return if snapshot.trial { Self::Trial } else { Self::Open };
        }
        let starting = snapshot.instance.phase != InstancePhase::Started;
        let hopeless = ready.why.iter().any(|why| matches!(why.cause, Cause::Disabled | Cause::StartupBudget));
        if starting && !hopeless { Self::Loading } else { Self::NotReady }
    }
}

/// Whether a reason speaks against serving, and not only against being sent more.
fn blocks(cause: &Cause) -> bool {
    !matches!(cause, Cause::Draining | Cause::Degraded(_) | Cause::Withdrawn(_))
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("passage", &self.passage()).finish_non_exhaustive()
    }
}
