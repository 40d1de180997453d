//! The results as Markdown, for pages of text whose figures must stay true.

use std::fmt::Write as _;

use super::text::{noticed, wrapped};
use super::{DesignReport, Report};
use crate::lab::scenario::Metric;

/// Paragraphs of a page are broken there.
const WIDTH: usize = 118;

/// A column of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Column {
    Metric(Metric),
    /// Requests that did not end well, by cause.
    Causes,
    /// Seconds until a server's fault was noticed.
    Noticed,
    /// Rows are the restarts of the first pod, columns the designs; it stands alone.
    Waits,
}

/// Columns by name: metrics of `expect` lines, `noticed`, `causes`, or `waits` alone.
///
/// # Errors
/// Says which name is none.
pub fn columns(text: &str) -> Result<Vec<Column>, String> {
    let one = |name: &str| match name {
        "causes" => Ok(Column::Causes),
        "noticed" => Ok(Column::Noticed),
        "waits" => Ok(Column::Waits),
        other => {
            let known = Metric::ALL.into_iter().find(|metric| metric.as_str() == other);
            known
                .map(Column::Metric)
                .ok_or_else(|| format!("{other:?} is no column: a metric, noticed, causes or waits"))
        }
    };
    text.split(',').map(|name| one(name.trim())).collect()
}

impl Report {
    /// What was asked and predicted, and a table with a row for each design; medians over the seeds.
    pub fn markdown(&self, columns: &[Column]) -> String {
        let mut out = String::new();
        for (lead, text) in [("Asked: ", &self.question), ("Predicted: ", &self.prediction)] {
            if !text.is_empty() {
                wrapped(&mut out, "", &format!("{lead}{text}"), WIDTH);
                out.push('\n');
            }
        }
        out + &if columns.contains(&Column::Waits) { self.waits() } else { self.rows(columns) }
    }

    fn rows(&self, columns: &[Column]) -> String {
        let mut out = "| design |".to_owned();
        for column in columns {
            // Writing to a string cannot fail.
            let _ = write!(out, " {} |", column.head());
        }
        out.push_str("\n|---|");
        out.push_str(&"---|".repeat(columns.len()));
        for design in &self.designs {
            let _ = write!(out, "\n| {} |", design.name);
            for column in columns {
                let _ = write!(out, " {} |", column.cell(design));
            }
        }
        out.push('\n');
        out
    }

    fn waits(&self) -> String {
        let mut out = "| restart |".to_owned();
        for design in &self.designs {
            let _ = write!(out, " {} |", design.name);
        }
        out.push_str("\n|---|");
        out.push_str(&"---|".repeat(self.designs.len()));
        let most = self.designs.iter().map(|design| design.waits.len()).max().unwrap_or(0);
        for restart in 0..most {
            let _ = write!(out, "\n| {} |", restart + 1);
            for design in &self.designs {
                match design.waits.get(restart) {
                    Some(wait) => {
                        let _ = write!(out, " {wait:.0} s |");
                    }
                    None => out.push_str("  |"),
                }
            }
        }
        out.push('\n');
        out
    }
}

impl Column {
    const fn head(self) -> &'static str {
        match self {
            Self::Causes => "not well",
            Self::Noticed => "noticed",
            Self::Waits => "restart",
            Self::Metric(metric) => match metric {
                Metric::Availability => "ended well",
                Metric::Crashes => "crashes",
                Metric::Cut => "streams cut",
                Metric::DetectionSeconds => "noticed at the latest",
                Metric::Evicted => "evicted",
                Metric::Failed => "failed",
                Metric::OutOfRotationSeconds => "out of rotation",
                Metric::PodsLost => "pods lost",
                Metric::PodsMost => "pods at most",
                Metric::Restarts => "restarts",
                Metric::RolloutsFailed => "rollouts failed",
                Metric::RolloutSeconds => "rollout took",
                Metric::Scalings => "scalings",
                Metric::SidecarRestarts => "sidecar restarts",
                Metric::UnwantedRestarts => "unwanted kills",
                Metric::WantedRestarts => "wanted kills",
                Metric::WorstMinute => "worst minute",
                Metric::Wrong => "wrong answers",
            },
        }
    }

    fn cell(self, design: &DesignReport) -> String {
        let metric = match self {
            Self::Causes => return causes(design),
            Self::Noticed => return noticed_seconds(design),
            Self::Waits => return String::new(),
            Self::Metric(metric) => metric,
        };
        let median = design.metric(metric).median;
        match metric {
            Metric::Availability => format!("{median:.2} %"),
            Metric::WorstMinute => format!("{median:.1} %"),
            Metric::RolloutSeconds if median <= 0.0 => "never".to_owned(),
            Metric::OutOfRotationSeconds | Metric::RolloutSeconds => format!("{median:.0} s"),
            _ => format!("{median:.0}"),
        }
    }
}

fn noticed_seconds(design: &DesignReport) -> String {
    match design.detection_seconds {
        Some(seconds) if design.undetected == 0 => format!("{:.1} s", seconds.median),
        Some(seconds) => format!("{:.1} s, or never", seconds.median),
        None => noticed(design),
    }
}

fn causes(design: &DesignReport) -> String {
    let all: Vec<String> =
        design.causes.iter().take(3).map(|cause| format!("{} {:.2} %", cause.cause, cause.percent)).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}
