//! The probe listener over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::tokio_stream::StreamExt;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::answers::metrics::MetricsService;
use crate::answers::sample;
use crate::engine::Snapshot;

/// Nothing here takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Sidecar {
    addr: SocketAddr,
    published: Arc<Published>,
    stuck: Arc<AtomicBool>,
    telemetry: Arc<Telemetry>,
}

struct Stuck(Arc<AtomicBool>);

impl SelfCheck for Stuck {
    fn verdict(&self) -> Result<(), String> {
        if self.0.load(Ordering::Relaxed) { Err("the engine has not ticked for 6 s".to_owned()) } else { Ok(()) }
    }
}

fn start(snapshot: Snapshot, show: ShowDetails) -> Sidecar {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let published = Published::new(snapshot);
    let telemetry = Arc::new(Telemetry::new());
    let clock = Clock::start();
    let (metrics, service) = MetricsService::new(Arc::clone(&telemetry), clock);
    tokio::spawn(service.run(std::future::pending()));
    let stuck = Arc::new(AtomicBool::new(false));
    let self_check = Arc::new(Stuck(Arc::clone(&stuck)));
    let answers = ProbeAnswers::new(Arc::clone(&published), clock, show, self_check, &telemetry, metrics);
    tokio::spawn(serve_probes(listener, answers, std::future::pending()));
    Sidecar { addr, published, stuck, telemetry }
}

impl Sidecar {
    /// Sends raw bytes and reads to the end.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time").ok();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn ask(&self, method: &str, target: &str, headers: &str) -> Answer {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        Answer::parse(&self.raw(request.as_bytes()).await)
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "").await
    }

    async fn channel(&self) -> tonic::transport::Channel {
        tonic::transport::Endpoint::try_from(format!("http://{}", self.addr)).unwrap().connect().await.unwrap()
    }

    /// As a kubelet does it.
    async fn code(&self, target: &str) -> u16 {
        self.ask("GET", target, "User-Agent: kube-probe/1.34\r\nAccept: */*\r\n").await.code
    }
}

