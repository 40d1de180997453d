//! Whether the answers are good: a server that answers, and whose every answer is a failure.
//!
//! Owns one `outcomes` check: a window of ends, a floor of requests below which nothing is said, and the way
//! back. Two things speak against the server: too small a share of good ends within the window, and a row of
//! failures without a good end between them, which does not wait for older good ends to leave the window. What
//! may be one caller's bad input is no verdict: see [`super::origins`]. After a verdict and a pause the check
//! lets single trial requests decide (half-open), and each trial that fails doubles the next pause.

use std::time::Duration;

use super::origins::{Origins, Suspects};
use super::plan::OutcomesPlan;
use super::time::Time;
use super::traffic::Traffic;
use super::window::Window;
use crate::limits::{OUTCOMES_PAUSE, OUTCOMES_PAUSE_MAX, OUTCOMES_ROW};

/// Steps that a window is cut into, so that its length costs nothing.
const STEPS: u32 = 64;

/// What one `outcomes` check remembers of the present model server.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcomes {
    ends: Window,
    /// Failures since the last good end, if there are any.
    row: Option<Row>,
    /// The plane's counts as last seen.
    seen: Option<(u64, u64)>,
    breaker: Breaker,
    /// Trials in a row that failed.
    failed_trials: u32,
    suspects: Suspects,
    /// What keeps it from a verdict.
    objection: Option<String>,
}

/// Failures with no good end among them.
#[derive(Clone, Copy, Debug)]
struct Row {
    first: Time,
    last: Time,
    count: u64,
}

#[derive(Clone, Debug, Default)]
enum Breaker {
    #[default]
    Closed,
    Open {
        until: Time,
        reason: String,
    },
    /// Single trials decide; so many were good.
    HalfOpen {
        good: u64,
        reason: String,
    },
}

/// One judgement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Judged {
    pub(super) down: bool,
    /// One request at a time may pass.
    pub(super) trial: bool,
    /// Too few end well, and something speaks against a verdict.
    pub(super) withheld: bool,
    pub(super) reason: String,
}

impl Outcomes {
    /// Judges at `now`, after a sample. `successes`: so many good trials end the trial. Where the origins of
    /// requests are not told, nothing can be objected.
    pub(super) fn judge(
        &mut self,
        now: Time,
        plan: &OutcomesPlan,
        traffic: &Traffic,
        origins: Option<&Origins>,
        successes: u32,
    ) -> Judged {
        let (good, bad) = self.news(traffic);
        if let Some(origins) = origins {
            let closed = matches!(self.breaker, Breaker::Closed);
            self.suspects.told(now, plan.window, plan.window / STEPS, origins, closed);
        }
        self.objection = None;
        match &mut self.breaker {
            Breaker::Closed => {
                self.note(now, plan, good, bad);
                match self.charge(plan) {
                    Some(Ok(reason)) => {
                        self.failed_trials = 0;
                        self.breaker = Breaker::Open { until: now + self.pause(), reason };
                    }
                    Some(Err(objection)) => self.objection = Some(objection),
                    None => {}
                }
            }
            Breaker::Open { until, reason } if *until <= now => {
                self.breaker = Breaker::HalfOpen { good: 0, reason: std::mem::take(reason) };
            }
            // What was under way when the gate closed ends now and says nothing new.
            Breaker::Open { .. } => {}
            Breaker::HalfOpen { reason, .. } if bad > 0 => {
                let reason = std::mem::take(reason);
                self.failed_trials = self.failed_trials.saturating_add(1);
                self.breaker = Breaker::Open { until: now + self.pause(), reason };
            }
            Breaker::HalfOpen { good: so_far, .. } => {
                *so_far += good;
                if u64::from(successes) <= *so_far {
                    self.ends.clear();
                    self.row = None;
                    self.suspects.clear();
                    self.failed_trials = 0;
                    self.breaker = Breaker::Closed;
                }
            }
        }
        self.shown()
    }

    /// A golden request was answered well: as good as a trial.
    pub(super) fn answered_well(&mut self) {
        if !matches!(self.breaker, Breaker::Closed) {
            let mut suspects = std::mem::take(&mut self.suspects);
            suspects.clear();
            *self = Self { seen: self.seen, suspects, ..Self::default() };
        }
    }

    fn shown(&self) -> Judged {
        let (down, trial, reason) = match (&self.breaker, &self.objection) {
            (Breaker::Closed, Some(objection)) => (false, false, objection.clone()),
            (Breaker::Closed, None) => {
                let (good, bad) = self.ends.sums();
                (false, false, format!("{good} of {} requests ended well", good + bad))
            }
            (Breaker::Open { reason, .. }, _) => (true, false, reason.clone()),
            (Breaker::HalfOpen { reason, .. }, _) => {
                (false, true, format!("on trial, one request at a time: {reason}"))
            }
        };
        Judged { down, trial, withheld: self.objection.is_some(), reason }
    }

