//! The model server as one life after another: which one this is, and whether it has started.
//!
//! No verdict outlives the process it was about. A new one is seen by any of: a refused address that
//! answers again, another pid or start time, a counter that went backwards (kubelet-semantics §8, caveat 4).

use std::time::Duration;

use super::snapshot::{InstancePhase, InstanceView};
use super::time::Time;

#[derive(Debug)]
pub(super) struct Instance {
    number: u64,
    phase: InstancePhase,
    since: Time,
    /// While it is starting or gone.
    budget_until: Option<Time>,
    started_at: Option<Time>,
}

/// What an upstream address has shown of itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Presence {
    /// Nobody has answered there yet: loading, for most servers.
    #[default]
    Unseen,
    /// Somebody has.
    Seen,
    /// Somebody had, and now nobody listens.
    Gone,
}

impl Instance {
    pub(super) fn new(now: Time, budget: Duration) -> Self {
        Self {
            number: 1,
            phase: InstancePhase::Starting,
            since: now,
            budget_until: Some(now + budget),
            started_at: None,
        }
    }

    /// Another one has appeared.
    pub(super) fn begin(&mut self, now: Time, budget: Duration) {
        *self = Self { number: self.number + 1, ..Self::new(now, budget) };
    }

    pub(super) fn started(&mut self, now: Time) {
        self.phase = InstancePhase::Started;
        self.since = now;
        self.budget_until = None;
        self.started_at = Some(now);
    }

    /// Nobody listens any more. One that was still starting keeps the budget it had.
    pub(super) fn gone(&mut self, now: Time, budget: Duration) {
        self.phase = InstancePhase::Gone;
        self.since = now;
        self.budget_until.get_or_insert(now + budget);
    }

    pub(super) const fn phase(&self) -> InstancePhase {
        self.phase
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn since(&self) -> Time {
        self.since
    }

    pub(super) const fn started_at(&self) -> Option<Time> {
        self.started_at
    }

    pub(super) const fn budget_until(&self) -> Option<Time> {
        self.budget_until
    }

    /// It has had its time and has not started.
    pub(super) fn is_overdue(&self, now: Time) -> bool {
        self.budget_until.is_some_and(|until| until <= now)
    }

    pub(super) const fn view(&self) -> InstanceView {
        InstanceView { number: self.number, phase: self.phase, since: self.since, budget_until: self.budget_until }
    }
}
