//! Waiting for something outside this process.

use std::time::{Duration, Instant};

/// Long enough for any machine; whoever needs it all is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Looks until there is something to see. Panics with `what` after the deadline.
#[expect(clippy::disallowed_methods, reason = "a process outside cannot be awaited in paused time")]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < DEADLINE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