    /// What ended since the last sample. Counts that went back begin anew.
    fn news(&mut self, traffic: &Traffic) -> (u64, u64) {
        let now = (traffic.succeeded, traffic.failed);
        let (good, bad) = self.seen.replace(now).unwrap_or(now);
        (now.0.saturating_sub(good), now.1.saturating_sub(bad))
    }

    fn note(&mut self, now: Time, plan: &OutcomesPlan, good: u64, bad: u64) {
        self.ends.expire(now, |age| plan.window < age);
        if good + bad == 0 {
            return;
        }
        // Of what ended between two samples the order is unknown: then nothing of it is part of a row.
        let begun = self.row.filter(|_| good == 0).map_or((now, 0), |row| (row.first, row.count));
        self.row = (good == 0).then_some(Row { first: begun.0, last: now, count: begun.1 + bad });
        self.ends.add(now, plan.window / STEPS, good, bad);
    }

    /// What brings the server down, or what would and why it does not; none below the floor.
    fn charge(&self, plan: &OutcomesPlan) -> Option<Result<String, String>> {
        let (good, bad) = self.ends.sums();
        if good + bad < u64::from(plan.min_requests) {
            return None;
        }
        let weighed = |reason: String, objection: Option<String>| match objection {
            Some(why) => Err(format!("{reason}, but {why}")),
            None => Ok(reason),
        };
        let row = self.row_complaint(plan).map(|reason| weighed(reason, self.suspects.objection_to_row(plan)));
        let share = || self.complaint(plan).map(|reason| weighed(reason, self.suspects.objection(plan)));
        match row {
            Some(Ok(reason)) => Some(Ok(reason)),
            Some(Err(objection)) => share().or(Some(Err(objection))),
            None => share(),
        }
    }

    fn row_complaint(&self, plan: &OutcomesPlan) -> Option<String> {
        let row = self.row.filter(|row| OUTCOMES_ROW <= row.last.since(row.first))?;
        if plan.consecutive_failures == 0 || row.count < u64::from(plan.consecutive_failures) {
            return None;
        }
        let within = super::view::span(row.last.since(row.first));
        Some(format!("the last {} requests all failed, within {within}", row.count))
    }

    fn complaint(&self, plan: &OutcomesPlan) -> Option<String> {
        let (good, bad) = self.ends.sums();
        let all = good + bad;
        if u64::from(plan.min_success_permille) * all <= good * 1000 {
            return None;
        }
        let least = f64::from(plan.min_success_permille) / 10.0;
        let window = super::view::span(plan.window);
        Some(format!("{bad} of the last {all} requests failed within {window}; at least {least} % must end well"))
    }

