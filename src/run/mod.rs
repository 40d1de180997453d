//! Build, run, drain: the parts on their threads, from a valid configuration to the last byte.
//!
//! Threads go by promise: `probes` only answers, `engine` only gathers and judges, `admin` does what may
//! take seconds, `traffic-N` each carry their own connections from end to end, `watchdog` watches them all.
//! Listeners are bound before any of them starts. A thread that dies ends the process: the kubelet restarts
//! a sidecar that is gone, never one that is half there.

mod around;
mod attempts;
mod certificates;
mod driver;
mod hang;
mod hook;
mod listen;
mod logging;
mod record;
mod recording;
mod reload;
mod ring;
mod sidecar;
mod threads;
mod throttle;
mod upstream;
mod watchdog;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::sync::{mpsc, oneshot, watch};

use crate::answers::{
    AdminAnswers, AdminListener, EventReaders, MetricsService, ProbeAnswers, serve_admin, serve_probes,
};
use crate::checks::Collectors;
use crate::checks::heartbeat::{Board, NotifySocket};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{Command, Control};
use crate::engine::{DrainPhase, Engine, Time};
use crate::limits;
use crate::proxy::{self, Counters, Order, Shared, Wiring};
use crate::publish::Published;
use crate::telemetry::Telemetry;

pub use listen::{Addresses, BindError};
pub use logging::{LogError, Logging};
pub use reload::Source;
pub use threads::Death;

use around::{Around, Standing};
use certificates::Certificates;
use driver::{Driver, Lines, Parts};
use listen::{Admin, Listeners};
use record::Recorder;
use recording::Recording;
use ring::{Earlier, Ring};
use sidecar::{DrainMax, Sidecar};
use threads::Threads;
use throttle::Throttling;
use upstream::Resolved;
use watchdog::{Pulse, Watchdog};

/// What a sidecar is started with, besides its configuration.
#[derive(Default)]
pub struct Options {
    /// Where the configuration came from; none: it never changes.
    pub source: Option<Source>,
    /// The process' log, whose level follows a reload.
    pub logging: Option<Logging>,
}

/// Why a sidecar could not start. Nothing of it runs then.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A listener could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The notify socket could not be opened.
    #[error("cannot open the notify socket {}: {source}", path.display())]
    Notify { path: PathBuf, source: io::Error },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
    /// There is no log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The upstream addresses cannot be used.
    #[error("{0}")]
    Upstream(String),
}

/// How a sidecar ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Asked to end, and the drain came to its end.
    Drained,
    /// Asked to end, and the drain was cut short by a second word.
    CutOff,
    /// A thread died.
    Died(Death),
}

/// A sidecar that is built and running on its threads; [`App::run`] sees it to its end.
pub struct App {
    clock: Clock,
    addresses: Addresses,
    control: Control,
    published: Arc<Published>,
    drain_max: DrainMax,
    threads: Threads,
    stop: Stop,
    /// Held so that its last lines are written when everything else has ended.
    _logging: Option<Arc<Logging>>,
}

/// The ends that threads listen to.
struct Stop {
    orders: watch::Sender<Order>,
    /// Closing the others stops what listens to them.
    _services: watch::Sender<()>,
    _engine: oneshot::Sender<()>,
    _watchdog: std::sync::mpsc::Sender<()>,
}

/// Runs a sidecar in this process until SIGTERM or SIGINT, and through its drain; a second one ends it at once.
///
/// # Errors
/// What kept it from starting.
pub fn run(config: Config, source: Source) -> Result<Ending, BuildError> {
    let clock = Clock::start();
    let logging = Logging::start(&config.log, clock)?;
    log_panics();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %config.source.display(), "probegate");
    // Listened to before anything is built: whoever is terminated while it starts still ends in order.
    let runtime = threads::runtime()?;
    let asked = runtime.block_on(async { signals() })?;
    let app = App::build(config, clock, Options { source: Some(source), logging: Some(logging) })?;
    Ok(runtime.block_on(app.run(heard(asked.clone(), 1), heard(asked, 2))))
}

/// Counts SIGTERM and SIGINT. Must be called on a runtime.
fn signals() -> io::Result<watch::Receiver<u32>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (count, heard) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            count.send_modify(|count| *count += 1);
        }
    });
    Ok(heard)
}

async fn heard(mut signals: watch::Receiver<u32>, times: u32) {
    if signals.wait_for(|count| times <= *count).await.is_err() {
        std::future::pending().await
    }
}

