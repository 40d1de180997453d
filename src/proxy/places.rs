//! The places of one limit: how many are inside, and who is let in next.
//!
//! Without a limit, or while there is room, a place is taken and given back by one atomic step, from any
//! worker. Only where somebody waits is there a lock, and it is held for the time of a look at the line.
//!
//! The invariant: while somebody waits, no place is free. Whoever would break it, by giving a place back or
//! by raising the limit, hands the place on instead.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::line::{Applicant, Line, Stand};
use super::refusal::Reason;
use crate::config::Queue;

const ONE_INSIDE: u64 = 1;
const ONE_WAITING: u64 = 1 << 32;
const UNLIMITED: u32 = u32::MAX;

/// The places of one limit. Kept over reloads, so that who is inside still counts; without a limit it counts too,
/// so that one set later finds everybody.
#[derive(Debug)]
pub(super) struct Gate {
    /// How many are inside, and above them how many wait.
    state: AtomicU64,
    max: AtomicU32,
    line: Mutex<Line<oneshot::Sender<Word>>>,
}

/// A place inside, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    /// Where it is counted besides, without asking for room.
    tally: Option<Arc<Gate>>,
}

/// What somebody who waits is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Word {
    /// The place is yours already.
    Enter,
    /// Somebody took your stand who goes before you.
    Leave,
}

/// Somebody in the line. Dropped, it leaves, and hands on what it was given too late.
struct Waiting<'a> {
    gate: &'a Gate,
    stand: Stand,
    word: oneshot::Receiver<Word>,
    told: bool,
}

enum Joined<'a> {
    Inside,
    Waiting(Waiting<'a>),
}

impl Place {
    /// The same place, counted at another gate too.
    pub(super) fn counted_at(mut self, tally: Option<&Arc<Gate>>) -> Self {
        if let Some(tally) = tally {
            tally.state.fetch_add(ONE_INSIDE, AcqRel);
            self.tally = Some(Arc::clone(tally));
        }
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.give_back();
        if let Some(tally) = &self.tally {
            tally.give_back();
        }
    }
}

impl Gate {
    pub(super) fn new(max: Option<usize>) -> Arc<Self> {
        Arc::new(Self { state: AtomicU64::new(0), max: AtomicU32::new(limit(max)), line: Mutex::default() })
    }

    /// Takes over a new limit, and lets in whoever it has room for. Above a lower one nobody is sent away.
    pub(super) fn resize(&self, max: Option<usize>) {
        self.max.store(limit(max), Release);
        let mut line = self.line();
        let mut state = self.state.load(Acquire);
        while waiting(state) > 0 && inside(state) < self.max.load(Acquire) {
            match self.swap(state, state - ONE_WAITING + ONE_INSIDE) {
                Ok(()) => {
                    tell_next(&mut line);
                    state = self.state.load(Acquire);
                }
                Err(now) => state = now,
            }
        }
    }

    /// A place, if one is free: then nobody waits for it.
    pub(super) fn try_enter(self: &Arc<Self>) -> Option<Place> {
        self.step_in().then(|| self.place())
    }

    /// A place, at once or in turn. Without a queue there is no waiting.
    pub(super) async fn enter(
        self: &Arc<Self>,
        who: Applicant,
        queue: Option<&Queue>,
        until: Instant,
    ) -> Result<Place, Reason> {
        if let Some(place) = self.try_enter() {
            return Ok(place);
        }
        let queue = queue.ok_or(Reason::QueueFull)?;
        let mut waiting = match self.join(who, queue)? {
            Joined::Inside => return Ok(self.place()),
            Joined::Waiting(waiting) => waiting,
        };
        let word = timeout_at(until, &mut waiting.word).await.map_err(|_elapsed| Reason::QueueTimeout)?;
        waiting.told = true;
        match word {
            Ok(Word::Enter) => Ok(self.place()),
            // A sender is never dropped without a word: the line lives as long as its gate.
            Ok(Word::Leave) | Err(_) => Err(Reason::QueueFull),
        }
    }

    fn place(self: &Arc<Self>) -> Place {
        Place { gate: Arc::clone(self), tally: None }
    }

    fn step_in(&self) -> bool {
        let mut state = self.state.load(Acquire);
        loop {
            if waiting(state) > 0 || inside(state) >= self.max.load(Acquire) {
                return false;
            }
            match self.swap(state, state + ONE_INSIDE) {
                Ok(()) => return true,
                Err(now) => state = now,
            }
        }
    }

