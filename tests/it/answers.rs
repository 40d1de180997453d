//! The probe listener through a raw socket: what a kubelet sees, byte by byte.

use super::model::Model;
use super::sidecar::Sidecar;
use super::until::until;
use super::wire::{self, Line};

fn fronted(more: &str) -> (Model, Sidecar) {
    let model = Model::start();
    let sidecar = Sidecar::start(&format!("[upstream]\naddress = \"{}\"\n{more}", model.address()));
    sidecar.until("/ready", 200);
    (model, sidecar)
}

#[test]
fn every_path_and_alias_answers_small_stable_and_at_once() {
    let (_model, sidecar) = fronted("");
    for path in
        ["/health", "/livez", "/healthz", "/ready", "/readyz", "/startup", "/startupz", "/self", "/ready/upstream"]
    {
        let reply = sidecar.probe(path);
        assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"status":"pass"}"#), "{path}: {reply:?}");
        assert_eq!(reply.header("content-length"), Some("17"), "{path}");
        assert_eq!(reply.header("transfer-encoding"), None, "{path}");
    }
    assert_eq!(sidecar.probe("/nothing").status, 404);
    assert_eq!(sidecar.probe("/ready/nobody").status, 404);
}

#[test]
fn methods_versions_and_pipelines() {
    let (_model, sidecar) = fronted("");
    let head = wire::ask(sidecar.probes(), "HEAD", "/ready", "", "").unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("17")));
    let post = wire::ask(sidecar.probes(), "POST", "/ready", "", "").unwrap();
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));

    let mut old = Line::open(sidecar.probes()).unwrap();
    old.send("GET /health HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(old.reply(false).unwrap().status, 200);
    assert!(old.is_closed(), "1.0 asked for one answer");

    let mut pipeline = Line::open(sidecar.probes()).unwrap();
    pipeline.send(&"GET /health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3)).unwrap();
    for _ in 0..3 {
        assert_eq!(pipeline.reply(false).unwrap().body, r#"{"status":"pass"}"#);
    }
}

#[test]
fn garbage_is_turned_away_and_hurts_nobody() {
    let (_model, sidecar) = fronted("");
    for garbage in
        ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET /ready HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut line = Line::open(sidecar.probes()).unwrap();
        let _ = line.send(garbage);
        drop(line);
    }
    let long = format!("/ready?{}", "x".repeat(20_000));
    assert!(matches!(sidecar.probe(&long).status, 414 | 431));
    assert_eq!(sidecar.probe("/ready").status, 200);
}

#[test]
fn every_dialect_tells_the_same_verdict() {
    let model = Model::start();
    let sidecar = Sidecar::start(&format!(
        "[upstream]\naddress = \"{}\"\n[ready]\nrequire = [\"upstream\", \"gone\"]\n\
         [checks.gone]\ntcp = \"127.0.0.1:1\"\nfailure_threshold = 1\n",
        model.address()
    ));
    until("it is down", || (sidecar.check("gone")["state"] == "down").then_some(()));
    sidecar.until("/ready/upstream", 200);
    let verbose = sidecar.probe("/readyz?verbose");
    assert_eq!(verbose.status, 503);
    assert!(verbose.body.contains("[-]gone failed: connection refused by 127.0.0.1:1"), "{}", verbose.body);
    assert!(verbose.body.ends_with("readyz check failed\n"), "{}", verbose.body);
    let excluded = sidecar.probe("/readyz?verbose&exclude=gone");
    assert_eq!(excluded.status, 200, "{}", excluded.body);
    let json = wire::ask(sidecar.probes(), "GET", "/ready", "Accept: application/health+json\r\n", "").unwrap();
    assert_eq!((json.status, json.header("content-type")), (503, Some("application/health+json")));
    assert_eq!(json.json()["status"], "fail");
    let actuator = sidecar.probe("/ready?format=actuator");
    assert_eq!(actuator.status, 503);
    assert_ne!(actuator.json()["status"], "UP");
    assert_eq!(sidecar.probe("/ready/gone").status, 503);
    assert_eq!(sidecar.probe("/ready/upstream").status, 200);
}

#[test]
fn probe_paths_are_on_the_traffic_listener_only_if_asked_for() {
    let (model, sidecar) = fronted("");
    // The model server has a /health of its own, and none of our /self.
    assert_ne!(wire::get(sidecar.traffic(), "/self").body, r#"{"status":"pass"}"#);
    drop((model, sidecar));
    let (_model, sidecar) = fronted("[traffic]\nexpose_probes = true\n");
    assert_eq!(wire::get(sidecar.traffic(), "/self").body, r#"{"status":"pass"}"#);
    assert_eq!(wire::get(sidecar.traffic(), "/ready").body, r#"{"status":"pass"}"#);
    let predictions = wire::get(sidecar.traffic(), "/metrics").body;
    assert!(predictions.contains("model_") && !predictions.contains("probegate_"), "the model server's own page");
}
