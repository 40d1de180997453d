//! The admin listener over real sockets, with a driver that notes what it is told.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::answers::report::{Configuration, Traffic};
use crate::answers::sample;
use crate::control::{Command, Refusal};
use crate::engine::{Cause, Gate};
use crate::secret::Template;

const PATIENCE: Duration = Duration::from_secs(20);

struct Around;

impl Surroundings for Around {
    fn traffic(&self) -> Traffic {
        Traffic { in_flight: 3, requests: 1200, failed: 4, refused: 1 }
    }

    fn configuration(&self) -> Configuration {
        Configuration { source: "probegate.toml".into(), last_reload_successful: true, ..Configuration::default() }
    }

    fn stuck(&self) -> Option<String> {
        None
    }
}

struct Sidecar {
    addr: SocketAddr,
    published: Arc<Published>,
    told: Arc<Mutex<Vec<String>>>,
}

fn answers(token: Option<&str>) -> (Arc<AdminAnswers>, Arc<Mutex<Vec<String>>>) {
    let (control, mut calls) = Control::channel();
    let told = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&told);
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            let refuse = matches!(&call.command, Command::Heartbeat { check, .. } if check == "model");
            notes.lock().unwrap().push(format!("{:?}", call.command));
            let answer =
                if refuse { Err(Refusal::Invalid("model is no heartbeat check".into())) } else { Ok("done".into()) };
            let _ = call.reply.send(answer);
        }
    });
    let admin = AdminAnswers {
        published: Published::new(sample::redis_down()),
        clock: Clock::start(),
        control,
        token: token.map(|token| SecretSource::Template(Template::new(token))),
        surroundings: Arc::new(Around),
        readers: EventReaders::default(),
    };
    (Arc::new(admin), told)
}

fn start(token: Option<&str>) -> Sidecar {
    let (admin, told) = answers(token);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let published = Arc::clone(&admin.published);
    tokio::spawn(serve_admin(AdminListener::Tcp(listener), admin, std::future::pending()));
    Sidecar { addr, published, told }
}

impl Sidecar {
    async fn ask(&self, method: &str, target: &str, headers: &str, body: &str) -> (u16, String, String) {
        let host = if headers.contains("Host:") { String::new() } else { format!("Host: {}\r\n", self.addr) };
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time").ok();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        (code, head.to_ascii_lowercase(), body.to_owned())
    }

