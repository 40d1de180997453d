//! `progress`, `outcomes` and `golden` as typed, and what may not decide liveness.

use super::*;
use crate::engine::{Abandoned, AccuracyPlan, GaugePlan, OutcomesPlan, SaturationPlan, TrafficRule};

#[test]
fn progress_is_a_text_or_a_table_and_its_golden_check_is_found_by_name() {
    let config = with(
        "[checks.a]\nprogress = \"90s\"\n[checks.b]\n\
        progress = { counter = 'n{path=\"/predict\"}', counter_lag = \"7s\", process = \"python\", golden = \"g\", \
        abandoned = \"dropped\" }\n[checks.g]\ngolden = \"golden.json\"",
    )
    .expect("whole");
    let short = life(&config, "a").progress().expect("progress");
    assert_eq!((short.stall_after, short.counter.as_ref(), short.golden), (Duration::from_secs(90), None, None));
    let long = life(&config, "b").progress().expect("progress");
    assert_eq!(long.stall_after, crate::limits::STALL_AFTER);
    let counter = long.counter.as_ref().expect("a counter");
    assert_eq!((counter.name.as_str(), counter.lag), ("n{path=\"/predict\"}", Duration::from_secs(7)));
    assert_eq!(long.cpu.as_deref(), Some("python"));
    assert_eq!(config.engine.abandoned, Abandoned::Dropped);
    let golden = long.golden.expect("golden");
    assert_eq!(config.engine.checks[golden.index()].name, "g");
}

#[test]
fn outcomes_need_nothing_and_take_everything() {
    let config = with(
        "[checks.a]\noutcomes = {}\n[checks.b]\n\
        outcomes = { min_success = \"90%\", window = \"10s\", min_requests = 3, consecutive_failures = 0 }",
    )
    .expect("whole");
    assert_eq!(life(&config, "a").rule, Some(TrafficRule::Outcomes(OutcomesPlan::default())));
    let window = Duration::from_secs(10);
    let plan = OutcomesPlan { min_success_permille: 900, window, min_requests: 3, consecutive_failures: 0 };
    assert_eq!(life(&config, "b").rule, Some(TrafficRule::Outcomes(plan)));
}

#[test]
fn saturation_takes_marks_of_every_kind_and_needs_one() {
    let config = with(
        "[checks.a]\nsaturation = { in_flight = 8 }\n[checks.b]\nsaturation = { queued = 4, queue_age = \"2s\", \
         gauge = \"kv{kind=\\\"gpu\\\"}\", max = 0.9, combine = \"max\", page = \"/m\", low = \"50%\", for = \"1s\", shed = false }",
    )
    .expect("whole");
    let plan = SaturationPlan {
        in_flight: Some(8),
        queued: None,
        queue_age: None,
        gauge: None,
        low_permille: 800,
        hold: Duration::from_secs(5),
        shed: true,
    };
    assert_eq!(life(&config, "a").rule, Some(TrafficRule::Saturation(plan)));
    let Some(TrafficRule::Saturation(all)) = &life(&config, "b").rule else { panic!("no rule") };
    let gauge = GaugePlan { name: "kv{kind=\"gpu\"}".to_owned(), max: 0.9 };
    assert_eq!((all.queued, all.queue_age, all.gauge.as_ref()), (Some(4), Some(Duration::from_secs(2)), Some(&gauge)));
    assert_eq!((all.low_permille, all.hold, all.shed), (500, Duration::from_secs(1), false));
}

#[test]
fn golden_takes_its_time_and_its_file_lies_beside_the_configuration() {
    let config = with("[checks.g]\ngolden = { cases = \"golden.json\", only_when_idle = \"30s\" }").expect("whole");
    let golden = life(&config, "g");
    assert_eq!((golden.interval, golden.timeout), (crate::limits::GOLDEN_INTERVAL, crate::limits::GOLDEN_TIMEOUT));
    assert_eq!(golden.only_when_idle, Some(Duration::from_secs(30)));
    // It waits in the same queue as the users: in an overload its lateness is no news.
    assert_eq!(golden.on_timeout, OnTimeout::UnknownWhileMoving);
    let strict = with("[checks.g]\ngolden = \"golden.json\"\non_timeout = \"fail\"").expect("whole");
    assert_eq!(life(&strict, "g").on_timeout, OnTimeout::Fail);
}

