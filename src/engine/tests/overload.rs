//! Overloads in virtual time: one worker, clients that give up, a machine that becomes slow, a server that goes
//! on with what nobody waits for, and one that stops in the middle of it.

use std::cell::Cell;
use std::rc::Rc;

use proptest::prelude::*;

use super::stall::{SAMPLE, STALL_AFTER, Scene, bare, counted, server};
use super::*;
use crate::limits::ABANDONED_WORK_MAX;

/// How fine the simulated server's time is.
const STEP: Duration = Duration::from_millis(5);
/// How long clients come faster than they are served.
const RUSH: Duration = Duration::from_secs(20);

/// A server with one worker, and its clients.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// What one answer takes.
    service: Duration,
    /// Each takes up to so many thousandths more or less.
    spread_permille: u64,
    /// Arrivals in ten answers' time.
    load_tenths: u32,
    patience: Duration,
    stall_after: Duration,
    /// From then on everything takes so many tenths of its time.
    slow: (Duration, u32),
    stops_at: Option<Duration>,
    with_counter: bool,
    /// What it does with work whose client has left.
    abandoned: Abandoned,
}

const USUAL: Case = Case {
    service: Duration::from_millis(500),
    spread_permille: 0,
    load_tenths: 30,
    patience: Duration::from_secs(2),
    stall_after: STALL_AFTER,
    slow: (Duration::from_secs(1000), 10),
    stops_at: None,
    with_counter: false,
    abandoned: Abandoned::WorkedOff,
};

/// What came of it.
struct Ran {
    condemned_at: Option<Time>,
    /// When the one that came last, and was patient, got its answer.
    answered_at: Option<Time>,
    /// When the server stopped.
    stopped_at: Option<Time>,
    /// The latest end of the excuse that was seen since then.
    bound: Time,
    /// The latest end of the excuse that was seen at all.
    widest: Time,
    reason: String,
}

struct Client {
    came: Time,
    sharing: u64,
    /// The same with those that were left over when it came.
    shared_by: u64,
    patient: bool,
}

/// The worker's queue and the clients before it, as the proxy between them counts.
struct Rush {
    case: Case,
    begun: Time,
    now: Time,
    next: Time,
    waiting: VecDeque<Client>,
    /// What the server was asked, in order, and when it will be done with the first.
    jobs: VecDeque<Time>,
    done_at: Option<Time>,
    /// Answers of the last minute: when, and at what pace.
    paces: VecDeque<(Time, Duration)>,
    random: u64,
    counter: Rc<Cell<f64>>,
    answered_at: Option<Time>,
    patient_came: bool,
    /// As the engine tells the proxy.
    left_over: u64,
}

impl Rush {
    fn is_stopped(&self) -> bool {
        self.case.stops_at.is_some_and(|at| self.begun + at <= self.now)
    }

    /// What the next answer takes, begun now.
    fn takes(&mut self) -> Duration {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let spread = self.case.spread_permille;
        let permille = 1000 - spread + (self.random >> 33) % (2 * spread + 1);
        let (since, tenths) = self.case.slow;
        let tenths = if self.begun + since <= self.now { tenths } else { 10 };
        self.case.service * u32::try_from(permille).unwrap() / 1000 * tenths / 10
    }

    fn step(&mut self, traffic: &mut Traffic) {
        self.now += STEP;
        while self.next <= self.now && self.next < self.begun + RUSH {
            self.come(false);
            self.next += self.case.service * 10 / self.case.load_tenths;
        }
        if self.begun + RUSH <= self.now && !self.patient_came {
            self.patient_came = true;
            self.come(true);
        }
        let (now, patience) = (self.now, self.case.patience);
        self.waiting.retain(|client| {
            let stays = client.patient || now < client.came + patience;
            if !stays {
                traffic.abandoned += 1;
                traffic.abandoned_wait += patience;
                traffic.abandoned_sharing += client.sharing;
            }
            if !stays
                && self.case.abandoned == Abandoned::Dropped
                && let Some(place) = self.jobs.iter().position(|job| *job == client.came)
            {
                self.jobs.remove(place);
                self.done_at = self.done_at.filter(|_| place > 0);
            }
            stays
        });
        if !self.is_stopped() {
            self.serve(traffic);
        }
        while self.paces.front().is_some_and(|(at, _)| *at + secs(60) < now) {
            self.paces.pop_front();
        }
        traffic.pace = self.paces.iter().map(|(_, pace)| *pace).max();
        traffic.in_flight = self.waiting.len() as u64;
        traffic.oldest_begun = self.waiting.front().map(|client| client.came);
        traffic.quietest_since = traffic.oldest_begun;
    }

