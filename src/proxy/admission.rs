//! Who goes on at once, who waits, and who is sent away.
//!
//! A gate has as many places as requests may be in flight; a queue before it is bounded by count, bytes and
//! time, by priority and then first come first served over all workers. While the model server starts or is
//! gone, a request may be held for a bounded time. While all is well, nothing here makes a request wait.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Passage;
use super::connection::Conn;
use super::line::Applicant;
use super::places::{Gate, Place};
use super::refusal::Reason;
use crate::config::Queue;
use crate::limits;

/// How a request is to be admitted.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) gate: Arc<Gate>,
    /// Where it is counted besides: its route has no limit, but may get one.
    pub(super) tally: Option<Arc<Gate>>,
    pub(super) queue: Option<Queue>,
    pub(super) hold: Option<Duration>,
}

/// The way without waiting. The terms come back where there is none now.
pub(super) fn at_once(passage: Passage, terms: Terms) -> Result<Place, Terms> {
    let place = if passage == Passage::Open { terms.gate.try_enter() } else { None };
    match place {
        Some(place) => Ok(place.counted_at(terms.tally.as_ref())),
        None => Err(terms),
    }
}

/// The way with waiting, where the terms allow it.
pub(super) async fn wait(conn: &Rc<Conn>, terms: &Terms, who: Applicant) -> Result<Place, Reason> {
    let shared = &conn.worker.shared;
    let now = shared.clock.instant(conn.worker.now());
    let held_until = terms.hold.map(|hold| now + hold);
    let queued_until = now + terms.queue.map_or(Duration::ZERO, |queue| queue.timeout);
    loop {
        pass(conn, held_until).await?;
        if shared.passage() == Passage::Trial {
            let place = shared.trial.try_enter().ok_or(Reason::NotReady)?;
            return Ok(place.counted_at(Some(&terms.gate)));
        }
        let place = {
            let _queued = conn.worker.counters().queue(conn.worker.now());
            terms.gate.enter(who, terms.queue.as_ref(), queued_until).await?
        };
        // The judgement may have changed meanwhile.
        // Saturated since then: whoever waited was there before.
        if matches!(shared.passage(), Passage::Open | Passage::Saturated) {
            return Ok(place.counted_at(terms.tally.as_ref()));
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
            Passage::Saturated => return Err(Reason::Saturated),
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
