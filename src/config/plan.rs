//! What can run: the configuration after validation. Nothing behind it sees TOML.
//!
//! Every reference is resolved, every duration checked, every default filled in. The engine's own part is
//! [`crate::engine::Plan`]; `checks[i]` here is what the engine's check `i` does to the world.

mod edge;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, Uri};
use regex::Regex;

use crate::engine;
use crate::secret::SecretSource;

pub use edge::*;

/// A whole, valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from, for messages and reloads.
    pub source: PathBuf,
    pub upstream: Upstream,
    pub listen: Listen,
    pub details: Details,
    pub traffic: Traffic,
    /// TLS on the traffic listener; none: plain HTTP.
    pub tls: Option<TlsServer>,
    pub log: Log,
    /// The engine's part: lives, groups, gates, drain.
    pub engine: Arc<engine::Plan>,
    /// What each check does, by `CheckId`.
    pub checks: Vec<CheckSpec>,
    /// Where to write the hang report and the last words, if anywhere (`[report] file`).
    pub report_file: Option<PathBuf>,
    /// Where what happens to the engine is recorded, if anywhere (`[report] trace`).
    pub trace_file: Option<PathBuf>,
    /// Where the transition ring survives the sidecar's restart (`[report] ring`).
    pub ring_file: Option<PathBuf>,
    /// The `NOTIFY_SOCKET` to listen on, if a heartbeat check wants it.
    pub notify_socket: Option<PathBuf>,
}

/// The model server.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// At least one, in the order of `engine.backends`.
    pub backends: Vec<Backend>,
    pub algorithm: Algorithm,
    pub protocol: UpstreamProtocol,
    pub preset: Option<String>,
    pub models: Vec<String>,
    /// The server's own metrics page; none if it has none.
    pub metrics: Option<MetricsPage>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backend {
    /// `host:port` as configured. A name is resolved when the sidecar starts.
    pub address: String,
    /// At least 1.
    pub weight: usize,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Algorithm {
    /// The fewest requests under way for its weight; among equals, by turns.
    #[default]
    LeastLoaded,
    RoundRobin,
    Random,
    /// By the request's path, FNV.
    Hash,
    /// By the request's path, Ketama.
    Consistent,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum UpstreamProtocol {
    /// As the client came.
    #[default]
    Auto,
    Http1,
    H2c,
}

/// A Prometheus page and how to reach it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct MetricsPage {
    pub uri: Uri,
}

#[derive(Clone, Debug)]
pub struct Listen {
    pub traffic: SocketAddr,
    pub probes: SocketAddr,
    pub admin: AdminAddress,
    /// Needed for any admin address but loopback and a Unix socket.
    pub admin_token: Option<SecretSource>,
    /// Also answer the probe paths on the traffic listener.
    pub expose_probes: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AdminAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Who may see the reasons on the probe listener.
#[derive(Clone, Debug)]
pub struct Details {
    pub show: ShowDetails,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ShowDetails {
    Always,
    /// Callers from 127.0.0.0/8 and ::1.
    #[default]
    Loopback,
    Never,
}

/// The proxy's settings.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// None: as many as the container may use CPUs.
    pub workers: Option<usize>,
    /// A request counts until its last byte.
    pub max_in_flight: Option<usize>,
    /// From sending the request to the response head.
    pub first_byte_timeout: Option<Duration>,
    pub connect_timeout: Duration,
    /// An idle upstream connection is closed after this.
    pub upstream_idle: Duration,
    /// An idle client connection is closed after this.
    pub client_idle: Duration,
    /// Client connections at once, over all workers.
    pub max_connections: usize,
    /// Add `X-Forwarded-For`, `-Proto` and `-Host`.
    pub forwarded_headers: bool,
    /// Where requests above `max_in_flight` wait. None: they are refused at once.
    pub queue: Option<Queue>,
    /// How long a request waits for a model server that starts or is gone. None: it is refused at once.
    pub hold: Option<Duration>,
    /// Whose number says how far forward in the queue a request stands.
    pub priority_header: Option<HeaderName>,
    /// Paths with limits of their own, the longest first.
    pub routes: Vec<Route>,
}

/// A bounded line: by priority, then first come first served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Queue {
    /// Requests that wait at once, over all workers.
    pub max: usize,
    /// Bytes of their bodies, as declared. None: unlimited.
    pub max_bytes: Option<u64>,
    /// A request waits at most this long.
    pub timeout: Duration,
}

/// What differs for the requests to one path and below.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// A path as in `/v1/models`: it and everything below it.
    pub path: String,
    /// A limit of its own, instead of the common one.
    pub max_in_flight: Option<usize>,
    pub queue: Option<Queue>,
    pub hold: Option<Duration>,
    pub first_byte_timeout: Option<Duration>,
    /// How long the model server may be silent while such a request is pending, where that is longer than what
    /// the `progress` check says.
    pub stall_after: Option<Duration>,
}

