//! Commands from outside: texts, and the exit codes that scripts rely on.

use std::fs;
use std::process::Output;

use super::model::Model;
use super::sidecar::{Sidecar, probegate_says};
use super::until::until;
use super::wire;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn says(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = probegate_says(arguments);
    (status.code(), text(&stdout), text(&stderr))
}

struct Checked {
    _directory: tempfile::TempDir,
    file: String,
}

fn file(text: &str) -> Checked {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("probegate.toml");
    fs::write(&file, text).unwrap();
    Checked { file: file.display().to_string(), _directory: directory }
}

fn with_a_gone_dependency(model: &Model, role: &str) -> Checked {
    file(&format!(
        "[upstream]\naddress = \"{}\"\n[ready]\n{role}\n[checks.profile]\ntcp = \"127.0.0.1:1\"\n",
        model.address()
    ))
}

#[test]
fn check_fails_only_for_what_a_gate_requires() {
    let model = Model::start();
    let required = with_a_gone_dependency(&model, "require = [\"upstream\", \"profile\"]");
    let (code, out, _) = says(&["check", "-c", &required.file]);
    assert_eq!(code, Some(1), "{out}");
    let line = out.lines().find(|line| line.starts_with("profile")).unwrap();
    assert!(line.contains("fail") && line.contains("connection refused by 127.0.0.1:1"), "{out}");

    let degrading = with_a_gone_dependency(&model, "require = [\"upstream\"]\ndegrade = [\"profile\"]");
    let (code, out, _) = says(&["check", "-c", &degrading.file]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.lines().any(|line| line.starts_with("profile") && line.contains("degrade")), "{out}");

    let (code, out, _) = says(&["check", "-c", &required.file, "upstream", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["ok"]), (Some(0), &serde_json::Value::Bool(true)));
    assert_eq!(json["checks"].as_array().unwrap().len(), 1);
    assert_eq!(json["checks"][0]["outcome"], "pass");

    let (code, _, err) = says(&["check", "-c", &required.file, "profil"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("\"profil\"") && err.contains("did you mean \"profile\""), "{err}");
}

#[test]
fn status_shows_why_and_answers_no_while_not_ready() {
    let mut model = Model::start();
    let sidecar = Sidecar::start(&format!("[upstream]\naddress = \"{}\"\n", model.address()));
    sidecar.until("/ready", 200);
    let admin = sidecar.admin().to_string();
    let (code, out, _) = says(&["status", "--admin", &admin]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("ready") && out.contains("PASS") && out.contains("upstream"), "{out}");
    model.kill();
    sidecar.until("/ready", 503);
    let (code, out, _) = says(&["status", "--admin", &admin]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("FAIL") && out.contains("connection refused by"), "{out}");
    assert!(!out.contains('\x1b'), "no colour in a pipe");
    assert!(out.lines().all(|line| line.chars().count() <= 100), "{out}");
    let (_, json, _) = says(&["status", "--json", "--admin", &admin]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["gates"]["ready"]["status"], "fail");
}

#[test]
fn status_and_drain_say_so_when_nobody_is_there() {
    for command in ["status", "drain"] {
        let (code, _, err) = says(&[command, "--admin", "127.0.0.1:1"]);
        assert_eq!(code, Some(2), "{command}: {err}");
        assert!(err.contains("127.0.0.1:1"), "{command}: {err}");
    }
}

#[test]
fn ready_can_be_taken_away_and_a_check_overridden_by_hand() {
    let model = Model::start();
    let sidecar = Sidecar::start(&format!("[upstream]\naddress = \"{}\"\n", model.address()));
    sidecar.until("/ready", 200);
    assert_eq!(wire::post(sidecar.admin(), "/ready/disable", "").status, 200);
    assert_eq!(sidecar.probe("/ready").status, 503);
    assert_eq!(wire::post(sidecar.admin(), "/ready/enable", "").status, 200);
    assert_eq!(sidecar.probe("/ready").status, 200);
    let forced = wire::post(sidecar.admin(), "/checks/upstream/override?state=down&ttl=1s", "");
    assert_eq!(forced.status, 200, "{forced:?}");
    assert_eq!(sidecar.probe("/ready").status, 503);
    sidecar.until("/ready", 200);
    assert_eq!(wire::post(sidecar.admin(), "/checks/upstream/override?state=down", "").status, 400);
    assert_eq!(wire::post(sidecar.admin(), "/checks/upstraem/override?state=down&ttl=1s", "").status, 404);
}

#[test]
fn a_pushed_heartbeat_keeps_its_check_up() {
    let model = Model::start();
    let sidecar = Sidecar::start(&format!(
        "[upstream]\naddress = \"{}\"\n[checks.loop]\nheartbeat = {{ push = true, max_silence = \"1s\" }}\n\
         interval = \"400ms\"\ntimeout = \"300ms\"\n",
        model.address()
    ));
    let put = |name: &str| wire::ask(sidecar.admin(), "PUT", &format!("/heartbeats/{name}"), "", "step 7").unwrap();
    assert!((200..300).contains(&put("loop").status), "{:?}", put("loop"));
    until("it is up", || (sidecar.check("loop")["state"] == "up").then_some(()));
    until("silence is seen", || (sidecar.check("loop")["state"] == "down").then_some(()));
    assert_eq!(put("nobody").status, 404);
}

#[test]
fn bad_files_and_bad_words_end_with_2_and_all_problems() {
    let bad = file("[upstrem]\naddress = \"127.0.0.1:1\"\n[checks.a]\ntcp = \"h:1\"\ninterval = \"5x\"\n");
    for command in ["run", "check", "lint"] {
        let (code, out, err) = says(&[command, "-c", &bad.file]);
        let said = out + &err;
        assert_eq!(code, Some(2), "{command}: {said}");
        assert!(said.contains("upstrem") && said.contains("5x"), "{command}: {said}");
    }
    assert_eq!(says(&["run", "-c", "/no/such/file"]).0, Some(2));
    assert_eq!(says(&["rnu"]).0, Some(2));
}

#[test]
fn lint_advises_a_counter_where_silence_alone_decides() {
    let lint = |progress: &str| {
        let text = format!("[upstream]\naddress = \"127.0.0.1:1\"\n[checks.moves]\nprogress = {{ {progress} }}\n");
        let (code, out, err) = says(&["lint", "-c", &file(&text).file]);
        assert_eq!(code, Some(0), "{out}{err}");
        out
    };
    let advised = |out: &str| out.contains("note: checks.moves: silence alone decides");
    assert!(advised(&lint(r#"stall_after = "30s""#)));
    assert!(!advised(&lint(r#"stall_after = "30s", counter = "done_total""#)));
    assert!(!advised(&lint(r#"stall_after = "30s", process = "server""#)));
}

#[test]
fn lint_advises_a_window_that_holds_more_than_one_attempt() {
    let lint = |window: &str| {
        let golden = format!(
            "golden = {{ cases = \"golden.json\", min_accuracy = 0.8, window = \"{window}\" }}\ninterval = \"1m\""
        );
        let text = format!("[upstream]\naddress = \"127.0.0.1:1\"\n[checks.answers]\n{golden}\ntimeout = \"5s\"\n");
        let (code, out, err) = says(&["lint", "-c", &file(&text).file]);
        assert_eq!(code, Some(0), "{out}{err}");
        out
    };
    assert!(lint("1m").contains("note: checks.answers: its `window` is no longer than its `interval`"));
    assert!(!lint("5m").contains("note: checks.answers"));
}

#[test]
fn a_taken_port_is_named_and_nothing_is_left_running() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let whole = file("[upstream]\naddress = \"127.0.0.1:1\"\n");
    let any = "127.0.0.1:0";
    let listen = ["--listen-traffic", any, "--listen-probes", &address, "--listen-admin", any];
    let (code, _, err) = says(&[&["run", "-c", &whole.file][..], &listen].concat());
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains(&address) && err.contains("listen.probes"), "{err}");
}

#[test]
fn presets_schema_and_completions_print() {
    let (code, out, _) = says(&["presets"]);
    assert_eq!(code, Some(0));
    for preset in ["generic", "fastapi", "oip-v2", "tensorflow-serving", "vllm", "triton"] {
        assert!(out.contains(preset), "{out}");
        assert_eq!(says(&["presets", preset]).0, Some(0));
    }
    assert_eq!(says(&["presets", "fastpai"]).0, Some(2));
    let (_, schema, _) = says(&["schema"]);
    assert!(serde_json::from_str::<serde_json::Value>(&schema).unwrap().is_object());
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = says(&["completions", shell]);
        assert!(code == Some(0) && out.contains("probegate"), "{shell}");
    }
}

#[test]
fn the_lab_lists_its_experiments_by_theme_runs_one_and_fails_on_a_missed_expectation() {
    let (code, out, _) = says(&["lab", "list"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("Exercise 5: design your own health checks (docs/lab/exercise5.md)\n"), "{out}");
    assert!(out.contains("\n  redis-one-pod ") && out.contains("\nIncidents (docs/lab/incidents.md)\n"), "{out}");

    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let written = page.display().to_string();
    let (code, out, _) = says(&["lab", "run", "crashloop", "--seeds", "1", "--markdown", "waits", "--html", &written]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("Asked: ") && out.contains("\n| restart | no-probes | with-probes |\n"), "{out}");
    assert!(fs::read_to_string(&page).unwrap().contains("server of pod 0 crashes"));

    let (code, _, err) = says(&["lab", "run", "crashloop", "--markdown", "crashs"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("\"crashs\" is no column"), "{err}");

    let (_, shown, _) = says(&["lab", "show", "crashloop"]);
    let hopeful = directory.path().join("hopeful.toml");
    fs::write(&hopeful, shown.replace("no-probes: crashes >= 9", "no-probes: crashes = 0")).unwrap();
    let (code, out, _) = says(&["lab", "run", &hopeful.display().to_string(), "--seeds", "1"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("MISSED  no-probes: crashes = 0"), "{out}");
}
