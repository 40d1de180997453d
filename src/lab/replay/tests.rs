use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::engine::{
    CheckId, CheckPlan, Engine, FailureRule, Fault, Imprint, Input, Member, Outcome, Output, ReadyPlan,
};

const DOWN_FROM: Time = Time::from_secs(60);
const UP_FROM: Time = Time::from_secs(90);
const RELOADED: Time = Time::from_secs(50);

fn plan(interval: u64, failures: u32, more: &[&str]) -> Arc<Plan> {
    let check = |name: &&str| CheckPlan {
        interval: Duration::from_secs(interval),
        fast_interval: Duration::from_secs(interval),
        down_interval: Duration::from_secs(interval),
        timeout: Duration::from_millis(900),
        failure_rule: FailureRule::Consecutive(failures),
        max_age: Duration::from_secs(60),
        ..CheckPlan::new(*name, "tcp")
    };
    let checks: Vec<CheckPlan> = ["redis"].iter().chain(more).map(check).collect();
    let ready = ReadyPlan { require: vec![Member::Check(CheckId(0))], degrade: Vec::new() };
    Arc::new(Plan { checks, ready, ..Plan::default() })
}

/// Two minutes of a check that failed between [`DOWN_FROM`] and [`UP_FROM`], recorded as `run` records: turns a little
/// late, answers after `latency`.
fn record(plan: &Arc<Plan>, latency: Duration) -> Trace {
    record_with(plan, latency, None)
}

/// The same, and at [`RELOADED`] another plan is loaded.
fn record_with(plan: &Arc<Plan>, latency: Duration, mut loaded: Option<&Arc<Plan>>) -> Trace {
    let started = Time::from_secs(7);
    let mut trace = Trace::new(11, started, plan);
    let mut engine = Engine::new(started, Arc::clone(plan), 11);
    let mut results: Vec<(Time, Input)> = Vec::new();
    let mut now = started;
    loop {
        while let Some(output) = engine.poll_output() {
            match output {
                Output::Start { check, attempt, .. } => {
                    let fails = DOWN_FROM <= now && now < UP_FROM;
                    let outcome = if fails {
                        Outcome::fail(Fault::Refused, "connection refused", latency)
                    } else {
                        Outcome::pass(latency)
                    };
                    results.push((now + latency, Input::Result { check, attempt, outcome }));
                }
                Output::Transition(transition) => trace.told.push(Told::from(&transition)),
                Output::Cancel { .. } => {}
            }
        }
        results.sort_by_key(|(at, _)| *at);
        let late = Duration::from_micros(700);
        let due = engine.poll_timeout().map(|due| due + late);
        let next = results.first().map(|(at, _)| *at).into_iter().chain(due).min().unwrap();
        if Time::from_secs(127) < next {
            return trace;
        }
        now = now.max(next);
        if RELOADED <= now
            && results.is_empty()
            && let Some(plan) = loaded.take()
        {
            trace.events.push((now, Event::Reload(Some(Box::new(Imprint::of(plan))))));
            engine.handle_input(now, Input::Reload { plan: Arc::clone(plan) });
            continue;
        }
        if results.first().is_some_and(|(at, _)| *at == next) {
            let input = results.remove(0).1;
            trace.events.push((now, Event::Input(input.clone())));
            engine.handle_input(now, input);
        } else {
            trace.events.push((now, Event::Timeout));
            engine.handle_timeout(now);
        }
    }
}

fn ready(told: &[Told]) -> Vec<(&str, Time)> {
    let turns = told.iter().filter(|told| told.about == "gate" && told.name == "ready");
    turns.map(|told| (told.to.as_str(), told.at)).collect()
}

#[test]
fn the_recorded_design_leads_to_exactly_what_was_recorded() {
    let plan = plan(2, 3, &[]);
    let read = Trace::from_text(&record(&plan, Duration::from_millis(3)).to_text()).unwrap();
    let replay = Replay::new(&read, &plan).unwrap();
    assert_eq!((replay.is_same, replay.reproduces()), (true, Some(true)));
    assert_eq!(replay.design, replay.recorded);
    assert_eq!(ready(&replay.design).iter().map(|(to, _)| *to).collect::<Vec<_>>(), ["pass", "fail", "pass"]);
}

