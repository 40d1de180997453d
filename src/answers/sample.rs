//! Snapshots for tests, made by hand.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{
    BackendState, BackendView, Cause, CheckId, CheckPlan, CheckState, CheckView, DrainPhase, DrainView, Ejections,
    Evidence, Fault, Gate, GateMember, GateView, GroupId, GroupPlan, GroupView, InstancePhase, InstanceView, Level,
    Member, ModelState, ModelView, Plan, ReadyPlan, Scope, Snapshot, Status, Time, Verdict, Why,
};

/// `model`, `redis` (both required) and `cache` (degrades): all up.
pub(super) fn healthy() -> Snapshot {
    let mut redis = check("redis", "redis", CheckState::Up);
    redis.target = "127.0.0.1:6379".into();
    redis.runbook = Some("https://runbooks.example/redis".into());
    compose(vec![check("model", "http", CheckState::Up), redis, check("cache", "memory", CheckState::Up)], |plan| {
        plan.ready = ReadyPlan {
            require: vec![Member::Check(CheckId(0)), Member::Check(CheckId(1))],
            degrade: vec![Member::Check(CheckId(2))],
        };
        plan.startup.require = vec![Member::Check(CheckId(0))];
        plan.health.require = vec![Member::Check(CheckId(0))];
    })
}

/// [`healthy`], but redis refuses.
pub(super) fn redis_down() -> Snapshot {
    let mut snapshot = healthy();
    down(&mut snapshot, 1, "connection refused by 127.0.0.1:6379");
    because(
        &mut snapshot,
        Gate::Ready,
        Cause::Check(CheckId(1)),
        "redis is down: connection refused by 127.0.0.1:6379",
    );
    snapshot
}

/// [`healthy`], but the cache is full: it degrades.
pub(super) fn degraded() -> Snapshot {
    let mut snapshot = healthy();
    down(&mut snapshot, 2, "1.1 GiB used, expected at most 1 GiB");
    because(&mut snapshot, Gate::Ready, Cause::Degraded(CheckId(2)), "cache is down");
    snapshot.ready.status = Status::Warn;
    snapshot
}

/// A required group `pair` of `a` and `b`, one of which is enough, both down.
pub(super) fn group_down() -> Snapshot {
    let mut snapshot = compose(vec![check("a", "tcp", CheckState::Up), check("b", "tcp", CheckState::Up)], |plan| {
        let of = vec![Member::Check(CheckId(0)), Member::Check(CheckId(1))];
        plan.groups = vec![GroupPlan { name: "pair".into(), min: 1, of }];
        plan.ready.require = vec![Member::Group(GroupId(0))];
    });
    snapshot.groups = [GroupView { name: "pair".into(), level: Level::Down, up: 0, of: 2, min: 1 }].into();
    for at in 0..2 {
        down(&mut snapshot, at, "refused");
        because(&mut snapshot, Gate::Ready, Cause::Check(CheckId(u32::try_from(at).unwrap())), "down");
    }
    snapshot
}

pub(super) fn set_group_min(snapshot: &mut Snapshot, min: u32) {
    Arc::make_mut(&mut snapshot.plan).groups[0].min = min;
}

/// So many required checks `c0000`, `c0001`, ... of which one fails.
pub(super) fn many(count: usize, failing: usize) -> Snapshot {
    let checks = (0..count).map(|at| check(&format!("c{at:04}"), "http", CheckState::Up)).collect();
    let mut snapshot = compose(checks, |plan| {
        plan.ready.require = (0..u32::try_from(count).unwrap()).map(|at| Member::Check(CheckId(at))).collect();
    });
    down(&mut snapshot, failing, &"no answer ".repeat(200));
    because(&mut snapshot, Gate::Ready, Cause::Check(CheckId(u32::try_from(failing).unwrap())), "down");
    snapshot
}

