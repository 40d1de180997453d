//! Stories with a known end: mirrors of the kubelet's end-to-end tests, and its known surprises (§10, §12).

use super::*;

fn file(pod: Value, containers: Value, more: Value) -> TraceFile {
    let mut text = json!({ "name": "story", "pod": pod, "containers": containers, "observed_for": 120 });
    for (key, value) in more.as_object().unwrap() {
        text[key] = value.clone();
    }
    TraceFile::parse(&text.to_string()).unwrap()
}

fn probe(path: &str, period: u64, failures: u64) -> Value {
    json!({ "httpGet": { "path": path, "port": 80 }, "periodSeconds": period, "failureThreshold": failures })
}

/// An app on port 80 with these probes and so on.
fn app(more: Value) -> Value {
    let mut container = json!({ "name": "app", "ports": [{ "containerPort": 80 }] });
    for (key, value) in more.as_object().unwrap() {
        container[key] = value.clone();
    }
    container
}

fn one(more: Value) -> Value {
    json!({ "containers": [app(more)] })
}

/// The app answers `code` at `path` from `from` on, for ever.
fn fails(path: &str, from: u64) -> Value {
    json!({ "app": { "answers": [{ "path": path, "from": from, "until": null, "code": 503, "delay": 0 }] } })
}

fn rows_of(file: &TraceFile, kind: &str, seed: u64) -> Vec<(f64, Value)> {
    run(file, seed).into_iter().filter(|row| row.1 == kind).map(|row| (row.0, row.2)).collect()
}

/// The first time a status row says so.
fn first(rows: &[(f64, Value)], says: impl Fn(&Value) -> bool) -> Option<f64> {
    rows.iter().find(|(_, detail)| says(detail)).map(|(at, _)| *at)
}

#[test]
fn a_pod_that_is_never_ready_is_never_restarted() {
    let pod = one(json!({ "readinessProbe": probe("/ready", 2, 3) }));
    let file = file(pod, fails("/ready", 0), json!({}));
    let status = rows_of(&file, "pod", 1);
    assert_eq!(first(&status, |s| s["ready"] == true), None);
    assert_eq!(of(&simulated(&file, 1), "app", "start").len(), 1);
}

#[test]
fn liveness_does_not_count_while_startup_delays_it() {
    let startup = probe("/start", 10, 60);
    let pod = one(json!({ "startupProbe": startup, "livenessProbe": probe("/health", 1, 1) }));
    let mut answers = fails("/health", 0);
    let slow = json!({ "path": "/start", "from": 0, "until": null, "code": 503, "delay": 0 });
    answers["app"]["answers"].as_array_mut().unwrap().push(slow);
    let seen = simulated(&file(pod, answers, json!({})), 1);
    assert_eq!(of(&seen, "app", "start").len(), 1);
    assert!(of(&seen, "app", "/health").is_empty());
}

#[test]
fn a_pod_is_ready_at_once_when_its_startup_probe_succeeds() {
    let pod = one(json!({ "startupProbe": probe("/start", 10, 60), "readinessProbe": probe("/ready", 60, 1) }));
    let file = file(pod, json!({}), json!({}));
    for seed in 0..20 {
        let seen = simulated(&file, seed);
        let started = of(&seen, "app", "/start").last().copied().unwrap();
        let ready = of(&seen, "app", "/ready")[0];
        assert!(ready - started < 1.5, "seed {seed}: {started} {ready}");
        assert!(first(&rows_of(&file, "pod", seed), |s| s["ready"] == true).is_some());
    }
}

#[test]
fn a_probes_own_grace_replaces_the_pods() {
    let mut liveness = probe("/health", 1, 1);
    liveness["terminationGracePeriodSeconds"] = json!(5);
    let mut pod = one(json!({ "livenessProbe": liveness }));
    pod["terminationGracePeriodSeconds"] = json!(500);
    let mut containers = fails("/health", 10);
    containers["app"]["ignores_term"] = json!(true);
    let seen = simulated(&file(pod, containers, json!({})), 1);
    let term = of(&seen, "app", "term")[0];
    let next = of(&seen, "app", "start")[1];
    assert!((5.0..6.5).contains(&(next - term)), "{term} {next}");
    assert!(of(&seen, "app", "exit").is_empty(), "a killed app writes no last line");
}

