//! Hangs and what looks like one, in virtual time: a model server that a proxy stands before.

use proptest::prelude::*;

use super::*;

pub(super) const STALL_AFTER: Duration = Duration::from_secs(20);
/// As often as the driver samples.
pub(super) const SAMPLE: Duration = crate::limits::TRAFFIC_SAMPLE;

fn progress(plan: ProgressPlan) -> CheckPlan {
    CheckPlan { rule: Some(TrafficRule::Progress(plan)), subject: Subject::Server, ..check("progress") }
}

pub(super) fn bare() -> ProgressPlan {
    ProgressPlan { stall_after: STALL_AFTER, ..ProgressPlan::default() }
}

pub(super) fn counted() -> ProgressPlan {
    ProgressPlan { counter: Some(CounterPlan { name: "tokens_total".to_owned(), lag: Duration::ZERO }), ..bare() }
}

/// The model server answers, `progress` decides `/health`.
pub(super) fn server(rule: ProgressPlan) -> Plan {
    let mut plan = typical();
    plan.checks[1] = progress(rule);
    plan.ready.require = one(0);
    plan.health.require = one(1);
    plan
}

/// A plan's engine with a proxy that samples.
pub(super) struct Scene {
    pub(super) world: World,
    pub(super) traffic: Traffic,
    trace: Trace,
}

impl Scene {
    pub(super) fn new(plan: Plan) -> Self {
        let world = World::new(plan);
        let trace = Trace::new(7, world.now, world.engine.plan());
        let mut scene = Self { world, traffic: Traffic::default(), trace };
        scene.run(2.0);
        assert_eq!(scene.world.state("progress"), CheckState::Up);
        scene
    }

    /// Lets time pass, sampling on the way. Beats come as they should.
    pub(super) fn run(&mut self, secs: f64) {
        let until = self.world.now + Duration::from_secs_f64(secs);
        while self.world.now < until {
            self.traffic.last_beat = Some(self.world.now);
            let input = Input::Traffic(self.traffic);
            self.trace.events.push((self.world.now, Event::Input(input.clone())));
            self.world.input(input);
            self.world.run_for(SAMPLE);
        }
    }

    pub(super) fn begin(&mut self) {
        self.traffic.in_flight += 1;
        self.traffic.oldest_begun.get_or_insert(self.world.now);
        self.traffic.quietest_since.get_or_insert(self.world.now);
        self.traffic.work_begun = self.traffic.oldest_begun;
    }

    pub(super) fn byte(&mut self) {
        self.traffic.last_byte = Some(self.world.now);
        self.traffic.work_byte = Some(self.world.now);
        self.traffic.quietest_since = (self.traffic.in_flight > 0).then_some(self.world.now);
    }

    /// All end, well.
    pub(super) fn end(&mut self) {
        self.byte();
        self.traffic.succeeded += self.traffic.in_flight;
        self.leave();
    }

    pub(super) fn leave(&mut self) {
        self.traffic.in_flight = 0;
        self.traffic.oldest_begun = None;
        self.traffic.work_begun = None;
        self.traffic.quietest_since = None;
    }

    /// One of two clients leaves that has waited for so long; another may have come in its place.
    pub(super) fn gives_up(&mut self, waited: Duration) {
        self.traffic.abandoned += 1;
        self.traffic.abandoned_wait += waited;
        self.traffic.abandoned_sharing += 2;
    }

    /// The counter as the page shows it; `None`: the page is silent.
    pub(super) fn page(&mut self, value: impl Fn(Time) -> Option<f64> + 'static) {
        self.world.script(
            "progress",
            Box::new(move |now| match value(now) {
                Some(value) => Outcome::pass(ms(5)).reading(Reading { value: Some(value), ..Reading::default() }),
                None => Outcome::fail(Fault::Timeout, "timeout after 1s", secs(1)),
            }),
        );
    }

    pub(super) fn condemned_at(&self) -> Option<Time> {
        self.world.turns(Gate::Health, Status::Fail).first().copied()
    }

