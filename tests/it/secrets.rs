//! A planted password must appear nowhere.

use std::fs;

use super::model::Model;
use super::redis_server::Redis;
use super::sidecar::{Sidecar, probegate, probegate_says};
use super::until::until;
use super::wire;

const PLANTED: &str = "xq7-planted-sesame";

fn config(model: &Model, redis: &Redis, directory: &std::path::Path) -> String {
    let file = directory.join("redis-url");
    fs::write(&file, format!("redis://:{PLANTED}@{}\n", redis.address())).unwrap();
    format!(
        r#"
[upstream]
address = "{0}"
[ready]
require = ["upstream", "by-file", "by-variable"]
[checks.by-file]
redis = {{ url_file = {1:?} }}
interval = "400ms"
timeout = "300ms"
failure_threshold = 1
[checks.by-variable]
redis = {{ url = "redis://:${{PLANTED}}@{2}" }}
interval = "400ms"
timeout = "300ms"
failure_threshold = 1
[checks.by-header]
http = {{ url = "http://{0}/no-such-path", headers = {{ authorization = "Bearer ${{PLANTED}}" }} }}
interval = "400ms"
timeout = "300ms"
failure_threshold = 1
"#,
        model.address(),
        file.display().to_string(),
        redis.address()
    )
}

fn assert_clean(what: &str, text: &str) {
    assert!(!text.contains(PLANTED), "the password is in {what}:\n{text}");
}

#[test]
fn a_password_appears_in_no_answer_no_log_and_no_metric_while_its_checks_fail() {
    let directory = tempfile::tempdir().unwrap();
    // It wants another one, so that every check that uses ours fails and explains itself.
    let redis = Redis::start_with(&["--requirepass", "another"]);
    let model = Model::start();
    let sidecar = Sidecar::start_with(&config(&model, &redis, directory.path()), |command| {
        command.env("PLANTED", PLANTED).args(["--log-level", "trace"])
    });
    for check in ["by-file", "by-variable", "by-header"] {
        until("it is down", || (sidecar.check(check)["state"] == "down").then_some(()));
    }
    for path in ["/ready", "/ready?verbose", "/ready?format=json", "/ready?format=actuator", "/metrics"] {
        assert_clean(path, &sidecar.probe(path).body);
    }
    for path in ["/", "/api/report"] {
        assert_clean(path, &wire::get(sidecar.admin(), path).body);
    }
    let verbose = sidecar.probe("/ready?verbose").body;
    assert!(verbose.contains("password"), "the reason still says what is wrong: {verbose}");
    wire::get(sidecar.traffic(), "/health");
    let file = sidecar.config().display().to_string();
    let admin = sidecar.admin().to_string();
    for arguments in [
        &["check", "-c", &file][..],
        &["check", "--json", "-c", &file],
        &["lint", "-c", &file],
        &["schema"],
        &["status", "--admin", &admin],
        &["status", "--json", "--admin", &admin],
    ] {
        let said = probegate().args(arguments).env("PLANTED", PLANTED).output().unwrap();
        assert_clean(&format!("{arguments:?}"), &String::from_utf8_lossy(&said.stdout));
        assert_clean(&format!("{arguments:?}"), &String::from_utf8_lossy(&said.stderr));
    }
    assert_clean("the log", &sidecar.log_text());
}

#[test]
fn an_inline_password_is_refused_without_being_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("probegate.toml");
    let text =
        format!("[upstream]\naddress = \"127.0.0.1:1\"\n[checks.a]\nredis = \"redis://:{PLANTED}@127.0.0.1:1\"\n");
    fs::write(&file, text).unwrap();
    for command in ["run", "check", "lint"] {
        let said = probegate_says(&[command, "-c", file.to_str().unwrap()]);
        assert_eq!(said.status.code(), Some(2), "{command}: {said:?}");
        let text = String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
        assert_clean(command, &text);
        assert!(text.contains("checks.a"), "{command}: {text}");
    }
}

#[test]
fn a_variable_that_is_not_set_keeps_the_sidecar_from_starting_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("probegate.toml");
    let text =
        "[upstream]\naddress = \"127.0.0.1:1\"\n[checks.a]\nredis = \"redis://:${NOBODY_SET_THIS}@127.0.0.1:1\"\n";
    fs::write(&file, text).unwrap();
    for command in ["run", "check"] {
        let said = probegate_says(&[command, "-c", file.to_str().unwrap()]);
        assert_eq!(said.status.code(), Some(2), "{command}: {said:?}");
        assert!(String::from_utf8_lossy(&said.stderr).contains("NOBODY_SET_THIS"), "{command}: {said:?}");
    }
}