#[test]
fn an_app_that_ignores_the_signal_is_killed_when_the_grace_is_over() {
    let mut pod = one(json!({}));
    pod["terminationGracePeriodSeconds"] = json!(8);
    let containers = json!({ "app": { "ignores_term": true } });
    let file = file(pod, containers, json!({ "delete_at": 10.0 }));
    let term = of(&simulated(&file, 1), "app", "term")[0];
    let gone = first(&rows_of(&file, "pod", 1), Value::is_null).unwrap();
    assert!((8.0..9.0).contains(&(gone - term)), "{term} {gone}");
}

#[test]
fn a_hook_longer_than_the_grace_leaves_two_seconds() {
    let mut pod = one(json!({ "lifecycle": { "preStop": { "exec": { "command": ["/target", "60"] } } } }));
    pod["terminationGracePeriodSeconds"] = json!(6);
    let containers = json!({ "app": { "ignores_term": true } });
    let file = file(pod, containers, json!({ "delete_at": 10.0 }));
    let seen = simulated(&file, 1);
    let (begin, term) = (of(&seen, "app", "prestop-begin")[0], of(&seen, "app", "term")[0]);
    assert!((5.8..6.2).contains(&(term - begin)), "{begin} {term}");
    assert!(of(&seen, "app", "prestop-end").is_empty());
    let gone = first(&rows_of(&file, "pod", 1), Value::is_null).unwrap();
    assert!((2.0..3.0).contains(&(gone - term)), "{term} {gone}");
}

#[test]
fn the_endpoint_leaves_at_deletion_while_readiness_is_still_probed() {
    let hook = json!({ "preStop": { "exec": { "command": ["/target", "9"] } } });
    let pod = one(json!({ "readinessProbe": probe("/ready", 2, 3), "livenessProbe": probe("/health", 2, 3),
        "lifecycle": hook }));
    let file = file(pod, json!({}), json!({ "delete_at": 20.0 }));
    for seed in 0..20 {
        let endpoints = rows_of(&file, "endpoint", seed);
        let left = first(&endpoints, |e| e["terminating"] == true && e["ready"] == false && e["serving"] == true);
        let left = left.unwrap();
        assert!((20.0..21.0).contains(&left), "{left}");
        let seen = simulated(&file, seed);
        assert!(*of(&seen, "app", "/ready").last().unwrap() > 26.5, "readiness goes on");
        assert!(*of(&seen, "app", "/health").last().unwrap() < 21.0, "liveness does not");
        assert!(endpoints.last().unwrap().1.is_null());
    }
}

#[test]
fn a_redirect_counts_as_success() {
    let pod = one(json!({ "livenessProbe": probe("/health", 1, 1) }));
    let mut containers = fails("/health", 0);
    containers["app"]["answers"][0]["code"] = json!(302);
    assert_eq!(of(&simulated(&file(pod, containers, json!({})), 1), "app", "start").len(), 1);
}

#[test]
fn an_answer_slower_than_the_timeout_is_a_failure() {
    let pod = |timeout: u64| {
        let mut liveness = probe("/health", 5, 2);
        liveness["timeoutSeconds"] = json!(timeout);
        one(json!({ "livenessProbe": liveness }))
    };
    let slow = json!({ "app": { "answers":
        [{ "path": "/health", "from": 0, "until": null, "code": 200, "delay": 1.5 }] } });
    let restarts = |timeout| of(&simulated(&file(pod(timeout), slow.clone(), json!({})), 1), "app", "start").len() - 1;
    assert!(restarts(1) >= 2);
    assert_eq!(restarts(2), 0);
}

#[test]
fn an_unknown_port_name_never_fails_liveness_and_never_makes_ready() {
    let by_name = |path: &str| json!({ "httpGet": { "path": path, "port": "nowhere" }, "periodSeconds": 1 });
    let pod = one(json!({ "livenessProbe": by_name("/health"), "readinessProbe": by_name("/ready") }));
    let file = file(pod, json!({}), json!({}));
    assert_eq!(of(&simulated(&file, 1), "app", "start").len(), 1);
    assert_eq!(first(&rows_of(&file, "pod", 1), |s| s["ready"] == true), None);
}

