//! More work than the server can do, against a server that holds every request: shed by default, out of rotation if
//! asked, never condemned.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};

use super::sidecar::{Sidecar, probegate_says};
use super::until::until;
use super::wire::{self, Line};

/// A server that reads and never answers.
fn holding() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut client = client;
                while client.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
            });
        }
    });
    address
}

fn sidecar(more: &str) -> Sidecar {
    let sidecar = Sidecar::start(&format!(
        "[upstream]\naddress = \"{}\"\nmetrics = false\n{more}[checks.load]\n\
         saturation = {{ in_flight = 3, for = \"500ms\" }}\n",
        holding()
    ));
    sidecar.until("/ready", 200);
    sidecar
}

/// Clients that wait.
fn rush(sidecar: &Sidecar) -> Vec<Line> {
    let ask = |_| {
        let mut line = Line::open(sidecar.traffic()).expect("it listens");
        line.send("POST /predict HTTP/1.1\r\nHost: model\r\nContent-Length: 1\r\n\r\nx").expect("it reads");
        line
    };
    (0..3).map(ask).collect()
}

#[test]
fn a_saturated_server_is_spared_new_requests_and_stays_in_rotation() {
    let sidecar = sidecar("");
    let waiting = rush(&sidecar);
    until("it is saturated", || (sidecar.check("load")["state"] == "down").then_some(()));
    let refused = wire::post(sidecar.traffic(), "/predict", "y");
    assert_eq!((refused.status, refused.header("x-probegate-reason")), (503, Some("saturated")), "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let report = sidecar.report();
    assert_eq!(report["model"]["state"], "saturated", "{report}");
    let why = sidecar.check("load")["reason"].as_str().map(str::to_owned).unwrap_or_default();
    assert_eq!(why, "saturated: 3 in flight of 3 for 0.5s", "{report}");
    for path in ["/ready", "/health"] {
        assert_eq!(sidecar.probe(path).status, 200, "{path}");
    }
    let page = sidecar.probe("/metrics").body;
    assert!(page.lines().any(|line| line == "probegate_shed_total{reason=\"saturated\"} 1"), "{page}");

    drop(waiting);
    until("it is well again", || (sidecar.check("load")["state"] == "up").then_some(()));
    let mut after = Line::open(sidecar.traffic()).expect("it listens");
    after.send("POST /predict HTTP/1.1\r\nHost: model\r\nContent-Length: 1\r\n\r\nx").expect("it reads");
    until("a request passes", || sidecar.probe("/metrics").body.contains("probegate_in_flight 1\n").then_some(()));
}

#[test]
fn where_readiness_requires_it_a_saturated_server_leaves_rotation_and_comes_back() {
    let sidecar = sidecar("[ready]\nrequire = [\"upstream\", \"load\"]\n");
    let waiting = rush(&sidecar);
    sidecar.until("/ready", 503);
    let why = sidecar.probe("/ready?verbose").body;
    assert!(why.contains("[-]load failed: saturated: 3 in flight of 3 for 0.5s"), "{why}");
    assert_eq!(sidecar.probe("/health").status, 200);
    drop(waiting);
    sidecar.until("/ready", 200);
}

#[test]
fn a_file_that_lets_saturation_decide_liveness_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("probegate.toml");
    let text = "[upstream]\naddress = \"127.0.0.1:8000\"\n[health]\nrequire = [\"load\"]\n\
                [checks.load]\nsaturation = { in_flight = 3 }\n";
    std::fs::write(&file, text).expect("a file");
    let said = probegate_says(&["lint", "-c", &file.display().to_string()]);
    let text = String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    assert!(!said.status.success() && text.contains("is a sign of load, and busy is not dead"), "{text}");
}