    pub(super) fn reason(&mut self) -> String {
        self.world.engine.snapshot().check_named("progress").unwrap().reason.clone()
    }

    /// Within `stall_after` and a second after `from`, and not before `stall_after`.
    pub(super) fn assert_found_after(&mut self, from: Time) {
        let at = self.condemned_at().expect("found");
        assert!(from + STALL_AFTER <= at, "found at {at}, silent since {from}: too early");
        assert!(at <= from + STALL_AFTER + secs(1), "found at {at}, silent since {from}: too late");
    }
}

#[test]
fn a_silent_request_is_found_and_the_reason_names_the_evidence() {
    let mut scene = Scene::new(server(bare()));
    scene.begin();
    let since = scene.world.now;
    scene.run(30.0);
    scene.assert_found_after(since);
    assert_eq!(scene.reason(), "stalled: no byte from the model server for 20s with 1 request pending");
    assert!(scene.world.engine.stalled_for() >= STALL_AFTER);
}

#[test]
fn silence_while_idle_is_never_a_hang() {
    for rule in [bare(), counted()] {
        let mut scene = Scene::new(server(rule));
        scene.page(|_| Some(7.0));
        scene.run(300.0);
        assert_eq!(scene.condemned_at(), None);
        assert_eq!(scene.world.engine.stalled_for(), Duration::ZERO);
    }
}

#[test]
fn a_stream_that_stalls_after_its_first_chunk_is_found() {
    let mut scene = Scene::new(server(bare()));
    scene.begin();
    scene.run(3.0);
    scene.byte();
    let since = scene.world.now;
    scene.run(30.0);
    scene.assert_found_after(since);
}

#[test]
fn a_frozen_counter_agrees_and_a_moving_one_contradicts() {
    for (moving, found) in [(false, true), (true, false)] {
        let mut scene = Scene::new(server(counted()));
        scene.page(move |now| Some(if moving { now.as_nanos() as f64 } else { 28.0 }));
        scene.run(7.0);
        scene.begin();
        scene.run(1.0);
        scene.byte();
        let since = scene.world.now;
        scene.run(60.0);
        assert_eq!(scene.condemned_at().is_some(), found, "moving: {moving}");
        if found {
            scene.assert_found_after(since);
            assert!(scene.reason().ends_with("tokens_total frozen at 28"), "{}", scene.reason());
        }
    }
}

#[test]
fn what_the_last_bytes_had_moved_does_not_delay_the_verdict() {
    for after_scrape in 0..10 {
        let mut scene = Scene::new(server(counted()));
        scene.run(0.5 * f64::from(after_scrape));
        scene.begin();
        let since = scene.world.now;
        scene.page(move |now| Some(if since <= now { 29.0 } else { 28.0 }));
        scene.byte();
        scene.run(30.0);
        scene.assert_found_after(since);
    }
}

#[test]
fn a_counter_that_was_never_read_or_is_not_there_withholds_the_verdict() {
    let mut scene = Scene::new(server(counted()));
    scene.page(|_| None);
    scene.begin();
    scene.run(60.0);
    assert_eq!(scene.condemned_at(), None);
    assert!(scene.reason().contains("but its counter tokens_total has never been read"), "{}", scene.reason());
    let told = |t: &&Transition| t.from == t.to && t.reason.contains("has never been read");
    assert_eq!(scene.world.transitions.iter().filter(told).count(), 1, "said once");
    scene.world.script(
        "progress",
        Box::new(|_| Outcome::unknown("no metrics page from 127.0.0.1:8000: it answered 404", ms(1))),
    );
    scene.run(20.0);
    assert_eq!(scene.condemned_at(), None);
    assert!(scene.reason().contains("its counter says nothing: no metrics page"), "{}", scene.reason());
}

