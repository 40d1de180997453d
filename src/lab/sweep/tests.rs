use super::*;
use crate::lab::fixture::{self, probe};
use crate::lab::shipped::{self, Shipped};

fn world(faults: &str) -> Scenario {
    let probes = probe("readiness", "/ready", 5, 2) + &probe("liveness", "/health", 10, 3);
    let text = format!(
        r#"
title = "t"
duration = "4m"
pods = 2
[server]
load = "5s"
concurrency = 4
queue = 16
service_time = "20ms"
[clients]
rate = 20.0
from = "30s"
timeout = "1s"
[dependencies.redis]
latency = "2ms"
{faults}
{design}"#,
        design = fixture::design("plain", "endpoints = { \"/health\" = [], \"/ready\" = [\"model\"] }", &probes)
    );
    fixture::scenario(&text)
}

const HANG: &str = "[[faults]]\nat = \"2m\"\npod = 0\nserver = \"hang\"\n";

fn grid(keys: &[&str]) -> Vec<Axis> {
    keys.iter().map(|key| Axis::parse(key).unwrap()).collect()
}

fn swept(scenario: &Scenario, keys: &[&str]) -> Result<Sweep, String> {
    sweep(scenario, 0, &Source::default(), grid(keys), (1, 2), &|_, _| {})
}

#[test]
fn a_readiness_that_looks_more_often_finds_a_hang_sooner_and_is_proposed() {
    let keys = ["readinessProbe.periodSeconds=2,20"];
    let sweep = swept(&world(HANG), &keys).unwrap();
    let seconds: Vec<f64> = sweep.points.iter().map(|point| point.cost.unwrap().detection_seconds).collect();
    assert!(seconds[1] < seconds[0] && seconds[0] < seconds[2], "{seconds:?}");
    assert_eq!(sweep.front.first(), Some(&1));
    let proposal = sweep.proposal.as_ref().unwrap();
    assert_eq!(sweep.points[proposal.point].values, ["2"]);
    assert!(proposal.reason.starts_with("Take readinessProbe.periodSeconds=2"), "{}", proposal.reason);
    let text = sweep.text(100);
    assert!(text.contains("> ") && text.replace('\n', " ").contains(&proposal.reason), "{text}");
    let page = page(&sweep);
    assert!(page.ends_with("</html>\n") && !page.contains("http"), "nothing is fetched");
}

#[test]
fn equal_seeds_give_equal_bytes_however_many_threads_run() {
    let keys = ["readinessProbe.failureThreshold=1,2,3", "livenessProbe.periodSeconds=5,10"];
    let text = || serde_json::to_string(&swept(&world(HANG), &keys).unwrap()).unwrap();
    assert_eq!(text(), text());
}

#[test]
fn the_numbers_of_checks_reach_the_engine_and_refused_points_say_why() {
    let shipped = Shipped::find("exercise5-redis").unwrap();
    let mut scenario = Scenario::parse(shipped.text, &shipped::read).unwrap();
    scenario.duration = std::time::Duration::from_secs(120);
    let design = scenario.designs.iter().position(|design| design.sidecar.is_some()).unwrap();
    let source = Source::of(shipped.text, &scenario.designs[design].name, &shipped::read).unwrap();
    let axis = Axis::parse("checks.embeddings.interval=2s,500ms").unwrap();
    let varied = axis::varied(&scenario.designs[design], &source, &[(&axis, "2s")]).unwrap();
    let plan = &varied.sidecar.unwrap().plan;
    let check = &plan.checks[plan.check_named("embeddings").unwrap().index()];
    assert_eq!(check.interval, std::time::Duration::from_secs(2));
    let sweep = sweep(&scenario, design, &source, vec![axis], (1, 1), &|_, _| {}).unwrap();
    assert!(sweep.points[1].cost.is_some() && sweep.points[2].cost.is_none());
    assert!(sweep.points[2].refused.as_ref().is_some_and(|why| why.contains("timeout")), "{:?}", sweep.points[2]);
    for axis in Axis::usual(&scenario.designs[design]) {
        axis::varied(&scenario.designs[design], &source, &[(&axis, &axis.values[0])]).unwrap();
    }
}

#[test]
fn a_key_that_fits_nothing_and_a_grid_without_bounds_are_refused() {
    let world = world("");
    for (key, says) in [
        ("readinessProbe.colour=1", "periodSeconds"),
        ("startupProbe.periodSeconds=1", "no container"),
        ("checks.redis.interval=1s", "no sidecar"),
        ("readinessProbe.periodSeconds=0", "out of range"),
        ("livenessProbe.successThreshold=2", "must be 1"),
        ("pace=2", "expected checks"),
    ] {
        let why = swept(&world, &[key]).unwrap_err();
        assert!(why.contains(says) && why.contains(key.split_once('=').unwrap().0), "{key}: {why}");
    }
    let many = format!("livenessProbe.periodSeconds={}", (1..=40).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let more = many.replace("liveness", "readiness");
    assert!(swept(&world, &[&many, &more]).unwrap_err().contains("512"));
    for junk in ["x", "=1", "k=", "k=1,,2", "k=1,1"] {
        assert!(Axis::parse(junk).is_err(), "{junk}");
    }
}

#[test]
fn a_point_is_on_the_front_unless_another_beats_it() {
    let cost = |seconds: f64, unwanted: f64, lost: f64| Point {
        values: vec![String::new()],
        refused: None,
        cost: Some(Cost {
            detection_seconds: seconds,
            faults: 1.0,
            undetected: 0.0,
            unwanted_restarts: unwanted,
            lost,
        }),
    };
    let points = [cost(9.0, 0.0, 100.0), cost(3.0, 2.0, 90.0), cost(9.0, 0.0, 101.0), cost(5.0, 0.0, 103.0)];
    let front = front::of(&points);
    assert_eq!(front, [1, 3, 0]);
    let proposal = front::propose(&points, &front, &grid(&["k=1"]), true).unwrap();
    assert_eq!(proposal.point, 3, "{}", proposal.reason);
    assert!(proposal.reason.contains("Faster is") && proposal.reason.contains("+2.0 unwanted"), "{}", proposal.reason);
}
