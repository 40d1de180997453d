//! Random worlds, to find the law that does not hold.
//!
//! A seed is a scenario file and a run of it. Everything that a file can say is drawn: servers, clients, faults,
//! surges, an autoscaler, rollouts, drains, lost nodes, probes and a sidecar with every kind of admission. The laws:
//! time never goes back, a check has one attempt in flight, no endpoint outlives its pod, the autoscaler keeps within
//! its bounds, each request ends exactly once.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::rng::Rng;
use super::scenario::{Metric, Scenario};
use super::world::{self, Score};

const LENGTH: u64 = 420;

/// The scenario of a seed, as a file, and the Probegate file that it names.
pub fn files(seed: u64) -> (String, String) {
    let mut rng = Rng::new(seed ^ 0x0070_726f_6265_6761);
    let pods = 1 + rng.below(4);
    let mut out = format!("title = \"random world {seed}\"\nduration = \"{LENGTH}s\"\npods = {pods}\n");
    server(&mut out, &mut rng);
    clients(&mut out, &mut rng);
    let nodes = deployment(&mut out, &mut rng, pods);
    if rng.chance(400) {
        autoscaler(&mut out, &mut rng);
    }
    out.push_str("[dependencies.api]\nlatency = \"5ms\"\n[dependencies.store]\nlatency = \"2ms\"\n");
    for _ in 0..rng.below(5) {
        fault(&mut out, &mut rng, pods);
    }
    for _ in 0..rng.below(4) {
        action(&mut out, &mut rng, pods, nodes);
    }
    plain(&mut out, &mut rng);
    ours(&mut out, &mut rng);
    (out, sidecar(&mut rng))
}

/// What is wrong with the world of a seed; none if every law holds.
pub fn broken(seed: u64) -> Option<String> {
    let (text, file) = files(seed);
    let scenario = match Scenario::parse(&text, &|_| Ok(file.clone())) {
        Ok(scenario) => scenario,
        Err(error) => return Some(format!("the scenario is refused: {error}")),
    };
    scenario.designs.iter().find_map(|design| {
        let run = catch_unwind(AssertUnwindSafe(|| world::run(&scenario, design, seed)));
        let law = match run {
            Ok(score) => law(&scenario, &score)?,
            Err(_) => "it panics".to_owned(),
        };
        Some(format!("design {}: {law}", design.name))
    })
}

/// The first law that a run has broken.
fn law(scenario: &Scenario, score: &Score) -> Option<String> {
    let percents = [Metric::Availability, Metric::WorstMinute].map(|metric| score.metric(metric));
    let lanes = score.lanes.first().map_or(0, String::len);
    match () {
        () if score.broken.is_some() => score.broken.map(str::to_owned),
        () if !score.is_conserved() => Some(format!("{} requests were sent and not all ended once", score.requests)),
        () if score.requests == 0 => Some("nobody asked anything".to_owned()),
        () if percents.iter().any(|percent| !(0.0..=100.0).contains(percent)) => Some(format!("{percents:?} per cent")),
        () if lanes > Score::COLUMNS || score.lanes.iter().any(|lane| lane.len() != lanes) => {
            Some("lanes of unequal lengths".to_owned())
        }
        () if score.notes.windows(2).any(|pair| pair[1].at < pair[0].at) => Some("notes out of order".to_owned()),
        () if score.lanes.len() < scenario.pods => Some("a pod was never made".to_owned()),
        () => None,
    }
}

fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.below(of.len() as u64) as usize]
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(line);
    out.push('\n');
}

fn server(out: &mut String, rng: &mut Rng) {
    put(out, format_args!("[server]\nload = \"{}s\"\nconcurrency = {}", rng.below(40), 1 + rng.below(8)));
    put(out, format_args!("queue = {}\nservice_time = \"{}ms\"", rng.below(50), 1 + rng.below(200)));
    put(out, format_args!("finishes = {}\npage_hangs = {}", rng.chance(500), rng.chance(300)));
    put(out, format_args!("front_answers = {}", rng.chance(200)));
    if rng.chance(400) {
        put(out, format_args!("loads_from = \"store\""));
    }
    put(out, format_args!("{} = [{{ dependency = \"api\", timeout = \"50ms\" }}]", one(rng, &["asks", "requires"])));
    if rng.chance(200) {
        let when = one(rng, &["evict", "oom"]);
        put(out, format_args!("[server.cache]\nlimit_mib = 16\nper_request_kib = 16\nwhen_full = \"{when}\""));
    }
    put(out, format_args!("[versions.v2]\nload = \"{}s\"\ngarbage = {}", rng.below(60), rng.chance(300)));
    put(out, format_args!("never_ready = {}\n[versions.v3]", rng.chance(300)));
    if rng.chance(500) {
        put(out, format_args!("crash_after = \"{}s\"", 1 + rng.below(60)));
    }
}