#[test]
fn the_same_evidence_at_its_own_schedule_comes_to_the_same_turns_within_one_late_turn_each() {
    let plan = plan(2, 3, &[]);
    let mut trace = record(&plan, Duration::from_millis(3));
    trace.plan.fingerprint = None;
    let replay = Replay::new(&trace, &plan).unwrap();
    assert!(!replay.is_same);
    let [one, other] = [ready(&replay.recorded), ready(&replay.design)];
    assert_eq!(one.len(), other.len());
    for ((to, at), (to_other, at_other)) in one.iter().zip(&other) {
        assert_eq!(to, to_other);
        assert!(at.since(*at_other).max(at_other.since(*at)) < Duration::from_millis(100), "{at:?} {at_other:?}");
    }
}

#[test]
fn a_more_patient_design_turns_later_and_one_that_asks_rarely_later_still() {
    let trace = record(&plan(2, 3, &[]), Duration::from_millis(3));
    let failed = |plan: &Arc<Plan>| ready(&Replay::new(&trace, plan).unwrap().design)[1].1;
    let [recorded, patient, rare] = [plan(2, 3, &[]), plan(2, 8, &[]), plan(10, 3, &[])].map(|plan| failed(&plan));
    assert!(recorded + Duration::from_secs(9) < patient, "{recorded:?} {patient:?}");
    assert!(patient < rare, "{patient:?} {rare:?}");
    let never = plan(2, 30, &[]);
    assert_eq!(ready(&Replay::new(&trace, &never).unwrap().design).len(), 1);
}

#[test]
fn a_shorter_timeout_makes_a_slow_answer_a_timeout() {
    let trace = record(&plan(2, 3, &[]), Duration::from_millis(300));
    let mut hasty = Plan::clone(&plan(2, 3, &[]));
    hasty.checks[0].timeout = Duration::from_millis(200);
    let replay = Replay::new(&trace, &Arc::new(hasty)).unwrap();
    let down = replay.design.iter().find(|told| told.about == "check" && told.to == "down").unwrap();
    assert!(down.reason.contains("no answer in 0.20 s; it came after 0.30 s"), "{}", down.reason);
}

#[test]
fn a_check_that_nobody_recorded_is_named_and_stays_pending() {
    let trace = record(&plan(2, 3, &[]), Duration::from_millis(3));
    let replay = Replay::new(&trace, &plan(2, 3, &["other"])).unwrap();
    let why = "no check of this name and kind was recorded";
    assert_eq!(replay.without_evidence, [Missing { check: "other".to_owned(), kind: "tcp", why, state: "pending" }]);
    assert!(!replay.design.iter().any(|told| told.name == "other"));
    let mut kind = Plan::clone(&plan(2, 3, &[]));
    kind.checks[0].kind = "http";
    let replay = Replay::new(&trace, &Arc::new(kind)).unwrap();
    assert_eq!(replay.without_evidence.len(), 1);
    assert!(ready(&replay.design).is_empty());
}

#[test]
fn what_follows_a_reload_to_nobody_knows_what_is_left_out() {
    let plan = plan(2, 3, &[]);
    let mut trace = record(&plan, Duration::from_millis(3));
    let middle = trace.events.partition_point(|(at, _)| *at < Time::from_secs(50));
    trace.events.insert(middle, (Time::from_secs(50), Event::Reload(None)));
    let replay = Replay::new(&trace, &plan).unwrap();
    assert!(replay.cut_by_reload && replay.span < Duration::from_secs(44));
    assert_eq!((ready(&replay.design).len(), replay.reproduces()), (1, Some(true)));
    assert_eq!(replay.reloads, [Reloaded { at: 43.0, same_design: None }]);
}