    fn come(&mut self, patient: bool) {
        let sharing = self.waiting.len() as u64 + 1;
        self.waiting.push_back(Client { came: self.now, sharing, shared_by: sharing + self.left_over, patient });
        self.jobs.push_back(self.now);
    }

    fn serve(&mut self, traffic: &mut Traffic) {
        if self.done_at.is_some_and(|at| at <= self.now) {
            self.done_at = None;
            let job = self.jobs.pop_front().unwrap();
            self.counter.set(self.counter.get() + 1.0);
            if let Some(place) = self.waiting.iter().position(|client| client.came == job) {
                let client = self.waiting.remove(place).unwrap();
                let took = self.now.since(client.came);
                self.paces.push_back((self.now, took / u32::try_from(client.shared_by).unwrap()));
                traffic.last_byte = Some(self.now);
                traffic.succeeded += 1;
                if client.patient {
                    self.answered_at = Some(self.now);
                }
            }
        }
        if self.done_at.is_none() && !self.jobs.is_empty() {
            self.done_at = Some(self.now + self.takes());
        }
    }
}

fn run(case: Case, seed: u64) -> Ran {
    let rule = if case.with_counter { counted() } else { bare() };
    let mut scene = Scene::new(Plan {
        abandoned: case.abandoned,
        ..server(ProgressPlan { stall_after: case.stall_after, ..rule })
    });
    let counter = Rc::new(Cell::new(0.0));
    let shown = Rc::clone(&counter);
    scene.world.script(
        "progress",
        Box::new(move |_| Outcome::pass(ms(5)).reading(Reading { value: Some(shown.get()), ..Reading::default() })),
    );
    let begun = scene.world.now;
    let mut rush = Rush {
        case,
        begun,
        now: begun,
        next: begun,
        waiting: VecDeque::new(),
        jobs: VecDeque::new(),
        done_at: None,
        paces: VecDeque::new(),
        random: seed,
        counter,
        answered_at: None,
        patient_came: false,
        left_over: 0,
    };
    let (mut stopped_at, mut bound, mut widest) = (None, Time::ZERO, Time::ZERO);
    let end = begun + RUSH + ABANDONED_WORK_MAX + case.stall_after + secs(40);
    while scene.world.now < end && rush.answered_at.is_none() && scene.condemned_at().is_none() {
        rush.left_over = scene.world.engine.left_over();
        while rush.now < scene.world.now {
            rush.step(&mut scene.traffic);
        }
        scene.run(SAMPLE.as_secs_f64());
        widest = widest.max(scene.world.engine.flow.busy_until());
        if rush.is_stopped() {
            stopped_at.get_or_insert(rush.now);
            bound = bound.max(scene.world.engine.flow.busy_until());
        }
    }
    let condemned_at = scene.condemned_at();
    Ran { condemned_at, answered_at: rush.answered_at, stopped_at, bound, widest, reason: scene.reason() }
}

#[test]
fn a_backlog_that_nobody_waits_for_is_no_hang_with_and_without_a_counter() {
    for with_counter in [false, true] {
        let ran = run(Case { with_counter, ..USUAL }, 1);
        assert_eq!(ran.condemned_at, None, "{}", ran.reason);
        assert!(ran.answered_at.is_some_and(|at| at > Time::from_secs(40)), "the patient one was answered");
    }
}

/// The machine that a real server was tried on did so, and the server was condemned by an earlier rule.
#[test]
fn a_machine_that_starves_in_the_middle_of_it_condemns_nobody() {
    for tenths in [13, 20, 30] {
        let case = Case { stall_after: secs(5), slow: (secs(3), tenths), ..USUAL };
        let ran = run(case, 1);
        assert_eq!(ran.condemned_at, None, "{tenths}: {}", ran.reason);
        assert!(ran.answered_at.is_some());
    }
}

#[test]
fn a_server_stopped_in_its_backlog_is_found_after_the_backlogs_bound() {
    let ran = run(Case { stops_at: Some(secs(20)), ..USUAL }, 1);
    let at = ran.condemned_at.expect("found");
    assert!(ran.bound + STALL_AFTER <= at && at <= ran.bound + STALL_AFTER + secs(1), "{at}, bound {}", ran.bound);
    assert!(ran.reason.contains("beyond the work that"), "{}", ran.reason);
}

