//! Slow servers that move, and ones that stop, through the proxy's own counting: what the workers note of each request
//! as it passes, sampled as in the pod, judged by the engine, in virtual time.

use tokio::time::advance;

use super::super::counters::Counters;
use super::super::flights::Flight;
use super::super::origins::Origin;
use super::super::refusal::Reason;
use super::super::tally::Verdict;
use crate::clock::Clock;
use crate::engine::{
    CheckId, CheckPlan, CheckState, CounterPlan, Engine, Input, Member, Outcome, Output, Plan, ProgressPlan, Reading,
    Subject, Time, TrafficRule,
};
use crate::limits::TRAFFIC_SAMPLE;

use super::*;

const STALL_AFTER: Duration = Duration::from_secs(10);
/// As slow as a server may be.
const SLOWEST: Duration = Duration::from_secs(9);
/// What a route allows whose prefills are long.
const PATIENCE: Duration = Duration::from_secs(30);
const LIFE: Duration = Duration::from_secs(120);
const WORKERS: usize = 2;

/// How a server answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manner {
    /// A token as rarely as may be.
    Trickle,
    /// Some tokens at once, and then none for long.
    Bursts,
    /// Silent for long on a route that says so, and then quick.
    Prefill,
    /// Any of these, and clients that leave.
    Mixed,
}

const MANNERS: [Manner; 4] = [Manner::Trickle, Manner::Bursts, Manner::Prefill, Manner::Mixed];

/// A request on its way, as a ticket of the proxy knows it.
struct Request {
    worker: usize,
    flight: Flight,
    began: Time,
    shared_by: u32,
    patience: Duration,
    manner: Manner,
    answered: bool,
    tokens_left: u64,
    next_token: Time,
    /// When its client leaves.
    leaves: Option<Time>,
}

struct World {
    clock: Clock,
    counters: Counters,
    engine: Engine,
    random: u64,
    requests: Vec<Request>,
    next_request: Time,
    /// What the server's own counter shows.
    tokens: f64,
    condemned: Option<(Time, String)>,
}

