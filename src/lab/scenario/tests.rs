//! The scenario file: what is read, and what is refused with its place.

use super::*;
use crate::lab::autoscaler::{Policy, Rules, Select, Step, Target};

const MINIMAL: &str = r#"
title = "t"
duration = "2m"
pods = 2
expect = ["plain: availability >= 0"]
[server]
load = "5s"
loads_from = "redis"
concurrency = 2
queue = 4
service_time = "10ms"
requires = [{ dependency = "redis", timeout = "100ms" }]
[clients]
rate = 10.0
timeout = "1s"
[dependencies.redis]
latency = "1ms"
[[faults]]
at = "1m"
for = "10s"
dependency = "redis"
is = "slow"
latency = "2s"
[[designs]]
name = "plain"
endpoints = { "/ready" = ["model", "redis"] }
[[designs.pod.containers]]
name = "model"
ports = [{ containerPort = 80 }]
readinessProbe = { httpGet = { path = "/ready", port = 80 }, periodSeconds = 1 }
"#;

fn parse(text: &str) -> Result<Scenario, String> {
    Scenario::parse(text, &|_| Err("no files here".to_owned())).map_err(|error| error.to_string())
}

#[test]
fn a_scenario_is_read_whole() {
    let scenario = parse(MINIMAL).unwrap();
    assert_eq!(scenario.versions[0].server.loads_from, Some(0));
    let fault = &scenario.faults[0];
    assert_eq!((fault.at, fault.until), (Duration::from_secs(60), Duration::from_secs(70)));
    let slow = FaultKind::Dependency { dependency: 0, how: Illness::Slow(Duration::from_secs(2)), only: Vec::new() };
    assert_eq!(fault.what, slow);
    assert_eq!(scenario.designs[0].endpoints[0].asks, [Signal::Model, Signal::Dependency(0)]);
    assert_eq!(scenario.expectations[0].metric, Metric::Availability);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let cases = [
        ("duration = \"2m\"", "duration = \"2 moons\"", "duration"),
        ("pods = 2", "pods = 0", "pods"),
        ("pods = 2", "pods = 2\nsurprise = 1", "surprise"),
        ("rate = 10.0", "rate = -1.0", "clients.rate"),
        ("rate = 10.0", "rate = 1e-300", "clients.rate"),
        ("timeout = \"1s\"", "timeout = \"1s\"\nretries = 11", "clients.retries"),
        ("at = \"1m\"", "at = \"40days\"", "faults[0]"),
        ("is = \"slow\"", "is = \"tired\"", "faults[0]"),
        ("dependency = \"redis\"\nis", "dependency = \"rediss\"\nis", "rediss"),
        ("[\"model\", \"redis\"]", "[\"modle\"]", "endpoints./ready"),
        ("plain: availability", "fancy: availability", "fancy"),
        ("plain: availability", "plain: beauty", "beauty"),
        ("name = \"model\"", "name = \"server\"", "model"),
        ("loads_from = \"redis\"", "loads_from = \"postgres\"", "server.loads_from"),
        ("name = \"plain\"", "name = \"plain\"\nprobegate = \"x.toml\"", "probegate"),
        ("periodSeconds = 1", "terminationGracePeriodSeconds = 1", "readinessProbe"),
    ];
    for (from, to, named) in cases {
        assert!(MINIMAL.contains(from), "{from}");
        let why = parse(&MINIMAL.replacen(from, to, 1)).unwrap_err();
        assert!(why.contains(named), "{to}: {why}");
    }
}

/// Every key that came with rollouts, nodes, kept connections, streams and further faults.
const WHOLE: &str = r#"
[versions.v2]
garbage = true
crash_after = "30s"
[deployment]
nodes = 2
max_surge = 1
max_unavailable = "50%"
min_ready = "5s"
progress_deadline = "2m"
undo_at_deadline = true
min_available = 1
node_grace = "40s"
toleration = "60s"
[autoscaler]
min = 2
max = 6
in_flight = 2.5
sync = "20s"
down = { window = "1m", select = "min", policies = [{ pods = 1, every = "45s" }] }
[[actions]]
at = "10s"
rollout = "v2"
[[actions]]
at = "20s"
for = "30s"
drain_node = 1
[[actions]]
at = "30s"
scale = 4
[[faults]]
at = "5s"
pod = 1
server = "leak"
after = "1m"
[[faults]]
at = "6s"
for = "9s"
dependency = "redis"
is = "flapping"
every = "3s"
pods = [1]
"#;

const CLIENTS: &str = "timeout = \"1s\"\nconnections = 5\nfresh_percent = 2.5\nstreams = { percent = 10.0, lasts = \"9s\" }\n\
     surges = [{ at = \"11s\", for = \"20s\", times = 3.0 }]";

fn whole() -> String {
    let world = MINIMAL.replacen("timeout = \"1s\"", CLIENTS, 1);
    world.replacen("[[designs]]", &format!("{WHOLE}[[designs]]"), 1)
}

