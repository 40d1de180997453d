//! The laws of the engine, for any plan and any sequence of inputs.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// One thing that happens, in terms that fit every plan.
#[derive(Clone, Debug)]
enum Op {
    /// Time passes without a call.
    Pass(u64),
    /// `handle_timeout` at the time it asked for, or now.
    Timeout(bool),
    /// Report one of the attempts in flight.
    Report {
        which: usize,
        verdict: u8,
        sign: u8,
    },
    /// A result that must not count: of no check, no attempt, an old one.
    Bogus {
        check: u32,
        attempt: u64,
    },
    Sign {
        backend: u32,
        refused: bool,
    },
    RunNow(u32),
    Force {
        check: u32,
        state: u8,
        ttl_ms: u64,
    },
    SetReady(bool),
    Drain,
    InFlight(u64),
    /// A sample: requests pending, how far the counts have come.
    Traffic(u64, u64),
    /// A sample of each address: good ends, bad ones, trials.
    Ends(u64, u64, u64),
    Origins(usize, u64, u64),
    Throttled(bool),
    /// Reload the plan with these of its checks changed in name.
    Reload(u8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        60 => (0..8_000u64).prop_map(Op::Pass),
        80 => any::<bool>().prop_map(Op::Timeout),
        120 => (any::<usize>(), 0..6u8, 0..12u8).prop_map(|(which, verdict, sign)| Op::Report { which, verdict, sign }),
        20 => (0..9u32, 0..60u64).prop_map(|(check, attempt)| Op::Bogus { check, attempt }),
        10 => (0..3u32, any::<bool>()).prop_map(|(backend, refused)| Op::Sign { backend, refused }),
        10 => (0..9u32).prop_map(Op::RunNow),
        10 => (0..9u32, 0..3u8, 0..20_000u64).prop_map(|(check, state, ttl_ms)| Op::Force { check, state, ttl_ms }),
        10 => any::<bool>().prop_map(Op::SetReady),
        10 => (0..3u64).prop_map(Op::InFlight),
        60 => (0..3u64, 0..40u64).prop_map(|(pending, count)| Op::Traffic(pending, count)),
        60 => (0..30u64, 0..30u64, 0..6u64).prop_map(|(good, bad, trials)| Op::Ends(good, bad, trials)),
        40 => (0..64usize, 0..30u64, 0..90u64).prop_map(|(share, good, bad)| Op::Origins(share, good, bad)),
        10 => any::<bool>().prop_map(Op::Throttled),
        10 => (0..8u8).prop_map(Op::Reload),
        1 => Just(Op::Drain),
    ];
    vec(op, 0..120)
}

fn plans() -> impl Strategy<Value = Plan> {
    let checks = vec(check_plans(), 1..6);
    let picks = || vec(any::<prop::sample::Index>(), 0..4);
    (checks, vec((picks(), 1..4u32), 0..3), picks(), picks(), picks(), picks(), vec(picks(), 6), 0..3usize).prop_map(
        |(mut checks, groups, startup, required, degraded, health, parents, backends)| {
            let mut members: Vec<Member> = (0..checks.len()).map(|i| Member::Check(check_id(i))).collect();
            let mut plan = Plan::default();
            for (index, (of, min)) in groups.into_iter().enumerate() {
                let of: Vec<Member> = of.iter().map(|pick| *pick.get(&members)).collect();
                if of.is_empty() {
                    continue;
                }
                let min = min.min(of.len() as u32);
                let id = GroupId(plan.groups.len() as u32);
                plan.groups.push(GroupPlan { name: format!("g{index}"), min, of });
                members.push(Member::Group(id));
            }
            let pick = |picks: Vec<prop::sample::Index>| picks.iter().map(|p| *p.get(&members)).collect::<Vec<_>>();
            plan.startup = StartupPlan { require: pick(startup), budget: secs(30) };
            plan.ready = ReadyPlan { require: pick(required), degrade: pick(degraded) };
            plan.health =
                HealthPlan { require: pick(health), restart_budget: RestartBudget { count: 2, window: secs(60) } };
            plan.drain = DrainPlan { propagation: secs(2), max: secs(9) };
            let count = checks.len();
            for (index, (check, parents)) in checks.iter_mut().zip(parents).enumerate() {
                check.name = format!("c{index}");
                // Parents come earlier in the file: no cycle.
                check.depends_on = parents
                    .iter()
                    .take(2)
                    .filter(|_| index > 0)
                    .map(|p| Member::Check(check_id(p.index(index.max(1)))))
                    .collect();
            }
            plan.backends = (0..backends)
                .map(|i| BackendPlan { address: format!("127.0.0.1:{i}"), check: check_id(i % count) })
                .collect();
            for check in &mut checks {
                if matches!(check.subject, Subject::Backend(BackendId(id)) if id as usize >= backends) {
                    check.subject = Subject::Server;
                }
            }
            plan.checks = checks;
            plan.passive = Some(PassivePlan { base_ejection: secs(5), ..PassivePlan::default() });
            plan
        },
    )
}

