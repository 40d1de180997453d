//! As typed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::lab::kubelet::RawPod;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScenario {
    pub(super) title: String,
    #[serde(default)]
    pub(super) question: String,
    #[serde(default)]
    pub(super) prediction: String,
    pub(super) duration: Span,
    pub(super) pods: usize,
    pub(super) server: RawServer,
    /// By name: what differs from `[server]`.
    #[serde(default)]
    pub(super) versions: BTreeMap<String, RawVersion>,
    #[serde(default)]
    pub(super) deployment: RawDeployment,
    pub(super) autoscaler: Option<RawAutoscaler>,
    #[serde(default)]
    pub(super) actions: Vec<RawAction>,
    pub(super) clients: RawClients,
    #[serde(default)]
    pub(super) dependencies: BTreeMap<String, RawDependency>,
    #[serde(default)]
    pub(super) faults: Vec<RawFault>,
    pub(super) designs: Vec<RawDesign>,
    #[serde(default)]
    pub(super) expect: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawServer {
    pub(super) load: Span,
    pub(super) loads_from: Option<String>,
    pub(super) concurrency: usize,
    pub(super) queue: usize,
    pub(super) service_time: Span,
    #[serde(default)]
    pub(super) requires: Vec<RawUse>,
    #[serde(default)]
    pub(super) asks: Vec<RawUse>,
    pub(super) cache: Option<RawCache>,
    #[serde(default)]
    pub(super) finishes: bool,
    #[serde(default)]
    pub(super) page_hangs: bool,
    #[serde(default)]
    pub(super) front_answers: bool,
    #[serde(default)]
    pub(super) garbage: bool,
    #[serde(default)]
    pub(super) never_ready: bool,
    pub(super) crash_after: Option<Span>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVersion {
    pub(super) load: Option<Span>,
    pub(super) concurrency: Option<usize>,
    pub(super) queue: Option<usize>,
    pub(super) service_time: Option<Span>,
    pub(super) finishes: Option<bool>,
    pub(super) page_hangs: Option<bool>,
    pub(super) front_answers: Option<bool>,
    #[serde(default)]
    pub(super) garbage: bool,
    #[serde(default)]
    pub(super) never_ready: bool,
    pub(super) crash_after: Option<Span>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDeployment {
    pub(super) max_surge: RawShare,
    pub(super) max_unavailable: RawShare,
    pub(super) min_ready: Span,
    pub(super) progress_deadline: Span,
    pub(super) undo_at_deadline: bool,
    pub(super) min_available: Option<usize>,
    pub(super) nodes: Option<usize>,
    pub(super) node_grace: Span,
    pub(super) toleration: Span,
}

impl Default for RawDeployment {
    /// Upstream's defaults (§5), no budget, a node for every pod.
    fn default() -> Self {
        Self {
            max_surge: RawShare::Text("25%".to_owned()),
            max_unavailable: RawShare::Text("25%".to_owned()),
            min_ready: Span(Duration::ZERO),
            progress_deadline: Span(Duration::from_secs(600)),
            undo_at_deadline: false,
            min_available: None,
            nodes: None,
            node_grace: Span(Duration::from_secs(50)),
            toleration: Span(Duration::from_secs(300)),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAutoscaler {
    pub(super) min: usize,
    pub(super) max: usize,
    pub(super) in_flight: Option<f64>,
    pub(super) utilisation: Option<u64>,
    pub(super) sync: Option<Span>,
    pub(super) tolerance: Option<f64>,
    pub(super) initial_readiness_delay: Option<Span>,
    pub(super) cpu_initialization_period: Option<Span>,
    #[serde(default)]
    pub(super) up: RawRules,
    #[serde(default)]
    pub(super) down: RawRules,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRules {
    pub(super) window: Option<Span>,
    pub(super) select: Option<String>,
    pub(super) policies: Option<Vec<RawPolicy>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    pub(super) pods: Option<usize>,
    pub(super) percent: Option<usize>,
    pub(super) every: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawShare {
    Count(usize),
    Text(String),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAction {
    pub(super) at: Span,
    #[serde(rename = "for")]
    pub(super) lasts: Option<Span>,
    pub(super) rollout: Option<String>,
    #[serde(default)]
    pub(super) undo: bool,
    pub(super) delete_pod: Option<usize>,
    pub(super) drain_node: Option<usize>,
    pub(super) lose_node: Option<usize>,
    pub(super) scale: Option<usize>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUse {
    pub(super) dependency: String,
    pub(super) timeout: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCache {
    pub(super) limit_mib: u64,
    pub(super) per_request_kib: u64,
    pub(super) when_full: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClients {
    pub(super) rate: f64,
    #[serde(default = "at_once")]
    pub(super) from: Span,
    pub(super) timeout: Span,
    #[serde(default)]
    pub(super) retries: u32,
    #[serde(default = "retry_after")]
    pub(super) retry_after: Span,
    #[serde(default = "no_budget")]
    pub(super) retry_budget_percent: u32,
    #[serde(default)]
    pub(super) connections: u32,
    #[serde(default)]
    pub(super) fresh_percent: f64,
    pub(super) streams: Option<RawStreams>,
    #[serde(default)]
    pub(super) surges: Vec<RawSurge>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSurge {
    pub(super) at: Span,
    #[serde(rename = "for")]
    pub(super) lasts: Span,
    pub(super) times: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStreams {
    pub(super) percent: f64,
    pub(super) lasts: Span,
    #[serde(default = "gap")]
    pub(super) gap: Span,
}

const fn gap() -> Span {
    Span(Duration::from_millis(100))
}

const fn at_once() -> Span {
    Span(Duration::ZERO)
}

const fn retry_after() -> Span {
    Span(Duration::from_millis(100))
}

/// Every request may be retried as often as `retries` says.
const fn no_budget() -> u32 {
    100_000
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDependency {
    pub(super) latency: Span,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFault {
    pub(super) at: Span,
    #[serde(rename = "for")]
    pub(super) lasts: Option<Span>,
    pub(super) dependency: Option<String>,
    pub(super) is: Option<String>,
    pub(super) latency: Option<Span>,
    pub(super) every: Option<Span>,
    pub(super) pod: Option<usize>,
    #[serde(default)]
    pub(super) pods: Vec<usize>,
    pub(super) server: Option<String>,
    pub(super) sidecar: Option<String>,
    pub(super) after: Option<Span>,
    pub(super) times: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDesign {
    pub(super) name: String,
    #[serde(default)]
    pub(super) says: String,
    pub(super) pod: RawPod,
    #[serde(default)]
    pub(super) endpoints: BTreeMap<String, Vec<String>>,
    pub(super) probegate: Option<String>,
    #[serde(default)]
    pub(super) checks: BTreeMap<String, String>,
}

/// `"30s"`, `"1m 30s"`, `"40ms"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|error| {
            serde::de::Error::custom(format!("{text:?} is not a duration like \"30s\" or \"1m 30s\": {error}"))
        })
    }
}
