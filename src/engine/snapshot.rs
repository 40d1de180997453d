//! The published view: what every answer is made from, with the reasons.

use std::sync::Arc;
use std::time::Duration;

use super::evidence::{Outcome, Verdict};
use super::model::ModelView;
use super::passive::Ejections;
use super::plan::{CheckId, Plan, Scope};
use super::time::Time;

/// The whole judgement at one moment. Immutable.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Grows by at least one with every change.
    pub revision: u64,
    /// When it was taken.
    pub at: Time,
    /// What was judged by: how checks compose, for answers that leave one out.
    pub plan: Arc<Plan>,
    pub startup: GateView,
    pub ready: GateView,
    pub health: GateView,
    /// In the plan's order.
    pub checks: Arc<[Arc<CheckView>]>,
    /// In the plan's order.
    pub groups: Arc<[GroupView]>,
    /// In the plan's order.
    pub backends: Arc<[BackendView]>,
    pub instance: InstanceView,
    pub model: ModelView,
    pub drain: DrainView,
    /// Taken out of rotation by hand, and since when.
    pub disabled_since: Option<Time>,
    /// A check that readiness rests on is up on trial: one request at a time may pass, and decides.
    pub trial: bool,
    /// The model server is saturated, and new requests are refused for its sake.
    pub shedding: bool,
    /// Why the sidecar doubts itself, while it does.
    pub doubt: Option<DoubtView>,
    /// Oldest first, at most [`crate::limits::HISTORY_TRANSITIONS`].
    pub history: Arc<[Transition]>,
}

/// The three questions that the kubelet asks.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Gate {
    Startup,
    Ready,
    Health,
}

/// The words of health+json.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Status {
    Pass,
    Warn,
    Fail,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GateView {
    pub gate: Gate,
    pub status: Status,
    /// Since when it has had this status.
    pub since: Time,
    /// Why it is not a plain pass; the first is the deciding one. Empty on a plain pass.
    pub why: Vec<Why>,
    /// What happens next if nothing changes, where the engine knows.
    pub next: Option<Next>,
    /// Every check that speaks in this gate (through groups too), in the file's order.
    pub members: Vec<GateMember>,
}

/// A check's part in a gate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GateMember {
    pub check: CheckId,
    /// False: it only degrades.
    pub required: bool,
}

/// One reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Why {
    pub cause: Cause,
    pub since: Time,
    /// For a person, no secrets, no times in it: "redis is down: connection refused by 127.0.0.1:6379".
    pub text: String,
}

/// What kind of reason, and about whom.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// A required check (or one inside a required group) is not up.
    Check(CheckId),
    /// A check that only degrades is not up.
    Degraded(CheckId),
    /// A required check has used up its `max_withdrawal` and only degrades now.
    Withdrawn(CheckId),
    /// The startup gate has not passed for this model server yet.
    Starting,
    /// The startup budget is spent.
    StartupBudget,
    /// The model server is gone, and no new one has appeared.
    Gone,
    Draining,
    /// Taken out by hand.
    Disabled,
    /// The restart budget is spent: a condemnation is held back.
    RestartBudget,
    /// The sidecar doubts itself: a condemnation is withheld.
    Doubt,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// When, if it is at a known time.
    pub at: Option<Time>,
    /// For a person: "redis is tried again", "the startup budget ends".
    pub text: String,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CheckState {
    /// No verdict yet.
    Pending,
    Up,
    Down,
    /// Evidence older than `max_age`.
    Stale,
    /// A parent in `depends_on` is down.
    Skipped,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CheckView {
    pub name: String,
    pub kind: &'static str,
    pub target: String,
    /// As the gates see it: an override wins.
    pub state: CheckState,
    pub since: Time,
    /// The last result that came in, whatever it was.
    pub last: Option<Evidence>,
    /// Passes in a row until now.
    pub passes: u32,
    /// Failures in a row until now.
    pub failures: u32,
    /// When the current row of failures began.
    pub failing_since: Option<Time>,
    pub last_success: Option<Time>,
    /// When the next attempt starts; none while skipped or while one is in flight.
    pub next_attempt: Option<Time>,
    /// An attempt is in flight since.
    pub in_flight_since: Option<Time>,
    pub forced: Option<ForcedView>,
    /// For a person, why it is in this state: "connection refused by 127.0.0.1:6379". Empty when up.
    pub reason: String,
    /// Attempts that ended, ever.
    pub attempts: u64,
    pub scope: Scope,
    pub runbook: Option<String>,
    /// Of a golden check, the share of its examples that is answered right; none before the first answer, and once
    /// that is stale.
    pub accuracy: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    pub at: Time,
    pub verdict: Verdict,
    pub reason: String,
    pub latency: Duration,
}

impl Evidence {
    pub(super) fn from_outcome(at: Time, outcome: &Outcome) -> Self {
        Self { at, verdict: outcome.verdict, reason: outcome.reason.clone(), latency: outcome.latency }
    }
}

/// A state forced by hand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Forced {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ForcedView {
    pub forced: Forced,
    pub until: Time,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GroupView {
    pub name: String,
    pub level: Level,
    pub up: u32,
    pub of: u32,
    pub min: u32,
}

/// A composed opinion.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Level {
    Up,
    /// Down on fresh evidence.
    Down,
    /// Pending, stale or skipped: neither.
    #[default]
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BackendView {
    pub address: String,
    /// Whether traffic may go there freely: its check is up, or has no say yet and somebody has had an answer
    /// from it; and real requests have not discredited it.
    pub enabled: bool,
    pub state: BackendState,
    /// Since when it has been in this state.
    pub since: Time,
    /// For a person, why. Empty while nothing speaks against it.
    pub reason: String,
    /// What happens next if nothing changes, where the engine knows.
    pub next: Option<Next>,
    /// How often real requests put it out.
    pub ejections: Ejections,
}

/// What may go to an upstream address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BackendState {
    /// Any request.
    Up,
    /// None: its own check holds it shut.
    Down,
    /// One request at a time, which decides.
    Probation,
    /// None for a while: too many requests to it failed.
    Ejected,
}