fn check_plans() -> impl Strategy<Value = CheckPlan> {
    let rule = prop_oneof![
        (1..4u32).prop_map(FailureRule::Consecutive),
        (1..4u32, 0..3u32).prop_map(|(fail, more)| FailureRule::Window { fail, of: fail + more }),
    ];
    let subject = prop_oneof![
        Just(Subject::Local),
        Just(Subject::Remote),
        Just(Subject::Server),
        (0..2u32).prop_map(|id| Subject::Backend(BackendId(id))),
    ];
    let stale = prop_oneof![Just(OnStale::Fail), Just(OnStale::Hold), Just(OnStale::Degrade)];
    let withdrawal = prop::option::weighted(0.3, (1..20u64).prop_map(secs));
    let traffic = prop_oneof![
        4 => Just(None),
        1 => Just(Some(TrafficRule::Outcomes(OutcomesPlan::default()))),
        1 => any::<bool>().prop_map(|counted| {
            let counter = counted.then(|| CounterPlan { name: "c".to_owned(), lag: secs(1) });
            Some(TrafficRule::Progress(ProgressPlan { stall_after: secs(3), counter, ..ProgressPlan::default() }))
        }),
    ];
    let idle = prop::option::weighted(0.2, (1..9u64).prop_map(secs));
    (rule, (subject, traffic, idle), stale, 1..3u32, 1..6u64, 0..200u32, withdrawal, any::<bool>()).prop_map(
        |(failure_rule, who, on_stale, success_threshold, interval, jitter_permille, max_withdrawal, busy)| {
            let (subject, rule, only_when_idle) = who;
            CheckPlan {
                failure_rule,
                rule,
                only_when_idle,
                subject,
                on_stale,
                success_threshold,
                interval: secs(interval),
                fast_interval: ms(interval * 500),
                down_interval: secs(interval * 2),
                timeout: ms(interval * 400),
                max_age: secs(interval * 5),
                jitter_permille,
                max_withdrawal,
                on_timeout: if busy { OnTimeout::Unknown } else { OnTimeout::Fail },
                ..CheckPlan::new("", "tcp")
            }
        },
    )
}

/// Carries ops out against an engine, recording everything and holding it to the driving contract.
struct Run {
    engine: Engine,
    now: Time,
    plans: Vec<Arc<Plan>>,
    in_flight: Vec<(CheckId, Attempt)>,
    ended: Vec<(CheckId, Attempt)>,
    outputs: Vec<(Time, Output)>,
    trace: Trace,
}

