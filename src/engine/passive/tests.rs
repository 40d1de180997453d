use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::engine::Failure;

const OPEN: [Door; 3] = [Door::Open; 3];

const fn bearing(doubt: bool, excused: bool) -> Bearing {
    Bearing { doubt, excused, stall_after: Duration::from_secs(5), moved: None }
}

fn plan() -> PassivePlan {
    PassivePlan::default()
}

/// Addresses whose requests a test lets end.
struct Bench {
    passive: Passive,
    ends: Vec<Ends>,
    now: Time,
    excused: bool,
    moves: Vec<Move>,
}

impl Bench {
    fn new(backends: usize) -> Self {
        let now = Time::from_secs(100);
        let ends = vec![Ends::default(); backends];
        let mut bench = Self { passive: Passive::new(now, backends), ends, now, excused: false, moves: Vec::new() };
        bench.sample(&[Door::Open].repeat(backends), false);
        bench
    }

    fn fail(&mut self, backend: usize, times: u64) {
        self.ends[backend].failed += times;
        self.ends[backend].row += times;
        self.ends[backend].failure = Some(Failure::Status(500));
    }

    fn succeed(&mut self, backend: usize, times: u64) {
        self.ends[backend].succeeded += times;
        self.ends[backend].row = 0;
    }

    fn sample(&mut self, doors: &[Door], doubt: bool) {
        let ends = self.ends.clone();
        let bearing = bearing(doubt, self.excused);
        self.passive.told(self.now, &plan(), &ends, doors, &bearing);
        self.moves.extend(self.passive.take_moves());
    }

    fn wait(&mut self, span: Duration, doors: &[Door]) {
        self.now += span;
        self.sample(doors, false);
    }