#[test]
fn rollouts_nodes_streams_and_faults_are_read_as_written() {
    let scenario = parse(&whole()).unwrap();
    let deployment = scenario.deployment;
    assert_eq!((deployment.max_surge, deployment.max_unavailable), (Share::Count(1), Share::Percent(50)));
    assert_eq!((deployment.nodes, deployment.min_available), (2, Some(1)));
    assert_eq!((deployment.node_grace, deployment.toleration), (Duration::from_secs(40), Duration::from_secs(60)));
    let v2 = &scenario.versions[1];
    assert!(v2.name == "v2" && v2.server.is_garbage && v2.server.load == Duration::from_secs(5), "{v2:?}");
    let actions: Vec<ActionKind> = scenario.actions.iter().map(|action| action.what).collect();
    let expected = [ActionKind::Rollout { version: 1 }, ActionKind::Drain { node: 1 }, ActionKind::Scale { pods: 4 }];
    assert_eq!(actions, expected);
    assert_eq!(scenario.actions[1].until, Some(Duration::from_secs(50)));
    let leak = FaultKind::Server { pod: 1, how: ServerFault::Leak(Duration::from_secs(60)) };
    let flapping = Illness::Flapping(Duration::from_secs(3));
    assert!(scenario.faults.iter().any(|fault| fault.what == leak));
    let faults = &scenario.faults;
    assert!(faults.iter().any(|f| f.what == FaultKind::Dependency { dependency: 0, how: flapping, only: vec![1] }));
    let streams = scenario.clients.streams.unwrap();
    let surge = Surge { at: Duration::from_secs(11), until: Duration::from_secs(31), times: 3.0 };
    assert_eq!(scenario.clients.surges, [surge]);
    assert_eq!((streams.permille, scenario.clients.fresh_permille, scenario.clients.connections), (100, 25, 5));
}

#[test]
fn an_autoscaler_is_read_as_written_and_is_upstreams_in_all_that_it_leaves_out() {
    let spec = parse(&whole()).unwrap().autoscaler.unwrap();
    let usual = Spec::default();
    let slow = Policy { by: Step::Pods(1), every: Duration::from_secs(45) };
    let down = Rules { window: Duration::from_secs(60), select: Select::Min, policies: vec![slow] };
    let expected =
        Spec { min: 2, max: 6, target: Target::InFlight(2500), sync: Duration::from_secs(20), down, ..usual.clone() };
    assert_eq!(spec, expected);
    let every = Duration::from_secs(15);
    let usual_up = [Policy { by: Step::Pods(4), every }, Policy { by: Step::Percent(100), every }];
    assert_eq!((usual.up.policies.as_slice(), usual.down.window), (&usual_up[..], Duration::from_secs(300)));
    assert_eq!(parse(MINIMAL).unwrap().autoscaler, None);
}

#[test]
fn what_is_wrong_with_a_rollout_a_node_or_a_fault_is_named_with_its_place() {
    let cases = [
        ("rollout = \"v2\"", "rollout = \"v9\"", "actions[0]"),
        ("rollout = \"v2\"", "undo = true\nscale = 3", "actions[0]"),
        ("drain_node = 1", "drain_node = 2", "actions[1]"),
        ("scale = 4", "scale = 100000", "actions[2]"),
        ("nodes = 2", "nodes = 0", "deployment.nodes"),
        ("max_surge = 1", "max_surge = \"lots\"", "deployment.max_surge"),
        ("max_unavailable = \"50%\"", "max_unavailable = \"150%\"", "deployment.max_unavailable"),
        ("crash_after = \"30s\"", "crash_after = \"30s\"\nsurprise = 1", "surprise"),
        ("after = \"1m\"", "times = 2.0", "server"),
        ("every = \"3s\"", "every = \"0s\"", "faults"),
        ("pods = [1]", "pods = [7]", "faults"),
        ("server = \"leak\"", "sidecar = \"leak\"", "sidecar"),
        ("fresh_percent = 2.5", "fresh_percent = 250.0", "clients.fresh_percent"),
        ("min = 2", "min = 7", "autoscaler.min, max"),
        ("in_flight = 2.5", "in_flight = 2.5\nutilisation = 50", "autoscaler.one of"),
        ("in_flight = 2.5", "in_flight = 0.0", "autoscaler.one of"),
        ("sync = \"20s\"", "tolerance = 1.5", "autoscaler.tolerance"),
        ("select = \"min\"", "select = \"most\"", "autoscaler.down.select"),
        ("{ pods = 1, every", "{ pods = 1, percent = 5, every", "autoscaler.down.policies"),
        ("every = \"45s\"", "every = \"45m\"", "autoscaler.down.policies.every"),
        ("times = 3.0", "times = 0.0", "clients.surges[0].times"),
        ("for = \"20s\", times", "for = \"40days\", times", "clients.surges[0].at"),
        ("lasts = \"9s\"", "lasts = \"9s\", gap = \"0s\"", "clients.streams"),
    ];
    let whole = whole();
    for (from, to, named) in cases {
        assert!(whole.contains(from), "{from}");
        let why = parse(&whole.replacen(from, to, 1)).unwrap_err();
        assert!(why.contains(named), "{to}: {why}");
    }
}

#[test]
fn expectations_compare_as_they_read() {
    let cases = [("<", 1.0, 2.0), ("<=", 2.0, 2.0), ("=", 2.0, 2.0), (">=", 2.0, 2.0), (">", 3.0, 2.0)];
    for (sign, seen, value) in cases {
        let line = Expectation::parse(&format!("d: restarts {sign} {value}")).unwrap();
        assert!(line.comparison.holds(seen, line.value), "{line}");
        assert!(!line.comparison.holds(if sign.starts_with('<') { 9.0 } else { -9.0 }, line.value), "{line}");
    }
    assert!(Expectation::parse("restarts = 1").is_err());
    assert!(Expectation::parse("d: restarts 1").is_err());
    assert!(Expectation::parse("d: restarts < many").is_err());
}
