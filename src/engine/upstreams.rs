//! Each upstream address as the engine publishes it: what its own check says, and what real requests say.

use std::sync::Arc;

use super::Engine;
use super::ends::Ends;
use super::instance::Presence;
use super::passive::{Bearing, Door, Trust};
use super::plan::{BackendId, PassivePlan};
use super::snapshot::{BackendState, BackendView, Changed, Level, Next};
use crate::limits::STALL_AFTER;

impl Engine {
    /// Whether the ends of real requests are judged by address: with one there is no other to go to, and
    /// `outcomes` and the gates are what judges it.
    pub fn wants_ends(&self) -> bool {
        self.passive_plan().is_some()
    }

    pub(super) fn take_ends(&mut self, samples: &[Ends]) {
        let Some(plan) = self.passive_plan() else { return };
        let doors = self.doors();
        let bearing = self.bearing();
        self.passive.told(self.now, &plan, samples, &doors, &bearing);
        self.revision += u64::from(self.passive.take_remarked());
        self.tell_moves();
    }

    /// One address hangs by the rule that all of them do, and what excuses them excuses it.
    fn bearing(&self) -> Bearing {
        let (flow, rules) = (&self.flow, self.plan.checks.iter().filter_map(|check| check.progress()));
        let stall_after = rules.map(|rule| rule.stall_after).min().unwrap_or(STALL_AFTER);
        let is_blind = flow.blindness(self.now, self.doubt.is_starved()).is_some();
        Bearing {
            doubt: self.doubt.since().is_some() || is_blind,
            excused: self.now < flow.busy_until(),
            stall_after: stall_after.max(flow.latest().patience),
            moved: flow.life(),
        }
    }

    /// The address that hangs while another stands ready for the work: then the whole does not.
    pub(super) fn hangs_alone(&self) -> Option<&str> {
        self.passive_plan()?;
        let index = self.passive.hangs_alone(&self.doors(), &self.bearing())?;
        Some(&self.plan.backends[index].address)
    }

    pub(super) fn step_upstreams(&mut self) {
        let Some(plan) = self.passive_plan() else { return };
        let doors = self.doors();
        self.passive.step(self.now, &plan, &doors);
        self.tell_moves();
    }

    /// It was gone and answers again, beside others that stayed.
    pub(super) fn upstream_returned(&mut self, backend: BackendId) {
        if self.wants_ends() {
            self.passive.returned(self.now, backend);
        }
    }

    pub(super) fn upstreams_wake(&self) -> Option<super::Time> {
        self.passive.wake(self.now, &self.passive_plan()?)
    }

    fn tell_moves(&mut self) {
        for moved in self.passive.take_moves() {
            let address = self.plan.backends[moved.backend.index()].address.clone();
            self.tell(Changed::Upstream(address), moved.from, moved.to, &moved.reason);
        }
    }

    fn passive_plan(&self) -> Option<PassivePlan> {
        self.plan.passive.filter(|_| self.plan.backends.len() > 1)
    }

    fn doors(&self) -> Vec<Door> {
        (0..self.plan.backends.len()).map(|index| self.door(index)).collect()
    }

    /// An address is open while its check is up; and from the first answer that anybody had from it, for as long
    /// as its own check has no say: what makes `/ready` pass must not find the door shut.
    fn door(&self, index: usize) -> Door {
        match self.checks[self.plan.backends[index].check.index()].strict() {
            Level::Up => Door::Open,
            Level::Unknown if self.presence[index] == Presence::Seen => Door::Ajar,
            Level::Down | Level::Unknown => Door::Shut,
        }
    }

    pub(super) fn backend_view(&self, index: usize) -> BackendView {
        let plan = Arc::clone(&self.plan);
        let backend = &plan.backends[index];
        let check = &self.checks[backend.check.index()];
        let life = self.passive.life(index).filter(|_| self.wants_ends());
        let (trust, trust_since) = life.map_or((Trust::Full, check.since), |life| (life.trust, life.since));
        let (state, since) = match (self.door(index), trust) {
            (Door::Shut, _) => (BackendState::Down, check.since),
            (_, Trust::Full) => (BackendState::Up, check.since.max(trust_since)),
            (_, Trust::Probation { .. }) => (BackendState::Probation, trust_since),
            (_, Trust::Ejected { .. }) => (BackendState::Ejected, trust_since),
        };
        let reason = match state {
            BackendState::Down => check.reason(&plan.checks[backend.check.index()]),
            _ => life.map(|life| life.reason.clone()).unwrap_or_default(),
        };
        BackendView {
            address: backend.address.clone(),
            enabled: state == BackendState::Up,
            state,
            since,
            reason,
            next: self.next_of(state, trust, backend.check.index()),
            ejections: life.map(|life| life.ejections).unwrap_or_default(),
        }
    }

    fn next_of(&self, state: BackendState, trust: Trust, check: usize) -> Option<Next> {
        let next = |at, text: String| Some(Next { at, text });
        match (state, trust) {
            (BackendState::Ejected, Trust::Ejected { until }) => {
                next(Some(until), "then one request at a time may try it".to_owned())
            }
            (BackendState::Probation, Trust::Probation { quiet }) => {
                let at = self.passive_plan().map(|plan| quiet + plan.probation);
                next(at, "the next request decides; if none has come by then, its check does".to_owned())
            }
            (BackendState::Down, _) => {
                next(self.checks[check].next_attempt(), format!("{} is tried again", self.plan.checks[check].name))
            }
            _ => None,
        }
    }
}
