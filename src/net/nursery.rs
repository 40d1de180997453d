//! Tasks that do not outlive the one who asked for them.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::AbortHandle;

/// An executor for libraries that insist on spawning. Dropping the nursery (not its clones) aborts every
/// task it was given, so that a cancelled attempt leaves no connection behind.
#[derive(Default)]
pub struct Nursery {
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

/// The handle that a library gets.
#[derive(Clone)]
pub struct Executor {
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Nursery {
    /// An executor to hand away.
    pub fn executor(&self) -> Executor {
        Executor { tasks: Arc::clone(&self.tasks) }
    }

    /// Runs a task until it ends or the nursery is dropped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.executor().spawn(task);
    }
}

impl Executor {
    fn spawn<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let handle = tokio::spawn(task).abort_handle();
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

impl fmt::Debug for Nursery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nursery").finish_non_exhaustive()
    }
}