fn plan(with_counter: bool) -> Plan {
    let counter = with_counter.then(|| CounterPlan { name: "tokens_total".to_owned(), lag: Duration::ZERO });
    let rule = ProgressPlan { stall_after: STALL_AFTER, counter, ..ProgressPlan::default() };
    let progress = CheckPlan {
        rule: Some(TrafficRule::Progress(rule)),
        subject: Subject::Server,
        ..CheckPlan::new("progress", "progress")
    };
    let mut plan = Plan { checks: vec![progress], ..Plan::default() };
    plan.health.require = vec![Member::Check(CheckId(0))];
    plan
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = Clock::start();
        Self {
            clock,
            counters: Counters::new(WORKERS, clock),
            engine: Engine::new(clock.now(), Arc::new(plan(seed.is_multiple_of(2))), seed),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            requests: Vec::new(),
            next_request: Time::ZERO,
            tokens: 0.0,
            condemned: None,
        }
    }

    /// Below `end`, which is not 0.
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }

    fn come(&mut self, now: Time, manner: Manner) {
        let manner = if manner == Manner::Mixed { MANNERS[self.below(3) as usize] } else { manner };
        let leaves = self.below(4) == 0;
        let patience = if manner == Manner::Prefill { PATIENCE } else { Duration::ZERO };
        let worker = self.below(WORKERS as u64) as usize;
        let flight = self.counters.worker(worker).begin(now, patience);
        let first = match manner {
            Manner::Prefill => Duration::from_secs(1 + self.below(29)),
            _ => SLOWEST.min(Duration::from_millis(self.below(9_001))),
        };
        let stays = Duration::from_millis(self.below(20_000));
        let tokens_left = 1 + self.below(8);
        self.requests.push(Request {
            worker,
            flight,
            began: now,
            shared_by: self.counters.shared_by(),
            patience,
            manner,
            answered: false,
            tokens_left,
            next_token: now + first,
            leaves: leaves.then(|| now + stays),
        });
        self.next_request = now + Duration::from_millis(self.below(15_000));
    }

    /// Sends a token on, as the proxy notes it; whether it was the last.
    fn token(&mut self, now: Time, at: usize) -> bool {
        let pause = match (self.requests[at].manner, self.below(4)) {
            (Manner::Trickle, _) | (Manner::Bursts, 0) => SLOWEST,
            _ => TRAFFIC_SAMPLE,
        };
        let request = &mut self.requests[at];
        let worker = self.counters.worker(request.worker);
        worker.progress(now);
        worker.flights().moved(request.flight, now);
        if !request.answered {
            request.answered = true;
            worker.answered(200, now.since(request.began));
        }
        self.tokens += 1.0;
        request.tokens_left -= 1;
        request.next_token = now + pause;
        if request.tokens_left > 0 {
            return false;
        }
        let took = now.since(request.began);
        worker.finished(200, took, now);
        worker.judged(Verdict::Good, Origin::default(), took, request.shared_by, now);
        worker.end(request.flight, now);
        true
    }

    fn leave(&self, now: Time, request: &Request) {
        let worker = self.counters.worker(request.worker);
        let quiet = worker.flights().last(request.flight).unwrap_or(request.began);
        worker.refuse(Reason::ClientGone);
        worker.flights().abandon(now, quiet, request.shared_by, request.patience);
        worker.end(request.flight, now);
    }

    /// One sample's time. `moves`: the server works.
    async fn step(&mut self, manner: Manner, moves: bool) {
        advance(TRAFFIC_SAMPLE).await;
        let now = self.clock.now();
        if moves && self.next_request <= now {
            self.come(now, manner);
        }
        let mut at = 0;
        while at < self.requests.len() {
            let is_over = moves && self.requests[at].next_token <= now && self.token(now, at);
            if is_over || moves && self.requests[at].leaves.is_some_and(|leaves| leaves <= now) {
                let request = self.requests.swap_remove(at);
                if !is_over {
                    self.leave(now, &request);
                }
            } else {
                at += 1;
            }
        }
        (0..WORKERS).for_each(|worker| self.counters.worker(worker).beat(now));
        self.counters.left_over(self.engine.left_over());
        self.engine.handle_timeout(now);
        self.engine.handle_input(now, Input::Traffic(self.counters.traffic()));
        self.answer(now);
    }

    /// Carries out what the engine asks for: the metrics page answers at once.
    fn answer(&mut self, now: Time) {
        while let Some(output) = self.engine.poll_output() {
            if let Output::Start { check, attempt, .. } = output {
                let reading = Reading { value: Some(self.tokens), ..Reading::default() };
                let outcome = Outcome::pass(Duration::ZERO).reading(reading);
                self.engine.handle_input(now, Input::Result { check, attempt, outcome });
            }
        }
        let snapshot = self.engine.snapshot();
        let progress = &snapshot.checks[0];
        if progress.state == CheckState::Down && self.condemned.is_none() {
            self.condemned = Some((now, progress.reason.clone()));
        }
    }

    async fn live(&mut self, manner: Manner) {
        let end = self.clock.now() + LIFE;
        while self.clock.now() < end {
            self.step(manner, true).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_slow_servers_that_move_are_never_condemned() {
    let mut tokens = 0.0;
    for seed in 0..200 {
        let mut world = World::new(seed);
        let manner = MANNERS[(seed / 2 % 4) as usize];
        world.live(manner).await;
        assert_eq!(world.condemned, None, "seed {seed}, {manner:?}");
        tokens += world.tokens;
    }
    assert!(tokens > 2000.0, "they moved: {tokens} tokens");
}

#[tokio::test(start_paused = true)]
async fn each_of_them_is_found_once_it_stops_with_a_request_before_it() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        let manner = MANNERS[(seed / 2 % 2) as usize];
        world.live(manner).await;
        // Nothing excuses it: what was given up has had its time, and one waits that came now.
        while let Some(request) = world.requests.pop() {
            world.leave(world.clock.now(), &request);
        }
        let settled = world.clock.now() + crate::limits::ABANDONED_WORK_MAX;
        while world.clock.now() < settled {
            world.step(manner, false).await;
        }
        world.come(world.clock.now(), manner);
        let stopped = world.clock.now();
        for _ in 0..60 {
            world.step(manner, false).await;
        }
        let (at, why) = world.condemned.unwrap_or_else(|| panic!("seed {seed}: not found"));
        let late = at.since(stopped);
        assert!(STALL_AFTER <= late && late <= STALL_AFTER + Duration::from_secs(1), "seed {seed}: {late:?}, {why}");
    }
}
