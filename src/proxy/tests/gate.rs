//! What is refused, and how it is said.

use super::*;
use crate::engine::CheckId;

async fn refused(plane: &Plane) -> (String, serde_json::Value) {
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let head = client.head().await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let body = client.exactly(length.parse().unwrap()).await;
    (head, serde_json::from_slice(&body).unwrap())
}

fn assert_says(head: &str, status: &str, reason: &str) {
    assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    assert!(head.contains(&format!("x-probegate-reason: {reason}\r\n")), "{head}");
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    Model::start().await.address
}

#[tokio::test]
async fn nothing_passes_while_not_ready_and_everything_does_again_afterwards() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    plane.judge(|next| not_ready(next, vec![Cause::Starting]));
    let (head, body) = refused(&plane).await;
    assert_says(&head, "503", "not_ready");
    assert!(head.contains("retry-after: 1\r\n"), "{head}");
    assert_eq!(body["error"], "not_ready");
    assert!(!body.to_string().contains("a detail"), "evidence leaked: {body}");
    plane.judge(|_| {});
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send(ok("x")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_check_that_is_unknown_to_the_snapshot_is_not_named() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    plane.judge(|next| not_ready(next, vec![Cause::Check(CheckId(9))]));
    assert_eq!(refused(&plane).await.1["message"], "the model server is not ready");
}

#[tokio::test]
async fn while_endpoints_propagate_requests_are_served_unless_something_else_fails() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    plane.judge(|next| {
        next.drain.phase = DrainPhase::Propagating;
        not_ready(next, vec![Cause::Draining]);
    });
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send(ok("x")).await;
    let answer = client.closed().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "a kept connection would stay behind: {answer}");
    plane.judge(|next| {
        next.drain.phase = DrainPhase::Propagating;
        not_ready(next, vec![Cause::Draining, Cause::Gone]);
    });
    assert_says(&refused(&plane).await.0, "503", "not_ready");
}

#[tokio::test]
async fn when_the_drain_finishes_new_requests_are_sent_elsewhere_and_running_ones_end_well() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut running = plane.client().await;
    running.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    plane.judge(|next| {
        next.drain.phase = DrainPhase::Finishing;
        not_ready(next, vec![Cause::Draining]);
    });
    let (head, _) = refused(&plane).await;
    assert_says(&head, "503", "draining");
    assert!(head.contains("connection: close\r\n"), "{head}");
    server.send(ok("done")).await;
    let answer = running.closed().await;
    assert!(answer.contains("connection: close") && answer.ends_with("done"), "{answer}");
}

#[tokio::test]
async fn without_an_enabled_backend_nothing_is_connected() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    plane.judge(|next| *next = snapshot(1, false));
    assert_says(&refused(&plane).await.0, "503", "no_upstream");
    let knocked = tokio::time::timeout(Duration::from_millis(50), model.listener.accept()).await;
    assert!(knocked.is_err(), "a disabled backend was connected to");
}

#[tokio::test]
async fn one_request_above_the_limit_is_refused_and_a_finished_one_makes_room() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.max_in_flight = Some(1);
    let plane = Plane::start(&[model.address], setting);
    let mut first = plane.client().await;
    first.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh").await;
    first.until("h").await;
    // Its last byte is still to come: it counts.
    assert_says(&refused(&plane).await.0, "503", "queue_full");
    server.send("i").await;
    plane.until("room", |c| c.in_flight() == 0).await;
    let mut second = plane.client().await;
    second.send(get("/")).await;
    server.head().await;
    server.send(ok("")).await;
    assert!(second.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_refused_connect_is_said_and_told_to_the_engine_once() {
    let (signs, mut told) = mpsc::channel(8);
    let plane = Plane::start(&[nobody().await], Setting { signs: Some(signs), ..Setting::default() });
    for _ in 0..3 {
        let (head, _) = refused(&plane).await;
        assert_says(&head, "503", "upstream_refused");
        assert!(head.contains("retry-after: 1\r\n"), "{head}");
    }
    assert_eq!(told.try_recv().unwrap(), (BackendId(0), Sign::Refused));
}

#[tokio::test]
async fn a_full_sign_channel_holds_no_request_up() {
    let (signs, _told) = mpsc::channel(1);
    signs.try_send((BackendId(0), Sign::Refused)).unwrap();
    let plane = Plane::start(&[nobody().await], Setting { signs: Some(signs), ..Setting::default() });
    assert_says(&refused(&plane).await.0, "503", "upstream_refused");
}

#[tokio::test]
async fn a_request_goes_to_another_upstream_when_the_first_cannot_be_reached() {
    let model = Model::start().await;
    let plane = Plane::start(&[nobody().await, model.address], Setting::default());
    for _ in 0..4 {
        let mut client = plane.client().await;
        client.send(get("/")).await;
        let mut server = model.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_server_that_is_silent_past_the_first_byte_timeout_is_given_up() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.first_byte_timeout = Some(Duration::from_millis(50));
    let plane = Plane::start(&[model.address], setting);
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = model.accept().await;
    let head = client.head().await;
    assert_says(&head, "504", "first_byte_timeout");
    assert!(!head.contains("retry-after"), "{head}");
    server.head().await;
    server.closed().await;
}

#[tokio::test]
async fn a_reset_before_the_head_and_nonsense_instead_of_it_are_told_apart() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    drop(server);
    assert_says(&client.head().await, "502", "upstream_reset");
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send("+PONG\r\n\r\n").await;
    assert_says(&client.head().await, "502", "upstream_invalid");
}

#[tokio::test]
async fn an_address_that_swallows_connects_is_given_up_in_time() {
    // A listener whose queue is full answers nothing: the kernel drops the SYN.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        fillers.push(filler.unwrap());
        assert!(fillers.len() < 16, "the queue never fills");
    }
    let mut setting = Setting::default();
    setting.traffic.connect_timeout = Duration::from_millis(100);
    let plane = Plane::start(&[address], setting);
    assert_says(&refused(&plane).await.0, "503", "upstream_connect_timeout");
}