/// The model server as one life.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceView {
    /// 1 is the first that was seen or awaited; grows with each new one.
    pub number: u64,
    pub phase: InstancePhase,
    pub since: Time,
    /// Until when it may start; none once it has.
    pub budget_until: Option<Time>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InstancePhase {
    /// The startup gate has not passed for it.
    Starting,
    /// It has.
    Started,
    /// It answered once and now nobody listens.
    Gone,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DrainView {
    pub phase: DrainPhase,
    /// When the drain began; meaningless while serving.
    pub since: Time,
    /// When the phase ends at the latest, if it ends by itself.
    pub until: Option<Time>,
    /// Requests in flight as last told.
    pub in_flight: u64,
    /// At its end: whether requests were still in flight.
    pub cut_off: bool,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum DrainPhase {
    Serving,
    /// Not ready, still serving whoever comes: endpoints are propagating.
    Propagating,
    /// New requests are refused; those in flight finish.
    Finishing,
    /// Nothing in flight, or out of time.
    Done,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DoubtView {
    pub since: Time,
    /// For a person.
    pub reason: String,
}

/// Something changed, kept for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    pub at: Time,
    pub what: Changed,
    /// The state's own words ("up", "fail", "propagating").
    pub from: &'static str,
    pub to: &'static str,
    /// Why. No secrets.
    pub reason: String,
}

/// What a transition is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Changed {
    Gate(Gate),
    /// By name: a reload may have renumbered the checks since.
    Check(String),
    Instance(u64),
    /// How far real requests trust an upstream address, by its name.
    Upstream(String),
    Drain,
    Doubt,
    /// Ready taken or given back by hand.
    Hand,
}

impl Changed {
    /// What sort of thing it is, in recordings, reports and the log.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Gate(_) => "gate",
            Self::Check(_) => "check",
            Self::Instance(_) => "instance",
            Self::Upstream(_) => "upstream",
            Self::Drain => "drain",
            Self::Doubt => "doubt",
            Self::Hand => "hand",
        }
    }

    /// Which one of its kind; empty where there is only one.
    pub fn name(&self) -> String {
        match self {
            Self::Gate(gate) => gate.as_str().to_owned(),
            Self::Check(name) | Self::Upstream(name) => name.clone(),
            Self::Instance(number) => number.to_string(),
            Self::Drain | Self::Doubt | Self::Hand => String::new(),
        }
    }
}

impl Gate {
    pub const ALL: [Self; 3] = [Self::Startup, Self::Ready, Self::Health];

    /// The metric label, and the path without its slash.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Ready => "ready",
            Self::Health => "health",
        }
    }

    /// What kube-apiserver calls it in its verbose page.
    pub const fn kube_name(self) -> &'static str {
        match self {
            Self::Startup => "startupz",
            Self::Ready => "readyz",
            Self::Health => "livez",
        }
    }
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// The value of `probegate_gate_status`.
    pub const fn gauge(self) -> f64 {
        match self {
            Self::Pass => 1.0,
            Self::Warn => 0.5,
            Self::Fail => 0.0,
        }
    }

    /// Warn still passes.
    pub const fn passes(self) -> bool {
        !matches!(self, Self::Fail)
    }
}

impl CheckState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Up => "up",
            Self::Down => "down",
            Self::Stale => "stale",
            Self::Skipped => "skipped",
        }
    }
}

impl Forced {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl BackendState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Probation => "probation",
            Self::Ejected => "ejected",
        }
    }
}

impl InstancePhase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Started => "started",
            Self::Gone => "gone",
        }
    }
}

impl DrainPhase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Propagating => "propagating",
            Self::Finishing => "finishing",
            Self::Done => "done",
        }
    }
}

impl Snapshot {
    pub const fn gate(&self, gate: Gate) -> &GateView {
        match gate {
            Gate::Startup => &self.startup,
            Gate::Ready => &self.ready,
            Gate::Health => &self.health,
        }
    }

    pub fn check(&self, id: CheckId) -> &CheckView {
        &self.checks[id.index()]
    }

    pub fn check_named(&self, name: &str) -> Option<&CheckView> {
        self.checks.iter().map(|check| &**check).find(|check| check.name == name)
    }
}
