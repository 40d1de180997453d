//! What was typed: the file's shape, before anything is resolved.
//!
//! These types are the one source of the file's keys: the JSON Schema is generated from them, the schema finds
//! shape errors ([`super::shape`]), and serde then reads what is left. They refuse nothing that needs knowledge
//! of another key; that is [`super::lower`]'s work.

mod kinds;
mod scalars;

pub(crate) use kinds::*;
pub(crate) use scalars::*;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// The configuration of a Probegate sidecar. `upstream.address` alone is a working file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Probegate configuration")]
pub(crate) struct RawConfig {
    /// The model server behind the sidecar.
    pub(crate) upstream: RawUpstream,
    /// `GET /startup`: until it passes, `/ready` is 503 and `/health` is 200.
    pub(crate) startup: RawStartup,
    /// `GET /health`: fails only for what a restart would mend.
    pub(crate) health: RawHealth,
    /// `GET /ready`: send me traffic.
    pub(crate) ready: RawReady,
    /// Checks by name. A name is lower-case letters, digits, `-` and `_`, and starts with a letter or digit.
    pub(crate) checks: BTreeMap<String, RawCheck>,
    /// Compositions by name; a group may be named wherever a check may be.
    pub(crate) groups: BTreeMap<String, RawGroup>,
    /// Where the sidecar listens.
    pub(crate) listen: RawListen,
    /// Who may see reasons on the probe listener.
    pub(crate) details: RawDetails,
    /// The proxy.
    pub(crate) traffic: RawTraffic,
    /// TLS on the traffic listener. Default: none, plain HTTP.
    pub(crate) tls: Option<RawTlsServer>,
    /// The way out of service.
    pub(crate) drain: RawDrain,
    /// The log.
    pub(crate) log: RawLog,
    /// Files that outlive the sidecar.
    pub(crate) report: RawReport,
}

/// The model server behind the sidecar.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawUpstream {
    /// Where the model server listens, as in `127.0.0.1:8501`. This or `addresses`.
    pub(crate) address: Option<String>,
    /// Several workers in the pod, balanced among the healthy. This or `address`.
    pub(crate) addresses: Option<Vec<RawAddress>>,
    /// Built-in checks and gates that this file may override; see `probegate presets`. Default `generic`.
    pub(crate) preset: Option<String>,
    /// Model names; a preset makes a check of each.
    pub(crate) models: Vec<String>,
    /// How to speak to the model server. Default `auto`: as the client came.
    pub(crate) protocol: Option<RawProtocol>,
    /// The server's own metrics page: a path, a URL, or `false` for none. Default `/metrics` on the first address.
    pub(crate) metrics: Option<RawMetrics>,
    /// How the next address is chosen. Default `least-loaded`: the fewest requests under way for its weight.
    pub(crate) algorithm: Option<RawAlgorithm>,
    /// When failing requests put one of several addresses out of rotation. Means nothing with one address.
    pub(crate) passive: RawPassive,
}

/// What real requests say about single addresses. A failure is an answer with 5xx, a gRPC status UNAVAILABLE,
/// INTERNAL, UNKNOWN, DATA_LOSS or DEADLINE_EXCEEDED, or none at all; 429, 503 with `Retry-After`,
/// RESOURCE_EXHAUSTED and a client's own errors are not.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawPassive {
    /// Default `true`.
    pub(crate) enabled: Option<bool>,
    /// So many failures in a row eject an address. 0: a row never does. Default 5.
    pub(crate) consecutive_failures: Option<i64>,
    /// A smaller share of requests that end well ejects it. 0: no share does. Default `50%`.
    pub(crate) min_success: Option<Permille>,
    /// Of those that ended within this span. Default `30s`.
    pub(crate) window: Option<Span>,
    /// With fewer of them the share says nothing. Default 20.
    pub(crate) min_requests: Option<i64>,
    /// The first ejection; the second in a row is twice as long, and so on. Default `10s`.
    pub(crate) base_ejection: Option<Span>,
    /// No ejection is longer, and after so long without one they are counted anew. Default `5m`.
    pub(crate) max_ejection: Option<Span>,
    /// At most such a share of the addresses is out at once, and one at least; the last one never is. Default `50%`.
    pub(crate) max_ejected: Option<Permille>,
    /// After an ejection one request at a time decides; if none comes for so long, the address's check does.
    /// Default `10s`.
    pub(crate) probation: Option<Span>,
}

