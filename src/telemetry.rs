//! The sidecar's own metrics: one registry, every name of the contract, label sets resolved once.
//!
//! The request path does not come here: the traffic plane counts in per-worker atomics and shows them at
//! scrape time through its own [`Collector`].

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// A gauge of seconds, ratios and the like.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// Every metric that is not counted per request. Shared by all threads; each metric is atomic by itself.
pub struct Telemetry {
    registry: Mutex<Registry>,
    pub gate_status: Family<GateLabels, FloatGauge>,
    pub gate_transitions: Family<GateTransitionLabels, Counter>,
    pub check_up: Family<CheckTypeLabels, Gauge>,
    pub check_duration: Family<CheckLabels, Histogram>,
    pub check_results: Family<CheckResultLabels, Counter>,
    pub check_last_success: Family<CheckLabels, FloatGauge>,
    pub probe_requests: Family<ProbeLabels, Counter>,
    pub probe_duration: Family<GateLabels, Histogram>,
    pub upstream_up: Family<UpstreamLabels, Gauge>,
    pub upstream_ejections: Family<EjectionLabels, Counter>,
    pub stall_seconds: FloatGauge,
    pub draining: Gauge,
    /// 1 once a drain has ended with requests still in flight.
    pub drain_cut_off: Gauge,
    /// 1 while a condemnation is held back.
    pub restart_withheld: Family<WithheldLabels, Gauge>,
    /// 1 while the sidecar doubts itself.
    pub doubt: Gauge,
    pub config_last_reload_successful: Gauge,
    /// Without a series where the traffic listener speaks no TLS.
    pub tls_last_reload_successful: Family<NoLabels, Gauge>,
    pub tls_not_after: Family<NoLabels, FloatGauge>,
    pub model_degraded: Gauge,
    /// 1 for the one word that holds.
    pub model_state: Family<StateLabels, Gauge>,
    /// 0 while no abandoned work excuses a silence.
    pub busy_until: FloatGauge,
    /// Without a series until a golden check has spoken.
    pub model_accuracy: Family<NoLabels, FloatGauge>,
}

/// For a metric that may be absent.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct NoLabels {}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct GateLabels {
    pub gate: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct GateTransitionLabels {
    pub gate: &'static str,
    pub to: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct CheckLabels {
    pub check: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct CheckTypeLabels {
    pub check: String,
    pub r#type: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct CheckResultLabels {
    pub check: String,
    pub result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct ProbeLabels {
    pub gate: &'static str,
    pub code: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct UpstreamLabels {
    pub address: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct EjectionLabels {
    pub address: String,
    pub reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct StateLabels {
    pub state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct WithheldLabels {
    /// `budget` or `doubt`.
    pub cause: &'static str,
}

impl Telemetry {
    pub fn new() -> Self {
        let all = Self {
            registry: Mutex::default(),
            gate_status: Family::default(),
            gate_transitions: Family::default(),
            check_up: Family::default(),
            check_duration: Family::new_with_constructor(|| {
                Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
            }),
            check_results: Family::default(),
            check_last_success: Family::default(),
            probe_requests: Family::default(),
            probe_duration: Family::new_with_constructor(|| {
                Histogram::new([
                    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 1.0,
                ])
            }),
            upstream_up: Family::default(),
            upstream_ejections: Family::default(),
            stall_seconds: FloatGauge::default(),
            draining: Gauge::default(),
            drain_cut_off: Gauge::default(),
            restart_withheld: Family::default(),
            doubt: Gauge::default(),
            config_last_reload_successful: Gauge::default(),
            tls_last_reload_successful: Family::default(),
            tls_not_after: Family::default(),
            model_degraded: Gauge::default(),
            model_state: Family::default(),
            busy_until: FloatGauge::default(),
            model_accuracy: Family::default(),
        };
        all.register();
        all
    }

    fn register(&self) {
        let mut r = self.registry();
        r.register("probegate_build", "Which build this is", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        r.register("probegate_gate_status", "1 pass, 0.5 warn, 0 fail", self.gate_status.clone());
        r.register("probegate_gate_transitions", "Times a gate turned to a status", self.gate_transitions.clone());
        r.register("probegate_check_up", "1 while the check is up", self.check_up.clone());
        r.register("probegate_check_duration_seconds", "Time that attempts took", self.check_duration.clone());
        r.register("probegate_check_results", "Attempts by how they ended", self.check_results.clone());
        r.register(
            "probegate_check_last_success_timestamp_seconds",
            "Unix time of the last passed attempt",
            self.check_last_success.clone(),
        );
        r.register("probegate_probe_requests", "Probe answers given", self.probe_requests.clone());
        r.register("probegate_probe_duration_seconds", "Time to answer a probe", self.probe_duration.clone());
        r.register("probegate_upstream_up", "1 while traffic may go to the address", self.upstream_up.clone());
        r.register(
            "probegate_upstream_ejections",
            "Times that real requests put the address out of rotation, by why",
            self.upstream_ejections.clone(),
        );
        r.register(
            "probegate_stall_seconds",
            "How long work has been pending without progress",
            self.stall_seconds.clone(),
        );
        r.register("probegate_draining", "1 from the start of a drain on", self.draining.clone());
        r.register("probegate_drain_cut_off", "1 if a drain ended with requests in flight", self.drain_cut_off.clone());
        r.register("probegate_restart_withheld", "1 while a restart is held back", self.restart_withheld.clone());
        r.register("probegate_doubt", "1 while the sidecar doubts itself", self.doubt.clone());
        r.register(
            "probegate_config_last_reload_successful",
            "0 while the file on disk is one that was refused",
            self.config_last_reload_successful.clone(),
        );
        r.register(
            "probegate_tls_last_reload_successful",
            "0 while the certificate files on disk are ones that were refused",
            self.tls_last_reload_successful.clone(),
        );
        r.register(
            "probegate_tls_certificate_not_after_timestamp_seconds",
            "Unix time at which the traffic listener's certificate expires",
            self.tls_not_after.clone(),
        );
        r.register(
            "model_accuracy",
            "Share of golden requests answered right, by the check with the lowest",
            self.model_accuracy.clone(),
        );
        r.register("probegate_model_state", "1 for what the model server is, in one word", self.model_state.clone());
        r.register(
            "probegate_busy_until_timestamp_seconds",
            "Unix time until which work that nobody waits for may keep the model server silent, or 0",
            self.busy_until.clone(),
        );
        r.register("model_degraded", "1 while the model serves with a degraded check", self.model_degraded.clone());
    }

    /// Adds a collector that is asked at each scrape (the traffic plane's counters).
    pub fn register_collector(&self, collector: Box<dyn Collector>) {
        self.registry().register_collector(collector);
    }

    /// Our own metrics as OpenMetrics text, `# EOF` included.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        encode(&mut text, &self.registry())?;
        Ok(text)
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}
