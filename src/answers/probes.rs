//! The probe listener: the kubelet's questions, each answered at once.
//!
//! It owns the connections of its port and the counting of answers. It refuses to wait: only `/metrics`
//! (by message to another thread) and `/wait-for-drain` ever suspend, each on its own connection.

mod connections;
mod tally;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

pub use connections::serve_probes;

use super::dialects::{self, Dialect, Telling, Words};
use super::metrics::{MetricsHandle, PageFormat};
use super::opinion::Opinion;
use super::route::{Query, Question, question};
use crate::clock::Clock;
use crate::config::ShowDetails;
use crate::engine::{DrainPhase, Gate, Status, Time};
use crate::limits;
use crate::publish::Published;
use crate::telemetry::Telemetry;
use tally::Tally;

/// The sidecar's opinion of itself, for `/self`.
pub trait SelfCheck: Send + Sync {
    /// Fine, or which part is stuck, for a person. Must not block.
    fn verdict(&self) -> Result<(), String>;
}

/// What the probe listener answers from. Shared with whoever else answers the probe paths
/// (`listen.expose_probes`).
pub struct ProbeAnswers {
    published: Arc<Published>,
    clock: Clock,
    show: AtomicU8,
    self_check: Arc<dyn SelfCheck>,
    metrics: MetricsHandle,
    tally: Tally,
}

const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");

impl ProbeAnswers {
    pub fn new(
        published: Arc<Published>,
        clock: Clock,
        show: ShowDetails,
        self_check: Arc<dyn SelfCheck>,
        telemetry: &Telemetry,
        metrics: MetricsHandle,
    ) -> Arc<Self> {
        let tally = Tally::new(telemetry);
        Arc::new(Self { published, clock, show: AtomicU8::new(show as u8), self_check, metrics, tally })
    }

    /// Changes who may read reasons, from the next answer on: for a reload.
    pub fn show_details(&self, show: ShowDetails) {
        self.show.store(show as u8, Ordering::Relaxed);
    }

    /// Whether a path is one of ours, aliases and single checks included.
    pub fn is_probe_path(path: &str) -> bool {
        question(path).is_some()
    }