#[test]
fn a_counter_that_has_shown_work_nobody_waited_for_finds_it_without_waiting_for_the_bound() {
    let ran = run(Case { with_counter: true, stops_at: Some(secs(20)), ..USUAL }, 1);
    let (at, stopped) = (ran.condemned_at.expect("found"), ran.stopped_at.expect("stopped"));
    // Its last movement is seen with the next reading.
    let latest = stopped + crate::limits::CHECK_INTERVAL * 11 / 10 + STALL_AFTER + secs(1);
    assert!(stopped + STALL_AFTER <= at && at <= latest, "stopped at {stopped}, found at {at}");
    assert!(latest + secs(60) < ran.bound, "the bound is {}", ran.bound);
    assert!(ran.reason.contains("may be left over, tokens_total frozen at"), "{}", ran.reason);
}

/// Forty seconds of work had given a bound of 280: the one that waited behind it all had been taken for slow.
#[test]
fn an_answer_that_waited_behind_the_backlog_makes_no_bound_longer() {
    let ran = run(USUAL, 1);
    assert!(ran.answered_at.is_some_and(|at| at > Time::from_secs(40)));
    // 120 came within the rush, at half a second each, on a machine that may become three times slower.
    let begun = Time::from_secs(3);
    assert!(ran.widest <= begun + secs(2) + ms(500) * 3 * 120, "{}", ran.widest);
}

fn any_case() -> impl Strategy<Value = Case> {
    // The bound holds for three times the slowest answer that was seen; one that was seen may be as fast as any.
    let slow = |spread: u64| (0..40_u64, 10..=30 * (1000 - spread) / 1000);
    let first =
        (50..1500_u64, 0..=300_u64).prop_flat_map(move |(service, spread)| (Just(service), Just(spread), slow(spread)));
    (first, 15..=50_u32, 14..60_u64, 1..=4_u32, any::<bool>()).prop_map(
        |((service, spread_permille, (at, tenths)), load_tenths, patience, room, with_counter)| Case {
            service: ms(service),
            spread_permille,
            load_tenths,
            // Whoever comes alone is answered while the machine is well.
            patience: ms(service * patience / 10),
            // The operator's own word that no answer takes longer, on a slow machine either.
            stall_after: ms(service) * 4 * room + secs(2),
            slow: (secs(at), u32::try_from(tenths).unwrap()),
            stops_at: None,
            with_counter,
            abandoned: Abandoned::WorkedOff,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn no_overload_condemns_a_server_that_works(case in any_case(), seed in any::<u64>()) {
        let ran = run(case, seed);
        prop_assert_eq!(ran.condemned_at, None, "{}", ran.reason);
        prop_assert!(ran.answered_at.is_some(), "the patient one was answered");
    }

    /// Each one that leaves just as its turn comes costs the rest its turn: none may be answered until all have left,
    /// and then one answer is due. No operator may allow less silence than that.
    #[test]
    fn no_overload_condemns_a_server_that_drops_what_is_left(case in any_case(), seed in any::<u64>()) {
        let stall_after = case.stall_after.max(case.patience + case.service * 4 + secs(1));
        let ran = run(Case { abandoned: Abandoned::Dropped, stall_after, ..case }, seed);
        prop_assert_eq!(ran.condemned_at, None, "{}", ran.reason);
        prop_assert!(ran.answered_at.is_some(), "the patient one was answered");
    }

    #[test]
    fn stopped_in_an_overload_it_is_found_by_the_bound(case in any_case(), seed in any::<u64>(), stop in 1..40_u64) {
        let ran = run(Case { stops_at: Some(secs(stop)), ..case }, seed);
        prop_assume!(ran.answered_at.is_none());
        let stopped = ran.stopped_at.expect("stopped");
        let at = ran.condemned_at.expect("found");
        let latest = ran.bound.max(stopped) + case.stall_after + secs(1);
        prop_assert!(at <= latest, "found at {at}, stopped at {stopped}, bound {}", ran.bound);
        prop_assert!(ran.bound <= stopped.max(Time::ZERO + RUSH + case.patience) + ABANDONED_WORK_MAX);
    }
}