/// What one check does to the world.
#[derive(Clone, Debug)]
pub struct CheckSpec {
    /// As in the engine's plan.
    pub name: String,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Dns(DnsCheck),
    Disk(DiskCheck),
    Exec(ExecCheck),
    Golden(GoldenCheck),
    Grpc(GrpcCheck),
    Heartbeat(HeartbeatCheck),
    Http(Box<HttpCheck>),
    Memory(MemoryCheck),
    Metric(MetricCheck),
    Outcomes(engine::OutcomesPlan),
    Postgres(PostgresCheck),
    Process(ProcessCheck),
    Progress(Box<ProgressCheck>),
    Redis(RedisCheck),
    Saturation(Box<SaturationCheck>),
    Tcp(TcpCheck),
    Tls(TlsCheck),
}

/// Marks, and where the gauge of one of them is read.
#[derive(Clone, Debug)]
pub struct SaturationCheck {
    pub rule: engine::SaturationPlan,
    pub gauge: Option<SaturationGauge>,
}

#[derive(Clone, Debug)]
pub struct SaturationGauge {
    pub page: MetricsPage,
    pub selector: MetricSelector,
    pub combine: Combine,
}

/// Client side of TLS.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsClient {
    /// PEM roots instead of the compiled-in ones.
    pub ca_file: Option<PathBuf>,
    /// PEM client certificate and key.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Instead of the host's own name.
    pub server_name: Option<String>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

#[derive(Clone, Debug)]
pub struct HttpCheck {
    pub method: Method,
    /// `http://` or `https://`; may hold `${NAME}`, never an inline password.
    pub url: SecretSource,
    pub headers: Vec<(HeaderName, SecretSource)>,
    pub body: Option<String>,
    /// Any of these.
    pub status: Vec<StatusRange>,
    /// JSON predicates on the body: all must hold.
    pub json: Vec<JsonPredicate>,
    /// Must match somewhere in the body.
    pub matches: Option<Regex>,
    /// Must not match anywhere in the body.
    pub not_matches: Option<Regex>,
    pub tls: TlsClient,
}

/// Inclusive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StatusRange {
    pub from: u16,
    pub to: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JsonPredicate {
    /// RFC 6901; a `*` segment means every element of an array or object.
    pub pointer: String,
    pub test: JsonTest,
}

