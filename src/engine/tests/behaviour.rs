//! What the contract says of checks and gates, case by case.

use super::*;

#[test]
fn a_new_engine_fails_ready_and_startup_closed_and_health_open() {
    let mut world = World::new(typical());
    assert_eq!(world.statuses(), [Status::Fail, Status::Fail, Status::Pass]);
    world.run_secs(1);
    assert_eq!(world.statuses(), [Status::Pass; 3]);
}

#[test]
fn ready_fails_at_the_third_failure_and_not_before_and_heals_at_the_first_pass() {
    let mut world = World::new(typical());
    world.script("redis", failing_between(10, 60));
    world.run_secs(100);
    // Attempts every 5 s from 1 s on: the first failure is at 11 s, the third at 21 s.
    assert_eq!(world.turns(Gate::Ready, Status::Fail), [Time::from_millis(21_001)]);
    assert_eq!(world.turns(Gate::Ready, Status::Pass).last(), Some(&Time::from_millis(61_001)));
    assert!(world.turns(Gate::Health, Status::Fail).is_empty());
}

#[test]
fn the_reason_names_the_check_the_evidence_and_what_comes_next() {
    let mut world = World::new(typical());
    world.script("redis", failing_between(10, 600));
    world.run_secs(31);
    let ready = world.engine.snapshot().ready;
    assert_eq!(ready.why[0].text, "redis is down: connection refused by 127.0.0.1:6379");
    assert_eq!(ready.why[0].cause, Cause::Check(CheckId(1)));
    assert_eq!(ready.why[0].since, Time::from_millis(21_001));
    let next = ready.next.unwrap();
    assert_eq!(next.text, "redis is tried again; one pass makes it up");
    assert_eq!(next.at, Some(Time::from_secs(36)));
}

#[test]
fn a_failure_in_progress_is_announced_while_the_gate_still_passes() {
    let mut world = World::new(typical());
    world.script("redis", failing_between(10, 600));
    world.run_secs(16);
    let ready = world.engine.snapshot().ready;
    assert_eq!(ready.status, Status::Pass);
    assert_eq!(ready.next.unwrap().text, "redis has failed 2 of 3 times and is tried again");
}

#[test]
fn an_attempt_that_nobody_reports_is_called_a_timeout_and_cancelled() {
    let mut world = World::new(typical());
    world.script("redis", Box::new(|_| Outcome::pass(secs(3600))));
    // The collector never reports: drop what the world would deliver at the deadline.
    for _ in 0..6 {
        world.results.retain(|_, (check, _, _)| *check != CheckId(1));
        let until = world.now + secs(1);
        while world.step(until) {
            world.results.retain(|_, (check, _, _)| *check != CheckId(1));
        }
    }
    assert_eq!(world.state("redis"), CheckState::Down);
    assert!(world.outputs.iter().any(|(_, o)| matches!(o, Output::Cancel { check: CheckId(1), .. })));
}

#[test]
fn n_of_m_counts_within_the_window_and_not_in_a_row() {
    let mut plan = typical();
    plan.checks[1].failure_rule = FailureRule::Window { fail: 3, of: 5 };
    let mut world = World::new(plan);
    let mut turn = 0;
    world.script(
        "redis",
        Box::new(move |_| {
            turn += 1;
            // pass, then fail and pass in turn: never two failures in a row.
            if turn > 1 && turn % 2 == 0 { Outcome::fail(Fault::Local, "full", ms(1)) } else { Outcome::pass(ms(1)) }
        }),
    );
    world.run_secs(24);
    assert_eq!(world.state("redis"), CheckState::Up);
    world.run_secs(3);
    assert_eq!(world.state("redis"), CheckState::Down);
}

#[test]
fn evidence_goes_stale_and_fails_ready_but_not_health() {
    let mut plan = typical();
    plan.checks[1].max_age = secs(11);
    plan.health.require.push(Member::Check(CheckId(1)));
    let mut world = World::new(plan);
    world.run_secs(5);
    world.script("redis", Box::new(|_| Outcome::unknown("no scrape", ms(1))));
    world.run_secs(20);
    assert_eq!(world.state("redis"), CheckState::Stale);
    assert_eq!(world.statuses(), [Status::Pass, Status::Fail, Status::Pass]);
    assert!(world.engine.snapshot().ready.why[0].text.starts_with("redis is stale: no fresh result for 11s"));
}

