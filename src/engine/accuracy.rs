//! How much of the labelled examples is answered right, over a window.
//!
//! Owns one golden check's tally of the present model server. It begins with the first attempt that is good enough by
//! itself: what a server answers while it loads says nothing of its model, and one that answers garbage never gets so
//! far. An attempt without an answer (busy, silent, gone) adds nothing, other examples begin another tally, and the
//! latest attempt counts always, however long ago the one before it was: where only idle servers are asked, a window
//! may hold no other. One that is right less than half as often as wanted fails by itself: what was right before must
//! not hide for long that the model behind the address has been swapped. One that is good enough by itself, with a bad
//! window behind it, is neither success nor failure: it turns no check.

use std::borrow::Cow;

use super::evidence::{Fault, Outcome, Verdict};
use super::plan::AccuracyPlan;
use super::time::{Time, plain};
use super::traffic::{Answers, Reading};
use super::window::Window;

/// Steps that a window is cut into, so that its length costs nothing.
const STEPS: u32 = 64;

/// The answers within the window.
#[derive(Debug, Default)]
pub(super) struct Accuracy {
    window: Window,
    /// The examples that were asked last, and what that was answered.
    latest: Option<(u64, Answers)>,
    /// The last attempt was answered nothing, though the server was not busy.
    is_silent: bool,
}