    /// Answers one request on a probe path (404 for any other). The request's body is not looked at.
    pub async fn answer<B>(&self, request: &Request<B>, peer: IpAddr) -> Response<Full<Bytes>> {
        let started = self.clock.now();
        let uri = request.uri();
        if limits::URI_BYTES_MAX < uri.path().len() + uri.query().map_or(0, str::len) {
            return refusal(StatusCode::URI_TOO_LONG, "the request's target is too long");
        }
        let Some(question) = question(uri.path()) else {
            return refusal(StatusCode::NOT_FOUND, "no such path");
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let query = Query::parse(uri.query());
        match question {
            Question::Gate(gate) => self.gate(gate, &query, request, peer, started),
            Question::Member(gate, name) => self.member(gate, &name, &query, request, peer),
            Question::SelfHealth => self.itself(&query, request, peer, started),
            Question::Metrics => {
                let format = PageFormat::preferred(request.headers());
                let page = self.metrics.page(format).await;
                respond(StatusCode::OK, Words { content_type: format.content_type(), body: page })
            }
            Question::WaitForDrain => self.wait_for_drain(query.within).await,
        }
    }

    pub(super) fn published(&self) -> &Arc<Published> {
        &self.published
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Counts an answer about a gate that was given in another protocol.
    pub(super) fn count(&self, gate: Gate, passed: bool, started: Time) {
        self.tally.count(gate.into(), passed, self.clock.now().since(started));
    }

    fn gate<B>(
        &self,
        gate: Gate,
        query: &Query,
        request: &Request<B>,
        peer: IpAddr,
        started: Time,
    ) -> Response<Full<Bytes>> {
        let snapshot = self.published.load();
        let dialect = Dialect::of(query, request.headers());
        let (status, words) = if dialect == Dialect::Short && query.exclude.is_empty() {
            let status = snapshot.gate(gate).status;
            (status, dialects::short(status))
        } else {
            let opinion = Opinion::of_gate(&snapshot, gate, &query.exclude);
            (opinion.status, self.tell(dialect, &opinion, peer))
        };
        let mut response = respond(code(status), words);
        if gate == Gate::Ready && status == Status::Warn {
            response.headers_mut().insert(DEGRADED, HeaderValue::from_static("true"));
        }
        self.count(gate, status.passes(), started);
        response
    }

    fn member<B>(
        &self,
        gate: Gate,
        name: &str,
        query: &Query,
        request: &Request<B>,
        peer: IpAddr,
    ) -> Response<Full<Bytes>> {
        let snapshot = self.published.load();
        match Opinion::of_member(&snapshot, gate, name) {
            Some(opinion) => {
                let dialect = Dialect::of(query, request.headers());
                respond(code(opinion.status), self.tell(dialect, &opinion, peer))
            }
            None => refusal(StatusCode::NOT_FOUND, "no check of that name"),
        }
    }

    fn tell(&self, dialect: Dialect, opinion: &Opinion<'_>, peer: IpAddr) -> Words {
        dialect.words(&Telling { opinion, clock: &self.clock, details: self.may_read(peer) })
    }

    fn itself<B>(&self, query: &Query, request: &Request<B>, peer: IpAddr, started: Time) -> Response<Full<Bytes>> {
        let verdict = self.self_check.verdict();
        let status = if verdict.is_ok() { Status::Pass } else { Status::Fail };
        let reason = match verdict {
            Err(_) if !self.may_read(peer) => Some("reason withheld".to_owned()),
            other => other.err(),
        };
        let words = match (Dialect::of(query, request.headers()), reason) {
            (Dialect::Short, _) => dialects::short(status),
            (Dialect::Kube, None) => dialects::text("[+]sidecar ok\nselfz check passed\n"),
            (Dialect::Kube, Some(reason)) => {
                dialects::text(format!("[-]sidecar failed: {reason}\nselfz check failed\n"))
            }
            (Dialect::HealthJson | Dialect::Actuator, None) => dialects::json(&json!({ "status": status.as_str() })),
            (Dialect::HealthJson | Dialect::Actuator, Some(reason)) => {
                dialects::json(&json!({ "status": status.as_str(), "output": reason }))
            }
        };
        self.tally.count(tally::Slot::Itself, status.passes(), self.clock.now().since(started));
        respond(code(status), words)
    }

    /// Holds the answer back while a drain that has begun is unfinished. The preStop hooks of a pod start together,
    /// so the model server's may come here before the sidecar's has begun the drain: `within` is how long to look out.
    async fn wait_for_drain(&self, within: Duration) -> Response<Full<Bytes>> {
        let mut changed = self.published.subscribe();
        let mut lookout = pin!(tokio::time::sleep(within));
        loop {
            let phase = self.published.load().drain.phase;
            let change = match phase {
                DrainPhase::Serving => tokio::select! {
                    biased;
                    change = changed.changed() => change,
                    () = &mut lookout => return respond(StatusCode::OK, dialects::text("not draining\n")),
                },
                DrainPhase::Done => return respond(StatusCode::OK, dialects::text("drained\n")),
                DrainPhase::Propagating | DrainPhase::Finishing => changed.changed().await,
            };
            if change.is_err() {
                return respond(StatusCode::OK, dialects::text("stopping\n"));
            }
        }
    }

    fn may_read(&self, peer: IpAddr) -> bool {
        let show = self.show.load(Ordering::Relaxed);
        show == ShowDetails::Always as u8 || (show == ShowDetails::Loopback as u8 && peer.to_canonical().is_loopback())
    }
}

impl fmt::Debug for ProbeAnswers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeAnswers").finish_non_exhaustive()
    }
}

/// 200 or 503, nothing else: a 3xx would count as success, a 4xx as a mistake of the kubelet's.
const fn code(status: Status) -> StatusCode {
    if status.passes() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn respond(code: StatusCode, words: Words) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(words.body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(words.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refusal(code: StatusCode, why: &str) -> Response<Full<Bytes>> {
    respond(code, dialects::json(&json!({ "error": why })))
}

/// The service of one connection.
async fn answer_infallibly<B>(
    answers: &ProbeAnswers,
    request: Request<B>,
    peer: IpAddr,
) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(answers.answer(&request, peer).await)
}
