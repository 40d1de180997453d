//! Good and bad ends over a sliding span, in steps, so that its length costs nothing.
//!
//! Owns the counts and when they came. How long the span is, and what the counts mean, is the business of whoever asks.

use std::collections::VecDeque;
use std::time::Duration;

use super::time::Time;

/// The counts, by the step they fell into.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// Oldest first: when it began, good ones, bad ones.
    steps: VecDeque<(Time, u64, u64)>,
}

impl Window {
    /// Drops the steps that began so long ago.
    pub(super) fn expire(&mut self, now: Time, is_over: impl Fn(Duration) -> bool) {
        while self.steps.front().is_some_and(|(began, ..)| is_over(now.since(*began))) {
            self.steps.pop_front();
        }
    }

    /// So many ended now. They join the last step if it began less than `step` ago.
    pub(super) fn add(&mut self, now: Time, step: Duration, good: u64, bad: u64) {
        match self.steps.back_mut() {
            _ if good + bad == 0 => {}
            Some(last) if now.since(last.0) < step => {
                last.1 += good;
                last.2 += bad;
            }
            _ => self.steps.push_back((now, good, bad)),
        }
    }

    /// All good ones, and all bad ones.
    pub(super) fn sums(&self) -> (u64, u64) {
        self.steps.iter().fold((0, 0), |sum, (_, good, bad)| (sum.0 + good, sum.1 + bad))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.steps.clear();
    }

    #[cfg(test)]
    pub(super) fn steps(&self) -> usize {
        self.steps.len()
    }
}
