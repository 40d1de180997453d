//! The engine of the lab sees the requests of the lab: failing answers, admission.

use super::*;
use crate::lab::scenario::Surge;

const PROBEGATE: &str = r#"
[upstream]
address = "127.0.0.1:80"
[startup]
require = ["alive"]
[health]
require = ["progress"]
[ready]
require = ["alive", "outcomes"]
[checks.alive]
tcp = "127.0.0.1:80"
interval = "5s"
timeout = "1s"
[checks.outcomes]
outcomes = {}
[checks.progress]
progress = { stall_after = "30s", counter = "done_total" }
"#;

/// Two pods with Probegate in front, and 20 requests a second for each.
fn behind(more: &str, server: &str, rest: &str) -> Scenario {
    behind_file(&format!("{PROBEGATE}{more}"), server, rest)
}

fn behind_file(file: &str, server: &str, rest: &str) -> Scenario {
    with_model(file, server, rest, "")
}

/// `model`: more of the model's container.
fn with_model(file: &str, server: &str, rest: &str, model: &str) -> Scenario {
    let text = format!(
        r#"
title = "t"
duration = "8m"
pods = 2
[server]
load = "5s"
concurrency = 4
queue = 100
service_time = "20ms"
{server}
[clients]
rate = 40.0
from = "30s"
timeout = "1s"
[dependencies.api]
latency = "1ms"
{rest}
[[designs]]
name = "ours"
probegate = "p.toml"
checks = {{ upstream = "listening", alive = "model" }}
[[designs.pod.initContainers]]
name = "probegate"
restartPolicy = "Always"
ports = [{{ containerPort = 9090 }}]
startupProbe = {{ httpGet = {{ path = "/self", port = 9090 }}, periodSeconds = 1, failureThreshold = 30 }}
readinessProbe = {{ httpGet = {{ path = "/ready", port = 9090 }}, periodSeconds = 2, failureThreshold = 1 }}
lifecycle = {{ preStop = {{ exec = {{ command = ["probegate", "drain", "--wait"] }} }} }}
[[designs.pod.containers]]
name = "model"
ports = [{{ containerPort = 80 }}]
startupProbe = {{ httpGet = {{ path = "/startup", port = 9090 }}, periodSeconds = 5, failureThreshold = 30 }}
livenessProbe = {{ httpGet = {{ path = "/health", port = 9090 }}, periodSeconds = 5, failureThreshold = 3 }}
{model}
"#
    );
    Scenario::parse(&text, &|_| Ok(file.to_owned())).unwrap()
}