/// A panic is a line of the log, in the log's own form.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, "panic in the thread {}: {message}", thread.name().unwrap_or("without a name"));
    }));
}

impl App {
    /// Binds every listener, then starts every thread. Blocks while upstream names are resolved.
    ///
    /// # Errors
    /// The first thing that is in the way, in words for a person. Nothing is left running.
    pub fn build(config: Config, clock: Clock, options: Options) -> Result<Self, BuildError> {
        let Resolved { config, backends, identity } = Resolved::new(config).map_err(BuildError::Upstream)?;
        let workers = config.traffic.workers.unwrap_or_else(cpus);
        let listeners = Listeners::bind(&config.listen, workers)?;
        let engine_runtime = threads::runtime()?;
        let notify = notify_socket(&config, &engine_runtime)?;

        let telemetry = Arc::new(Telemetry::new());
        let (started, seed) = (clock.now(), seed(&clock));
        let mut engine = Engine::new(started, Arc::clone(&config.engine), seed);
        let published = Published::new(engine.snapshot());
        let collectors = Collectors::new(&config, clock, None);
        let board = Arc::clone(collectors.board());
        let (control, calls) = Control::channel();
        let (sign, signs) = mpsc::channel(SIGNS);
        let (metrics, metrics_service) = MetricsService::new(Arc::clone(&telemetry), clock);
        metrics.merge_with(collectors.upstream_scraper());
        let mut watchdog = Watchdog::new(clock);
        let probes = ProbeAnswers::new(
            Arc::clone(&published),
            clock,
            config.details.show,
            watchdog.watch(),
            &telemetry,
            metrics.clone(),
        );
        let hook = config.listen.expose_probes.then(|| Arc::new(hook::Exposed(Arc::clone(&probes))) as _);
        let (lines, access) = config.log.access.map(|_| proxy::access_log(clock)).unzip();
        let wiring = Wiring { workers, signs: Some(sign), probes: hook, access: lines };
        let traffic = Shared::new(&config, &backends, Arc::clone(&published), clock, wiring)
            .map_err(|error| BuildError::Upstream(error.to_string()))?;
        let certificates =
            Certificates::new(clock, Arc::clone(&traffic), Arc::clone(&telemetry), config.tls.as_ref(), identity);
        let counters = traffic.counters();
        telemetry.register_collector(Box::new(Traffic(Arc::clone(&counters))));

        let mut threads = Threads::new();
        if let Some(access) = access {
            threads.spawn("access-log", move || {
                access.run(io::stdout());
                Ok(())
            })?;
        }
        let (ring, earlier) = open_ring(&config, clock, &mut threads)?;
        let recording = open_trace(&config, seed, started, &mut threads)?;
        let shelf = hang::Shelf { kept: hang::Kept::new(earlier.hang), ring: ring.clone() };
        let recorder = Recorder::new(clock, Arc::clone(&telemetry), ring, &config.engine);
        let standing = Standing::new(config.source.display().to_string());
        let around = Around {
            counters: Arc::clone(&counters),
            watch: watchdog.watch(),
            standing: Arc::clone(&standing),
            earlier: earlier.changes,
            hangs: Arc::clone(&shelf.kept),
        };
        let admin = Arc::new(AdminAnswers {
            published: Arc::clone(&published),
            clock,
            control: control.clone(),
            token: config.listen.admin_token.clone(),
            surroundings: Arc::new(around),
            readers: EventReaders::default(),
        });

        let logging = options.logging.map(Arc::new);
        let drain_max = DrainMax::new(config.engine.drain.max);
        let addresses = listeners.addresses.clone();
        let (orders, _) = watch::channel(Order::Serve);
        let (services, _) = watch::channel(());
        let (engine_stop, engine_stopped) = oneshot::channel();
        let (watchdog_stop, watchdog_stopped) = std::sync::mpsc::channel();

        let pulse = Pulse::default();
        watchdog.add("engine", &pulse);
        for (index, listener) in listeners.traffic.into_iter().enumerate() {
            let name = format!("traffic-{index}");
            let (shared, orders) = (Arc::clone(&traffic), orders.subscribe());
            threads.spawn(&name, move || proxy::worker(index, listener, shared, orders))?;
            let counters = Arc::clone(&counters);
            watchdog.add_counter(name, move || counters.beats(index));
        }
        spawn_probes(&mut threads, &mut watchdog, listeners.probes, Arc::clone(&probes), services.subscribe())?;
        spawn_admin(&mut threads, &mut watchdog, listeners.admin, admin, metrics_service, services.subscribe())?;
        let (poke, pokes) = mpsc::channel(POKES);
        let (hangup, hangups) = mpsc::channel(1);
        let parts = Parts {
            clock,
            engine,
            world: Sidecar {
                clock,
                config,
                backends,
                collectors,
                traffic,
                counters,
                probes,
                metrics,
                logging: logging.clone(),
                board: Arc::clone(&board),
                drain_max: drain_max.clone(),
                certificates: Arc::clone(&certificates),
                shelf,
            },
            published: Arc::clone(&published),
            recorder,
            recording,
            pulse,
            throttling: Throttling::of_this_process(),
            source: options.source,
            standing,
            lines: Lines { control: calls, signs, pokes, hangup: hangups, stop: engine_stopped },
        };
        threads.spawn_on("engine", engine_runtime, move || async move {
            if let Some(socket) = notify {
                tokio::spawn(listen_to_beats(socket, board, clock, poke));
            }
            tokio::spawn(listen_to_hangups(hangup));
            tokio::spawn(certificates.watch());
            let (driver, lines) = Driver::new(parts);
            driver.run(lines).await;
            Ok(())
        })?;
        threads.spawn("watchdog", move || {
            watchdog.run(&watchdog_stopped);
            Ok(())
        })?;
        let Addresses { traffic, probes, admin } = &addresses;
        tracing::info!(%traffic, %probes, admin = %listen::Shown(admin), "listening {addresses}");
        let stop = Stop { orders, _services: services, _engine: engine_stop, _watchdog: watchdog_stop };
        Ok(Self { clock, addresses, control, published, drain_max, threads, stop, _logging: logging })
    }

