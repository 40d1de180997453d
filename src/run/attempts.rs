//! Attempts in flight: tasks of the engine's own runtime, each with the way to end it early.
//!
//! Owns the tasks and nothing of what they say. A task that panics is an outcome without evidence: one
//! check's fault is not everybody's.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::engine::{Attempt, CheckId, Outcome};

/// An attempt that ended by itself.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) check: CheckId,
    pub(super) attempt: Attempt,
    pub(super) outcome: Outcome,
}

/// Every attempt that is under way.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    tasks: JoinSet<Outcome>,
    of_task: HashMap<Id, (CheckId, Attempt)>,
    to_abort: HashMap<Attempt, AbortHandle>,
}

impl Attempts {
    /// Begins one.
    pub(super) fn start(
        &mut self,
        check: CheckId,
        attempt: Attempt,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) {
        let task = self.tasks.spawn(work);
        self.of_task.insert(task.id(), (check, attempt));
        self.to_abort.insert(attempt, task);
    }

    /// Ends one: its future is dropped, and with it its socket or child. One that has ended is left alone.
    pub(super) fn cancel(&mut self, attempt: Attempt) {
        if let Some(task) = self.to_abort.remove(&attempt) {
            self.of_task.remove(&task.id());
            task.abort();
        }
    }

    /// The next that ends; never while there is none. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> Ended {
        loop {
            match self.tasks.join_next_with_id().await {
                Some(joined) => {
                    if let Some(ended) = self.settle(joined) {
                        return ended;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// One that has ended already, if there is one.
    pub(super) fn try_ended(&mut self) -> Option<Ended> {
        while let Some(joined) = self.tasks.try_join_next_with_id() {
            let ended = self.settle(joined);
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    fn settle(&mut self, joined: Result<(Id, Outcome), JoinError>) -> Option<Ended> {
        let (id, outcome) = match joined {
            Ok(done) => done,
            // Cancelled ones are no longer known below; what remains is a panic, told on standard error already.
            Err(error) => (error.id(), Outcome::unknown("the check itself has crashed", Duration::ZERO)),
        };
        let (check, attempt) = self.of_task.remove(&id)?;
        self.to_abort.remove(&attempt);
        Some(Ended { check, attempt, outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Verdict;

    const CHECK: CheckId = CheckId(3);

    #[tokio::test]
    async fn an_attempt_ends_with_its_own_number() {
        let mut attempts = Attempts::default();
        attempts.start(CHECK, Attempt(7), async { Outcome::pass(Duration::ZERO) });
        let ended = attempts.ended().await;
        assert_eq!((ended.check, ended.attempt, ended.outcome.verdict), (CHECK, Attempt(7), Verdict::Pass));
    }

    #[tokio::test]
    async fn a_panicking_attempt_is_no_evidence_and_the_others_go_on() {
        let mut attempts = Attempts::default();
        attempts.start(CHECK, Attempt(1), async { panic!("of a collector, on purpose") });
        let ended = attempts.ended().await;
        assert_eq!((ended.attempt, ended.outcome.verdict), (Attempt(1), Verdict::Unknown));
        attempts.start(CHECK, Attempt(2), async { Outcome::pass(Duration::ZERO) });
        assert_eq!(attempts.ended().await.attempt, Attempt(2));
    }

    #[tokio::test]
    async fn a_cancelled_attempt_is_dropped_and_never_heard_of_again() {
        struct Tell(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Tell {
            fn drop(&mut self) {
                let _ = self.0.take().map(|tell| tell.send(()));
            }
        }
        let mut attempts = Attempts::default();
        let (dropped, told) = tokio::sync::oneshot::channel();
        let socket = Tell(Some(dropped));
        attempts.start(CHECK, Attempt(1), async move {
            let _open = socket;
            std::future::pending().await
        });
        attempts.cancel(Attempt(1));
        told.await.unwrap();
        attempts.start(CHECK, Attempt(2), async { Outcome::pass(Duration::ZERO) });
        assert_eq!(attempts.ended().await.attempt, Attempt(2));
        assert!(attempts.try_ended().is_none());
        attempts.cancel(Attempt(2));
    }
}
