//! Requests that are wrong, too large, or ambiguous.

use super::*;

/// What a raw request is answered with, and what reached the model server of it.
async fn answer_to(request: &str) -> String {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(request).await;
    let head = client.head().await;
    let knocked = tokio::time::timeout(Duration::from_millis(20), model.listener.accept()).await;
    assert!(knocked.is_err(), "it reached the model server: {request:.80}");
    head
}

#[tokio::test]
async fn a_head_above_the_limit_gets_431_and_one_below_passes() {
    let pad = "a".repeat(crate::limits::HEAD_BYTES_MAX);
    let head = answer_to(&format!("GET / HTTP/1.1\r\nhost: m\r\nx: {pad}\r\n\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 431"), "{head}");
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(format!("GET / HTTP/1.1\r\nhost: m\r\nx: {}\r\n\r\n", &pad[100..])).await;
    assert!(model.accept().await.head().await.len() > 32_000);
}

#[tokio::test]
async fn more_than_a_hundred_fields_get_431() {
    let fields: String = (0..101).map(|i| format!("x-{i}: 1\r\n")).collect();
    let head = answer_to(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 431"), "{head}");
}

#[tokio::test]
async fn a_uri_above_the_limit_gets_414() {
    let path = "a".repeat(crate::limits::URI_BYTES_MAX);
    let head = answer_to(&format!("GET /{path} HTTP/1.1\r\nhost: m\r\n\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 414") && head.contains("x-probegate-reason: uri_too_long"), "{head}");
}

#[tokio::test]
async fn connect_gets_501() {
    let head = answer_to("CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 501"), "{head}");
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused() {
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\n5\nhello\n0\n\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nhost: m\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: m\r\ncontent-length: +1\r\n\r\na",
        "POST / HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: m\r\nx: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : m\r\n\r\n",
        "GARBAGE\r\n\r\n",
    ] {
        let head = answer_to(request).await;
        assert!(head.starts_with("HTTP/1.1 400"), "{request:?} was answered {head}");
    }
}

#[tokio::test]
async fn absolute_and_asterisk_targets_pass_in_the_form_that_a_server_expects() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send("GET http://svc:80/v2?x HTTP/1.1\r\nhost: other\r\n\r\n").await;
    let mut server = model.accept().await;
    let head = server.head().await;
    assert!(head.starts_with("GET /v2?x HTTP/1.1\r\n") && head.contains("host: svc:80\r\n"), "{head}");
    server.send(ok("")).await;
    client.head().await;
    client.send("OPTIONS * HTTP/1.1\r\nhost: m\r\n\r\n").await;
    assert!(server.head().await.starts_with("OPTIONS * HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_method_that_nobody_knows_passes() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send("BREW /pot HTTP/1.1\r\nhost: m\r\n\r\n").await;
    assert!(model.accept().await.head().await.starts_with("BREW /pot "));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(get("/1") + &get("/2")).await;
    let mut server = model.accept().await;
    for turn in ["1", "2"] {
        assert!(server.head().await.starts_with(&format!("GET /{turn} ")));
        server.send(ok(turn)).await;
    }
    client.head().await;
    assert_eq!(client.exactly(1).await, b"1");
    client.head().await;
    assert_eq!(client.exactly(1).await, b"2");
}

#[tokio::test]
async fn a_body_that_stops_coming_ends_its_connection_and_the_servers_work() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.client_idle = Duration::from_millis(400);
    let plane = Plane::start(&[model.address], setting);
    let mut client = plane.client().await;
    client.send("POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 10\r\n\r\nhalf").await;
    let mut server = model.accept().await;
    server.until("half").await;
    assert_eq!(client.closed().await, "");
    server.closed().await;
    plane.until("counted", |c| c.in_flight() == 0 && c.refused(Reason::ClientGone) == 1).await;
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_a_client_may_idle_is_waited_for() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.client_idle = Duration::from_millis(300);
    let plane = Plane::start(&[model.address], setting);
    let mut client = plane.client().await;
    client.send("POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 2\r\n\r\nhi").await;
    let mut server = model.accept().await;
    server.until("hi").await;
    assert!(tokio::time::timeout(Duration::from_millis(900), client.more()).await.is_err(), "it was cut off");
    server.send(ok("late")).await;
    client.until("late").await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_for_too_long_is_given_up() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.client_idle = Duration::from_millis(500);
    let plane = Plane::start(&[model.address], setting);
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
    let block = vec![b'x'; 64 * 1024];
    // Until every buffer is full, and then until the proxy closes.
    while within(server.stream.write_all(&block)).await.is_ok() {}
    plane.until("given up", |c| c.in_flight() == 0 && c.connections() == 0).await;
    drop(client);
}

#[tokio::test]
async fn a_chunk_that_is_none_ends_the_servers_work_and_is_said_where_it_can_be() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send("POST / HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let mut server = model.accept().await;
    server.until("one\r\n").await;
    client.send("zz\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 400"));
    server.closed().await;
    plane.until("counted", |c| c.in_flight() == 0 && c.refused(Reason::BadRequest) == 1).await;
}

#[tokio::test]
async fn a_client_that_closes_its_half_is_asked_whether_it_listens_and_gets_its_answer() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(get("/")).await;
    client.stream.shutdown().await.unwrap();
    let mut server = model.accept().await;
    server.head().await;
    // It is asked whether it listens, and does.
    assert!(client.head().await.starts_with("HTTP/1.1 100"));
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfi").await;
    client.until("fi").await;
    server.send("nis").await;
    assert_eq!(client.closed().await, "nis");
    plane.until("served", |c| c.forwarded(200) == 1 && c.connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_waits_in_the_queue_and_leaves_is_noticed() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.max_in_flight = Some(1);
    setting.traffic.queue = Some(config::Queue { max: 5, max_bytes: None, timeout: PATIENCE });
    let plane = Plane::start(&[model.address], setting);
    let mut first = plane.client().await;
    first.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    let mut second = plane.client().await;
    second.send(get("/")).await;
    plane.until("queued", |c| c.queued() == 1).await;
    drop(second);
    plane.until("left", |c| c.queued() == 0 && c.refused(Reason::ClientGone) == 1).await;
    server.send(ok("x")).await;
    first.until("x").await;
}

#[tokio::test]
async fn bytes_behind_an_upgrade_reach_the_other_side_both_ways() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send("GET /ws HTTP/1.1\r\nhost: m\r\nconnection: upgrade\r\nupgrade: x\r\n\r\neager").await;
    let mut server = model.accept().await;
    server.head().await;
    server.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhello").await;
    server.until("eager").await;
    client.head().await;
    client.until("hello").await;
    assert_eq!(plane.counters().bytes(), (5, 5));
}

#[tokio::test]
async fn an_answer_without_an_end_ends_in_a_chunk_and_the_client_goes_on() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    for _ in 0..2 {
        client.send(get("/")).await;
        let mut server = model.accept().await;
        server.head().await;
        server.send("HTTP/1.0 200 OK\r\n\r\npart").await;
        client.until("4\r\npart\r\n").await;
        drop(server);
        client.until("0\r\n\r\n").await;
    }
    plane.until("counted", |c| c.forwarded(200) == 2).await;
}

#[tokio::test]
async fn a_refused_upload_that_goes_on_does_not_cost_the_client_its_answer() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    plane.judge(|next| not_ready(next, vec![Cause::Starting]));
    let mut client = plane.client().await;
    client.send("POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 1000000\r\n\r\n").await;
    for _ in 0..8 {
        client.send(vec![b'x'; 64 * 1024]).await;
    }
    let answer = client.closed().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connection: close"), "{answer}");
}