#[test]
fn tcp_and_exec_probes_judge_what_they_touch() {
    let tcp = json!({ "tcpSocket": { "port": 80 }, "periodSeconds": 2, "failureThreshold": 2 });
    let late = json!({ "app": { "listen_after": 30 } });
    let seen = simulated(&file(one(json!({ "livenessProbe": tcp })), late, json!({})), 1);
    assert!(of(&seen, "app", "start").len() > 2, "nobody listens for thirty seconds");
    let exec = json!({ "exec": { "command": ["/target", "check", "/health"] }, "periodSeconds": 2,
        "failureThreshold": 2 });
    let seen = simulated(&file(one(json!({ "livenessProbe": exec })), fails("/health", 20), json!({})), 1);
    assert!((20.0..27.0).contains(&of(&seen, "app", "start")[1]));
}

#[test]
fn initial_delay_counts_from_the_start_and_is_looked_at_on_ticks() {
    let mut liveness = probe("/health", 10, 1);
    liveness["initialDelaySeconds"] = json!(7);
    let file = file(one(json!({ "livenessProbe": liveness })), fails("/health", 0), json!({}));
    for seed in 0..40 {
        let at = of(&simulated(&file, seed), "app", "/health")[0];
        // Start times are cut to whole seconds, so up to a second too early.
        assert!((6.0..17.1).contains(&at), "seed {seed}: {at}");
    }
}

#[test]
fn a_sidecar_whose_startup_needs_the_app_is_a_deadlock() {
    let side = json!({ "name": "side", "restartPolicy": "Always", "ports": [{ "containerPort": 90 }],
        "startupProbe": { "httpGet": { "path": "/ready", "port": 80 }, "periodSeconds": 1, "failureThreshold": 3 } });
    let pod = json!({ "initContainers": [side], "containers": [app(json!({}))] });
    let seen = simulated(&file(pod, json!({}), json!({})), 1);
    assert!(of(&seen, "app", "start").is_empty());
    assert!(of(&seen, "side", "start").len() > 2, "and the sidecar is restarted for it");
}

#[test]
fn an_init_container_runs_to_its_end_before_the_app_starts() {
    let pod = json!({ "initContainers": [{ "name": "setup" }], "containers": [app(json!({}))] });
    // The app of the recordings always exits with 1, so the setup never succeeds.
    let seen = simulated(&file(pod, json!({ "setup": { "exit_after": 2 } }), json!({})), 1);
    assert!(of(&seen, "app", "start").is_empty());
    assert!(of(&seen, "setup", "start").len() >= 4);
}

#[test]
fn while_one_container_is_killed_no_other_is_restarted() {
    // #121398, #138146: a container whose end takes long holds up its neighbour's restart.
    let slow = json!({ "preStop": { "exec": { "command": ["/target", "25"] } } });
    let other = json!({ "name": "other", "ports": [{ "containerPort": 90 }] });
    let pod = json!({ "containers":
        [app(json!({ "livenessProbe": probe("/health", 2, 2), "lifecycle": slow })), other] });
    let mut containers = fails("/health", 10);
    containers["other"] = json!({ "exit_after": 17 });
    let seen = simulated(&file(pod, containers, json!({})), 1);
    let begin = of(&seen, "app", "prestop-begin")[0];
    let (died, back) = (of(&seen, "other", "exit")[0], of(&seen, "other", "start")[1]);
    assert!(died > begin && back > begin + 25.0, "died at {died}, back at {back}, the hook began at {begin}");
}

#[test]
fn deletion_queues_behind_a_kill_under_way() {
    let slow = json!({ "preStop": { "exec": { "command": ["/target", "10"] } } });
    let pod = one(json!({ "livenessProbe": probe("/health", 2, 2), "lifecycle": slow }));
    let file = file(pod, fails("/health", 10), json!({ "delete_at": 17.0 }));
    let seen = simulated(&file, 1);
    assert_eq!(of(&seen, "app", "prestop-begin").len(), 2, "once for the kill, once for the deletion");
    assert_eq!(of(&seen, "app", "start").len(), 2);
    assert!(first(&rows_of(&file, "pod", 1), Value::is_null).is_some());
}

