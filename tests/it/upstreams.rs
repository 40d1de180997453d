//! Several upstream addresses, judged by the requests that they get.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};
use std::thread;

use super::sidecar::Sidecar;
use super::until::until;
use super::wire::{self, Reply};

/// What a worker does with a request.
#[derive(Clone, Copy)]
enum Mood {
    Good,
    Fails,
    Busy,
    Sheds,
    Resets,
    /// Answers well, but only once the mood is another.
    Holds,
}

const MOODS: [Mood; 6] = [Mood::Good, Mood::Fails, Mood::Busy, Mood::Sheds, Mood::Resets, Mood::Holds];

/// One worker of a model server, in a thread of the test. It listens until the test ends.
struct Worker {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    mood: AtomicU8,
    requests: AtomicU64,
}

impl Worker {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State { mood: AtomicU8::new(0), requests: AtomicU64::new(0) });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || state.answer(stream));
            }
        });
        Self { address, state }
    }

    fn is(&self, mood: Mood) {
        self.state.mood.store(mood as u8, SeqCst);
    }

    /// Requests that it has got since last asked.
    fn got(&self) -> u64 {
        self.state.requests.swap(0, SeqCst)
    }
}

impl State {
    fn answer(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
        let Some(Ok(_request)) = lines.next() else { return };
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        self.requests.fetch_add(1, SeqCst);
        let mood = || MOODS[usize::from(self.mood.load(SeqCst))];
        let status = match mood() {
            Mood::Good => "200 OK",
            Mood::Fails => "500 Internal Server Error",
            Mood::Busy => "429 Too Many Requests",
            Mood::Sheds => "503 Service Unavailable\r\nretry-after: 1",
            Mood::Resets => return,
            Mood::Holds => {
                until("another mood", || (!matches!(mood(), Mood::Holds)).then_some(()));
                "200 OK"
            }
        };
        let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    }
}

fn sidecar(workers: &[&Worker], passive: &str) -> Sidecar {
    let addresses: Vec<String> = workers.iter().map(|worker| format!("\"{}\"", worker.address)).collect();
    let addresses = addresses.join(", ");
    // The trailing tables of the file are the test's.
    let sidecar = Sidecar::start(&format!("[upstream]\naddresses = [{addresses}]\n[upstream.passive]\n{passive}\n"));
    sidecar.until("/ready", 200);
    until("all are in rotation", || workers.iter().all(|worker| state(&sidecar, worker) == "up").then_some(()));
    sidecar
}

fn upstream(sidecar: &Sidecar, worker: &Worker) -> serde_json::Value {
    let report = sidecar.report();
    let all = report["upstreams"].as_array().expect("upstreams").clone();
    all.into_iter().find(|one| one["address"] == worker.address.to_string()).expect("the address")
}

fn state(sidecar: &Sidecar, worker: &Worker) -> String {
    upstream(sidecar, worker)["state"].as_str().expect("a word").to_owned()
}

/// Sends requests, one after the other, until the worker's state is this.
fn until_state(sidecar: &Sidecar, worker: &Worker, word: &str) {
    until(&format!("{} is {word}: {}", worker.address, upstream(sidecar, worker)), || {
        let _ = ask(sidecar);
        (state(sidecar, worker) == word).then_some(())
    });
}

fn ask(sidecar: &Sidecar) -> Reply {
    wire::get(sidecar.traffic(), "/predict")
}

fn metric(sidecar: &Sidecar, name: &str) -> Option<String> {
    let page = sidecar.probe("/metrics").body;
    page.lines().find(|line| line.starts_with(name)).map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
}

#[test]
fn a_failing_worker_is_ejected_tried_by_a_single_request_and_comes_back() {
    let (sick, well) = (Worker::start(), Worker::start());
    let sidecar = sidecar(&[&sick, &well], "base_ejection = \"1s\"\nprobation = \"1m\"");
    for mood in [Mood::Fails, Mood::Resets] {
        sick.is(mood);
        until_state(&sidecar, &sick, "ejected");
        let told = upstream(&sidecar, &sick);
        assert!(told["reason"].as_str().is_some_and(|reason| reason.contains("failed in a row")), "{told}");
        assert!(told["next"]["at"].is_string(), "{told}");
        let up = format!("probegate_upstream_up{{address=\"{}\"}}", sick.address);
        assert_eq!(metric(&sidecar, &up).as_deref(), Some("0"));
        assert_eq!(sidecar.probe("/ready").status, 200, "the other one serves");

        sick.is(Mood::Holds);
        until("probation", || (state(&sidecar, &sick) == "probation").then_some(()));
        let traffic = sidecar.traffic();
        sick.got();
        // One of them is the trial, and is kept; all others must go elsewhere.
        let clients: Vec<_> = (0..8).map(|_| thread::spawn(move || wire::get(traffic, "/predict").status)).collect();
        until("the trial has begun", || (sick.state.requests.load(SeqCst) > 0).then_some(()));
        for _ in 0..20 {
            assert_eq!(ask(&sidecar).status, 200);
        }
        assert_eq!(sick.got(), 1, "one request at a time");
        assert_eq!(state(&sidecar, &sick), "probation");
        sick.is(Mood::Good);
        for client in clients {
            assert_eq!(client.join().expect("a client"), 200);
        }
        until("trusted again", || (state(&sidecar, &sick) == "up").then_some(()));
        until_state(&sidecar, &sick, "up");
        assert_eq!(metric(&sidecar, &up).as_deref(), Some("1"));
    }
    let ejections = format!("probegate_upstream_ejections_total{{address=\"{}\"", sick.address);
    assert_eq!(metric(&sidecar, &format!("{ejections},reason=\"consecutive_failures\"}}")).as_deref(), Some("2"));
    assert!(sidecar.log_text().contains("requests failed in a row"), "{}", sidecar.log_text());
}

