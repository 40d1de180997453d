//! The results of an experiment: every design over the same seeds, in numbers and in words.
//!
//! It owns what is told; how it looks in a terminal, in Markdown and on a page is its children's and `html`'s.

mod events;
mod markdown;
mod text;
mod why;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use super::scenario::{Metric, Scenario};
use super::world::{self, Decision, End, Note, Score};

pub use events::Event;
pub(super) use events::kinds;
pub use markdown::{Column, columns};
pub(super) use text::{clock, wrapped};

/// Every design over the same seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub title: String,
    pub question: String,
    pub prediction: String,
    pub seeds: u64,
    pub first_seed: u64,
    pub duration_seconds: f64,
    /// Pods that the scenario begins with.
    pub pods: usize,
    /// What happened to the world, in the order of time.
    pub events: Vec<Event>,
    pub designs: Vec<DesignReport>,
    pub expectations: Vec<Expected>,
}

#[derive(Clone, Debug, Serialize)]
pub struct DesignReport {
    pub name: String,
    pub says: String,
    /// Every metric of `expect` lines but detection, by its name.
    #[serde(flatten)]
    pub metrics: BTreeMap<&'static str, Interval>,
    /// Of faults of a server that were noticed; none if there was no such fault or none was noticed.
    pub detection_seconds: Option<Interval>,
    /// Faults of a server that nobody noticed, over all seeds; and all faults of servers.
    pub undetected: u64,
    pub detectable: u64,
    /// Requests that did not end well, over all seeds, most first.
    pub causes: Vec<Cause>,
    /// Of all requests, by cause and minute, over all seeds.
    pub minutes: Vec<Outcome>,
    /// Over all seeds, most first.
    pub decisions: Vec<Decision>,
    /// What is surprising about this row, and why it came so.
    pub why: Vec<String>,
    /// Of the first seed: seconds from each end of the first pod's server to its next start.
    pub waits: Vec<f64>,
    /// Of the first seed.
    pub lanes: Vec<String>,
    pub notes: Vec<Note>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Cause {
    pub cause: &'static str,
    pub says: &'static str,
    pub requests: u64,
    /// Of all requests.
    pub percent: f64,
}

/// How many requests of each minute ended in one way; a request counts in the minute in which it was sent.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub cause: &'static str,
    pub by_minute: Vec<u64>,
}

/// Over the seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Interval {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

/// An `expect` line and how it went. It must hold for every seed.
#[derive(Clone, Debug, Serialize)]
pub struct Expected {
    pub line: String,
    pub holds: bool,
    pub seen: Interval,
}

/// Runs every design of a scenario on the seeds `first_seed..`; `seeds` of them, at least one.
pub fn experiment(scenario: &Scenario, first_seed: u64, seeds: u64, told: &mut dyn FnMut(&str)) -> Report {
    let seeds = seeds.max(1);
    let mut designs = Vec::new();
    let mut expectations: Vec<Option<Expected>> = vec![None; scenario.expectations.len()];
    for design in &scenario.designs {
        told(&design.name);
        let runs = first_seed..first_seed.saturating_add(seeds);
        let scores: Vec<Score> = runs.map(|seed| world::run(scenario, design, seed)).collect();
        debug_assert!(scores.iter().all(|score| score.broken.is_none()), "every law holds");
        for (slot, line) in expectations.iter_mut().zip(&scenario.expectations) {
            if line.design == design.name {
                let seen = interval(&scores, |score| score.metric(line.metric));
                let holds = scores.iter().all(|score| line.comparison.holds(score.metric(line.metric), line.value));
                *slot = Some(Expected { line: line.text.clone(), holds, seen });
            }
        }
        designs.push(design_report(&design.name, &design.says, scores));
    }
    let mut report = Report {
        title: scenario.title.clone(),
        question: scenario.question.clone(),
        prediction: scenario.prediction.clone(),
        seeds,
        first_seed,
        duration_seconds: scenario.duration.as_secs_f64(),
        pods: scenario.pods,
        events: events::of(scenario),
        designs,
        expectations: expectations.into_iter().flatten().collect(),
    };
    why::explain(&mut report);
    report
}

