//! What the engine is told of the traffic: silence, work that was given up, how requests ended.

use super::*;

#[tokio::test]
async fn a_comment_that_keeps_a_stream_open_is_no_progress_and_an_event_is() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(get("/stream")).await;
    let mut server = model.accept().await;
    server.head().await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    server.send(format!("{head}9\r\ndata: 1\n\n\r\n")).await;
    client.until("data: 1").await;
    let before = plane.counters().traffic();
    assert_eq!(before.in_flight, 1);
    server.send("8\r\n: ping\n\n\r\n").await;
    client.until(": ping").await;
    let after = plane.counters().traffic();
    assert_eq!((after.last_byte, after.quietest_since), (before.last_byte, before.quietest_since));
    server.send("9\r\ndata: 2\n\n\r\n").await;
    client.until("data: 2").await;
    let moved = plane.counters().traffic();
    assert!(before.last_byte < moved.last_byte && before.quietest_since < moved.quietest_since);
    assert_eq!(moved.oldest_begun, before.oldest_begun);
}

#[tokio::test]
async fn the_head_of_a_stream_is_no_progress_and_its_first_event_is() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(get("/stream")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.until("200 OK").await;
    let promised = plane.counters().traffic();
    assert_eq!((promised.in_flight, promised.last_byte), (1, None));
    assert_eq!(promised.quietest_since, promised.oldest_begun);
    server.send("9\r\ndata: 1\n\n\r\n").await;
    client.until("data: 1").await;
    assert!(plane.counters().traffic().last_byte.is_some());
}

#[tokio::test]
async fn a_client_that_leaves_leaves_work_behind_and_one_that_is_answered_does_not() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    plane.until("it beats", |c| c.beats(0) > 0).await;
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send(ok("x")).await;
    client.until("x").await;
    client.send(get("/")).await;
    server.head().await;
    plane.until("one in flight", |c| c.traffic().in_flight == 1).await;
    drop(client);
    plane.until("given up", |c| c.traffic().abandoned == 1).await;
    let traffic = plane.counters().traffic();
    assert_eq!((traffic.in_flight, traffic.oldest_begun), (0, None));
    assert_eq!((traffic.succeeded, traffic.failed), (1, 0));
    assert!(traffic.pace.is_some() && traffic.last_beat.is_some());
}

#[tokio::test]
async fn failures_are_the_servers_and_client_errors_nobodys() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = model.accept().await;
    for (status, sum) in [("404 Not Found", (0, 0)), ("500 Oh", (0, 1)), ("200 OK", (1, 1))] {
        server.head().await;
        server.send(format!("HTTP/1.1 {status}\r\ncontent-length: 1\r\n\r\nx")).await;
        client.until("x").await;
        plane.until("counted", |c| (c.traffic().succeeded, c.traffic().failed) == sum).await;
        client.send(get("/")).await;
    }
}

#[tokio::test]
async fn on_trial_one_request_at_a_time_passes() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    plane.judge(|snapshot| snapshot.trial = true);
    let mut first = plane.client().await;
    first.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    let mut second = plane.client().await;
    second.send(get("/")).await;
    assert!(second.head().await.contains("x-probegate-reason: not_ready"));
    server.send(ok("x")).await;
    first.until("x").await;
}
