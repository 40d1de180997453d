//! One model server after another: what is forgotten, what is waited for, what condemns.

use super::*;

#[test]
fn a_crash_a_restart_and_a_load_are_told_as_that_story() {
    let mut world = World::new(typical());
    world.run_secs(9);
    assert_eq!(world.statuses(), [Status::Pass; 3]);
    // Gone from 10 s on; answers again at 40 s, loading (503) until 70 s.
    world.script(
        "model",
        Box::new(|now| {
            if now < Time::from_secs(40) {
                Outcome::fail(Fault::Refused, "connection refused", ms(1)).sign(Sign::Refused)
            } else if now < Time::from_secs(70) {
                Outcome::fail(Fault::Answer, "status 503", ms(1)).sign(Sign::Answered)
            } else {
                Outcome::pass(ms(1)).sign(Sign::Answered)
            }
        }),
    );
    world.run_secs(3);
    // One refusal: nobody listens, so there is nobody to send traffic to, and a new one gets its budget.
    assert_eq!(world.statuses(), [Status::Fail, Status::Fail, Status::Pass]);
    world.run_secs(12);
    // Down by its own threshold, and a silent port is what loading looks like as well.
    assert_eq!(world.state("model"), CheckState::Down);
    assert_eq!(world.statuses(), [Status::Fail, Status::Fail, Status::Pass]);
    assert_eq!(world.engine.snapshot().health.why[0].cause, Cause::Gone);
    world.run_secs(20);
    // The new one is loading: no verdict outlives the process that it was about.
    assert_eq!(world.engine.snapshot().instance.number, 2);
    assert_eq!(world.statuses(), [Status::Fail, Status::Fail, Status::Pass]);
    world.run_secs(20);
    assert_eq!(world.statuses(), [Status::Fail, Status::Fail, Status::Pass]);
    world.run_secs(20);
    assert_eq!(world.statuses(), [Status::Pass; 3]);
}

#[test]
fn a_server_that_is_gone_for_longer_than_a_start_may_take_is_condemned() {
    let mut world = World::new(typical());
    world.script("model", away_between(10, 1000));
    world.run_secs(69);
    assert_eq!(world.statuses(), [Status::Fail, Status::Fail, Status::Pass]);
    world.run_secs(5);
    assert_eq!(world.statuses(), [Status::Fail; 3]);
    let why = &world.engine.snapshot().health.why[0];
    assert_eq!(why.cause, Cause::StartupBudget);
    assert!(why.text.ends_with("still waiting for a new model server"), "{}", why.text);
}

#[test]
fn a_restart_that_takes_a_third_of_a_second_is_seen_while_health_fails() {
    let mut plan = typical();
    plan.checks.push(CheckPlan { subject: Subject::Server, ..check("app") });
    plan.health.require = one(2);
    let mut world = World::new(plan);
    world.script("model", away_within(Time::from_millis(40_300)..Time::from_millis(40_600)));
    world.script("app", failing_between(10, 1000));
    world.run_secs(39);
    assert_eq!(world.statuses()[2], Status::Fail);
    world.run_secs(1);
    assert_eq!(world.statuses()[2], Status::Pass);
    assert_eq!(world.engine.snapshot().instance.number, 2);
}

#[test]
fn looking_closely_changes_no_threshold() {
    let mut plan = typical();
    plan.checks.push(CheckPlan { subject: Subject::Server, ..check("app") });
    plan.health.require = vec![Member::Check(CheckId(0)), Member::Check(CheckId(2))];
    plan.checks[0].success_threshold = 3;
    plan.checks[0].fast_interval = secs(2);
    let mut world = World::new(plan);
    let busy = |now: Time| now >= Time::from_secs(30) && now < Time::from_secs(60);
    world.script(
        "model",
        Box::new(move |now| {
            if busy(now) {
                Outcome::fail(Fault::Answer, "status 503", ms(1)).sign(Sign::Answered)
            } else {
                Outcome::pass(ms(1)).sign(Sign::Answered)
            }
        }),
    );
    world.script("app", failing_between(10, 50));
    world.run_secs(59);
    assert_eq!(world.state("model"), CheckState::Down);
    // The first pass is seen soon; the other two that it takes come as they always do.
    world.run_secs(4);
    assert_eq!(world.state("model"), CheckState::Down);
    world.run_secs(2);
    assert_eq!(world.state("model"), CheckState::Up);
}

#[test]
fn without_a_startup_gate_a_server_that_is_gone_is_condemned_by_its_thresholds() {
    let mut plan = typical();
    plan.startup.require.clear();
    let mut world = World::new(plan);
    world.script("model", away_between(10, 1000));
    world.run_secs(13);
    assert_eq!(world.statuses(), [Status::Pass; 3]);
    world.run_secs(12);
    assert_eq!(world.statuses(), [Status::Pass, Status::Fail, Status::Fail]);
}

