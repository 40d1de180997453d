//! A golden request as a witness of a hang: when it is sent, and what its silence or its answer says.

use super::stall::{Scene, bare, counted, server};
use super::*;

#[test]
fn a_golden_request_that_is_named_must_burn_too() {
    for (answers, found) in [(true, false), (false, true)] {
        let mut plan = server(ProgressPlan { golden: Some(CheckId(2)), ..bare() });
        plan.checks.push(CheckPlan { only_when_idle: Some(secs(5)), ..check("answers") });
        let mut scene = Scene::new(plan);
        scene.begin();
        scene.end();
        scene.run(1.0);
        scene.begin();
        let since = scene.world.now;
        let outcome = move || {
            if answers { Outcome::pass(ms(9)) } else { Outcome::fail(Fault::Timeout, "timeout after 1s", secs(1)) }
        };
        scene.world.script("answers", Box::new(move |_| outcome()));
        scene.run(60.0);
        assert_eq!(scene.condemned_at().is_some(), found, "answers: {answers}");
        if found {
            scene.assert_found_after(since);
            assert!(scene.reason().ends_with("the golden request unanswered"), "{}", scene.reason());
        }
    }
}

/// With the product's own times: once a minute, ten seconds for an answer.
fn golden_each_minute() -> CheckPlan {
    use crate::limits::{GOLDEN_INTERVAL, GOLDEN_TIMEOUT};
    let (interval, timeout) = (GOLDEN_INTERVAL, GOLDEN_TIMEOUT);
    let max_age = interval * 2 + timeout;
    CheckPlan { interval, fast_interval: interval, down_interval: interval, timeout, max_age, ..check("answers") }
}

/// When attempts of a check began.
fn starts(scene: &Scene, id: u32) -> Vec<Time> {
    let began = |(at, output): &(Time, Output)| match output {
        Output::Start { check, .. } if check.0 == id => Some(*at),
        _ => None,
    };
    scene.world.outputs.iter().filter_map(began).collect()
}

#[test]
fn a_golden_request_that_is_named_is_sent_so_that_its_timeout_falls_together_with_stall_after() {
    for only_when_idle in [None, Some(secs(30))] {
        for (stall_after, latest) in [(secs(10), ms(11_000)), (secs(60), ms(61_000))] {
            for phase in 0..12 {
                let mut plan = server(ProgressPlan { stall_after, golden: Some(CheckId(2)), ..bare() });
                plan.checks.push(CheckPlan { only_when_idle, ..golden_each_minute() });
                let mut scene = Scene::new(plan);
                for _ in 0..60 + phase * 5 {
                    scene.begin();
                    scene.run(0.5);
                    scene.end();
                    scene.run(0.5);
                }
                scene.begin();
                let since = scene.world.now;
                let hung = || Outcome::fail(Fault::Timeout, "timeout after 10s", secs(10));
                scene.world.script("answers", Box::new(move |_| hung()));
                scene.run(80.0);
                let at = scene.condemned_at().expect("found");
                let took = at.since(since);
                assert!(stall_after <= took && took <= latest, "{stall_after:?}, phase {phase}: found after {took:?}");
                let sent = starts(&scene, 2).into_iter().filter(|start| since <= *start && *start <= at).count();
                assert!(sent <= 2, "{sent} sent: one of its own, or one or two of its timetable");
            }
        }
    }
}

#[test]
fn a_golden_request_that_answers_ends_the_silence_and_is_sent_no_more_often_than_its_timeout_lasts() {
    let mut plan = server(ProgressPlan { stall_after: secs(10), golden: Some(CheckId(2)), ..bare() });
    plan.checks.push(CheckPlan { only_when_idle: Some(secs(30)), ..golden_each_minute() });
    let mut scene = Scene::new(plan);
    scene.run(10.0);
    let before = starts(&scene, 2).len();
    // Answers that take two seconds each: none of these silences is a hang.
    for _ in 0..150 {
        scene.begin();
        scene.run(2.0);
        scene.end();
    }
    let sent = starts(&scene, 2).len() - before;
    assert!(0 < sent && sent <= 31, "{sent} in 300 s");
    assert_eq!(scene.condemned_at(), None);
    // Silence of a moment asks nobody.
    let before = starts(&scene, 2).len();
    for _ in 0..60 {
        scene.begin();
        scene.run(0.25);
        scene.end();
        scene.run(0.25);
    }
    assert_eq!(starts(&scene, 2).len(), before);
}

#[test]
fn an_idle_hang_is_found_by_golden_and_counter_together_and_by_golden_alone_never() {
    for (rule, found) in [(counted(), true), (bare(), false)] {
        let mut plan = server(ProgressPlan { golden: Some(CheckId(2)), ..rule });
        plan.checks.push(check("answers"));
        let mut scene = Scene::new(plan);
        scene.page(|_| Some(3.0));
        scene.world.script("answers", Box::new(|_| Outcome::fail(Fault::Timeout, "timeout after 1s", secs(1))));
        scene.run(60.0);
        assert_eq!(scene.condemned_at().is_some(), found);
    }
}

#[test]
fn golden_requests_wait_while_real_ones_end_well_and_stay_up_for_as_long() {
    let mut plan = server(bare());
    plan.checks.push(CheckPlan { only_when_idle: Some(secs(5)), ..check("answers") });
    let mut scene = Scene::new(plan);
    let attempts = |scene: &mut Scene| scene.world.engine.snapshot().check_named("answers").unwrap().attempts;
    let before = attempts(&mut scene);
    for _ in 0..120 {
        scene.begin();
        scene.run(0.5);
        scene.end();
    }
    assert_eq!(attempts(&mut scene), before);
    assert_eq!(scene.world.state("answers"), CheckState::Up);
    scene.run(12.0);
    assert!(attempts(&mut scene) > before);
}