fn clients(out: &mut String, rng: &mut Rng) {
    put(out, format_args!("[clients]\nrate = {}.0\nfrom = \"{}s\"", 1 + rng.below(120), rng.below(60)));
    put(out, format_args!("timeout = \"{}ms\"\nretries = {}", 100 + rng.below(8000), rng.below(3)));
    if rng.chance(500) {
        put(out, format_args!("connections = {}\nfresh_percent = {}.0", 1 + rng.below(30), rng.below(50)));
    }
    if rng.chance(500) {
        put(out, format_args!("retry_budget_percent = {}", rng.below(60)));
    }
    if rng.chance(400) {
        let (percent, lasts) = (rng.below(60), 1 + rng.below(40));
        put(out, format_args!("streams = {{ percent = {percent}.0, lasts = \"{lasts}s\", gap = \"200ms\" }}"));
    }
    if rng.chance(300) {
        surge(out, rng);
    }
}

fn surge(out: &mut String, rng: &mut Rng) {
    let (at, lasts, times) = (rng.below(LENGTH), rng.below(200), 1 + rng.below(8));
    put(out, format_args!("surges = [{{ at = \"{at}s\", for = \"{lasts}s\", times = {times}.0 }}]"));
}

fn autoscaler(out: &mut String, rng: &mut Rng) {
    let min = 1 + rng.below(3);
    let target = if rng.chance(500) {
        format!("in_flight = {}.5", rng.below(6))
    } else {
        format!("utilisation = {}", 20 + rng.below(100))
    };
    put(out, format_args!("[autoscaler]\nmin = {min}\nmax = {}\n{target}", min + rng.below(8)));
    put(out, format_args!("sync = \"{}s\"\ntolerance = 0.{}", 5 + rng.below(20), rng.below(4)));
    for direction in ["up", "down"] {
        if rng.chance(500) {
            let select = one(rng, &["max", "min", "disabled"]);
            let (window, every) = (rng.below(90), 1 + rng.below(60));
            let by = one(rng, &["pods = 2", "percent = 60"]);
            put(
                out,
                format_args!(
                    "{direction} = {{ window = \"{window}s\", select = \"{select}\", \
                     policies = [{{ {by}, every = \"{every}s\" }}, {{ pods = 1, every = \"15s\" }}] }}"
                ),
            );
        }
    }
}

fn deployment(out: &mut String, rng: &mut Rng, pods: u64) -> u64 {
    let nodes = 1 + rng.below(3);
    put(out, format_args!("[deployment]\nnodes = {nodes}\nmax_surge = {}", rng.below(3)));
    put(out, format_args!("max_unavailable = \"{}%\"\nmin_ready = \"{}s\"", rng.below(101), rng.below(20)));
    put(out, format_args!("progress_deadline = \"{}s\"\nundo_at_deadline = {}", 20 + rng.below(200), rng.chance(500)));
    put(out, format_args!("node_grace = \"{}s\"\ntoleration = \"{}s\"", 10 + rng.below(50), 10 + rng.below(200)));
    if rng.chance(500) {
        put(out, format_args!("min_available = {}", rng.below(pods + 1)));
    }
    nodes
}

fn fault(out: &mut String, rng: &mut Rng, pods: u64) {
    put(out, format_args!("[[faults]]\nat = \"{}s\"\nfor = \"{}s\"", rng.below(LENGTH), rng.below(150)));
    let pod = rng.below(pods);
    let servers = ["hang", "crash", "crash-loop", "garbage", "counter-frozen", "metrics-lost"];
    let sidecars = ["crash", "crash-loop", "hang", "oom"];
    match rng.below(8) {
        0 | 1 => put(out, format_args!("pod = {pod}\nserver = \"{}\"", one(rng, &servers))),
        2 => put(out, format_args!("pod = {pod}\nserver = \"slow\"\ntimes = {}.0", 1 + rng.below(100))),
        3 => put(out, format_args!("pod = {pod}\nserver = \"leak\"\nafter = \"{}s\"", 1 + rng.below(200))),
        4 => put(out, format_args!("pod = {pod}\nsidecar = \"{}\"", one(rng, &sidecars))),
        5 => put(out, format_args!("pod = {pod}\nsidecar = \"slow\"\nlatency = \"{}ms\"", rng.below(3000))),
        6 => {
            let (name, is) = (one(rng, &["api", "store"]), one(rng, &["down", "silent"]));
            put(out, format_args!("dependency = \"{name}\"\nis = \"{is}\"\npods = [{pod}]"));
        }
        _ => {
            let name = one(rng, &["api", "store"]);
            put(out, format_args!("dependency = \"{name}\"\nis = \"flapping\"\nevery = \"{}s\"", 1 + rng.below(30)));
        }
    }
}