impl Accuracy {
    /// Takes an attempt: what it means together with those before it. Where it stands alone, what it says itself.
    pub(super) fn judge<'a>(&mut self, now: Time, plan: AccuracyPlan, outcome: &'a Outcome) -> Cow<'a, Outcome> {
        let alone = Cow::Borrowed(outcome);
        let Some(Reading { answers: Some(latest), examples, .. }) = outcome.reading else {
            self.is_silent |= matches!(outcome.verdict, Verdict::Fail(_));
            return alone;
        };
        self.is_silent = false;
        // Too few answers came in time to say anything of the model.
        if outcome.verdict == Verdict::Fail(Fault::Timeout) {
            return alone;
        }
        let before = self.latest.replace((examples, latest));
        if before.is_some_and(|(before, _)| before != examples) {
            self.window.clear();
        }
        if self.window.is_empty() && !plan.is_met(latest) {
            return alone;
        }
        self.take(now, plan, latest);
        let all = self.sum();
        if all == latest || latest.share() * 2.0 < plan.min {
            return alone;
        }
        // One that fails by itself says by how much.
        let (verdict, expected) = match (plan.is_met(all), outcome.verdict) {
            (true, _) => (Verdict::Pass, String::new()),
            (false, Verdict::Pass) => (Verdict::Unknown, format!(", {}", plan.expectation())),
            (false, _) => (Verdict::Fail(Fault::Answer), String::new()),
        };
        let window = plain(plan.window);
        let reason = format!("{all} right within {window}{expected}; the latest attempt: {}", outcome.reason);
        Cow::Owned(Outcome { verdict, reason, ..outcome.clone() })
    }

    fn take(&mut self, now: Time, plan: AccuracyPlan, latest: Answers) {
        self.window.expire(now, |age| plan.window <= age);
        self.window.add(
            now,
            plan.window / STEPS,
            latest.right.into(),
            latest.asked.saturating_sub(latest.right).into(),
        );
    }

    fn sum(&self) -> Answers {
        let (right, wrong) = self.window.sums();
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Answers { right: count(right), asked: count(right + wrong) }
    }

    /// The share of right answers; none before the first, and while the server answers nothing.
    pub(super) fn share(&self) -> Option<f64> {
        let (_, latest) = self.latest.filter(|_| !self.is_silent)?;
        Some(if self.window.is_empty() { latest } else { self.sum() }.share())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PLAN: AccuracyPlan = AccuracyPlan { min: 0.8, window: Duration::from_secs(640) };

    /// An attempt as a collector tells it.
    fn attempt(right: u32, asked: u32) -> Outcome {
        let answers = Answers { right, asked };
        let outcome = match PLAN.is_met(answers) {
            true => Outcome::pass(Duration::ZERO).remark(format!("{answers} right")),
            false => Outcome::fail(Fault::Answer, format!("{answers} right, too few"), Duration::ZERO),
        };
        outcome.reading(Reading { answers: Some(answers), ..Reading::default() })
    }

    fn at(accuracy: &mut Accuracy, second: u64, outcome: &Outcome) -> (bool, String) {
        let judged = accuracy.judge(Time::from_secs(second), PLAN, outcome);
        (judged.verdict == Verdict::Pass, judged.reason.clone())
    }

    fn verdict(accuracy: &mut Accuracy, second: u64, outcome: &Outcome) -> Verdict {
        accuracy.judge(Time::from_secs(second), PLAN, outcome).verdict
    }

    #[test]
    fn one_bad_attempt_among_good_ones_is_within_the_window_s_share() {
        let mut accuracy = Accuracy::default();
        assert_eq!(accuracy.share(), None);
        assert_eq!(at(&mut accuracy, 0, &attempt(5, 5)), (true, "5 of 5 right".to_owned()), "alone it speaks itself");
        let (up, reason) = at(&mut accuracy, 60, &attempt(3, 5));
        assert!(up);
        assert_eq!(reason, "8 of 10 right within 10m 40s; the latest attempt: 3 of 5 right, too few");
        assert_eq!(accuracy.share(), Some(0.8));
        let (up, reason) = at(&mut accuracy, 120, &attempt(3, 5));
        assert!(!up);
        assert_eq!(reason, "11 of 15 right within 10m 40s; the latest attempt: 3 of 5 right, too few");
        let judged = accuracy.judge(Time::from_secs(180), PLAN, &attempt(4, 5)).into_owned();
        assert_eq!(judged.verdict, Verdict::Unknown, "a good one does not outweigh them, and is no failure");
        let said = "15 of 20 right within 10m 40s, at least 80 % must be; the latest attempt: 4 of 5 right";
        assert_eq!(judged.reason, said);
    }

    #[test]
    fn what_is_older_than_the_window_counts_no_more_and_the_latest_always_does() {
        let mut accuracy = Accuracy::default();
        at(&mut accuracy, 0, &attempt(5, 5));
        at(&mut accuracy, 20, &attempt(2, 5));
        at(&mut accuracy, 100, &attempt(4, 5));
        assert_eq!(accuracy.share(), Some(11.0 / 15.0));
        assert!(!at(&mut accuracy, 640, &attempt(4, 5)).0, "the good one is as old as the window");
        assert!(at(&mut accuracy, 660, &attempt(4, 5)).0, "and so is the bad one");
        assert_eq!(at(&mut accuracy, 9000, &attempt(3, 5)), (false, "3 of 5 right, too few".to_owned()));
    }

    #[test]
    fn what_is_answered_while_it_loads_is_forgotten_and_garbage_never_gets_so_far() {
        let mut accuracy = Accuracy::default();
        for second in 0..60 {
            assert_eq!(at(&mut accuracy, second, &attempt(0, 5)), (false, "0 of 5 right, too few".to_owned()));
            assert_eq!(accuracy.share(), Some(0.0), "it is told, and not added up");
        }
        assert_eq!(at(&mut accuracy, 60, &attempt(4, 5)), (true, "4 of 5 right".to_owned()));
        assert_eq!(accuracy.share(), Some(0.8));
    }

    #[test]
    fn a_model_that_was_swapped_in_place_fails_by_itself() {
        let mut accuracy = Accuracy::default();
        (0..600).for_each(|second| assert!(at(&mut accuracy, second, &attempt(5, 5)).0));
        assert_eq!(at(&mut accuracy, 600, &attempt(1, 5)), (false, "1 of 5 right, too few".to_owned()));
        assert!(at(&mut accuracy, 601, &attempt(2, 5)).0, "a bad attempt, and still that model");
    }

    #[test]
    fn other_examples_begin_another_tally() {
        let mut accuracy = Accuracy::default();
        let of = |examples: u64, outcome: Outcome| {
            let reading = Reading { examples, ..outcome.reading.unwrap() };
            outcome.reading(reading)
        };
        at(&mut accuracy, 0, &of(1, attempt(5, 5)));
        at(&mut accuracy, 1, &of(1, attempt(3, 5)));
        at(&mut accuracy, 2, &of(1, attempt(3, 5)));
        assert_eq!(at(&mut accuracy, 3, &of(2, attempt(4, 5))), (true, "4 of 5 right".to_owned()));
    }

    #[test]
    fn an_attempt_without_an_answer_says_nothing_of_the_model() {
        let mut accuracy = Accuracy::default();
        at(&mut accuracy, 0, &attempt(5, 5));
        at(&mut accuracy, 5, &attempt(3, 5));
        let silent = Outcome::fail(Fault::Timeout, "no answer", Duration::ZERO);
        assert_eq!(at(&mut accuracy, 10, &silent), (false, "no answer".to_owned()));
        assert_eq!(accuracy.share(), None, "nothing is known of a silent server");
        let busy = Outcome::unknown("busy", Duration::ZERO);
        assert_eq!(*accuracy.judge(Time::from_secs(20), PLAN, &busy), busy);
        assert_eq!(accuracy.share(), None);
        assert_eq!(verdict(&mut accuracy, 30, &attempt(4, 5)), Verdict::Pass);
        assert_eq!(*accuracy.judge(Time::from_secs(40), PLAN, &busy), busy);
        assert_eq!(accuracy.share(), Some(0.8), "a busy one is the same model");
    }

    #[test]
    fn a_window_of_any_length_holds_a_bounded_number_of_steps_and_loses_no_answer() {
        let mut accuracy = Accuracy::default();
        for second in 0..10_000 {
            at(&mut accuracy, second, &attempt(9, 10));
            assert!(accuracy.window.steps() <= STEPS as usize + 1);
            // A step ends as a whole: at most one of them early.
            let asked = accuracy.sum().asked;
            let full = 10 * u32::try_from(second.min(639) + 1).unwrap();
            assert!(full.saturating_sub(10 * (640 / STEPS)) <= asked && asked <= full, "{second}: {asked} of {full}");
        }
    }

    #[test]
    fn without_a_window_the_latest_attempt_stands_alone() {
        let mut accuracy = Accuracy::default();
        let plan = AccuracyPlan { window: Duration::ZERO, ..PLAN };
        for (second, outcome) in [(0, attempt(0, 5)), (1, attempt(5, 5)), (2, attempt(1, 5))] {
            assert_eq!(*accuracy.judge(Time::from_secs(second), plan, &outcome), outcome);
        }
        assert_eq!(accuracy.share(), Some(0.2));
    }
}
