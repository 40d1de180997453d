//! `http`: one request, judged by its status and by what its body says.
//!
//! No redirect is followed: a 3xx is a status like any other. Neither the URL nor a header nor the request's
//! body is ever part of a reason, and where the answer repeats a secret that was sent, it is blotted out.

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderValue, Request, Response, StatusCode, Uri};

use super::{Scene, json};
use crate::config::{HttpCheck, StatusRange};
use crate::engine::{Fault, Outcome, Sign};
use crate::limits::CHECK_BODY_BYTES_MAX;
use crate::net::Failure;
use crate::net::http::{Target, fetch_watched};
use crate::secret::SecretSource;

/// Characters of a body that a reason shows.
const BODY_SHOWN: usize = 80;
/// Shorter texts than this are words, and blotting them out would only garble the reason.
const SECRET_BYTES_MIN: usize = 4;

pub(super) async fn attempt(spec: &HttpCheck, scene: &Scene) -> Outcome {
    let mut secrets = Vec::new();
    let mut outcome = match ask(spec, scene, &mut secrets).await {
        Ok(response) => {
            scene.saw(Sign::Answered);
            match judge(spec, &response) {
                Ok(()) => scene.pass(),
                Err(reason) => scene.fail(Fault::Answer, reason),
            }
        }
        Err(failure) => scene.failed(failure),
    };
    for secret in &secrets {
        outcome.reason = blotted(outcome.reason, secret);
    }
    outcome
}

/// A reason without the secret, nor its beginning where the reason was cut in the middle of it.
fn blotted(reason: String, secret: &str) -> String {
    const BLOT: &str = "[secret]";
    if secret.len() < SECRET_BYTES_MIN {
        return reason;
    }
    let quoted = serde_json::Value::from(secret).to_string();
    let reason = reason.replace(secret, BLOT).replace(quoted.trim_matches('"'), BLOT);
    let Some((shown, rest)) = reason.split_once('…') else { return reason };
    let starts = secret.char_indices().map(|(at, _)| &secret[..at]).filter(|start| start.len() >= SECRET_BYTES_MIN);
    match starts.rev().find_map(|start| shown.strip_suffix(start)) {
        Some(before) => format!("{before}{BLOT}…{rest}"),
        None => reason,
    }
}

async fn ask(spec: &HttpCheck, scene: &Scene, secrets: &mut Vec<String>) -> Result<Response<Bytes>, Failure> {
    let url = resolved(&spec.url, "the URL", secrets)?;
    let uri: Uri = url.parse().map_err(|_| Failure::local("the URL is malformed"))?;
    let target = Target::of(&uri, &spec.tls)?;
    let mut request = Request::builder().method(spec.method.clone()).uri(uri);
    if !spec.headers.iter().any(|(name, _)| name == ACCEPT) {
        request = request.header(ACCEPT, HeaderValue::from_static("*/*"));
    }
    for (name, value) in &spec.headers {
        let value = resolved(value, &format!("header {name}"), secrets)?;
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| Failure::local(format!("the value of header {name} holds a forbidden character")))?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    let body = spec.body.clone().unwrap_or_default();
    let request = request.body(Bytes::from(body)).map_err(|_| Failure::local("the request is malformed"))?;
    fetch_watched(&target, request, CHECK_BODY_BYTES_MAX, &|what| scene.waiting_for(what)).await
}

/// The value of a source, its secret parts noted for blotting out.
fn resolved(source: &SecretSource, what: &str, secrets: &mut Vec<String>) -> Result<String, Failure> {
    let value = source.resolve().map_err(|error| Failure::local(format!("{what}: {error}")))?;
    match source {
        SecretSource::File(_) => secrets.push(value.expose().to_owned()),
        SecretSource::Template(template) => {
            let values = template.variables().into_iter().filter_map(|name| std::env::var(name).ok());
            secrets.extend(values);
        }
    }
    Ok(value.expose().to_owned())
}

fn judge(spec: &HttpCheck, response: &Response<Bytes>) -> Result<(), String> {
    let status = response.status();
    if !spec.status.iter().any(|range| (range.from..=range.to).contains(&status.as_u16())) {
        return Err(wrong_status(status, &spec.status, response.body()));
    }
    json::judge(response.body(), &spec.json)?;
    if spec.matches.is_none() && spec.not_matches.is_none() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(response.body());
    if let Some(regex) = spec.matches.as_ref().filter(|regex| !regex.is_match(&text)) {
        return Err(format!("body does not match /{}/: {}", regex.as_str(), glimpse(&text)));
    }
    if let Some(found) = spec.not_matches.as_ref().and_then(|regex| regex.find(&text)) {
        return Err(format!("body holds what it must not: {}", glimpse(found.as_str())));
    }
    Ok(())
}

fn wrong_status(status: StatusCode, expected: &[StatusRange], body: &[u8]) -> String {
    let name = status.canonical_reason().map(|name| format!(" ({name})")).unwrap_or_default();
    let expected: Vec<_> = expected.iter().map(range).collect();
    let body = glimpse(&String::from_utf8_lossy(body));
    let colon = if body.is_empty() { "" } else { ": " };
    format!("status {}{name}, expected {}{colon}{body}", status.as_u16(), expected.join(" or "))
}

fn range(range: &StatusRange) -> String {
    if range.from == range.to { range.from.to_string() } else { format!("{}-{}", range.from, range.to) }
}

/// The first characters of a text, its white space and control characters made single blanks.
fn glimpse(text: &str) -> String {
    // Far more than is shown, far less than a body may be.
    let start: String = text.chars().take(BODY_SHOWN * 8).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = start.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(BODY_SHOWN) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests;