/// One address, with a weight if it is not 1.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawWeighted {
    /// As in `127.0.0.1:8501`.
    pub(crate) address: String,
    /// Share of the traffic relative to the others. 1 to 256, default 1.
    pub(crate) weight: Option<i64>,
}

pub(crate) type RawAddress = TextOr<RawWeighted>;

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawProtocol {
    Auto,
    Http1,
    H2c,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawAlgorithm {
    LeastLoaded,
    RoundRobin,
    Random,
    Hash,
    Consistent,
}

/// Until it passes, `/ready` is 503 and `/health` is 200.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawStartup {
    /// Checks and groups that must have been up once. Default: the preset's.
    pub(crate) require: Option<Vec<String>>,
    /// Past it `/startup` and `/health` fail: the model server will never start. Default `5m`.
    pub(crate) budget: Option<Span>,
}

/// Fails only for what a restart would mend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawHealth {
    /// Checks and groups whose fresh `down` condemns the model server. Default: the preset's.
    pub(crate) require: Option<Vec<String>>,
    /// More condemnations than this are held back and reported instead. Default `6 per 1h`.
    pub(crate) restart_budget: Option<Budget>,
}

/// Send me traffic.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawReady {
    /// Checks and groups that must be up. Default: the preset's.
    pub(crate) require: Option<Vec<String>>,
    /// Shown, measured, warned about: still 200.
    pub(crate) degrade: Option<Vec<String>>,
}

/// A composition: exactly one of `all`, `any`, `quorum`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawGroup {
    /// Up while all of these are up.
    pub(crate) all: Option<Vec<String>>,
    /// Up while one of these is up.
    pub(crate) any: Option<Vec<String>>,
    /// Up while at least `min` of these are up.
    pub(crate) quorum: Option<RawQuorum>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawQuorum {
    /// At least so many must be up. 1 to the number of members.
    pub(crate) min: i64,
    /// The members.
    pub(crate) of: Vec<String>,
}

/// Where the sidecar listens. Port 0 is allowed; the chosen one is logged.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawListen {
    /// The proxied service. Default `0.0.0.0:8080`.
    pub(crate) traffic: Option<String>,
    /// The kubelet and Prometheus. Default `0.0.0.0:9090`.
    pub(crate) probes: Option<String>,
    /// People and hooks: `host:port`, `unix:/path` or `/path`. Default `127.0.0.1:9091`.
    pub(crate) admin: Option<String>,
    /// The bearer token of the admin listener; needed for any address but loopback and a Unix socket.
    pub(crate) admin_token_file: Option<String>,
}

/// Who may see reasons on the probe listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawDetails {
    /// Default `loopback`; elsewhere the reason reads "withheld".
    pub(crate) show: Option<RawShow>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawShow {
    Always,
    Loopback,
    Never,
}

/// The proxy.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawTraffic {
    /// Threads that proxy. 1 to 1024, default as many as the container may use CPUs.
    pub(crate) workers: Option<i64>,
    /// Requests at once; a request counts until its last byte. Default unlimited.
    pub(crate) max_in_flight: Option<i64>,
    /// From sending a request to the response head. Default none: models think.
    pub(crate) first_byte_timeout: Option<Span>,
    /// To connect to the model server. Default `2s`.
    pub(crate) connect_timeout: Option<Span>,
    /// An idle connection to the model server is closed after this. Default `3s`.
    pub(crate) upstream_idle: Option<Span>,
    /// An idle client connection is closed after this. Default `75s`.
    pub(crate) client_idle: Option<Span>,
    /// Client connections at once, over all workers. Default 10000.
    pub(crate) max_connections: Option<i64>,
    /// Add `X-Forwarded-For`, `-Proto` and `-Host`. Default `true`.
    pub(crate) forwarded_headers: Option<bool>,
    /// Also answer the probe paths on the traffic listener. Default `false`.
    pub(crate) expose_probes: Option<bool>,
    /// Where requests above `max_in_flight` wait, by priority and then first come first served. Default none: they are
    /// refused at once.
    pub(crate) queue: Option<RawQueue>,
    /// How long a request waits while the model server starts or is gone, as in `10s`. Default not at all.
    pub(crate) hold: Option<Span>,
    /// A header with a whole number from -128 to 127, as in `x-priority`: within the queue, higher goes first. Default
    /// none. Whoever may send the header decides: strip it at the ingress from those who may not.
    pub(crate) priority_header: Option<String>,
    /// Limits by path, as in `[traffic.routes."/v1/train"]`: for it and everything below it. The longest wins.
    pub(crate) routes: BTreeMap<String, RawRoute>,
}