    /// Where it listens, real ports included.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Speaks to its engine.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The judgement as it is published.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// Runs until `shutdown`, then drains: not ready at once, serving while endpoints propagate, then until the
    /// last request in flight. `at_once` cuts the drain short.
    pub async fn run(self, shutdown: impl Future<Output = ()>, at_once: impl Future<Output = ()>) -> Ending {
        let ending = tokio::select! {
            death = self.threads.died() => Ending::Died(death),
            () = shutdown => {
                tracing::info!("asked to end: draining");
                self.drain(at_once).await
            }
        };
        self.end(ending)
    }

    async fn drain(&self, at_once: impl Future<Output = ()>) -> Ending {
        let drained = async {
            if self.control.call(Command::Drain).await.is_err() {
                return Ending::CutOff;
            }
            let mut changes = self.published.subscribe();
            loop {
                let drain = self.published.load().drain;
                if drain.phase == DrainPhase::Done {
                    return Ending::Drained;
                }
                if changes.changed().await.is_err() {
                    return Ending::CutOff;
                }
            }
        };
        // The engine keeps the time of the drain; this one is for an engine that is stuck.
        let backstop = tokio::time::sleep(self.drain_max.get() + limits::DRAIN_SLACK);
        tokio::select! {
            death = self.threads.died() => Ending::Died(death),
            ending = drained => ending,
            () = at_once => {
                tracing::warn!("asked to end again: requests in flight are cut off");
                Ending::CutOff
            }
            () = backstop => {
                tracing::warn!("the drain has run out of time: requests in flight are cut off");
                Ending::CutOff
            }
        }
    }