impl Run {
    fn new(plan: Plan) -> Self {
        assert_eq!(plan.validate(), Ok(()));
        let (plan, now) = (Arc::new(plan), Time::from_secs(100));
        let mut run = Self {
            engine: Engine::new(now, Arc::clone(&plan), 3),
            now,
            trace: Trace::new(3, now, &plan),
            plans: vec![plan],
            in_flight: Vec::new(),
            ended: Vec::new(),
            outputs: Vec::new(),
        };
        run.carry_out();
        run
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            self.outputs.push((self.now, output.clone()));
            match output {
                Output::Start { check, attempt, deadline } => {
                    assert!(deadline > self.now);
                    assert!(self.in_flight.iter().all(|(known, _)| *known != check), "two attempts of {check:?}");
                    self.in_flight.push((check, attempt));
                }
                Output::Cancel { check, attempt } => {
                    let before = self.in_flight.len();
                    self.in_flight.retain(|known| *known != (check, attempt));
                    assert_eq!(self.in_flight.len() + 1, before, "cancelled what was not in flight");
                    self.ended.push((check, attempt));
                }
                Output::Transition(_) => {}
            }
        }
    }

    fn input(&mut self, input: Input) {
        let event = match &input {
            Input::Reload { plan } => Event::Reload(Some(Box::new(Imprint::of(plan)))),
            other => Event::Input(other.clone()),
        };
        self.trace.events.push((self.now, event));
        self.engine.handle_input(self.now, input);
        self.carry_out();
    }

    fn timeout(&mut self, at: Time) {
        self.now = self.now.max(at);
        self.trace.events.push((self.now, Event::Timeout));
        self.engine.handle_timeout(self.now);
        self.carry_out();
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Pass(millis) => self.now += ms(millis),
            Op::Timeout(wait) => {
                let due = self.engine.poll_timeout().filter(|_| wait).unwrap_or(self.now);
                self.timeout(due);
            }
            Op::Report { which, verdict, sign } => self.report(which, verdict, sign),
            Op::Bogus { check, attempt } => self.bogus(check, attempt),
            Op::Sign { backend, refused } => {
                let sign = if refused { Sign::Refused } else { Sign::Answered };
                self.input(Input::Sign { backend: BackendId(backend), sign });
            }
            Op::RunNow(check) => self.input(Input::RunNow { check: CheckId(check) }),
            Op::Force { check, state, ttl_ms } => {
                let forced = [None, Some(Forced::Up), Some(Forced::Down)][state as usize];
                self.input(Input::Override { check: CheckId(check), forced, ttl: ms(ttl_ms) });
            }
            Op::SetReady(enabled) => self.input(Input::SetReady { enabled }),
            Op::Drain => self.input(Input::Drain),
            Op::InFlight(requests) => self.input(Input::InFlight { requests }),
            Op::Ends(good, bad, trials) => {
                let first = Ends {
                    succeeded: good,
                    failed: bad,
                    row: bad,
                    failure: (bad > 0).then_some(Failure::Status(500)),
                    trials_succeeded: trials / 2,
                    trials_failed: trials,
                    trials_unanswered: 0,
                    trying: trials % 2 == 1,
                    pending: good % 3,
                    last_byte: (good % 2 == 0).then_some(self.now),
                };
                self.input(Input::Ends(vec![first, Ends { succeeded: bad, row: 0, ..first }]));
            }
            Op::Origins(share, good, bad) => {
                let mut origins = Origins::default();
                origins.shares[share] = (good, bad);
                self.input(Input::Origins(Box::new(origins)));
            }
            Op::Traffic(pending, count) => {
                let since = Time::from_secs(100) + secs(count);
                self.input(Input::Traffic(Traffic {
                    in_flight: pending,
                    oldest_begun: (pending > 0).then_some(since),
                    quietest_since: (pending > 0).then_some(since),
                    last_byte: (pending < 2).then_some(since),
                    abandoned: count,
                    abandoned_wait: secs(count * 2),
                    abandoned_sharing: count * 3,
                    lent_until: (count % 5 == 0).then_some(since),
                    pace: (pending < 2).then_some(ms(500)),
                    patience: Duration::ZERO,
                    queued: count % 3,
                    shed: count / 7,
                    succeeded: count / 2,
                    failed: count,
                    last_beat: Some(self.now),
                    queue_since: None,
                    work_begun: (pending > 1).then_some(since),
                    work_byte: (pending % 2 == 0).then_some(since),
                }));
            }
            Op::Throttled(on) => self.input(Input::Throttled { on }),
            Op::Reload(renamed) => {
                let mut plan = Plan::clone(&self.plans[0]);
                for (index, check) in plan.checks.iter_mut().enumerate() {
                    if renamed >> (index % 8) & 1 == 1 {
                        check.name.push('x');
                    }
                }
                let plan = Arc::new(plan);
                self.plans.push(Arc::clone(&plan));
                self.input(Input::Reload { plan });
            }
        }
    }

    fn report(&mut self, which: usize, verdict: u8, sign: u8) {
        if self.in_flight.is_empty() {
            return;
        }
        let (check, attempt) = self.in_flight[which % self.in_flight.len()];
        let verdict = [
            Verdict::Pass,
            Verdict::Fail(Fault::Answer),
            Verdict::Fail(Fault::Refused),
            Verdict::Fail(Fault::Timeout),
            Verdict::Fail(Fault::Unreachable),
            Verdict::Unknown,
        ][verdict as usize];
        let sign = match sign {
            0 => Some(Sign::CounterReset),
            1 => Some(Sign::Process { pid: 1, started: 1 }),
            2 => Some(Sign::Process { pid: 2, started: 1 }),
            3 => Some(Sign::StartedAt { unix_ms: 5 }),
            _ => None,
        };
        let reading = (verdict == Verdict::Pass).then(|| Reading {
            value: Some(0.1 * which as f64),
            age: ms(3),
            cpu: Some(ms(20)),
            threads: Some(Threads { all: 9, ready: 2, uninterruptible: 1, stopped: 3, ended: 1 }),
            answers: Some(Answers { right: 3, asked: 4 }),
            examples: 77,
        });
        let outcome = Outcome { verdict, reason: format!("tab\there {sign:?}"), latency: ms(2), sign, reading };
        self.trace.events.push((self.now, Event::Input(Input::Result { check, attempt, outcome: outcome.clone() })));
        self.engine.handle_input(self.now, Input::Result { check, attempt, outcome });
        // A new attempt of the same check may begin in the same breath; this one has ended, or was cancelled
        // because its time was up before its result came.
        let cancelled = self.engine.outputs.contains(&Output::Cancel { check, attempt });
        if !cancelled {
            self.in_flight.retain(|known| *known != (check, attempt));
            self.ended.push((check, attempt));
        }
        self.carry_out();
    }

    /// A result that must not count. One that happens to be in flight is made to be none.
    fn bogus(&mut self, check: u32, attempt: u64) {
        let (check, attempt) = if attempt.is_multiple_of(2) && !self.ended.is_empty() {
            self.ended[attempt as usize % self.ended.len()]
        } else {
            (CheckId(check), Attempt(attempt + 1_000_000))
        };
        let outcome = Outcome::fail(Fault::Answer, "must not count", ms(1)).sign(Sign::CounterReset);
        self.input(Input::Result { check, attempt, outcome });
    }
}

