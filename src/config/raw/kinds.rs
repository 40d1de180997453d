//! One check as typed: common keys beside exactly one kind.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Limit, Percent, Permille, Room, Size, Span, Statuses, TextOr, Window};

/// The kinds of this build, as they are typed.
pub(crate) const KINDS: [&str; 17] = [
    "dns",
    "disk",
    "exec",
    "golden",
    "grpc",
    "heartbeat",
    "http",
    "memory",
    "metric",
    "outcomes",
    "postgres",
    "process",
    "progress",
    "redis",
    "saturation",
    "tcp",
    "tls",
];

/// A check: one kind key (`http`, `redis`, `process`, ...) beside the common keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawCheck {
    /// From the start of one attempt to the start of the next. Default `5s`.
    pub(crate) interval: Option<Span>,
    /// An attempt's deadline; below `interval`. Default `1s`, or half the interval if that is 1s or less.
    pub(crate) timeout: Option<Span>,
    /// From the sidecar's start, or a new model server's, to the first attempt. Default `0s`.
    pub(crate) initial_delay: Option<Span>,
    /// Instead of `interval` while results speak against the state. Default: `interval`.
    pub(crate) fast_interval: Option<Span>,
    /// Instead of `interval` while down. Default: `interval`.
    pub(crate) down_interval: Option<Span>,
    /// Waits are stretched by up to this share, so that pods do not check in step. Default `10%`.
    pub(crate) jitter: Option<Permille>,
    /// Passes in a row to be up. Default 1.
    pub(crate) success_threshold: Option<i64>,
    /// Failures in a row to be down. Default 3. Excludes `failures`.
    pub(crate) failure_threshold: Option<i64>,
    /// Failures of the last results to be down, as in `3/5`. Excludes `failure_threshold`.
    pub(crate) failures: Option<Window>,
    /// Evidence older than this is stale. Default twice the interval plus the timeout.
    pub(crate) max_age: Option<Span>,
    /// What stale evidence means to `/ready`: `fail` (default), `hold` the last state, or only `degrade`.
    pub(crate) on_stale: Option<RawOnStale>,
    /// What a timeout counts as: `fail` (default), `unknown`, for a busy server is slow and slow is not dead, or
    /// `unknown-while-moving` (default of `golden`): a failure only while no request is pending, or none has moved for
    /// long.
    pub(crate) on_timeout: Option<RawOnTimeout>,
    /// Checks and groups without which this one means nothing: while one is down, this is skipped.
    pub(crate) depends_on: Vec<String>,
    /// `shared` if other pods depend on the same thing and would all leave with this one. Default `pod`.
    pub(crate) scope: Option<RawScope>,
    /// Why a shared dependency may take this pod out of rotation: your own words.
    pub(crate) accept_cascade: Option<String>,
    /// How long this check may keep `/ready` failing before it only degrades it. Default: without end.
    pub(crate) max_withdrawal: Option<Span>,
    /// A link for the person who is paged.
    pub(crate) runbook: Option<String>,

    /// A name resolves. The text is the name.
    pub(crate) dns: Option<TextOr<RawDns>>,
    /// A file system has room. The text is the path.
    pub(crate) disk: Option<TextOr<RawDisk>>,
    /// A program ends with 0. The text is split at spaces; no shell.
    pub(crate) exec: Option<TextOr<RawExecOr>>,
    /// Labelled examples are answered right. The text is the file of the cases.
    pub(crate) golden: Option<TextOr<RawGolden>>,
    /// A gRPC server says SERVING. The text is `host:port`, or `upstream`.
    pub(crate) grpc: Option<TextOr<RawGrpc>>,
    /// Something beats. The text is a file's path, or `push`.
    pub(crate) heartbeat: Option<TextOr<RawHeartbeat>>,
    /// A URL answers well. The text is the URL, or a path on the upstream.
    pub(crate) http: Option<TextOr<RawHttp>>,
    /// Memory stays below a limit. The text is the limit of this container's working set.
    pub(crate) memory: Option<TextOr<RawMemory>>,
    /// A metric is within bounds. The text is the metric, which must be present.
    pub(crate) metric: Option<TextOr<RawMetric>>,
    /// Enough of the proxied requests end well; `{}` for the defaults. The text is the least share, as in `50%`.
    pub(crate) outcomes: Option<TextOr<RawOutcomes>>,
    /// A PostgreSQL server answers a query. The text is the URL.
    pub(crate) postgres: Option<TextOr<RawPostgres>>,
    /// A process runs. The text is its name or a part of its command line.
    pub(crate) process: Option<TextOr<RawProcess>>,
    /// Pending work moves: the one evidence of a hang. The text is `stall_after`, as in `60s`.
    pub(crate) progress: Option<TextOr<RawProgress>>,
    /// A Redis answers PING, and more if asked. The text is the URL.
    pub(crate) redis: Option<TextOr<RawRedis>>,
    /// The model server has no more work than it can do: below marks of yours. Down, it sheds; never in `[health]`.
    pub(crate) saturation: Option<RawSaturation>,
    /// A port accepts. The text is `host:port`, or `upstream`.
    pub(crate) tcp: Option<TextOr<RawTcp>>,
    /// A certificate is valid for long enough. The text is `host:port`.
    pub(crate) tls: Option<TextOr<RawTls>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawOnStale {
    Degrade,
    Fail,
    Hold,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawOnTimeout {
    Fail,
    Unknown,
    UnknownWhileMoving,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawScope {
    Pod,
    Shared,
}

/// The client side of TLS.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawTlsClient {
    /// PEM roots instead of the compiled-in ones.
    pub(crate) ca_file: Option<String>,
    /// PEM client certificate; needs `key_file`.
    pub(crate) cert_file: Option<String>,
    /// PEM key of `cert_file`.
    pub(crate) key_file: Option<String>,
    /// The name to ask for and to verify, instead of the host's own.
    pub(crate) server_name: Option<String>,
    /// Accept any certificate. Default `false`.
    pub(crate) insecure_skip_verify: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawDns {
    /// The name to resolve.
    pub(crate) name: Option<String>,
    /// At least so many addresses. Default 1.
    pub(crate) min_addresses: Option<i64>,
    /// One of the addresses must be this.
    pub(crate) contains: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawDisk {
    /// A path on the file system.
    pub(crate) path: Option<String>,
    /// At least so much free for an unprivileged user. Default `10%` if nothing else is asked.
    pub(crate) min_free: Option<Room>,
    /// At least such a share of inodes free.
    pub(crate) min_free_inodes: Option<Percent>,
    /// A file must be creatable there. Default `false`.
    pub(crate) writable: bool,
}

/// A command as a list, or a table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum RawExecOr {
    List(Vec<String>),
    Table(RawExec),
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawExec {
    /// Program and arguments: a list, or a text that is split at spaces. No shell.
    pub(crate) command: Option<TextOr<Vec<String>>>,
    /// Variables to add; a value may hold `${NAME}` or be `{ file = "..." }`.
    pub(crate) env: BTreeMap<String, TextOr<RawFile>>,
    /// Directory to run in.
    pub(crate) cwd: Option<String>,
}

/// A value that is read from a file at each use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFile {
    /// The file; one trailing line break is dropped.
    pub(crate) file: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawGrpc {
    /// `host:port`, or `upstream`.
    pub(crate) address: Option<String>,
    /// The service to ask about. Default empty: the server as a whole.
    pub(crate) service: Option<String>,
    /// TLS to the server. Default: plaintext.
    pub(crate) tls: Option<RawTlsClient>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawHeartbeat {
    /// A file whose modification time is the beat.
    pub(crate) file: Option<String>,
    /// Beats come as `PUT /heartbeats/NAME` on the admin listener.
    pub(crate) push: Option<bool>,
    /// Beats come as datagrams to this `NOTIFY_SOCKET`: `READY=1`, `WATCHDOG=1`, `STATUS=`, `STOPPING=1`.
    pub(crate) notify: Option<String>,
    /// The last beat may be so old. Default `30s`.
    pub(crate) max_silence: Option<Span>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawHttp {
    /// `http://` or `https://`, or a path on the upstream. May hold `${NAME}`; never a password.
    pub(crate) url: Option<String>,
    /// A file that holds the URL.
    pub(crate) url_file: Option<String>,
    /// Default `GET`.
    pub(crate) method: Option<String>,
    /// Values may hold `${NAME}` or be `{ file = "..." }`.
    pub(crate) headers: BTreeMap<String, TextOr<RawFile>>,
    /// The request's body.
    pub(crate) body: Option<String>,
    /// Statuses that pass, as in `200-299` (the default) or `200,404`.
    pub(crate) status: Option<Statuses>,
    /// By JSON pointer (`*` for every element): the value itself, or one of `equals`, `contains`, `any`, `non_empty`.
    pub(crate) json: BTreeMap<String, serde_json::Value>,
    /// A regular expression that must match somewhere in the body.
    pub(crate) matches: Option<String>,
    /// A regular expression that must not match anywhere in the body.
    pub(crate) not_matches: Option<String>,
    /// TLS for `https://`.
    pub(crate) tls: Option<RawTlsClient>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawMemory {
    /// Whose memory. Default `cgroup`: this container's working set as the kubelet counts it.
    pub(crate) of: Option<RawMemoryOf>,
    /// The limit.
    pub(crate) max: Option<Limit>,
    /// With `of = "cgroup"`: another cgroup's directory.
    pub(crate) path: Option<String>,
    /// With `of = "process"`: the process's name or a part of its command line.
    #[serde(rename = "match")]
    pub(crate) matching: Option<String>,
    /// With `of = "process"`: a file with the process's number.
    pub(crate) pid_file: Option<String>,
    /// With `of = "process"`: every process of this cgroup directory.
    pub(crate) cgroup: Option<String>,
    /// With `of = "process"`: `rss` (default) or `pss`, which counts shared pages once.
    pub(crate) count: Option<RawProcessMemory>,
    /// With `of = "redis"`: the Redis and how to reach it.
    pub(crate) redis: Option<TextOr<RawRedis>>,
    /// With `of = "metric"`: a gauge in bytes.
    pub(crate) metric: Option<String>,
    /// With `of = "metric"`: its page, a path or URL. Default `upstream.metrics`.
    pub(crate) page: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawMemoryOf {
    #[default]
    Cgroup,
    Metric,
    Process,
    Redis,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawProcessMemory {
    Pss,
    Rss,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawProgress {
    /// With work pending, silence of so long is a hang. Default `60s`; LLM servers need 120s and more.
    pub(crate) stall_after: Option<Span>,
    /// The server's own counter of work done, with optional label matchers; it must be frozen too. Name the
    /// label of the real endpoint: on some servers probes move the sum.
    pub(crate) counter: Option<String>,
    /// How late the counter's page may be. Default `0s`.
    pub(crate) counter_lag: Option<Span>,
    /// The counter's page: a path on the upstream or a URL. Default `upstream.metrics`.
    pub(crate) page: Option<String>,
    /// Processes (a name or a part of a command line) whose CPU time must stand still too.
    pub(crate) process: Option<String>,
    /// A `golden` check that must go unanswered too. In a silence it is sent out of turn, once and busy or not, so that
    /// its timeout ends together with `stall_after`.
    pub(crate) golden: Option<String>,
    /// What the server does with a request whose client has left: `worked-off` (default), as most do, so that it may
    /// be silent for it afterwards; `dropped`, at once, so that nothing excuses silence.
    pub(crate) abandoned: Option<RawAbandoned>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawAbandoned {
    Dropped,
    WorkedOff,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawOutcomes {
    /// At least such a share of requests must end well. Client errors and own refusals do not count. Default `50%`.
    pub(crate) min_success: Option<Permille>,
    /// Of those that ended within this span. Default `30s`.
    pub(crate) window: Option<Span>,
    /// With fewer of them nothing is said. Default 10.
    pub(crate) min_requests: Option<i64>,
    /// So many failures in a row, over 2s or more, say as much as the share and sooner. 0: a row never does. Default 5.
    pub(crate) consecutive_failures: Option<i64>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawGolden {
    /// The file of the cases, beside the configuration unless absolute.
    pub(crate) cases: Option<String>,
    /// At least such a share must be answered right, 0 to 1. Default 1.
    pub(crate) min_accuracy: Option<f64>,
    /// Of the cases asked within this span, since the model server appeared. Default: of those of the latest attempt.
    pub(crate) window: Option<Span>,
    /// Not while real requests ended well within this span, unless a `progress` check wants it in a silence. Default:
    /// always on time.
    pub(crate) only_when_idle: Option<Span>,
}

/// High marks: at least one. One that is passed for long enough makes the check down.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawSaturation {
    /// Requests sent to the model server.
    pub(crate) in_flight: Option<i64>,
    /// Requests that wait in the proxy; see `[traffic] queue`.
    pub(crate) queued: Option<i64>,
    /// The longest wait of one of those.
    pub(crate) queue_age: Option<Span>,
    /// A gauge that the server exports, with optional label matchers; needs `max`.
    pub(crate) gauge: Option<String>,
    /// The gauge's high mark.
    pub(crate) max: Option<f64>,
    /// How series that match the gauge become one number. Default `sum`.
    pub(crate) combine: Option<RawCombine>,
    /// The gauge's page: a path on the upstream or a URL. Default `upstream.metrics`.
    pub(crate) page: Option<String>,
    /// The low marks' share of the high ones: all must be below theirs before the check is up again. Default `80%`.
    pub(crate) low: Option<Permille>,
    /// A mark is passed once it has been for so long, either way. Default `5s`.
    #[serde(rename = "for")]
    pub(crate) hold: Option<Span>,
    /// New requests are refused with 503 (`saturated`) while it is down. Default `true`.
    pub(crate) shed: Option<bool>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawMetric {
    /// A metric with optional label matchers, as in `requests_total{endpoint="/predict"}`.
    pub(crate) name: Option<String>,
    /// Its page: a path on the upstream or a URL. Default `upstream.metrics`.
    pub(crate) page: Option<String>,
    /// How series that match become one number. Default `sum`.
    pub(crate) combine: Option<RawCombine>,
    /// Judge the change per second instead of the value. Default `false`.
    pub(crate) rate: bool,
    /// At least this.
    pub(crate) min: Option<f64>,
    /// At most this.
    pub(crate) max: Option<f64>,
    /// Exactly this.
    pub(crate) equals: Option<f64>,
    /// What it means that nothing matches. Default `unknown`; without a bound, `fail`.
    pub(crate) absent: Option<RawAbsent>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawCombine {
    Max,
    Min,
    Sum,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawAbsent {
    Fail,
    Pass,
    Required,
    Unknown,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawPostgres {
    /// `postgres://user@host:port/database`. May hold `${NAME}`; never a password.
    pub(crate) url: Option<String>,
    /// A file that holds the URL.
    pub(crate) url_file: Option<String>,
    /// As `${NAME}` only.
    pub(crate) password: Option<String>,
    /// A file that holds the password.
    pub(crate) password_file: Option<String>,
    /// Must return a row whose first column is not false. Default `SELECT 1`.
    pub(crate) query: Option<String>,
    /// TLS to the server; so does `sslmode=require` in the URL. Default: plaintext.
    pub(crate) tls: Option<RawTlsClient>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawProcess {
    /// The process's name or a part of its command line.
    #[serde(rename = "match")]
    pub(crate) matching: Option<String>,
    /// A file with the process's number.
    pub(crate) pid_file: Option<String>,
    /// Every process of this cgroup directory.
    pub(crate) cgroup: Option<String>,
    /// At least so many processes. Default 1.
    pub(crate) min_count: Option<i64>,
    /// Resident memory at most.
    pub(crate) max_rss: Option<Size>,
    /// Threads at most.
    pub(crate) max_threads: Option<i64>,
    /// CPU time must have moved since the last attempt. Default `false`.
    pub(crate) cpu_moves: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawRedis {
    /// `redis://host:port/db`, `rediss://` for TLS. May hold `${NAME}`; never a password.
    pub(crate) url: Option<String>,
    /// A file that holds the URL.
    pub(crate) url_file: Option<String>,
    /// The ACL user.
    pub(crate) username: Option<String>,
    /// As `${NAME}` only.
    pub(crate) password: Option<String>,
    /// A file that holds the password.
    pub(crate) password_file: Option<String>,
    /// Must exist, beyond PING.
    pub(crate) key: Option<String>,
    /// `key` must hold this.
    pub(crate) equals: Option<String>,
    /// `CLUSTER INFO` must say `cluster_state:ok`. Default `false`.
    pub(crate) cluster: bool,
    /// The server must be a `master`, or a `replica` whose link is up.
    pub(crate) role: Option<RawRedisRole>,
    /// `used_memory` at most.
    pub(crate) max_memory: Option<Size>,
    /// TLS for `rediss://`.
    pub(crate) tls: Option<RawTlsClient>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawRedisRole {
    Master,
    Replica,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawTcp {
    /// `host:port`, or `upstream`.
    pub(crate) address: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawTls {
    /// `host:port`.
    pub(crate) address: Option<String>,
    /// The certificate must be valid for at least so long. Default `14d`.
    pub(crate) min_valid: Option<Span>,
    /// PEM roots instead of the compiled-in ones.
    pub(crate) ca_file: Option<String>,
    /// PEM client certificate; needs `key_file`.
    pub(crate) cert_file: Option<String>,
    /// PEM key of `cert_file`.
    pub(crate) key_file: Option<String>,
    /// The name to ask for and to verify, instead of the host's own.
    pub(crate) server_name: Option<String>,
    /// Accept any certificate; its dates are judged all the same. Default `false`.
    pub(crate) insecure_skip_verify: bool,
}