fn action(out: &mut String, rng: &mut Rng, pods: u64, nodes: u64) {
    put(out, format_args!("[[actions]]\nat = \"{}s\"", rng.below(LENGTH)));
    match rng.below(7) {
        0 | 1 => put(out, format_args!("rollout = \"{}\"", one(rng, &["v1", "v2", "v3"]))),
        2 => put(out, format_args!("undo = true")),
        3 => put(out, format_args!("delete_pod = {}", rng.below(pods))),
        4 => put(out, format_args!("drain_node = {}\nfor = \"{}s\"", rng.below(nodes), 1 + rng.below(200))),
        5 => put(out, format_args!("lose_node = {}\nfor = \"{}s\"", rng.below(nodes), 1 + rng.below(300))),
        _ => put(out, format_args!("scale = {}", 1 + rng.below(6))),
    }
}

fn probe(rng: &mut Rng, kind: &str, path: &str, port: u16) -> String {
    let (period, threshold) = (1 + rng.below(10), 1 + rng.below(5));
    let timeout = 1 + rng.below(3);
    format!(
        "{kind} = {{ httpGet = {{ path = \"{path}\", port = {port} }}, periodSeconds = {period}, \
         timeoutSeconds = {timeout}, failureThreshold = {threshold} }}"
    )
}

fn plain(out: &mut String, rng: &mut Rng) {
    let signals = ["model", "api", "store", "work", "listening", "process", "cache", "memory"];
    let (live, ready) = (one(rng, &signals), one(rng, &signals));
    put(out, format_args!("[[designs]]\nname = \"plain\"\n"));
    put(out, format_args!("endpoints = {{ \"/health\" = [\"{live}\"], \"/ready\" = [\"model\", \"{ready}\"] }}"));
    put(out, format_args!("[designs.pod]\nterminationGracePeriodSeconds = {}", 1 + rng.below(40)));
    put(out, format_args!("[[designs.pod.containers]]\nname = \"model\"\nports = [{{ containerPort = 80 }}]"));
    for (kind, path) in [("startupProbe", "/ready"), ("readinessProbe", "/ready"), ("livenessProbe", "/health")] {
        if rng.chance(600) {
            let line = probe(rng, kind, path, 80);
            put(out, format_args!("{line}"));
        }
    }
    if rng.chance(500) {
        put(out, format_args!("lifecycle = {{ preStop = {{ sleep = {{ seconds = {} }} }} }}", 1 + rng.below(10)));
    }
}

fn ours(out: &mut String, rng: &mut Rng) {
    put(out, format_args!("[[designs]]\nname = \"ours\"\nprobegate = \"random.toml\""));
    put(out, format_args!("checks = {{ upstream = \"listening\", alive = \"model\", api = \"api\" }}"));
    put(out, format_args!("[designs.pod]\nterminationGracePeriodSeconds = {}", 1 + rng.below(60)));
    put(out, format_args!("[[designs.pod.initContainers]]\nname = \"probegate\"\nrestartPolicy = \"Always\""));
    put(out, format_args!("ports = [{{ containerPort = 9090 }}]"));
    for (kind, path) in [("startupProbe", "/self"), ("livenessProbe", "/self"), ("readinessProbe", "/ready")] {
        let line = probe(rng, kind, path, 9090);
        put(out, format_args!("{line}"));
    }
    if rng.chance(600) {
        let command = one(rng, &["[\"probegate\", \"drain\", \"--wait\"]", "[\"probegate\", \"drain\"]"]);
        put(out, format_args!("lifecycle = {{ preStop = {{ exec = {{ command = {command} }} }} }}"));
    }
    put(out, format_args!("[[designs.pod.containers]]\nname = \"model\"\nports = [{{ containerPort = 80 }}]"));
    for (kind, path) in [("startupProbe", "/startup"), ("livenessProbe", "/health")] {
        let line = probe(rng, kind, path, 9090);
        put(out, format_args!("{line}"));
    }
    if rng.chance(400) {
        let path = one(rng, &["/wait-for-drain", "/wait-for-drain?within=2s"]);
        let hook = format!("httpGet = {{ path = \"{path}\", port = 9090 }}");
        put(out, format_args!("lifecycle = {{ preStop = {{ {hook} }} }}"));
    }
}