    fn join(&self, who: Applicant, queue: &Queue) -> Result<Joined<'_>, Reason> {
        let (tell, word) = oneshot::channel();
        let mut line = self.line();
        let mut state = self.state.load(Acquire);
        // While we hold the lock nobody else makes somebody wait, but places still come back.
        loop {
            let room = waiting(state) == 0 && inside(state) < self.max.load(Acquire);
            match self.swap(state, if room { state + ONE_INSIDE } else { state + ONE_WAITING }) {
                Ok(()) if room => return Ok(Joined::Inside),
                Ok(()) => break,
                Err(now) => state = now,
            }
        }
        let Some((stand, left)) = line.join(who, tell, queue) else {
            self.stop_waiting(1);
            return Err(Reason::QueueFull);
        };
        self.stop_waiting(left.len());
        for told in left {
            // Whoever does not listen any more leaves by itself.
            let _ = told.send(Word::Leave);
        }
        drop(line);
        Ok(Joined::Waiting(Waiting { gate: self, stand, word, told: false }))
    }

    /// So many wait no more. Call it under the lock.
    fn stop_waiting(&self, count: usize) {
        // As many as were counted before.
        self.state.fetch_sub(ONE_WAITING * count as u64, AcqRel);
    }

    fn give_back(&self) {
        let mut state = self.state.load(Acquire);
        while waiting(state) == 0 {
            match self.swap(state, state - ONE_INSIDE) {
                Ok(()) => return,
                Err(now) => state = now,
            }
        }
        self.hand_on();
    }

    /// Gives a place back, to whoever is next.
    fn hand_on(&self) {
        let mut line = self.line();
        let mut state = self.state.load(Acquire);
        loop {
            // Above a limit that was lowered, a place goes.
            let hand_on = waiting(state) > 0 && inside(state) <= self.max.load(Acquire);
            match self.swap(state, if hand_on { state - ONE_WAITING } else { state - ONE_INSIDE }) {
                Ok(()) if hand_on => return tell_next(&mut line),
                Ok(()) => return,
                Err(now) => state = now,
            }
        }
    }

    fn swap(&self, from: u64, to: u64) -> Result<(), u64> {
        self.state.compare_exchange_weak(from, to, AcqRel, Acquire).map(|_| ())
    }

    fn line(&self) -> MutexGuard<'_, Line<oneshot::Sender<Word>>> {
        // Nothing panics while it is held.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Under the lock, with the place taken already: whoever leaves meanwhile finds the word, and hands on.
fn tell_next(line: &mut Line<oneshot::Sender<Word>>) {
    if let Some(next) = line.next() {
        let _ = next.send(Word::Enter);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let mut line = self.gate.line();
        if line.remove(self.stand).is_some() {
            self.gate.stop_waiting(1);
            return;
        }
        drop(line);
        if self.word.try_recv() == Ok(Word::Enter) {
            self.gate.give_back();
        }
    }
}

fn limit(max: Option<usize>) -> u32 {
    max.map_or(UNLIMITED, |max| u32::try_from(max).unwrap_or(UNLIMITED))
}

const fn inside(state: u64) -> u32 {
    state as u32
}