    fn trust(&self, backend: usize) -> &'static str {
        self.passive.lives[backend].trust.as_str()
    }

    fn ejected_until(&self, backend: usize) -> Time {
        match self.passive.lives[backend].trust {
            Trust::Ejected { until } => until,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_row_of_failures_ejects_and_one_fewer_does_not() {
    let mut bench = Bench::new(3);
    bench.fail(0, 4);
    bench.sample(&OPEN, false);
    assert_eq!(bench.trust(0), "trusted");
    bench.fail(0, 1);
    bench.sample(&OPEN, false);
    assert_eq!(bench.trust(0), "ejected");
    assert_eq!(bench.moves[0].reason, "5 requests failed in a row, the last: status 500");
    assert_eq!(bench.ejected_until(0), bench.now + plan().base_ejection);
    assert_eq!(bench.passive.lives[0].ejections.consecutive_failures, 1);
}

#[test]
fn a_good_end_breaks_the_row_and_the_share_of_the_window_finds_the_rest() {
    let mut bench = Bench::new(3);
    for _ in 0..6 {
        bench.fail(0, 2);
        bench.succeed(0, 1);
        bench.sample(&OPEN, false);
        assert_eq!(bench.trust(0), "trusted");
    }
    bench.fail(0, 2);
    bench.sample(&OPEN, false);
    assert_eq!(bench.trust(0), "ejected");
    assert_eq!(bench.moves[0].reason, "14 of the last 20 requests failed within 30s, the last: status 500");
    assert_eq!(bench.passive.lives[0].ejections.success_ratio, 1);
}

#[test]
fn after_its_time_one_good_trial_brings_it_back_and_a_bad_one_sends_it_away_for_longer() {
    let mut bench = Bench::new(3);
    bench.fail(0, 5);
    bench.sample(&OPEN, false);
    bench.wait(plan().base_ejection, &OPEN);
    assert_eq!(bench.trust(0), "probation");
    bench.ends[0].trials_failed += 1;
    bench.fail(0, 1);
    bench.sample(&OPEN, false);
    assert_eq!(bench.ejected_until(0), bench.now + plan().base_ejection * 2);
    assert_eq!(bench.passive.lives[0].ejections.probation, 1);
    bench.wait(plan().base_ejection * 2, &OPEN);
    bench.ends[0].trials_succeeded += 1;
    bench.succeed(0, 1);
    bench.sample(&OPEN, false);
    assert_eq!(bench.trust(0), "trusted");
    let told: Vec<_> = bench.moves.iter().map(|moved| moved.to).collect();
    assert_eq!(told, ["ejected", "probation", "ejected", "probation", "trusted"]);
}

#[test]
fn what_ended_before_it_was_trusted_again_does_not_count_against_it() {
    let mut bench = Bench::new(3);
    bench.fail(0, 50);
    bench.sample(&OPEN, false);
    bench.wait(plan().base_ejection, &OPEN);
    bench.wait(plan().probation, &OPEN);
    assert_eq!(bench.trust(0), "trusted", "nobody tried it, and its check is up");
    bench.fail(0, 4);
    bench.sample(&OPEN, false);
    assert_eq!(bench.trust(0), "trusted");
    bench.fail(0, 1);
    bench.sample(&OPEN, false);
    assert_eq!(bench.trust(0), "ejected");
}

#[test]
fn the_check_decides_only_where_nobody_tries() {
    let mut bench = Bench::new(3);
    bench.fail(0, 5);
    bench.sample(&OPEN, false);
    bench.wait(plan().base_ejection, &OPEN);
    // A trial that hangs, and whose client leaves in the end, proves nothing either way.
    bench.ends[0].trying = true;
    bench.wait(plan().probation * 5, &OPEN);
    assert_eq!(bench.trust(0), "probation");
    bench.ends[0].trying = false;
    bench.ends[0].trials_unanswered += 1;
    bench.wait(plan().probation / 2, &OPEN);
    bench.wait(plan().probation / 2, &OPEN);
    assert_eq!(bench.trust(0), "probation");
    bench.wait(plan().probation / 2, &[Door::Ajar, Door::Open, Door::Open]);
    assert_eq!(bench.trust(0), "probation", "its check has not said a word");
    bench.wait(Duration::ZERO, &OPEN);
    assert_eq!(bench.trust(0), "trusted");
}

#[test]
fn no_more_than_the_share_is_out_and_the_last_one_never_is() {
    let mut bench = Bench::new(3);
    for backend in 0..3 {
        bench.fail(backend, 100);
    }
    bench.sample(&OPEN, false);
    assert_eq!([0, 1, 2].map(|backend| bench.trust(backend)), ["ejected", "trusted", "trusted"]);
    assert!(bench.passive.lives[1].reason.ends_with("not ejected: as many are out as `max_ejected` allows"));
    let mut two = Bench::new(2);
    two.fail(1, 9);
    two.sample(&[Door::Shut, Door::Open], false);
    assert_eq!(two.trust(1), "trusted");
    assert!(two.passive.lives[1].reason.ends_with("not ejected: no other upstream is left"));
}

#[test]
fn an_ejection_ends_when_the_others_close() {
    let mut bench = Bench::new(2);
    bench.fail(0, 5);
    bench.sample(&OPEN[..2], false);
    assert_eq!(bench.trust(0), "ejected");
    bench.sample(&[Door::Open, Door::Shut], false);
    assert_eq!(bench.trust(0), "trusted");
    assert_eq!(bench.moves.last().unwrap().reason, "no other upstream is left");
}

#[test]
fn what_is_seen_in_doubt_is_no_evidence_not_even_later() {
    let mut bench = Bench::new(3);
    bench.fail(0, 100);
    bench.sample(&OPEN, true);
    bench.sample(&OPEN, false);
    assert_eq!(bench.trust(0), "trusted");
    bench.fail(0, 5);
    bench.sample(&OPEN, false);
    assert_eq!(bench.trust(0), "ejected");
}

#[test]
fn who_was_gone_and_answers_again_is_tried_by_one_request_first() {
    let mut bench = Bench::new(2);
    bench.passive.returned(bench.now, BackendId(1));
    bench.sample(&OPEN[..2], false);
    assert_eq!(bench.trust(1), "probation");
    bench.ends[1].trials_succeeded += 1;
    bench.sample(&OPEN[..2], false);
    assert_eq!(bench.trust(1), "trusted");
    bench.passive.returned(bench.now, BackendId(7));
}

#[test]
fn ejections_grow_to_their_bound_and_are_forgotten_after_a_good_while() {
    let mut bench = Bench::new(2);
    bench.fail(0, 5);
    bench.sample(&OPEN[..2], false);
    for _ in 0..100 {
        let until = bench.ejected_until(0);
        assert!(until <= bench.now + plan().max_ejection);
        bench.wait(until.since(bench.now), &OPEN[..2]);
        bench.ends[0].trials_failed += 1;
        bench.sample(&OPEN[..2], false);
    }
    assert_eq!(bench.ejected_until(0), bench.now + plan().max_ejection);
    bench.wait(plan().max_ejection, &OPEN[..2]);
    bench.ends[0].trials_succeeded += 1;
    bench.sample(&OPEN[..2], false);
    bench.wait(plan().max_ejection, &OPEN[..2]);
    bench.fail(0, 5);
    bench.sample(&OPEN[..2], false);
    assert_eq!(bench.ejected_until(0), bench.now + plan().base_ejection);
}

#[test]
fn counts_that_begin_anew_and_samples_that_are_missing_do_no_harm() {
    let mut bench = Bench::new(2);
    bench.fail(0, 100);
    bench.sample(&OPEN[..2], true);
    bench.ends[0] = Ends { failed: 5, row: 5, ..Ends::default() };
    bench.sample(&OPEN[..2], false);
    assert_eq!(bench.trust(0), "ejected");
    bench.passive.told(bench.now, &plan(), &[], &OPEN[..2], &bearing(false, false));
    bench.passive.told(bench.now, &plan(), &[Ends::default(); 9], &[], &bearing(false, false));
}

#[derive(Clone, Debug)]
enum Op {
    Fail(usize, u64),
    Succeed(usize, u64),
    /// A trial ends well, badly, or without an answer.
    Trial(usize, u8),
    Trying(usize, bool),
    Door(usize, u8),
    Sample(bool),
    Wait(u64),
    Returned(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let at = || 0..4_usize;
    let op = prop_oneof![
        4 => (at(), 1..12_u64).prop_map(|(at, times)| Op::Fail(at, times)),
        2 => (at(), 1..12_u64).prop_map(|(at, times)| Op::Succeed(at, times)),
        3 => (at(), 0..3_u8).prop_map(|(at, how)| Op::Trial(at, how)),
        1 => (at(), any::<bool>()).prop_map(|(at, on)| Op::Trying(at, on)),
        2 => (at(), 0..3_u8).prop_map(|(at, door)| Op::Door(at, door)),
        8 => prop::bool::weighted(0.1).prop_map(Op::Sample),
        4 => (0..15_000_u64).prop_map(Op::Wait),
        1 => at().prop_map(Op::Returned),
    ];
    vec(op, 0..150)
}

/// Runs the operations and checks the laws after each; returns what was told.
fn obey(backends: usize, ops: &[Op]) -> Vec<Move> {
    let mut bench = Bench::new(backends);
    let mut doors = vec![Door::Open; backends];
    let mut returned = 0;
    for op in ops {
        let told = bench.moves.len();
        let mut doubt = false;
        match *op {
            Op::Fail(at, times) => bench.fail(at % backends, times),
            Op::Succeed(at, times) => bench.succeed(at % backends, times),
            Op::Trial(at, how) => {
                let ends = &mut bench.ends[at % backends];
                *[&mut ends.trials_succeeded, &mut ends.trials_failed, &mut ends.trials_unanswered]
                    [usize::from(how)] += 1;
            }
            Op::Trying(at, on) => bench.ends[at % backends].trying = on,
            Op::Door(at, door) => doors[at % backends] = [Door::Shut, Door::Ajar, Door::Open][usize::from(door)],
            Op::Sample(on) => doubt = on,
            Op::Wait(millis) => bench.now += Duration::from_millis(millis),
            Op::Returned(at) => {
                bench.passive.returned(bench.now, BackendId((at % backends) as u32));
                returned += 1;
            }
        }
        bench.sample(&doors, doubt);
        let lives = &bench.passive.lives;
        let open = |index: &usize| doors[*index] != Door::Shut;
        let trusted = (0..backends).filter(open).any(|index| lives[index].trust == Trust::Full);
        assert!(trusted || !(0..backends).any(|index| open(&index)), "an open address, and none is trusted");
        let out = lives.iter().filter(|life| life.trust != Trust::Full).count();
        assert!(out <= most_out(&plan(), backends) + returned, "{out} of {backends} are out");
        let wake = bench.passive.wake(bench.now, &plan());
        assert!(wake.is_none_or(|at| bench.now < at), "a wake-up in the past");
        for moved in &bench.moves[told..] {
            assert!(!doubt || moved.to != "ejected", "ejected in doubt");
            assert!(moved.from != moved.to || moved.to == "probation", "{moved:?} tells nothing");
        }
    }
    bench.moves
}

proptest! {
    #[test]
    fn whatever_happens_one_open_address_is_trusted_and_the_share_is_kept(backends in 2..5_usize, ops in ops()) {
        let told = obey(backends, &ops);
        prop_assert_eq!(told, obey(backends, &ops), "the same twice");
    }
}

/// So many samples, as often as the driver takes them.
fn samples(bench: &mut Bench, count: u32) {
    (0..count).for_each(|_| bench.wait(Duration::from_millis(250), &OPEN));
}

#[test]
fn an_address_that_is_silent_with_work_pending_leaves_and_is_named_while_the_others_serve() {
    let mut bench = Bench::new(3);
    bench.ends[1].pending = 2;
    samples(&mut bench, 20);
    assert_eq!(bench.trust(1), "trusted");
    samples(&mut bench, 1);
    assert_eq!(bench.trust(1), "ejected");
    assert_eq!(bench.moves.last().map(|moved| moved.reason.as_str()), Some("no byte for 5s with 2 requests pending"));
    assert_eq!(bench.passive.lives[1].ejections.silence, 1);
    // On probation it is as silent as before, and leaves again at once and for longer.
    samples(&mut bench, 41);
    assert_eq!((bench.trust(1), bench.passive.lives[1].ejections.silence), ("ejected", 2));
    // It moves: the next request decides.
    bench.ends[1].last_byte = Some(bench.now);
    samples(&mut bench, 80);
    assert_eq!(bench.trust(1), "probation");
    bench.ends[1].trials_succeeded += 1;
    samples(&mut bench, 1);
    assert_eq!(bench.trust(1), "trusted");
}

#[test]
fn clients_that_give_up_one_after_the_other_wait_all_in_all_and_nobody_waits_between_them() {
    let mut bench = Bench::new(3);
    for _ in 0..4 {
        bench.ends[1].pending = 1;
        samples(&mut bench, 5);
        bench.ends[1].pending = 0;
        samples(&mut bench, 40);
        assert_eq!(bench.trust(1), "trusted");
    }
    // Each was seen for a second, from its first sample to its last.
    bench.ends[1].pending = 1;
    samples(&mut bench, 4);
    assert_eq!(bench.trust(1), "trusted");
    samples(&mut bench, 1);
    assert_eq!(bench.trust(1), "ejected");
    // The next one has rested for so long that nothing is remembered.
    bench.ends[2].pending = 1;
    samples(&mut bench, 16);
    bench.ends[2].pending = 0;
    samples(&mut bench, 241);
    bench.ends[2].pending = 1;
    samples(&mut bench, 16);
    assert_eq!(bench.trust(2), "trusted");
}

#[test]
fn silence_that_is_excused_or_seen_in_doubt_ejects_nobody() {
    let mut bench = Bench::new(3);
    bench.ends[1].pending = 1;
    bench.excused = true;
    samples(&mut bench, 240);
    bench.excused = false;
    for _ in 0..40 {
        bench.now += Duration::from_millis(250);
        bench.sample(&OPEN, true);
    }
    assert_eq!(bench.trust(1), "trusted");
    samples(&mut bench, 20);
    assert_eq!(bench.trust(1), "ejected");
}

#[test]
fn the_last_address_stays_however_silent_it_is() {
    let mut bench = Bench::new(3);
    bench.ends.iter_mut().for_each(|ends| ends.pending = 1);
    samples(&mut bench, 60);
    let trusted = (0..3).filter(|&backend| bench.trust(backend) == "trusted").count();
    assert!(trusted >= 1, "{:?}", bench.moves);
}
