//! The results for a terminal: a table, a time line for each pod, reasons and stories.

use std::fmt::Write as _;

use super::{DesignReport, Report, events};
use crate::lab::scenario::Metric;
use crate::lab::world::{Note, Score};

/// Time lines shown of one design; further pods are counted.
const LANES_MAX: usize = 16;
/// What a lane's letters mean.
const LEGEND: &str =
    "= in rotation, ! in rotation but not serving, o serving but out of rotation, . neither, R restarted";
/// Before a time line: with it, [`Score::COLUMNS`] fit a terminal of 80 columns.
const LEAD: usize = 8;
/// Between two columns of a table.
const GAP: usize = 2;

impl Report {
    /// For a terminal of so many columns. `notes` is how many lines of each design's story are shown.
    pub fn text(&self, notes: usize, width: usize) -> String {
        let mut out = String::new();
        wrapped(&mut out, "", &self.title, width);
        for (lead, text) in [("asked:     ", &self.question), ("predicted: ", &self.prediction)] {
            if !text.is_empty() {
                wrapped(&mut out, lead, text, width);
            }
        }
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}; values are medians, with the range over the seeds\n", self.which_seeds());
        out.push_str(&aligned(&self.cells(), width));
        let marks = self.marks(&mut out);
        for design in &self.designs {
            self.design(&mut out, design, &marks, notes, width);
        }
        out.push('\n');
        wrapped(&mut out, "time lines: ", LEGEND, width);
        if !self.expectations.is_empty() {
            out.push('\n');
        }
        for expected in &self.expectations {
            let mark = if expected.holds { "holds   " } else { "MISSED  " };
            let line = format!("{} (seen {})", expected.line, expected.seen.show(2));
            wrapped(&mut out, mark, &line, width);
        }
        out
    }

    fn cells(&self) -> Vec<[String; 10]> {
        let mut rows = vec![
            [
                "design",
                "ok %",
                "worst minute %",
                "failed",
                "noticed s",
                "out s",
                "pods lost",
                "restarts",
                "wanted",
                "unwanted",
            ]
            .map(str::to_owned),
        ];
        for design in &self.designs {
            let show = |metric: Metric, digits| design.metric(metric).show(digits);
            rows.push([
                design.name.clone(),
                show(Metric::Availability, 2),
                show(Metric::WorstMinute, 1),
                show(Metric::Failed, 0),
                noticed(design),
                show(Metric::OutOfRotationSeconds, 0),
                show(Metric::PodsLost, 0),
                show(Metric::Restarts, 0),
                show(Metric::WantedRestarts, 0),
                show(Metric::UnwantedRestarts, 0),
            ]);
        }
        rows
    }

    /// Lists the events, each with its letter, and returns the line of letters that stands above every time line.
    fn marks(&self, out: &mut String) -> String {
        let mut line = vec![' '; Score::COLUMNS];
        if !self.events.is_empty() {
            out.push('\n');
        }
        for kind in events::kinds(&self.events) {
            let _ = writeln!(out, "  {}  {}  {}", kind.letter, kind.when(), kind.text);
            for (at, until) in &kind.spans {
                let from = self.column(*at);
                for place in line.iter_mut().take(self.column(until.unwrap_or(*at)) + 1).skip(from + 1) {
                    if *place == ' ' {
                        *place = '-';
                    }
                }
                line[from] = kind.letter;
            }
        }
        line.into_iter().collect::<String>().trim_end().to_owned()
    }

    fn column(&self, at: f64) -> usize {
        ((at / self.duration_seconds * Score::COLUMNS as f64) as usize).min(Score::COLUMNS - 1)
    }

    fn design(&self, out: &mut String, design: &DesignReport, marks: &str, notes: usize, width: usize) {
        out.push('\n');
        wrapped(out, &format!("{}: ", design.name), &design.says, width);
        if !marks.is_empty() {
            let _ = writeln!(out, "{:LEAD$}{marks}", "");
        }
        for (pod, lane) in design.lanes.iter().enumerate().take(LANES_MAX) {
            let _ = writeln!(out, "{:<LEAD$}{lane}", format!("pod {pod}"));
        }
        if design.lanes.len() > LANES_MAX {
            let _ = writeln!(out, "... and {} more pods", design.lanes.len() - LANES_MAX);
        }
        let _ = writeln!(out, "{:LEAD$}{}", "", self.axis());
        if !design.causes.is_empty() {
            let causes: Vec<String> = (design.causes.iter())
                .map(|cause| format!("{} {} ({:.2} %)", cause.cause, cause.requests, cause.percent))
                .collect();
            wrapped(out, "not well: ", &causes.join(", "), width);
        }
        for why in &design.why {
            wrapped(out, "why: ", why, width);
        }
        let telling = || design.notes.iter().filter(|note| is_telling(note));
        for note in telling().take(notes) {
            wrapped(out, &format!("{:>8.1} s  pod {:<3} ", note.at, note.pod), &note.text, width);
        }
        let told = telling().count();
        if told > notes {
            let _ = writeln!(out, "... and {} more (--notes {told})", told - notes);
        }
    }

    /// The time below a time line: at its ends and its quarters.
    fn axis(&self) -> String {
        let mut line = String::new();
        for quarter in 0..4_usize {
            let place = Score::COLUMNS / 4 * quarter;
            line.push_str(&" ".repeat(place.saturating_sub(line.chars().count())));
            line.push_str(&clock(self.duration_seconds / 4.0 * quarter as f64));
        }
        let end = clock(self.duration_seconds);
        line.push_str(&" ".repeat(Score::COLUMNS.saturating_sub(line.chars().count() + end.len())));
        line + &end
    }
}

