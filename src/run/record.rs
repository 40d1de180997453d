//! What happens, put into metrics and log lines.
//!
//! Owns the label sets of the checks that run, resolved once per configuration, and forgets those of checks
//! that are gone. One log line per transition, none per attempt.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::logging::TRANSITION;
use super::ring::Ring;
use crate::clock::Clock;
use crate::engine::{
    BackendView, Cause, Changed, CheckId, CheckPlan, CheckState, CheckView, DrainPhase, Ejections, Gate, ModelState,
    ModelView, Next, Outcome, Plan, Snapshot, Status, Time, Transition, Verdict,
};
use crate::telemetry::{
    CheckLabels, CheckResultLabels, CheckTypeLabels, EjectionLabels, FloatGauge, GateLabels, GateTransitionLabels,
    NoLabels, StateLabels, Telemetry, UpstreamLabels, WithheldLabels,
};

/// The kind whose reading is the model's accuracy.
const GOLDEN: &str = "golden";
/// Every `result` of `probegate_check_results_total`.
const RESULTS: [&str; 4] = ["pass", "fail", "timeout", "unknown"];

/// The recorder of one sidecar.
pub(super) struct Recorder {
    clock: Clock,
    telemetry: Arc<Telemetry>,
    ring: Option<Ring>,
    /// By `CheckId`.
    checks: Vec<CheckMetrics>,
    by_name: HashMap<String, usize>,
    /// Upstream addresses that have a series.
    upstreams: Vec<String>,
}

struct CheckMetrics {
    name: String,
    kind: &'static str,
    up: Gauge,
    duration: Histogram,
    results: [Counter; RESULTS.len()],
    /// Made with the first success: a check that never passed has no such moment.
    last_success: Option<FloatGauge>,
}

impl Recorder {
    pub(super) fn new(clock: Clock, telemetry: Arc<Telemetry>, ring: Option<Ring>, plan: &Plan) -> Self {
        let mut recorder =
            Self { clock, telemetry, ring, checks: Vec::new(), by_name: HashMap::new(), upstreams: Vec::new() };
        recorder.adopt(plan);
        for gate in Gate::ALL {
            for to in [Status::Pass, Status::Warn, Status::Fail] {
                let labels = GateTransitionLabels { gate: gate.as_str(), to: to.as_str() };
                drop(recorder.telemetry.gate_transitions.get_or_create(&labels));
            }
        }
        recorder
    }

