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

mod evidence;
mod plan;
mod snapshot;
mod time;

use std::sync::Arc;
use std::time::Duration;

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
pub struct Engine {}

impl Engine {
    /// An engine whose checks are all pending and start within their jitter. `seed` decides the jitter.
    pub fn new(_now: Time, _plan: Arc<Plan>, _seed: u64) -> Self {
        todo!()
    }

    /// Takes one input. Time that has passed is handled first.
    pub fn handle_input(&mut self, _now: Time, _input: Input) {
        todo!()
    }

    /// Handles whatever is due at `now`.
    pub fn handle_timeout(&mut self, _now: Time) {
        todo!()
    }

    /// The next thing to do. The answer changes only by `handle_*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        todo!()
    }

    /// When to call [`Engine::handle_timeout`] next; `None` if nothing will ever happen by itself.
    pub fn poll_timeout(&self) -> Option<Time> {
        todo!()
    }

    /// Changes whenever a new snapshot would differ from the last.
    pub fn revision(&self) -> u64 {
        todo!()
    }

    /// The judgement now, with reasons. Costs as much as the plan is long.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }

    /// The plan it judges by.
    pub fn plan(&self) -> &Arc<Plan> {
        todo!()
    }
}
