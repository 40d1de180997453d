//! What does an hour of a large Deployment cost the lab, in CPU time?
//!
//! The goal: a second on one core for 100 pods with Probegate in front, ten checks each, and 1 000 requests a second,
//! for one virtual hour. Seen, in a full release build on an idle machine: 0.94 to 1.08 s, a median of 0.98 (1.01 to
//! 1.10 while a sidecar's overtaken calls each planned another); 1.3 to 1.7 s in minutes in which the host gave the
//! same idle machine less. Prints CPU seconds of this process, for other work on the machine blurs wall time.
//! Without `--bench`, as `cargo test --all-targets` starts it, it runs 90 virtual seconds to show that it still works.

use std::fmt::Write as _;

use probegate::lab::scenario::Scenario;
use probegate::lab::world;

const WORLD: &str = r#"
title = "an hour of a hundred pods"
duration = "1h"
pods = 100
[server]
load = "5s"
concurrency = 8
queue = 64
service_time = "40ms"
[clients]
rate = 1000.0
from = "1m"
timeout = "2s"
[dependencies.store]
latency = "2ms"
[[designs]]
name = "ours"
probegate = "ten.toml"
checks = { CHECKS }
[[designs.pod.initContainers]]
name = "probegate"
restartPolicy = "Always"
ports = [{ containerPort = 9090 }]
startupProbe = { httpGet = { path = "/self", port = 9090 }, periodSeconds = 1, failureThreshold = 30 }
livenessProbe = { httpGet = { path = "/self", port = 9090 }, periodSeconds = 10, failureThreshold = 6 }
readinessProbe = { httpGet = { path = "/ready", port = 9090 }, periodSeconds = 2, failureThreshold = 1 }
[[designs.pod.containers]]
name = "model"
ports = [{ containerPort = 80 }]
startupProbe = { httpGet = { path = "/startup", port = 9090 }, periodSeconds = 5, failureThreshold = 70 }
livenessProbe = { httpGet = { path = "/health", port = 9090 }, periodSeconds = 10, failureThreshold = 6 }
"#;

/// `upstream` and `alive` come by themselves; one check looks at the traffic if `with_progress`, the others at a
/// dependency.
fn files(with_progress: bool) -> (String, String) {
    let others = 10 - 2 - u32::from(with_progress);
    let mut seen = r#"upstream = "listening", alive = "model""#.to_owned();
    let mut file = "[upstream]\naddress = \"127.0.0.1:80\"\n".to_owned();
    let mut required = Vec::new();
    for index in 0..others {
        let _ = write!(seen, r#", c{index} = "store""#);
        let _ = write!(file, "[checks.c{index}]\ntcp = \"10.0.0.1:{}\"\ninterval = \"10s\"\n", 6000 + index);
        required.push(format!("\"c{index}\""));
    }
    if with_progress {
        file.push_str("[health]\nrequire = [\"progress\"]\n");
        file.push_str("[checks.progress]\nprogress = { stall_after = \"60s\", counter = \"done_total\" }\n");
    }
    let _ = write!(file, "[ready]\ndegrade = [{}]\n", required.join(", "));
    (WORLD.replace("CHECKS", &seen), file)
}

/// CPU time of this process: user and system, in clock ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |field: usize| after_name.split_whitespace().nth(field).and_then(|text| text.parse::<f64>().ok());
    (ticks(11).unwrap_or_default() + ticks(12).unwrap_or_default()) / 100.0
}

fn main() {
    let hour = std::env::args().any(|argument| argument == "--bench");
    let duration = if hour { "1h" } else { "1m30s" };
    println!("100 pods, {duration} of virtual time, 10 checks each, 1 000 requests/s");
    for (name, with_progress) in [("dependencies alone", false), ("traffic judged too", true)] {
        let (text, file) = files(with_progress);
        let text = text.replace(r#"duration = "1h""#, &format!("duration = \"{duration}\""));
        let scenario = match Scenario::parse(&text, &|_| Ok(file.clone())) {
            Ok(scenario) => scenario,
            Err(error) => {
                eprintln!("{error}");
                std::process::exit(1);
            }
        };
        let before = cpu_seconds();
        let score = world::run(&scenario, &scenario.designs[0], 1);
        let took = cpu_seconds() - before;
        let per_event = took * 1e9 / score.events.max(1) as f64;
        println!(
            "{name:<20} {took:6.2} CPU s, {} events, {} requests, {} failed, {per_event:.0} ns an event",
            score.events,
            score.requests,
            score.failed()
        );
    }
}