#[test]
fn stale_evidence_holds_or_degrades_where_the_plan_says_so() {
    for (on_stale, expected) in [(OnStale::Hold, Status::Pass), (OnStale::Degrade, Status::Warn)] {
        let mut plan = typical();
        plan.checks[1].on_stale = on_stale;
        let mut world = World::new(plan);
        world.run_secs(5);
        world.script("redis", Box::new(|_| Outcome::unknown("no scrape", ms(1))));
        world.run_secs(30);
        assert_eq!(world.state("redis"), CheckState::Stale);
        assert_eq!(world.status(Gate::Ready), expected, "{on_stale:?}");
    }
}

#[test]
fn a_child_is_skipped_while_its_parent_is_down_and_begins_anew_after() {
    let mut plan = typical();
    plan.checks.push(CheckPlan { depends_on: one(1), ..check("embeddings") });
    plan.ready.require.push(Member::Check(CheckId(2)));
    let mut world = World::new(plan);
    world.script("redis", failing_between(10, 60));
    world.run_secs(30);
    assert_eq!(world.state("embeddings"), CheckState::Skipped);
    let skipped = world.engine.snapshot().check_named("embeddings").unwrap().reason.clone();
    assert_eq!(skipped, "depends on redis, which is down");
    let before = world.outputs.len();
    world.run_secs(20);
    let started = world.outputs[before..].iter().any(|(_, o)| matches!(o, Output::Start { check: CheckId(2), .. }));
    assert!(!started, "a skipped check was started");
    world.run_secs(20);
    assert_eq!(world.state("embeddings"), CheckState::Up);
    assert_eq!(world.status(Gate::Ready), Status::Pass);
}

#[test]
fn a_busy_timeout_is_no_evidence_where_the_plan_says_so() {
    let mut plan = typical();
    plan.checks[0].on_timeout = OnTimeout::Unknown;
    plan.checks[0].max_age = secs(3600);
    let mut world = World::new(plan);
    world.run_secs(5);
    world.script("model", failing(Fault::Timeout));
    world.run_secs(300);
    assert_eq!(world.statuses(), [Status::Pass; 3]);
    world.script("model", failing(Fault::Answer));
    world.run_secs(30);
    assert_eq!(world.status(Gate::Health), Status::Fail);
}

#[test]
fn groups_compose_all_any_and_quorum() {
    let members: Vec<Member> = (1..4).map(|index| Member::Check(CheckId(index))).collect();
    for (min, down, ready) in [(3, 1, false), (1, 2, true), (1, 3, false), (2, 1, true), (2, 2, false)] {
        let mut plan = typical();
        plan.checks = vec![plan.checks[0].clone(), check("a"), check("b"), check("c")];
        plan.groups = vec![
            GroupPlan { name: "deps".to_owned(), min, of: members.clone() },
            GroupPlan { name: "nested".to_owned(), min: 1, of: vec![Member::Group(GroupId(0))] },
        ];
        plan.ready.require = vec![Member::Group(GroupId(1))];
        let mut world = World::new(plan);
        for name in ["a", "b", "c"].into_iter().take(down) {
            world.script(name, failing(Fault::Refused));
        }
        world.run_secs(30);
        let snapshot = world.engine.snapshot();
        assert_eq!(snapshot.ready.status.passes(), ready, "{min} of 3 with {down} down");
        assert_eq!(snapshot.ready.members.len(), 3);
        if !ready {
            assert!(snapshot.ready.why[0].text.contains("deps has"), "{}", snapshot.ready.why[0].text);
        }
    }
}

#[test]
fn a_degraded_member_warns_and_keeps_serving() {
    let mut plan = typical();
    plan.ready = ReadyPlan { require: one(0), degrade: one(1) };
    let mut world = World::new(plan);
    world.script("redis", failing(Fault::Refused));
    world.run_secs(30);
    assert_eq!(world.statuses(), [Status::Pass, Status::Warn, Status::Pass]);
    assert_eq!(world.engine.snapshot().ready.why[0].cause, Cause::Degraded(CheckId(1)));
}

