//! Whether lateness is news: a health route that waits behind the users' work is late while the server is well.
//!
//! Owns the rule of `on_timeout = "unknown-while-moving"`. A timeout of such a check is no evidence while the
//! model server answers real requests, or may still be at what it answers next: until it has been silent, with
//! work pending, for thrice what its answers took lately. Timeouts within such a silence are kept, and count all
//! at once when it has lasted too long. With nothing pending nothing explains a late answer, and each counts as
//! it comes. It refuses to excuse a refusal or a wrong answer, or any silence beyond `stall_after`.

use std::sync::Arc;
use std::time::Duration;

use super::plan::{CheckId, OnTimeout, Plan};
use super::time::Time;
use super::{Engine, check_id};
use crate::limits::{LATE_SILENCE, STALL_AFTER};

/// What the traffic makes of a timeout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lateness {
    /// Real requests were answered meanwhile.
    Excused,
    /// The server has been silent since, and not yet for too long.
    Kept,
    /// Nothing excuses it.
    Counts,
}

/// The checks of that sort.
pub(super) fn patient(plan: &Plan) -> Vec<CheckId> {
    let patient = |index: &usize| plan.checks[*index].on_timeout == OnTimeout::UnknownWhileMoving;
    (0..plan.checks.len()).filter(patient).map(check_id).collect()
}

impl Engine {
    /// Of an attempt that began at `started` and has run into its deadline.
    pub(super) fn lateness(&self, started: Time) -> Lateness {
        if !self.is_work_pending() {
            Lateness::Counts
        } else if self.flow.latest().last_byte.is_some_and(|byte| started <= byte) {
            Lateness::Excused
        } else if self.now < self.silence_ends() {
            Lateness::Kept
        } else {
            Lateness::Counts
        }
    }

    fn is_work_pending(&self) -> bool {
        self.flow.pending_since().is_some() || self.now < self.flow.busy_until()
    }

    /// Until when the present silence is no news.
    fn silence_ends(&self) -> Time {
        let flow = &self.flow;
        let sure = flow.busy_until().max(flow.sighted_since());
        // None comes before any time.
        let since = flow.pending_since().max(flow.latest().last_byte).map_or(sure, |since| since.max(sure));
        since + self.longest_silence()
    }

    fn longest_silence(&self) -> Duration {
        let rules = self.plan.checks.iter().filter_map(|check| check.progress());
        let stall_after = rules.map(|rule| rule.stall_after).min().unwrap_or(STALL_AFTER);
        let patience = self.flow.latest().patience;
        self.flow.longest_answer().max(LATE_SILENCE).max(patience).min(stall_after.max(patience))
    }

    /// Looks with each sample whether the timeouts that were kept count now.
    pub(super) fn count_lateness(&mut self) {
        if let Some(byte) = self.flow.latest().last_byte {
            self.patient.iter().for_each(|id| self.checks[id.index()].forgive_late(byte));
        }
        let is_kept = |id: &CheckId| self.checks[id.index()].has_late();
        if !self.patient.iter().any(is_kept) || self.is_work_pending() && self.now < self.silence_ends() {
            return;
        }
        let plan = Arc::clone(&self.plan);
        for at in 0..self.patient.len() {
            let id = self.patient[at];
            if self.checks[id.index()].count_late(self.now, &plan.checks[id.index()]) {
                self.refresh(id, "");
            }
        }
    }
}
