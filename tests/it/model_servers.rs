//! Real model servers that other people wrote, fronted by the presets that are made for them.
//!
//! They live in a virtual environment below `target/`, which `scripts/setup test` makes.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::sidecar::{Sidecar, signal};
use super::until::until;
use super::wire::{self, Line};

/// One of them, as a process group. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // MLServer has children of its own.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn start(mut command: Command, address: SocketAddr) -> Self {
        use std::os::unix::process::CommandExt;
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the program runs");
        Self { child, address }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }
}

impl Server {
    /// The youngest child of the process that was started, once there is one.
    fn worker(&self) -> u32 {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        until("the server has a worker", || {
            fs::read_to_string(&path).ok()?.split_whitespace().next_back()?.parse().ok()
        })
    }
}

pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model-servers")
}

/// A program of the virtual environment.
pub(crate) fn program(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/model-servers/bin").join(name);
    assert!(path.exists(), "{} is missing: run `scripts/setup test`, which installs it", path.display());
    Command::new(path)
}

pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

#[test]
fn fastapi_under_uvicorn_is_fronted_streamed_and_merged() {
    let address = free_address();
    // The sidecar is there first, as a native sidecar is.
    let sidecar = Sidecar::start(&format!("[upstream]\naddress = \"{address}\"\npreset = \"fastapi\"\n"));
    assert_eq!((sidecar.probe("/startup").status, sidecar.probe("/health").status), (503, 200));
    let mut uvicorn = program("uvicorn");
    uvicorn.args(["fastapi_app:app", "--host", "127.0.0.1", "--port", &address.port().to_string()]);
    uvicorn.current_dir(sources()).env("PYTHONDONTWRITEBYTECODE", "1");
    let server = Server::start(uvicorn, address);
    sidecar.until("/ready", 200);

    let json = "Content-Type: application/json\r\n";
    let predicted = wire::ask(sidecar.traffic(), "POST", "/predict", json, "{\"x\": 4}").unwrap();
    assert_eq!((predicted.status, predicted.body.as_str()), (200, r#"{"label":"even"}"#));

    let mut stream = Line::open(sidecar.traffic()).unwrap();
    stream.send("POST /generate?tokens=5 HTTP/1.1\r\nHost: model\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(stream.head().unwrap().header("content-type"), Some("text/event-stream; charset=utf-8"));
    let mut tokens = Vec::new();
    loop {
        let chunk = stream.chunk().unwrap();
        if chunk.is_empty() {
            break;
        }
        tokens.push(String::from_utf8(chunk).unwrap());
    }
    assert_eq!(tokens.len(), 6, "each token came by itself: {tokens:?}");
    assert_eq!(tokens[5], "data: [DONE]\n\n");

    let page = sidecar.probe("/metrics").body;
    for line in ["app_predictions_total 1.0", "probegate_gate_status{gate=\"ready\"} 1.0"] {
        assert!(page.lines().any(|known| known == line), "{line} is missing:\n{page}");
    }
    assert!(page.contains("python_info{"), "{page}");

    let gone = server.address;
    drop(server);
    sidecar.until("/ready", 503);
    let why = sidecar.probe("/ready?verbose").body;
    assert!(why.contains(&format!("connection refused by {gone}")), "{why}");
}

/// Flask under gunicorn with one sync worker, behind a sidecar that condemns three seconds of silence.
fn flask() -> (Server, Sidecar) {
    flask_behind(
        "preset = \"generic\"\n[health]\nrequire = [\"alive\", \"progress\"]\n\
         [checks.progress]\nprogress = { stall_after = \"3s\" }\n",
    )
}

fn flask_behind(config: &str) -> (Server, Sidecar) {
    let address = free_address();
    let sidecar = Sidecar::start(&format!("[upstream]\naddress = \"{address}\"\n{config}"));
    let mut gunicorn = program("gunicorn");
    gunicorn.args(["--workers", "1", "--bind", &address.to_string(), "--no-control-socket", "flask_app:app"]);
    gunicorn.current_dir(sources().join("real/apps")).env("PYTHONDONTWRITEBYTECODE", "1");
    let server = Server::start(gunicorn, address);
    // The master listens before its worker is up: the port alone does not say that anybody serves.
    until("a worker answers", || wire::ask(address, "GET", "/health", "", "").ok().filter(|reply| reply.status == 200));
    sidecar.until("/ready", 200);
    (server, sidecar)
}

/// How often a gate has turned to fail.
fn failures(sidecar: &Sidecar, gate: &str) -> usize {
    let turned = |line: &serde_json::Value| line["subject"] == gate && line["to"] == "fail";
    sidecar.log_lines().into_iter().filter(turned).count()
}

/// What a probe of the kubelet's takes: a second for the whole answer.
fn probes(address: SocketAddr, path: &str) -> bool {
    let answer = || -> std::io::Result<u16> {
        let mut line = Line::open(address)?;
        line.patience(Duration::from_secs(1))?;
        line.send(&format!("GET {path} HTTP/1.1\r\nHost: kubelet\r\n\r\n"))?;
        Ok(line.reply(false)?.status)
    };
    answer().is_ok_and(|status| status == 200)
}

#[test]
fn a_saturated_gunicorn_worker_is_neither_dead_nor_out_of_rotation_and_a_kubelet_at_it_would_kill_it() {
    let (server, sidecar) =
        flask_behind("preset = \"flask\"\n[checks.progress]\nprogress = { stall_after = \"3s\" }\n");
    let traffic = sidecar.traffic();
    // Each waits behind twenty-three others, more than twice as long as a probe of the server itself would.
    let client = move || [0; 6].map(|_| wire::ask(traffic, "POST", "/predict?ms=100", "", "").unwrap().status);
    let clients: Vec<_> = (0..24).map(|_| std::thread::spawn(client)).collect();
    let (mut naive_row, mut naive_rows) = (0, 0);
    let mut looks = 0;
    while !clients.iter().all(std::thread::JoinHandle::is_finished) {
        naive_row = if probes(server.address, "/health") { 0 } else { naive_row + 1 };
        naive_rows += usize::from(naive_row == 3);
        for path in ["/health", "/ready", "/self"] {
            assert_eq!(sidecar.probe(path).status, 200, "{path}: {}", sidecar.report());
        }
        looks += 1;
    }
    for client in clients {
        assert_eq!(client.join().unwrap(), [200; 6]);
    }
    assert!(0 < naive_rows, "three probes of the server itself in a row would have failed, of {looks}");
    assert_eq!((failures(&sidecar, "health"), failures(&sidecar, "ready")), (0, 0), "{}", sidecar.log_text());
}

#[test]
fn a_stopped_gunicorn_worker_is_a_hang_and_a_killed_one_is_none() {
    let (server, sidecar) = flask();
    let traffic = sidecar.traffic();
    let predict = move || wire::ask(traffic, "POST", "/predict?ms=10", "", "").unwrap().status;
    assert_eq!(predict(), 200);

    let worker = server.worker();
    signal(worker, "STOP");
    // The master's socket takes the request; nobody reads it.
    let pending = std::thread::spawn(predict);
    sidecar.until("/health", 503);
    let why = sidecar.probe("/health?verbose").body;
    assert!(why.contains("stalled: no byte from the model server"), "{why}");
    assert_eq!(sidecar.probe("/ready").status, 200, "the port accepts, which is all that this preset asks");
    signal(worker, "CONT");
    assert_eq!(pending.join().unwrap(), 200);
    sidecar.until("/health", 200);

    signal(worker, "KILL");
    until("the master has replaced its worker", || (predict() == 200).then_some(()));
    assert_ne!(server.worker(), worker);
    assert_eq!(failures(&sidecar, "health"), 1, "{}", sidecar.log_text());
}

#[test]
fn mlserver_is_fronted_by_the_protocol_it_speaks() {
    let directory = tempfile::tempdir().unwrap();
    let (http, grpc, metrics) = (free_address(), free_address(), free_address());
    let settings = format!(
        r#"{{ "host": "127.0.0.1", "http_port": {}, "grpc_port": {}, "metrics_port": {}, "parallel_workers": 0 }}"#,
        http.port(),
        grpc.port(),
        metrics.port()
    );
    fs::write(directory.path().join("settings.json"), settings).unwrap();
    fs::create_dir(directory.path().join("doubler")).unwrap();
    for file in ["doubler.py", "model-settings.json"] {
        fs::copy(sources().join("mlserver/doubler").join(file), directory.path().join("doubler").join(file)).unwrap();
    }
    let sidecar = Sidecar::start(&format!(
        "[upstream]\naddress = \"{http}\"\npreset = \"oip-v2\"\nmodels = [\"doubler\"]\n\
         metrics = \"http://{metrics}/metrics\"\n"
    ));
    let mut mlserver = program("mlserver");
    mlserver.arg("start").arg(directory.path()).current_dir(directory.path().join("doubler"));
    let path = format!("{}:{}", program_directory(), std::env::var("PATH").unwrap_or_default());
    mlserver.env("PATH", path).env("PYTHONPATH", directory.path().join("doubler"));
    let _server = Server::start(mlserver, http);
    sidecar.until("/ready", 200);

    let body = r#"{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1.5,4]}]}"#;
    let json = "Content-Type: application/json\r\n";
    let inferred = wire::ask(sidecar.traffic(), "POST", "/v2/models/doubler/infer", json, body).unwrap();
    assert_eq!(inferred.status, 200, "{inferred:?}");
    assert_eq!(inferred.json()["outputs"][0]["data"], serde_json::json!([3.0, 8.0]));

    let page = sidecar.probe("/metrics").body;
    assert!(page.contains("model_infer_request_success") && page.contains("probegate_gate_status{"), "{page}");
}

fn program_directory() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/model-servers/bin");
    path.display().to_string()
}
