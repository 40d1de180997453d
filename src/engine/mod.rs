//! The judge: evidence in, judgement out, nothing else.
//!
//! The engine is sans-IO. It owns every rule by which a check becomes up or down and a gate passes or
//! fails; it refuses to know what HTTP is, what time it is, or who asks. No clock, no randomness but a
//! seed, no logging, `std` only: the same inputs give the same outputs, byte for byte, in a pod, in the
//! lab and in a replay.
//!
//! # The driving contract
//!
//! Every entry point takes `now`, which never goes back (an earlier one counts as the latest seen).
//! 1. After [`Engine::new`], and after each [`Engine::handle_input`] or [`Engine::handle_timeout`],
//!    call [`Engine::poll_output`] until it returns `None` and carry out what it says.
//! 2. Then ask [`Engine::poll_timeout`] and call [`Engine::handle_timeout`] at that time, or earlier, or
//!    again: spurious calls do nothing.
//! 3. [`Engine::snapshot`] may be taken at any time; [`Engine::revision`] tells whether it is worth it.
//!
//! Results carry the attempt they belong to. A result that is late, a second one, one of a cancelled
//! attempt, one of a check that does not exist: each is a no-op.

mod accuracy;
mod backlog;
mod budget;
mod check;
mod doubt;
mod drain;
mod ends;
mod evidence;
mod flow;
mod gate;
mod graph;
mod history;
mod imprint;
mod instance;
mod intake;
mod lateness;
mod model;
mod origins;
mod outcomes;
mod passage;
mod passive;
mod plan;
mod processes;
mod reload;
mod saturation;
mod schedule;
mod snapshot;
mod stall;
mod time;
mod trace;
mod traffic;
mod upstreams;
mod view;
mod window;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use budget::Ledger;
use check::Check;
use doubt::Doubt;
use drain::Drain;
use graph::{Graph, Levels};
use history::History;
use instance::{Instance, Presence};
use passive::Passive;
use schedule::{Jitter, Schedule};
use traffic::Flow;

use crate::limits::{FIRST_ATTEMPTS, FIRST_ATTEMPTS_EVERY};

pub use ends::{Ends, Failure};
pub use evidence::{Fault, Outcome, Sign, Verdict};
pub use imprint::Imprint;
pub use model::{ModelState, ModelView};
pub use origins::Origins;
pub use passage::Passage;
pub use passive::Ejections;
pub use plan::{
    Abandoned, AccuracyPlan, BackendId, BackendPlan, CheckId, CheckPlan, CounterPlan, DrainPlan, FailureRule, GroupId,
    GroupPlan, HealthPlan, Member, OnStale, OnTimeout, OutcomesPlan, PassivePlan, Plan, ProgressPlan, ReadyPlan,
    RestartBudget, Scope, StartupPlan, Subject, TrafficRule,
};
pub use saturation::{GaugePlan, SaturationPlan};
pub use snapshot::{
    BackendState, BackendView, Cause, Changed, CheckState, CheckView, DoubtView, DrainPhase, DrainView, Evidence,
    Forced, ForcedView, Gate, GateMember, GateView, GroupView, InstancePhase, InstanceView, Level, Next, Snapshot,
    Status, Transition, Why,
};
pub use time::Time;
pub use trace::{Event, Told, Trace, TraceError};
pub use traffic::{Answers, Reading, Threads, Traffic};

/// Identifies one attempt of one check. Never reused within a check's life, reloads included.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Attempt(pub u64);

/// Everything that can happen to the engine besides time.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// An attempt ended.
    Result { check: CheckId, attempt: Attempt, outcome: Outcome },
    /// Somebody else saw a sign of the model server (the proxy's connect was refused).
    Sign { backend: BackendId, sign: Sign },
    /// Evidence is waiting to be picked up (a pushed heartbeat): start an attempt now unless one is in flight.
    RunNow { check: CheckId },
    /// Force a check's state for `ttl`; `None` ends it.
    Override { check: CheckId, forced: Option<Forced>, ttl: Duration },
    /// Take the pod out of rotation by hand, or give the say back to the checks.
    SetReady { enabled: bool },
    /// Begin the drain. There is no way back; a second one does nothing.
    Drain,
    /// Requests in flight in the traffic plane, as it counts them; told at least once a second while draining.
    InFlight { requests: u64 },
    /// What the traffic plane has counted; told a few times a second where a check is judged by it.
    Traffic(Traffic),
    /// How requests to each upstream address ended, in the order of the plan's backends; told a few times a
    /// second where [`Engine::wants_ends`].
    Ends(Vec<Ends>),
    /// How requests ended by their origin; told before the traffic where [`Engine::wants_origins`], and not
    /// again while nothing in it has changed.
    Origins(Box<Origins>),
    /// The process is (or is no longer) being kept from its CPU by its cgroup.
    Throttled { on: bool },
    /// A new plan. Checks of the same name and kind keep their state and history.
    Reload { plan: Arc<Plan> },
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Start an attempt. Report its outcome by `deadline`, as a timeout at the latest.
    Start { check: CheckId, attempt: Attempt, deadline: Time },
    /// Abort an attempt: close its socket, kill its process group. Its result no longer counts.
    Cancel { check: CheckId, attempt: Attempt },
    /// Tell people. One log line each.
    Transition(Transition),
}