#[test]
fn a_shared_dependency_withdraws_the_pod_for_so_long_and_then_degrades_it() {
    let mut plan = typical();
    plan.checks[1].max_withdrawal = Some(secs(120));
    let mut world = World::new(plan);
    world.script("redis", failing_between(10, 400));
    world.run_secs(60);
    assert_eq!(world.status(Gate::Ready), Status::Fail);
    world.run_secs(90);
    // Down since 21 s, so let back in at 141 s.
    assert_eq!(world.turns(Gate::Ready, Status::Warn), [Time::from_millis(141_001)]);
    assert_eq!(world.engine.snapshot().ready.why[0].cause, Cause::Withdrawn(CheckId(1)));
    world.run_secs(300);
    assert_eq!(world.status(Gate::Ready), Status::Pass);
}

#[test]
fn withdrawal_does_not_count_before_the_model_has_started() {
    let mut plan = typical();
    plan.checks[1].max_withdrawal = Some(secs(20));
    plan.startup =
        StartupPlan { require: vec![Member::Check(CheckId(0)), Member::Check(CheckId(1))], budget: secs(600) };
    let mut world = World::new(plan);
    world.script("redis", failing(Fault::Refused));
    world.run_secs(300);
    assert_eq!(world.statuses(), [Status::Fail, Status::Fail, Status::Pass]);
}

#[test]
fn health_passes_while_starting_within_budget_and_fails_past_it() {
    let mut world = World::new(typical());
    world.script("model", failing(Fault::Answer));
    world.run_secs(59);
    assert_eq!(world.statuses(), [Status::Fail, Status::Fail, Status::Pass]);
    world.run_secs(2);
    assert_eq!(world.statuses(), [Status::Fail, Status::Fail, Status::Fail]);
    let why = &world.engine.snapshot().health.why[0];
    assert_eq!(why.cause, Cause::StartupBudget);
    assert!(why.text.contains("budget of 1m") && why.text.contains("model"), "{}", why.text);
}

#[test]
fn the_restart_budget_holds_back_what_exceeds_it_and_says_so() {
    let mut plan = typical();
    plan.health.restart_budget = RestartBudget { count: 2, window: secs(1000) };
    plan.backends.clear();
    plan.checks[0].subject = Subject::Local;
    let mut world = World::new(plan);
    let flapping = |now: Time| (now.as_nanos() / 100_000_000_000) % 2 == 1;
    world.script(
        "model",
        Box::new(
            move |now| {
                if flapping(now) { Outcome::fail(Fault::Answer, "bad", ms(1)) } else { Outcome::pass(ms(1)) }
            },
        ),
    );
    world.run_secs(560);
    assert_eq!(world.turns(Gate::Health, Status::Fail).len(), 2);
    assert_eq!(world.status(Gate::Health), Status::Warn);
    let health = world.engine.snapshot().health;
    assert_eq!(health.why[0].cause, Cause::RestartBudget);
    assert_eq!(health.next.unwrap().at, Some(world.turns(Gate::Health, Status::Fail)[0] + secs(1000)));
    world.script("model", failing(Fault::Answer));
    world.run_secs(600);
    assert_eq!(world.status(Gate::Health), Status::Fail);
}

#[test]
fn an_override_wins_for_its_time_and_evidence_goes_on_below() {
    let mut world = World::new(typical());
    world.run_secs(5);
    let redis = world.id("redis");
    world.input(Input::Override { check: redis, forced: Some(Forced::Down), ttl: secs(60) });
    assert_eq!(world.status(Gate::Ready), Status::Fail);
    assert_eq!(world.engine.snapshot().ready.why[0].text, "redis is down: forced down by hand");
    world.run_secs(59);
    assert_eq!(world.status(Gate::Ready), Status::Fail);
    world.run_secs(2);
    assert_eq!(world.status(Gate::Ready), Status::Pass);
    world.input(Input::Override { check: redis, forced: Some(Forced::Up), ttl: secs(600) });
    world.script("redis", failing(Fault::Refused));
    world.run_secs(60);
    assert_eq!(world.status(Gate::Ready), Status::Pass);
    world.input(Input::Override { check: redis, forced: None, ttl: Duration::ZERO });
    assert_eq!(world.status(Gate::Ready), Status::Fail);
}

