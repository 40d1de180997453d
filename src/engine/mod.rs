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

mod budget;
mod check;
mod doubt;
mod drain;
mod evidence;
mod graph;
mod history;
mod instance;
mod plan;
mod schedule;
mod snapshot;
mod time;
mod trace;
mod view;

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
use schedule::{Jitter, Schedule};

pub use evidence::{Fault, Outcome, Sign, Verdict};
pub use plan::{
    BackendId, BackendPlan, CheckId, CheckPlan, DrainPlan, FailureRule, GroupId, GroupPlan, HealthPlan, Member,
    OnStale, OnTimeout, Plan, ReadyPlan, RestartBudget, Scope, StartupPlan, Subject,
};
pub use snapshot::{
    BackendView, Cause, Changed, CheckState, CheckView, DoubtView, DrainPhase, DrainView, Evidence, Forced, ForcedView,
    Gate, GateMember, GateView, GroupView, InstancePhase, InstanceView, Level, Next, Snapshot, Status, Transition, Why,
};
pub use time::Time;
pub use trace::{Event, Trace, TraceError};

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
    instance: Instance,
    doubt: Doubt,
    ledger: Ledger,
    /// `/health` stands condemned, counted once for as long as that lasts.
    condemned: bool,
    drain: Drain,
    disabled_since: Option<Time>,
    /// By `Gate`.
    gates: [GateState; 3],
    history: History,
    outputs: VecDeque<Output>,
    last_attempt: u64,
    revision: u64,
    /// Each check as last shown; none once it has changed.
    views: Vec<Option<Arc<CheckView>>>,
    /// The check that moved last: the first to ask why a gate turned.
    moved: Option<CheckId>,
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
            instance: Instance::new(now, plan.startup.budget),
            doubt: Doubt::default(),
            ledger: Ledger::default(),
            condemned: false,
            drain: Drain::new(),
            disabled_since: None,
            gates: [fail, fail, GateState { status: Status::Pass, since: now }],
            history: History::default(),
            outputs: VecDeque::new(),
            last_attempt: 0,
            revision: 1,
            views: vec![None; plan.checks.len()],
            moved: None,
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
        if let Some(due) = self.schedule.next() {
            self.doubt.woke(self.now, due);
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
            let reason = format!("no result by the deadline of {:?}", plan.timeout);
            let outcome = Outcome::fail(Fault::Timeout, reason, self.now.since(started));
            self.count(id, attempt, &outcome);
        }
        self.begin_due(id);
        self.refresh(id, why);
    }

    fn begin_due(&mut self, id: CheckId) {
        let attempt = Attempt(self.last_attempt + 1);
        let check = &mut self.checks[id.index()];
        if let Some(deadline) = check.begin_due(self.now, attempt, &self.plan.checks[id.index()]) {
            self.last_attempt += 1;
            self.outputs.push_back(Output::Start { check: id, attempt, deadline });
        }
    }

    fn plan_first_attempt(&mut self, id: CheckId) {
        let plan = &self.plan.checks[id.index()];
        let spread = self.jitter.share(plan.pending_interval, plan.jitter_permille);
        self.checks[id.index()].plan_attempt(self.now + plan.initial_delay + spread);
    }

    // Evidence.

    fn take_result(&mut self, id: CheckId, attempt: Attempt, outcome: &Outcome) {
        let is_current = self.checks.get(id.index()).is_some_and(|check| check.is_in_flight(attempt));
        if !is_current {
            return;
        }
        if let Some(presence) = presence_of(outcome) {
            self.take_sign(id, presence);
        }
        if let Some(sign) = outcome.sign {
            self.take_sign(id, sign);
        }
        self.count(id, attempt, outcome);
        self.refresh(id, "");
    }

    /// Ends the attempt, counts what it says, plans the next.
    fn count(&mut self, id: CheckId, attempt: Attempt, outcome: &Outcome) {
        let plan = &self.plan.checks[id.index()];
        let check = &mut self.checks[id.index()];
        let Some(started) = check.end(attempt) else { return };
        let remote = plan.subject == Subject::Remote;
        if remote {
            let failing = Some(doubt::is_network_failure(outcome.verdict));
            self.doubt.remote_changed(check.network_failing, failing);
            check.network_failing = failing;
            self.step_doubt();
        }
        let timeout = outcome.verdict == Verdict::Fail(Fault::Timeout);
        let doubted = remote && self.doubt.since().is_some() || timeout && self.doubt.is_starved();
        let plan = &self.plan.checks[id.index()];
        let check = &mut self.checks[id.index()];
        check.take(self.now, outcome, doubted, plan);
        let wait = self.jitter.stretch(check.interval(plan), plan.jitter_permille);
        check.plan_attempt((started + wait).max(self.now));
    }

    fn take_sign(&mut self, id: CheckId, sign: Sign) {
        let subject = self.plan.checks[id.index()].subject;
        match (subject, sign) {
            (Subject::Backend(backend), Sign::Answered | Sign::Refused) => {
                self.take_backend_sign(backend, sign, Some(id));
            }
            (_, Sign::Answered | Sign::Refused) | (Subject::Local | Subject::Remote, _) => {}
            (Subject::Backend(_) | Subject::Server, Sign::CounterReset) => {
                // The first reading after a restart is always lower; only a second life seen by this very
                // check is news.
                if self.checks[id.index()].has_evidence() {
                    self.new_instance("a counter went backwards", Some(id));
                }
            }
            (Subject::Backend(_) | Subject::Server, Sign::Process { .. } | Sign::StartedAt { .. }) => {
                let known = self.checks[id.index()].identity.replace(sign);
                if known.is_some_and(|known| known != sign) {
                    let what = if matches!(sign, Sign::Process { .. }) { "its process" } else { "its start time" };
                    self.new_instance(&format!("{what} is another"), Some(id));
                    self.checks[id.index()].identity = Some(sign);
                }
            }
        }
    }

    fn take_backend_sign(&mut self, backend: BackendId, sign: Sign, from: Option<CheckId>) {
        let Some(&presence) = self.presence.get(backend.index()) else { return };
        match (presence, sign) {
            (Presence::Unseen, Sign::Answered) => self.presence[backend.index()] = Presence::Seen,
            (Presence::Seen, Sign::Refused) => {
                self.presence[backend.index()] = Presence::Gone;
                if !self.presence.contains(&Presence::Seen) {
                    self.instance_gone();
                }
            }
            (Presence::Gone, Sign::Answered) => {
                self.presence[backend.index()] = Presence::Seen;
                if self.instance.phase() == InstancePhase::Gone {
                    self.new_instance("it was gone and answers again", from);
                } else {
                    self.forget(from, |subject| subject == Subject::Backend(backend));
                }
            }
            _ => {}
        }
    }

    fn instance_gone(&mut self) {
        let from = self.instance.phase();
        self.instance.gone(self.now, self.plan.startup.budget);
        self.tell(Changed::Instance(self.instance.number()), from.as_str(), "gone", "nobody listens any more");
    }

    /// Another model server: whatever was known of the last one is forgotten, except for the check whose
    /// result is the first about the new one (`from`): its attempt goes on to count.
    fn new_instance(&mut self, why: &str, from: Option<CheckId>) {
        let before = self.instance.phase();
        self.instance.begin(self.now, self.plan.startup.budget);
        self.tell(Changed::Instance(self.instance.number()), before.as_str(), "starting", why);
        self.forget(from, check::is_about_server);
        self.graph.relatch(&self.plan);
    }

    fn forget(&mut self, from: Option<CheckId>, about: impl Fn(Subject) -> bool) {
        for index in 0..self.checks.len() {
            if !about(self.plan.checks[index].subject) {
                continue;
            }
            let id = check_id(index);
            self.checks[index].forget();
            if from != Some(id) {
                self.abort(id);
                self.checks[index].cancel_planned();
                self.plan_first_attempt(id);
            }
            self.refresh(id, "a new model server has appeared");
        }
    }

    fn abort(&mut self, id: CheckId) {
        if let Some(attempt) = self.checks[id.index()].abort() {
            self.outputs.push_back(Output::Cancel { check: id, attempt });
        }
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

    fn reload(&mut self, plan: Arc<Plan>) {
        debug_assert_eq!(plan.validate(), Ok(()));
        for index in 0..self.checks.len() {
            self.abort(check_id(index));
        }
        let same = |a: &CheckPlan, b: &CheckPlan| a.name == b.name && a.kind == b.kind && a.target == b.target;
        let old_plan = std::mem::replace(&mut self.plan, plan);
        let mut old: std::collections::HashMap<&str, (usize, Check)> = old_plan
            .checks
            .iter()
            .map(|plan| plan.name.as_str())
            .zip(std::mem::take(&mut self.checks).into_iter().enumerate())
            .collect();
        let plan = Arc::clone(&self.plan);
        self.checks = plan
            .checks
            .iter()
            .map(|check| match old.remove(check.name.as_str()) {
                Some((index, life)) if same(&old_plan.checks[index], check) => life,
                _ => Check::new(self.now),
            })
            .collect();
        self.presence = plan
            .backends
            .iter()
            .map(|new| {
                let known = old_plan.backends.iter().position(|old| old.address == new.address);
                known.map_or(Presence::Unseen, |index| self.presence[index])
            })
            .collect();
        self.restart_bookkeeping(&old_plan);
    }

    /// Rebuilds what is derived from plan and checks; the startup latches carry over by name.
    fn restart_bookkeeping(&mut self, old_plan: &Plan) {
        let latched: Vec<&str> = old_plan
            .startup
            .require
            .iter()
            .enumerate()
            .filter(|&(index, _)| self.graph.is_latched(index))
            .map(|(_, &member)| old_plan.member_name(member))
            .collect();
        let plan = Arc::clone(&self.plan);
        self.graph = Graph::new(&plan);
        self.graph.latch_by_name(|member| latched.contains(&plan.member_name(member)), &plan);
        self.schedule = Schedule::new(self.checks.len() + 1);
        self.views = vec![None; self.checks.len()];
        self.moved = None;
        self.doubt.forget_remote();
        for index in 0..self.checks.len() {
            let id = check_id(index);
            let check = &mut self.checks[index];
            check.parents_down = 0;
            check.network_failing =
                if plan.checks[index].subject == Subject::Remote { check.network_failing } else { None };
            self.doubt.remote_changed(None, check.network_failing);
            let soonest = self.now + plan.checks[index].interval;
            match check.next_attempt() {
                Some(at) => check.plan_attempt(at.min(soonest)),
                None => self.plan_first_attempt(id),
            }
        }
        for index in 0..self.checks.len() {
            self.refresh(check_id(index), "the configuration has changed");
        }
        self.revision += 1;
    }

    // Consequences.

    /// Carries a check's change on: its state as shown, the graph, its children, its wake-up.
    fn refresh(&mut self, id: CheckId, why: &str) {
        let mut changed = vec![(id, 0)];
        while let Some((id, parents)) = changed.pop() {
            if parents != 0 {
                self.parents_changed(id, parents);
            }
            let plan = Arc::clone(&self.plan);
            let plan = &plan.checks[id.index()];
            self.show(id, plan, if parents == 0 { why } else { "" });
            let check = &self.checks[id.index()];
            let levels = Levels { strict: check.strict(), lenient: check.lenient(plan) };
            self.graph.set(id, levels, &mut changed);
            let waived = check.is_waived(plan);
            self.graph.set_waived(id, waived);
            let wake = check.wake(plan, self.instance.started_at());
            self.schedule.set(id.0, wake);
            self.views[id.index()] = None;
            self.revision += 1;
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
        check.shown = to;
        check.since = self.now;
        let evidence = check.reason(plan);
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
        let check = &mut self.checks[id.index()];
        let was_skipped = check.is_skipped();
        check.parents_down = check.parents_down.saturating_add_signed(difference);
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

    /// Moves the lives that stand above checks, decides the gates, and plans the next look.
    fn judge(&mut self) {
        self.step_doubt();
        while let Some((from, to)) = self.drain.step(self.now, self.plan.drain) {
            let why = match to {
                DrainPhase::Finishing => "endpoints have had their time to propagate; new requests are refused",
                DrainPhase::Done if self.drain.view(self.plan.drain).cut_off => {
                    "out of time: requests in flight are cut off"
                }
                DrainPhase::Serving | DrainPhase::Propagating | DrainPhase::Done => "nothing is in flight",
            };
            self.tell(Changed::Drain, from.as_str(), to.as_str(), why);
        }
        if self.instance.phase() == InstancePhase::Starting && self.graph.all_latched() {
            self.instance.started(self.now);
            let why = "every required check has been up";
            self.tell(Changed::Instance(self.instance.number()), "starting", "started", why);
            self.rearm_withdrawals();
        }
        self.turn(Gate::Startup, self.startup_status());
        self.turn(Gate::Ready, self.ready_status());
        let health = self.health_status();
        self.turn(Gate::Health, health);
        self.schedule.set(check_id(self.checks.len()).0, self.wake());
    }

    /// `max_withdrawal` counts only from a finished start on.
    fn rearm_withdrawals(&mut self) {
        for (index, plan) in self.plan.checks.iter().enumerate() {
            if plan.max_withdrawal.is_some() {
                let wake = self.checks[index].wake(plan, self.instance.started_at());
                self.schedule.set(check_id(index).0, wake);
            }
        }
    }

    fn startup_status(&self) -> Status {
        let waits = !self.plan.startup.require.is_empty() && self.instance.phase() != InstancePhase::Started;
        if waits { Status::Fail } else { Status::Pass }
    }

    fn ready_status(&self) -> Status {
        if self.drain.is_draining()
            || self.disabled_since.is_some()
            || self.instance.phase() == InstancePhase::Starting
            || self.graph.ready_missing()
        {
            Status::Fail
        } else if self.graph.ready_degraded() || self.graph.ready_waived() {
            Status::Warn
        } else {
            Status::Pass
        }
    }

    fn health_status(&mut self) -> Status {
        if !self.would_condemn() {
            self.condemned = false;
            return Status::Pass;
        }
        if self.doubt.since().is_some() {
            return Status::Warn;
        }
        if !self.condemned {
            if !self.ledger.allows(self.now, self.plan.health.restart_budget) {
                return Status::Warn;
            }
            self.ledger.record(self.now);
            self.condemned = true;
        }
        Status::Fail
    }

    /// Whether a restart is called for, budget and doubt aside.
    fn would_condemn(&self) -> bool {
        match self.instance.phase() {
            InstancePhase::Starting => self.is_overdue(),
            InstancePhase::Gone => self.is_overdue() || self.graph.health_down(),
            InstancePhase::Started => self.graph.health_down(),
        }
    }

    fn is_overdue(&self) -> bool {
        !self.plan.startup.require.is_empty() && self.instance.is_overdue(self.now)
    }

    fn turn(&mut self, gate: Gate, to: Status) {
        let state = &mut self.gates[gate as usize];
        let from = state.status;
        if from == to {
            return;
        }
        *state = GateState { status: to, since: self.now };
        let reason = self.headline(gate);
        self.tell(Changed::Gate(gate), from.as_str(), to.as_str(), &reason);
    }

    /// When something above the checks may change by time alone.
    fn wake(&self) -> Option<Time> {
        let budget = self.instance.budget_until().filter(|&until| until > self.now);
        let held_back = self.would_condemn() && !self.condemned;
        let freed = if held_back { self.ledger.frees_at(self.plan.health.restart_budget) } else { None };
        [budget, freed.filter(|&at| at > self.now), self.doubt.wake(), self.drain.wake(self.plan.drain)]
            .into_iter()
            .flatten()
            .min()
    }

    fn tell(&mut self, what: Changed, from: &'static str, to: &'static str, reason: &str) {
        let transition = Transition { at: self.now, what, from, to, reason: reason.to_owned() };
        self.history.push(transition.clone());
        self.outputs.push_back(Output::Transition(transition));
        self.revision += 1;
    }
}

/// What an outcome says about whether somebody is there, whoever it is about.
const fn presence_of(outcome: &Outcome) -> Option<Sign> {
    match outcome.verdict {
        Verdict::Pass | Verdict::Fail(Fault::Answer) => Some(Sign::Answered),
        Verdict::Fail(Fault::Refused) => Some(Sign::Refused),
        Verdict::Fail(Fault::Local | Fault::Timeout | Fault::Unreachable) | Verdict::Unknown => None,
    }
}

fn check_id(index: usize) -> CheckId {
    CheckId(u32::try_from(index).unwrap_or(u32::MAX))
}