#[test]
fn a_sidecar_that_ends_while_it_waits_for_its_turn_gets_no_signal_and_holds_nothing_up() {
    let side = json!({ "name": "side", "restartPolicy": "Always" });
    let slow = json!({ "preStop": { "exec": { "command": ["/target", "12"] } } });
    let pod = json!({ "initContainers": [side], "containers": [app(json!({ "lifecycle": slow }))] });
    let file = file(pod, json!({ "side": { "exit_after": 20 } }), json!({ "delete_at": 15 }));
    for seed in 0..30 {
        let seen = simulated(&file, seed);
        assert!(of(&seen, "side", "term").is_empty(), "seed {seed}: {seen:?}");
        let gone = first(&rows_of(&file, "pod", seed), Value::is_null);
        assert!(gone.is_some_and(|at| at < 30.0), "seed {seed}: {gone:?}");
    }
}

#[test]
fn restart_policies_decide_what_a_crash_means() {
    let with = |policy: &str| {
        let mut pod = one(json!({}));
        pod["restartPolicy"] = json!(policy);
        file(pod, json!({ "app": { "exit_after": 5 } }), json!({}))
    };
    assert!(of(&simulated(&with("Always"), 1), "app", "start").len() > 3);
    assert!(of(&simulated(&with("OnFailure"), 1), "app", "start").len() > 3);
    let never = with("Never");
    assert_eq!(of(&simulated(&never, 1), "app", "start").len(), 1);
    assert!(first(&rows_of(&never, "pod", 1), |s| s["phase"] == "Failed").is_some());
}

#[test]
fn a_job_with_a_sidecar_ends_when_its_work_does() {
    let side = json!({ "name": "side", "restartPolicy": "Always" });
    let mut pod = json!({ "initContainers": [side], "containers": [app(json!({}))] });
    pod["restartPolicy"] = json!("Never");
    let file = file(pod, json!({ "app": { "exit_after": 5 } }), json!({}));
    let seen = simulated(&file, 1);
    assert!(of(&seen, "side", "term")[0] > of(&seen, "app", "exit")[0]);
    assert!(first(&rows_of(&file, "pod", 1), |s| s["phase"] == "Failed").is_some());
}

#[test]
fn without_a_readiness_probe_a_container_is_ready_as_soon_as_it_runs() {
    let file = file(one(json!({})), json!({}), json!({}));
    let ready = first(&rows_of(&file, "pod", 1), |s| s["ready"] == true).unwrap();
    assert!((0.0..1.5).contains(&ready), "{ready}");
}

#[test]
fn an_unready_sidecar_makes_the_pod_unready() {
    let side = json!({ "name": "side", "restartPolicy": "Always", "ports": [{ "containerPort": 80 }],
        "readinessProbe": probe("/ready", 1, 1) });
    let pod = json!({ "initContainers": [side], "containers": [{ "name": "app" }] });
    let containers = json!({ "side": { "answers":
        [{ "path": "/ready", "from": 20, "until": 30, "code": 503, "delay": 0 }] } });
    let file = file(pod, containers, json!({}));
    let status = rows_of(&file, "pod", 1);
    let left = first(&status, |s| s["ready"] == false && s["containers"]["app"]["ready"] == true).unwrap();
    assert!((20.0..21.5).contains(&left), "{left}");
    let endpoints = rows_of(&file, "endpoint", 1);
    assert!(endpoints.iter().any(|(at, e)| *at > 20.0 && *at < 21.7 && e["ready"] == false));
    assert!(endpoints.iter().any(|(at, e)| *at > 30.0 && *at < 31.7 && e["ready"] == true));
}

#[test]
fn probes_keep_their_period_to_the_hundredth() {
    let file = file(one(json!({ "livenessProbe": probe("/health", 7, 3) })), json!({}), json!({}));
    for seed in 0..10 {
        let seen = simulated(&file, seed);
        let at = of(&seen, "app", "/health");
        assert!(at.windows(2).all(|pair| (pair[1] - pair[0] - 7.0).abs() < 0.015), "{at:?}");
    }
}

