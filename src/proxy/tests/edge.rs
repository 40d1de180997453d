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
async fn a_length_beside_chunks_never_reaches_the_server() {
    // hyper takes the chunks and drops the length, in either order: one request, one way to read it.
    for fields in
        ["content-length: 4\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 4\r\n"]
    {
        let model = Model::start().await;
        let plane = Plane::start(&[model.address], Setting::default());
        let mut client = plane.client().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: m\r\n{fields}\r\n0\r\n\r\n")).await;
        let mut server = model.accept().await;
        let head = server.head().await;
        assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{head}");
        server.until("0\r\n\r\n").await;
        server.send(ok("")).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
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