    /// Stops every thread, for a bounded time.
    fn end(self, ending: Ending) -> Ending {
        if let Ending::Died(Death { thread, reason }) = &ending {
            tracing::error!("the thread {thread} is gone: {reason}; ending, so that the sidecar is restarted whole");
        }
        self.threads.expect_ends();
        let within = if ending == Ending::Drained { limits::STOP_GRACE / 3 } else { std::time::Duration::ZERO };
        let _ = self.stop.orders.send(Order::Finish { within });
        drop(self.stop);
        let stuck = self.threads.join(limits::STOP_GRACE, self.clock);
        if !stuck.is_empty() {
            tracing::warn!("did not end in time: {}", stuck.join(", "));
        }
        match &ending {
            Ending::Drained => tracing::info!("ended"),
            Ending::CutOff => tracing::warn!("ended before the drain did"),
            Ending::Died(_) => {}
        }
        ending
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Refused connects that wait for the engine; more add nothing to the first.
const SIGNS: usize = 64;
/// Beats that wait for the engine.
const POKES: usize = 64;

/// As many as the cgroup's quota and the affinity mask let run at once.
fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Pods that start together must not check in step.
fn seed(clock: &Clock) -> u64 {
    let nanos = clock.unix_seconds(clock.now()).to_bits();
    nanos ^ (u64::from(std::process::id()) << 32)
}

fn notify_socket(config: &Config, runtime: &tokio::runtime::Runtime) -> Result<Option<NotifySocket>, BuildError> {
    let Some(path) = &config.notify_socket else { return Ok(None) };
    let _on_it = runtime.enter();
    NotifySocket::bind(path).map(Some).map_err(|source| BuildError::Notify { path: path.clone(), source })
}

/// Opens the ring, if one is configured, and reads what earlier runs left.
fn open_ring(config: &Config, clock: Clock, threads: &mut Threads) -> io::Result<(Option<Ring>, Earlier)> {
    let Some(path) = &config.ring_file else { return Ok((None, Earlier::default())) };
    let earlier = ring::read(path).unwrap_or_else(|error| {
        tracing::warn!("the history of earlier runs is lost: cannot read {}: {error}", path.display());
        Earlier::default()
    });
    let (ring, writer) = Ring::open(path.clone(), clock);
    threads.spawn("ring", move || {
        writer.run();
        Ok(())
    })?;
    Ok((Some(ring), earlier))
}

/// Begins the trace, if one is asked for.
fn open_trace(config: &Config, seed: u64, started: Time, threads: &mut Threads) -> io::Result<Option<Recording>> {
    let Some(path) = &config.trace_file else { return Ok(None) };
    let (recording, scribe) = Recording::begin(path, seed, started, &config.engine);
    threads.spawn("trace", move || {
        scribe.run();
        Ok(())
    })?;
    Ok(Some(recording))
}

fn spawn_probes(
    threads: &mut Threads,
    watchdog: &mut Watchdog,
    listener: std::net::TcpListener,
    probes: Arc<ProbeAnswers>,
    stop: watch::Receiver<()>,
) -> io::Result<()> {
    let pulse = Pulse::default();
    watchdog.add("probes", &pulse);
    threads.spawn_on("probes", threads::runtime()?, move || async move {
        tokio::spawn(pulse.keep());
        serve_probes(listener, probes, closed(stop)).await
    })
}

fn spawn_admin(
    threads: &mut Threads,
    watchdog: &mut Watchdog,
    listener: Admin,
    admin: Arc<AdminAnswers>,
    metrics: MetricsService,
    stop: watch::Receiver<()>,
) -> io::Result<()> {
    let pulse = Pulse::default();
    watchdog.add("admin", &pulse);
    let listener = match listener {
        Admin::Tcp(listener) => AdminListener::Tcp(listener),
        Admin::Unix(listener) => AdminListener::Unix(listener),
    };
    threads.spawn_on("admin", threads::runtime()?, move || async move {
        tokio::spawn(pulse.keep());
        let (_, served) = tokio::join!(metrics.run(closed(stop.clone())), serve_admin(listener, admin, closed(stop)));
        served
    })
}

/// Ends when the sender is gone.
async fn closed(mut stop: watch::Receiver<()>) {
    while stop.changed().await.is_ok() {}
}

/// Hands beats from the notify socket to the board, and the names of their checks to the driver.
async fn listen_to_beats(socket: NotifySocket, board: Arc<Board>, clock: Clock, poke: mpsc::Sender<String>) {
    loop {
        match socket.recv(&board, &clock).await {
            Ok(checks) => {
                for check in checks {
                    if poke.send(check).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                tracing::warn!("the notify socket fails: {error}");
                tokio::time::sleep(limits::ENGINE_TICK).await;
            }
        }
    }
}

/// `SIGHUP` asks for a reload.
async fn listen_to_hangups(hangup: mpsc::Sender<()>) {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        Ok(mut hangups) => {
            while hangups.recv().await.is_some() {
                // One that is waiting already covers this one.
                let _ = hangup.try_send(());
            }
        }
        Err(error) => tracing::warn!("SIGHUP is not listened to: {error}"),
    }
    // The sender stays open: a closed line would be news.
    std::future::pending::<()>().await;
}

/// The traffic plane's numbers in the registry.
#[derive(Debug)]
struct Traffic(Arc<Counters>);

impl Collector for Traffic {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}
