//! `/api/report`: the whole judgement as JSON, for pages, scripts and `probegate status`.
//!
//! Field names and their meaning are stable: fields are added, never renamed. Times are RFC 3339 in UTC,
//! durations are milliseconds. Reasons and targets carry no secrets, for the judgement has none.

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::engine::{
    self, BackendView, Cause, CheckId, CheckView, DrainPhase, Ejections, Evidence, Gate, GateView, GroupView, Level,
    Scope, Snapshot, Time, Transition,
};

/// Everything that is known at one moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// Of the sidecar.
    pub version: String,
    /// When the report was made.
    pub at: String,
    /// Grows with every change of the judgement.
    pub revision: u64,
    pub gates: Gates,
    /// In the file's order.
    pub checks: Vec<Check>,
    pub groups: Vec<Group>,
    pub upstreams: Vec<Upstream>,
    pub instance: Instance,
    /// The model server in one word.
    #[serde(default)]
    pub model: Model,
    pub drain: Drain,
    /// Taken out of rotation by hand, since.
    pub disabled_since: Option<String>,
    /// Why the sidecar doubts itself, while it does.
    pub doubt: Option<Doubt>,
    /// Oldest first.
    pub history: Vec<Change>,
    pub traffic: Traffic,
    pub config: Configuration,
    /// Which of the sidecar's own parts is stuck; none if all are well.
    pub stuck: Option<String>,
    /// The last hang that was found, that of an earlier run included where a ring keeps it.
    #[serde(default)]
    pub hang: Option<HangReport>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Gates {
    pub startup: GateReport,
    pub ready: GateReport,
    pub health: GateReport,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct GateReport {
    /// `pass`, `warn` or `fail`.
    pub status: String,
    pub since: String,
    /// The first is the deciding one; empty on a plain pass.
    pub why: Vec<Reason>,
    pub next: Option<Next>,
    pub members: Vec<MemberReport>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Reason {
    /// `check`, `degraded`, `withdrawn`, `starting`, `startup_budget`, `gone`, `draining`, `disabled`,
    /// `restart_budget` or `doubt`.
    pub cause: String,
    /// The check it is about, if it is about one.
    pub check: Option<String>,
    pub since: String,
    pub text: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Next {
    pub at: Option<String>,
    pub text: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct MemberReport {
    pub check: String,
    /// False: it only degrades.
    pub required: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Check {
    pub name: String,
    pub kind: String,
    pub target: String,
    /// `pending`, `up`, `down`, `stale` or `skipped`.
    pub state: String,
    pub since: String,
    /// Why it is in this state; empty when up.
    pub reason: String,
    /// The last result, whatever it was.
    pub last: Option<Last>,
    /// Passes in a row.
    pub passes: u32,
    /// Failures in a row.
    pub failures: u32,
    pub failing_since: Option<String>,
    pub last_success: Option<String>,
    pub next_attempt: Option<String>,
    /// An attempt is under way since.
    pub in_flight_since: Option<String>,
    pub forced: Option<Forced>,
    /// Attempts that ended, ever.
    pub attempts: u64,
    /// `pod` or `shared`.
    pub scope: String,
    pub runbook: Option<String>,
    /// Of a golden check, the share of its examples that is answered right, 0 to 1.
    pub accuracy: Option<f64>,
    pub interval_ms: u64,
    pub timeout_ms: u64,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Last {
    pub at: String,
    /// `pass`, `fail`, `timeout` or `unknown`.
    pub result: String,
    pub reason: String,
    pub latency_ms: f64,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Forced {
    /// `up` or `down`.
    pub state: String,
    pub until: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Group {
    pub name: String,
    /// `up`, `down` or `unknown`.
    pub level: String,
    pub up: u32,
    pub of: u32,
    pub min: u32,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Upstream {
    pub address: String,
    /// Whether any request may go there.
    pub enabled: bool,
    /// `up`, `down` (its own check holds it shut), `probation` (one request at a time) or `ejected`.
    pub state: String,
    pub since: String,
    /// Why; empty while nothing speaks against it.
    pub reason: String,
    pub next: Option<Next>,
    /// Times that real requests put it out, whatever the cause.
    pub ejections: u64,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Instance {
    pub number: u64,
    /// `starting`, `started` or `gone`.
    pub phase: String,
    pub since: String,
    pub budget_until: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Model {
    /// `loading`, `ready`, `saturated`, `degraded`, `stalled` or `dead`.
    pub state: String,
    pub since: String,
    /// Empty when ready.
    pub reason: String,
    /// Until when work that its clients gave up on may keep it silent, while it may: until then silence is no hang.
    pub busy_until: Option<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Drain {
    /// `serving`, `propagating`, `finishing` or `done`.
    pub phase: String,
    /// None while serving.
    pub since: Option<String>,
    pub until: Option<String>,
    pub in_flight: u64,
    pub cut_off: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Doubt {
    pub since: String,
    pub reason: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Change {
    pub at: String,
    /// `gate`, `check`, `instance`, `drain`, `doubt` or `hand`.
    pub what: String,
    /// The gate's or check's name, the instance's number; empty for the others.
    pub name: String,
    pub from: String,
    pub to: String,
    pub reason: String,
    /// It happened before the sidecar's own restart.
    #[serde(default)]
    pub before_restart: bool,
}

/// What was known when a hang was found: the whole report, as it went to the log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct HangReport {
    pub at: String,
    /// Which `progress` check found it.
    pub check: String,
    /// Lines: the reason, requests in flight, the counter's readings, threads.
    pub hang: String,
    /// It was found before the sidecar's own restart.
    #[serde(default)]
    pub before_restart: bool,
}

/// The proxied traffic, summed over all workers since the start.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Traffic {
    pub in_flight: u64,
    /// Requests that ended.
    pub requests: u64,
    /// Of those, answered with 5xx by the model server or not at all.
    pub failed: u64,
    /// Refused by the sidecar itself.
    pub refused: u64,
}

/// Which file the sidecar runs from.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Configuration {
    pub source: String,
    /// False while the file on disk is one that was refused.
    pub last_reload_successful: bool,
    /// Why it was refused.
    pub problem: Option<String>,
    /// Settings that differ in the file and take effect only at a restart of the sidecar.
    #[serde(default)]
    pub needs_restart: Vec<String>,
}

/// What the report tells besides the judgement. `run` knows it.
pub trait Surroundings: Send + Sync {
    fn traffic(&self) -> Traffic;

    fn configuration(&self) -> Configuration;

    /// Which part of the sidecar is stuck, if one is.
    fn stuck(&self) -> Option<String>;

    /// Transitions from before the sidecar's own restart, oldest first.
    fn earlier(&self) -> Vec<Change> {
        Vec::new()
    }

    /// The last hang report.
    fn hang(&self) -> Option<HangReport> {
        None
    }
}

impl Change {
    /// A transition of this run, in words.
    pub fn of(transition: &Transition, clock: &Clock) -> Self {
        change(transition, clock)
    }

    /// The same change, seen by a later run.
    #[must_use]
    pub fn before_restart(mut self) -> Self {
        self.before_restart = true;
        self
    }
}

impl Report {
    pub fn new(snapshot: &Snapshot, clock: &Clock, around: &dyn Surroundings) -> Self {
        let t = |at: Time| clock.rfc3339(at);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: t(clock.now()),
            revision: snapshot.revision,
            gates: Gates {
                startup: gate(snapshot, Gate::Startup, clock),
                ready: gate(snapshot, Gate::Ready, clock),
                health: gate(snapshot, Gate::Health, clock),
            },
            checks: snapshot
                .checks
                .iter()
                .enumerate()
                .map(|(at, check)| self::check(snapshot, at, check, clock))
                .collect(),
            groups: snapshot.groups.iter().map(group).collect(),
            upstreams: snapshot.backends.iter().map(|backend| upstream(backend, clock)).collect(),
            instance: Instance {
                number: snapshot.instance.number,
                phase: snapshot.instance.phase.as_str().to_owned(),
                since: t(snapshot.instance.since),
                budget_until: snapshot.instance.budget_until.map(t),
            },
            model: Model {
                state: snapshot.model.state.as_str().to_owned(),
                since: t(snapshot.model.since),
                reason: snapshot.model.reason.clone(),
                busy_until: snapshot.model.busy_until.map(t),
            },
            drain: Drain {
                phase: snapshot.drain.phase.as_str().to_owned(),
                since: (snapshot.drain.phase != DrainPhase::Serving).then(|| t(snapshot.drain.since)),
                until: snapshot.drain.until.map(t),
                in_flight: snapshot.drain.in_flight,
                cut_off: snapshot.drain.cut_off,
            },
            disabled_since: snapshot.disabled_since.map(t),
            doubt: snapshot.doubt.as_ref().map(|doubt| Doubt { since: t(doubt.since), reason: doubt.reason.clone() }),
            history: around.earlier().into_iter().chain(snapshot.history.iter().map(|t| change(t, clock))).collect(),
            traffic: around.traffic(),
            config: around.configuration(),
            stuck: around.stuck(),
            hang: around.hang(),
        }
    }
}

fn gate(snapshot: &Snapshot, gate: Gate, clock: &Clock) -> GateReport {
    let view: &GateView = snapshot.gate(gate);
    let name = |id: CheckId| snapshot.checks.get(id.index()).map(|check| check.name.clone());
    let why = view.why.iter().map(|why| {
        let (cause, about) = cause(&why.cause);
        Reason {
            cause: cause.to_owned(),
            check: about.and_then(name),
            since: clock.rfc3339(why.since),
            text: why.text.clone(),
        }
    });
    let members = view
        .members
        .iter()
        .filter_map(|member| Some(MemberReport { check: name(member.check)?, required: member.required }));
    GateReport {
        status: view.status.as_str().to_owned(),
        since: clock.rfc3339(view.since),
        why: why.collect(),
        next: view.next.as_ref().map(|next| self::next(next, clock)),
        members: members.collect(),
    }
}

fn next(next: &engine::Next, clock: &Clock) -> Next {
    Next { at: next.at.map(|at| clock.rfc3339(at)), text: next.text.clone() }
}

const fn cause(cause: &Cause) -> (&'static str, Option<CheckId>) {
    match cause {
        Cause::Check(id) => ("check", Some(*id)),
        Cause::Degraded(id) => ("degraded", Some(*id)),
        Cause::Withdrawn(id) => ("withdrawn", Some(*id)),
        Cause::Starting => ("starting", None),
        Cause::StartupBudget => ("startup_budget", None),
        Cause::Gone => ("gone", None),
        Cause::Draining => ("draining", None),
        Cause::Disabled => ("disabled", None),
        Cause::RestartBudget => ("restart_budget", None),
        Cause::Doubt => ("doubt", None),
    }
}

fn check(snapshot: &Snapshot, at: usize, view: &CheckView, clock: &Clock) -> Check {
    let t = |at: Time| clock.rfc3339(at);
    let plan = snapshot.plan.checks.get(at);
    let millis = |duration: Option<std::time::Duration>| {
        duration.and_then(|duration| u64::try_from(duration.as_millis()).ok()).unwrap_or_default()
    };
    Check {
        name: view.name.clone(),
        kind: view.kind.to_owned(),
        target: view.target.clone(),
        state: view.state.as_str().to_owned(),
        since: t(view.since),
        reason: view.reason.clone(),
        last: view.last.as_ref().map(|evidence| last(evidence, clock)),
        passes: view.passes,
        failures: view.failures,
        failing_since: view.failing_since.map(t),
        last_success: view.last_success.map(t),
        next_attempt: view.next_attempt.map(t),
        in_flight_since: view.in_flight_since.map(t),
        forced: view.forced.map(|f| Forced { state: f.forced.as_str().to_owned(), until: t(f.until) }),
        attempts: view.attempts,
        scope: match view.scope {
            Scope::Pod => "pod",
            Scope::Shared => "shared",
        }
        .to_owned(),
        runbook: view.runbook.clone(),
        accuracy: view.accuracy,
        interval_ms: millis(plan.map(|plan| plan.interval)),
        timeout_ms: millis(plan.map(|plan| plan.timeout)),
    }
}

fn last(evidence: &Evidence, clock: &Clock) -> Last {
    Last {
        at: clock.rfc3339(evidence.at),
        result: evidence.verdict.as_str().to_owned(),
        reason: evidence.reason.clone(),
        latency_ms: (evidence.latency.as_secs_f64() * 1e6).round() / 1e3,
    }
}

fn group(view: &GroupView) -> Group {
    let level = match view.level {
        Level::Up => "up",
        Level::Down => "down",
        Level::Unknown => "unknown",
    };
    Group { name: view.name.clone(), level: level.to_owned(), up: view.up, of: view.of, min: view.min }
}

fn upstream(view: &BackendView, clock: &Clock) -> Upstream {
    let Ejections { consecutive_failures, success_ratio, probation, silence } = view.ejections;
    Upstream {
        address: view.address.clone(),
        enabled: view.enabled,
        state: view.state.as_str().to_owned(),
        since: clock.rfc3339(view.since),
        reason: view.reason.clone(),
        next: view.next.as_ref().map(|next| self::next(next, clock)),
        ejections: consecutive_failures + success_ratio + probation + silence,
    }
}

fn change(transition: &Transition, clock: &Clock) -> Change {
    Change {
        at: clock.rfc3339(transition.at),
        what: transition.what.kind().to_owned(),
        name: transition.what.name(),
        from: transition.from.to_owned(),
        to: transition.to.to_owned(),
        reason: transition.reason.clone(),
        before_restart: false,
    }
}
