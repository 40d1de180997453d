//! `metric`: a number on a metrics page, or how fast it moves.
//!
//! No page is no evidence, neither of motion nor of its absence: a failed scrape is unknown. The page may be
//! older than the attempt by half an interval, so that checks on one page share a scrape; no check judges the
//! same page twice. A series that is not a number has no value; what is left is combined. A counter that went
//! backwards belongs to a new server: its old reading is forgotten and the sign is passed on.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Memory, Scene};
use crate::config::{Absent, Combine, LabelMatcher, MatchOp, MetricCheck, MetricSelector};
use crate::engine::{Fault, Outcome, Sign};
use crate::scrape::text::{Labels, Sample, samples};
use crate::scrape::{Page, Scraper};

/// What client libraries export of the process that serves the page.
const START_TIME: &str = "process_start_time_seconds";

pub(super) async fn attempt(
    spec: &MetricCheck,
    scraper: Option<&Scraper>,
    memory: &Mutex<Memory>,
    scene: &Scene,
) -> Outcome {
    let Some(scraper) = scraper else { return Outcome::unknown("no metrics page to read", scene.elapsed()) };
    scene.waiting_for(format!("the metrics page of {}", scraper.whom()));
    let page = match unjudged_page(scraper, memory, scene).await {
        Ok(page) => page,
        Err(reason) => return Outcome::unknown(reason, scene.elapsed()),
    };
    let reading = Series::of(&page, &spec.selector, spec.combine);
    if let Some(sign) = reading.started.and_then(started_at) {
        scene.saw(sign);
    }
    match reading.value {
        Value::Absent => absent(spec, scene),
        Value::NotANumber => Outcome::unknown(format!("{} is NaN", selector(&spec.selector)), scene.elapsed()),
        Value::Number(_) if spec.absent == Absent::Required => {
            scene.fail(Fault::Answer, format!("{} is there, expected it to be absent", selector(&spec.selector)))
        }
        Value::Number(value) if spec.rate => rate(spec, &page, value, memory, scene, reading.started.is_some()),
        Value::Number(value) => judge(spec, value, scene),
    }
}

/// A page that this check has not judged yet: one bad page must never count as two failures.
pub(super) async fn unjudged_page(
    scraper: &Scraper,
    memory: &Mutex<Memory>,
    scene: &Scene,
) -> Result<Arc<Page>, String> {
    let judged = memory.lock().unwrap_or_else(PoisonError::into_inner).page;
    let mut page = scraper.page(scene.page_age, scene.timeout).await?;
    if judged.is_some_and(|judged| page.fetched_at <= judged) {
        page = scraper.page(Duration::ZERO, scene.timeout).await?;
    }
    memory.lock().unwrap_or_else(PoisonError::into_inner).page = Some(page.fetched_at);
    Ok(page)
}

/// What one page says about one selector.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) value: Value,
    /// The start time of the serving process, if exactly one is told: several processes share some pages.
    started: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Absent,
    /// Series match, and none has a number.
    NotANumber,
    Number(f64),
}

impl Series {
    pub(super) fn of(page: &Page, selector: &MetricSelector, combine: Combine) -> Self {
        let mut value = Value::Absent;
        let mut starts = Vec::new();
        for sample in samples(&page.body) {
            if sample.name == START_TIME {
                starts.push(sample.value);
            }
            if selects(selector, &sample) {
                value = combined(value, sample.value, combine);
            }
        }
        Self { value, started: if let [one] = starts[..] { Some(one) } else { None } }
    }
}

fn combined(so_far: Value, next: f64, combine: Combine) -> Value {
    match so_far {
        so_far if next.is_nan() => {
            if so_far == Value::Absent {
                Value::NotANumber
            } else {
                so_far
            }
        }
        Value::Absent | Value::NotANumber => Value::Number(next),
        Value::Number(value) => Value::Number(match combine {
            Combine::Max => value.max(next),
            Combine::Min => value.min(next),
            Combine::Sum => value + next,
        }),
    }
}

/// Whether a sample is one of the selector's series.
pub(super) fn selects(selector: &MetricSelector, sample: &Sample<'_>) -> bool {
    sample.name == selector.name && selector.matchers.iter().all(|matcher| fits(matcher, sample.labels))
}