const fn waiting(state: u64) -> u32 {
    (state >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    use super::*;

    const fn queue(max: usize, max_bytes: Option<u64>) -> Queue {
        Queue { max, max_bytes, timeout: Duration::from_secs(5) }
    }

    const fn by(flow: u64) -> Applicant {
        Applicant { priority: 0, bytes: 0, flow }
    }

    const fn heavy(bytes: u64) -> Applicant {
        Applicant { priority: 0, bytes, flow: 0 }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn counts(gate: &Gate) -> (u32, u32) {
        let state = gate.state.load(Acquire);
        (inside(state), waiting(state))
    }

    #[tokio::test(start_paused = true)]
    async fn places_go_to_those_who_wait_higher_first_and_equals_in_the_order_in_which_they_came() {
        let gate = Gate::new(Some(1));
        let inside = gate.try_enter().unwrap();
        let order = std::cell::RefCell::new(Vec::new());
        let come = |name: u8, priority: i8| {
            let (gate, order) = (&gate, &order);
            async move {
                let who = Applicant { priority, ..by(u64::from(name)) };
                let place = gate.enter(who, Some(&queue(9, None)), soon()).await.unwrap();
                order.borrow_mut().push(name);
                tokio::task::yield_now().await;
                drop(place);
            }
        };
        let leave = async { drop(inside) };
        tokio::join!(come(1, 0), come(2, 0), come(3, 7), leave);
        assert_eq!(*order.borrow(), [3, 1, 2]);
        assert_eq!(counts(&gate), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_bounded_by_count_by_bytes_and_by_time() {
        let gate = Gate::new(Some(1));
        let _inside = gate.try_enter().unwrap();
        let narrow = queue(1, Some(100));
        let waiting = gate.enter(heavy(60), Some(&narrow), soon());
        let second = async {
            assert_eq!(gate.enter(heavy(0), Some(&narrow), soon()).await.unwrap_err(), Reason::QueueFull);
            let wide = queue(9, Some(100));
            assert_eq!(gate.enter(heavy(41), Some(&wide), soon()).await.unwrap_err(), Reason::QueueFull);
        };
        let (first, ()) = tokio::join!(waiting, second);
        assert_eq!(first.unwrap_err(), Reason::QueueTimeout);
        assert_eq!((counts(&gate), gate.line().bytes()), ((1, 0), 0));
        assert_eq!(gate.enter(by(1), None, soon()).await.unwrap_err(), Reason::QueueFull);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_pushed_out_hears_it_at_once() {
        let gate = Gate::new(Some(1));
        let inside = gate.try_enter().unwrap();
        let narrow = queue(1, None);
        let low = gate.enter(by(1), Some(&narrow), soon());
        let high = async {
            let place = gate.enter(Applicant { priority: 1, ..by(2) }, Some(&narrow), soon()).await;
            place.map(drop)
        };
        let before = Instant::now();
        let low = async { (low.await.unwrap_err(), Instant::now()) };
        let leave = async {
            tokio::task::yield_now().await;
            drop(inside);
        };
        let (low, high, ()) = tokio::join!(low, high, leave);
        assert_eq!((low, high), ((Reason::QueueFull, before), Ok(())));
        assert_eq!(counts(&gate), (0, 0));
    }

    #[test]
    fn a_new_limit_counts_who_is_inside_already() {
        for before in [Some(2), None] {
            let gate = Gate::new(before);
            let (first, second) = (gate.try_enter().unwrap(), gate.try_enter().unwrap());
            gate.resize(Some(1));
            drop(first);
            assert!(gate.try_enter().is_none(), "one is inside, and one is the limit");
            drop(second);
            let only = gate.try_enter().unwrap();
            assert!(gate.try_enter().is_none());
            gate.resize(Some(2));
            assert!(gate.try_enter().is_some());
            drop(only);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_higher_limit_lets_in_who_waits() {
        for after in [Some(3), None] {
            let gate = Gate::new(Some(1));
            let _inside = gate.try_enter().unwrap();
            let wide = queue(9, None);
            let (first, second) = (gate.enter(by(1), Some(&wide), soon()), gate.enter(by(2), Some(&wide), soon()));
            let raise = async { gate.resize(after) };
            let (first, second, ()) = tokio::join!(first, second, raise);
            assert!(first.is_ok() && second.is_ok());
            assert_eq!(counts(&gate), (3, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_as_its_turn_comes_hands_the_place_on() {
        let gate = Gate::new(Some(1));
        let inside = gate.try_enter().unwrap();
        let wide = queue(9, None);
        let mut first = Box::pin(gate.enter(by(1), Some(&wide), soon()));
        let mut second = Box::pin(gate.enter(by(2), Some(&wide), soon()));
        for waiting in [&mut first, &mut second] {
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending()));
            assert!(polled.await);
        }
        drop(inside);
        // It was given the place, and never looked.
        drop(first);
        assert!(second.await.is_ok());
        assert_eq!(counts(&gate), (0, 0));
    }

    #[test]
    fn a_tally_counts_what_another_gate_let_in() {
        let (gate, tally) = (Gate::new(Some(5)), Gate::new(None));
        let place = gate.try_enter().unwrap().counted_at(Some(&tally));
        tally.resize(Some(1));
        assert!(tally.try_enter().is_none());
        drop(place);
        assert!(tally.try_enter().is_some());
        assert_eq!(counts(&gate), (0, 0));
    }

    #[test]
    fn many_threads_never_exceed_the_limit_and_leave_nothing_behind() {
        let gate = Gate::new(Some(3));
        let (inside, served, refused) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let come = |turn: u64| {
            let (gate, inside, served, refused) = (&gate, &inside, &served, &refused);
            async move {
                let narrow = Queue { max: 4, max_bytes: None, timeout: Duration::ZERO };
                // Every third gives up about when its turn comes.
                let patience =
                    if turn.is_multiple_of(3) { Duration::from_micros(turn % 50) } else { Duration::from_secs(20) };
                let who = Applicant { priority: (turn % 5) as i8, bytes: turn % 7, flow: turn % 2 };
                match gate.enter(who, Some(&narrow), Instant::now() + patience).await {
                    Ok(place) => {
                        assert!(inside.fetch_add(1, Relaxed) < 3, "above the limit");
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Relaxed);
                        drop(place);
                        served.fetch_add(1, Relaxed);
                    }
                    Err(_) => {
                        refused.fetch_add(1, Relaxed);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for worker in 0..4_u64 {
                let come = &come;
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                    runtime.block_on(async {
                        for turn in 0..200 {
                            let turn = worker * 1000 + turn * 3;
                            tokio::join!(come(turn), come(turn + 1), come(turn + 2));
                        }
                    });
                });
            }
        });
        assert_eq!(served.load(Relaxed) + refused.load(Relaxed), 4 * 200 * 3);
        assert!(served.load(Relaxed) > 0);
        assert_eq!((counts(&gate), gate.line().bytes()), ((0, 0), 0));
    }
}