#[test]
fn ready_can_be_taken_and_given_back_by_hand() {
    let mut world = World::new(typical());
    world.run_secs(5);
    world.input(Input::SetReady { enabled: false });
    assert_eq!(world.statuses(), [Status::Pass, Status::Fail, Status::Pass]);
    assert_eq!(world.engine.snapshot().ready.why[0].cause, Cause::Disabled);
    world.input(Input::SetReady { enabled: true });
    assert_eq!(world.statuses(), [Status::Pass; 3]);
}

#[test]
fn a_drain_fails_ready_at_once_and_keeps_health() {
    let mut plan = typical();
    plan.drain = DrainPlan { propagation: secs(5), max: secs(20) };
    let mut world = World::new(plan);
    world.run_secs(5);
    world.input(Input::InFlight { requests: 1 });
    world.input(Input::Drain);
    assert_eq!(world.statuses(), [Status::Pass, Status::Fail, Status::Pass]);
    world.run_secs(6);
    assert_eq!(world.engine.snapshot().drain.phase, DrainPhase::Finishing);
    world.input(Input::InFlight { requests: 1 });
    world.run_secs(2);
    assert_eq!(world.engine.snapshot().drain.phase, DrainPhase::Finishing);
    world.input(Input::InFlight { requests: 0 });
    assert_eq!(world.engine.snapshot().drain.phase, DrainPhase::Done);
}

#[test]
fn a_late_engine_doubts_itself_and_withholds_health() {
    let mut world = World::new(typical());
    world.script("model", failing_between(5, 10_000));
    world.run_secs(12);
    assert_eq!(world.status(Gate::Health), Status::Pass);
    // The whole process stands still for a minute.
    world.now += secs(60);
    world.results.clear();
    world.engine.handle_timeout(world.now);
    world.carry_out();
    assert!(world.engine.snapshot().doubt.is_some());
    assert_ne!(world.status(Gate::Health), Status::Fail);
    world.run_secs(9);
    assert_ne!(world.status(Gate::Health), Status::Fail);
    world.run_secs(10);
    assert!(world.engine.snapshot().doubt.is_none());
    assert_eq!(world.status(Gate::Health), Status::Fail);
}

#[test]
fn what_a_late_engine_had_no_chance_to_look_at_is_not_stale_until_it_had_one() {
    let mut world = World::new(typical());
    world.run_secs(12);
    world.transitions.clear();
    for _ in 0..5 {
        // The process gets its CPU for two seconds a minute.
        world.now += secs(60);
        world.results.clear();
        world.engine.handle_timeout(world.now);
        world.carry_out();
        world.run_secs(2);
    }
    assert_eq!(world.status(Gate::Ready), Status::Pass);
    let turned: Vec<_> = world.transitions.iter().filter(|turn| turn.what != Changed::Doubt).collect();
    assert!(turned.is_empty(), "{turned:?}");
    for name in ["model", "redis"] {
        world.script(name, Box::new(|_| Outcome::unknown("nobody says anything", Duration::ZERO)));
    }
    world.run_secs(120);
    assert_eq!(world.status(Gate::Ready), Status::Fail);
}

#[test]
fn all_remote_checks_failing_at_once_is_doubted_and_one_of_them_is_believed() {
    let mut plan = typical();
    plan.checks[1].subject = Subject::Remote;
    plan.checks[1].max_age = secs(3600);
    plan.checks.push(CheckPlan { subject: Subject::Remote, max_age: secs(3600), ..check("api") });
    plan.ready.require.push(Member::Check(CheckId(2)));
    let mut world = World::new(plan.clone());
    world.run_secs(5);
    world.script("redis", failing(Fault::Timeout));
    world.script("api", failing(Fault::Unreachable));
    world.run_secs(120);
    assert_eq!(world.status(Gate::Ready), Status::Pass);
    assert!(world.engine.snapshot().doubt.unwrap().reason.contains("network"));
    world.script("api", passing());
    world.run_secs(30);
    assert_eq!(world.status(Gate::Ready), Status::Fail);
    assert!(world.engine.snapshot().doubt.is_none());
}