#[test]
fn two_progress_checks_say_one_thing_of_what_the_server_drops() {
    let two = |first: &str, second: &str| {
        format!("[checks.a]\nprogress = {{ {first} }}\n[checks.b]\nprogress = {{ stall_after = \"9s\"{second} }}")
    };
    let (dropped, worked_off) = ("abandoned = \"dropped\"", ", abandoned = \"worked-off\"");
    assert_eq!(with(&two(dropped, "")).expect("whole").engine.abandoned, Abandoned::Dropped);
    let found = problems(&two(dropped, worked_off));
    assert!(found.contains("checks.b.progress.abandoned") && found.contains("the opposite of check `a`"), "{found}");
}

#[test]
fn golden_s_accuracy_is_of_the_latest_attempt_or_over_a_window() {
    let plain = with("[checks.g]\ngolden = \"golden.json\"").expect("whole");
    assert_eq!(life(&plain, "g").accuracy, Some(AccuracyPlan { min: 1.0, window: Duration::ZERO }));
    let typed = "[checks.g]\ngolden = { cases = \"golden.json\", min_accuracy = 0.8, window = \"10m\" }";
    let accuracy = AccuracyPlan { min: 0.8, window: Duration::from_secs(600) };
    assert_eq!(life(&with(typed).expect("whole"), "g").accuracy, Some(accuracy));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    for (typed, why) in [
        ("progress = { stall_after = \"0s\" }", "found 0"),
        ("progress = { counter = \"9a\" }", "the metric's name is not one"),
        ("progress = { counter_lag = \"1s\" }", "means nothing without a `counter`"),
        ("progress = { golden = \"nobody\" }", "the name of a golden check"),
        ("progress = { golden = \"upstream\" }", "names a check of another kind"),
        ("progress = { abandoned = \"aborted\" }", "worked-off"),
        ("outcomes = { min_requests = 0 }", "at least 1"),
        ("outcomes = { consecutive_failures = -1 }", "found -1"),
        ("outcomes = { min_success = \"120%\" }", "checks.a.outcomes.min_success"),
        ("saturation = {}", "nothing is held against a mark"),
        ("saturation = { in_flight = 0 }", "found 0"),
        ("saturation = { gauge = \"kv\" }", "no `max` for"),
        ("saturation = { queued = 1, max = 3.0 }", "means nothing without a `gauge`"),
        ("saturation = { queued = 1, low = \"101%\" }", "checks.a.saturation.low"),
        ("http = \"http://elsewhere/\"\non_timeout = \"unknown-while-moving\"", "says nothing of another server"),
        ("golden = { cases = \"c.json\", min_accuracy = 1.5 }", "0 to 1"),
        ("golden = { cases = \"c.json\", window = \"0s\" }", "checks.a.golden.window"),
    ] {
        let found = problems(&format!("[checks.a]\n{typed}"));
        assert!(found.contains(why), "{typed}: {found}");
    }
}

#[test]
fn load_and_golden_requests_never_decide_liveness_alone() {
    let health = |member: &str, more: &str| {
        format!(
            "[health]\nrequire = [\"{member}\"]\n[checks.golden]\ngolden = \"c.json\"\n[checks.queue]\n\
            metric = {{ name = \"vllm:num_requests_waiting\", max = 50 }}\n{more}"
        )
    };
    assert!(problems(&health("golden", "")).contains("would let wrong answers alone restart"));
    let marks = "[checks.load]\nsaturation = { in_flight = 8 }\n";
    assert!(problems(&health("load", marks)).contains("busy is not dead"));
    assert!(problems(&health("queue", "")).contains("busy is not dead"));
    let group = |word: &str| format!("[groups.both]\n{word} = [\"golden\", \"alive\"]");
    assert!(problems(&health("both", &group("all"))).contains("would let wrong answers alone restart"));
    assert!(with(&health("both", &group("any"))).is_ok());
    assert!(problems(&health("loads", "[groups.loads]\nany = [\"queue\"]")).contains("busy is not dead"));
    let two = |others: &str| format!("[groups.two]\nany = [\"golden\", \"queue\"{others}]");
    assert!(problems(&health("two", &two(""))).contains("would let load and wrong answers restart"));
    assert!(with(&health("two", &two(", \"alive\""))).is_ok());
    for gauge in ["vllm:num_requests_running", "vllm:gpu_cache_usage_perc", "trtllm_num_requests_running", "QueueTime"]
    {
        let text = health("queue", "").replace("vllm:num_requests_waiting", gauge);
        assert!(problems(&text).contains("busy is not dead"), "{gauge}");
    }
}
