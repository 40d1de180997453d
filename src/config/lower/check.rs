//! One check's common keys: when it runs, what counts.

use std::time::Duration;

use super::super::fault::{Fault, Faults, KeyPath, join};
use super::super::plan::{CheckSpec, Kind, ProgressCheck};
use super::super::raw::{RawCheck, RawOnStale, RawOnTimeout, RawScope, Span, TextOr};
use super::super::units;
use super::{Scene, kinds};
use crate::engine::{
    BackendId, CheckPlan, CounterPlan, FailureRule, OnStale, OnTimeout, ProgressPlan, Scope, Subject, TrafficRule,
};
use crate::limits;

/// Thresholds above this are a typing error.
const THRESHOLD_MAX: i64 = 1000;
/// A check that runs more often is a load test.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Whether the check names no place of its own but the upstream: `tcp = "upstream"`, `http = "/health"`.
pub(super) fn is_of_upstream(raw: &RawCheck) -> bool {
    let is = |text: Option<&str>| text.is_some_and(|text| text == "upstream" || text.starts_with('/'));
    let http = match &raw.http {
        Some(TextOr::Text(url)) => is(Some(url)),
        Some(TextOr::Other(table)) => is(table.url.as_deref()),
        None => false,
    };
    let tcp = match &raw.tcp {
        Some(TextOr::Text(address)) => is(Some(address)),
        Some(TextOr::Other(table)) => is(table.address.as_deref()),
        None => false,
    };
    let grpc = match &raw.grpc {
        Some(TextOr::Text(address)) => is(Some(address)),
        Some(TextOr::Other(table)) => is(table.address.as_deref()),
        None => false,
    };
    http || tcp || grpc
}

