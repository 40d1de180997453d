//! One check's attempts in a test, under the same deadline and with the same timeout reason as in production.

use std::sync::Mutex;
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
        let scene = Scene::new(self.clock, timeout, Duration::ZERO, self.lane.clone());
        tokio::time::timeout(timeout, attempt(&scene)).await.unwrap_or_else(|_| {
            let what = scene.last_waited_for().unwrap_or_default();
            let reason = format!("timeout after {}, waiting for {what}", humantime::format_duration(timeout));
            Outcome::fail(Fault::Timeout, reason, timeout)
        })
    }

    /// One attempt with five seconds to spare.
    pub(super) async fn attempt(&self, attempt: impl AsyncFnOnce(&Scene) -> Outcome) -> Outcome {
        self.within(Duration::from_secs(5), attempt).await
    }
}