    fn pause(&self) -> Duration {
        OUTCOMES_PAUSE.saturating_mul(1 << self.failed_trials.min(16)).min(OUTCOMES_PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> OutcomesPlan {
        OutcomesPlan { consecutive_failures: 5, ..OutcomesPlan::default() }
    }

    fn at(outcomes: &mut Outcomes, second: u64, succeeded: u64, failed: u64) -> Judged {
        let traffic = Traffic { succeeded, failed, ..Traffic::default() };
        outcomes.judge(Time::from_secs(second), &plan(), &traffic, None, 1)
    }

    #[test]
    fn below_the_floor_nothing_is_said_and_at_the_floor_it_is() {
        let mut outcomes = Outcomes::default();
        assert!(!at(&mut outcomes, 1, 0, 0).down);
        assert!(!at(&mut outcomes, 2, 0, 9).down);
        let judged = at(&mut outcomes, 3, 0, 10);
        assert!(judged.down);
        assert_eq!(judged.reason, "10 of the last 10 requests failed within 30s; at least 50 % must end well");
    }

    #[test]
    fn a_row_of_failures_does_not_wait_for_old_good_ends_to_leave_the_window() {
        let mut outcomes = Outcomes::default();
        at(&mut outcomes, 1, 0, 0);
        assert!(!at(&mut outcomes, 2, 500, 0).down);
        for second in 3..=6 {
            assert!(!at(&mut outcomes, second, 500, second - 2).down, "{second}");
        }
        let judged = at(&mut outcomes, 7, 500, 5);
        assert!(judged.down);
        assert_eq!(judged.reason, "the last 5 requests all failed, within 4s");
    }

    #[test]
    fn one_good_end_breaks_a_row_and_a_short_stumble_is_none() {
        let mut outcomes = Outcomes::default();
        at(&mut outcomes, 1, 0, 0);
        assert!(!at(&mut outcomes, 2, 500, 0).down);
        assert!(!at(&mut outcomes, 3, 500, 200).down, "all at once");
        assert!(!at(&mut outcomes, 4, 501, 204).down, "which of them was last is not known");
        assert!(!at(&mut outcomes, 5, 501, 208).down, "it begins anew");
        assert!(!at(&mut outcomes, 6, 501, 209).down);
        assert!(at(&mut outcomes, 7, 501, 210).down);
    }

    #[test]
    fn a_row_below_the_floor_or_switched_off_says_nothing() {
        let mut outcomes = Outcomes::default();
        at(&mut outcomes, 1, 0, 0);
        for second in 2..=10 {
            assert!(!at(&mut outcomes, second, 0, second - 1).down, "{second}");
        }
        let off = OutcomesPlan { consecutive_failures: 0, ..plan() };
        let mut outcomes = Outcomes::default();
        for failed in 0..60 {
            let traffic = Traffic { succeeded: 500 * failed.min(1), failed, ..Traffic::default() };
            let judged = outcomes.judge(Time::from_millis(1000 + failed * 100), &off, &traffic, None, 1);
            assert!(!judged.down, "{judged:?}");
        }
    }

    #[test]
    fn old_failures_are_forgotten_and_half_good_is_good_enough() {
        let mut outcomes = Outcomes::default();
        at(&mut outcomes, 1, 0, 0);
        at(&mut outcomes, 2, 0, 9);
        assert!(!at(&mut outcomes, 40, 0, 18).down);
        assert!(!at(&mut outcomes, 41, 9, 18).down);
    }

    #[test]
    fn one_trial_at_a_time_decides_the_way_back_and_a_failed_one_doubles_the_pause() {
        let mut outcomes = Outcomes::default();
        at(&mut outcomes, 1, 0, 0);
        assert!(at(&mut outcomes, 2, 0, 10).down);
        assert!(at(&mut outcomes, 6, 0, 14).down, "stragglers say nothing new");
        let trial = at(&mut outcomes, 7, 0, 14);
        assert!(trial.trial && !trial.down);
        assert!(at(&mut outcomes, 8, 0, 15).down);
        assert!(at(&mut outcomes, 17, 0, 15).down);
        assert!(at(&mut outcomes, 18, 0, 15).trial);
        assert_eq!(
            at(&mut outcomes, 19, 1, 15),
            Judged { down: false, trial: false, withheld: false, reason: "0 of 0 requests ended well".to_owned() }
        );
    }

    #[test]
    fn one_callers_bad_input_is_remarked_and_no_verdict_until_somebody_else_fails() {
        let (mut outcomes, mut origins) = (Outcomes::default(), Origins::default());
        let mut end = |second: u64, caller: usize, bad: u64| {
            for share in [caller, Origins::CALLERS + caller] {
                origins.shares[share].1 += bad;
            }
            let failed = origins.shares[..Origins::CALLERS].iter().map(|share| share.1).sum();
            let traffic = Traffic { failed, ..Traffic::default() };
            outcomes.judge(Time::from_secs(second), &plan(), &traffic, Some(&origins), 1)
        };
        assert!(!end(1, 3, 0).withheld);
        let judged = end(2, 3, 40);
        assert!(judged.withheld && !judged.down, "{judged:?}");
        assert!(judged.reason.ends_with("but all 40 are of one input of one caller, which has never ended well"));
        let judged = end(3, 4, 2);
        assert!(judged.down && !judged.withheld, "{judged:?}");
        assert!(!end(9, 3, 1).withheld, "its way back is the trial's business");
    }

    #[test]
    fn one_callers_bad_inputs_are_no_verdict_beside_a_caller_that_is_well() {
        let plan = OutcomesPlan { consecutive_failures: 3, ..OutcomesPlan::default() };
        let (mut outcomes, mut origins) = (Outcomes::default(), Origins::default());
        let mut second = |second: u64, failing: &[(usize, usize)]| {
            let ends = failing.iter().map(|&(caller, input)| (caller, input, false));
            let well = second.is_multiple_of(8).then_some([(2, 9, true); 3]).into_iter().flatten();
            for (caller, input, well) in ends.chain(well) {
                for share in [caller, Origins::CALLERS + input] {
                    origins.shares[share].0 += u64::from(well);
                    origins.shares[share].1 += u64::from(!well);
                }
            }
            let (succeeded, failed) =
                origins.shares[..Origins::CALLERS].iter().fold((0, 0), |sum, (good, bad)| (sum.0 + good, sum.1 + bad));
            let traffic = Traffic { succeeded, failed, ..Traffic::default() };
            outcomes.judge(Time::from_secs(second), &plan, &traffic, Some(&origins), 1)
        };
        for at in 0..600 {
            let judged = second(at, &[(1, at as usize % 2)]);
            assert!(!judged.down, "{at}: {judged:?}");
        }
        let last = (600..606).map(|at| second(at, &[(1, 0), (3, 3)])).find(|judged| judged.down);
        assert!(last.is_some_and(|judged| judged.reason.contains("all failed")), "two callers' are the server's");
    }
}