#[test]
fn intervals_follow_the_state() {
    let mut plan = typical();
    plan.checks[1] = CheckPlan {
        interval: secs(10),
        fast_interval: secs(2),
        down_interval: secs(30),
        pending_interval: secs(1),
        max_age: secs(100),
        success_threshold: 2,
        ..plan.checks[1].clone()
    };
    let mut world = World::new(plan);
    world.script("redis", failing_between(12, 70));
    world.run_secs(120);
    let starts: Vec<u64> = world
        .outputs
        .iter()
        .filter(|(_, o)| matches!(o, Output::Start { check: CheckId(1), .. }))
        .map(|(at, _)| at.as_nanos() / 1_000_000_000)
        .collect();
    // Pending 1, up 2 and 12; failing 12, 14, 16: down; 46, 76: rising; 78: up; then every 10 s.
    assert_eq!(starts, [1, 2, 12, 14, 16, 46, 76, 78, 88, 98, 108, 118]);
}

#[test]
fn a_reload_keeps_state_and_history_of_checks_that_stay_and_starts_the_new() {
    let mut world = World::new(typical());
    world.script("redis", failing_between(10, 10_000));
    world.run_secs(40);
    let mut plan = typical();
    plan.checks.insert(0, check("new"));
    plan.backends[0].check = CheckId(1);
    plan.startup.require = one(1);
    plan.ready.require = vec![Member::Check(CheckId(1)), Member::Check(CheckId(2))];
    plan.health.require = one(1);
    world.scripts.insert(0, passing());
    world.input(Input::Reload { plan: Arc::new(plan) });
    let snapshot = world.engine.snapshot();
    assert_eq!(snapshot.startup.status, Status::Pass);
    assert_eq!(snapshot.check_named("redis").unwrap().state, CheckState::Down);
    assert_eq!(snapshot.check_named("redis").unwrap().since, Time::from_millis(21_001));
    assert_eq!(snapshot.check_named("model").unwrap().state, CheckState::Up);
    assert_eq!(snapshot.check_named("new").unwrap().state, CheckState::Pending);
    assert_eq!(snapshot.ready.status, Status::Fail);
    assert!(snapshot.history.len() > 3);
    world.run_secs(2);
    assert_eq!(world.state("new"), CheckState::Up);
}

#[test]
fn a_ready_pod_has_an_open_door() {
    let mut plan = typical();
    let door = CheckPlan { subject: Subject::Backend(BackendId(0)), initial_delay: secs(3), ..check("door") };
    plan.checks.push(door);
    plan.backends[0].check = CheckId(2);
    let mut world = World::new(plan);
    world.script("model", away_between(0, 20));
    world.script("door", away_between(0, 20));
    while world.status(Gate::Ready) == Status::Fail {
        assert!(world.step(Time::from_secs(60)));
        let snapshot = world.engine.snapshot();
        assert!(snapshot.ready.status == Status::Fail || snapshot.backends[0].enabled);
    }
    world.script("door", failing(Fault::Timeout));
    world.run_secs(30);
    assert!(!world.engine.snapshot().backends[0].enabled);
}

#[test]
fn a_backend_is_let_in_by_its_check_alone() {
    let mut plan = typical();
    plan.checks[1].subject = Subject::Backend(BackendId(1));
    plan.backends.push(BackendPlan { address: "127.0.0.1:8001".to_owned(), check: CheckId(1) });
    let mut world = World::new(plan);
    assert!(world.engine.snapshot().backends.iter().all(|b| !b.enabled));
    world.script("redis", away_between(20, 40));
    world.run_secs(10);
    assert!(world.engine.snapshot().backends.iter().all(|b| b.enabled));
    world.run_secs(26);
    let enabled: Vec<bool> = world.engine.snapshot().backends.iter().map(|b| b.enabled).collect();
    assert_eq!(enabled, [true, false]);
    // One of two came back: the model server as a whole is the same one.
    world.run_secs(10);
    assert!(world.engine.snapshot().backends.iter().all(|b| b.enabled));
    assert_eq!(world.engine.snapshot().instance.number, 1);
}

#[test]
fn history_is_bounded() {
    let mut world = World::new(typical());
    world.script(
        "redis",
        Box::new(|now| {
            if (now.as_nanos() / 30_000_000_000) % 2 == 1 {
                Outcome::fail(Fault::Refused, "refused", ms(1))
            } else {
                Outcome::pass(ms(1))
            }
        }),
    );
    world.run_secs(30 * 600);
    assert_eq!(world.engine.snapshot().history.len(), crate::limits::HISTORY_TRANSITIONS);
}
