//! The server from outside, over real sockets.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet};

use super::*;

/// Nothing on loopback takes longer, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

pub(super) fn options() -> Options {
    Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        release: Release::V1,
        load_time: Duration::ZERO,
        load_mode: LoadMode::Refused,
        workers: 4,
        queue: 1000,
        service_time: Duration::ZERO,
        judge_self: false,
        accuracy_interval: Duration::from_secs(3600),
        grace: Duration::from_secs(5),
        die_with_parent: None,
    }
}

/// A server in this test's own thread, and a raw client for it.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<Ending, String>>,
}

impl Running {
    async fn start(options: Options) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let ended = tokio::task::spawn_local(async move {
            let stop = async move { drop(stopped.await) };
            serve(options, stop, |address| tell.send(address).unwrap()).await
        });
        Self { address: told.await.unwrap(), stop, ended }
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n");
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
        stream
    }

    /// Status and body of a whole answer.
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = self.send(method, path, body).await;
        let mut answer = String::new();
        tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    async fn json(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.ask(method, path, body).await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn a_digit_of_the_test_set_is_read_right() {
    local(async {
        let server = Running::start(options()).await;
        let (_, digit) = server.ask("GET", "/digits/1", "").await;
        let (status, answer) = server.json("POST", "/predict", &digit).await;
        assert_eq!((status, &answer["label"], &answer["correct"]), (200, &json!(1), &json!(true)));
        let (_, picture) = server.ask("GET", "/digits/1?as=picture", "").await;
        assert_eq!(picture.lines().count(), 8);
    });
}

#[test]
fn many_images_are_answered_in_their_order() {
    local(async {
        let server = Running::start(options()).await;
        let (_, one) = server.json("GET", "/digits/0", "").await;
        let (_, two) = server.json("GET", "/digits/1", "").await;
        let body = json!({ "instances": [one["pixels"], two["pixels"]] }).to_string();
        let (status, answer) = server.json("POST", "/predict", &body).await;
        assert_eq!(status, 200);
        let labels: Vec<_> = answer["predictions"].as_array().unwrap().iter().map(|one| &one["label"]).collect();
        assert_eq!(labels, [&one["label"], &two["label"]]);
    });
}

#[test]
fn a_bad_request_is_told_what_was_expected() {
    local(async {
        let server = Running::start(options()).await;
        let cases = [
            ("{}", "expected either"),
            ("not json", "the body is not a prediction request"),
            (r#"{"pixels": [1, 2]}"#, "pixels: expected 64 numbers, found 2"),
            (r#"{"instances": []}"#, "instances: expected 1 to 256 images, found 0"),
            (r#"{"pixels": [], "instances": []}"#, "expected either"),
            (r#"{"pixel": []}"#, "unknown field `pixel`"),
        ];
        for (body, expected) in cases {
            let (status, answer) = server.json("POST", "/predict", body).await;
            let message = answer["error"].as_str().unwrap();
            assert_eq!(status, 400, "{body}");
            assert!(message.contains(expected), "{message}");
        }
        let bright = json!({ "pixels": vec![17; 64] }).to_string();
        let (_, answer) = server.json("POST", "/predict", &bright).await;
        assert_eq!(answer["error"], "pixels[0]: expected 0 to 16, found 17");
        let (status, _) = server.ask("POST", "/predict", &" ".repeat(1024 * 1024 + 1)).await;
        assert_eq!(status, 413);
        assert_eq!(server.ask("GET", "/predict", "").await.0, 405);
        assert_eq!(server.ask("GET", "/nothing", "").await.0, 404);
    });
}

#[test]
fn open_inference_protocol_answers_in_its_own_words() {
    local(async {
        let server = Running::start(options()).await;
        assert_eq!(server.json("GET", "/v2/health/live", "").await, (200, json!({ "live": true })));
        assert_eq!(server.json("GET", "/v2/health/ready", "").await, (200, json!({ "ready": true })));
        let ready = json!({ "name": "digits", "ready": true });
        assert_eq!(server.json("GET", "/v2/models/digits/ready", "").await, (200, ready));
        assert_eq!(server.json("GET", "/v2/models/digits", "").await.1["inputs"][0]["datatype"], "FP32");
        let (_, digit) = server.json("GET", "/digits/1", "").await;
        let tensor = json!({ "name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [digit["pixels"]] });
        let body = json!({ "id": "a", "inputs": [tensor], "outputs": [{ "name": "label" }] }).to_string();
        let (status, answer) = server.json("POST", "/v2/models/digits/versions/1/infer", &body).await;
        let label = json!({ "name": "label", "shape": [1], "datatype": "INT64", "data": [1] });
        let expected = json!({ "model_name": "digits", "model_version": "1", "id": "a", "outputs": [label] });
        assert_eq!((status, answer), (200, expected));
    });
}

#[test]
fn open_inference_protocol_refuses_what_does_not_fit() {
    local(async {
        let server = Running::start(options()).await;
        let tensor = |shape: Value, kind: &str, data: Value| {
            json!({ "inputs": [{ "name": "pixels", "shape": shape, "datatype": kind, "data": data }] }).to_string()
        };
        let cases = [
            (tensor(json!([1, 64]), "FP16", json!([])), "expected \"FP32\", found \"FP16\""),
            (tensor(json!([64]), "FP32", json!([])), "expected [N, 64] with N from 1 to 256, found [64]"),
            (tensor(json!([1, 64]), "FP32", json!([1])), "expected 64 numbers, found 1"),
            (tensor(json!([1, 64]), "FP32", json!([[["x"]]])), "expected numbers, flat or one row for each image"),
            (json!({ "inputs": [] }).to_string(), "expected one tensor, found 0"),
        ];
        for (body, expected) in cases {
            let (status, answer) = server.json("POST", "/v2/models/digits/infer", &body).await;
            assert_eq!(status, 400);
            assert!(answer["error"].as_str().unwrap().contains(expected), "{answer}");
        }
        assert_eq!(server.ask("POST", "/v2/models/other/infer", "{}").await.0, 404);
        assert_eq!(server.ask("GET", "/v2/models/digits/infer", "").await.0, 405);
    });
}

#[test]
fn a_stream_ends_with_done_after_its_tokens() {
    local(async {
        let server = Running::start(options()).await;
        let (status, body) = server.ask("POST", "/stream?digit=1&tokens=3&interval_ms=1", "").await;
        assert_eq!(status, 200);
        assert_eq!(body.matches("data: {").count(), 3, "{body}");
        assert!(body.contains(r#""token":"one,""#), "{body}");
        assert!(body.contains("data: [DONE]\n\n"), "{body}");
    });
}

#[test]
fn a_hang_stops_inference_and_leaves_health_alone() {
    local(async {
        let server = Running::start(options()).await;
        let (_, digit) = server.ask("GET", "/digits/1", "").await;
        assert_eq!(server.json("POST", "/hang", "").await.1["hangs"], "inference");
        let mut hung = server.send("POST", "/predict", &digit).await;
        assert_eq!(server.ask("GET", "/health", "").await.0, 200);
        let mut byte = [0];
        assert!(tokio::time::timeout(Duration::from_millis(200), hung.read(&mut byte)).await.is_err());
        assert_eq!(server.json("POST", "/unhang", "").await.1["hangs"], "nothing");
        let mut answer = String::new();
        tokio::time::timeout(DEADLINE, hung.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    });
}

#[test]
fn a_whole_hang_stops_health_too_but_not_the_controls() {
    local(async {
        let server = Running::start(options()).await;
        server.ask("POST", "/hang?all=1", "").await;
        let mut hung = server.send("GET", "/health", "").await;
        let mut byte = [0];
        assert!(tokio::time::timeout(Duration::from_millis(200), hung.read(&mut byte)).await.is_err());
        assert_eq!(server.ask("POST", "/unhang", "").await.0, 200);
        assert_eq!(server.ask("GET", "/health", "").await.0, 200);
    });
}

#[test]
fn readiness_can_be_switched_by_hand() {
    local(async {
        let server = Running::start(options()).await;
        server.ask("POST", "/ready/disable", "").await;
        let (status, body) = server.json("GET", "/ready", "").await;
        assert_eq!((status, &body["reason"]), (503, &json!("disabled by hand")));
        assert_eq!(server.ask("GET", "/v2/models/digits/ready", "").await.0, 503);
        assert_eq!(server.ask("GET", "/health", "").await.0, 200);
        server.ask("POST", "/ready/enable", "").await;
        assert_eq!(server.ask("GET", "/ready", "").await.0, 200);
        assert_eq!(server.ask("GET", "/ready/disable", "").await.0, 405);
    });
}

#[test]
fn a_server_that_judges_itself_fails_its_probes_when_its_model_is_garbage() {
    local(async {
        let server = Running::start(Options { release: Release::V2, judge_self: true, ..options() }).await;
        assert_eq!(server.ask("GET", "/health", "").await.0, 503);
        assert_eq!(server.ask("GET", "/ready", "").await.0, 503);
        let (_, digit) = server.ask("GET", "/digits/1", "").await;
        let (status, answer) = server.json("POST", "/predict", &digit).await;
        assert_eq!((status, &answer["correct"]), (200, &json!(false)));
    });
}

#[test]
fn while_it_loads_with_its_port_open_it_is_alive_and_not_ready() {
    local(async {
        let slow = Options { load_time: DEADLINE, load_mode: LoadMode::Unavailable, ..options() };
        let server = Running::start(slow).await;
        assert_eq!(server.ask("GET", "/health", "").await.0, 200);
        assert_eq!(server.ask("GET", "/ready", "").await.0, 503);
        assert_eq!(server.ask("POST", "/predict", r#"{"pixels": []}"#).await.0, 400);
        let body = json!({ "pixels": vec![0; 64] }).to_string();
        let (status, answer) = server.json("POST", "/predict", &body).await;
        assert_eq!((status, &answer["error"]), (503, &json!("the model is still loading")));
    });
}

#[test]
fn metrics_count_requests_and_show_the_accuracy() {
    local(async {
        let server = Running::start(options()).await;
        let (_, digit) = server.ask("GET", "/digits/1", "").await;
        server.ask("POST", "/predict", &digit).await;
        server.ask("POST", "/predict", "{}").await;
        let (_, page) = server.ask("GET", "/metrics", "").await;
        for line in [
            "model_accuracy 0.98",
            "model_degraded 0",
            "model_predictions_total 1",
            "model_requests_total{code=\"200\"} 1",
            "model_requests_total{code=\"400\"} 1",
            "# TYPE model_latency_ms gauge",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in {page}");
        }
    });
}

#[test]
fn a_crash_ends_the_server_at_once() {
    local(async {
        let server = Running::start(options()).await;
        drop(server.send("POST", "/crash", "").await);
        let ending = tokio::time::timeout(DEADLINE, server.ended).await.unwrap().unwrap();
        assert_eq!(ending, Ok(Ending::Crashed));
    });
}

#[test]
fn stopping_lets_a_stream_end() {
    local(async {
        let server = Running::start(options()).await;
        let mut stream = server.send("POST", "/stream?tokens=5&interval_ms=20", "").await;
        let mut first = [0; 9];
        stream.read_exact(&mut first).await.unwrap();
        server.stop.send(()).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("[DONE]"), "{rest}");
        assert_eq!(server.ended.await.unwrap(), Ok(Ending::Stopped));
    });
}
