//! The machine's monotonic clock, which every process of a run shares: the backend stamps a token with it and
//! the generator, another process, reads how long the token took.
//!
//! The crate's own clock counts from its process's start and cannot be compared across processes.

use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Nanoseconds since some moment before this machine's processes began.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Until `at`, to the runtime's millisecond: for what is not itself measured.
pub(crate) async fn sleep_until(at: u64) {
    tokio::time::sleep(Duration::from_nanos(at.saturating_sub(now()))).await;
}

/// Wakes the connections of one generator thread on time, finer than the runtime's own millisecond: one
/// timer of the kernel's, set to the earliest of those that wait.
#[derive(Clone)]
pub(crate) struct Ticker(Rc<Shared>);

struct Shared {
    waiting: RefCell<BinaryHeap<Reverse<Waiting>>>,
    timer: AsyncFd<OwnedFd>,
}

struct Waiting {
    due: u64,
    waker: Waker,
}

impl Ticker {
    /// A ticker and the task that drives it; within a `LocalSet`.
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types that may swap their descriptor; an `OwnedFd` does not"
    )]
    pub(crate) fn start() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let shared = Rc::new(Shared { waiting: RefCell::default(), timer: AsyncFd::new(timer)? });
        tokio::task::spawn_local(drive(Rc::clone(&shared)));
        Ok(Self(shared))
    }

    /// Resolves at `due`, at once if it has passed.
    pub(crate) fn until(&self, due: u64) -> Until<'_> {
        Until { shared: &self.0, due, queued: false }
    }
}

async fn drive(shared: Rc<Shared>) {
    loop {
        let Ok(mut ready) = shared.timer.readable().await else { return };
        let mut fired = [0; 8];
        // Nothing to read means that the timer was set again meanwhile.
        let _ = rustix::io::read(shared.timer.get_ref(), &mut fired);
        ready.clear_ready();
        let now = now();
        let mut waiting = shared.waiting.borrow_mut();
        while waiting.peek().is_some_and(|Reverse(first)| first.due <= now) {
            if let Some(Reverse(first)) = waiting.pop() {
                first.waker.wake();
            }
        }
        if let Some(Reverse(first)) = waiting.peek() {
            arm(&shared.timer, first.due);
        }
    }
}

fn arm(timer: &AsyncFd<OwnedFd>, due: u64) {
    let at = Timespec {
        tv_sec: i64::try_from(due / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(due % 1_000_000_000).unwrap_or(0),
    };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
    // It cannot fail: the descriptor is a timer and the time is in range.
    let _ = timerfd_settime(timer.get_ref(), TimerfdTimerFlags::ABSTIME, &once);
}

pub(crate) struct Until<'a> {
    shared: &'a Shared,
    due: u64,
    queued: bool,
}

impl Future for Until<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.due <= now() {
            return Poll::Ready(());
        }
        if !self.queued {
            self.queued = true;
            let mut waiting = self.shared.waiting.borrow_mut();
            let first = waiting.peek().is_none_or(|Reverse(first)| self.due < first.due);
            waiting.push(Reverse(Waiting { due: self.due, waker: context.waker().clone() }));
            if first {
                arm(&self.shared.timer, self.due);
            }
        }
        Poll::Pending
    }
}

impl Eq for Waiting {}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.due.cmp(&other.due)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