#[test]
fn while_the_port_is_silent_other_evidence_still_condemns() {
    let mut plan = typical();
    plan.checks.push(CheckPlan { subject: Subject::Server, ..check("process") });
    plan.health.require = vec![Member::Check(CheckId(0)), Member::Check(CheckId(2))];
    let mut world = World::new(plan);
    world.script("model", away_between(10, 1000));
    world.script("process", failing_between(30, 1000));
    world.run_secs(30);
    assert_eq!(world.statuses(), [Status::Fail, Status::Fail, Status::Pass]);
    world.run_secs(12);
    assert_eq!(world.statuses(), [Status::Fail; 3]);
    let why = &world.engine.snapshot().health.why;
    assert!(why.len() == 1 && why[0].cause == Cause::Check(CheckId(2)), "{why:?}");
}

#[test]
fn what_was_down_before_the_server_appeared_does_not_fail_health_once_it_has() {
    let mut plan = typical();
    plan.checks.push(CheckPlan { subject: Subject::Backend(BackendId(0)), interval: secs(30), ..check("alive") });
    plan.checks[2].down_interval = secs(30);
    plan.checks[2].max_age = secs(100);
    plan.health.require = one(2);
    let mut world = World::new(plan);
    world.script("model", away_between(0, 20));
    world.script("alive", away_between(0, 20));
    world.run_secs(18);
    assert_eq!(world.state("alive"), CheckState::Down);
    world.run_secs(10);
    assert_eq!(world.statuses(), [Status::Pass; 3]);
    assert_eq!(world.state("alive"), CheckState::Up);
    assert!(world.turns(Gate::Health, Status::Fail).is_empty());
}

#[test]
fn what_was_down_while_loading_does_not_fail_health_once_loaded() {
    let mut plan = typical();
    plan.checks.push(CheckPlan { subject: Subject::Backend(BackendId(0)), down_interval: secs(30), ..check("alive") });
    plan.health.require = one(2);
    let loading = |until: u64| -> Script {
        Box::new(move |now| {
            if now < Time::from_secs(until) {
                Outcome::fail(Fault::Answer, "status 503", ms(1))
            } else {
                Outcome::pass(ms(1))
            }
        })
    };
    let mut world = World::new(plan);
    world.script("model", loading(40));
    world.script("alive", loading(40));
    world.run_secs(80);
    assert_eq!(world.statuses(), [Status::Pass; 3]);
    assert!(world.turns(Gate::Health, Status::Fail).is_empty());
}

#[test]
fn another_pid_is_another_model_server_and_is_counted_once() {
    let mut plan = typical();
    plan.checks.push(CheckPlan { subject: Subject::Server, ..check("process") });
    plan.checks.push(CheckPlan { subject: Subject::Server, ..check("metric") });
    let mut world = World::new(plan);
    let born = |now: Time| if now < Time::from_secs(30) { 100 } else { 200 };
    world.script(
        "process",
        Box::new(move |now| Outcome::pass(ms(1)).sign(Sign::Process { pid: 7, started: born(now) })),
    );
    world.script("metric", Box::new(move |now| Outcome::pass(ms(1)).sign(Sign::StartedAt { unix_ms: born(now) })));
    world.run_secs(60);
    assert_eq!(world.engine.snapshot().instance.number, 2);
    assert_eq!(world.statuses(), [Status::Pass; 3]);
}

#[test]
fn a_counter_reset_right_after_a_restart_is_not_a_second_restart() {
    let mut plan = typical();
    plan.checks.push(CheckPlan { subject: Subject::Server, ..check("counter") });
    let mut world = World::new(plan);
    world.script("model", away_between(20, 40));
    let mut resets = 0;
    world.script(
        "counter",
        Box::new(move |now| {
            let first_after = now >= Time::from_secs(40) && resets == 0;
            resets += u32::from(first_after);
            let outcome = Outcome::pass(ms(500));
            if first_after { outcome.sign(Sign::CounterReset) } else { outcome }
        }),
    );
    world.run_secs(100);
    assert_eq!(world.engine.snapshot().instance.number, 2);
}

#[test]
fn dependencies_keep_their_state_when_the_model_server_is_new() {
    let mut world = World::new(typical());
    world.script("model", away_between(20, 40));
    world.run_secs(60);
    let redis: Vec<_> = world.transitions.iter().filter(|t| t.what == Changed::Check("redis".to_owned())).collect();
    assert_eq!(redis.len(), 1, "{redis:?}");
}

#[test]
fn a_reload_that_leaves_only_an_address_that_has_gone_awaits_a_new_server_there() {
    let mut plan = typical();
    let other = CheckPlan { subject: Subject::Backend(BackendId(1)), ..check("other") };
    plan.checks.push(other);
    plan.backends.push(BackendPlan { address: "127.0.0.1:8001".to_owned(), check: CheckId(2) });
    plan.health.require = one(0);
    let mut world = World::new(plan);
    world.script("model", away_between(20, 60));
    world.run_secs(30);
    assert_eq!(world.engine.snapshot().instance.phase, InstancePhase::Started);
    let mut plan = typical();
    plan.health.require = one(0);
    world.scripts.truncate(2);
    world.input(Input::Reload { plan: Arc::new(plan) });
    assert_eq!(world.engine.snapshot().instance.phase, InstancePhase::Gone);
    world.run_secs(20);
    assert_eq!(world.status(Gate::Health), Status::Pass, "it has its budget to come back");
    world.run_secs(30);
    assert_eq!((world.engine.snapshot().instance.number, world.statuses()), (2, [Status::Pass; 3]));
}
