//! The three gates: from counts of members to pass, warn or fail, with the lives that stand above them.

use super::snapshot::{Changed, DrainPhase, Gate, InstancePhase, Status};
use super::time::{Time, earliest};
use super::{Engine, GateState, check_id};

impl Engine {
    /// After traffic that has moved no check: most samples are such, and they are told some times a second.
    pub(super) fn judge_unless_settled(&mut self) {
        if !self.is_settled() {
            self.judge();
        } else if cfg!(debug_assertions) {
            let shown = |engine: &Self| (engine.revision, engine.outputs.len(), engine.poll_timeout());
            let before = shown(self);
            self.judge();
            assert_eq!(before, shown(self), "a judgement that stood has moved");
        }
    }

    /// Whether judging anew would find what the last judgement found. All that it looks at besides time moves the
    /// revision, except for doubt and for what real requests say of single addresses: with either it is never so.
    fn is_settled(&self) -> bool {
        let stands = self.settled.is_some_and(|(revision, until)| revision == self.revision && self.now < until);
        stands && self.doubt.wake().is_none() && !self.wants_ends()
    }

    /// Moves the lives that stand above checks, decides the gates, and plans the next look.
    pub(super) fn judge(&mut self) {
        let before = self.revision;
        self.step_doubt();
        self.step_upstreams();
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
            self.forget_down(None);
            self.rearm_withdrawals();
        }
        self.turn(Gate::Startup, self.startup_status());
        self.turn(Gate::Ready, self.ready_status());
        let health = self.health_status();
        self.turn(Gate::Health, health);
        self.name_model();
        let wake = self.wake();
        self.schedule.set(check_id(self.checks.len()).0, wake);
        // What has just moved may move more.
        let stands = before == self.revision;
        self.settled = stands.then(|| (before, wake.unwrap_or(Time::from_nanos(u64::MAX))));
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
            || self.startup_status() == Status::Fail
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
            self.watch_ports();
        }
        Status::Fail
    }

    /// Whether a restart is called for, budget and doubt aside.
    pub(super) fn would_condemn(&self) -> bool {
        match self.instance.phase() {
            InstancePhase::Starting => self.is_overdue(),
            InstancePhase::Gone => self.is_overdue() || self.graph.health_down(),
            InstancePhase::Started => self.graph.health_down(),
        }
    }

    /// The model server is gone, and a new one has its startup budget. Without a startup gate there is no budget,
    /// and nobody is waited for.
    pub(super) fn awaits_server(&self) -> bool {
        !self.plan.startup.require.is_empty() && self.instance.phase() == InstancePhase::Gone
    }

    pub(super) fn is_overdue(&self) -> bool {
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
        let upstreams = self.upstreams_wake();
        let freed = freed.filter(|&at| at > self.now);
        earliest([budget, freed, self.doubt.wake(), self.drain.wake(self.plan.drain), upstreams])
    }
}
