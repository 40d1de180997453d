//! Who goes on at once, who waits, and who is sent away.
//!
//! A gate has as many places as requests may be in flight; a queue before it is bounded by count, bytes and
//! time, first come first served over all workers. While the model server starts or is gone, a request may be
//! held for a bounded time. Without a limit and while all is well, nothing here costs a request anything.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::Passage;
use super::connection::Conn;
use super::refusal::Reason;
use crate::config::Queue;
use crate::limits;

/// The places of one limit. Kept over reloads, so that who is inside still counts.
#[derive(Debug)]
pub(super) struct Gate {
    places: Semaphore,
    max: AtomicUsize,
    /// Places taken away by a reload while somebody held them.
    owed: AtomicUsize,
    waiting: AtomicUsize,
    waiting_bytes: AtomicU64,
}

/// A place inside, given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Gate>);

/// How a request is to be admitted.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) gate: Option<Arc<Gate>>,
    pub(super) queue: Option<Queue>,
    pub(super) hold: Option<Duration>,
}

impl Gate {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Semaphore::new(max),
            max: AtomicUsize::new(max),
            owed: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicU64::new(0),
        })
    }

    /// Takes over a new limit, from one thread at a time.
    pub(super) fn resize(&self, max: usize) {
        let before = self.max.swap(max, Relaxed);
        if max < before {
            let taken = self.places.forget_permits(before - max);
            self.owed.fetch_add(before - max - taken, Relaxed);
        }
        for _ in before..max {
            self.give_back();
        }
    }

    /// A place, if one is free and nobody waits for it.
    pub(super) fn try_enter(self: &Arc<Self>) -> Option<Place> {
        self.places.try_acquire().ok()?.forget();
        Some(Place(Arc::clone(self)))
    }

    async fn enter(self: &Arc<Self>, queue: Option<&Queue>, bytes: u64, until: Instant) -> Result<Place, Reason> {
        if let Some(place) = self.try_enter() {
            return Ok(place);
        }
        let queue = queue.ok_or(Reason::QueueFull)?;
        let _waiting = InLine::join(self, queue, bytes).ok_or(Reason::QueueFull)?;
        match timeout_at(until, self.places.acquire()).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(Place(Arc::clone(self)))
            }
            // The gate is never closed.
            Ok(Err(_)) | Err(_) => Err(Reason::QueueTimeout),
        }
    }

    fn give_back(&self) {
        if self.owed.fetch_update(Relaxed, Relaxed, |owed| owed.checked_sub(1)).is_err() {
            self.places.add_permits(1);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// A place in the line before a gate.
struct InLine<'a> {
    gate: &'a Gate,
    bytes: u64,
}

impl<'a> InLine<'a> {
    fn join(gate: &'a Gate, queue: &Queue, bytes: u64) -> Option<Self> {
        // Counted first and looked at then, so that two who come at once cannot both take the last place.
        let line = Self { gate, bytes };
        let count = gate.waiting.fetch_add(1, Relaxed);
        let sum = gate.waiting_bytes.fetch_add(bytes, Relaxed);
        (count < queue.max && queue.max_bytes.is_none_or(|max| sum.saturating_add(bytes) <= max)).then_some(line)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.gate.waiting.fetch_sub(1, Relaxed);
        self.gate.waiting_bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// The way without waiting: `None` says that there is none now.
pub(super) fn at_once(passage: Passage, terms: &Terms) -> Option<Option<Place>> {
    match (passage, &terms.gate) {
        (Passage::Open, None) => Some(None),
        (Passage::Open, Some(gate)) => gate.try_enter().map(Some),
        _ => None,
    }
}

/// The way with waiting, where the terms allow it. `bytes`: what the request's body will weigh.
pub(super) async fn wait(conn: &Rc<Conn>, terms: &Terms, bytes: u64) -> Result<Option<Place>, Reason> {
    let shared = &conn.worker.shared;
    let now = shared.clock.instant(conn.worker.now());
    let held_until = terms.hold.map(|hold| now + hold);
    let queued_until = now + terms.queue.map_or(Duration::ZERO, |queue| queue.timeout);
    loop {
        pass(conn, held_until).await?;
        if shared.passage() == Passage::Trial {
            return shared.trial.try_enter().map(Some).ok_or(Reason::NotReady);
        }
        let Some(gate) = &terms.gate else { return Ok(None) };
        let place = {
            let _queued = conn.worker.counters().queue();
            gate.enter(terms.queue.as_ref(), bytes, queued_until).await?
        };
        // The judgement may have changed meanwhile.
        if shared.passage() == Passage::Open {
            return Ok(Some(place));
        }
    }
}

/// Until requests may pass, or for as long as they may be held.
async fn pass(conn: &Conn, until: Option<Instant>) -> Result<(), Reason> {
    let shared = &conn.worker.shared;
    let _held = conn.worker.counters().hold();
    loop {
        let changed = shared.changed.notified();
        let reason = match shared.passage() {
            Passage::Open | Passage::Trial => return Ok(()),
            Passage::Draining => return Err(Reason::Draining),
            Passage::NotReady => return Err(Reason::NotReady),
            Passage::Loading => Reason::NotReady,
        };
        let until = until.ok_or(reason)?;
        if limits::HELD_MAX < conn.worker.counters().held() {
            return Err(reason);
        }
        timeout_at(until, changed).await.map_err(|_elapsed| reason)?;
    }
}

/// Waits a little for a model server that cannot be reached, if requests may still be held: `began` is when
/// this one came.
pub(super) async fn pause(conn: &Conn, began: crate::engine::Time, hold: Option<Duration>) -> bool {
    let shared = &conn.worker.shared;
    let over = hold.is_none_or(|hold| hold <= conn.worker.now().since(began));
    if over || shared.passage() == Passage::Draining {
        return false;
    }
    let _held = conn.worker.counters().hold();
    let _ = tokio::time::timeout(limits::HOLD_STEP, shared.changed.notified()).await;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn queue(max: usize, max_bytes: Option<u64>) -> Queue {
        Queue { max, max_bytes, timeout: Duration::from_secs(5) }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test(start_paused = true)]
    async fn places_go_to_those_who_wait_in_the_order_in_which_they_came() {
        let gate = Gate::new(1);
        let inside = gate.try_enter().unwrap();
        let order = std::cell::RefCell::new(Vec::new());
        let come = |name: u8| {
            let (gate, order) = (&gate, &order);
            async move {
                let place = gate.enter(Some(&queue(9, None)), 0, soon()).await.unwrap();
                order.borrow_mut().push(name);
                tokio::task::yield_now().await;
                drop(place);
            }
        };
        let leave = async { drop(inside) };
        tokio::join!(come(1), come(2), come(3), leave);
        assert_eq!(*order.borrow(), [1, 2, 3]);
        assert!(gate.try_enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_bounded_by_count_by_bytes_and_by_time() {
        let gate = Gate::new(1);
        let _inside = gate.try_enter().unwrap();
        let narrow = queue(1, Some(100));
        let waiting = gate.enter(Some(&narrow), 60, soon());
        let second = async {
            assert_eq!(gate.enter(Some(&narrow), 0, soon()).await.unwrap_err(), Reason::QueueFull);
            let heavy = queue(9, Some(100));
            assert_eq!(gate.enter(Some(&heavy), 41, soon()).await.unwrap_err(), Reason::QueueFull);
        };
        let (first, ()) = tokio::join!(waiting, second);
        assert_eq!(first.unwrap_err(), Reason::QueueTimeout);
        assert_eq!((gate.waiting.load(Relaxed), gate.waiting_bytes.load(Relaxed)), (0, 0));
        assert_eq!(gate.enter(None, 0, soon()).await.unwrap_err(), Reason::QueueFull);
    }

    #[test]
    fn a_new_limit_counts_who_is_inside_already() {
        let gate = Gate::new(2);
        let (first, second) = (gate.try_enter().unwrap(), gate.try_enter().unwrap());
        gate.resize(1);
        drop(first);
        assert!(gate.try_enter().is_none(), "one is inside, and one is the limit");
        drop(second);
        let only = gate.try_enter().unwrap();
        assert!(gate.try_enter().is_none());
        gate.resize(2);
        assert!(gate.try_enter().is_some());
        drop(only);
    }
}