/// With a `*` in the pointer, `Any` asks for one element, everything else for all.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonTest {
    /// At least one selected value equals this.
    Any(serde_json::Value),
    /// A string that contains this, or an array with this element, or an object with this key.
    Contains(serde_json::Value),
    Equals(serde_json::Value),
    /// Present, and not null, `""`, `[]`, `{}` or `false`.
    NonEmpty,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TcpCheck {
    /// `host:port`.
    pub address: String,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GrpcCheck {
    /// `host:port`.
    pub address: String,
    /// Empty: the server as a whole.
    pub service: String,
    /// None: plaintext h2c.
    pub tls: Option<TlsClient>,
}

#[derive(Clone, Debug)]
pub struct RedisCheck {
    /// `redis://[user:password@]host:port[/db]`, `rediss://` for TLS.
    pub url: SecretSource,
    pub username: Option<String>,
    pub password: Option<SecretSource>,
    /// Must exist, beyond PING.
    pub key: Option<String>,
    /// `key` must hold this value.
    pub key_equals: Option<String>,
    /// `CLUSTER INFO` must say `cluster_state:ok`.
    pub cluster: bool,
    /// The server must be a master (`true`) or a replica with its link up (`false`).
    pub role: Option<RedisRole>,
    /// `used_memory` at most.
    pub max_memory: Option<Bytes>,
    pub tls: TlsClient,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RedisRole {
    Master,
    Replica,
}

#[derive(Clone, Debug)]
pub struct PostgresCheck {
    /// `postgres://user[:password]@host:port/database` or key=value.
    pub url: SecretSource,
    pub password: Option<SecretSource>,
    /// Must return at least one row; its first column must not be false. Default `SELECT 1`.
    pub query: String,
    /// None: TLS only if the URL says `sslmode=require`.
    pub tls: Option<TlsClient>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DnsCheck {
    pub name: String,
    /// At least so many addresses.
    pub min_addresses: usize,
    /// One of the addresses must be this.
    pub contains: Option<std::net::IpAddr>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsCheck {
    /// `host:port`.
    pub address: String,
    /// The certificate must be valid for at least so long.
    pub min_valid: Duration,
    pub tls: TlsClient,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExecCheck {
    /// Program and arguments, no shell. At least one.
    pub command: Vec<String>,
    pub env: Vec<(String, SecretSource)>,
    pub cwd: Option<PathBuf>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProcessCheck {
    pub select: ProcessSelect,
    /// At least so many matching processes. A zombie or a stopped one among them always fails.
    pub min_count: usize,
    /// Resident bytes of all of them together, at most.
    pub max_rss: Option<Bytes>,
    /// Threads of all of them together, at most.
    pub max_threads: Option<u64>,
    /// CPU time must have moved since the last attempt.
    pub cpu_moves: bool,
}

/// How to find a process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ProcessSelect {
    /// The command's base name, or a substring of the whole command line.
    Match(String),
    PidFile(PathBuf),
    /// Every process of this cgroup directory (`cgroup.procs`).
    Cgroup(PathBuf),
}

#[derive(Clone, Debug)]
pub struct MemoryCheck {
    pub of: MemoryOf,
    pub max: Amount,
}

#[derive(Clone, Debug)]
pub enum MemoryOf {
    /// This container's cgroup, working set as the kubelet counts it; or the one at `path`.
    Cgroup { path: Option<PathBuf> },
    /// Summed over matching processes.
    Process { select: ProcessSelect, count: ProcessMemory },
    /// `used_memory` of a Redis.
    Redis(Box<RedisCheck>),
    /// A gauge in bytes on a metrics page.
    Metric { page: MetricsPage, selector: MetricSelector },
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ProcessMemory {
    /// Proportional set size: shared pages counted once.
    Pss,
    #[default]
    Rss,
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Bytes(pub u64);

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Bytes(Bytes),
    /// Of whatever the container's own limit is; without a limit, of the machine.
    PercentOfLimit(f64),
    /// As in `90% of 1GiB`.
    PercentOf(f64, Bytes),
}

#[derive(Clone, Debug, PartialEq)]
pub struct DiskCheck {
    pub path: PathBuf,
    /// At least so much free for an unprivileged user.
    pub min_free: Option<DiskAmount>,
    /// At least so many inodes free, in per cent.
    pub min_free_inodes_percent: Option<f64>,
    /// A file must be creatable there.
    pub writable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DiskAmount {
    Bytes(Bytes),
    Percent(f64),
}

#[derive(Clone, Debug)]
pub struct MetricCheck {
    pub page: MetricsPage,
    pub selector: MetricSelector,
    /// How series that match are brought to one number.
    pub combine: Combine,
    /// Judge the change per second between two attempts instead of the value.
    pub rate: bool,
    /// All must hold.
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub equals: Option<f64>,
    /// What it means that no series matches.
    pub absent: Absent,
}

/// A metric name with optional label matchers, as in `requests_total{endpoint="/predict"}`.
#[derive(Clone, Debug)]
pub struct MetricSelector {
    pub name: String,
    pub matchers: Vec<LabelMatcher>,
}

#[derive(Clone, Debug)]
pub struct LabelMatcher {
    pub label: String,
    pub op: MatchOp,
}

/// `=`, `!=`, `=~` and `!~`; regular expressions are anchored at both ends.
#[derive(Clone, Debug)]
pub enum MatchOp {
    Equal(String),
    NotEqual(String),
    Matches(Regex),
    NotMatches(Regex),
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Combine {
    Max,
    Min,
    #[default]
    Sum,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Absent {
    Fail,
    Pass,
    /// No evidence; the check goes stale in time.
    #[default]
    Unknown,
    /// The metric must be absent: its presence fails.
    Required,
}

/// What is read to tell progress, beside the traffic itself.
#[derive(Clone, Debug)]
pub struct ProgressCheck {
    /// Silence of so long with work pending.
    pub stall_after: Duration,
    /// The server's own counter of work done.
    pub counter: Option<ProgressCounter>,
    /// Processes whose CPU time must stand still, and how they were typed.
    pub process: Option<(ProcessSelect, String)>,
    /// The name of a golden check that must go unanswered too.
    pub golden: Option<String>,
    /// What the server does with work that its client has given up on, where the file says so.
    pub abandoned: Option<engine::Abandoned>,
}

#[derive(Clone, Debug)]
pub struct ProgressCounter {
    pub page: MetricsPage,
    pub selector: MetricSelector,
    /// As typed.
    pub name: String,
    /// How late the page may be.
    pub lag: Duration,
}

/// Labelled examples that are sent to the model server.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenCheck {
    /// Where to send them: the upstream, as `host:port`.
    pub address: String,
    /// Their file, read at each attempt.
    pub cases: PathBuf,
    pub accuracy: engine::AccuracyPlan,
    /// Not while real requests ended well within this span.
    pub only_when_idle: Option<Duration>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeartbeatCheck {
    pub source: HeartbeatSource,
    /// The last beat may be so old.
    pub max_silence: Duration,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HeartbeatSource {
    /// The file's modification time.
    File(PathBuf),
    /// `PUT /heartbeats/NAME` on the admin listener.
    Push,
    /// Datagrams to `NOTIFY_SOCKET`: `READY=1`, `WATCHDOG=1`, `STATUS=`, `STOPPING=1`.
    Notify,
}

impl Kind {
    /// Every text of the check that may hold a secret.
    pub fn secrets(&self) -> Vec<&SecretSource> {
        match self {
            Self::Exec(check) => check.env.iter().map(|(_, source)| source).collect(),
            Self::Http(check) => {
                std::iter::once(&check.url).chain(check.headers.iter().map(|(_, source)| source)).collect()
            }
            Self::Memory(MemoryCheck { of: MemoryOf::Redis(check), .. }) => check.secrets(),
            Self::Postgres(check) => std::iter::once(&check.url).chain(&check.password).collect(),
            Self::Redis(check) => check.secrets(),
            Self::Dns(_)
            | Self::Disk(_)
            | Self::Golden(_)
            | Self::Grpc(_)
            | Self::Heartbeat(_)
            | Self::Memory(_)
            | Self::Metric(_)
            | Self::Outcomes(_)
            | Self::Process(_)
            | Self::Progress(_)
            | Self::Saturation(_)
            | Self::Tcp(_)
            | Self::Tls(_) => Vec::new(),
        }
    }
}

impl RedisCheck {
    fn secrets(&self) -> Vec<&SecretSource> {
        std::iter::once(&self.url).chain(&self.password).collect()
    }
}
