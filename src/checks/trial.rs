//! One check's attempts in a test, under the same deadline and with the same timeout reason as in production.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::lane::Lane;
use super::{Memory, Scene};
use crate::clock::Clock;
use crate::engine::{Fault, Outcome};

/// The place of a collector: what attempts of one check share.
pub(super) struct Trial {
    pub(super) clock: Clock,
    pub(super) memory: Mutex<Memory>,
    lane: Lane,
}

impl Trial {
    pub(super) fn new() -> Self {
        Self { clock: Clock::start(), memory: Mutex::default(), lane: Lane::default() }
    }

    /// A trial whose clock is already so far from its origin.
    pub(super) fn starting(after: Duration) -> Self {
        Self { clock: Clock::start_after(after), ..Self::new() }
    }

    /// One attempt with a deadline.
    pub(super) async fn within(&self, timeout: Duration, attempt: impl AsyncFnOnce(&Scene) -> Outcome) -> Outcome {
        let waiting_for = Arc::new(Mutex::new(String::from("it to begin")));
        let scene = Scene {
            clock: self.clock,
            started: self.clock.now(),
            waiting_for: Arc::clone(&waiting_for),
            lane: self.lane.clone(),
        };
        tokio::time::timeout(timeout, attempt(&scene)).await.unwrap_or_else(|_| {
            let what = waiting_for.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let reason = format!("timeout after {}, waiting for {what}", humantime::format_duration(timeout));
            Outcome::fail(Fault::Timeout, reason, timeout)
        })
    }

    /// One attempt with five seconds to spare.
    pub(super) async fn attempt(&self, attempt: impl AsyncFnOnce(&Scene) -> Outcome) -> Outcome {
        self.within(Duration::from_secs(5), attempt).await
    }
}
