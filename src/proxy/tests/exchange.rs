//! Messages through the proxy: whole, streamed, early, broken off.

use super::*;

#[tokio::test]
async fn a_request_and_its_answer_pass_unchanged_but_for_their_hop() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client
        .send("POST /v1/predict?a=%20b HTTP/1.1\r\nHost: model.svc\r\nX-Kept: 1\r\nConnection: x-gone\r\nX-Gone: 1\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    let mut server = model.accept().await;
    let head = server.head().await;
    assert!(head.starts_with("POST /v1/predict?a=%20b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: model.svc\r\n") && head.contains("x-kept: 1\r\n"), "{head}");
    assert!(!head.contains("x-gone") && !head.contains("via"), "{head}");
    assert_eq!(server.exactly(5).await, b"hello");
    server
        .send("HTTP/1.1 418 Short And Stout\r\nx-model: m\r\nkeep-alive: timeout=5\r\ncontent-length: 3\r\n\r\ntea")
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 418 "), "{head}");
    assert!(head.contains("x-model: m\r\n") && !head.contains("keep-alive"), "{head}");
    assert_eq!(client.exactly(3).await, b"tea");
    plane.until("counted", |c| c.forwarded(418) == 1 && c.in_flight() == 0).await;
    assert_eq!(plane.counters().bytes(), (5, 3));
}

#[tokio::test]
async fn a_chunk_arrives_while_the_server_still_holds_the_next_one() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(get("/stream")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.head().await;
    for token in ["data: a\n\n", "data: b\n\n"] {
        server.send(format!("{:x}\r\n{token}\r\n", token.len())).await;
        assert!(client.until("\n\n").await.ends_with(token));
        assert_eq!(plane.counters().in_flight(), 1);
    }
    server.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    plane.until("over", |c| c.in_flight() == 0).await;
}

#[tokio::test]
async fn an_upload_streams_too() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send("POST / HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let mut server = model.accept().await;
    assert!(server.head().await.contains("transfer-encoding: chunked"));
    server.until("one\r\n").await;
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    server.until("two\r\n").await;
    server.until("0\r\n\r\n").await;
    server.send(ok("")).await;
    client.head().await;
}

#[tokio::test]
async fn a_large_body_passes_both_ways_whole() {
    const SIZE: usize = 8 * 1024 * 1024;
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    let body: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    let expected = body.clone();
    let server = async {
        let mut server = model.accept().await;
        server.head().await;
        let got = server.exactly(SIZE).await;
        server.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n")).await;
        server.send(&got).await;
    };
    let client = async {
        client.send(format!("POST / HTTP/1.1\r\nhost: m\r\ncontent-length: {SIZE}\r\n\r\n")).await;
        client.send(&body).await;
        client.head().await;
        client.exactly(SIZE).await
    };
    let ((), echoed) = tokio::join!(server, client);
    assert!(echoed == expected, "the body was changed");
    plane.until("counted", |c| c.bytes() == (SIZE as u64, SIZE as u64)).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_server_from_sending() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
    let block = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    // The kernel's own buffers take a few MB; a proxy that buffers takes all of it.
    while tokio::time::timeout(Duration::from_millis(500), server.stream.write_all(&block)).await.is_ok() {
        sent += block.len();
        assert!(sent < 64 * 1024 * 1024, "no backpressure after {sent} bytes");
    }
    client.head().await;
}

#[tokio::test]
async fn an_early_answer_arrives_while_the_body_still_uploads() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send("POST / HTTP/1.1\r\nhost: m\r\ncontent-length: 10\r\n\r\nhalf.").await;
    let mut server = model.accept().await;
    server.head().await;
    server.send("HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nstop").await;
    assert!(client.head().await.starts_with("HTTP/1.1 413"));
    assert_eq!(client.exactly(4).await, b"stop");
}

#[tokio::test]
async fn head_204_and_304_have_no_body_and_keep_the_connection() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send("HEAD / HTTP/1.1\r\nhost: m\r\n\r\n").await;
    let mut server = model.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n").await;
    assert!(client.head().await.contains("content-length: 1234"));
    for answer in ["204 No Content", "304 Not Modified"] {
        client.send(get("/")).await;
        server.head().await;
        server.send(format!("HTTP/1.1 {answer}\r\n\r\n")).await;
        let head = client.head().await;
        assert!(head.contains(answer) && !head.contains("transfer-encoding"), "{head}");
    }
    client.send(get("/")).await;
    server.head().await;
    server.send(ok("end")).await;
    client.until("end").await;
}

#[tokio::test]
async fn trailers_reach_a_client_that_takes_them() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send("GET / HTTP/1.1\r\nhost: m\r\nte: trailers\r\nconnection: te\r\n\r\n").await;
    let mut server = model.accept().await;
    assert!(server.head().await.contains("te: trailers"));
    server
        .send("HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n")
        .await;
    client.head().await;
    assert!(client.until("0\r\n").await.contains("hi"));
    assert_eq!(client.head().await, "x-sum: 7\r\n\r\n");
}

#[tokio::test]
async fn a_client_that_expects_continue_is_told_when_the_body_is_wanted() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send("POST / HTTP/1.1\r\nhost: m\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await;
    let mut server = model.accept().await;
    assert!(client.head().await.starts_with("HTTP/1.1 100"));
    client.send("ok").await;
    assert!(!server.head().await.contains("expect"));
    assert_eq!(server.exactly(2).await, b"ok");
    server.send(ok("")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_http_1_0_client_gets_its_answer_and_the_end() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let mut server = model.accept().await;
    let head = server.head().await;
    assert!(head.starts_with("GET / HTTP/1.1\r\n") && head.contains(&format!("host: {}", model.address)), "{head}");
    server.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
    let answer = client.closed().await;
    assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("\r\n\r\nhi"), "{answer}");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_ends_the_servers_work() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(get("/slow")).await;
    let mut server = model.accept().await;
    server.head().await;
    drop(client);
    assert_eq!(server.closed().await, "");
    plane.until("counted", |c| c.refused(Reason::ClientGone) == 1 && c.in_flight() == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_stream_ends_the_servers_work() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(get("/stream")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").await;
    client.until("a\r\n").await;
    drop(client);
    server.closed().await;
    plane.until("counted", |c| c.refused(Reason::ClientGone) == 1 && c.in_flight() == 0).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_reaches_the_client_as_broken() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").await;
    client.until("a\r\n").await;
    drop(server);
    assert_eq!(client.closed().await, "", "the end of a chunked body was made up");
    plane.until("counted", |c| c.refused(Reason::UpstreamAborted) == 1 && c.in_flight() == 0).await;
}

#[tokio::test]
async fn a_websocket_becomes_a_tunnel_that_counts_until_it_ends() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send("GET /ws HTTP/1.1\r\nhost: m\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
    let mut server = model.accept().await;
    let head = server.head().await;
    assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
    server.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    client.until("first").await;
    client.send("ping").await;
    assert_eq!(server.exactly(4).await, b"ping");
    server.send("pong").await;
    assert_eq!(client.exactly(4).await, b"pong");
    assert_eq!(plane.counters().in_flight(), 1);
    assert_eq!(plane.counters().bytes(), (4, 9));
    drop(client);
    server.closed().await;
    drop(server);
    plane.until("over", |c| c.in_flight() == 0).await;
}
