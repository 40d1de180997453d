//! The binary with a preset in front of a stand-in, through its proxy, in real time: what the presets' lives in virtual
//! time take for granted.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::presets;
use super::sidecar::Sidecar;
use super::stand_in::StandIn;
use super::until::until;
use super::wire::{self, Line, Reply};

/// A stand-in on a thread of its own. Ends with its last word.
struct Guarded {
    states: Option<mpsc::UnboundedSender<&'static str>>,
    addresses: [SocketAddr; 2],
    thread: Option<JoinHandle<()>>,
}

impl Guarded {
    fn start(name: &str) -> Self {
        let (states, mut heard) = mpsc::unbounded_channel();
        let (tell, told) = std::sync::mpsc::channel();
        let script = presets::script(name);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut server = StandIn::new(script);
                tell.send(server.addresses).expect("the test waits");
                while let Some(state) = heard.recv().await {
                    server.become_state(state);
                    server.settle().await;
                }
            });
        });
        let addresses = told.recv().expect("the server is up");
        let guarded = Self { states: Some(states), addresses, thread: Some(thread) };
        guarded.becomes("ready");
        guarded
    }

    fn becomes(&self, state: &'static str) {
        self.states.as_ref().expect("it lives").send(state).expect("it listens");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.states = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn infer(sidecar: &Sidecar) -> Reply {
    wire::post(sidecar.traffic(), "/v2/models/tiny/infer", r#"{"inputs":[]}"#)
}

#[test]
fn a_triton_whose_stub_is_stopped_leaves_rotation_and_comes_back_by_a_trial() {
    let triton = Guarded::start("triton");
    let [main, side] = triton.addresses;
    let sidecar = Sidecar::start(&format!(
        "[upstream]\naddress = \"{main}\"\npreset = \"tritonserver\"\nmodels = [\"tiny\"]\nmetrics = \"http://{side}/metrics\"\n"
    ));
    sidecar.until("/ready", 200);
    let good = 500;
    for _ in 0..good {
        assert_eq!(infer(&sidecar).status, 200);
    }

    triton.becomes("stub-stopped");
    let failed = until("an inference fails", || Some(infer(&sidecar)).filter(|reply| reply.status == 500));
    assert!(failed.body.contains("is not healthy"), "{failed:?}");
    let mut bad = 1;
    until("it leaves rotation", || {
        bad += u32::from(infer(&sidecar).status == 500);
        (sidecar.probe("/ready").status == 503).then_some(())
    });
    assert!(bad < good, "the good answers before were not waited for");
    let check = sidecar.check("outcomes");
    assert_eq!(check["state"], "down", "{}", sidecar.report());
    assert!(check["last"]["reason"].as_str().is_some_and(|why| why.contains("all failed")), "{check}");
    assert_eq!(wire::get(main, "/v2/models/tiny/ready").status, 200, "its own word");
    assert_eq!(sidecar.probe("/health").status, 200);

    triton.becomes("ready");
    until("a trial brings it back", || (infer(&sidecar).status == 200).then_some(()));
    sidecar.until("/ready", 200);
}

/// vLLM, its sidecar, and a client whose request its engine has hung with.
fn hung_vllm() -> (Guarded, Sidecar, Line) {
    let vllm = Guarded::start("vllm");
    let main = vllm.addresses[0];
    let sidecar = Sidecar::start(&format!(
        "[upstream]\naddress = \"{main}\"\npreset = \"vllm\"\nmodels = [\"tiny\"]\n\
         [checks.progress]\nprogress = {{ stall_after = \"2s\", counter = \"vllm:iteration_tokens_total_count\" }}\n"
    ));
    sidecar.until("/ready", 200);
    // The page has to have been read while the server was well.
    until("the counter is read", || sidecar.check("progress")["last"].is_object().then_some(()));

    vllm.becomes("hung");
    let mut client = Line::open(sidecar.traffic()).unwrap();
    client.send("POST /v1/completions HTTP/1.1\r\nHost: model\r\nContent-Length: 2\r\n\r\n{}").unwrap();
    (vllm, sidecar, client)
}

#[test]
fn a_vllm_whose_engine_hangs_behind_a_good_health_is_condemned_by_its_frozen_counter() {
    let (vllm, sidecar, _client) = hung_vllm();
    sidecar.until("/health", 503);
    assert_eq!(wire::get(vllm.addresses[0], "/health").status, 200, "its own word");
    let why = sidecar.probe("/health?verbose").body;
    assert!(why.contains("vllm:iteration_tokens_total_count frozen at 0"), "{why}");
}

#[test]
fn a_vllm_whose_engine_hangs_is_condemned_though_its_front_goes_on_answering_questions_through_the_proxy() {
    let (_vllm, sidecar, _client) = hung_vllm();
    let mut answered = 0;
    until("the hang behind the answers is found", || {
        answered += u32::from(wire::get(sidecar.traffic(), "/v1/models").status == 200);
        (sidecar.probe("/health").status == 503).then_some(())
    });
    let why = sidecar.probe("/health?verbose").body;
    assert!(why.contains("but for questions and refusals that its front answers by itself"), "{why}");
    assert!(answered > 2, "its front answered all the while: {answered}");
    assert_eq!(sidecar.probe("/ready").status, 503, "what condemns it takes it out of rotation too");
}

/// A server that fails what is said to be poison, and answers all else.
fn picky() -> SocketAddr {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in server.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            // A request of a test is one segment.
            let read = client.read(&mut request).unwrap_or(0);
            let fails = String::from_utf8_lossy(&request[..read]).contains("poison");
            let status = if fails { "500 Internal Server Error" } else { "200 OK" };
            let _ = client
                .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
        }
    });
    address
}

