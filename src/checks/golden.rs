//! `golden`: labelled examples through the model server, and how many it gets right.
//!
//! One request at a time, all cases of the file within one attempt. Wrong answers fail the attempt by their share,
//! and over a window the engine adds them up; a server that says it is busy (429, 503) has said nothing about its
//! model; one that answers none of them in time has burnt the request, which the engine may hold against it. Requests
//! carry `x-probegate-golden`, so that the server's own numbers can leave them out.

mod cases;

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Response, StatusCode};

use super::Scene;
use crate::config::{GoldenCheck, TlsClient};
use crate::engine::{Answers, Fault, Outcome, Reading};
use crate::limits::CHECK_BODY_BYTES_MAX;
use crate::net::Failure;
use crate::net::http::{Target, fetch_watched};
use cases::{Case, Cases};

/// How the cases of one attempt were answered.
#[derive(Debug, Default)]
struct Tally {
    answers: Answers,
    /// The first that was wrong, and how.
    wrong: Option<String>,
}

impl Tally {
    fn reading(&self, cases: &Cases) -> Reading {
        Reading { answers: Some(self.answers), examples: cases.fingerprint, ..Reading::default() }
    }
}

/// Why an attempt ended before its cases did.
enum Broken {
    Busy(StatusCode),
    Failed(Failure),
}

pub(super) async fn attempt(spec: &GoldenCheck, scene: &Scene) -> Outcome {
    let path = spec.cases.clone();
    let cases = match scene.blocking("the cases to be read", move || cases::read(&path)).await {
        Ok(Ok(cases)) => cases,
        Ok(Err(reason)) => return scene.fail(Fault::Local, reason),
        Err(outcome) => return outcome,
    };
    let mut tally = Tally::default();
    let within = scene.timeout.saturating_sub(scene.elapsed()) * 9 / 10;
    let ended = tokio::time::timeout(within, ask_all(spec, &cases.all, scene, &mut tally)).await;
    let (answers, left) = (tally.answers, cases.all.len() - tally.answers.asked as usize);
    let is_open = answers.asked == 0 || !is_decided(spec, answers, left);
    let late = humantime::format_duration(Duration::from_millis(within.as_millis() as u64));
    match ended {
        Ok(Err(Broken::Failed(failure))) => scene.failed(failure),
        Ok(Err(Broken::Busy(status))) if is_open => {
            Outcome::unknown(format!("the model server is busy ({})", status.as_u16()), scene.elapsed())
        }
        Err(_elapsed) if answers.asked == 0 => {
            scene.fail(Fault::Timeout, format!("no answer to a golden request within {late}"))
        }
        Err(_elapsed) if is_open && !spec.accuracy.is_met(answers) => {
            let reason = format!("{answers} right, {left} without an answer within {late}");
            scene.fail(Fault::Timeout, reason).reading(tally.reading(&cases))
        }
        Ok(Ok(()) | Err(Broken::Busy(_))) | Err(_) => judge(spec, &tally, left, scene).reading(tally.reading(&cases)),
    }
}

/// Whether the answers to those that are left would make no difference.
fn is_decided(spec: &GoldenCheck, Answers { right, asked }: Answers, left: usize) -> bool {
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    let [least, most] = [right, right + left].map(|right| Answers { right, asked: asked + left });
    spec.accuracy.is_met(least) || !spec.accuracy.is_met(most)
}

async fn ask_all(spec: &GoldenCheck, cases: &[Case], scene: &Scene, tally: &mut Tally) -> Result<(), Broken> {
    for case in cases {
        let response = ask(spec, case, scene).await.map_err(Broken::Failed)?;
        let status = response.status();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) && !case.expects(status) {
            return Err(Broken::Busy(status));
        }
        tally.answers.asked += 1;
        match case.judge(status, response.body()) {
            Ok(()) => tally.answers.right += 1,
            Err(reason) => {
                tally.wrong.get_or_insert_with(|| format!("{}: {reason}", case.name));
            }
        }
    }
    Ok(())
}

async fn ask(spec: &GoldenCheck, case: &Case, scene: &Scene) -> Result<Response<Bytes>, Failure> {
    let uri = format!("http://{}{}", spec.address, case.path);
    let uri = uri.parse().map_err(|_| Failure::local(format!("the path of {} is malformed", case.name)))?;
    let target = Target::of(&uri, &TlsClient::default())?;
    let mut request = Request::builder().method(case.method.clone()).uri(uri).header("x-probegate-golden", "1");
    for (name, value) in &case.headers {
        if name != HOST {
            request = request.header(name, value);
        }
    }
    if case.is_json && !case.headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
        request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let request = request
        .body(Bytes::from(case.body.clone()))
        .map_err(|_| Failure::local(format!("the request of {} is malformed", case.name)))?;
    fetch_watched(&target, request, CHECK_BODY_BYTES_MAX, &|what| scene.waiting_for(what)).await
}

/// Of at least one case that was answered, with so many left.
fn judge(spec: &GoldenCheck, tally: &Tally, left: usize, scene: &Scene) -> Outcome {
    let unanswered = if left == 0 { String::new() } else { format!(", {left} without an answer") };
    let said = format!("{} right{unanswered}", tally.answers);
    if spec.accuracy.is_met(tally.answers) {
        return scene.pass().remark(said);
    }
    let wrong = tally.wrong.as_deref().unwrap_or_default();
    scene.fail(Fault::Answer, format!("{said}, {}; {wrong}", spec.accuracy.expectation()))
}

#[cfg(test)]
mod tests;