    async fn code(&self, method: &str, target: &str) -> u16 {
        self.ask(method, target, "", "").await.0
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

#[tokio::test]
async fn the_report_reads_back_as_what_it_is() {
    let sidecar = start(None);
    let (code, head, body) = sidecar.ask("GET", "/api/report", "", "").await;
    assert_eq!(code, 200, "{body}");
    assert!(head.contains("content-type: application/json") && head.contains("cache-control: no-store"));
    let report: Report = serde_json::from_str(&body).unwrap();
    assert_eq!(report.gates.ready.status, "fail");
    assert_eq!(report.gates.ready.why[0].check.as_deref(), Some("redis"));
    assert_eq!(report.checks[1].state, "down");
    assert_eq!(report.checks[1].last.as_ref().unwrap().result, "fail");
    assert_eq!((report.traffic.requests, report.checks[1].interval_ms), (1200, 5000));
    assert!(report.at.ends_with('Z') && report.drain.since.is_none());
}

#[tokio::test]
async fn commands_reach_the_driver_as_they_were_meant() {
    let sidecar = start(None);
    for (method, target, command) in [
        ("POST", "/drain", "Drain"),
        ("POST", "/ready/disable", "SetReady(false)"),
        ("POST", "/ready/enable", "SetReady(true)"),
        ("POST", "/reload", "Reload"),
        (
            "POST",
            "/checks/redis/override?state=up&ttl=10m",
            r#"Override { check: "redis", forced: Some(Up), ttl: 600s }"#,
        ),
        ("POST", "/checks/redis/override?state=auto", r#"Override { check: "redis", forced: None, ttl: 0ns }"#),
        ("DELETE", "/checks/redis/override", r#"Override { check: "redis", forced: None, ttl: 0ns }"#),
    ] {
        let (code, _, body) = sidecar.ask(method, target, "", "").await;
        assert_eq!((code, body.as_str()), (200, r#"{"message":"done"}"#), "{target}");
        assert_eq!(sidecar.told(), [command], "{target}");
    }
    let (code, ..) = sidecar.ask("PUT", "/heartbeats/redis", "", "epoch 7\nloss 0.1").await;
    assert_eq!(code, 200);
    assert_eq!(sidecar.told(), [r#"Heartbeat { check: "redis", status: "epoch 7 loss 0.1" }"#]);
}

#[tokio::test]
async fn what_is_wrong_is_told_and_never_reaches_the_driver() {
    let sidecar = start(None);
    for (method, target, code, words) in [
        ("POST", "/checks/redis/override?state=up", 400, "ttl is missing"),
        ("POST", "/checks/redis/override?state=up&ttl=0s", 400, "expected 1s to 24h"),
        ("POST", "/checks/redis/override?state=up&ttl=999ms", 400, "expected 1s to 24h"),
        ("POST", "/checks/redis/override?state=up&ttl=25h", 400, "expected 1s to 24h"),
        ("POST", "/checks/redis/override?state=up&ttl=soon", 400, "expected a duration"),
        ("POST", "/checks/redis/override?state=sideways&ttl=1m", 400, "expected up, down or auto"),
        ("POST", "/checks/redis/override?ttl=1m", 400, "state is missing"),
        ("POST", "/checks/rediss/override?state=up&ttl=1m", 404, r#"the nearest is \"redis\""#),
        ("PUT", "/heartbeats/mode", 404, r#"the nearest is \"model\""#),
        ("GET", "/drain", 405, "another method"),
        ("POST", "/api/report", 405, "another method"),
        ("GET", "/nope", 404, "no such path"),
        ("POST", "/checks//override?state=up&ttl=1m", 404, "no such path"),
    ] {
        let (got, head, body) = sidecar.ask(method, target, "", "").await;
        assert!(got == code && body.contains(words), "{method} {target}: {got} {body}");
        assert!(body.starts_with(r#"{"error":"#) && (code != 405 || head.contains("allow: ")), "{head}");
    }
    assert_eq!(sidecar.told(), Vec::<String>::new());
    for ttl in ["1s", "24h"] {
        assert_eq!(sidecar.code("POST", &format!("/checks/redis/override?state=down&ttl={ttl}")).await, 200);
    }
    let (code, _, body) = sidecar.ask("PUT", "/heartbeats/model", "", "x").await;
    assert_eq!((code, body.as_str()), (400, r#"{"error":"model is no heartbeat check"}"#));
    let (code, ..) = sidecar.ask("PUT", "/heartbeats/redis", "", &"x".repeat(limits::ADMIN_BODY_BYTES_MAX)).await;
    assert_eq!(code, 200);
    let (code, ..) = sidecar.ask("PUT", "/heartbeats/redis", "", &"x".repeat(limits::ADMIN_BODY_BYTES_MAX + 1)).await;
    assert_eq!(code, 413);
}

#[tokio::test]
async fn other_sites_and_rebound_names_are_refused() {
    let sidecar = start(None);
    for headers in ["Host: evil.example\r\n", "Host: evil.example:9091\r\n", "Host: \r\n"] {
        assert_eq!(sidecar.ask("POST", "/drain", headers, "").await.0, 403, "{headers}");
        assert_eq!(sidecar.ask("GET", "/api/report", headers, "").await.0, 403, "{headers}");
    }
    for headers in ["Origin: https://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        assert_eq!(sidecar.ask("POST", "/drain", headers, "").await.0, 403, "{headers}");
        assert_eq!(sidecar.ask("DELETE", "/checks/redis/override", headers, "").await.0, 403, "{headers}");
    }
    assert_eq!(sidecar.told(), Vec::<String>::new());
    let own = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", sidecar.addr);
    assert_eq!(sidecar.ask("POST", "/drain", &own, "").await.0, 200);
    assert_eq!(sidecar.ask("POST", "/drain", "Host: localhost:9091\r\n", "").await.0, 200);
}

#[tokio::test]
async fn a_token_is_needed_where_one_is_configured() {
    let sidecar = start(Some("s3cret"));
    let (code, head, body) = sidecar.ask("GET", "/api/report", "", "").await;
    assert_eq!(code, 401);
    assert!(head.contains("www-authenticate: bearer") && !body.contains("s3cret"), "{head}");
    for wrong in ["Bearer s3cre", "Bearer s3crets", "Bearer", "Bearer ", "Basic !", "Digest s3cret", "s3cret"] {
        let header = format!("Authorization: {wrong}\r\n");
        assert_eq!(sidecar.ask("POST", "/drain", &header, "").await.0, 401, "{wrong}");
    }
    for right in ["Bearer s3cret", "bearer s3cret", "Basic YW55Ym9keTpzM2NyZXQ="] {
        let header = format!("Authorization: {right}\r\nHost: sidecar.example\r\n");
        assert_eq!(sidecar.ask("POST", "/drain", &header, "").await.0, 200, "{right}");
    }
    let empty = start(Some(""));
    assert_eq!(
        empty.ask("POST", "/drain", "Authorization: Bearer \r\n", "").await.0,
        401,
        "an empty token opens nothing"
    );
}

#[tokio::test]
async fn a_unix_socket_needs_neither_host_nor_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (admin, told) = answers(None);
    tokio::spawn(serve_admin(AdminListener::Unix(listener), admin, std::future::pending()));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"POST /drain HTTP/1.1\r\nHost: probegate\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(*told.lock().unwrap(), ["Drain"]);
}

#[tokio::test]
async fn events_tell_the_report_now_and_at_each_change() {
    let sidecar = start(None);
    let mut stream = TcpStream::connect(sidecar.addr).await.unwrap();
    stream.write_all(format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", sidecar.addr).as_bytes()).await.unwrap();
    let mut seen = String::new();
    let mut until = async |words: &str| {
        let mut buffer = [0; 4096];
        while !seen.contains(words) {
            let count = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("an event in time").unwrap();
            assert_ne!(count, 0, "the stream ended before {words:?}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    until("content-type: text/event-stream").await;
    until("event: report\ndata: {").await;
    until("redis is down").await;
    let mut next = sample::healthy();
    sample::because(&mut next, Gate::Health, Cause::Gone, "the model server is gone");
    sidecar.published.store(next);
    until("the model server is gone").await;
    until("event: traffic\ndata: {\"in_flight\":3").await;
}

#[tokio::test]
async fn open_status_pages_never_keep_a_command_out() {
    let sidecar = start(None);
    let request = format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", sidecar.addr);
    let mut pages = Vec::new();
    for _ in 0..limits::EVENTS_READERS_MAX {
        let mut page = TcpStream::connect(sidecar.addr).await.unwrap();
        page.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 15];
        timeout(PATIENCE, page.read_exact(&mut first)).await.expect("an answer in time").unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        pages.push(page);
    }
    let (code, _, body) = sidecar.ask("GET", "/api/events", "", "").await;
    assert_eq!((code, body.as_str()), (503, r#"{"error":"too many readers of events at once"}"#));
    assert_eq!(sidecar.code("POST", "/drain").await, 200);
    drop(pages);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut page = TcpStream::connect(sidecar.addr).await.unwrap();
        page.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 15];
        timeout(PATIENCE, page.read_exact(&mut first)).await.expect("an answer in time").unwrap();
        if &first == b"HTTP/1.1 200 OK" {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "a page that was closed still holds its place");
    }
}

#[tokio::test]
async fn the_page_is_whole_and_loads_nothing_from_outside() {
    let sidecar = start(None);
    let (code, head, body) = sidecar.ask("GET", "/", "", "").await;
    assert_eq!(code, 200);
    assert!(head.contains("content-security-policy: default-src 'none'") && body.ends_with("</html>\n"));
    for outside in ["src=", "@import", "url(", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"] {
        assert!(!body.contains(outside), "the page uses {outside}");
    }
}

#[tokio::test]
async fn a_silent_driver_is_a_504_and_not_a_hang() {
    let (control, _calls) = Control::channel();
    let (admin, _) = answers(None);
    let admin = AdminAnswers {
        published: Arc::clone(&admin.published),
        clock: admin.clock,
        control,
        token: None,
        surroundings: Arc::new(Around),
        readers: EventReaders::default(),
    };
    tokio::time::pause();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let published = Arc::clone(&admin.published);
    tokio::spawn(serve_admin(AdminListener::Tcp(listener), Arc::new(admin), std::future::pending()));
    let sidecar = Sidecar { addr, published, told: Arc::default() };
    assert_eq!(sidecar.code("POST", "/drain").await, 504);
}