/// As in Prometheus, a label that is not there is an empty one.
fn fits(matcher: &LabelMatcher, labels: Labels<'_>) -> bool {
    let value = labels.get(&matcher.label).unwrap_or_default();
    match &matcher.op {
        MatchOp::Equal(wanted) => value == wanted.as_str(),
        MatchOp::NotEqual(unwanted) => value != unwanted.as_str(),
        MatchOp::Matches(regex) => regex.is_match(&value),
        MatchOp::NotMatches(regex) => !regex.is_match(&value),
    }
}

fn started_at(unix_seconds: f64) -> Option<Sign> {
    // A float beyond the range saturates; zero and less is a server that does not know.
    (unix_seconds.is_finite() && unix_seconds > 0.0)
        .then(|| Sign::StartedAt { unix_ms: (unix_seconds * 1000.0).round() as u64 })
}

fn absent(spec: &MetricCheck, scene: &Scene) -> Outcome {
    let reason = format!("{} is not on the metrics page", selector(&spec.selector));
    match spec.absent {
        Absent::Fail => scene.fail(Fault::Answer, reason),
        Absent::Pass | Absent::Required => scene.pass().remark(reason),
        Absent::Unknown => Outcome::unknown(reason, scene.elapsed()),
    }
}

fn rate(
    spec: &MetricCheck,
    page: &Page,
    value: f64,
    memory: &Mutex<Memory>,
    scene: &Scene,
    start_is_told: bool,
) -> Outcome {
    let now = (page.fetched_at, value);
    let last = memory.lock().unwrap_or_else(PoisonError::into_inner).counter.replace(now);
    let name = || selector(&spec.selector);
    let Some((then, before)) = last else {
        return Outcome::unknown(format!("{} is {value}: a rate needs a second reading", name()), scene.elapsed());
    };
    if value < before {
        // A start time says more: it tells one restart from two.
        if !start_is_told {
            scene.saw(Sign::CounterReset);
        }
        return Outcome::unknown(format!("{} went back from {before} to {value}", name()), scene.elapsed());
    }
    let seconds = page.fetched_at.since(then).as_secs_f64();
    if seconds == 0.0 {
        return Outcome::unknown(format!("{} was read twice from one page", name()), scene.elapsed());
    }
    judge(spec, (value - before) / seconds, scene)
}

fn judge(spec: &MetricCheck, value: f64, scene: &Scene) -> Outcome {
    let per_second = if spec.rate { " per second" } else { "" };
    let said = format!("{} is {}{per_second}", selector(&spec.selector), rounded(value));
    let expected = [
        spec.min.filter(|min| value < *min).map(|min| format!("at least {min}")),
        spec.max.filter(|max| value > *max).map(|max| format!("at most {max}")),
        // Exactly: what is compared so is a state or a count, not a measurement.
        spec.equals.filter(|equals| value != *equals).map(|equals| equals.to_string()),
    ];
    match expected.into_iter().flatten().next() {
        Some(expected) => scene.fail(Fault::Answer, format!("{said}, expected {expected}")),
        None => scene.pass().remark(said),
    }
}

/// At most three digits behind the point, where there is something before it; small numbers as they are.
fn rounded(value: f64) -> f64 {
    if value.abs() < 1.0 || value.abs() >= 1e12 { value } else { (value * 1000.0).round() / 1000.0 }
}

/// A selector as it is typed.
pub(super) fn selector(selector: &MetricSelector) -> impl fmt::Display + '_ {
    struct Typed<'a>(&'a MetricSelector);
    impl fmt::Display for Typed<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0.name)?;
            for (at, LabelMatcher { label, op }) in self.0.matchers.iter().enumerate() {
                f.write_str(if at == 0 { "{" } else { "," })?;
                match op {
                    MatchOp::Equal(value) => write!(f, "{label}={value:?}")?,
                    MatchOp::NotEqual(value) => write!(f, "{label}!={value:?}")?,
                    MatchOp::Matches(regex) => write!(f, "{label}=~{:?}", unanchored(regex.as_str()))?,
                    MatchOp::NotMatches(regex) => write!(f, "{label}!~{:?}", unanchored(regex.as_str()))?,
                }
            }
            f.write_str(if self.0.matchers.is_empty() { "" } else { "}" })
        }
    }
    Typed(selector)
}

/// The pattern as typed: its anchors were put there by us.
fn unanchored(pattern: &str) -> &str {
    pattern.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or(pattern)
}

#[cfg(test)]
mod tests;