const HANG: &str = "[[faults]]\nat = \"2m\"\npod = 0\nserver = \"hang\"\n";
/// What a `progress` check reads besides traffic, and what it asks itself.
const GOLDEN: (&str, &str) = (
    r#"counter = "done_total""#,
    r#"counter = "done_total", golden = "answers" }
[checks.answers]
interval = "10s"
golden = { cases = "golden.json", only_when_idle = "10s""#,
);

#[test]
fn a_hang_is_found_by_the_requests_that_wait_and_by_nobody_where_all_have_left() {
    let mut scenario = behind("", "", HANG);
    scenario.clients.timeout = Duration::from_secs(120);
    let waiting = score(&scenario);
    assert_eq!((waiting.restarts, waiting.unwanted_restarts), (1, 0));
    // Readiness takes the pod out, its clients give up, and silence says nothing any more.
    let left = score(&behind("", "", HANG));
    assert_eq!((left.restarts, left.pods_lost), (0, 1));
    assert!(left.out_of_rotation_seconds > 200.0, "{}", left.out_of_rotation_seconds);
}

#[test]
fn what_clients_gave_up_on_shares_the_server_with_those_that_come_after() {
    let left_over = |seconds: u64| {
        let mut scenario = behind("", "", "");
        let (at, until) = (Duration::from_secs(120), Duration::from_secs(140));
        scenario.clients.surges = vec![Surge { at, until, times: 6.0 }];
        scenario.versions[0].server.service_time = Duration::from_millis(100);
        scenario.duration = Duration::from_secs(seconds);
        let mut world = World::new(&scenario, &scenario.designs[0], 1);
        world.run();
        let Some(sidecar) = &world.slots[0].inner.sidecar else { panic!("no sidecar") };
        sidecar.plane.left_over
    };
    // Before a surge of three times the capacity, right after it, and once the server is through with it.
    assert_eq!(left_over(119), 0);
    assert!(left_over(141) > 100);
    assert_eq!(left_over(300), 0);
}

#[test]
fn a_golden_request_finds_the_hang_that_nobody_waits_for() {
    let score = score(&behind_file(&PROBEGATE.replace(GOLDEN.0, GOLDEN.1), "", HANG));
    assert_eq!((score.restarts, score.unwanted_restarts), (1, 0));
    assert!(score.out_of_rotation_seconds < 150.0, "{}", score.out_of_rotation_seconds);
}

#[test]
fn a_metrics_page_that_hangs_agrees_with_a_hang_and_one_that_is_lost_does_not() {
    let lost = "[[faults]]\nat = \"1m 30s\"\nfor = \"6m\"\npod = 0\nserver = \"metrics-lost\"\n";
    let mut hanging = behind("", "page_hangs = true", HANG);
    let mut lost = behind("", "", &format!("{lost}{HANG}"));
    for scenario in [&mut hanging, &mut lost] {
        scenario.clients.timeout = Duration::from_secs(120);
    }
    let (hanging, lost) = (score(&hanging), score(&lost));
    assert_eq!((hanging.restarts, hanging.unwanted_restarts), (1, 0));
    assert_eq!(lost.restarts, 0, "a counter that cannot be read withholds the verdict");
}

#[test]
fn a_deleted_pod_drains_unnoticed_where_its_server_waits_for_a_drain_that_is_about_to_begin() {
    let delete = "[[actions]]\nat = \"3m\"\ndelete_pod = 0\n";
    let run = |path: &str| {
        let hook = format!(r#"lifecycle = {{ preStop = {{ httpGet = {{ path = "{path}", port = 9090 }} }} }}"#);
        score(&with_model(PROBEGATE, "", delete, &hook))
    };
    let kept = run("/wait-for-drain?within=2s");
    assert_eq!((kept.failed(), kept.pods_made), (0, 1), "{:?}", kept.notes);
    // Both hooks of a pod start together, and a request is there before a command.
    let early = run("/wait-for-drain");
    let none = score(&behind("", "", delete));
    assert!(early.ended(End::Refused) > 0 && none.ended(End::Refused) > 0, "requests come while endpoints lag");
}

#[test]
fn a_frozen_counter_alone_is_no_hang() {
    let frozen = "[[faults]]\nat = \"2m\"\nfor = \"5m\"\npod = 0\nserver = \"counter-frozen\"\n";
    let score = score(&behind("", "", frozen));
    assert_eq!((score.restarts, score.failed()), (0, 0));
}

#[test]
fn failing_answers_close_the_gate_and_a_trial_opens_it_again() {
    let down = "[[faults]]\nat = \"2m\"\nfor = \"1m\"\ndependency = \"api\"\nis = \"down\"\npods = [0]\n";
    let score = score(&behind("", "requires = [{ dependency = \"api\", timeout = \"50ms\" }]", down));
    assert_eq!((score.restarts, score.pods_lost), (0, 1));
    assert!(score.ended(End::NotReady) > 0, "refused by the gate");
    assert!(score.out_of_rotation_seconds < 180.0, "it came back: {}", score.out_of_rotation_seconds);
}

#[test]
fn a_limit_lets_no_more_in_and_a_queue_lets_them_wait() {
    let slow = "[[faults]]\nat = \"2m\"\nfor = \"1m\"\npod = 0\nserver = \"slow\"\ntimes = 10.0\n";
    let shed = score(&behind("[traffic]\nmax_in_flight = 4\n", "", slow));
    assert!(shed.ended(End::QueueFull) > 10, "{}", shed.ended(End::QueueFull));
    let queue = "[traffic]\nmax_in_flight = 4\nqueue = { max = 50, timeout = \"800ms\" }\n";
    let waits = score(&behind(queue, "", slow));
    assert!(waits.failed() < shed.failed(), "{} {}", waits.failed(), shed.failed());
}

#[test]
fn requests_are_held_over_a_crash_and_lost_without() {
    let crash = "[[faults]]\nat = \"2m\"\npod = 0\nserver = \"crash\"\n";
    let mut held = behind("[traffic]\nhold = \"20s\"\n", "", crash);
    let mut plain = behind("", "", crash);
    for scenario in [&mut held, &mut plain] {
        scenario.clients.timeout = Duration::from_secs(30);
    }
    let (held, plain) = (score(&held), score(&plain));
    assert!(held.failed() < plain.failed(), "{} {}", held.failed(), plain.failed());
}

#[test]
fn a_sidecar_that_crashes_costs_requests_and_no_restart_of_the_server() {
    for (fault, name) in [("crash", "once"), ("oom", "killed")] {
        let fault = format!("[[faults]]\nat = \"2m\"\nfor = \"5s\"\npod = 0\nsidecar = \"{fault}\"\n");
        let score = score(&behind("", "", &fault));
        assert_eq!((score.sidecar_restarts, score.restarts), (1, 0), "{name}");
        assert!(score.ended(End::Refused) > 0, "{name}");
    }
}
