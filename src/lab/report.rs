//! The results of an experiment, for a terminal and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::scenario::{Metric, Scenario};
use super::world::{self, End, Note, Score};

/// Every design over the same seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub title: String,
    pub seeds: u64,
    pub first_seed: u64,
    pub designs: Vec<DesignReport>,
    pub expectations: Vec<Expected>,
}

#[derive(Clone, Debug, Serialize)]
pub struct DesignReport {
    pub name: String,
    pub says: String,
    pub availability: Interval,
    pub worst_minute: Interval,
    pub failed: Interval,
    pub restarts: Interval,
    pub unwanted_restarts: Interval,
    pub pods_lost: Interval,
    pub out_of_rotation_seconds: Interval,
    /// Of faults of a server that were noticed; none if there was no such fault or none was noticed.
    pub detection_seconds: Option<Interval>,
    pub undetected: u64,
    /// Over all seeds, by cause.
    pub causes: Vec<(&'static str, u64)>,
    /// Of the first seed.
    pub lanes: Vec<String>,
    pub notes: Vec<Note>,
}

/// Over the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
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
        for (slot, line) in expectations.iter_mut().zip(&scenario.expectations) {
            if line.design == design.name {
                let seen = interval(&scores, |score| score.metric(line.metric));
                let holds = scores.iter().all(|score| line.comparison.holds(score.metric(line.metric), line.value));
                *slot = Some(Expected { line: line.text.clone(), holds, seen });
            }
        }
        designs.push(design_report(&design.name, &design.says, scores));
    }
    let expectations = expectations.into_iter().flatten().collect();
    Report { title: scenario.title.clone(), seeds, first_seed, designs, expectations }
}

fn design_report(name: &str, says: &str, mut scores: Vec<Score>) -> DesignReport {
    let detections: Vec<f64> = scores.iter().flat_map(|score| score.detections.iter().flatten().copied()).collect();
    let undetected = scores.iter().flat_map(|score| &score.detections).filter(|seen| seen.is_none()).count();
    let causes = End::ALL.into_iter().filter(|end| *end != End::Ok);
    let causes = causes.map(|end| (end.as_str(), scores.iter().map(|score| score.ended(end)).sum()));
    let metric = |metric: Metric| interval(&scores, move |score| score.metric(metric));
    let mut report = DesignReport {
        name: name.to_owned(),
        says: says.to_owned(),
        availability: metric(Metric::Availability),
        worst_minute: metric(Metric::WorstMinute),
        failed: metric(Metric::Failed),
        restarts: metric(Metric::Restarts),
        unwanted_restarts: metric(Metric::UnwantedRestarts),
        pods_lost: metric(Metric::PodsLost),
        out_of_rotation_seconds: interval(&scores, |score| score.out_of_rotation_seconds),
        detection_seconds: (!detections.is_empty()).then(|| interval_of(detections)),
        undetected: undetected as u64,
        causes: causes.filter(|(_, count)| *count > 0).collect(),
        lanes: Vec::new(),
        notes: Vec::new(),
    };
    if let Some(first) = scores.first_mut() {
        report.lanes = std::mem::take(&mut first.lanes);
        report.notes = std::mem::take(&mut first.notes);
    }
    report
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
    fn show(self, digits: usize) -> String {
        let Self { low, median, high } = self;
        if low.total_cmp(&high).is_eq() {
            format!("{median:.digits$}")
        } else {
            format!("{median:.digits$} ({low:.digits$}-{high:.digits$})")
        }
    }
}

/// What a lane's letters mean.
const LEGEND: &str = "= in rotation  ! in rotation, not serving  o serving, out of rotation  . neither  R restarted";

impl Report {
    /// Whether every expectation holds.
    pub fn holds(&self) -> bool {
        self.expectations.iter().all(|expected| expected.holds)
    }

    /// For a terminal. `notes` is how many lines of each design's story are shown.
    pub fn text(&self, notes: usize) -> String {
        let mut out = format!("{}\n", self.title);
        let seeds = if self.seeds == 1 { "seed" } else { "seeds" };
        let last = self.first_seed + self.seeds - 1;
        let which = if self.seeds == 1 { last.to_string() } else { format!("{}-{last}", self.first_seed) };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{seeds} {which}; values are medians, with the range over the seeds\n");
        out.push_str(&self.table());
        for design in &self.designs {
            let _ = writeln!(out, "\n{}: {}", design.name, design.says);
            for (pod, lane) in design.lanes.iter().enumerate() {
                let _ = writeln!(out, "  pod {pod:<2} {lane}");
            }
            for note in design.notes.iter().filter(|note| is_telling(note)).take(notes) {
                let _ = writeln!(out, "  {:>8.1}s  pod {}  {}", note.at, note.pod, note.text);
            }
            let told = design.notes.iter().filter(|note| is_telling(note)).count();
            if told > notes {
                let _ = writeln!(out, "  ... and {} more", told - notes);
            }
        }
        let _ = writeln!(out, "\n  {LEGEND}");
        for expected in &self.expectations {
            let mark = if expected.holds { "holds " } else { "MISSED" };
            let _ = writeln!(out, "  {mark}  {}  (seen {})", expected.line, expected.seen.show(2));
        }
        out
    }

    fn table(&self) -> String {
        let mut rows = vec![
            ["design", "ok %", "worst minute %", "failed", "restarts", "unwanted", "pods lost", "out s", "detected s"]
                .map(str::to_owned),
        ];
        for design in &self.designs {
            let detected = design.detection_seconds.map_or_else(|| "-".to_owned(), |seconds| seconds.show(1));
            let missed = if design.undetected > 0 { format!(", {} never", design.undetected) } else { String::new() };
            rows.push([
                design.name.clone(),
                design.availability.show(2),
                design.worst_minute.show(1),
                design.failed.show(0),
                design.restarts.show(0),
                design.unwanted_restarts.show(0),
                design.pods_lost.show(0),
                design.out_of_rotation_seconds.show(0),
                format!("{detected}{missed}"),
            ]);
        }
        aligned(&rows)
    }
}

/// A pod that merely comes into rotation for the first time is no news.
fn is_telling(note: &Note) -> bool {
    note.text != "in rotation"
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}