#[test]
fn a_page_that_falls_silent_with_the_traffic_agrees() {
    let mut scene = Scene::new(server(counted()));
    let stopped = scene.world.now + secs(10);
    scene.page(move |now| (now < stopped).then_some(5.0));
    scene.run(9.0);
    scene.begin();
    scene.run(1.0);
    let since = scene.traffic.oldest_begun.unwrap();
    scene.run(30.0);
    scene.assert_found_after(since);
    assert!(scene.reason().ends_with("its metrics page silent too (tokens_total was 5)"), "{}", scene.reason());
}

#[test]
fn a_late_page_is_given_its_lag() {
    let mut plan = counted();
    plan.counter.as_mut().unwrap().lag = secs(7);
    let mut scene = Scene::new(server(plan));
    scene.page(|_| Some(5.0));
    scene.run(9.0);
    scene.begin();
    let since = scene.world.now;
    scene.run(40.0);
    let at = scene.condemned_at().unwrap();
    assert!(since + STALL_AFTER + secs(7) <= at && at <= since + STALL_AFTER + secs(8), "{at}");
}

#[test]
fn a_counter_reset_is_a_new_beginning() {
    let mut scene = Scene::new(server(counted()));
    let reset = scene.world.now + secs(15);
    scene.page(move |now| Some(if now < reset { 100.0 } else { 3.0 }));
    scene.begin();
    scene.run(32.0);
    assert_eq!(scene.condemned_at(), None);
    scene.run(10.0);
    assert!(scene.condemned_at().is_some());
}

#[test]
fn a_busy_cpu_contradicts_and_a_quiet_one_agrees() {
    for (share, found) in [(0.5, false), (0.01, true)] {
        let mut scene = Scene::new(server(ProgressPlan { cpu: Some("python".to_owned()), ..bare() }));
        scene.world.script(
            "progress",
            Box::new(move |now| {
                let cpu = Some(Duration::from_secs_f64(now.as_secs_f64() * share));
                Outcome::pass(ms(5)).reading(Reading { cpu, ..Reading::default() })
            }),
        );
        scene.run(6.0);
        scene.begin();
        let since = scene.world.now;
        scene.run(60.0);
        assert_eq!(scene.condemned_at().is_some(), found);
        if found {
            scene.assert_found_after(since);
        }
    }
}

#[test]
fn processes_that_begin_to_work_after_the_first_look_contradict() {
    let mut plan = server(ProgressPlan { cpu: Some("python".to_owned()), ..bare() });
    let slow = secs(300);
    plan.checks[1] = CheckPlan { interval: slow, fast_interval: slow, max_age: slow * 3, ..plan.checks[1].clone() };
    let mut scene = Scene::new(plan);
    let begun = scene.world.now + secs(5);
    scene.world.script(
        "progress",
        Box::new(move |now| {
            let cpu = Some(if begun < now { now.since(begun) } else { Duration::ZERO });
            Outcome::pass(ms(5)).reading(Reading { cpu, ..Reading::default() })
        }),
    );
    scene.run(2.0);
    scene.begin();
    scene.run(120.0);
    assert_eq!(scene.condemned_at(), None);
}

#[test]
fn a_page_that_hangs_with_the_server_delays_no_verdict_by_its_processes() {
    let mut scene = Scene::new(server(ProgressPlan { cpu: Some("python".to_owned()), ..counted() }));
    let read = |value| Reading { value, cpu: Some(secs(9)), ..Reading::default() };
    scene.world.script("progress", Box::new(move |_| Outcome::pass(ms(5)).reading(read(Some(1.0)))));
    scene.run(6.0);
    scene.begin();
    let since = scene.world.now;
    let hung = move |_| Outcome::fail(Fault::Timeout, "the metrics page is silent", ms(900)).reading(read(None));
    scene.world.script("progress", Box::new(hung));
    scene.run(30.0);
    scene.assert_found_after(since);
}

/// What the threads of an idle server are at, once a reading.
fn with_threads(threads: impl Fn(Time) -> Threads + 'static) -> Scene {
    let mut scene = Scene::new(server(ProgressPlan { cpu: Some("python".to_owned()), ..bare() }));
    let read = move |now| Reading { cpu: Some(secs(9)), threads: Some(threads(now)), ..Reading::default() };
    scene.world.script("progress", Box::new(move |now| Outcome::pass(ms(5)).reading(read(now))));
    scene.run(6.0);
    scene
}