/// A Probegate file with admission and with checks that traffic judges.
fn sidecar(rng: &mut Rng) -> String {
    let mut out = "[upstream]\naddress = \"127.0.0.1:80\"\n[traffic]\n".to_owned();
    if rng.chance(600) {
        put(&mut out, format_args!("max_in_flight = {}", 1 + rng.below(12)));
        if rng.chance(600) {
            let (max, timeout) = (1 + rng.below(30), 1 + rng.below(5));
            put(&mut out, format_args!("queue = {{ max = {max}, timeout = \"{timeout}s\" }}"));
        }
    }
    if rng.chance(500) {
        put(&mut out, format_args!("hold = \"{}s\"", 1 + rng.below(20)));
    }
    if rng.chance(400) {
        put(&mut out, format_args!("first_byte_timeout = \"{}ms\"", 100 + rng.below(5000)));
    }
    let propagation = rng.below(6);
    put(&mut out, format_args!("[drain]\npropagation = \"{propagation}s\"\nmax = \"{}s\"", 7 + rng.below(20)));
    out.push_str("[startup]\nrequire = [\"alive\"]\n[health]\nrequire = [\"progress\"]\n");
    put(&mut out, format_args!("[ready]\nrequire = [\"alive\", \"outcomes\"]\ndegrade = [\"api\"]"));
    out.push_str("[checks.alive]\ntcp = \"127.0.0.1:80\"\ninterval = \"5s\"\ntimeout = \"1s\"\n");
    out.push_str("[checks.api]\ntcp = \"10.0.0.1:80\"\ninterval = \"5s\"\ntimeout = \"1s\"\nscope = \"shared\"\n");
    put(&mut out, format_args!("[checks.outcomes]\noutcomes = {{ min_success = 0.{} }}", 1 + rng.below(8)));
    let stall = 5 + rng.below(60);
    put(
        &mut out,
        format_args!("[checks.progress]\nprogress = {{ stall_after = \"{stall}s\", counter = \"done_total\" }}"),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many random worlds the ordinary test looks at; `PROBEGATE_LAB_WORLDS` asks for more.
    const WORLDS: u64 = 100;

    #[test]
    fn no_random_world_breaks_a_law() {
        let asked = std::env::var("PROBEGATE_LAB_WORLDS").ok().and_then(|text| text.parse().ok());
        for seed in 0..asked.unwrap_or(WORLDS) {
            if let Some(law) = broken(seed) {
                panic!("seed {seed}: {law}\nreplay: probegate lab fuzz --seed {seed} --count 1");
            }
        }
    }

    /// What is said of a run whose score somebody has tampered with.
    fn said(tamper: impl FnOnce(&mut Score)) -> Option<String> {
        let (text, file) = files(3);
        let scenario = Scenario::parse(&text, &|_| Ok(file.clone())).unwrap();
        let mut score = world::run(&scenario, &scenario.designs[0], 3);
        assert_eq!(law(&scenario, &score), None);
        tamper(&mut score);
        law(&scenario, &score)
    }

    #[test]
    fn each_law_that_is_broken_is_named() {
        let says = |said: Option<String>, part: &str| said.is_some_and(|said| said.contains(part));
        assert!(says(said(|score| score.broken = Some("time went back")), "time went back"));
        assert!(says(said(|score| score.requests += 1), "not all ended once"));
        assert!(says(said(|score| score.lanes[0].push('=')), "lanes of unequal lengths"));
        assert!(says(said(|score| score.lanes.clear()), "a pod was never made"));
        let late = |at| world::Note { at, pod: 0, text: String::new() };
        assert!(says(said(|score| score.notes.extend([late(9e9), late(1.0)])), "notes out of order"));
    }

    #[test]
    fn an_equal_seed_gives_an_equal_world_to_the_byte() {
        for seed in [3, 77] {
            assert_eq!(files(seed), files(seed));
            let (text, file) = files(seed);
            let scenario = Scenario::parse(&text, &|_| Ok(file.clone())).unwrap();
            let bytes = || {
                let scores = scenario.designs.iter().map(|design| world::run(&scenario, design, seed));
                scores.map(|score| serde_json::to_string(&score).unwrap()).collect::<String>()
            };
            assert_eq!(bytes(), bytes());
        }
    }
}