fn judged_by_outcomes(server: SocketAddr) -> Sidecar {
    let sidecar = Sidecar::start(&format!(
        "[upstream]\naddress = \"{server}\"\nmetrics = false\n[ready]\nrequire = [\"upstream\", \"outcomes\"]\n\
         [checks.outcomes]\noutcomes = {{ consecutive_failures = 3 }}\n"
    ));
    sidecar.until("/ready", 200);
    sidecar
}

/// One request of this caller.
fn predict(sidecar: &Sidecar, caller: &str, body: &str) -> u16 {
    let headers = format!("X-Forwarded-For: {caller}\r\n");
    wire::ask(sidecar.traffic(), "POST", "/predict", &headers, body).unwrap().status
}

#[test]
fn one_input_of_the_only_caller_that_never_ends_well_is_no_verdict_and_a_second_one_is() {
    let sidecar = judged_by_outcomes(picky());
    for _ in 0..30 {
        assert_eq!(predict(&sidecar, "192.0.2.1", "poison"), 500);
    }
    let why = until("it says why it withholds the verdict", || {
        let last = sidecar.check("outcomes")["last"]["reason"].as_str()?.to_owned();
        last.contains("all 30 are of one input of one caller, which has never ended well").then_some(last)
    });
    assert_eq!(sidecar.probe("/ready").status, 200, "{why}");
    for other in ["poison too", "much more poison", "poison of a third kind"] {
        assert_eq!(predict(&sidecar, "192.0.2.1", other), 500);
    }
    sidecar.until("/ready", 503);
    assert_eq!(sidecar.check("outcomes")["state"], "down", "{}", sidecar.report());
}

#[test]
fn all_that_one_caller_sends_may_fail_while_another_is_well_and_not_once_that_one_fails_too() {
    let sidecar = judged_by_outcomes(picky());
    for _ in 0..12 {
        assert_eq!(predict(&sidecar, "192.0.2.2", "well"), 200);
    }
    let mut failed = 0;
    let why = until("it says why it withholds the verdict", || {
        assert_eq!(predict(&sidecar, "192.0.2.1", "poison"), 500);
        assert_eq!(predict(&sidecar, "192.0.2.1", "poison too"), 500);
        failed += 2;
        let last = sidecar.check("outcomes")["last"]["reason"].as_str()?.to_owned();
        // Looked at every 10 ms: by then it has been a row for longer than a row must be.
        (600 <= failed && last.contains("one caller's")).then_some(last)
    });
    assert_eq!(sidecar.probe("/ready").status, 200, "{why}");
    for _ in 0..3 {
        assert_eq!(predict(&sidecar, "192.0.2.2", "poison"), 500);
    }
    sidecar.until("/ready", 503);
}
