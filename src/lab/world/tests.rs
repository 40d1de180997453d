//! Whole worlds: what a design does to its users, and laws that hold in any of them.

mod fleet;
mod laws;
mod scale;
mod traffic;

use super::*;
use crate::lab::fixture::{self, probe};
use crate::lab::report;
use crate::lab::scenario::Scenario;

/// Two pods behind a Service; faults and the pod's probes are put in.
fn scenario(faults: &str, probes: &str, endpoints: &str) -> Scenario {
    let text = format!(
        r#"
title = "t"
duration = "6m"
pods = 2
[server]
load = "5s"
concurrency = 4
queue = 16
service_time = "20ms"
asks = [{{ dependency = "api", timeout = "50ms" }}]
[clients]
rate = 40.0
from = "30s"
timeout = "1s"
[dependencies.api]
latency = "5ms"
{faults}
{design}"#,
        design = fixture::design("d", &format!("endpoints = {{ {endpoints} }}"), probes)
    );
    fixture::scenario(&text)
}

/// Ready by its own word, and there for another five seconds after its end was asked for.
fn stays_a_while() -> String {
    let stays = "lifecycle = { preStop = { sleep = { seconds = 5 } } }\n";
    let container = stays.to_owned() + &probe("readiness", "/ready", 2, 1);
    fixture::design("d", "endpoints = { \"/ready\" = [\"model\"] }", &container)
}

fn liveness() -> String {
    probe("liveness", "/health", 5, 2)
}

fn readiness() -> String {
    probe("readiness", "/ready", 2, 2)
}

fn both() -> String {
    liveness() + &readiness()
}

const PATHS: &str = r#""/health" = [], "/ready" = ["model"]"#;

fn score(scenario: &Scenario) -> Score {
    let score = run(scenario, &scenario.designs[0], 3);
    assert!(score.is_conserved());
    assert_eq!(score.broken, None);
    score
}

fn hang() -> &'static str {
    "[[faults]]\nat = \"2m\"\npod = 0\nserver = \"hang\"\n"
}

#[test]
fn nothing_goes_wrong_in_a_world_without_faults() {
    let score = score(&scenario("", &both(), PATHS));
    assert!(score.requests > 12_000);
    assert_eq!((score.failed(), score.restarts, score.pods_lost), (0, 0, 0));
}

#[test]
fn a_hung_server_leaves_rotation_by_readiness_and_mends_by_liveness() {
    let with_both = score(&scenario(hang(), &both(), PATHS));
    assert_eq!((with_both.restarts, with_both.unwanted_restarts, with_both.pods_lost), (1, 0, 1));
    assert!(with_both.ended(End::Timeout) > 10);
    let noticed = with_both.detections[0].unwrap();
    assert!((1.0..8.0).contains(&noticed), "{noticed}");
    let without_liveness = score(&scenario(hang(), &readiness(), PATHS));
    assert_eq!(without_liveness.restarts, 0);
    assert!(without_liveness.out_of_rotation_seconds > 200.0, "nobody brings it back");
    let without_any = score(&scenario(hang(), "", PATHS));
    assert_eq!(without_any.detections, [None]);
    assert!(without_any.availability() < 75.0, "half of the requests go to a server that stands still");
}

#[test]
fn a_crash_is_mended_without_any_probe_and_costs_what_was_in_flight() {
    let faults = "[[faults]]\nat = \"2m\"\npod = 1\nserver = \"crash\"\n";
    let score = score(&scenario(faults, &readiness(), PATHS));
    assert_eq!((score.crashes, score.restarts, score.unwanted_restarts), (1, 1, 0));
    assert!(score.ended(End::Refused) > 0, "endpoints follow a little later");
}

#[test]
fn an_optional_dependency_costs_time_and_a_probe_on_it_costs_everything() {
    let faults = "[[faults]]\nat = \"2m\"\nfor = \"1m\"\ndependency = \"api\"\nis = \"silent\"\n";
    let apart = score(&scenario(faults, &both(), PATHS));
    assert_eq!((apart.failed(), apart.restarts), (0, 0));
    let probed = score(&scenario(faults, &readiness(), r#""/ready" = ["model", "api"]"#));
    assert_eq!(probed.pods_lost, 2);
    assert!(probed.ended(End::NoEndpoint) > 1500);
    let killed = score(&scenario(faults, &liveness(), r#""/health" = ["api"]"#));
    assert!(killed.unwanted_restarts >= 2);
}

#[test]
fn garbage_is_counted_as_wrong_and_no_probe_sees_it() {
    let faults = "[[faults]]\nat = \"2m\"\nfor = \"1m\"\npod = 0\nserver = \"garbage\"\n";
    let score = score(&scenario(faults, &both(), PATHS));
    assert!(score.ended(End::Wrong) > 1000);
    assert_eq!(score.pods_lost, 0);
}

#[test]
fn a_probe_through_busy_workers_kills_a_server_that_is_only_slow() {
    let faults = "[[faults]]\nat = \"2m\"\nfor = \"2m\"\npod = 0\nserver = \"slow\"\ntimes = 40.0\n";
    let behind = score(&scenario(faults, &liveness(), r#""/health" = ["work"]"#));
    assert!(behind.unwanted_restarts >= 1, "busy is not dead");
    let beside = score(&scenario(faults, &liveness(), PATHS));
    assert_eq!(beside.restarts, 0);
}

#[test]
fn a_retry_ends_the_request_that_it_repeats() {
    let faults = "[[faults]]\nat = \"2m\"\npod = 1\nserver = \"crash\"\n";
    let mut scenario = scenario(faults, &readiness(), PATHS);
    let plain = score(&scenario);
    scenario.clients.retries = 3;
    scenario.clients.retry_budget_percent = 50;
    let retried = score(&scenario);
    assert!(retried.failed() < plain.failed(), "{} {}", retried.failed(), plain.failed());
}

#[test]
fn an_equal_seed_gives_the_same_bytes_and_another_seed_another_world() {
    let scenario = scenario(hang(), &both(), PATHS);
    let bytes = |seed| serde_json::to_string(&report::experiment(&scenario, seed, 2, &mut |_| ())).unwrap();
    assert_eq!(bytes(5), bytes(5));
    assert_ne!(bytes(5), bytes(6));
}