#[test]
fn threads_that_get_no_cpu_contradict_until_they_sleep() {
    let starved_until = Time::from_secs(100);
    let ready = move |now| if now < starved_until { 2 } else { 0 };
    let mut scene = with_threads(move |now| Threads { all: 14, ready: ready(now), ..Threads::default() });
    scene.begin();
    scene.run(60.0);
    assert_eq!(scene.condemned_at(), None);
    let reason = scene.reason();
    assert!(reason.starts_with("silent for 59s with work pending, but "), "{reason}");
    assert!(reason.ends_with("but 2 of 14 threads run or wait for a CPU"), "{reason}");
    scene.run(200.0);
    let at = scene.condemned_at().expect("a hang that is nobody else's fault");
    assert!(starved_until + (STALL_AFTER - secs(5)) <= at && at <= starved_until + STALL_AFTER + secs(1), "{at}");
    let said = ", its processes use no CPU (none of 14 threads seen waiting for one)";
    assert!(scene.reason().ends_with(said), "{}", scene.reason());
}

#[test]
fn a_thread_that_waits_for_a_cpu_excuses_no_longer_than_abandoned_work_and_lifts_no_verdict() {
    let mut scene = with_threads(|_| Threads { all: 14, ready: 1, ..Threads::default() });
    scene.begin();
    let latest = scene.world.now + STALL_AFTER + crate::limits::ABANDONED_WORK_MAX;
    scene.run(400.0);
    assert_eq!(scene.world.turns(Gate::Health, Status::Fail).len(), 1);
    let at = scene.condemned_at().expect("one helper thread must not hide it for good");
    assert!(latest <= at && at <= latest + secs(1), "{at}");
    assert_eq!(scene.world.status(Gate::Health), Status::Fail);
    assert!(scene.reason().ends_with("(1 of 14 threads ready to run)"), "{}", scene.reason());
}

#[test]
fn a_counter_that_moves_in_silence_is_named() {
    let mut scene = Scene::new(server(counted()));
    scene.page(|now| Some(now.as_secs_f64()));
    scene.begin();
    scene.run(30.0);
    assert_eq!(scene.reason(), "silent for 29s with work pending, but its counter moves");
}

#[test]
fn a_hang_s_reason_says_what_its_threads_are_at() {
    for (threads, said) in [
        (Threads { all: 14, stopped: 14, ..Threads::default() }, "(14 of 14 threads stopped)"),
        (Threads { all: 14, uninterruptible: 1, ..Threads::default() }, "(1 of 14 threads in uninterruptible sleep)"),
    ] {
        let mut scene = with_threads(move |_| threads);
        scene.begin();
        let since = scene.world.now;
        scene.run(30.0);
        scene.assert_found_after(since);
        assert!(scene.reason().ends_with(said), "{}", scene.reason());
    }
}

#[test]
fn one_stuck_request_beside_others_that_move_is_reported_and_not_condemned() {
    let mut scene = Scene::new(server(bare()));
    scene.begin();
    let stuck = scene.world.now;
    for _ in 0..80 {
        scene.begin();
        scene.run(0.5);
        scene.byte();
        scene.traffic.in_flight = 1;
        scene.traffic.oldest_begun = Some(stuck);
        scene.traffic.quietest_since = Some(stuck);
    }
    scene.run(0.25);
    assert_eq!(scene.condemned_at(), None);
    assert!(scene.reason().starts_with("one of 1 requests is silent for 40s while others move"), "{}", scene.reason());
}

#[test]
fn a_hang_stays_one_when_its_clients_leave_and_ends_when_something_moves() {
    let mut scene = Scene::new(server(bare()));
    scene.begin();
    scene.run(25.0);
    assert_eq!(scene.world.status(Gate::Health), Status::Fail);
    scene.leave();
    scene.run(60.0);
    assert_eq!(scene.world.status(Gate::Health), Status::Fail);
    scene.byte();
    scene.run(1.0);
    assert_eq!(scene.world.status(Gate::Health), Status::Pass);
}

