//! A hang behind a front that goes on answering questions, and servers that move while somebody asks.

use std::cell::Cell;
use std::rc::Rc;

use proptest::prelude::*;

use super::stall::{SAMPLE, STALL_AFTER, Scene, bare, counted, server};
use super::*;
use crate::limits::{ASIDE_MAX, STALL_HOLD};

/// A counter that stands still.
fn frozen() -> Scene {
    let mut scene = Scene::new(server(counted()));
    scene.page(|_| Some(28.0));
    scene
}

/// A quarter of a second in which a question comes every `every` quarters and is answered at once.
fn polled(scene: &mut Scene, seconds: u64, every: u64) {
    for turn in 0..seconds * 4 {
        if turn % every == 0 {
            scene.traffic.last_byte = Some(scene.world.now);
            scene.traffic.succeeded += 1;
        }
        scene.run(SAMPLE.as_secs_f64());
    }
}

#[test]
fn a_hang_behind_a_front_that_answers_questions_is_found_where_a_counter_is_named() {
    for every in [1, 4, 12] {
        let mut scene = frozen();
        polled(&mut scene, 7, every);
        scene.begin();
        scene.byte();
        let since = scene.world.now;
        polled(&mut scene, 30, every);
        scene.assert_found_after(since);
        let reason = scene.reason();
        assert!(reason.contains("but for questions and refusals that its front answers"), "{reason}");
        assert!(reason.ends_with("tokens_total frozen at 28"), "{reason}");
    }
}

#[test]
fn without_a_counter_any_answer_is_a_sign_of_life() {
    let mut scene = Scene::new(server(bare()));
    scene.begin();
    polled(&mut scene, 120, 4);
    assert_eq!(scene.condemned_at(), None);
    let last = scene.traffic.last_byte.unwrap();
    scene.run(30.0);
    scene.assert_found_after(last);
}

#[test]
fn the_last_work_moved_the_counter_whatever_was_asked_since() {
    for after_scrape in 0..10 {
        let mut scene = Scene::new(server(counted()));
        scene.run(0.5 * f64::from(after_scrape));
        scene.begin();
        let since = scene.world.now;
        scene.page(move |now| Some(if since <= now { 29.0 } else { 28.0 }));
        scene.byte();
        polled(&mut scene, 30, 2);
        scene.assert_found_after(since);
    }
}

#[test]
fn a_question_that_is_pending_beside_others_is_no_work_pending() {
    let mut scene = frozen();
    scene.begin();
    scene.traffic.work_begun = None;
    polled(&mut scene, 120, 4);
    assert_eq!(scene.condemned_at(), None);
    let last = scene.traffic.last_byte.unwrap();
    scene.run(30.0);
    // Unanswered beside nothing else, it is work like any other.
    scene.assert_found_after(last);
}

#[test]
fn a_page_that_cannot_be_read_leaves_the_hang_hidden_and_says_so() {
    let mut scene = frozen();
    scene.run(7.0);
    scene.world.script("progress", Box::new(|_| Outcome::unknown("it answered 404", ms(1))));
    scene.begin();
    polled(&mut scene, 60, 4);
    assert_eq!(scene.condemned_at(), None);
    assert!(scene.reason().contains("its counter says nothing: it answered 404"), "{}", scene.reason());
}

#[test]
fn impatient_clients_and_a_poller_together_hide_no_hang() {
    let mut scene = frozen();
    scene.traffic.pace = Some(ms(200));
    scene.begin();
    scene.end();
    scene.run(6.0);
    let since = scene.world.now;
    // One every second, each for two seconds: well below the capacity.
    for turn in 0..40u32 {
        scene.traffic.in_flight = 2;
        scene.traffic.oldest_begun = Some(scene.world.now);
        scene.traffic.work_begun = Some(scene.world.now);
        polled(&mut scene, 1, 2);
        if turn > 0 {
            scene.gives_up(secs(2));
        }
    }
    let at = scene.condemned_at().expect("found");
    assert!(at <= since + STALL_AFTER + secs(2), "{at}, hung since {since}");
}

#[test]
fn questions_answered_mend_no_hang_and_work_does() {
    let mut scene = frozen();
    scene.begin();
    polled(&mut scene, 40, 4);
    assert_eq!(scene.world.status(Gate::Health), Status::Fail);
    polled(&mut scene, 40, 4);
    assert_eq!(scene.world.turns(Gate::Health, Status::Fail).len(), 1, "said once, and it stands");
    assert_eq!(scene.world.status(Gate::Health), Status::Fail);
    scene.byte();
    scene.run(1.0);
    assert_eq!(scene.world.status(Gate::Health), Status::Pass);
}

#[test]
fn a_hang_that_only_questions_come_to_is_tried_again_in_the_end() {
    let mut scene = frozen();
    scene.begin();
    polled(&mut scene, 30, 4);
    scene.leave();
    let hold = STALL_HOLD.as_secs();
    polled(&mut scene, hold - 20, 4);
    assert_eq!(scene.world.status(Gate::Health), Status::Fail);
    polled(&mut scene, 30, 4);
    assert_eq!(scene.world.status(Gate::Health), Status::Pass);
}

/// What a server's counter counts.
#[derive(Clone, Copy, Debug)]
enum Counts {
    Arrivals,
    Ends,
    Tokens,
}

/// A request as the proxy sees it.
#[derive(Debug)]
struct Request {
    begun: Time,
    /// Asked by a safe method.
    asks: bool,
    /// The next byte's time, and the pauses before those after it.
    next: Time,
    pauses: Vec<u64>,
    last: Option<Time>,
}

