//! How long does a kubelet wait for an answer, at rest and while `/metrics` is scraped without pause?
//!
//! Expected on two ordinary cores: a kept connection's p50 below 50 µs and a fresh one's below 200 µs, and a
//! p99.9 below 10 ms in every row, which is a hundredth of the kubelet's default timeout.
//!
//! 100 000 requests a row (`PROBEGATE_BENCH_REQUESTS` changes it), one after the other as a kubelet sends
//! them, over loopback, against the real listener on its own thread. Latency is from before the connect (or
//! the write) to the last byte of the answer. Own measuring instead of criterion's, because the tail is the point.
//! The last two rows ask the whole binary, whose every check times out meanwhile. Without `--bench`, as
//! `cargo test --all-targets` starts it, a row has 100 requests, to show that it still works.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use probegate::answers::{MetricsService, ProbeAnswers, SelfCheck, serve_probes};
use probegate::clock::Clock;
use probegate::config::ShowDetails;
use probegate::engine::{
    CheckId, CheckPlan, CheckState, CheckView, DrainPhase, DrainView, Gate, GateMember, GateView, InstancePhase,
    InstanceView, Member, ModelState, ModelView, Plan, Scope, Snapshot, Status, Time,
};
use probegate::publish::Published;
use probegate::telemetry::{CheckLabels, CheckResultLabels, CheckTypeLabels, Telemetry};
use socket2::{Domain, Socket, Type};

const REQUESTS: usize = 100_000;
/// Enough for a page of some hundred kilobytes.
const CHECKS: u32 = 1_000;
const PROBE: &[u8] = b"GET /ready HTTP/1.1\r\nHost: 10.0.0.7:9090\r\nUser-Agent: kube-probe/1.34\r\n\
    Accept: */*\r\nConnection: close\r\n\r\n";
const KEPT: &[u8] = b"GET /ready HTTP/1.1\r\nHost: 10.0.0.7:9090\r\nUser-Agent: kube-probe/1.34\r\nAccept: */*\r\n\r\n";
const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: 10.0.0.7:9090\r\nConnection: close\r\n\r\n";

struct Well;

impl SelfCheck for Well {
    fn verdict(&self) -> Result<(), String> {
        Ok(())
    }
}