#[test]
fn a_hang_ends_with_its_process_and_the_next_may_load_in_peace() {
    let mut scene = Scene::new(server(bare()));
    scene.begin();
    scene.run(25.0);
    assert_eq!(scene.world.status(Gate::Health), Status::Fail);
    // Killed: its requests end with it, and its successor opens the port only once it has loaded.
    scene.traffic.failed += scene.traffic.in_flight;
    scene.leave();
    let killed = scene.world.now;
    let loaded = killed + secs(30);
    scene.world.script(
        "model",
        Box::new(move |now| {
            if now < loaded {
                Outcome::fail(Fault::Refused, "connection refused", ms(1)).sign(Sign::Refused)
            } else {
                Outcome::pass(ms(1)).sign(Sign::Answered)
            }
        }),
    );
    scene.run(10.0);
    assert_eq!(scene.world.status(Gate::Health), Status::Pass, "no verdict outlives its process");
    assert_eq!(scene.world.status(Gate::Startup), Status::Fail);
    scene.run(40.0);
    assert_eq!(scene.world.statuses(), [Status::Pass; 3]);
    scene.begin();
    let since = scene.world.now;
    scene.run(30.0);
    let turns = scene.world.turns(Gate::Health, Status::Fail);
    assert!(turns.len() == 2 && since + STALL_AFTER <= turns[1], "the next hang is found again: {turns:?}");
}

#[test]
fn let_go_again_before_the_verdict_there_is_none() {
    let mut scene = Scene::new(server(bare()));
    scene.begin();
    scene.run(19.5);
    scene.byte();
    scene.run(19.5);
    assert_eq!(scene.condemned_at(), None);
}

#[test]
fn a_route_that_asks_for_patience_gets_it() {
    let mut scene = Scene::new(server(bare()));
    scene.traffic.patience = secs(100);
    scene.begin();
    scene.run(90.0);
    assert_eq!(scene.condemned_at(), None);
    scene.run(20.0);
    assert!(scene.condemned_at().is_some());
}

#[test]
fn a_worker_of_ours_that_does_not_turn_condemns_nobody() {
    let mut scene = Scene::new(server(bare()));
    scene.begin();
    let beat = scene.world.now;
    for _ in 0..400 {
        scene.traffic.last_beat = Some(beat);
        scene.world.input(Input::Traffic(scene.traffic));
        scene.world.run_for(SAMPLE);
    }
    assert_eq!(scene.condemned_at(), None);
    // Once it turns again, silence counts from then.
    let since = scene.world.now;
    scene.run(30.0);
    let at = scene.condemned_at().expect("found");
    assert!(since + STALL_AFTER <= at + SAMPLE && at <= since + STALL_AFTER + secs(1), "{at}, sighted {since}");
}

#[test]
fn a_hang_that_is_let_go_works_off_what_was_given_up_meanwhile_and_is_condemned_again_only_if_it_hangs_again() {
    let mut scene = Scene::new(server(bare()));
    scene.traffic.pace = Some(ms(500));
    // One every second, each for five: thirty seconds of work in the end.
    for _ in 0..60u32 {
        scene.traffic.in_flight = 2;
        scene.traffic.oldest_begun = Some(scene.world.now);
        scene.run(1.0);
        scene.gives_up(secs(5));
    }
    assert_eq!(scene.world.turns(Gate::Health, Status::Fail).len(), 1);
    scene.traffic.oldest_begun = Some(scene.world.now);
    scene.byte();
    scene.run(30.0);
    assert_eq!(scene.world.status(Gate::Health), Status::Pass, "it works off the rest, in silence");
    // It has caught up, and the next ones are answered.
    scene.traffic.succeeded += 70;
    scene.end();
    scene.run(1.0);
    assert_eq!(scene.world.turns(Gate::Health, Status::Fail).len(), 1);
    scene.begin();
    let since = scene.world.now;
    scene.run(30.0);
    let turns = scene.world.turns(Gate::Health, Status::Fail);
    assert_eq!(turns.len(), 2, "it hangs again");
    assert!(turns[1] <= since + STALL_AFTER + secs(1), "{turns:?}");
}