#[test]
fn a_trial_that_fails_sends_it_away_again() {
    let (sick, well) = (Worker::start(), Worker::start());
    let sidecar = sidecar(&[&sick, &well], "base_ejection = \"500ms\"\nprobation = \"1m\"");
    sick.is(Mood::Fails);
    let ejections = format!("probegate_upstream_ejections_total{{address=\"{}\",reason=\"probation\"}}", sick.address);
    until("a trial has failed", || {
        let _ = ask(&sidecar);
        (metric(&sidecar, &ejections).as_deref() == Some("1")).then_some(())
    });
    assert_eq!(state(&sidecar, &sick), "ejected");
    assert_eq!(upstream(&sidecar, &sick)["ejections"], 2);
}

#[test]
fn a_busy_worker_is_never_ejected() {
    let (busy, well) = (Worker::start(), Worker::start());
    let sidecar = sidecar(&[&busy, &well], "base_ejection = \"1m\"");
    for mood in [Mood::Busy, Mood::Sheds] {
        busy.is(mood);
        busy.got();
        until("it had fifty requests", || {
            let _ = ask(&sidecar);
            (busy.state.requests.load(SeqCst) >= 50).then_some(())
        });
        assert_eq!(state(&sidecar, &busy), "up");
    }
    // A sample has passed since: the ejection of a failing one shows it.
    well.is(Mood::Fails);
    until_state(&sidecar, &well, "ejected");
    assert_eq!(upstream(&sidecar, &busy)["ejections"], 0);
}

#[test]
fn when_all_fail_one_stays_and_readiness_is_not_touched() {
    let (one, other) = (Worker::start(), Worker::start());
    let sidecar = sidecar(&[&one, &other], "base_ejection = \"1m\"");
    one.is(Mood::Fails);
    other.is(Mood::Fails);
    let kept = until("one is out and the other is spared", || {
        let _ = ask(&sidecar);
        let [a, b] = [&one, &other].map(|worker| upstream(&sidecar, worker));
        let spared = |view: &serde_json::Value| {
            view["state"] == "up" && view["reason"].as_str().is_some_and(|reason| reason.contains("not ejected"))
        };
        match (a["state"] == "ejected", b["state"] == "ejected") {
            (true, false) if spared(&b) => Some(&other),
            (false, true) if spared(&a) => Some(&one),
            _ => None,
        }
    });
    assert_eq!(ask(&sidecar).status, 500, "the model server's own answer");
    assert_eq!(sidecar.probe("/ready").status, 200);
    assert_eq!(state(&sidecar, kept), "up");
}

#[test]
fn a_worker_that_hangs_is_named_and_taken_out_while_the_others_serve() {
    let (sick, well) = (Worker::start(), Worker::start());
    let sidecar = sidecar(
        &[&sick, &well],
        "base_ejection = \"1s\"\nprobation = \"1m\"\n\
         [checks.progress]\nprogress = { stall_after = \"1s\" }",
    );
    sick.is(Mood::Holds);
    let mut clients = Vec::new();
    until("it is ejected", || {
        let mut client = wire::Line::open(sidecar.traffic()).ok()?;
        client.send("GET /predict HTTP/1.1\r\nHost: model\r\n\r\n").ok()?;
        clients.push(client);
        (state(&sidecar, &sick) == "ejected").then_some(())
    });
    let told = upstream(&sidecar, &sick);
    assert!(told["reason"].as_str().is_some_and(|reason| reason.starts_with("no byte for 1s with ")), "{told}");
    let name = format!("probegate_upstream_ejections_total{{address=\"{}\",reason=\"silence\"}}", sick.address);
    let ejections: u64 = metric(&sidecar, &name).and_then(|count| count.parse().ok()).expect("a count");
    assert!(ejections >= 1, "and again on each probation: {ejections}");
    assert_eq!(ask(&sidecar).status, 200);
    assert_eq!(sidecar.probe("/ready").status, 200, "{}", sidecar.report());

    sick.is(Mood::Good);
    until_state(&sidecar, &sick, "up");
}
