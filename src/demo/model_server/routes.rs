//! Paths to answers: health, the two inference APIs, and the controls that break the server on purpose.

use std::rc::Rc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::json;
use url::form_urlencoded;

use super::reply::{Fault, Reply, json_reply, method_not_allowed, text_reply};
use super::server::{Faults, Hang, Server};
use super::{metrics, native, oip, stream};

/// A full batch in JSON is a quarter of this.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// A slower inference than this is a hang, and there is a control for that.
const SLOW_MAX: Duration = Duration::from_secs(600);

/// Answers one request. Never fails: an error is an answer too.
pub(super) async fn answer(server: Rc<Server>, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    // The controls answer even while everything else hangs, or nobody could end the hang.
    if let Some(reply) = control(&server, &head) {
        return reply;
    }
    server.anything_moves().await;
    let inference = path == "/predict" || path == "/stream" || path.ends_with("/infer");
    let began = server.clock.now();
    let reply = match route(&server, &head, body).await {
        Ok(reply) => reply,
        Err(fault) => fault.reply(),
    };
    if inference {
        let now = server.clock.now();
        server.meters.answered(reply.status().as_u16(), now, now - began);
    }
    reply
}

async fn route(server: &Rc<Server>, head: &Parts, body: Incoming) -> Result<Reply, Fault> {
    let read = [Method::GET, Method::HEAD].contains(&head.method);
    let path = head.uri.path();
    match path {
        "/predict" if head.method == Method::POST => native::predict(server, &collect(body).await?).await,
        "/predict" => Ok(method_not_allowed("POST")),
        "/stream" if read || head.method == Method::POST => stream::stream(server, head.uri.query()).await,
        "/stream" => Ok(method_not_allowed("GET, HEAD, POST")),
        "/v2" => oip::route(server, &head.method, "", &[]).await,
        _ if path.starts_with("/v2/") => oip::route(server, &head.method, &path[4..], &collect(body).await?).await,
        "/" | "/health" | "/ready" | "/metrics" if !read => Ok(method_not_allowed("GET, HEAD")),
        "/" => Ok(text_reply("text/plain; charset=utf-8", INDEX.to_owned())),
        "/health" => Ok(health(server)),
        "/ready" => Ok(match ready(server) {
            Ok(()) => json_reply(StatusCode::OK, &json!({ "status": "ready" })),
            Err(reason) => unavailable("not ready", reason),
        }),
        "/metrics" => Ok(text_reply("text/plain; version=0.0.4; charset=utf-8", metrics::page(server))),
        _ if path.starts_with("/digits/") && !read => Ok(method_not_allowed("GET, HEAD")),
        _ if path.starts_with("/digits/") => native::digit(server, &path[8..], head.uri.query()),
        _ => Err(Fault::not_found(format!("no such path: {path}; GET / lists what there is"))),
    }
}

/// What `GET /` shows.
const INDEX: &str = "\
A model server that reads handwritten digits.
  POST /predict   {\"pixels\": [64 numbers]} or {\"instances\": [[64 numbers], ...]}
  POST /stream    ?digit=0&tokens=20&interval_ms=50, server-sent events
  GET  /digits/N  a digit of the test set as a body for /predict; ?as=picture draws it
  GET  /v2        Open Inference Protocol v2, model \"digits\"
  GET  /health  /ready  /metrics
Break it: POST /crash  /hang  /hang?all=1  /ready/disable  /degrade  /slow?ms=500
Mend it:  POST /unhang  /ready/enable  /recover  /slow?ms=0
";

async fn collect(body: Incoming) -> Result<Vec<u8>, Fault> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the body is longer than {BODY_BYTES_MAX} bytes");
            Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, message))
        }
        Err(error) => Err(Fault::bad_request(format!("the body cannot be read: {error}"))),
    }
}

fn health(server: &Server) -> Reply {
    if server.options.judge_self && server.degraded() {
        return unavailable("unhealthy", "accuracy is below 0.8");
    }
    json_reply(StatusCode::OK, &json!({ "status": "healthy", "version": server.options.release.name() }))
}

/// Whether `/ready` says yes, or why not.
pub(super) fn ready(server: &Server) -> Result<(), &'static str> {
    if server.loaded().is_none() {
        return Err("the model is still loading");
    }
    if server.faults().unready {
        return Err("disabled by hand");
    }
    if server.options.judge_self && server.degraded() {
        return Err("accuracy is below 0.8");
    }
    Ok(())
}

fn unavailable(status: &str, reason: &str) -> Reply {
    json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": status, "reason": reason }))
}

/// Answers a control, if this is one.
fn control(server: &Server, head: &Parts) -> Option<Reply> {
    let path = head.uri.path();
    if !["/crash", "/hang", "/unhang", "/ready/disable", "/ready/enable", "/degrade", "/recover", "/slow"]
        .contains(&path)
    {
        return None;
    }
    if head.method != Method::POST {
        return Some(method_not_allowed("POST"));
    }
    let query = head.uri.query().unwrap_or_default();
    let faults = match path {
        "/crash" => {
            server.crash.notify_one();
            server.faults()
        }
        "/hang" if query == "all=1" => server.break_or_mend(|faults| faults.hang = Hang::Everything),
        "/hang" => server.break_or_mend(|faults| faults.hang = Hang::Inference),
        "/unhang" => server.break_or_mend(|faults| faults.hang = Hang::Nothing),
        "/ready/disable" => server.break_or_mend(|faults| faults.unready = true),
        "/ready/enable" => server.break_or_mend(|faults| faults.unready = false),
        "/degrade" => server.break_or_mend(|faults| faults.degraded = true),
        "/recover" => server.break_or_mend(|faults| faults.degraded = false),
        _ => match slow(query) {
            Ok(slow) => server.break_or_mend(|faults| faults.slow = slow),
            Err(fault) => return Some(fault.reply()),
        },
    };
    Some(json_reply(StatusCode::OK, &state(server, faults)))
}

fn slow(query: &str) -> Result<Duration, Fault> {
    let value = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "ms").map(|(_, value)| value);
    let wanted = value.and_then(|value| value.parse().ok()).map(Duration::from_millis);
    let most = SLOW_MAX.as_millis();
    wanted
        .filter(|slow| *slow <= SLOW_MAX)
        .ok_or_else(|| Fault::bad_request(format!("expected ?ms= with a number from 0 to {most}")))
}

/// What is broken now, as every control answers.
fn state(server: &Server, faults: Faults) -> serde_json::Value {
    let hang = match faults.hang {
        Hang::Nothing => "nothing",
        Hang::Inference => "inference",
        Hang::Everything => "everything",
    };
    json!({
        "hangs": hang,
        "ready": ready(server).is_ok(),
        "noise": faults.degraded,
        "slow_ms": faults.slow.as_millis() as u64,
        "accuracy": server.accuracy(),
    })
}