/// The judge of one model server. See the module for the driving contract.
#[derive(Debug)]
pub struct Engine {
    plan: Arc<Plan>,
    now: Time,
    jitter: Jitter,
    schedule: Schedule,
    checks: Vec<Check>,
    graph: Graph,
    /// By `BackendId`.
    presence: Vec<Presence>,
    /// What real requests say of each address.
    passive: Passive,
    instance: Instance,
    doubt: Doubt,
    ledger: Ledger,
    flow: Flow,
    origins: Option<Box<Origins>>,
    /// The checks that are judged by the traffic.
    ruled: Vec<CheckId>,
    /// Those whose timeouts are no news while it moves.
    patient: Vec<CheckId>,
    /// `/health` stands condemned, counted once for as long as that lasts.
    condemned: bool,
    drain: Drain,
    disabled_since: Option<Time>,
    /// By `Gate`.
    gates: [GateState; 3],
    model: (ModelState, Time),
    saturation: model::Saturation,
    history: History,
    outputs: VecDeque<Output>,
    last_attempt: u64,
    revision: u64,
    /// Each check as last shown; none once it has changed.
    views: Vec<Option<Arc<CheckView>>>,
    /// The check that moved last: the first to ask why a gate turned.
    moved: Option<CheckId>,
    /// The judgement stands: as of this revision, until then.
    settled: Option<(u64, Time)>,
}

#[derive(Clone, Copy, Debug)]
struct GateState {
    status: Status,
    since: Time,
}

impl Engine {
    /// An engine whose checks are all pending and start within their jitter. `seed` decides the jitter.
    pub fn new(now: Time, plan: Arc<Plan>, seed: u64) -> Self {
        debug_assert_eq!(plan.validate(), Ok(()));
        let fail = GateState { status: Status::Fail, since: now };
        let mut engine = Self {
            now,
            jitter: Jitter::new(seed),
            schedule: Schedule::new(plan.checks.len() + 1),
            checks: plan.checks.iter().map(|_| Check::new(now)).collect(),
            graph: Graph::new(&plan),
            presence: vec![Presence::default(); plan.backends.len()],
            passive: Passive::new(now, plan.backends.len()),
            instance: Instance::new(now, plan.startup.budget),
            doubt: Doubt::default(),
            ledger: Ledger::default(),
            flow: Flow::new(&plan),
            origins: None,
            ruled: flow::ruled(&plan),
            patient: lateness::patient(&plan),
            condemned: false,
            drain: Drain::new(),
            disabled_since: None,
            gates: [fail, fail, GateState { status: Status::Pass, since: now }],
            model: (ModelState::Loading, now),
            saturation: model::Saturation::default(),
            history: History::default(),
            outputs: VecDeque::new(),
            last_attempt: 0,
            revision: 1,
            views: vec![None; plan.checks.len()],
            moved: None,
            settled: None,
            plan,
        };
        for index in 0..engine.checks.len() {
            let id = check_id(index);
            engine.plan_first_attempt(id);
            engine.refresh(id, "");
        }
        engine.judge();
        engine
    }

