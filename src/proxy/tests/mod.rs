//! The traffic plane from outside: real sockets on both sides, the test playing client and model server.

mod access;
mod balance;
mod edge;
mod exchange;
mod gate;
mod grpc;
mod http2;
mod life;
mod progress;
mod questions;
mod slow;
mod streams;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::config;
use crate::engine::{
    BackendState, BackendView, DrainPhase, DrainView, Ejections, Gate, GateView, InstancePhase, InstanceView,
    ModelState, ModelView, Snapshot, Status, Time, Why,
};

/// Long enough for a busy machine; nothing that works comes near it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a test changes about the defaults.
struct Setting {
    traffic: config::Traffic,
    algorithm: Algorithm,
    protocol: UpstreamProtocol,
    workers: usize,
    probes: Option<Arc<dyn ProbeHook>>,
    signs: Option<mpsc::Sender<(BackendId, Sign)>>,
    tls: Option<Arc<ServerConfig>>,
    access: Option<AccessLog>,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            traffic: traffic(),
            algorithm: Algorithm::RoundRobin,
            protocol: UpstreamProtocol::Auto,
            workers: 1,
            probes: None,
            signs: None,
            tls: None,
            access: None,
        }
    }
}

/// The proxy's settings where a test does not care.
pub(super) fn traffic() -> config::Traffic {
    config::Traffic {
        workers: None,
        max_in_flight: None,
        first_byte_timeout: None,
        connect_timeout: Duration::from_secs(2),
        upstream_idle: Duration::from_secs(60),
        client_idle: Duration::from_secs(75),
        max_connections: 100,
        forwarded_headers: false,
        queue: None,
        hold: None,
        priority_header: None,
        routes: Vec::new(),
    }
}

/// A running traffic plane. Stopped and joined when dropped.
struct Plane {
    shared: Arc<Shared>,
    published: Arc<Published>,
    address: SocketAddr,
    config: Config,
    upstreams: Vec<SocketAddr>,
    orders: watch::Sender<Order>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
    log: Written,
}

