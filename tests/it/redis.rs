//! A dependency fails in every way it can: `/ready` says so, `/health` never does, and each way back heals.

use super::model::Model;
use super::redis_server::Redis;
use super::sidecar::Sidecar;
use super::until::until;

const THRESHOLD: u64 = 3;

fn config(model: &Model, redis: &str) -> String {
    format!(
        r#"
[upstream]
address = "{}"
[ready]
require = ["upstream", "redis"]
[checks.redis]
redis = {redis}
interval = "400ms"
timeout = "300ms"
failure_threshold = {THRESHOLD}
scope = "shared"
accept_cascade = "no embeddings, no answer"
"#,
        model.address()
    )
}

fn fronted(redis: &Redis, more: &str) -> (Model, Sidecar) {
    let model = Model::start();
    let redis = format!(r#"{{ url = "redis://{}"{more} }}"#, redis.address());
    let sidecar = Sidecar::start(&config(&model, &redis));
    sidecar.until("/ready", 200);
    (model, sidecar)
}

/// Waits for `/ready` to fail for a reason that contains this, and looks at what came before.
fn fails_for(sidecar: &Sidecar, reason: &str) {
    sidecar.until("/ready", 503);
    let verbose = sidecar.probe("/ready?verbose").body;
    assert!(verbose.contains("[-]redis failed: ") && verbose.contains(reason), "{verbose}");
    assert!(verbose.contains("[+]upstream ok"), "{verbose}");
    assert_eq!(sidecar.probe("/health").status, 200);
    let check = sidecar.check("redis");
    assert!(check["failures"].as_u64().unwrap() >= THRESHOLD, "turned before its threshold: {check}");
}

fn heals(sidecar: &Sidecar) {
    sidecar.until("/ready", 200);
    assert_eq!(sidecar.probe("/health").status, 200);
}

#[test]
fn a_stopped_redis_fails_readiness_after_its_threshold_and_a_restart_heals_it() {
    let mut redis = Redis::start();
    let (_model, sidecar) = fronted(&redis, "");
    redis.kill();
    let refused = format!("connection refused by {}", redis.address());
    // Before the threshold the check is still up, however the last attempt ended.
    until("a first failure is seen", || (sidecar.check("redis")["failures"] != 0).then_some(()));
    let (check, ready) = (sidecar.check("redis"), sidecar.probe("/ready").status);
    if check["failures"].as_u64().unwrap() < THRESHOLD - 1 {
        assert_eq!((check["state"].as_str(), ready), (Some("up"), 200), "{check}");
    }
    fails_for(&sidecar, &refused);
    let line = sidecar.log_lines().into_iter().find(|line| line["subject"] == "ready" && line["to"] == "fail").unwrap();
    assert!(line["message"].as_str().unwrap().contains(&refused), "{line}");
    assert_eq!(line["failures"], THRESHOLD, "not at the threshold: {line}");
    redis.restart();
    heals(&sidecar);
}

#[test]
fn a_paused_redis_times_out_and_says_what_it_waited_for() {
    let redis = Redis::start();
    let (_model, sidecar) = fronted(&redis, "");
    redis.pause();
    fails_for(&sidecar, "timeout after 300ms");
    redis.resume();
    heals(&sidecar);
}

#[test]
fn a_redis_that_starts_to_want_a_password_is_named_as_such() {
    let redis = Redis::start();
    let (_model, sidecar) = fronted(&redis, "");
    redis.ask(&[&["CONFIG", "SET", "requirepass", "sesame"]]);
    fails_for(&sidecar, "AUTH needed");
    redis.ask(&[&["AUTH", "sesame"], &["CONFIG", "SET", "requirepass", ""]]);
    heals(&sidecar);
}

#[test]
fn a_flushed_key_fails_readiness_until_it_is_back() {
    let redis = Redis::start();
    redis.ask(&[&["SET", "embeddings:version", "3"]]);
    let (_model, sidecar) = fronted(&redis, r#", key = "embeddings:version""#);
    redis.ask(&[&["FLUSHALL"]]);
    fails_for(&sidecar, "embeddings:version");
    redis.ask(&[&["SET", "embeddings:version", "4"]]);
    heals(&sidecar);
}
