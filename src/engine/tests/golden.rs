//! `progress` and its golden check: what it must say too, and when it is asked.

use super::stall::*;
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

/// A golden check over ten minutes; what it is answered at each moment, out of ten.
fn graded(right: impl Fn(Time) -> u32 + 'static) -> World {
    let accuracy = AccuracyPlan { min: 0.8, window: secs(600) };
    let mut plan = typical();
    plan.checks[1] = CheckPlan { accuracy: Some(accuracy), subject: Subject::Server, ..check("answers") };
    let mut world = World::new(plan);
    let read = move |now| {
        let answers = Answers { right: right(now), asked: 10 };
        let outcome = match accuracy.is_met(answers) {
            true => Outcome::pass(ms(9)),
            false => Outcome::fail(Fault::Answer, format!("{answers} right"), ms(9)),
        };
        outcome.reading(Reading { answers: Some(answers), ..Reading::default() })
    };
    world.script("answers", Box::new(read));
    world
}

#[test]
fn accuracy_over_a_window_turns_by_its_sum_and_comes_back_by_it() {
    let bad = Time::from_secs(600)..Time::from_secs(900);
    let mut world = graded(move |now| if bad.contains(&now) { 4 } else { 10 });
    let answers = |world: &mut World| world.engine.snapshot().check_named("answers").unwrap().clone();
    world.run_secs(700);
    // A hundred seconds of six wrong in ten are a tenth of the window: nine in ten are right.
    assert_eq!(answers(&mut world).state, CheckState::Up);
    assert!((0.89..0.91).contains(&answers(&mut world).accuracy.unwrap()), "{:?}", answers(&mut world).accuracy);
    world.run_secs(150);
    assert_eq!(answers(&mut world).state, CheckState::Down, "a quarter of the window");
    assert!(answers(&mut world).reason.contains(" right within 10m; the latest attempt: 4 of 10 right"));
    world.run_secs(70);
    // The latest attempts are right again, and the window is not.
    assert_eq!(answers(&mut world).state, CheckState::Down);
    assert!(answers(&mut world).reason.contains(" right within 10m, at least 80 % must be; the latest attempt: "));
    world.run_secs(600);
    assert_eq!((answers(&mut world).state, answers(&mut world).accuracy), (CheckState::Up, Some(1.0)));
}

#[test]
fn right_answers_of_the_last_model_server_speak_for_no_other() {
    let swapped = Time::from_secs(500);
    let mut world = graded(move |now| if now < swapped { 10 } else { 1 });
    world.script("model", away_between(495, 505));
    world.run_secs(490);
    assert_eq!(world.state("answers"), CheckState::Up);
    world.run_secs(40);
    assert_ne!(world.state("answers"), CheckState::Up);
    assert_eq!(world.engine.snapshot().check_named("answers").unwrap().accuracy, Some(0.1));
}

/// The same plan with its model server at another address.
fn moved(plan: &Plan) -> Arc<Plan> {
    let mut plan = plan.clone();
    plan.backends[0].address = "127.0.0.1:8001".to_owned();
    Arc::new(plan)
}

#[test]
fn a_reload_to_another_address_is_another_model_server() {
    let swapped = Time::from_secs(100);
    let mut world = graded(move |now| if now < swapped { 10 } else { 1 });
    world.run_secs(99);
    assert_eq!(world.statuses(), [Status::Pass; 3]);
    let plan = moved(world.engine.plan());
    world.input(Input::Reload { plan });
    assert_eq!(world.engine.snapshot().instance.number, 2);
    assert_eq!((world.state("answers"), world.status(Gate::Ready)), (CheckState::Pending, Status::Fail));
    for _ in 0..60 {
        world.run_secs(1);
        assert_eq!(world.status(Gate::Ready), Status::Fail, "{}", world.now);
    }
    assert_eq!(world.engine.snapshot().check_named("answers").unwrap().accuracy, Some(0.1));
    assert_eq!(world.status(Gate::Health), Status::Pass);
}

#[test]
fn a_reload_that_keeps_the_address_keeps_the_tally() {
    let mut world = graded(|_| 10);
    world.run_secs(99);
    let plan = Arc::new(Plan { abandoned: Abandoned::Dropped, ..Plan::clone(world.engine.plan()) });
    world.input(Input::Reload { plan });
    assert_eq!(world.engine.snapshot().instance.number, 1);
    assert_eq!(world.statuses(), [Status::Pass; 3]);
    assert_eq!(world.engine.snapshot().check_named("answers").unwrap().accuracy, Some(1.0));
}

#[test]
fn one_address_that_comes_back_as_another_server_takes_its_golden_check_s_tally_with_it() {
    let accuracy = AccuracyPlan { min: 0.8, window: secs(600) };
    let mut plan = typical();
    plan.checks[1] =
        CheckPlan { accuracy: Some(accuracy), subject: Subject::Backend(BackendId(0)), ..check("answers") };
    plan.checks.push(CheckPlan { subject: Subject::Backend(BackendId(1)), ..check("other") });
    plan.backends.push(BackendPlan { address: "127.0.0.1:8001".to_owned(), check: CheckId(2) });
    let mut world = World::new(plan);
    let read = |now: Time| {
        let answers = Answers { right: if now < Time::from_secs(200) { 10 } else { 5 }, asked: 10 };
        Outcome::pass(ms(9)).reading(Reading { answers: Some(answers), ..Reading::default() })
    };
    world.script("answers", Box::new(read));
    world.script("model", away_between(195, 205));
    world.run_secs(230);
    assert_eq!(world.engine.snapshot().instance.number, 1, "the other one stood all the time");
    assert_eq!(world.engine.snapshot().check_named("answers").unwrap().accuracy, Some(0.5));
}

#[test]
fn an_accuracy_that_nobody_has_asked_for_lately_is_not_told() {
    let mut world = graded(|_| 10);
    world.run_secs(20);
    world.script("answers", Box::new(|_| Outcome::unknown("the model server is busy (503)", ms(1))));
    world.run_secs(60);
    assert_eq!(world.state("answers"), CheckState::Stale);
    assert_eq!(world.engine.snapshot().check_named("answers").unwrap().accuracy, None);
}

#[test]
fn one_bad_attempt_turns_nothing_however_young_the_window_and_it_is_shown() {
    let hiccup = Time::from_secs(30)..Time::from_secs(35);
    let mut world = graded(move |now| if hiccup.contains(&now) { 0 } else { 10 });
    world.run_secs(90);
    let answers = world.engine.snapshot().check_named("answers").unwrap().clone();
    assert!(answers.accuracy.is_some_and(|accuracy| 0.8 < accuracy && accuracy < 1.0), "{:?}", answers.accuracy);
    assert!(!world.transitions.iter().any(|told| told.to == "down"), "{:?}", world.transitions);
}

#[test]
fn a_bad_window_behind_good_attempts_neither_fails_nor_grows_stale() {
    let mut world = graded(|now| if now < Time::from_secs(12) || Time::from_secs(33) < now { 10 } else { 4 });
    world.run_secs(29);
    let failures = |world: &mut World| world.engine.snapshot().check_named("answers").unwrap().failures;
    assert!(failures(&mut world) >= 2, "bad attempts count while the window is bad");
    world.run_secs(170);
    let answers = world.engine.snapshot().check_named("answers").unwrap().clone();
    assert!(matches!(answers.state, CheckState::Up | CheckState::Down), "{}", answers.reason);
}