fn design_report(name: &str, says: &str, mut scores: Vec<Score>) -> DesignReport {
    let detections: Vec<f64> = scores.iter().flat_map(|score| score.detections.iter().flatten().copied()).collect();
    let detectable: usize = scores.iter().map(|score| score.detections.len()).sum();
    let metrics = Metric::ALL.into_iter().filter(|metric| *metric != Metric::DetectionSeconds);
    let mut report = DesignReport {
        name: name.to_owned(),
        says: says.to_owned(),
        metrics: metrics.map(|metric| (metric.as_str(), interval(&scores, |score| score.metric(metric)))).collect(),
        undetected: (detectable - detections.len()) as u64,
        detectable: detectable as u64,
        detection_seconds: (!detections.is_empty()).then(|| interval_of(detections)),
        causes: causes(&scores),
        minutes: minutes(&scores),
        decisions: decisions(&scores),
        why: Vec::new(),
        waits: Vec::new(),
        lanes: Vec::new(),
        notes: Vec::new(),
    };
    if let Some(first) = scores.first_mut() {
        report.waits = std::mem::take(&mut first.waits);
        report.lanes = std::mem::take(&mut first.lanes);
        report.notes = std::mem::take(&mut first.notes);
    }
    report
}

fn causes(scores: &[Score]) -> Vec<Cause> {
    let all: u64 = scores.iter().map(|score| score.requests).sum();
    let of = |end: End| {
        let requests = scores.iter().map(|score| score.ended(end)).sum();
        let percent = if all == 0 { 0.0 } else { requests as f64 * 100.0 / all as f64 };
        Cause { cause: end.as_str(), says: end.says(), requests, percent }
    };
    let bad = End::ALL.into_iter().filter(|end| *end != End::Ok);
    let mut causes: Vec<Cause> = bad.map(of).filter(|cause| cause.requests > 0).collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.requests));
    causes
}

/// The ends that occurred, the good one first.
fn minutes(scores: &[Score]) -> Vec<Outcome> {
    let count = scores.iter().map(|score| score.minutes().len()).max().unwrap_or(0);
    let of = |end: End| {
        let in_minute = |minute: usize| {
            scores.iter().filter_map(|score| score.minutes().get(minute)).map(|ends| ends[end as usize]).sum()
        };
        Outcome { cause: end.as_str(), by_minute: (0..count).map(in_minute).collect() }
    };
    let all = End::ALL.into_iter().map(of);
    all.filter(|outcome| outcome.cause == End::Ok.as_str() || outcome.by_minute.iter().any(|&n| n > 0)).collect()
}

fn decisions(scores: &[Score]) -> Vec<Decision> {
    let mut all: Vec<Decision> = Vec::new();
    for decision in scores.iter().flat_map(|score| &score.decisions) {
        match all.iter_mut().find(|known| known.act == decision.act && known.by == decision.by) {
            Some(known) => known.times += decision.times,
            None => all.push(decision.clone()),
        }
    }
    all.sort_by_key(|decision| (decision.act, std::cmp::Reverse(decision.times)));
    all
}

fn interval(scores: &[Score], of: impl Fn(&Score) -> f64) -> Interval {
    interval_of(scores.iter().map(of).collect())
}

fn interval_of(mut values: Vec<f64>) -> Interval {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
    Interval { low: at(0), median: at(values.len() / 2), high: at(values.len().saturating_sub(1)) }
}

impl Interval {
    /// Whether every seed gave the same.
    pub fn is_one(self) -> bool {
        self.low.total_cmp(&self.high).is_eq()
    }

    pub(super) fn show(self, digits: usize) -> String {
        let Self { low, median, high } = self;
        if self.is_one() {
            format!("{median:.digits$}")
        } else {
            format!("{median:.digits$} ({low:.digits$}-{high:.digits$})")
        }
    }
}

impl DesignReport {
    /// Over the seeds; zero for detection, which is a field of its own.
    pub fn metric(&self, metric: Metric) -> Interval {
        self.metrics.get(metric.as_str()).copied().unwrap_or_default()
    }
}

impl Report {
    /// Whether every expectation holds.
    pub fn holds(&self) -> bool {
        self.expectations.iter().all(|expected| expected.holds)
    }

    /// Whether a fault of a server could be noticed at all.
    pub fn has_detection(&self) -> bool {
        self.designs.iter().any(|design| design.detectable > 0)
    }

    /// "seed 1", "seeds 1-5".
    pub fn which_seeds(&self) -> String {
        match self.seeds {
            1 => format!("seed {}", self.first_seed),
            seeds => format!("seeds {}-{}", self.first_seed, self.first_seed + (seeds - 1)),
        }
    }
}
