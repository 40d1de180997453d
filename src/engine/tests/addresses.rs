//! Several upstream addresses of which some hang, judged as a whole.

use super::stall::{SAMPLE, STALL_AFTER, Scene, bare, counted, server};
use super::*;

/// Two addresses, each with its own check, and requests pending at each of them.
struct Pair {
    scene: Scene,
    ends: [Ends; 2],
}

impl Pair {
    fn new(rule: ProgressPlan) -> Self {
        let mut plan = server(rule);
        plan.checks.push(CheckPlan { subject: Subject::Backend(BackendId(1)), ..check("other") });
        plan.backends.push(BackendPlan { address: "127.0.0.1:8001".to_owned(), check: CheckId(2) });
        plan.passive = Some(PassivePlan::default());
        let mut pair = Self { scene: Scene::new(plan), ends: [Ends::default(); 2] };
        pair.scene.page(|_| Some(28.0));
        pair.run(6.0);
        pair
    }

    fn run(&mut self, secs: f64) {
        let until = self.scene.world.now + Duration::from_secs_f64(secs);
        while self.scene.world.now < until {
            self.scene.world.input(Input::Ends(self.ends.to_vec()));
            self.scene.run(SAMPLE.as_secs_f64());
        }
    }

    fn begin(&mut self, at: usize) {
        self.ends[at].pending += 1;
        self.scene.begin();
    }

    fn assert_found_from_here(&mut self) {
        let since = self.scene.world.now;
        self.run(30.0);
        self.scene.assert_found_after(since);
    }

    fn state(&mut self, at: usize) -> BackendState {
        self.scene.world.engine.snapshot().backends[at].state
    }
}

#[test]
fn one_that_hangs_with_nothing_else_in_flight_is_put_out_and_condemns_nobody() {
    for rule in [bare(), counted()] {
        let mut pair = Pair::new(rule);
        pair.begin(0);
        pair.run(STALL_AFTER.as_secs_f64() + 2.0);
        assert_eq!(pair.state(0), BackendState::Ejected);
        let reason = pair.scene.reason();
        assert!(reason.ends_with("but 127.0.0.1:8000 hangs alone: another upstream stands ready"), "{reason}");
        pair.run(300.0);
        assert_eq!(pair.scene.condemned_at(), None);
    }
}

#[test]
fn both_that_hang_condemn_the_whole_in_time() {
    for rule in [bare(), counted()] {
        let mut pair = Pair::new(rule);
        pair.begin(0);
        pair.begin(1);
        pair.assert_found_from_here();
    }
}

#[test]
fn the_second_that_hangs_takes_the_whole_with_it() {
    let mut pair = Pair::new(bare());
    pair.begin(0);
    pair.run(40.0);
    assert_eq!(pair.scene.condemned_at(), None);
    pair.begin(1);
    pair.assert_found_from_here();
}

#[test]
fn one_that_hangs_beside_one_that_its_check_holds_shut_is_the_whole() {
    let mut pair = Pair::new(bare());
    pair.scene.world.script("other", failing(Fault::Answer));
    pair.run(30.0);
    assert_eq!(pair.state(1), BackendState::Down);
    pair.begin(0);
    pair.assert_found_from_here();
}

#[test]
fn questions_that_both_fronts_answer_hide_no_hang_of_both() {
    let mut pair = Pair::new(counted());
    pair.begin(0);
    pair.begin(1);
    let since = pair.scene.world.now;
    for _ in 0..30 {
        pair.scene.traffic.last_byte = Some(pair.scene.world.now);
        pair.ends.iter_mut().for_each(|ends| ends.last_byte = Some(pair.scene.world.now));
        pair.run(1.0);
    }
    pair.scene.assert_found_after(since);
}