    /// Takes one input. Time that has passed is handled first.
    pub fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        match input {
            Input::Result { check, attempt, outcome } => self.take_result(check, attempt, &outcome),
            Input::Sign { backend, sign } => self.take_backend_sign(backend, sign, None),
            Input::RunNow { check } => self.run_now(check),
            Input::Override { check, forced, ttl } => self.force(check, forced, ttl),
            Input::SetReady { enabled } => self.set_ready(enabled),
            Input::Drain => self.begin_drain(),
            Input::InFlight { requests } => {
                self.drain.told_in_flight(self.now, requests);
                self.revision += u64::from(self.drain.is_draining());
            }
            Input::Traffic(sample) => {
                self.take_traffic(sample);
                return self.judge_unless_settled();
            }
            Input::Ends(samples) => self.take_ends(&samples),
            Input::Origins(sample) => self.origins = Some(sample),
            Input::Throttled { on } => self.doubt.throttled(on),
            Input::Reload { plan } => self.reload(plan),
        }
        self.judge();
    }

    /// Handles whatever is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
        self.judge();
    }

    /// The next thing to do. The answer changes only by `handle_*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Engine::handle_timeout`] next; `None` if nothing will ever happen by itself.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.schedule.next()
    }

    /// Changes whenever a new snapshot would differ from the last.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The plan it judges by.
    pub const fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    // Time.

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        if let Some(due) = self.schedule.next()
            && self.doubt.woke(self.now, due)
        {
            // Nobody looked meanwhile: what was known has not grown old by that.
            self.checks.iter_mut().for_each(|check| check.outlived(self.now));
        }
        self.step_doubt();
        while let Some(slot) = self.schedule.pop_due(self.now) {
            let index = slot as usize;
            if index < self.checks.len() {
                self.check_is_due(check_id(index));
            }
        }
    }

    fn check_is_due(&mut self, id: CheckId) {
        let (check, plan) = (&mut self.checks[id.index()], &self.plan.checks[id.index()]);
        let mut why = "";
        if check.forced.is_some_and(|forced| forced.until <= self.now) {
            check.forced = None;
            why = "the override has ended";
        }
        if !check.is_skipped() {
            check.expire(self.now, plan);
        }
        if check.withdrawal_ends(plan, self.instance.started_at()).is_some_and(|at| at <= self.now) {
            check.waived = true;
            self.moved = Some(id);
        }
        if let Some((attempt, started)) = check.overdue(self.now) {
            self.outputs.push_back(Output::Cancel { check: id, attempt });
            let reason = format!("no result by the deadline of {}", time::plain(plan.timeout));
            let outcome = Outcome::fail(Fault::Timeout, reason, self.now.since(started));
            self.count(id, attempt, &outcome);
        }
        self.begin_due(id);
        self.refresh(id, why);
    }

    fn begin_due(&mut self, id: CheckId) {
        if !self.postpone(id) {
            self.begin(id);
        }
    }

    /// Begins what is due. Whether anything was.
    fn begin(&mut self, id: CheckId) -> bool {
        let attempt = Attempt(self.last_attempt + 1);
        let check = &mut self.checks[id.index()];
        if let Some(deadline) = check.begin_due(self.now, attempt, &self.plan.checks[id.index()]) {
            self.last_attempt += 1;
            self.outputs.push_back(Output::Start { check: id, attempt, deadline });
            return true;
        }
        false
    }

    fn plan_first_attempt(&mut self, id: CheckId) {
        let plan = &self.plan.checks[id.index()];
        let spread = self.jitter.share(plan.pending_interval, plan.jitter_permille);
        let turn = FIRST_ATTEMPTS_EVERY * (id.0 / FIRST_ATTEMPTS);
        self.checks[id.index()].plan_attempt(self.now + plan.initial_delay + turn + spread);
    }

    // Words from people.

    fn run_now(&mut self, id: CheckId) {
        if id.index() < self.checks.len() {
            self.checks[id.index()].plan_attempt(self.now);
            self.begin_due(id);
            self.refresh(id, "");
        }
    }

    fn force(&mut self, id: CheckId, forced: Option<Forced>, ttl: Duration) {
        let Some(check) = self.checks.get_mut(id.index()) else { return };
        check.forced = forced.filter(|_| !ttl.is_zero()).map(|forced| ForcedView { forced, until: self.now + ttl });
        let why = if check.forced.is_some() { "forced by hand" } else { "the override has ended" };
        self.refresh(id, why);
    }

    /// Whether its state is one that a person said.
    pub fn is_forced(&self, id: CheckId) -> bool {
        self.checks.get(id.index()).is_some_and(|check| check.forced.is_some())
    }

    fn set_ready(&mut self, enabled: bool) {
        match (enabled, self.disabled_since) {
            (false, None) => {
                self.disabled_since = Some(self.now);
                self.tell(Changed::Hand, "enabled", "disabled", "taken out of rotation by hand");
            }
            (true, Some(_)) => {
                self.disabled_since = None;
                self.tell(Changed::Hand, "disabled", "enabled", "given back to the checks");
            }
            _ => {}
        }
    }

    fn begin_drain(&mut self) {
        if !self.drain.is_draining() {
            self.drain.begin(self.now);
            self.tell(Changed::Drain, "serving", "propagating", "the drain has begun");
        }
    }

    // Consequences.

    /// Carries a check's change on: its state as shown, the graph, its children, its wake-up.
    fn refresh(&mut self, id: CheckId, why: &str) {
        let plan = Arc::clone(&self.plan);
        let mut changed = Vec::new();
        let mut next = Some((id, 0));
        while let Some((id, parents)) = next {
            if parents != 0 {
                self.parents_changed(id, parents);
            }
            let plan = &plan.checks[id.index()];
            self.show(id, plan, if parents == 0 { why } else { "" });
            let check = &self.checks[id.index()];
            let condemning = check.condemning(plan, self.awaits_server());
            let levels = Levels { strict: check.strict(), lenient: check.lenient(plan), condemning };
            self.graph.set(id, levels, &mut changed);
            let waived = check.is_waived(plan);
            self.graph.set_waived(id, waived);
            let wake = check.wake(plan, self.instance.started_at());
            self.schedule.set(id.0, wake);
            self.views[id.index()] = None;
            self.revision += 1;
            next = changed.pop();
        }
    }

    /// Notes the state as people see it, and tells them if it is another.
    fn show(&mut self, id: CheckId, plan: &CheckPlan, why: &str) {
        let check = &mut self.checks[id.index()];
        if check.strict() == Level::Up {
            check.not_up_since = None;
            check.waived = false;
        } else {
            check.not_up_since.get_or_insert(self.now);
        }
        let (from, to) = (check.shown, check.state());
        if from == to {
            return;
        }
        let before = self.now.since(check.since);
        check.shown = to;
        check.since = self.now;
        let evidence = if to == CheckState::Up && check.forced.is_none() && !check.is_failing() {
            came_up(from, before, plan)
        } else {
            check.reason(plan)
        };
        let reason = match (why.is_empty(), evidence.is_empty()) {
            (true, _) => evidence,
            (false, true) => why.to_owned(),
            (false, false) => format!("{why}; {evidence}"),
        };
        self.moved = Some(id);
        self.tell(Changed::Check(plan.name.clone()), from.as_str(), to.as_str(), &reason);
    }

    /// A child whose parent is down stops; when its parents are back it begins anew.
    fn parents_changed(&mut self, id: CheckId, difference: i32) {
        let parents = &self.plan.checks[id.index()].depends_on;
        let down = parents.iter().find(|&&parent| self.graph.level(parent).strict == Level::Down);
        let parent_down = down.map(|&parent| self.plan.member_name(parent).to_owned()).unwrap_or_default();
        let check = &mut self.checks[id.index()];
        let was_skipped = check.is_skipped();
        check.parents_down = check.parents_down.saturating_add_signed(difference);
        check.parent_down = parent_down;
        match (was_skipped, check.is_skipped()) {
            (false, true) => {
                check.cancel_planned();
                check.forget();
                self.abort(id);
            }
            (true, false) => check.plan_attempt(self.now),
            _ => {}
        }
    }

    fn step_doubt(&mut self) {
        let before = self.doubt.since();
        match self.doubt.step(self.now) {
            Some(true) => {
                let reason = self.doubt.reason().unwrap_or_default();
                self.tell(Changed::Doubt, "sure", "doubt", &reason);
            }
            Some(false) => self.tell(Changed::Doubt, "doubt", "sure", "the cause has gone"),
            None => debug_assert_eq!(before, self.doubt.since()),
        }
    }

    fn tell(&mut self, what: Changed, from: &'static str, to: &'static str, reason: &str) {
        let transition = Transition { at: self.now, what, from, to, reason: reason.to_owned() };
        self.history.push(transition.clone());
        self.outputs.push_back(Output::Transition(transition));
        self.revision += 1;
    }
}

/// Why a check is up now, which its state alone does not tell.
fn came_up(from: CheckState, before: Duration, plan: &CheckPlan) -> String {
    match (from, plan.success_threshold) {
        (CheckState::Pending, 1) => "the first pass".to_owned(),
        (CheckState::Pending, passes) => format!("{passes} passes in a row"),
        _ => format!("passes again, {} for {:.1} s", from.as_str(), before.as_secs_f64()),
    }
}

fn check_id(index: usize) -> CheckId {
    CheckId(u32::try_from(index).unwrap_or(u32::MAX))
}
