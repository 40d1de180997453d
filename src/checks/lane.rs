//! Calls that may block for ever (a hung network file system, `/proc` of a process that holds its own memory
//! lock), kept off the runtime.
//!
//! Each check has one lane, and a lane runs one call at a time: a call that never returns costs one thread,
//! not one more at each attempt. Nothing here can end such a call; the attempt gives up on it by its deadline.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Scene;
use crate::engine::{Fault, Outcome};

/// One check's place for blocking calls. Clones are the same lane.
#[derive(Clone, Debug)]
pub(super) struct Lane(Arc<Semaphore>);

impl Default for Lane {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Scene {
    /// Runs `work` on a thread where it may block. While an earlier call of the same check has not come
    /// back, this one waits for its turn. `what` is what a timeout says that it waited for.
    ///
    /// The error is the outcome of an attempt whose call died instead of returning.
    pub(super) async fn blocking<T, F>(&self, what: &str, work: F) -> Result<T, Outcome>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.waiting_for(format!("{what}, still busy from an earlier attempt"));
        let turn = Arc::clone(&self.lane.0).acquire_owned().await;
        self.waiting_for(what);
        let call = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        call.await.map_err(|_| Outcome::fail(Fault::Local, format!("{what} ended abnormally"), self.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::super::trial::Trial;
    use crate::engine::Outcome;

    #[tokio::test]
    async fn a_call_that_hangs_costs_one_thread_and_the_next_attempt_says_so() {
        let trial = Trial::new();
        let (release, held) = mpsc::channel::<()>();
        let first = trial
            .within(Duration::from_millis(50), async |scene| {
                let hung = scene.blocking("the disk under /data", move || held.recv().is_ok()).await;
                Outcome::pass(scene.elapsed()).remark(format!("{hung:?}"))
            })
            .await;
        assert_eq!(first.reason, "timeout after 50ms, waiting for the disk under /data");

        let second = trial
            .within(Duration::from_millis(50), async |scene| {
                scene.blocking("the disk under /data", || ()).await.expect("never reached");
                Outcome::pass(scene.elapsed())
            })
            .await;
        assert_eq!(
            second.reason,
            "timeout after 50ms, waiting for the disk under /data, still busy from an earlier attempt"
        );

        release.send(()).expect("the hung call is still there");
        let third = trial
            .within(Duration::from_secs(5), async |scene| {
                let turn = scene.blocking("the disk under /data", || 7).await;
                Outcome::pass(scene.elapsed()).remark(format!("{turn:?}"))
            })
            .await;
        assert_eq!(third.reason, "Ok(7)");
    }

    #[tokio::test]
    async fn a_call_that_panics_is_a_failed_attempt_and_leaves_the_lane_free() {
        let trial = Trial::new();
        let outcome = trial
            .within(Duration::from_secs(5), async |scene| match scene.blocking("it", || panic!("on purpose")).await {
                Ok(()) => Outcome::pass(scene.elapsed()),
                Err(outcome) => outcome,
            })
            .await;
        assert_eq!(outcome.reason, "it ended abnormally");
        let after = trial
            .within(Duration::from_secs(5), async |scene| {
                scene.blocking("it", || ()).await.expect("free");
                Outcome::pass(scene.elapsed())
            })
            .await;
        assert_eq!(after.verdict, crate::engine::Verdict::Pass);
    }
}
