//! The end of the pod's life as the engine sees it: not ready at once, serving while endpoints propagate,
//! then only finishing, then done.

use super::plan::DrainPlan;
use super::snapshot::{DrainPhase, DrainView};
use super::time::Time;

#[derive(Debug)]
pub(super) struct Drain {
    phase: DrainPhase,
    since: Time,
    finishing_since: Time,
    in_flight: u64,
    /// When `in_flight` was told; an older word than the phase says nothing about it.
    told_at: Option<Time>,
    cut_off: bool,
}

impl Drain {
    pub(super) const fn new() -> Self {
        Self {
            phase: DrainPhase::Serving,
            since: Time::ZERO,
            finishing_since: Time::ZERO,
            in_flight: 0,
            told_at: None,
            cut_off: false,
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.phase != DrainPhase::Serving
    }

    /// Begins; a second time does nothing.
    pub(super) fn begin(&mut self, now: Time) {
        if self.phase == DrainPhase::Serving {
            self.phase = DrainPhase::Propagating;
            self.since = now;
        }
    }

    pub(super) const fn told_in_flight(&mut self, now: Time, requests: u64) {
        self.in_flight = requests;
        self.told_at = Some(now);
    }

    /// Moves on as far as `now` allows: at most one phase a call, so that each one is seen.
    pub(super) fn step(&mut self, now: Time, plan: DrainPlan) -> Option<(DrainPhase, DrainPhase)> {
        let from = self.phase;
        let out_of_time = now >= self.since + plan.max;
        let to = match from {
            DrainPhase::Serving | DrainPhase::Done => return None,
            DrainPhase::Propagating if out_of_time || now >= self.since + plan.propagation => DrainPhase::Finishing,
            DrainPhase::Finishing if out_of_time || self.is_idle() => DrainPhase::Done,
            DrainPhase::Propagating | DrainPhase::Finishing => return None,
        };
        match to {
            DrainPhase::Finishing => self.finishing_since = now,
            DrainPhase::Done => self.cut_off = self.in_flight > 0,
            DrainPhase::Serving | DrainPhase::Propagating => {}
        }
        self.phase = to;
        Some((from, to))
    }

    /// When a step may be possible by time alone.
    pub(super) fn wake(&self, plan: DrainPlan) -> Option<Time> {
        match self.phase {
            DrainPhase::Serving | DrainPhase::Done => None,
            DrainPhase::Propagating => Some((self.since + plan.propagation).min(self.since + plan.max)),
            DrainPhase::Finishing => Some(self.since + plan.max),
        }
    }

    pub(super) fn view(&self, plan: DrainPlan) -> DrainView {
        DrainView {
            phase: self.phase,
            since: self.since,
            until: self.wake(plan),
            in_flight: self.in_flight,
            cut_off: self.cut_off,
        }
    }

    /// Nothing in flight, as told since no new request is let in.
    fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.told_at.is_some_and(|at| at >= self.finishing_since)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PLAN: DrainPlan = DrainPlan { propagation: Duration::from_secs(5), max: Duration::from_secs(20) };

    #[test]
    fn a_word_from_before_finishing_does_not_end_the_drain() {
        let mut drain = Drain::new();
        drain.told_in_flight(Time::from_secs(1), 0);
        drain.begin(Time::from_secs(1));
        assert_eq!(drain.step(Time::from_secs(2), PLAN), None);
        assert_eq!(drain.step(Time::from_secs(6), PLAN), Some((DrainPhase::Propagating, DrainPhase::Finishing)));
        assert_eq!(drain.step(Time::from_secs(7), PLAN), None);
        drain.told_in_flight(Time::from_secs(7), 0);
        assert_eq!(drain.step(Time::from_secs(7), PLAN), Some((DrainPhase::Finishing, DrainPhase::Done)));
        assert!(!drain.view(PLAN).cut_off);
    }

    #[test]
    fn a_stream_that_does_not_end_is_cut_off_at_the_maximum_and_said_so() {
        let mut drain = Drain::new();
        drain.begin(Time::from_secs(0));
        drain.step(Time::from_secs(5), PLAN);
        drain.told_in_flight(Time::from_secs(6), 1);
        assert_eq!(drain.step(Time::from_secs(19), PLAN), None);
        assert_eq!(drain.wake(PLAN), Some(Time::from_secs(20)));
        assert_eq!(drain.step(Time::from_secs(20), PLAN), Some((DrainPhase::Finishing, DrainPhase::Done)));
        assert!(drain.view(PLAN).cut_off);
    }
}