/// Adds a reason to a gate and lets it fail.
pub(super) fn because(snapshot: &mut Snapshot, gate: Gate, cause: Cause, text: &str) {
    let view = match gate {
        Gate::Startup => &mut snapshot.startup,
        Gate::Ready => &mut snapshot.ready,
        Gate::Health => &mut snapshot.health,
    };
    view.status = Status::Fail;
    view.why.push(Why { cause, since: Time::from_secs(7), text: text.into() });
}

pub(super) fn down(snapshot: &mut Snapshot, at: usize, reason: &str) {
    change(snapshot, at, |check| {
        check.state = CheckState::Down;
        check.reason = reason.into();
        check.failures = 3;
        check.failing_since = Some(Time::from_secs(5));
        check.last = Some(Evidence {
            at: Time::from_secs(7),
            verdict: Verdict::Fail(Fault::Refused),
            reason: reason.into(),
            latency: Duration::from_micros(210),
        });
    });
}

pub(super) fn reason(snapshot: &mut Snapshot, at: usize, reason: &str) {
    change(snapshot, at, |check| check.reason = reason.into());
}

pub(super) fn drain(snapshot: &mut Snapshot, phase: DrainPhase) {
    snapshot.drain.phase = phase;
    snapshot.revision += 1;
}

fn change(snapshot: &mut Snapshot, at: usize, change: impl FnOnce(&mut CheckView)) {
    let mut checks = snapshot.checks.to_vec();
    change(Arc::make_mut(&mut checks[at]));
    snapshot.checks = checks.into();
}

fn check(name: &str, kind: &'static str, state: CheckState) -> CheckView {
    CheckView {
        name: name.into(),
        kind,
        target: String::new(),
        state,
        since: Time::from_secs(1),
        last: Some(Evidence {
            at: Time::from_secs(6),
            verdict: Verdict::Pass,
            reason: String::new(),
            latency: Duration::from_micros(1_250),
        }),
        passes: 5,
        failures: 0,
        failing_since: None,
        last_success: Some(Time::from_secs(6)),
        next_attempt: Some(Time::from_secs(11)),
        in_flight_since: None,
        forced: None,
        reason: String::new(),
        attempts: 5,
        scope: Scope::Pod,
        runbook: None,
        accuracy: None,
    }
}

fn compose(checks: Vec<CheckView>, fill: impl FnOnce(&mut Plan)) -> Snapshot {
    let mut plan = Plan {
        checks: checks.iter().map(|check| CheckPlan::new(&check.name, check.kind)).collect(),
        ..Plan::default()
    };
    fill(&mut plan);
    let gate = |gate, members| GateView {
        gate,
        status: Status::Pass,
        since: Time::from_secs(2),
        why: Vec::new(),
        next: None,
        members,
    };
    let ids = 0..u32::try_from(checks.len()).unwrap();
    let degrades = |id: u32| plan.ready.degrade.contains(&Member::Check(CheckId(id)));
    let members = ids.map(|id| GateMember { check: CheckId(id), required: !degrades(id) }).collect();
    Snapshot {
        revision: 1,
        at: Time::from_secs(7),
        startup: gate(Gate::Startup, vec![GateMember { check: CheckId(0), required: true }]),
        ready: gate(Gate::Ready, members),
        health: gate(Gate::Health, vec![GateMember { check: CheckId(0), required: true }]),
        plan: Arc::new(plan),
        checks: checks.into_iter().map(Arc::new).collect(),
        groups: [].into(),
        backends: [BackendView {
            address: "127.0.0.1:8501".into(),
            enabled: true,
            state: BackendState::Up,
            since: Time::from_secs(2),
            reason: String::new(),
            next: None,
            ejections: Ejections::default(),
        }]
        .into(),
        instance: InstanceView { number: 1, phase: InstancePhase::Started, since: Time::ZERO, budget_until: None },
        model: ModelView { state: ModelState::Ready, since: Time::ZERO, reason: String::new(), busy_until: None },
        drain: DrainView { phase: DrainPhase::Serving, since: Time::ZERO, until: None, in_flight: 0, cut_off: false },
        disabled_since: None,
        trial: false,
        shedding: false,
        doubt: None,
        history: [].into(),
    }
}