#[derive(Debug)]
struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        Self { code, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

#[tokio::test]
async fn every_path_answers_200_or_503_with_the_small_stable_body() {
    let sidecar = start(sample::redis_down(), ShowDetails::Loopback);
    for path in ["/health", "/livez", "/healthz", "/startup", "/startupz", "/self", "/ready/model", "/health/redis?x"] {
        let answer = sidecar.get(path).await;
        let expected = if path.starts_with("/health/redis") { 503 } else { 200 };
        assert_eq!(answer.code, expected, "{path}: {answer:?}");
    }
    for path in ["/ready", "/readyz", "/ready/", "/readyz/redis"] {
        let answer = sidecar.get(path).await;
        assert_eq!((answer.code, answer.body.as_str()), (503, r#"{"status":"fail"}"#), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("content-length"), Some("17"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("transfer-encoding"), None);
    }
    for path in ["/", "/nope", "/ready/nobody", "/ready/a/b", "/READY", "/%72eady"] {
        assert_eq!(sidecar.code(path).await, 404, "{path}");
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body_and_other_methods_are_told_which() {
    let sidecar = start(sample::healthy(), ShowDetails::Loopback);
    let head = sidecar.ask("HEAD", "/ready", "").await;
    assert_eq!((head.code, head.header("content-length"), head.body.as_str()), (200, Some("17"), ""));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let answer = sidecar.ask(method, "/ready", "Content-Length: 0\r\n").await;
        assert_eq!((answer.code, answer.header("allow")), (405, Some("get, head")), "{method}");
    }
}

#[tokio::test]
async fn a_degraded_gate_passes_and_tells_envoy() {
    let sidecar = start(sample::degraded(), ShowDetails::Loopback);
    let answer = sidecar.get("/ready").await;
    assert_eq!((answer.code, answer.body.as_str()), (200, r#"{"status":"warn"}"#));
    assert_eq!(answer.header("x-envoy-degraded"), Some("true"));
    assert_eq!(sidecar.get("/health").await.header("x-envoy-degraded"), None);
    let left_out = sidecar.get("/ready?exclude=cache").await;
    assert_eq!((left_out.body.as_str(), left_out.header("x-envoy-degraded")), (r#"{"status":"pass"}"#, None));
}

#[tokio::test]
async fn dialects_follow_the_query_and_the_accept_header() {
    let sidecar = start(sample::redis_down(), ShowDetails::Loopback);
    let verbose = sidecar.get("/readyz?verbose").await;
    assert_eq!(verbose.code, 503);
    assert!(
        verbose.body.contains("[-]redis failed: connection refused by 127.0.0.1:6379, 3 times since"),
        "{verbose:?}"
    );
    assert!(verbose.body.ends_with("readyz check failed\n"), "{verbose:?}");
    let excluded = sidecar.get("/readyz?verbose&exclude=redis").await;
    assert_eq!(excluded.code, 200, "{excluded:?}");
    for answer in [
        sidecar.get("/ready?format=json").await,
        sidecar.ask("GET", "/ready", "Accept: application/health+json\r\n").await,
    ] {
        assert_eq!(answer.header("content-type"), Some("application/health+json"));
        assert!(answer.body.contains(r#""output":"redis is down"#), "{answer:?}");
    }
    let actuator = sidecar.get("/ready?format=actuator").await;
    assert!(actuator.code == 503 && actuator.body.contains(r#""status":"DOWN""#), "{actuator:?}");
}

#[tokio::test]
async fn details_follow_the_configuration() {
    for (show, seen) in [(ShowDetails::Always, true), (ShowDetails::Loopback, true), (ShowDetails::Never, false)] {
        let sidecar = start(sample::redis_down(), show);
        for target in ["/readyz?verbose", "/readyz?format=json", "/readyz?format=actuator", "/readyz/redis?verbose"] {
            let answer = sidecar.get(target).await;
            assert_eq!(answer.body.contains("6379"), seen, "{show:?} {target}: {answer:?}");
            assert_eq!(answer.body.contains("withheld"), !seen, "{show:?} {target}: {answer:?}");
        }
    }
}

#[test]
fn only_loopback_reads_details_by_default_v4_in_v6_included() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let telemetry = Arc::new(Telemetry::new());
    let clock = Clock::start();
    let (metrics, _service) = MetricsService::new(Arc::clone(&telemetry), clock);
    let fine = Arc::new(Stuck(Arc::default()));
    let published = Published::new(sample::healthy());
    let answers = ProbeAnswers::new(published, clock, ShowDetails::Loopback, fine, &telemetry, metrics);
    for (peer, may) in
        [("127.9.9.9", true), ("::1", true), ("::ffff:127.0.0.1", true), ("10.0.0.1", false), ("::", false)]
    {
        assert_eq!(answers.may_read(peer.parse().unwrap()), may, "{peer}");
    }
    answers.show_details(ShowDetails::Never);
    assert!(!answers.may_read("127.0.0.1".parse().unwrap()));
}

#[tokio::test]
async fn self_tells_which_part_is_stuck() {
    let sidecar = start(sample::healthy(), ShowDetails::Loopback);
    assert_eq!(sidecar.code("/self").await, 200);
    sidecar.stuck.store(true, Ordering::Relaxed);
    let answer = sidecar.get("/self?verbose").await;
    assert_eq!(answer.code, 503);
    assert_eq!(answer.body, "[-]sidecar failed: the engine has not ticked for 6 s\nselfz check failed\n");
    assert_eq!(sidecar.code("/health").await, 200, "the model server is not blamed for it");
}

#[tokio::test]
async fn a_new_judgement_is_the_next_answer() {
    let sidecar = start(sample::healthy(), ShowDetails::Loopback);
    assert_eq!(sidecar.code("/ready").await, 200);
    sidecar.published.store(sample::redis_down());
    assert_eq!(sidecar.code("/ready").await, 503);
    let page = sidecar.telemetry.encode().unwrap();
    for line in [
        r#"probegate_probe_requests_total{gate="ready",code="200"} 1"#,
        r#"probegate_probe_requests_total{gate="ready",code="503"} 1"#,
        r#"probegate_probe_duration_seconds_count{gate="ready"} 2"#,
    ] {
        assert!(page.contains(line), "no {line} in {page}");
    }
}

#[tokio::test]
async fn wait_for_drain_returns_at_once_unless_a_drain_is_unfinished() {
    let mut snapshot = sample::healthy();
    let sidecar = start(snapshot.clone(), ShowDetails::Loopback);
    assert_eq!(sidecar.get("/wait-for-drain").await.body, "not draining\n");
    sample::drain(&mut snapshot, DrainPhase::Propagating);
    sidecar.published.store(snapshot.clone());
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(sidecar.addr).await.unwrap();
        stream.write_all(b"GET /wait-for-drain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        waiting.push(stream);
    }
    assert_eq!(sidecar.code("/health").await, 200, "probes are answered beside those who wait");
    sample::drain(&mut snapshot, DrainPhase::Finishing);
    sidecar.published.store(snapshot.clone());
    assert_eq!(sidecar.code("/health").await, 200);
    let mut byte = [0];
    assert!(waiting[0].try_read(&mut byte).is_err(), "nothing was answered yet");
    sample::drain(&mut snapshot, DrainPhase::Done);
    sidecar.published.store(snapshot);
    for mut stream in waiting {
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("drained\n"), "{answer}");
    }
}

#[tokio::test]
async fn who_looks_out_for_a_drain_waits_for_one_that_begins_meanwhile() {
    let mut snapshot = sample::healthy();
    let sidecar = start(snapshot.clone(), ShowDetails::Loopback);
    assert_eq!(sidecar.get("/wait-for-drain?within=10ms").await.body, "not draining\n");
    let mut waiting = TcpStream::connect(sidecar.addr).await.unwrap();
    let ask = b"GET /wait-for-drain?within=10s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    waiting.write_all(ask).await.unwrap();
    assert_eq!(sidecar.code("/health").await, 200);
    for phase in [DrainPhase::Propagating, DrainPhase::Finishing, DrainPhase::Done] {
        sample::drain(&mut snapshot, phase);
        sidecar.published.store(snapshot.clone());
    }
    let mut answer = String::new();
    timeout(PATIENCE, waiting.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("drained\n"), "{answer}");
}

#[tokio::test]
async fn metrics_are_200_in_either_format() {
    let sidecar = start(sample::healthy(), ShowDetails::Loopback);
    let text = sidecar.get("/metrics").await;
    assert_eq!((text.code, text.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    assert!(text.body.contains("# TYPE probegate_build_info gauge"), "{text:?}");
    let om = sidecar.ask("GET", "/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n").await;
    assert!(om.body.ends_with("# EOF\n") && om.header("content-length").is_some(), "{om:?}");
}

#[tokio::test]
async fn old_pipelined_and_kept_connections_are_served() {
    let sidecar = start(sample::healthy(), ShowDetails::Loopback);
    let old = sidecar.raw(b"GET /ready HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200") || old.starts_with("HTTP/1.1 200"), "{old}");
    let pipelined = sidecar
        .raw(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(pipelined.matches("HTTP/1.1 200 OK").count(), 2, "{pipelined}");
    let with_body =
        sidecar.raw(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello").await;
    assert!(with_body.starts_with("HTTP/1.1 200"), "{with_body}");
}

#[tokio::test]
async fn malformed_and_oversized_requests_are_refused_and_harm_nobody() {
    let sidecar = start(sample::healthy(), ShowDetails::Loopback);
    for bytes in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"\xff\xfe\r\n\r\n",
    ] {
        let answer = sidecar.raw(bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{bytes:?}: {answer}");
    }
    let long = format!("/ready?{}", "a".repeat(limits::URI_BYTES_MAX));
    assert_eq!(sidecar.code(&long).await, 414);
    let just = format!("/ready?{}", "a".repeat(limits::URI_BYTES_MAX - "/ready".len()));
    assert_eq!(sidecar.code(&just).await, 200);
    let huge = format!("X-Y: {}\r\n", "b".repeat(limits::HEAD_BYTES_MAX));
    assert_eq!(sidecar.ask("GET", "/ready", &huge).await.code, 431);
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert_eq!(sidecar.ask("GET", "/ready", &many).await.code, 431);
    assert_eq!(sidecar.code("/ready?%&%zz=&exclude=%00&&&").await, 200);
    let excludes = "exclude=nobody&".repeat(900);
    let answer = sidecar.get(&format!("/ready?verbose&{excludes}")).await;
    assert!(answer.code == 200 && answer.body.len() < limits::PROBE_BODY_BYTES_MAX, "{}", answer.body.len());
    assert_eq!(sidecar.code("/ready").await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_finishes_its_first_head_is_closed() {
    let sidecar = start(sample::healthy(), ShowDetails::Loopback);
    for first in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"GET /ready HT", b"GET /ready HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = TcpStream::connect(sidecar.addr).await.unwrap();
        stream.write_all(first).await.unwrap();
        let from = tokio::time::Instant::now();
        let mut rest = Vec::new();
        timeout(limits::FIRST_HEAD * 2, stream.read_to_end(&mut rest)).await.expect("closed").ok();
        assert!(from.elapsed() <= limits::FIRST_HEAD + Duration::from_secs(1), "{first:?}");
    }
}

#[tokio::test]
async fn beyond_the_cap_the_longest_idle_connection_makes_room() {
    let sidecar = start(sample::healthy(), ShowDetails::Loopback);
    let mut idle = Vec::new();
    for _ in 0..limits::PROBE_CONNECTIONS_MAX {
        idle.push(TcpStream::connect(sidecar.addr).await.unwrap());
    }
    assert_eq!(sidecar.code("/ready").await, 200, "a kubelet is never refused");
    let mut rest = Vec::new();
    timeout(PATIENCE, idle[0].read_to_end(&mut rest)).await.expect("the first was closed").ok();
    let last = idle.last_mut().unwrap();
    last.write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, last.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "the last is still served: {answer}");
}

#[tokio::test]
async fn grpc_health_says_the_same_as_http() {
    let sidecar = start(sample::redis_down(), ShowDetails::Loopback);
    let mut client = HealthClient::new(sidecar.channel().await);
    let mut check = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        client.check(request).await.map(|response| response.into_inner().status())
    };
    assert_eq!(check("").await.unwrap(), ServingStatus::NotServing);
    assert_eq!(check("readiness").await.unwrap(), ServingStatus::NotServing);
    assert_eq!(check("liveness").await.unwrap(), ServingStatus::Serving);
    assert_eq!(check("startup").await.unwrap(), ServingStatus::Serving);
    assert_eq!(check("nobody").await.unwrap_err().code(), tonic::Code::NotFound);
    let page = sidecar.telemetry.encode().unwrap();
    assert!(page.contains(r#"probegate_probe_requests_total{gate="ready",code="503"} 2"#), "{page}");
}

#[tokio::test]
async fn grpc_watch_tells_changes_only() {
    let sidecar = start(sample::healthy(), ShowDetails::Loopback);
    let mut client = HealthClient::new(sidecar.channel().await);
    let request = HealthCheckRequest { service: "readiness".to_owned() };
    let mut statuses = client.watch(request).await.unwrap().into_inner();
    let mut next = async || timeout(PATIENCE, statuses.next()).await.unwrap().unwrap().unwrap().status();
    assert_eq!(next().await, ServingStatus::Serving);
    sidecar.published.store(sample::degraded());
    sidecar.published.store(sample::redis_down());
    assert_eq!(next().await, ServingStatus::NotServing, "a warning in between is no change");
    sidecar.published.store(sample::healthy());
    assert_eq!(next().await, ServingStatus::Serving);
    let unknown = HealthCheckRequest { service: "nobody".to_owned() };
    let mut statuses = client.watch(unknown).await.unwrap().into_inner();
    assert_eq!(statuses.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
}

#[tokio::test]
async fn grpc_list_names_every_service() {
    let sidecar = start(sample::redis_down(), ShowDetails::Loopback);
    let stream = TcpStream::connect(sidecar.addr).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{}/grpc.health.v1.Health/List", sidecar.addr))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(&[0, 0, 0, 0, 0])))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    assert_eq!(body.trailers().and_then(|trailers| trailers.get("grpc-status")).unwrap(), "0");
    let body = body.to_bytes();
    let expected = [
        &b"\x0a\x06\x0a\x00\x12\x02\x08\x02"[..],
        b"\x0a\x0e\x0a\x08liveness\x12\x02\x08\x01",
        b"\x0a\x0f\x0a\x09readiness\x12\x02\x08\x02",
        b"\x0a\x0d\x0a\x07startup\x12\x02\x08\x01",
    ]
    .concat();
    assert_eq!(&body[5..], expected);
    let probe = Request::get(format!("http://{}/readyz", sidecar.addr)).body(Full::default()).unwrap();
    assert_eq!(sender.send_request(probe).await.unwrap().status(), 503, "probe paths over h2c too");
}