#[test]
fn after_another_configuration_was_loaded_the_first_goes_on_with_what_was_seen() {
    let first = plan(2, 3, &[]);
    let mut other = Plan::clone(&plan(5, 1, &["redis"]));
    // Its checks are numbered in another way.
    other.checks[0] = CheckPlan { name: "other".to_owned(), ..other.checks[0].clone() };
    other.ready.require = vec![Member::Check(CheckId(1))];
    let trace = record_with(&first, Duration::from_millis(3), Some(&Arc::new(other.clone())));
    let read = Trace::from_text(&trace.to_text()).unwrap();
    assert_eq!(read.events, trace.events);
    let replay = Replay::new(&read, &first).unwrap();
    assert!(replay.is_same && !replay.cut_by_reload && Duration::from_secs(115) < replay.span);
    let [reload] = replay.reloads[..] else { panic!("{:?}", replay.reloads) };
    assert!(reload.same_design == Some(false) && (43.0..46.0).contains(&reload.at), "{reload:?}");
    assert_eq!(replay.reproduces(), Some(true), "up to the reload");
    let turns = ready(&replay.design);
    assert_eq!(turns.iter().map(|(to, _)| *to).collect::<Vec<_>>(), ["pass", "fail", "pass"], "{turns:?}");
    // Three failures of the first design, by evidence that came every five seconds.
    assert!(DOWN_FROM + Duration::from_secs(3) < turns[1].1 && turns[1].1 < UP_FROM, "{turns:?}");
    let by_other = Replay::new(&read, &Arc::new(other)).unwrap();
    assert_eq!((by_other.is_same, by_other.reloads[0].same_design), (false, Some(true)));
    assert!(ready(&by_other.design)[1].1 < turns[1].1, "one failure is enough for it");
}

#[test]
fn the_same_configuration_loaded_again_leads_to_exactly_what_was_recorded() {
    let plan = plan(2, 3, &[]);
    let trace = record_with(&plan, Duration::from_millis(3), Some(&plan));
    let replay = Replay::new(&trace, &plan).unwrap();
    assert_eq!(replay.reloads.iter().map(|reload| reload.same_design).collect::<Vec<_>>(), [Some(true)]);
    assert_eq!((replay.reproduces(), replay.design), (Some(true), trace.told));
}

#[test]
fn a_hole_in_the_recording_is_no_evidence() {
    let mut trace = record(&plan(2, 3, &[]), Duration::from_millis(3));
    let hole = Time::from_secs(20)..Time::from_secs(118);
    trace.events.retain(|(at, event)| *event == Event::Timeout || !hole.contains(at));
    let replay = Replay::new(&trace, &plan(3, 3, &[])).unwrap();
    let stale = replay.design.iter().find(|told| told.about == "check" && told.to == "stale");
    assert!(stale.is_some_and(|told| hole.contains(&told.at)), "{:?}", replay.design);
}

#[test]
fn a_recording_of_a_century_is_refused() {
    let plan = plan(2, 3, &[]);
    let mut trace = Trace::new(1, Time::ZERO, &plan);
    trace.events.push((Time::from_nanos(u64::MAX), Event::Timeout));
    assert!(Replay::new(&trace, &plan).is_err());
}

#[test]
fn gates_stand_side_by_side() {
    let told = |secs: u64, to: &str| Told {
        at: Time::from_secs(secs),
        about: "gate".to_owned(),
        name: "ready".to_owned(),
        from: String::new(),
        to: to.to_owned(),
        reason: String::new(),
    };
    let recorded = [told(2, "pass"), told(10, "fail"), told(20, "pass")];
    let design = [told(3, "pass")];
    let rows = rows(&recorded, &design, Time::ZERO);
    let shape: Vec<_> = rows.iter().map(|row| (row.recorded.is_some(), row.design.is_some())).collect();
    assert_eq!(shape, [(true, true), (true, false), (true, false)]);
    let of = |told: &[Told]| Gate::of(told, crate::engine::Gate::Ready, Time::ZERO, Duration::from_secs(30));
    assert_eq!(of(&recorded), Gate { failures: 1, failing_seconds: 12.0 });
    assert_eq!(of(&design), Gate { failures: 0, failing_seconds: 3.0 });
}