    /// Series for the checks of a new plan; those of checks that are gone go too, those that stay count on.
    pub(super) fn adopt(&mut self, plan: &Plan) {
        let kinds: HashMap<&str, &str> = plan.checks.iter().map(|check| (check.name.as_str(), check.kind)).collect();
        for old in &self.checks {
            let kind = kinds.get(old.name.as_str());
            if kind.is_none_or(|kind| *kind != old.kind) {
                self.telemetry.check_up.remove(&CheckTypeLabels { check: old.name.clone(), r#type: old.kind });
            }
            if kind.is_none() {
                self.forget(&old.name);
            }
        }
        let mut before: HashMap<String, CheckMetrics> =
            std::mem::take(&mut self.checks).into_iter().map(|old| (old.name.clone(), old)).collect();
        self.checks = plan
            .checks
            .iter()
            .map(|check| {
                let last_success = before.remove(&check.name).and_then(|old| old.last_success);
                self.resolve(check, last_success)
            })
            .collect();
        self.by_name = self.checks.iter().enumerate().map(|(index, check)| (check.name.clone(), index)).collect();
    }

    fn resolve(&self, check: &CheckPlan, last_success: Option<FloatGauge>) -> CheckMetrics {
        let name = &check.name;
        let labels = CheckLabels { check: name.clone() };
        let typed = CheckTypeLabels { check: name.clone(), r#type: check.kind };
        let result = |result| {
            self.telemetry.check_results.get_or_create_owned(&CheckResultLabels { check: name.clone(), result })
        };
        CheckMetrics {
            name: name.clone(),
            kind: check.kind,
            up: self.telemetry.check_up.get_or_create_owned(&typed),
            duration: self.telemetry.check_duration.get_or_create_owned(&labels),
            results: RESULTS.map(result),
            last_success,
        }
    }

    fn forget(&self, name: &str) {
        let labels = CheckLabels { check: name.to_owned() };
        self.telemetry.check_duration.remove(&labels);
        self.telemetry.check_last_success.remove(&labels);
        for result in RESULTS {
            self.telemetry.check_results.remove(&CheckResultLabels { check: name.to_owned(), result });
        }
    }

    /// Whether the file on disk is the configuration that runs.
    pub(super) fn reloaded(&self, successful: bool) {
        self.telemetry.config_last_reload_successful.set(i64::from(successful));
    }

    /// One attempt ended.
    pub(super) fn attempt(&mut self, check: CheckId, outcome: &Outcome, now: Time) {
        let Some(metrics) = self.checks.get_mut(check.index()) else { return };
        metrics.duration.observe(outcome.latency.as_secs_f64());
        if let Some(at) = RESULTS.iter().position(|result| *result == outcome.verdict.as_str()) {
            metrics.results[at].inc();
        }
        if outcome.verdict == Verdict::Pass {
            let labels = CheckLabels { check: metrics.name.clone() };
            metrics
                .last_success
                .get_or_insert_with(|| self.telemetry.check_last_success.get_or_create_owned(&labels))
                .set(self.clock.unix_seconds(now));
        }
    }

    /// How long work has been pending without progress.
    pub(super) fn stalled(&self, span: std::time::Duration) {
        self.telemetry.stall_seconds.set(span.as_secs_f64());
    }

    /// A snapshot is published: the gauges that follow from it.
    pub(super) fn published(&mut self, snapshot: &Snapshot) {
        for gate in Gate::ALL {
            let labels = GateLabels { gate: gate.as_str() };
            self.telemetry.gate_status.get_or_create(&labels).set(snapshot.gate(gate).status.gauge());
        }
        self.telemetry.draining.set(i64::from(snapshot.drain.phase != DrainPhase::Serving));
        self.telemetry.drain_cut_off.set(i64::from(snapshot.drain.cut_off));
        self.telemetry.doubt.set(i64::from(snapshot.doubt.is_some()));
        for (cause, label) in [(Cause::RestartBudget, "budget"), (Cause::Doubt, "doubt")] {
            let withheld = snapshot.health.why.iter().any(|why| why.cause == cause);
            self.telemetry.restart_withheld.get_or_create(&WithheldLabels { cause: label }).set(i64::from(withheld));
        }
        let wrong = |check: &Arc<CheckView>| check.kind == GOLDEN && check.state == CheckState::Down;
        let degraded = snapshot.ready.status == Status::Warn || snapshot.checks.iter().any(wrong);
        self.telemetry.model_degraded.set(i64::from(degraded));
        match snapshot.checks.iter().filter_map(|check| check.accuracy).reduce(f64::min) {
            Some(accuracy) => {
                self.telemetry.model_accuracy.get_or_create(&NoLabels {}).set(accuracy);
            }
            // Nothing is known: the last one's would be held against its successor.
            None => {
                self.telemetry.model_accuracy.remove(&NoLabels {});
            }
        }
        self.show_model(&snapshot.model);
        self.show_upstreams(&snapshot.backends);
    }

    fn show_model(&self, model: &ModelView) {
        for state in ModelState::ALL {
            let labels = StateLabels { state: state.as_str() };
            self.telemetry.model_state.get_or_create(&labels).set(i64::from(state == model.state));
        }
        self.telemetry.busy_until.set(model.busy_until.map_or(0.0, |until| self.clock.unix_seconds(until)));
    }

    /// The gauge of each check from its state: what a reload begins anew is pending without having turned so.
    pub(super) fn show_checks(&self, snapshot: &Snapshot) {
        for (metrics, check) in self.checks.iter().zip(snapshot.checks.iter()) {
            metrics.up.set(i64::from(check.state == CheckState::Up));
        }
    }

    fn show_upstreams(&mut self, backends: &[BackendView]) {
        if !self.upstreams.iter().eq(backends.iter().map(|backend| &backend.address)) {
            self.telemetry.upstream_up.clear();
            self.telemetry.upstream_ejections.clear();
            self.upstreams = backends.iter().map(|backend| backend.address.clone()).collect();
        }
        for backend in backends {
            let labels = UpstreamLabels { address: backend.address.clone() };
            self.telemetry.upstream_up.get_or_create(&labels).set(i64::from(backend.enabled));
            let Ejections { consecutive_failures, success_ratio, probation, silence } = backend.ejections;
            let counts = [
                ("consecutive_failures", consecutive_failures),
                ("success_ratio", success_ratio),
                ("probation", probation),
                ("silence", silence),
            ];
            for (reason, count) in counts.into_iter().filter(|_| backends.len() > 1) {
                let labels = EjectionLabels { address: backend.address.clone(), reason };
                let counter = self.telemetry.upstream_ejections.get_or_create_owned(&labels);
                counter.inc_by(count.saturating_sub(counter.get()));
            }
        }
    }

    /// A transition, with the snapshot that came of it.
    pub(super) fn transition(&self, transition: &Transition, snapshot: &Snapshot) {
        match &transition.what {
            Changed::Gate(gate) => {
                let labels = GateTransitionLabels { gate: gate.as_str(), to: transition.to };
                self.telemetry.gate_transitions.get_or_create(&labels).inc();
            }
            Changed::Check(name) => {
                if let Some(&index) = self.by_name.get(name) {
                    self.checks[index].up.set(i64::from(transition.to == "up"));
                }
            }
            Changed::Instance(_) | Changed::Upstream(_) | Changed::Drain | Changed::Doubt | Changed::Hand => {}
        }
        if let Some(ring) = &self.ring {
            ring.push(transition);
        }
        self.log(transition, snapshot);
    }

    fn log(&self, transition: &Transition, snapshot: &Snapshot) {
        let (check, next) = match &transition.what {
            Changed::Gate(gate) => self.behind_gate(*gate, snapshot),
            Changed::Check(name) => (self.by_name.get(name).and_then(|&at| snapshot.checks.get(at)), None),
            Changed::Upstream(address) => {
                let backend = snapshot.backends.iter().find(|backend| backend.address == *address);
                (None, backend.and_then(|backend| backend.next.as_ref()).filter(|_| is_bad(transition.to)))
            }
            Changed::Instance(_) | Changed::Drain | Changed::Doubt | Changed::Hand => (None, None),
        };
        let check = check.map(|check| &**check).filter(|_| is_bad(transition.to));
        let message = self.words(transition, check, next);
        let (kind, subject) = (transition.what.kind(), subject(&transition.what));
        let (from, to) = (transition.from, transition.to);
        let reason = transition.reason.as_str();
        let failures = check.map(|check| check.failures);
        let failing_since = check.and_then(|check| check.failing_since).map(|since| self.clock.rfc3339(since));
        if is_bad(transition.to) {
            tracing::warn!(target: TRANSITION, kind, subject, from, to, reason, failures, failing_since, "{message}");
        } else {
            tracing::info!(target: TRANSITION, kind, subject, from, to, reason, "{message}");
        }
    }

    /// The check that decided a gate, and what happens next.
    fn behind_gate<'s>(&self, gate: Gate, snapshot: &'s Snapshot) -> (Option<&'s Arc<CheckView>>, Option<&'s Next>) {
        let view = snapshot.gate(gate);
        let check = view.why.first().and_then(|why| match why.cause {
            Cause::Check(id) | Cause::Degraded(id) | Cause::Withdrawn(id) => snapshot.checks.get(id.index()),
            _ => None,
        });
        (check, view.next.as_ref())
    }

    /// The reason, the evidence behind it and what happens next, in one sentence.
    fn words(&self, transition: &Transition, check: Option<&CheckView>, next: Option<&Next>) -> String {
        let mut words = transition.reason.clone();
        if let Some(check) = check
            && let Some(since) = check.failing_since.filter(|_| check.failures > 1)
        {
            words.push_str(&format!(" ({} times since {})", check.failures, self.clock.time_of_day(since)));
        }
        let after = |at: Time| {
            let wait = at.since(transition.at).as_secs_f64();
            if wait < 10.0 { format!("{} s", (wait * 10.0).round() / 10.0) } else { format!("{} s", wait.round()) }
        };
        match (next, check.and_then(|check| check.next_attempt)) {
            (Some(Next { at: Some(at), text }), _) => words.push_str(&format!("; in {}: {text}", after(*at))),
            (Some(Next { at: None, text }), _) => words.push_str(&format!("; {text}")),
            (None, Some(at)) => words.push_str(&format!("; tried again in {}", after(at))),
            (None, None) => {}
        }
        words
    }
}

/// Which thing changed, for the log: nothing there goes without a name.
fn subject(what: &Changed) -> &str {
    match what {
        Changed::Gate(gate) => gate.as_str(),
        Changed::Check(name) | Changed::Upstream(name) => name,
        Changed::Instance(_) => "server",
        Changed::Drain => "drain",
        Changed::Doubt => "sidecar",
        Changed::Hand => "by hand",
    }
}

/// Whether a state is one that somebody may be paged for.
fn is_bad(to: &str) -> bool {
    matches!(to, "fail" | "down" | "stale" | "warn" | "gone" | "doubt" | "disabled" | "ejected")
}