fn main() {
    let default = if std::env::args().any(|argument| argument == "--bench") { REQUESTS } else { 100 };
    let requests = std::env::var("PROBEGATE_BENCH_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let clock = Clock::start();
    let addr = serve(clock);
    println!("{requests} probes a row, {CHECKS} checks\n");
    println!("{:<34} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p99", "p99.9", "max");
    row("fresh connection", &mut fresh(addr, clock, requests));
    row("kept connection", &mut kept(addr, clock, requests));
    let scraper = Scraper::start(addr);
    row("fresh, /metrics without pause", &mut fresh(addr, clock, requests));
    row("kept, /metrics without pause", &mut kept(addr, clock, requests));
    let (scrapes, bytes) = scraper.stop();
    println!("\n{scrapes} scrapes meanwhile, {} kB each\n", bytes / scrapes.max(1) / 1000);

    let sidecar = Sidecar::start();
    let scraper = Scraper::start(sidecar.addr);
    row("fresh, scraped, all checks hang", &mut fresh(sidecar.addr, clock, requests));
    row("kept, scraped, all checks hang", &mut kept(sidecar.addr, clock, requests));
    let (scrapes, bytes) = scraper.stop();
    println!("\n{scrapes} scrapes meanwhile, {} kB each", bytes / scrapes.max(1) / 1000);
}

/// The binary, with checks that ask somebody who never answers.
struct Sidecar {
    addr: SocketAddr,
    child: Child,
    _silent: TcpListener,
    _folder: tempfile::TempDir,
}

const HANGING_CHECKS: usize = 20;

impl Sidecar {
    fn start() -> Self {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let nobody = silent.local_addr().expect("a bound address");
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let mut file = format!(
            "[upstream]\naddress = \"{nobody}\"\nmetrics = false\n\
             [startup]\nrequire = []\n[ready]\nrequire = []\n[health]\nrequire = []\n\
             [listen]\ntraffic = \"127.0.0.1:0\"\nprobes = \"{addr}\"\nadmin = \"127.0.0.1:0\"\n"
        );
        for at in 0..HANGING_CHECKS {
            file += &format!("[checks.c{at}]\nhttp = \"http://{nobody}/\"\ninterval = \"1s\"\ntimeout = \"500ms\"\n");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("probegate.toml");
        std::fs::write(&path, file).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_probegate"))
            .args(["run", "-c"])
            .arg(&path)
            // To the sidecar it would be a setting that does not exist.
            .env_remove("PROBEGATE_BENCH_REQUESTS")
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary");
        let sidecar = Self { addr, child, _silent: silent, _folder: folder };
        for _ in 0..600 {
            if sidecar.has_timeouts() {
                return sidecar;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        panic!("no check of the sidecar timed out within 30 s");
    }

    fn has_timeouts(&self) -> bool {
        let mut page = String::new();
        let scraped = TcpStream::connect(self.addr).and_then(|mut stream| {
            stream.write_all(SCRAPE)?;
            stream.read_to_string(&mut page)
        });
        scraped.is_ok() && page.contains("check=\"c0\",result=\"timeout\"} 2\n")
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The probe listener on a thread of its own and the metrics service on another, as in the pod.
fn serve(clock: Clock) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a bound address");
    let telemetry = Arc::new(telemetry());
    let (metrics, service) = MetricsService::new(Arc::clone(&telemetry), clock);
    let published = Published::new(snapshot());
    let answers = ProbeAnswers::new(published, clock, ShowDetails::Loopback, Arc::new(Well), &telemetry, metrics);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    std::thread::spawn(move || runtime().block_on(service.run(std::future::pending())));
    std::thread::spawn(move || runtime().block_on(serve_probes(listener, answers, std::future::pending())));
    addr
}

/// A new connection for each probe, closed by the server, as a kubelet asks for.
fn fresh(addr: SocketAddr, clock: Clock, requests: usize) -> Vec<Duration> {
    let mut answer = Vec::with_capacity(1024);
    (0..requests)
        .map(|at| {
            answer.clear();
            let started = clock.now();
            let mut stream = connect(addr, at);
            stream.write_all(PROBE).expect("a probe sent");
            stream.read_to_end(&mut answer).expect("an answer");
            let took = clock.now().since(started);
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
            took
        })
        .collect()
}

/// One connection for all of them.
fn kept(addr: SocketAddr, clock: Clock, requests: usize) -> Vec<Duration> {
    let mut stream = TcpStream::connect(addr).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let mut answer = [0; 1024];
    (0..requests)
        .map(|_| {
            let started = clock.now();
            stream.write_all(KEPT).expect("a probe sent");
            let count = stream.read(&mut answer).expect("an answer");
            let took = clock.now().since(started);
            // One write makes the whole answer; on loopback one read takes it.
            assert!(
                answer[..count].ends_with(br#"{"status":"pass"}"#),
                "{}",
                String::from_utf8_lossy(&answer[..count])
            );
            took
        })
        .collect()
}

/// From changing loopback addresses: a closed connection's port is not free again for a minute.
fn connect(addr: SocketAddr, at: usize) -> TcpStream {
    let source = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(at % 32).unwrap_or_default());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("a source address");
    socket.connect(&addr.into()).expect("a connection");
    socket.into()
}

/// Somebody who scrapes without pause.
struct Scraper {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<u64>,
}

impl Scraper {
    fn start(addr: SocketAddr) -> Self {
        let (stop, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, total) = (Arc::clone(&stop), Arc::clone(&bytes));
        let thread = std::thread::spawn(move || {
            let mut scrapes = 0;
            let mut page = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                page.clear();
                let mut stream = connect(addr, usize::try_from(scrapes).unwrap_or_default());
                stream.write_all(SCRAPE).expect("a scrape sent");
                stream.read_to_end(&mut page).expect("a page");
                assert!(page.starts_with(b"HTTP/1.1 200 OK\r\n"), "every scrape succeeds");
                total.fetch_add(u64::try_from(page.len()).unwrap_or_default(), Ordering::Relaxed);
                scrapes += 1;
            }
            scrapes
        });
        Self { stop, bytes, thread }
    }

    fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let scrapes = self.thread.join().expect("every scrape succeeded");
        (scrapes, self.bytes.load(Ordering::Relaxed))
    }
}

fn row(name: &str, latencies: &mut [Duration]) {
    latencies.sort_unstable();
    let at = |permyriad: usize| micros(latencies[(latencies.len() * permyriad / 10_000).min(latencies.len() - 1)]);
    println!("{name:<34} {:>9} {:>9} {:>9} {:>9}", at(5_000), at(9_900), at(9_990), at(10_000));
}

fn micros(duration: Duration) -> String {
    format!("{:.0} µs", duration.as_secs_f64() * 1e6)
}

fn telemetry() -> Telemetry {
    let telemetry = Telemetry::new();
    for at in 0..CHECKS {
        let check = format!("check-{at}");
        telemetry.check_up.get_or_create_owned(&CheckTypeLabels { check: check.clone(), r#type: "http" }).set(1);
        for result in ["pass", "fail"] {
            telemetry.check_results.get_or_create_owned(&CheckResultLabels { check: check.clone(), result }).inc();
        }
        telemetry.check_duration.get_or_create_owned(&CheckLabels { check }).observe(0.002);
    }
    telemetry
}

fn snapshot() -> Snapshot {
    let names: Vec<String> = (0..CHECKS).map(|at| format!("check-{at}")).collect();
    let mut plan = Plan { checks: names.iter().map(|name| CheckPlan::new(name, "http")).collect(), ..Plan::default() };
    plan.ready.require = (0..CHECKS).map(|at| Member::Check(CheckId(at))).collect();
    let members: Vec<_> = (0..CHECKS).map(|at| GateMember { check: CheckId(at), required: true }).collect();
    let gate = |gate| GateView {
        gate,
        status: Status::Pass,
        since: Time::ZERO,
        why: Vec::new(),
        next: None,
        members: members.clone(),
    };
    Snapshot {
        shedding: false,
        revision: 1,
        at: Time::ZERO,
        startup: gate(Gate::Startup),
        ready: gate(Gate::Ready),
        health: gate(Gate::Health),
        plan: Arc::new(plan),
        checks: names.into_iter().map(|name| Arc::new(check(name))).collect(),
        groups: [].into(),
        backends: [].into(),
        instance: InstanceView { number: 1, phase: InstancePhase::Started, since: Time::ZERO, budget_until: None },
        model: ModelView { state: ModelState::Ready, since: Time::ZERO, reason: String::new(), busy_until: None },
        drain: DrainView { phase: DrainPhase::Serving, since: Time::ZERO, until: None, in_flight: 0, cut_off: false },
        disabled_since: None,
        trial: false,
        doubt: None,
        history: [].into(),
    }
}

fn check(name: String) -> CheckView {
    CheckView {
        name,
        kind: "http",
        target: String::new(),
        state: CheckState::Up,
        since: Time::ZERO,
        last: None,
        passes: 1,
        failures: 0,
        failing_since: None,
        last_success: None,
        next_attempt: None,
        in_flight_since: None,
        forced: None,
        reason: String::new(),
        attempts: 1,
        scope: Scope::Pod,
        runbook: None,
        accuracy: None,
    }
}