/// A bounded queue.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawQueue {
    /// Requests that wait at once, over all workers. 1 to 1000000; needed.
    pub(crate) max: Option<i64>,
    /// Bytes of their bodies, as in `64MiB`. Default unlimited.
    pub(crate) max_bytes: Option<Size>,
    /// A request waits at most this long. Default `10s`.
    pub(crate) timeout: Option<Span>,
}

/// What differs for one path. What is not said is as in `[traffic]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawRoute {
    /// Requests at once on this route, counted alone instead of with the rest.
    pub(crate) max_in_flight: Option<i64>,
    /// A queue of its own rules.
    pub(crate) queue: Option<RawQueue>,
    /// Default as in `[traffic]`; `0s`: not at all.
    pub(crate) hold: Option<Span>,
    /// Default as in `[traffic]`.
    pub(crate) first_byte_timeout: Option<Span>,
    /// How long the model server may be silent while such a request is pending: for batches and long prefills.
    /// Counts where it is longer than the `progress` check's own.
    pub(crate) stall_after: Option<Span>,
}

/// TLS on the traffic listener: HTTP/1.1 and HTTP/2, by ALPN. The files are looked at every 2 seconds; a new pair is
/// taken over without losing a connection, a bad one is refused.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawTlsServer {
    /// PEM: the certificate, and whatever leads from it to the root. Needed.
    pub(crate) cert_file: Option<String>,
    /// PEM: its private key. Needed.
    pub(crate) key_file: Option<String>,
    /// PEM: whose certificates clients must show. Default: clients need none.
    pub(crate) client_ca_file: Option<String>,
    /// The oldest version that is spoken. Default `1.2`.
    pub(crate) min_version: Option<RawTlsVersion>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(crate) enum RawTlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

/// The way out of service.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawDrain {
    /// From the start of a drain to the refusal of new requests: time for endpoints to propagate. Default `5s`, or
    /// half of `max` if that is shorter.
    pub(crate) propagation: Option<Span>,
    /// From the start of a drain to its end, finished or not. Default `25s`.
    pub(crate) max: Option<Span>,
}

/// The log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawLog {
    /// Default `auto`: text on a terminal, JSON elsewhere.
    pub(crate) format: Option<RawLogFormat>,
    /// A filter, as in `info` or `probegate=debug`. Default `info`.
    pub(crate) level: Option<String>,
    /// A JSON line on standard output for each request: `true`, or a table. Default `false`.
    pub(crate) access: Option<RawAccess>,
}

pub(crate) type RawAccess = FlagOr<RawAccessLog>;

/// Which requests get a line. Those that failed always do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawAccessLog {
    /// The share of requests that do, spread evenly. Default `100%`.
    pub(crate) sample: Option<Permille>,
    /// One that took so long always does. Default: none for that.
    pub(crate) slow: Option<Span>,
    /// Show the query too. Default `false`: it may hold a secret.
    pub(crate) query: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawLogFormat {
    Auto,
    Json,
    Text,
}

/// Files that outlive the sidecar.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawReport {
    /// Where last words are written before `/health` first fails, as in `/dev/termination-log`.
    pub(crate) file: Option<String>,
    /// Where everything that the verdicts rest on is recorded, to be replayed in a test; a new file at each start,
    /// at most 16 MiB. Default nowhere.
    pub(crate) trace: Option<String>,
    /// Where the transition history survives the sidecar's own restart.
    pub(crate) ring: Option<String>,
}