#[test]
fn a_hang_is_found_though_every_client_gives_up_soon() {
    let mut scene = Scene::new(server(bare()));
    scene.traffic.pace = Some(ms(200));
    let since = scene.world.now;
    // One every second, each for two seconds: well below the capacity.
    for turn in 0..60u32 {
        scene.traffic.in_flight = 2;
        scene.traffic.oldest_begun = Some(scene.world.now);
        scene.run(1.0);
        if turn > 0 {
            scene.gives_up(secs(2));
        }
    }
    let at = scene.condemned_at().expect("found");
    assert!(at <= since + STALL_AFTER + secs(2), "{at}");
}

#[test]
fn what_was_seen_replays() {
    let mut scene = Scene::new(server(bare()));
    scene.begin();
    scene.run(3.0);
    scene.byte();
    scene.run(30.0);
    let read = Trace::from_text(&scene.trace.to_text()).unwrap();
    assert_eq!(read, scene.trace);
    // Without the results of other checks the gates differ; the verdict on progress does not.
    let verdict = |outputs: &[(Time, Output)]| {
        outputs
            .iter()
            .filter_map(|(_, output)| match output {
                Output::Transition(t) if t.what == Changed::Check("progress".to_owned()) => Some((t.at, t.to)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let replayed = read.replay(&[Arc::clone(scene.world.engine.plan())]);
    assert_eq!(verdict(&replayed), verdict(&scene.world.outputs));
    assert_eq!(verdict(&replayed).last().map(|last| last.1), Some("down"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A token every so often up to a second below `stall_after`, in bursts and after long prefills, with pauses.
    #[test]
    fn slow_but_moving_is_never_condemned(
        gaps in proptest::collection::vec((0..19_000u64, any::<bool>(), 0..4u8), 1..60), with_counter in any::<bool>(),
    ) {
        let mut scene = Scene::new(server(if with_counter { counted() } else { bare() }));
        scene.page(|_| Some(1.0));
        for (gap, byte, more) in gaps {
            match more {
                0 => scene.end(),
                1 => scene.leave(),
                _ => scene.begin(),
            }
            scene.run(gap as f64 / 1000.0);
            if byte || scene.traffic.oldest_begun.is_some() {
                scene.byte();
            }
        }
        prop_assert_eq!(scene.condemned_at(), None);
    }

    /// However it was before, a server that stops is found in time, and a report can name why.
    #[test]
    fn a_hang_is_found_in_time_whatever_came_before(
        before in proptest::collection::vec((0..9_000u64, any::<bool>()), 0..20), mode in 0..3u8,
    ) {
        let mut scene = Scene::new(server(if mode == 0 { bare() } else { counted() }));
        let stopped = std::rc::Rc::new(std::cell::Cell::new(None::<Time>));
        let seen = std::rc::Rc::clone(&stopped);
        scene.page(move |now| match (seen.get(), mode) {
            (None, _) => Some(now.as_secs_f64().floor()),
            (Some(at), 1) => Some(at.as_secs_f64().floor()),
            (Some(_), _) => None,
        });
        for (gap, end) in before {
            scene.begin();
            scene.run(gap as f64 / 1000.0);
            if end { scene.end() } else { scene.byte() }
        }
        scene.run(6.0);
        scene.begin();
        scene.byte();
        let since = scene.world.now;
        stopped.set(Some(since));
        scene.run(30.0);
        let at = scene.condemned_at();
        prop_assert!(at.is_some_and(|at| since + STALL_AFTER <= at && at <= since + STALL_AFTER + secs(1)), "{at:?} {since}");
    }
}