/// The check's life and what it does; none if its kind is faulty. `backend` is the upstream address it is about if it
/// is about the upstream.
pub(super) fn lower(
    name: &str,
    raw: &RawCheck,
    here: &KeyPath,
    backend: BackendId,
    scene: &Scene,
    faults: &mut Faults,
) -> Option<(CheckPlan, CheckSpec)> {
    let mut life = CheckPlan::new(name, "");
    times(raw, here, &mut life, faults);
    counts(raw, here, &mut life, faults);
    life.jitter_permille = raw.jitter.as_ref().map_or(limits::CHECK_JITTER_PERMILLE, |jitter| jitter.0);
    life.on_stale = match raw.on_stale {
        Some(RawOnStale::Hold) => OnStale::Hold,
        Some(RawOnStale::Degrade) => OnStale::Degrade,
        Some(RawOnStale::Fail) | None => OnStale::Fail,
    };
    life.on_timeout = match raw.on_timeout {
        Some(RawOnTimeout::Unknown) => OnTimeout::Unknown,
        Some(RawOnTimeout::UnknownWhileMoving) => OnTimeout::UnknownWhileMoving,
        // Labelled examples wait in the same queue as the users.
        None if raw.golden.is_some() => OnTimeout::UnknownWhileMoving,
        Some(RawOnTimeout::Fail) | None => OnTimeout::Fail,
    };
    life.scope = match raw.scope {
        Some(RawScope::Shared) => Scope::Shared,
        Some(RawScope::Pod) | None => Scope::Pod,
    };
    life.accept_cascade = words(raw.accept_cascade.as_deref(), here, "accept_cascade", faults);
    life.runbook = words(raw.runbook.as_deref(), here, "runbook", faults);
    let lowered = kinds::lower(raw, here, backend, scene, faults)?;
    life.kind = lowered.name;
    life.target = lowered.target;
    life.subject = lowered.subject;
    if life.on_timeout == OnTimeout::UnknownWhileMoving && life.subject == Subject::Remote {
        let fault = Fault::value(join(here, "on_timeout"), "the model server's traffic says nothing of another server");
        faults.push(fault.expected(r#""fail" or "unknown""#));
    }
    match &lowered.kind {
        Kind::Golden(golden) => {
            life.only_when_idle = golden.only_when_idle;
            life.accuracy = Some(golden.accuracy);
        }
        Kind::Outcomes(rule) => life.rule = Some(TrafficRule::Outcomes(*rule)),
        Kind::Saturation(check) => life.rule = Some(TrafficRule::Saturation(check.rule.clone())),
        Kind::Progress(progress) => life.rule = Some(TrafficRule::Progress(progress_rule(progress))),
        _ => {}
    }
    Some((life, CheckSpec { name: name.to_owned(), kind: lowered.kind }))
}

/// The engine's part of a `progress` check. Its golden check is found once every name is known.
fn progress_rule(check: &ProgressCheck) -> ProgressPlan {
    ProgressPlan {
        stall_after: check.stall_after,
        counter: check.counter.as_ref().map(|counter| CounterPlan { name: counter.name.clone(), lag: counter.lag }),
        cpu: check.process.as_ref().map(|(_, name)| name.clone()),
        golden: None,
    }
}

fn times(raw: &RawCheck, here: &KeyPath, life: &mut CheckPlan, faults: &mut Faults) {
    let mut least = |span: &Option<Span>, key: &str, min: Duration| -> Option<Duration> {
        let span = span.as_ref()?.0;
        if span < min {
            let fault = Fault::value(join(here, key), format!("found {}", units::show(span)));
            faults.push(fault.expected(format!("at least {}", units::show(min))));
            return None;
        }
        Some(span)
    };
    let tick = Duration::from_millis(1);
    // Labelled examples cost the model server real work, and it may think about each.
    let golden = raw.golden.is_some();
    let (usual, patience) = if golden {
        (limits::GOLDEN_INTERVAL, limits::GOLDEN_TIMEOUT)
    } else {
        (limits::CHECK_INTERVAL, limits::CHECK_TIMEOUT)
    };
    let interval = least(&raw.interval, "interval", INTERVAL_MIN).unwrap_or(usual);
    let shortest = if interval <= patience { interval / 2 } else { patience };
    life.interval = interval;
    life.timeout = least(&raw.timeout, "timeout", tick).unwrap_or(shortest);
    life.fast_interval = least(&raw.fast_interval, "fast_interval", INTERVAL_MIN).unwrap_or(interval);
    life.down_interval = least(&raw.down_interval, "down_interval", INTERVAL_MIN).unwrap_or(interval);
    life.pending_interval = life.fast_interval.min(limits::CHECK_PENDING_INTERVAL_MAX);
    life.initial_delay = raw.initial_delay.as_ref().map_or(Duration::ZERO, |span| span.0);
    life.max_withdrawal = least(&raw.max_withdrawal, "max_withdrawal", tick);
    // A check that looks more rarely while down must not forget in between that it is.
    let oldest = interval.max(life.down_interval).max(life.fast_interval) * 2 + life.timeout;
    life.max_age = least(&raw.max_age, "max_age", tick).unwrap_or(oldest);
    if life.timeout >= interval {
        let key = if raw.timeout.is_some() { "timeout" } else { "interval" };
        let message = format!("timeout {} with an interval of {}", units::show(life.timeout), units::show(interval));
        faults.push(Fault::value(join(here, key), message).expected("a timeout below the interval"));
    }
    if raw.max_age.is_some() && life.max_age < interval + life.timeout {
        let message = format!("{} is over before the next attempt can end", units::show(life.max_age));
        let fault = Fault::value(join(here, "max_age"), message);
        faults.push(fault.expected(format!(
            "at least interval plus timeout, {}; twice the interval is better",
            units::show(interval + life.timeout)
        )));
    }
}

fn counts(raw: &RawCheck, here: &KeyPath, life: &mut CheckPlan, faults: &mut Faults) {
    let mut count = |value: Option<i64>, key: &str, default: u32| match value {
        Some(number) if !(1..=THRESHOLD_MAX).contains(&number) => {
            let fault = Fault::value(join(here, key), format!("found {number}"));
            faults.push(fault.expected(format!("1 to {THRESHOLD_MAX}")));
            default
        }
        // Within bounds that fit.
        Some(number) => number as u32,
        None => default,
    };
    life.success_threshold = count(raw.success_threshold, "success_threshold", limits::CHECK_SUCCESS_THRESHOLD);
    let consecutive = count(raw.failure_threshold, "failure_threshold", limits::CHECK_FAILURE_THRESHOLD);
    life.failure_rule = match &raw.failures {
        Some(window) => {
            if raw.failure_threshold.is_some() {
                let fault = Fault::key(join(here, "failures"), "beside `failure_threshold`");
                faults.push(fault.expected("one of the two"));
            }
            FailureRule::Window { fail: window.0.0, of: window.0.1 }
        }
        None => FailureRule::Consecutive(consecutive),
    };
}

/// Words of the operator's own: not empty, for an empty reason is none.
fn words(text: Option<&str>, here: &KeyPath, key: &str, faults: &mut Faults) -> Option<String> {
    let text = text?.trim();
    if text.is_empty() {
        faults.push(Fault::value(join(here, key), "an empty text").expected("words for a person"));
        return None;
    }
    Some(text.to_owned())
}
