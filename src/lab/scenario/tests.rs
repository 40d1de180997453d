//! The scenario file: what is read, and what is refused with its place.

use super::*;

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