#[test]
fn extreme_numbers_are_refused_or_survived() {
    let big = u32::MAX;
    let liveness = json!({ "httpGet": { "path": "/x", "port": 80 }, "periodSeconds": big, "timeoutSeconds": big,
        "initialDelaySeconds": big, "failureThreshold": big, "terminationGracePeriodSeconds": big });
    let mut pod = one(json!({ "livenessProbe": liveness }));
    pod["terminationGracePeriodSeconds"] = json!(big);
    let containers = json!({ "app": { "exit_after": 0, "ignores_term": true, "listen_after": 86_400 } });
    let file = file(pod, containers, json!({ "delete_at": 0, "observed_for": 86_400 }));
    assert!(!run(&file, u64::MAX).is_empty());
    for wrong in [json!(-1), json!(1e300), json!(86_401)] {
        let text = json!({ "pod": one(json!({})), "observed_for": wrong }).to_string();
        assert!(TraceFile::parse(&text).is_err(), "{text}");
    }
    for text in ["", "{}", "[1, 2]", r#"{"pod": {"containers": [{"name": "a", "ports": [{"containerPort": 70000}]}]}}"#]
    {
        assert!(TraceFile::parse(text).is_err(), "{text}");
    }
}

#[test]
fn an_equal_seed_gives_equal_rows_and_another_gives_others() {
    let file = file(one(json!({ "livenessProbe": probe("/health", 2, 2) })), fails("/health", 9), json!({}));
    assert_eq!(run(&file, 5), run(&file, 5));
    assert_ne!(run(&file, 5), run(&file, 6));
}

#[test]
fn thousands_of_random_pods_break_no_law() {
    let mut rng = crate::lab::rng::Rng::new(77);
    for seed in 0..3000 {
        let file = random(&mut rng);
        let rows = run(&file, seed);
        assert!(rows.windows(2).all(|pair| pair[0].0 <= pair[1].0), "seed {seed}: time went back");
        let mut running: BTreeMap<String, bool> = BTreeMap::new();
        for Row(at, _, detail) in rows.iter().filter(|row| row.1 == "app") {
            let name = detail["container"].as_str().unwrap().to_owned();
            let event = detail["event"].as_str().unwrap();
            let is_running = running.entry(name).or_default();
            // A killed container says nothing, so a start may follow a start; nothing else comes from the dead.
            assert!(event == "start" || *is_running, "seed {seed} at {at}: {detail}");
            *is_running = event != "exit";
        }
    }
}

fn random(rng: &mut crate::lab::rng::Rng) -> TraceFile {
    let mut pick = |low: u64, high: u64| low + rng.below(high - low + 1);
    let mut container = |name: &str, port: u64| {
        let mut c = json!({ "name": name, "ports": [{ "containerPort": port }] });
        for kind in ["startupProbe", "readinessProbe", "livenessProbe"] {
            if pick(0, 1) == 0 {
                c[kind] = json!({ "httpGet": { "path": "/x", "port": pick(80, 81) }, "periodSeconds": pick(1, 10),
                    "failureThreshold": pick(1, 4), "initialDelaySeconds": pick(0, 5), "timeoutSeconds": pick(1, 3) });
            }
        }
        if pick(0, 2) == 0 {
            c["lifecycle"] = json!({ "preStop": { "exec": { "command": ["/target", pick(0, 30).to_string()] } } });
        }
        let program = json!({
            "exit_after": (pick(0, 3) == 0).then(|| pick(1, 30)), "ignores_term": pick(0, 4) == 0,
            "listen_after": (pick(0, 3) == 0).then(|| pick(1, 20)),
            "answers": [{ "path": "/x", "from": pick(0, 40), "until": null, "code": 503, "delay": pick(0, 2) }],
        });
        (c, program)
    };
    let (app, app_program) = container("app", 80);
    let (mut side, side_program) = container("side", 81);
    side["restartPolicy"] = json!("Always");
    let has_sidecar = pick(0, 1) == 0;
    let mut pod = json!({ "containers": [app], "terminationGracePeriodSeconds": pick(0, 30) });
    if has_sidecar {
        pod["initContainers"] = json!([side]);
    }
    let delete_at = (pick(0, 1) == 0).then(|| pick(1, 100));
    file(pod, json!({ "app": app_program, "side": side_program }), json!({ "delete_at": delete_at }))
}
