//! Clients that other people wrote, through the sidecar: curl, h2load, a WebSocket library.

use std::fs::{self, File};
use std::process::Command;

use super::model::Model;
use super::model_servers::{Server, free_address, program, sources};
use super::sidecar::Sidecar;
use super::until::until;

/// What a program prints; it must end well.
pub(crate) fn says(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not run: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// curl, silent, with a deadline; it prints the status and the version after the body.
pub(crate) fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "-w", "\n%{http_code} %{http_version}"]);
    curl
}

/// A WebSocket server behind a sidecar that has these settings besides.
pub(crate) fn websocket_server(settings: &str) -> (Server, Sidecar) {
    let address = free_address();
    let mut python = program("python");
    python.arg(sources().join("websocket.py")).args(["serve", &address.port().to_string()]);
    let server = Server::start(python, address);
    until("the WebSocket server listens", || std::net::TcpStream::connect(address).ok());
    let sidecar = Sidecar::start(&format!("[upstream]\naddress = \"{address}\"\n{settings}"));
    sidecar.until("/ready", 200);
    (server, sidecar)
}

pub(crate) fn websocket_client() -> Command {
    let mut python = program("python");
    python.arg(sources().join("websocket.py")).arg("talk");
    python
}

fn fronted(settings: &str) -> (Model, Sidecar) {
    let model = Model::start();
    let sidecar =
        Sidecar::start(&format!("[upstream]\naddress = \"{}\"\nprotocol = \"http1\"\n{settings}", model.address()));
    sidecar.until("/ready", 200);
    (model, sidecar)
}

#[test]
fn curl_is_served_over_every_version_that_needs_no_tls() {
    let (_model, sidecar) = fronted("");
    let url = format!("http://{}/health", sidecar.traffic());
    assert!(says(curl().args(["--http1.0", &url])).contains("200 1"));
    for (version, said) in [("--http1.1", "200 1.1"), ("--http2-prior-knowledge", "200 2")] {
        assert!(says(curl().args([version, &url])).ends_with(said), "{version}");
    }
    // An upgrade to h2c is offered, and HTTP/1.1 is what it gets.
    assert!(says(curl().args(["--http2", &url])).ends_with("200 1.1"));
    assert!(says(curl().args(["-I", &url])).ends_with("200 1.1"));
}

#[test]
fn h2load_drives_many_streams_and_loses_none() {
    let (_model, sidecar) = fronted("[traffic]\nmax_in_flight = 4\nqueue = { max = 200 }\n");
    let url = format!("http://{}/health", sidecar.traffic());
    let text = says(Command::new("h2load").args(["-n", "600", "-c", "3", "-m", "20", &url]));
    assert!(text.contains("600 total, 600 started, 600 done, 600 succeeded, 0 failed"), "{text}");
    assert!(text.contains("600 2xx"), "{text}");
}

#[test]
fn a_websocket_library_talks_to_a_websocket_library() {
    let (_server, sidecar) = websocket_server("");
    let said = says(websocket_client().arg(format!("ws://{}/", sidecar.traffic())));
    assert_eq!(said.trim(), "talked");
}

#[test]
fn the_access_log_goes_to_standard_output_and_withholds_the_query() {
    let model = Model::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.jsonl");
    let stdout = File::create(&path).unwrap();
    let config = format!("[upstream]\naddress = \"{}\"\n[log]\naccess = true\n", model.address());
    let mut sidecar = Sidecar::start_with(&config, |command| command.stdout(stdout));
    sidecar.until("/ready", 200);
    let url = format!("http://{}/health?token=SECRET", sidecar.traffic());
    assert!(says(curl().args(["-H", "x-request-id: r-1", &url])).ends_with("200 1.1"));
    let text = until("the line is written", || fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n')));
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((line["path"].as_str(), line["status"].as_u64()), (Some("/health"), Some(200)));
    assert_eq!(line["request_id"], "r-1");
    assert!(!text.contains("SECRET") && !sidecar.log_text().contains("SECRET"));
    let page = sidecar.probe("/metrics").body;
    assert!(page.contains("probegate_access_log_lines_total{result=\"written\"} 1"), "{page}");
    sidecar.signal("TERM");
    assert!(sidecar.ended().success(), "{}", sidecar.log_text());
}