/// "3:05", "1:00:00".
pub(in crate::lab) fn clock(seconds: f64) -> String {
    let all = seconds.round() as u64;
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Seconds to notice a fault of a server, and how many went unnoticed.
pub(in crate::lab) fn noticed(design: &DesignReport) -> String {
    let seen = design.detection_seconds.map(|seconds| seconds.show(1));
    match (seen, design.undetected) {
        (None, 0) => "-".to_owned(),
        (None, _) => "never".to_owned(),
        (Some(seen), 0) => seen,
        (Some(seen), missed) => format!("{seen}, {missed} never"),
    }
}

/// A pod that merely comes into rotation for the first time is no news.
fn is_telling(note: &Note) -> bool {
    note.text != "in rotation"
}

/// The first line begins with `lead`; the others stand below its end.
pub(in crate::lab) fn wrapped(out: &mut String, lead: &str, text: &str, width: usize) {
    let indent = lead.chars().count();
    let mut line = lead.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
            out.push_str(&line);
            out.push('\n');
            line = " ".repeat(indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

/// Columns that do not fit stand below, in a block of their own, beside the first column once more.
fn aligned<const N: usize>(rows: &[[String; N]], width: usize) -> String {
    let of = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(of).collect();
    let mut blocks: Vec<Vec<usize>> = Vec::new();
    let mut used = usize::MAX;
    for (column, wide) in widths.iter().enumerate().skip(1) {
        if used.saturating_add(GAP + wide) > width {
            blocks.push(vec![0]);
            used = widths[0];
        }
        used += GAP + wide;
        if let Some(block) = blocks.last_mut() {
            block.push(column);
        }
    }
    let lines = |block: &Vec<usize>| -> String {
        let cell = |row: &[String; N], column: usize| format!("{:<width$}", row[column], width = widths[column] + GAP);
        let line = |row| block.iter().map(|column| cell(row, *column)).collect::<String>();
        rows.iter().map(|row| line(row).trim_end().to_owned() + "\n").collect()
    };
    blocks.iter().map(lines).collect::<Vec<_>>().join("\n")
}
