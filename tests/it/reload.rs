//! The configuration changes under a running sidecar.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::model::Model;
use super::sidecar::Sidecar;
use super::until::until;
use super::wire::{self, Line};

/// A directory as the kubelet mounts a ConfigMap: a file that links through `..data`.
struct ConfigMap {
    directory: tempfile::TempDir,
    versions: u32,
}

impl ConfigMap {
    fn new(text: &str) -> Self {
        let mut map = Self { directory: tempfile::tempdir().unwrap(), versions: 0 };
        map.swap(text);
        symlink("..data/probegate.toml", map.file()).unwrap();
        map
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("probegate.toml")
    }

    fn swap(&mut self, text: &str) {
        self.versions += 1;
        let at = |name: &str| self.directory.path().join(name);
        let version = format!("..version-{}", self.versions);
        fs::create_dir(at(&version)).unwrap();
        fs::write(at(&version).join("probegate.toml"), text).unwrap();
        symlink(Path::new(&version), at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    }
}

fn config(model: &Model, more: &str) -> String {
    format!("[upstream]\naddress = \"{}\"\n{more}", model.address())
}

fn has_check(sidecar: &Sidecar, name: &str) -> bool {
    sidecar.report()["checks"].as_array().unwrap().iter().any(|check| check["name"] == name)
}

fn successful(sidecar: &Sidecar) -> bool {
    sidecar.probe("/metrics").body.lines().any(|line| line == "probegate_config_last_reload_successful 1")
}

#[test]
fn a_swapped_config_map_is_taken_over_without_losing_a_connection_or_a_history() {
    let model = Model::start();
    let mut map = ConfigMap::new(&config(&model, ""));
    let sidecar = Sidecar::start_on(&map.file(), |command| command);
    sidecar.until("/ready", 200);
    let mut kept = Line::open(sidecar.traffic()).unwrap();
    let request = "GET /health HTTP/1.1\r\nHost: model\r\n\r\n";
    kept.send(request).unwrap();
    assert_eq!(kept.reply(false).unwrap().status, 200);
    let attempts = sidecar.check("upstream")["attempts"].as_u64().unwrap();

    map.swap(&config(&model, "[checks.space]\ndisk = { path = \"/\", min_free = \"1B\" }\n"));
    until("the new check is there", || has_check(&sidecar, "space").then_some(()));
    assert_eq!(sidecar.probe("/ready").status, 200);
    assert!(sidecar.check("upstream")["attempts"].as_u64().unwrap() >= attempts, "its history is kept");
    kept.send(request).unwrap();
    assert_eq!(kept.reply(false).unwrap().status, 200, "the connection is kept");
    assert!(successful(&sidecar));
}

#[test]
fn a_bad_file_is_refused_kept_out_visible_and_forgiven() {
    let model = Model::start();
    let mut map = ConfigMap::new(&config(&model, ""));
    let sidecar = Sidecar::start_on(&map.file(), |command| command);
    sidecar.until("/ready", 200);
    map.swap(&config(&model, "[checks.cache]\nredsi = \"redis://127.0.0.1:1\"\ninterval = \"5x\"\n"));
    until("the refusal is visible", || (!successful(&sidecar)).then_some(()));
    let report = sidecar.report();
    let problem = report["config"]["problem"].as_str().unwrap();
    assert_eq!(report["config"]["last_reload_successful"], false);
    assert!(problem.contains("redsi") && problem.contains("5x"), "all problems at once: {problem}");
    let text = sidecar.log_text();
    assert!(text.contains("redsi") && text.contains("5x"), "{text}");
    assert_eq!(sidecar.probe("/ready").status, 200, "what ran goes on");
    assert!(!has_check(&sidecar, "cache"));

    map.swap(&config(&model, "[checks.space]\ndisk = \"/\"\n"));
    until("the good one is taken", || has_check(&sidecar, "space").then_some(()));
    assert!(successful(&sidecar));
    assert!(sidecar.report()["config"]["problem"].is_null());
}

#[test]
fn a_reload_by_hand_answers_with_its_outcome_and_names_what_waits_for_a_restart() {
    let model = Model::start();
    let sidecar = Sidecar::start(&config(&model, "[traffic]\nworkers = 1\n"));
    fs::write(sidecar.config(), config(&model, "[traffic]\nworkers = 2\n")).unwrap();
    let answer = wire::post(sidecar.admin(), "/reload", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("traffic.workers"), "{answer:?}");
    assert_eq!(sidecar.report()["config"]["needs_restart"][0], "traffic.workers");
    fs::write(sidecar.config(), "[upstream]\n").unwrap();
    let answer = wire::post(sidecar.admin(), "/reload", "");
    assert!((400..500).contains(&answer.status) && answer.body.contains("address"), "{answer:?}");
}

#[test]
fn a_hangup_reloads() {
    let model = Model::start();
    let sidecar = Sidecar::start(&config(&model, ""));
    fs::write(sidecar.config(), config(&model, "[checks.space]\ndisk = \"/\"\n")).unwrap();
    sidecar.signal("HUP");
    until("the new check is there", || has_check(&sidecar, "space").then_some(()));
}

#[test]
fn a_model_server_at_another_address_is_not_judged_by_what_waits_for_the_last_one() {
    // Accepts, and says nothing for ever.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = "metrics = false\n[health]\nrequire = [\"progress\"]\n[checks.progress]\nprogress = { stall_after = \"5s\" }\n\
                [checks.beat]\ntcp = \"upstream\"\ninterval = \"1s\"\ntimeout = \"900ms\"\n";
    let upstream = format!("[upstream]\naddress = \"{}\"\n{more}", silent.local_addr().unwrap());
    let mut map = ConfigMap::new(&upstream);
    let sidecar = Sidecar::start_on(&map.file(), |command| command);
    sidecar.until("/ready", 200);
    let mut client = Line::open(sidecar.traffic()).unwrap();
    client.send("POST /predict HTTP/1.1\r\nHost: model\r\nContent-Length: 1\r\n\r\nx").unwrap();
    until("it waits", || sidecar.probe("/metrics").body.contains("probegate_in_flight 1\n").then_some(()));

    let model = Model::start();
    map.swap(&config(&model, more));
    wire::ask(sidecar.admin(), "POST", "/reload", "", "").unwrap();
    until("another model server stands", || (sidecar.report()["instance"]["number"] == 2).then_some(()));
    sidecar.until("/ready", 200);
    until("more than `stall_after` has passed", || (sidecar.check("beat")["passes"].as_u64() >= Some(8)).then_some(()));
    assert!(sidecar.probe("/metrics").body.contains("probegate_in_flight 1\n"), "its client waits on");
    assert_eq!(sidecar.probe("/health").status, 200, "{}", sidecar.report());
    let why = sidecar.check("progress")["last"]["reason"].clone();
    assert_eq!(why, "nothing is pending: silence says nothing");
    assert_eq!(wire::get(sidecar.traffic(), "/health").status, 200);
}
