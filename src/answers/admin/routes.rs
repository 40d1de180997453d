//! The admin paths: which command a request is, and what is said about it.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_SECURITY_POLICY, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::{AdminAnswers, Reply, Way, events, guard, json, refusal, reply};
use crate::answers::route::decode;
use crate::config::nearest;
use crate::control::{Command, Refusal};
use crate::engine::Forced;
use crate::limits;

const PAGE: &str = include_str!("page.html");
/// The page brings everything along; nothing else may load, and nobody may frame it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a path is about.
enum Place {
    Disable,
    Drain,
    Enable,
    Events,
    Heartbeat(String),
    Override(String),
    Page,
    Reload,
    Report,
}

/// Answers one request.
pub(super) async fn answer(admin: &Arc<AdminAnswers>, way: Way, request: Request<Incoming>) -> Reply {
    if let Err(refused) = guard::admit(&request, way, admin.token.as_ref()) {
        return *refused;
    }
    let Some(place) = place(request.uri().path()) else {
        return refusal(StatusCode::NOT_FOUND, "no such path");
    };
    let allowed = place.methods();
    let method = request.method().clone();
    if !allowed.contains(&method) {
        let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "another method is needed here");
        let names: Vec<_> = allowed.iter().map(Method::as_str).collect();
        if let Ok(value) = HeaderValue::try_from(names.join(", ")) {
            response.headers_mut().insert(ALLOW, value);
        }
        return response;
    }
    match place {
        Place::Page => page(),
        Place::Report => json(StatusCode::OK, &admin.report()),
        Place::Events => events::stream(admin),
        Place::Drain => call(admin, Command::Drain).await,
        Place::Disable => call(admin, Command::SetReady(false)).await,
        Place::Enable => call(admin, Command::SetReady(true)).await,
        Place::Reload => call(admin, Command::Reload).await,
        Place::Override(check) => match over(&check, &method, request.uri().query()) {
            Ok(command) => known(admin, &check, command).await,
            Err(why) => refusal(StatusCode::BAD_REQUEST, &why),
        },
        Place::Heartbeat(check) => match text(request).await {
            Ok(status) => known(admin, &check.clone(), Command::Heartbeat { check, status }).await,
            Err(response) => *response,
        },
    }
}

fn place(path: &str) -> Option<Place> {
    let named = |prefix: &str, suffix: &str| {
        let name = path.strip_prefix(prefix)?.strip_suffix(suffix)?;
        (!name.is_empty() && !name.contains('/')).then(|| decode(name))
    };
    Some(match path {
        "/" => Place::Page,
        "/api/report" => Place::Report,
        "/api/events" => Place::Events,
        "/drain" => Place::Drain,
        "/ready/disable" => Place::Disable,
        "/ready/enable" => Place::Enable,
        "/reload" => Place::Reload,
        _ => named("/checks/", "/override")
            .map(Place::Override)
            .or_else(|| named("/heartbeats/", "").map(Place::Heartbeat))?,
    })
}

impl Place {
    const fn methods(&self) -> &'static [Method] {
        match self {
            Self::Events => &[Method::GET],
            Self::Page | Self::Report => &[Method::GET, Method::HEAD],
            Self::Disable | Self::Drain | Self::Enable | Self::Reload => &[Method::POST],
            Self::Heartbeat(_) => &[Method::PUT, Method::POST],
            Self::Override(_) => &[Method::POST, Method::DELETE],
        }
    }
}

fn page() -> Reply {
    let mut response = reply(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// Says a command about a check that exists; otherwise names the nearest that does.
async fn known(admin: &AdminAnswers, check: &str, command: Command) -> Reply {
    let snapshot = admin.published.load_full();
    if snapshot.check_named(check).is_some() {
        return call(admin, command).await;
    }
    let nearest = nearest(check, snapshot.checks.iter().map(|check| check.name.as_str()));
    let hint = nearest.map_or_else(String::new, |name| format!("; the nearest is {name:?}"));
    refusal(StatusCode::NOT_FOUND, &format!("no check is called {:?}{hint}", shortened(check)))
}

async fn call(admin: &AdminAnswers, command: Command) -> Reply {
    match admin.control.call(command).await {
        Ok(message) => json(StatusCode::OK, &json!({ "message": message })),
        Err(refused) => {
            let code = match refused {
                Refusal::NotFound(_) => StatusCode::NOT_FOUND,
                Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
                Refusal::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            };
            refusal(code, &refused.to_string())
        }
    }
}

/// The command of `/checks/NAME/override`.
fn over(check: &str, method: &Method, query: Option<&str>) -> Result<Command, String> {
    let value = |key: &str| {
        let mut pairs = query.unwrap_or_default().rsplit('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(k, _)| *k == key).map(|(_, value)| decode(value))
    };
    let check = check.to_owned();
    let clear = |check| Command::Override { check, forced: None, ttl: Duration::ZERO };
    if method == Method::DELETE {
        return Ok(clear(check));
    }
    let forced = match value("state").as_deref() {
        Some("up") => Forced::Up,
        Some("down") => Forced::Down,
        Some("auto") => return Ok(clear(check)),
        Some(other) => return Err(format!("state is {:?}, expected up, down or auto", shortened(other))),
        None => return Err("state is missing: up, down or auto".to_owned()),
    };
    let typed = value("ttl").ok_or("ttl is missing: an override always ends, as in ttl=10m")?;
    let ttl = humantime::parse_duration(&typed)
        .map_err(|error| format!("ttl is {:?}, expected a duration as in 10m: {error}", shortened(&typed)))?;
    if ttl < limits::OVERRIDE_TTL_MIN || limits::OVERRIDE_TTL_MAX < ttl {
        return Err(format!("ttl is {:?}, expected 1s to 24h", shortened(&typed)));
    }
    Ok(Command::Override { check, forced: Some(forced), ttl })
}

/// A short text body: one line, control characters replaced.
async fn text(request: Request<Incoming>) -> Result<String, Box<Reply>> {
    let body = Limited::new(request.into_body(), limits::ADMIN_BODY_BYTES_MAX).collect().await.map_err(|error| {
        Box::new(if error.is::<http_body_util::LengthLimitError>() {
            refusal(StatusCode::PAYLOAD_TOO_LARGE, "the status text is too long")
        } else {
            refusal(StatusCode::BAD_REQUEST, "the body did not come whole")
        })
    })?;
    let text = String::from_utf8_lossy(&body.to_bytes()).trim().replace(char::is_control, " ");
    Ok(shortened(&text).to_owned())
}

/// At most as much of a text as a line of ours may hold.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(limits::REASON_BYTES_MAX)]
}