struct Readyz;

impl ProbeHook for Readyz {
    fn answer(&self, _: &Method, uri: &Uri, _: &HeaderMap, from: SocketAddr) -> Option<Response<Bytes>> {
        (uri.path() == "/readyz" && from.ip().is_loopback()).then(|| Response::new(Bytes::from_static(b"pass")))
    }
}

#[tokio::test]
async fn exposed_probes_are_answered_though_nothing_else_is() {
    let plane = Plane::start(&[nobody().await], Setting { probes: Some(Arc::new(Readyz)), ..Setting::default() });
    plane.judge(|next| not_ready(next, vec![Cause::Starting]));
    let mut client = plane.client().await;
    client.send(get("/readyz")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(client.exactly(4).await, b"pass");
    client.send(get("/predict")).await;
    assert_says(&client.head().await, "503", "not_ready");
}

#[tokio::test]
async fn a_refused_upload_is_told_so_before_its_body() {
    let plane = Plane::start(&[nobody().await], Setting::default());
    plane.judge(|next| not_ready(next, vec![Cause::Starting]));
    let mut polite = plane.client().await;
    polite.send("POST / HTTP/1.1\r\nhost: m\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n").await;
    assert_says(&polite.head().await, "503", "not_ready");
    let mut eager = plane.client().await;
    eager.send(format!("POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 9000000\r\n\r\n{}", "x".repeat(50_000))).await;
    assert_says(&eager.head().await, "503", "not_ready");
}

#[tokio::test]
async fn a_check_that_decides_is_named_and_nothing_more_is_told() {
    let plane = Plane::start(&[nobody().await], Setting::default());
    plane.judge(|next| {
        let check = crate::engine::CheckView {
            name: "redis".to_owned(),
            kind: "redis",
            target: "10.0.0.7:6379".to_owned(),
            state: crate::engine::CheckState::Down,
            since: Time::ZERO,
            last: None,
            passes: 0,
            failures: 3,
            failing_since: None,
            last_success: None,
            next_attempt: None,
            in_flight_since: None,
            forced: None,
            reason: "connection refused by 10.0.0.7:6379".to_owned(),
            attempts: 3,
            scope: crate::engine::Scope::Shared,
            runbook: None,
            accuracy: None,
        };
        next.checks = Arc::new([Arc::new(check)]);
        not_ready(next, vec![Cause::Check(CheckId(0))]);
    });
    let body = refused(&plane).await.1;
    assert_eq!(body["message"], "the model server is not ready: redis");
    assert!(!body.to_string().contains("10.0.0.7"), "{body}");
}

const fn queue(max: usize, timeout: Duration) -> config::Queue {
    config::Queue { max, max_bytes: None, timeout }
}

#[tokio::test]
async fn above_the_limit_a_request_waits_for_its_turn_and_is_served() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.max_in_flight = Some(1);
    setting.traffic.queue = Some(queue(1, PATIENCE));
    let plane = Plane::start(&[model.address], setting);
    let mut first = plane.client().await;
    first.send(get("/first")).await;
    let mut server = model.accept().await;
    server.head().await;
    let mut second = plane.client().await;
    second.send(get("/second")).await;
    plane.until("queued", |c| c.queued() == 1).await;
    assert_says(&refused(&plane).await.0, "503", "queue_full");
    assert_eq!(plane.counters().in_flight(), 1);
    server.send(ok("1")).await;
    first.until("1").await;
    assert!(server.head().await.starts_with("GET /second "));
    server.send(ok("2")).await;
    second.until("2").await;
    plane.until("empty", |c| c.queued() == 0 && c.in_flight() == 0).await;
}