/// A server that works, however slowly, seen through a proxy.
struct Slow {
    scene: Scene,
    counts: Counts,
    counter: Rc<Cell<f64>>,
    pending: Vec<Request>,
    /// A request that never gets a byte.
    stuck: Option<Time>,
    work_byte: Option<Time>,
}

impl Slow {
    fn new(counts: Counts) -> Self {
        let mut scene = Scene::new(server(counted()));
        let counter = Rc::new(Cell::new(0.0));
        let seen = Rc::clone(&counter);
        scene.page(move |_| Some(seen.get()));
        scene.run(6.0);
        Self { scene, counts, counter, pending: Vec::new(), stuck: None, work_byte: None }
    }

    fn comes(&mut self, asks: bool, mut pauses: Vec<u64>) {
        let begun = self.scene.world.now;
        let next = begun + ms(pauses.pop().unwrap_or_default());
        self.pending.push(Request { begun, asks, next, pauses, last: None });
        self.counts(Counts::Arrivals);
    }

    fn counts(&self, what: Counts) {
        let counted = std::mem::discriminant(&what) == std::mem::discriminant(&self.counts);
        self.counter.set(self.counter.get() + f64::from(u8::from(counted)));
    }

    /// A sample's time. `polled`: a question that is no work is answered in it.
    fn step(&mut self, polled: bool) {
        let now = self.scene.world.now;
        let mut due = Vec::new();
        for request in &mut self.pending {
            if request.next <= now {
                request.last = Some(now);
                self.scene.traffic.last_byte = Some(now);
                due.push(request.pauses.is_empty());
                request.next = now + ms(request.pauses.pop().unwrap_or(u64::MAX / 1_000_000_000));
            }
            if !request.asks || ASIDE_MAX <= now.since(request.begun) {
                self.work_byte = self.work_byte.max(request.last);
            }
        }
        for is_last in due {
            self.counts(Counts::Tokens);
            if is_last {
                self.counts(Counts::Ends);
                self.scene.traffic.succeeded += 1;
            }
        }
        self.pending.retain(|request| request.last != Some(now) || request.next < now + secs(1_000_000));
        if polled {
            self.scene.traffic.last_byte = Some(now);
        }
        let traffic = &mut self.scene.traffic;
        let begun = self.pending.iter().map(|request| (request.begun, request.asks));
        let all: Vec<(Time, bool)> = begun.chain(self.stuck.map(|at| (at, false))).collect();
        traffic.in_flight = all.len() as u64;
        traffic.oldest_begun = all.iter().map(|(at, _)| *at).min();
        traffic.work_begun = all.iter().filter(|(_, asks)| !asks).map(|(at, _)| *at).min();
        let quiet = self.pending.iter().map(|request| request.last.unwrap_or(request.begun));
        traffic.quietest_since = quiet.chain(self.stuck).min();
        traffic.work_byte = self.work_byte;
        self.scene.run(SAMPLE.as_secs_f64());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever the counter counts, whoever asks meanwhile, and with one request stuck beside those that move: pauses
    /// up to a second and a half below `stall_after`.
    #[test]
    fn slow_but_moving_is_never_condemned_whatever_the_counter_counts(
        counts in prop_oneof![Just(Counts::Arrivals), Just(Counts::Ends), Just(Counts::Tokens)],
        requests in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(prop_oneof![0..900u64, 0..18_500u64], 1..6), 0..80u8), 1..25),
        stuck in any::<bool>(), poll in 1..20u64,
    ) {
        let mut slow = Slow::new(counts);
        slow.stuck = stuck.then_some(slow.scene.world.now);
        let mut turn = 0;
        for (asks, pauses, wait) in requests {
            slow.comes(asks, pauses);
            // The next comes while this one is at work, or at the latest when none is left.
            for _ in 0..wait {
                if slow.pending.is_empty() {
                    break;
                }
                turn += 1;
                slow.step(turn % poll == 0);
            }
        }
        while !slow.pending.is_empty() {
            turn += 1;
            slow.step(turn % poll == 0);
        }
        prop_assert_eq!(slow.scene.condemned_at(), None, "{}", slow.scene.reason());
    }

    /// Whatever came before, and however often somebody asks.
    #[test]
    fn a_hang_that_questions_hide_is_found_in_time(
        counts in prop_oneof![Just(Counts::Arrivals), Just(Counts::Ends), Just(Counts::Tokens)],
        before in proptest::collection::vec((proptest::collection::vec(0..9_000u64, 1..4), 0..40u8), 0..10),
        poll in 1..20u64,
    ) {
        let mut slow = Slow::new(counts);
        let mut turn = 0;
        for (pauses, wait) in before {
            slow.comes(false, pauses);
            for _ in 0..wait {
                turn += 1;
                slow.step(turn % poll == 0);
            }
        }
        // It stops: what is pending stays, and so does what comes.
        slow.pending.iter_mut().for_each(|request| request.next = Time::from_secs(1_000_000));
        slow.comes(false, vec![1_000_000_000]);
        let came = slow.scene.world.now;
        for _ in 0..30 * 4 {
            turn += 1;
            slow.step(turn % poll == 0);
        }
        let at = slow.scene.condemned_at();
        // One that counts arrivals was moved by the last of them: that is seen by the next regular reading.
        let unseen = if matches!(counts, Counts::Arrivals) { ms(5_500) } else { Duration::ZERO };
        prop_assert!(at.is_some_and(|at| at <= came + unseen + STALL_AFTER + secs(1)), "{at:?}, hung before {came}");
    }
}
