//! Threads by promise: each of ours on its own, and none of them may die unnoticed.
//!
//! A thread that panics, or that ends before it was told to, ends the process: the kubelet restarts a sidecar
//! that is gone, but can do nothing about one that is half there.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;

/// A thread ended that should not have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Death {
    /// The thread's name.
    pub thread: String,
    /// The panic's message, or that it just ended.
    pub reason: String,
}

/// Everything that was started, and who has died.
pub(super) struct Threads {
    stopping: Arc<AtomicBool>,
    death: watch::Sender<Option<Death>>,
    ended: (mpsc::Sender<String>, mpsc::Receiver<String>),
    running: Vec<String>,
}

impl Threads {
    pub(super) fn new() -> Self {
        let (death, _) = watch::channel(None);
        Self { stopping: Arc::default(), death, ended: mpsc::channel(), running: Vec::new() }
    }

    /// Starts a thread under a name.
    pub(super) fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let (stopping, death, ended) = (Arc::clone(&self.stopping), self.death.clone(), self.ended.0.clone());
        let own_name = name.to_owned();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Nothing of ours is looked at after a panic but the name: there is no state to be left broken.
            let end = catch_unwind(AssertUnwindSafe(work));
            let reason = match end {
                Ok(Ok(())) => (!stopping.load(Ordering::Relaxed)).then(|| "it ended by itself".to_owned()),
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(said(&*panic)),
            };
            if let Some(reason) = reason {
                death.send_if_modified(|first| {
                    let is_first = first.is_none();
                    first.get_or_insert(Death { thread: own_name.clone(), reason });
                    is_first
                });
            }
            let _ = ended.send(own_name);
        })?;
        self.running.push(name.to_owned());
        Ok(())
    }

    /// Starts a thread that runs one future on a current-thread runtime of its own.
    pub(super) fn spawn_on<F, Fut>(&mut self, name: &str, runtime: Runtime, work: F) -> io::Result<()>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<()>>,
    {
        self.spawn(name, move || {
            let end = runtime.block_on(async { work().await });
            // A blocking call that hangs (a lookup, a dead file system) must not hold the end of the process.
            runtime.shutdown_background();
            end
        })
    }

    /// Waits for the first death. May be dropped and called again.
    pub(super) async fn died(&self) -> Death {
        let mut deaths = self.death.subscribe();
        loop {
            if let Some(death) = deaths.borrow_and_update().clone() {
                return death;
            }
            if deaths.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// From now on a thread that ends does so in order.
    pub(super) fn expect_ends(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Waits for all of them; the names of those that did not end in time.
    pub(super) fn join(mut self, grace: Duration, clock: crate::clock::Clock) -> Vec<String> {
        let until = clock.now() + grace;
        while !self.running.is_empty() {
            match self.ended.1.recv_timeout(until.since(clock.now())) {
                Ok(name) => {
                    if let Some(at) = self.running.iter().position(|running| *running == name) {
                        self.running.swap_remove(at);
                    }
                }
                Err(_) => break,
            }
        }
        self.running
    }
}

/// A runtime for one thread of ours.
pub(super) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.as_deref().unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_panic_is_a_death_with_its_message() {
        let mut threads = Threads::new();
        threads.spawn("engine", || panic!("on purpose {}", 7)).unwrap();
        let death = threads.died().await;
        assert_eq!(death, Death { thread: "engine".to_owned(), reason: "it panicked: on purpose 7".to_owned() });
    }

    #[tokio::test]
    async fn a_thread_that_just_ends_has_died_unless_ends_are_expected() {
        let mut threads = Threads::new();
        let (go, wait) = mpsc::channel::<()>();
        threads.spawn("traffic-0", move || wait.recv().or(Ok(()))).unwrap();
        threads.spawn("probes", || Ok(())).unwrap();
        assert_eq!(threads.died().await.thread, "probes");
        threads.expect_ends();
        drop(go);
        assert_eq!(threads.join(SOON, Clock::start()), Vec::<String>::new());
    }

    #[test]
    fn whoever_does_not_end_in_time_is_named() {
        let mut threads = Threads::new();
        let (_go, wait) = mpsc::channel::<()>();
        threads.spawn("admin", move || wait.recv().or(Ok(()))).unwrap();
        threads.expect_ends();
        assert_eq!(threads.join(Duration::from_millis(20), Clock::start()), ["admin"]);
    }
}
