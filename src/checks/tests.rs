//! What all collectors share: the deadline, the reload, the sockets. Also how other tests run one check.

use std::path::PathBuf;

use super::*;
use crate::config::{
    AdminAddress, Algorithm, Details, Listen, Log, LogFormat, MetricsPage, ShowDetails, TcpCheck, Traffic, Upstream,
    UpstreamProtocol,
};
use crate::engine::{Fault, Plan, Sign, Verdict};
use crate::net::peer::{self, Then, raw};

/// Silence has to last this long in earnest, for real sockets do not know of paused time; and a busy machine
/// has to answer within it.
const DEADLINE: Duration = Duration::from_secs(3);

/// Runs one attempt of one check.
pub(super) async fn run(kind: Kind) -> Outcome {
    run_on(&collectors(vec![kind]), 0).await
}

/// Runs one attempt of a check among others.
pub(super) async fn run_on(collectors: &Collectors, check: u32) -> Outcome {
    collectors.attempt(CheckId(check), DEADLINE).await
}

/// Collectors of checks named `0`, `1`, ...
pub(super) fn collectors(kinds: Vec<Kind>) -> Arc<Collectors> {
    Collectors::new(&config(kinds), Clock::start(), None)
}

fn config(kinds: Vec<Kind>) -> Config {
    let any = "127.0.0.1:0".parse().unwrap();
    let checks: Vec<_> =
        kinds.into_iter().enumerate().map(|(at, kind)| CheckSpec { name: at.to_string(), kind }).collect();
    let plans = checks.iter().map(|check| CheckPlan::new(check.name.clone(), "test")).collect();
    Config {
        source: PathBuf::new(),
        upstream: Upstream {
            backends: Vec::new(),
            algorithm: Algorithm::RoundRobin,
            protocol: UpstreamProtocol::Auto,
            preset: None,
            models: Vec::new(),
            metrics: Some(MetricsPage { uri: "http://127.0.0.1:1/metrics".parse().unwrap() }),
        },
        listen: Listen {
            traffic: any,
            probes: any,
            admin: AdminAddress::Tcp(any),
            admin_token: None,
            expose_probes: false,
        },
        details: Details { show: ShowDetails::Loopback },
        traffic: Traffic {
            workers: None,
            max_in_flight: None,
            first_byte_timeout: None,
            connect_timeout: DEADLINE,
            upstream_idle: DEADLINE,
            client_idle: DEADLINE,
            max_connections: 1,
            forwarded_headers: false,
            queue: None,
            hold: None,
            priority_header: None,
            routes: Vec::new(),
        },
        tls: None,
        log: Log { format: LogFormat::Auto, level: String::new(), access: None },
        engine: Arc::new(Plan { checks: plans, ..Plan::default() }),
        checks,
        report_file: None,
        ring_file: None,
        trace_file: None,
        notify_socket: None,
    }
}

fn tcp(address: &str) -> Kind {
    Kind::Tcp(TcpCheck { address: address.to_owned() })
}

#[tokio::test]
async fn a_port_that_listens_passes_and_is_left_at_once() {
    let mut peer = raw("", Then::Hold).await;
    let outcome = run(tcp(&peer.address)).await;
    assert_eq!((outcome.verdict, outcome.sign), (Verdict::Pass, Some(Sign::Answered)));
    peer.left().await;
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_refused_and_says_whose_it_is() {
    let address = format!("127.0.0.1:{}", peer::closed_port().await);
    let outcome = run(tcp(&address)).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Refused));
    assert_eq!(outcome.reason, format!("connection refused by {address}"));
    assert_eq!(outcome.sign, Some(Sign::Refused));
}

#[tokio::test]
async fn a_backlog_that_is_full_is_a_timeout_that_says_what_it_waited_for() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Two fill a backlog of one; from the third on, SYNs are dropped.
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(DEADLINE, tokio::net::TcpStream::connect(&address)).await {
        held.push(stream);
        assert!(held.len() < 16, "the backlog is bounded");
    }
    let outcome = run(tcp(&address)).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Timeout));
    assert_eq!(outcome.reason, format!("timeout after 3s, waiting for a connection to {address}"));
}

#[tokio::test]
async fn a_cancelled_attempt_closes_its_socket() {
    let mut peer = raw("", Then::Hold).await;
    let uri = format!("http://{}/metrics", peer.address).parse().unwrap();
    let mut config = config(Vec::new());
    config.upstream.metrics = Some(MetricsPage { uri });
    let collectors = Collectors::new(&config, Clock::start(), None);
    let scraper = collectors.upstream_scraper().expect("the upstream has a page");
    let attempt = tokio::spawn(async move { scraper.page(Duration::ZERO, Duration::from_secs(60)).await });
    while peer.accepted.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    attempt.abort();
    peer.left().await;
}

#[tokio::test]
async fn a_reload_keeps_board_scrapers_and_the_memory_of_checks_that_stay_the_same() {
    let clock = Clock::start();
    let before = Collectors::new(&config(vec![tcp("a:1"), tcp("b:1")]), clock, None);
    for collector in &before.collectors {
        collector.memory.lock().unwrap().counter = Some((clock.now(), 7.0));
    }
    let after = Collectors::new(&config(vec![tcp("a:1"), tcp("b:2")]), clock, Some(&before));
    let remembers = |check: usize| after.collectors[check].memory.lock().unwrap().counter.is_some();
    assert!(remembers(0) && !remembers(1));
    assert!(Arc::ptr_eq(before.board(), after.board()));
    assert!(Arc::ptr_eq(&before.upstream_scraper().unwrap(), &after.upstream_scraper().unwrap()));
}

#[tokio::test]
async fn a_check_that_does_not_exist_is_no_evidence() {
    let outcome = run_on(&collectors(Vec::new()), 3).await;
    assert_eq!(outcome.verdict, Verdict::Unknown);
}
