//! `probegate lab replay`: a recording of `run --record` before another configuration.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Answer, ConfigFile, Failure, Outcome, lab};
use crate::config::{self, Overrides};
use crate::engine::{Gate, Plan, Told, Trace};
use crate::lab::replay::{self, Replay, Row, Side};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The recording
    recording: PathBuf,
    #[command(flatten)]
    config: ConfigFile,
    /// Compare with this configuration instead of with what the recording tells; exit 1 if it is the recorded one and
    /// does not lead to what was recorded
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Also write the results as JSON to this file, `-` for standard output instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Outcome {
    let trace = recording(&args.recording)?;
    let replayed = |plan: &Arc<Plan>| {
        Replay::new(&trace, plan).map_err(|why| Failure::new(format!("{}: {why}", args.recording.display())))
    };
    let design = replayed(&plan(&args.config.path)?)?;
    let against = args.against.as_deref().map(|path| replayed(&plan(path)?)).transpose()?;
    let reproduces = [Some(&design), against.as_ref()].into_iter().flatten().filter_map(Replay::reproduces);
    let reproduces = reproduces.fold(None, |all: Option<bool>, one| Some(all.unwrap_or(true) && one));
    let story = Story {
        recording: args.recording.display().to_string(),
        config: args.config.path.display().to_string(),
        left: args.against.as_ref().map_or_else(|| "recorded".to_owned(), |path| path.display().to_string()),
        before: against.as_ref().map_or(&design.recorded, |against| &against.design),
        rows: replay::rows(
            against.as_ref().map_or(&design.recorded, |against| &against.design),
            &design.design,
            design.started,
        ),
        replay: &design,
        reproduces,
    };
    let mut out = std::io::stdout().lock();
    match args.json.as_deref() {
        Some(path) if path == Path::new("-") => writeln!(out, "{:#}", story.json())?,
        given => {
            if let Some(path) = given {
                lab::write(path, &format!("{:#}\n", story.json()))?;
            }
            out.write_all(story.text().as_bytes())?;
        }
    }
    out.flush()?;
    Ok(if reproduces == Some(false) { Answer::No } else { Answer::Yes })
}

/// A process that was killed leaves half a line behind: that one is not read.
fn recording(path: &Path) -> Result<Trace, Failure> {
    let text = lab::read(path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    Trace::from_text(whole).map_err(|error| Failure::new(format!("{}: no recording: {error}", path.display())))
}

fn plan(path: &Path) -> Result<Arc<Plan>, Failure> {
    let config =
        config::load(path, &Overrides::from_process()).map_err(|problems| Failure::new(problems.to_string()))?;
    Ok(config.engine)
}

/// What is printed.
struct Story<'a> {
    recording: String,
    config: String,
    left: String,
    before: &'a [Told],
    replay: &'a Replay,
    rows: Vec<Row>,
    reproduces: Option<bool>,
}

impl Story<'_> {
    fn gate(&self, gate: Gate, told: &[Told]) -> replay::Gate {
        replay::Gate::of(told, gate, self.replay.started, self.replay.span)
    }

    fn json(&self) -> Value {
        let gates = Gate::ALL.map(|gate| {
            let [before, design] = [self.before, &self.replay.design].map(|told| self.gate(gate, told));
            json!({ "gate": gate.as_str(), "recorded": before, "design": design })
        });
        json!({
            "recording": self.recording,
            "config": self.config,
            "compared_with": self.left,
            "seconds": self.replay.span.as_secs_f64(),
            "same_design": self.replay.is_same,
            "reproduces": self.reproduces,
            "cut_by_reload": self.replay.cut_by_reload,
            "reloads": self.replay.reloads,
            "without_evidence": self.replay.without_evidence,
            "gates": gates,
            "transitions": self.rows,
        })
    }

    fn text(&self) -> String {
        let mut out = format!("{}: {:.1} s recorded\n", self.recording, self.replay.span.as_secs_f64());
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", self.how());
        for reload in &self.replay.reloads {
            let then = match reload.same_design {
                Some(true) => "this configuration was loaded",
                Some(false) => {
                    "another configuration was loaded; what its checks of the same names saw is evidence too"
                }
                None => {
                    "another configuration was loaded, and an older Probegate did not record which: this ends there"
                }
            };
            let _ = writeln!(out, "after {:.1} s {then}", reload.at);
        }
        for missing in &self.replay.without_evidence {
            let replay::Missing { check, kind, why, state } = missing;
            let _ = writeln!(out, "without evidence: {check} ({kind}): {why}; {state} at the end");
        }
        if self.before.is_empty() {
            let _ = writeln!(
                out,
                "the recording tells no transitions to compare with: name its configuration by --against"
            );
        }
        let _ = writeln!(out, "\n  {:>10}  {:<8} {:<22} {}", "after", "gate", self.left, self.config);
        for row in &self.rows {
            self.row(&mut out, row);
        }
        out.push('\n');
        for gate in Gate::ALL {
            let [before, design] = [self.before, &self.replay.design].map(|told| self.gate(gate, told));
            let shown =
                |gate: replay::Gate| format!("{:.1} s failing, begun {}", gate.failing_seconds, times(gate.failures));
            let _ = writeln!(out, "  {:<8} {} -> {}", gate.as_str(), shown(before), shown(design));
        }
        out
    }

    fn how(&self) -> String {
        let how = if self.replay.is_same {
            "is the recorded design, replayed event by event"
        } else {
            "is another design: recorded outcomes as they stood when it asks"
        };
        let held = match self.reproduces {
            Some(true) => "; the recorded design leads to exactly what was recorded",
            Some(false) => "; the recorded design does NOT lead to what was recorded: another version recorded it?",
            None => "",
        };
        format!("{} {how}{held}", self.config)
    }

    fn row(&self, out: &mut String, row: &Row) {
        let turn = |side: &Option<Side>| {
            side.as_ref().map_or_else(|| "-".to_owned(), |side| format!("{} -> {}", side.from, side.to))
        };
        let at = row.recorded.as_ref().or(row.design.as_ref()).map_or(0.0, |side| side.at);
        let moved = match (&row.recorded, &row.design) {
            (Some(one), Some(other)) if one.at.total_cmp(&other.at).is_ne() => {
                format!(" at {:.3} s ({:+.3} s)", other.at, other.at - one.at)
            }
            _ => String::new(),
        };
        let _ =
            writeln!(out, "  {at:>8.3} s  {:<8} {:<22} {}{moved}", row.gate, turn(&row.recorded), turn(&row.design));
        let reason = |side: &Option<Side>| side.as_ref().map(|side| side.reason.clone()).filter(|why| !why.is_empty());
        match (reason(&row.recorded), reason(&row.design)) {
            (Some(one), Some(other)) if one == other => {
                let _ = writeln!(out, "  {:>10}  {one}", "");
            }
            (one, other) => {
                for (who, why) in [(self.left.as_str(), one), (self.config.as_str(), other)] {
                    if let Some(why) = why {
                        let _ = writeln!(out, "  {:>10}  {who}: {why}", "");
                    }
                }
            }
        }
    }
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}