/// What was written, while it is being written.
#[derive(Clone, Default)]
struct Written(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Plane {
    /// In front of `upstreams`, all of them enabled, ready.
    fn start(upstreams: &[SocketAddr], setting: Setting) -> Self {
        let Setting { traffic, algorithm, protocol, workers, probes, signs, tls, access } = setting;
        let mut config = config_for(upstreams, traffic, algorithm, protocol);
        config.log.access = access;
        let published = Published::new(snapshot(upstreams.len(), true));
        let log = Written::default();
        let (lines, writer) = access_log(Clock::start());
        let to = log.clone();
        std::thread::spawn(move || writer.run(to));
        let wiring = Wiring { workers, signs, probes, access: Some(lines) };
        let shared = Shared::new(&config, upstreams, Arc::clone(&published), Clock::start(), wiring).unwrap();
        shared.serve_tls(tls);
        let listeners = bind(SocketAddr::from(([127, 0, 0, 1], 0)), workers).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let (orders, _) = watch::channel(Order::Serve);
        let threads = listeners
            .into_iter()
            .enumerate()
            .map(|(index, listener)| {
                let (shared, orders) = (Arc::clone(&shared), orders.subscribe());
                std::thread::spawn(move || worker(index, listener, shared, orders))
            })
            .collect();
        Self { shared, published, address, config, upstreams: upstreams.to_vec(), orders, threads, log }
    }

    /// A client connection.
    async fn client(&self) -> Wire {
        Wire::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// Publishes another judgement, as the driver does.
    fn judge(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut next = snapshot(self.upstreams.len(), true);
        change(&mut next);
        self.shared.apply(&next);
        self.published.store(next);
    }

    fn counters(&self) -> Arc<Counters> {
        self.shared.counters()
    }

    /// Waits until the counters say so.
    async fn until(&self, what: &str, holds: impl Fn(&Counters) -> bool) {
        let counters = self.counters();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds(&counters) {
            assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the access log has so many lines.
    async fn log_lines(&self, count: usize) -> Vec<serde_json::Value> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let text = String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap();
            if count <= text.lines().count() {
                return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            }
            assert!(tokio::time::Instant::now() < deadline, "too few lines:\n{text}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.orders.send_replace(Order::Finish { within: Duration::ZERO });
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a worker panicked");
        }
    }
}

/// A model server whose every byte the test writes.
struct Model {
    listener: TcpListener,
    address: SocketAddr,
}

impl Model {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    async fn accept(&self) -> Wire {
        Wire::new(within(self.listener.accept()).await.unwrap().0)
    }
}

/// One raw connection, either side.
struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    async fn send(&mut self, text: impl AsRef<[u8]>) {
        within(self.stream.write_all(text.as_ref())).await.unwrap();
    }

    async fn more(&mut self) -> usize {
        let mut buffer = [0; 16 * 1024];
        let read = within(self.stream.read(&mut buffer)).await.unwrap();
        self.read.extend_from_slice(&buffer[..read]);
        read
    }

    /// As [`Wire::more`], but a reset is an end.
    async fn more_or_end(&mut self) -> usize {
        let mut buffer = [0; 16 * 1024];
        let read = within(self.stream.read(&mut buffer)).await.unwrap_or(0);
        self.read.extend_from_slice(&buffer[..read]);
        read
    }

    /// Everything up to and including `end`.
    async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.read.split_off(at + end.len());
                let head = std::mem::replace(&mut self.read, rest);
                return String::from_utf8(head).unwrap();
            }
            let sofar = String::from_utf8_lossy(&self.read).into_owned();
            assert_ne!(self.more().await, 0, "closed before {end:?}, after {sofar:?}");
        }
    }

    /// A message's head, in lower case but for values.
    async fn head(&mut self) -> String {
        let head = self.until("\r\n\r\n").await;
        let lines = head.split_inclusive("\r\n").enumerate().map(|(at, line)| match line.split_once(':') {
            Some((name, value)) if at > 0 => format!("{}:{value}", name.to_lowercase()),
            _ => line.to_owned(),
        });
        lines.collect()
    }

    async fn exactly(&mut self, bytes: usize) -> Vec<u8> {
        while self.read.len() < bytes {
            assert_ne!(self.more().await, 0, "closed early");
        }
        let rest = self.read.split_off(bytes);
        std::mem::replace(&mut self.read, rest)
    }

    /// Waits for the other side to close, with whatever it says before.
    async fn closed(&mut self) -> String {
        let mut buffer = [0; 16 * 1024];
        loop {
            match within(self.stream.read(&mut buffer)).await {
                Ok(0) | Err(_) => return String::from_utf8_lossy(&self.read).into_owned(),
                Ok(read) => self.read.extend_from_slice(&buffer[..read]),
            }
        }
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("took too long")
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: model\r\n\r\n")
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn config_for(
    upstreams: &[SocketAddr],
    traffic: config::Traffic,
    algorithm: Algorithm,
    protocol: UpstreamProtocol,
) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        source: PathBuf::from("test.toml"),
        upstream: config::Upstream {
            backends: upstreams
                .iter()
                .map(|address| config::Backend { address: address.to_string(), weight: 1 })
                .collect(),
            algorithm,
            protocol,
            preset: None,
            models: Vec::new(),
            metrics: None,
        },
        listen: config::Listen {
            traffic: any,
            probes: any,
            admin: config::AdminAddress::Tcp(any),
            admin_token: None,
            expose_probes: false,
        },
        details: config::Details { show: config::ShowDetails::Loopback },
        traffic,
        tls: None,
        log: config::Log { format: config::LogFormat::Auto, level: "info".to_owned(), access: None },
        engine: Arc::default(),
        checks: Vec::new(),
        report_file: None,
        ring_file: None,
        trace_file: None,
        notify_socket: None,
    }
}

fn snapshot(backends: usize, enabled: bool) -> Snapshot {
    let gate = |gate| GateView {
        gate,
        status: Status::Pass,
        since: Time::ZERO,
        why: Vec::new(),
        next: None,
        members: Vec::new(),
    };
    Snapshot {
        revision: 1,
        at: Time::ZERO,
        plan: Arc::new(crate::engine::Plan::default()),
        startup: gate(Gate::Startup),
        ready: gate(Gate::Ready),
        health: gate(Gate::Health),
        checks: Arc::default(),
        groups: Arc::default(),
        backends: (0..backends)
            .map(|i| backend(i, if enabled { BackendState::Up } else { BackendState::Down }))
            .collect(),
        instance: InstanceView { number: 1, phase: InstancePhase::Started, since: Time::ZERO, budget_until: None },
        model: ModelView { state: ModelState::Ready, since: Time::ZERO, reason: String::new(), busy_until: None },
        drain: DrainView { phase: DrainPhase::Serving, since: Time::ZERO, until: None, in_flight: 0, cut_off: false },
        disabled_since: None,
        trial: false,
        shedding: false,
        doubt: None,
        history: Arc::default(),
    }
}

fn backend(place: usize, state: BackendState) -> BackendView {
    BackendView {
        address: place.to_string(),
        enabled: state == BackendState::Up,
        state,
        since: Time::ZERO,
        reason: String::new(),
        next: None,
        ejections: Ejections::default(),
    }
}

/// Fails the readiness gate for these causes.
fn not_ready(snapshot: &mut Snapshot, causes: Vec<Cause>) {
    snapshot.ready.status = Status::Fail;
    snapshot.ready.why =
        causes.into_iter().map(|cause| Why { cause, since: Time::ZERO, text: "a detail".to_owned() }).collect();
}