fn run(plan: &Plan, ops: &[Op]) -> Run {
    let mut run = Run::new(plan.clone());
    for op in ops {
        run.apply(op);
    }
    run
}

/// A group's level, worked out from nothing but the states of its members.
fn level_of(plan: &Plan, snapshot: &Snapshot, member: Member) -> Level {
    match member {
        Member::Check(id) => match snapshot.check(id).state {
            CheckState::Up => Level::Up,
            CheckState::Down => Level::Down,
            _ => Level::Unknown,
        },
        Member::Group(id) => {
            let group = &plan.groups[id.index()];
            let levels: Vec<Level> = group.of.iter().map(|&m| level_of(plan, snapshot, m)).collect();
            let count = |level: Level| levels.iter().filter(|l| **l == level).count() as u32;
            if count(Level::Up) >= group.min {
                Level::Up
            } else if count(Level::Down) > levels.len() as u32 - group.min {
                Level::Down
            } else {
                Level::Unknown
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn equal_inputs_give_equal_outputs_and_a_trace_replays_to_them(plan in plans(), ops in ops()) {
        let mut first = run(&plan, &ops);
        let mut second = run(&plan, &ops);
        prop_assert_eq!(&first.outputs, &second.outputs);
        prop_assert_eq!(first.engine.snapshot(), second.engine.snapshot());
        let read = Trace::from_text(&first.trace.to_text()).unwrap();
        prop_assert_eq!(&read, &first.trace);
        prop_assert_eq!(read.replay(&first.plans), first.outputs);
    }

    #[test]
    fn late_duplicate_unknown_and_cancelled_results_are_no_ops(plan in plans(), ops in ops()) {
        let mut run = Run::new(plan);
        for op in &ops {
            run.apply(op);
            let before = (run.outputs.len(), run.engine.snapshot(), run.engine.poll_timeout());
            // Due work first, so that only the result itself is looked at.
            if run.engine.poll_timeout().is_some_and(|at| at <= run.now) {
                continue;
            }
            for attempt in 0..4 {
                run.bogus(attempt as u32, attempt);
            }
            let mut after = run.engine.snapshot();
            after.at = before.1.at;
            prop_assert_eq!(&after, &before.1);
            prop_assert_eq!(run.outputs.len(), before.0);
            prop_assert_eq!(run.engine.poll_timeout(), before.2);
        }
    }

    #[test]
    fn time_always_makes_progress(plan in plans(), ops in ops()) {
        let mut run = run(&plan, &ops);
        for _ in 0..200 {
            let Some(due) = run.engine.poll_timeout() else { break };
            let at = due.max(run.now);
            run.timeout(at);
            prop_assert!(run.engine.poll_timeout().is_none_or(|next| next > at), "stuck at {at}");
        }
    }

    #[test]
    fn nothing_but_fresh_down_evidence_or_a_spent_startup_budget_fails_health(plan in plans(), ops in ops()) {
        let mut run = Run::new(plan.clone());
        let mut forced = false;
        for op in &ops {
            forced |= matches!(op, Op::Force { .. });
            run.apply(op);
            // What is due is judged first: until then the engine cannot know that evidence has aged.
            if run.engine.poll_timeout().is_some_and(|at| at <= run.now) {
                let now = run.now;
                run.timeout(now);
            }
            let snapshot = run.engine.snapshot();
            if snapshot.health.status != Status::Fail {
                continue;
            }
            prop_assert!(snapshot.doubt.is_none());
            let overdue = snapshot.instance.budget_until.is_some_and(|until| until <= snapshot.at);
            let down = snapshot.health.members.iter().any(|member| {
                let check = snapshot.check(member.check);
                let age = check.last.as_ref().map(|last| snapshot.at.since(last.at));
                let max_age = run.engine.plan().checks[member.check.index()].max_age;
                check.state == CheckState::Down && (forced || age.is_some_and(|age| age <= max_age))
            });
            prop_assert!(overdue || down, "{:?}", snapshot.health);
            prop_assert!(!snapshot.health.why.is_empty());
        }
    }

    #[test]
    fn groups_and_gates_say_what_their_members_say(plan in plans(), ops in ops()) {
        let mut run = Run::new(plan);
        for op in &ops {
            run.apply(op);
            let snapshot = run.engine.snapshot();
            let plan = Arc::clone(run.engine.plan());
            for (index, group) in snapshot.groups.iter().enumerate() {
                let id = Member::Group(GroupId(index as u32));
                prop_assert_eq!(group.level, level_of(&plan, &snapshot, id));
            }
            let up = |member: &Member| level_of(&plan, &snapshot, *member) == Level::Up;
            let all_up = plan.ready.require.iter().all(up);
            let free = snapshot.drain.phase == DrainPhase::Serving
                && snapshot.disabled_since.is_none()
                && snapshot.instance.phase != InstancePhase::Starting
                && snapshot.startup.status.passes();
            if free && all_up {
                prop_assert!(snapshot.ready.status.passes());
            }
            if !free {
                prop_assert_eq!(snapshot.ready.status, Status::Fail);
            }
            let strict = plan.checks.iter().all(|c| c.max_withdrawal.is_none() && c.on_stale == OnStale::Fail);
            if strict && !all_up {
                prop_assert_eq!(snapshot.ready.status, Status::Fail);
            }
            if snapshot.ready.status != Status::Pass {
                prop_assert!(!snapshot.ready.why.is_empty());
            }
        }
    }

    #[test]
    fn ready_never_flips_faster_than_its_thresholds_allow(
        results in vec(any::<bool>(), 1..200), down in 1..5u32, up in 1..4u32, jitter in 0..300u32,
    ) {
        let plan = CheckPlan {
            failure_rule: FailureRule::Consecutive(down),
            success_threshold: up,
            jitter_permille: jitter,
            ..check("redis")
        };
        let mut world = World::new(Plan {
            checks: vec![plan],
            ready: ReadyPlan { require: one(0), degrade: vec![] },
            ..Plan::default()
        });
        let told = std::rc::Rc::new(std::cell::RefCell::new(Vec::<(Time, bool)>::new()));
        let (log, count) = (std::rc::Rc::clone(&told), results.len());
        let mut results = results.into_iter();
        world.script("redis", Box::new(move |now| {
            let pass = results.next().unwrap_or(true);
            log.borrow_mut().push((now, pass));
            if pass { Outcome::pass(Duration::ZERO) } else { Outcome::fail(Fault::Answer, "no", Duration::ZERO) }
        }));
        world.run_secs(count as u64 * 6);
        let told = told.borrow();
        for (status, threshold, meaning) in [(Status::Fail, down, false), (Status::Pass, up, true)] {
            for at in world.turns(Gate::Ready, status) {
                let until = told.iter().filter(|(when, _)| *when <= at).count();
                prop_assert!(until >= threshold as usize);
                let row = &told[until - threshold as usize..until];
                prop_assert!(row.iter().all(|(_, pass)| *pass == meaning), "{status:?} at {at}: {row:?}");
                let shortest = limits_of_pending(threshold);
                prop_assert!(at.since(row[0].0) >= shortest, "{status:?} at {at} after {:?}", at.since(row[0].0));
            }
        }
        let flips = world.turns(Gate::Ready, Status::Fail).len() + world.turns(Gate::Ready, Status::Pass).len();
        prop_assert!(flips <= told.len() / down.min(up) as usize + 1);
    }

    #[test]
    fn a_trace_never_panics_on_junk(text in "\\PC{0,200}", header in any::<bool>()) {
        let text = if header { format!("probegate-trace 1\n{text}") } else { text };
        let _ = Trace::from_text(&text);
    }
}

/// The least time that a row of so many results takes: no interval is shorter than the pending one.
fn limits_of_pending(results: u32) -> Duration {
    crate::limits::CHECK_PENDING_INTERVAL_MAX * (results - 1)
}

#[test]
fn ten_thousand_checks_run() {
    let checks: Vec<CheckPlan> = (0..10_000).map(|index| CheckPlan::new(format!("c{index}"), "tcp")).collect();
    let require: Vec<Member> = (0..10_000).map(|index| Member::Check(CheckId(index))).collect();
    let mut world = World::new(Plan { checks, ready: ReadyPlan { require, degrade: vec![] }, ..Plan::default() });
    world.run_secs(12);
    assert_eq!(world.status(Gate::Ready), Status::Pass);
    let mut started: HashMap<CheckId, u32> = HashMap::new();
    for (_, output) in &world.outputs {
        if let Output::Start { check, .. } = output {
            *started.entry(*check).or_default() += 1;
        }
    }
    assert_eq!(started.len(), 10_000);
    assert!(started.values().all(|&times| (2..=4).contains(&times)));
}
