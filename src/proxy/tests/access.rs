//! The access log, from outside: who gets a line, and what is in it.

use super::*;

const EVERYTHING: AccessLog = AccessLog { sample_permille: 1000, slow: None, query: false };
const NOTHING: AccessLog = AccessLog { sample_permille: 0, ..EVERYTHING };

fn logging(access: AccessLog) -> Setting {
    Setting { access: Some(access), ..Setting::default() }
}

#[tokio::test]
async fn a_request_gets_a_line_with_what_it_took_and_nothing_that_may_be_secret() {
    let model = Model::start().await;
    let mut setting = logging(EVERYTHING);
    setting.traffic.routes = vec![config::Route {
        path: "/v1".to_owned(),
        max_in_flight: None,
        queue: None,
        hold: None,
        first_byte_timeout: None,
        stall_after: None,
    }];
    let plane = Plane::start(&[model.address], setting);
    let mut client = plane.client().await;
    let fields = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nx-request-id: r-7\r\n\
        authorization: Bearer SECRET\r\n";
    client
        .send(format!("POST /v1/predict?key=SECRET HTTP/1.1\r\nhost: m\r\n{fields}content-length: 3\r\n\r\nabc"))
        .await;
    let mut server = model.accept().await;
    server.head().await;
    server.exactly(3).await;
    server.send(ok("hello")).await;
    client.until("hello").await;
    let line = plane.log_lines(1).await.remove(0);
    assert_eq!((line["method"].as_str(), line["path"].as_str()), (Some("POST"), Some("/v1/predict")));
    assert_eq!((line["status"].as_u64(), line.get("reason")), (Some(200), None));
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(3), Some(5)));
    assert_eq!(line["upstream"], model.address.to_string());
    assert_eq!((line["route"].as_str(), line["protocol"].as_str()), (Some("/v1"), Some("HTTP/1.1")));
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(line["request_id"], "r-7");
    assert!(line["ttfb_ms"].as_f64() <= line["duration_ms"].as_f64() && line["ttfb_ms"].is_number(), "{line}");
    assert!(!line.to_string().contains("SECRET"), "{line}");
}

#[tokio::test]
async fn whoever_fails_gets_a_line_whatever_the_share_and_says_why() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], logging(NOTHING));
    let mut client = plane.client().await;
    client.send(get("/fine")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send(ok("fine")).await;
    client.until("fine").await;
    client.send(get("/broken")).await;
    server.head().await;
    server.send("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n").await;
    client.head().await;
    client.send(get("/cut")).await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    drop(server);
    client.closed().await;
    let mut gone = plane.client().await;
    gone.send(get("/gone")).await;
    let mut server = model.accept().await;
    server.head().await;
    drop(gone);
    plane.log_lines(3).await;
    plane.judge(|next| not_ready(next, vec![Cause::Starting]));
    let mut refused = plane.client().await;
    refused.send(get("/refused")).await;
    refused.head().await;
    let lines = plane.log_lines(4).await;
    let told: Vec<(&str, u64, Option<&str>)> = lines
        .iter()
        .map(|line| (line["path"].as_str().unwrap(), line["status"].as_u64().unwrap(), line["reason"].as_str()))
        .collect();
    assert_eq!(told[0], ("/broken", 500, None));
    assert_eq!(told[1], ("/cut", 200, Some("upstream_aborted")));
    assert_eq!(told[2], ("/gone", 499, Some("client_gone")));
    assert_eq!(told[3], ("/refused", 503, Some("not_ready")));
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn whoever_is_slow_gets_a_line() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], logging(AccessLog { slow: Some(Duration::from_nanos(1)), ..NOTHING }));
    let mut client = plane.client().await;
    client.send(get("/slow")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send(ok("x")).await;
    client.until("x").await;
    assert_eq!(plane.log_lines(1).await[0]["path"], "/slow");
}

#[tokio::test]
async fn a_reload_turns_it_off_for_requests_that_are_under_way_too() {
    let model = Model::start().await;
    let mut plane = Plane::start(&[model.address], logging(EVERYTHING));
    let mut client = plane.client().await;
    client.send(get("/first")).await;
    let mut server = model.accept().await;
    server.head().await;
    plane.config.log.access = None;
    plane.shared.configure(&plane.config, &plane.upstreams).unwrap();
    server.send(ok("x")).await;
    client.until("x").await;
    plane.config.log.access = Some(EVERYTHING);
    plane.shared.configure(&plane.config, &plane.upstreams).unwrap();
    client.send(get("/second")).await;
    server.head().await;
    server.send(ok("y")).await;
    client.until("y").await;
    let lines = plane.log_lines(1).await;
    assert_eq!((lines.len(), lines[0]["path"].as_str()), (1, Some("/second")));
}
