//! What speaks for and against a model server beside its traffic: its answers to labelled examples, its threads.

use std::fs;
use std::process::Command;

use super::cgroup::Group;
use super::model::Model;
use super::model_servers::{Server, free_address};
use super::sidecar::Sidecar;
use super::until::until;
use super::wire::Line;

const DIGITS: &str = include_str!("../../deploy/helm/probegate/files/golden-digits.json");

#[test]
fn a_release_that_answers_garbage_never_becomes_ready_whatever_the_last_one_got_right() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("golden.json"), DIGITS).unwrap();
    let mut model = Model::absent();
    let config = directory.path().join("probegate.toml");
    let golden = r#"golden = { cases = "golden.json", min_accuracy = 0.8, window = "1h" }"#;
    let pace = "interval = \"600ms\"\ntimeout = \"500ms\"\nsuccess_threshold = 1\nfailure_threshold = 1\n";
    let address = model.address();
    fs::write(
        &config,
        format!(
            "[upstream]\naddress = \"{address}\"\n[ready]\nrequire = [\"answers\"]\n[checks.answers]\n{golden}\n{pace}"
        ),
    )
    .unwrap();
    let sidecar = Sidecar::start_on(&config, |command| command);
    let accuracy = || sidecar.check("answers")["accuracy"].as_f64();

    model.launch(&[]);
    sidecar.until("/ready", 200);
    until("five attempts", || (sidecar.check("answers")["passes"].as_u64() >= Some(5)).then_some(()));
    assert!(accuracy() >= Some(0.9), "{:?}", accuracy());

    model.kill();
    sidecar.until("/ready", 503);
    model.launch(&["--version", "v2"]);
    until("garbage is judged three times", || {
        assert_eq!(sidecar.probe("/ready").status, 503, "{}", sidecar.report());
        (sidecar.check("answers")["failures"].as_u64() >= Some(3)).then_some(())
    });
    assert!(accuracy() < Some(0.5), "{:?}", accuracy());
    let page = sidecar.probe("/metrics").body;
    assert!(page.contains("\nmodel_degraded 1"), "{page}");
    assert_eq!(sidecar.probe("/health").status, 200, "no restart makes a bad model good");

    model.kill();
    until("it is seen to be gone", || (sidecar.report()["instance"]["phase"] == "gone").then_some(()));
    model.launch(&[]);
    sidecar.until("/ready", 200);
    assert!(accuracy() >= Some(0.9), "{:?}", accuracy());
}

/// Answers one request after another, each after two seconds on a CPU.
const BUSY: &str = r#"
import http.server, sys, time
class Busy(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        end = time.process_time() + 2
        while time.process_time() < end: pass
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Busy).serve_forever()
"#;

#[test]
fn a_server_that_gets_no_cpu_does_not_hang_and_one_that_is_stopped_does() {
    let Some(group) = Group::make("server") else { return };
    let address = free_address();
    let mut python = Command::new("python3");
    python.args(["-c", BUSY, &address.port().to_string(), &format!("busy-{}", address.port())]);
    let server = Server::start(python, address);
    let sidecar = Sidecar::start(&format!(
        "[upstream]\naddress = \"{address}\"\nmetrics = false\n[health]\nrequire = [\"progress\"]\n[checks.progress]\n\
         progress = {{ stall_after = \"3s\", process = \"busy-{}\" }}\ninterval = \"2s\"\n",
        address.port()
    ));
    sidecar.until("/ready", 200);
    // A hundredth of a core: the answer takes minutes.
    group.take(server.pid());
    group.allow(1000);
    let mut client = Line::open(sidecar.traffic()).unwrap();
    client.send("POST /predict HTTP/1.1\r\nHost: model\r\nContent-Length: 2\r\n\r\n{}").unwrap();
    let reason = || sidecar.check("progress")["last"]["reason"].as_str().unwrap_or_default().to_owned();
    let silent_for = |reason: &str| -> Option<f64> {
        reason.strip_prefix("silent for ")?.split_once("s with work pending, but")?.0.parse().ok()
    };
    let why = until("three times `stall_after` has passed", || {
        Some(reason()).filter(|reason| silent_for(reason).is_some_and(|secs| secs >= 9.0))
    });
    assert!(why.ends_with("but 1 of 1 threads runs or waits for a CPU"), "{why}");
    assert_eq!(sidecar.probe("/health").status, 200, "{}", sidecar.log_text());
    assert_eq!(sidecar.check("progress")["state"], "up");

    server.signal("STOP");
    sidecar.until("/health", 503);
    let why = reason();
    assert!(why.starts_with("stalled: no byte from the model server for "), "{why}");
    assert!(why.ends_with("its processes use no CPU (1 of 1 threads stopped)"), "{why}");
}