#[tokio::test]
async fn whoever_waits_too_long_is_refused_and_whoever_leaves_makes_room() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.max_in_flight = Some(1);
    setting.traffic.queue = Some(queue(1, Duration::from_millis(300)));
    let plane = Plane::start(&[model.address], setting);
    let mut first = plane.client().await;
    first.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    let mut leaver = plane.client().await;
    leaver.send(get("/")).await;
    plane.until("queued", |c| c.queued() == 1).await;
    drop(leaver);
    plane.until("left", |c| c.queued() == 0 && c.refused(Reason::ClientGone) == 1).await;
    assert_says(&refused(&plane).await.0, "503", "queue_timeout");
    plane.until("counted", |c| c.refused(Reason::QueueTimeout) == 1 && c.queued() == 0).await;
}

#[tokio::test]
async fn while_the_model_server_loads_requests_are_held_and_then_served() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.hold = Some(PATIENCE);
    let plane = Plane::start(&[model.address], setting);
    plane.judge(|next| {
        next.instance.phase = InstancePhase::Starting;
        not_ready(next, vec![Cause::Starting]);
    });
    let mut client = plane.client().await;
    client.send(get("/")).await;
    plane.until("held", |c| c.held() == 1).await;
    plane.judge(|_| {});
    let mut server = model.accept().await;
    server.head().await;
    server.send(ok("x")).await;
    client.until("x").await;
    plane.until("over", |c| c.held() == 0 && c.in_flight() == 0).await;
    // Not ready for another reason is not worth the wait.
    plane.judge(|next| not_ready(next, vec![Cause::Check(CheckId(0))]));
    assert_says(&refused(&plane).await.0, "503", "not_ready");
}

#[tokio::test]
async fn a_held_request_is_refused_when_its_time_is_up_or_the_drain_comes() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.hold = Some(Duration::from_millis(200));
    let plane = Plane::start(&[model.address], setting);
    let loading = |next: &mut Snapshot| {
        next.instance.phase = InstancePhase::Gone;
        not_ready(next, vec![Cause::Gone]);
    };
    plane.judge(loading);
    assert_says(&refused(&plane).await.0, "503", "not_ready");
    let mut client = plane.client().await;
    client.send(get("/")).await;
    plane.until("held", |c| c.held() == 1).await;
    plane.judge(|next| {
        loading(next);
        next.drain.phase = DrainPhase::Finishing;
    });
    assert!(client.closed().await.contains("x-probegate-reason: draining"));
}

#[tokio::test]
async fn a_request_that_finds_the_port_closed_is_held_until_somebody_listens() {
    let address = nobody().await;
    let mut setting = Setting::default();
    setting.traffic.hold = Some(PATIENCE);
    let plane = Plane::start(&[address], setting);
    let mut client = plane.client().await;
    client.send("POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 2\r\n\r\nhi").await;
    plane.until("held", |c| c.held() == 1).await;
    let model = Model { listener: TcpListener::bind(address).await.unwrap(), address };
    let mut server = model.accept().await;
    server.until("hi").await;
    server.send(ok("x")).await;
    client.until("x").await;
}

#[tokio::test]
async fn a_route_has_its_own_limit_beside_the_common_one() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.max_in_flight = Some(1);
    setting.traffic.routes = vec![config::Route {
        path: "/train".to_owned(),
        max_in_flight: Some(1),
        queue: None,
        hold: None,
        first_byte_timeout: None,
        stall_after: None,
    }];
    let plane = Plane::start(&[model.address], setting);
    let mut common = plane.client().await;
    common.send(get("/trainer")).await;
    model.accept().await.head().await;
    let mut own = plane.client().await;
    own.send(get("/train/x")).await;
    let mut server = model.accept().await;
    assert!(server.head().await.starts_with("GET /train/x "));
    let mut more = plane.client().await;
    more.send(get("/train?y")).await;
    assert_says(&more.head().await, "503", "queue_full");
}

#[tokio::test]
async fn a_connection_above_the_limit_is_told_so_and_counted() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.max_connections = 1;
    let plane = Plane::start(&[model.address], setting);
    let _only = plane.client().await;
    plane.until("connected", |c| c.connections() == 1).await;
    assert!(plane.client().await.closed().await.contains("connections_full"));
    assert_eq!(plane.counters().refused(Reason::ConnectionsFull), 1);
}
