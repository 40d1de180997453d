//! What one attempt has at hand, and where it says how far it came.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::lane::Lane;
use crate::clock::Clock;
use crate::engine::{Fault, Outcome, Sign, Time};
use crate::net::Failure;

/// The surroundings of one attempt. Outlives it: what it had said is read at a deadline.
pub(super) struct Scene {
    pub(super) clock: Clock,
    pub(super) started: Time,
    /// From the start to the deadline.
    pub(super) timeout: Duration,
    /// A metrics page may be so old.
    pub(super) page_age: Duration,
    /// Where the check's blocking calls run.
    pub(super) lane: Lane,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    waiting_for: String,
    sign: Option<Sign>,
}

impl Scene {
    pub(super) fn new(clock: Clock, timeout: Duration, page_age: Duration, lane: Lane) -> Self {
        Self { clock, started: clock.now(), timeout, page_age, lane, progress: Mutex::default() }
    }

    /// Says what the attempt waits for now; the reason of a timeout is made of it: "waiting for PONG from
    /// 127.0.0.1:6379".
    pub(super) fn waiting_for(&self, what: impl Into<String>) {
        self.progress().waiting_for = what.into();
    }

    /// Notes a sign of the one that is checked; it goes with the outcome, a timeout included.
    pub(super) fn saw(&self, sign: Sign) {
        self.progress().sign = Some(sign);
    }

    /// Time since the attempt began.
    pub(super) fn elapsed(&self) -> Duration {
        self.clock.now().since(self.started)
    }

    /// A pass, now.
    pub(super) fn pass(&self) -> Outcome {
        Outcome::pass(self.elapsed())
    }

    /// A failure, now.
    pub(super) fn fail(&self, fault: Fault, reason: impl Into<String>) -> Outcome {
        Outcome::fail(fault, reason, self.elapsed())
    }

    /// A failed connection or question, now, with the sign that it is.
    pub(super) fn failed(&self, failure: Failure) -> Outcome {
        match failure.fault {
            Fault::Answer => self.saw(Sign::Answered),
            Fault::Refused => self.saw(Sign::Refused),
            Fault::Local | Fault::Timeout | Fault::Unreachable => {}
        }
        self.fail(failure.fault, failure.reason)
    }

    /// What was waited for last, if anything was said.
    pub(super) fn last_waited_for(&self) -> Option<String> {
        Some(self.progress().waiting_for.clone()).filter(|what| !what.is_empty())
    }

    /// The sign that was seen, if any.
    pub(super) fn sign(&self) -> Option<Sign> {
        self.progress().sign
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
