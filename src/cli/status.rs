//! `probegate status`: a running sidecar in the terminal.
//!
//! Reads `/api/report` and lays it out: what the kubelet hears, why, since when and what happens next; the
//! evidence; what changed lately. It judges nothing.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use super::admin::{self, Place, Sidecar};
use super::terminal::{self, Cell, Paint, Tone};
use super::{Answer, Failure, Outcome};
use crate::answers::report::{Change, Check, GateReport, Next, Report};

/// Between two looks of `--watch`.
const LOOK: Duration = Duration::from_secs(1);
/// Checks shown before the rest is only counted; those that are not up come first.
const CHECKS_SHOWN: usize = 50;
/// Transitions shown.
const CHANGES_SHOWN: usize = 12;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,

    /// Look again every second
    #[arg(short, long)]
    watch: bool,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Outcome {
    let sidecar = args.place.find()?;
    admin::runtime()?.block_on(async {
        loop {
            let looked = look(&sidecar, args.json, args.watch).await;
            match looked {
                Err(Failure::Message(message)) if args.watch => show(&format!("{message}\n"), true)?,
                looked if !args.watch => return looked,
                looked => drop(looked?),
            }
            tokio::time::sleep(LOOK).await;
        }
    })
}

async fn look(sidecar: &Sidecar, json: bool, watch: bool) -> Outcome {
    let text = sidecar.report_text().await?;
    let report = sidecar.understand(&text)?;
    if json {
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
        writeln!(out)?;
    } else {
        let view =
            View { report: &report, now: moment(&report.at), paint: Paint::for_stdout(), width: terminal::width() };
        show(&view.text(&sidecar.address()), watch)?;
    }
    let well = [&report.gates.ready, &report.gates.health].iter().all(|gate| gate.status != "fail");
    Ok(if well { Answer::Yes } else { Answer::No })
}

/// One page; in place of the last one on a terminal that is watched.
fn show(page: &str, watch: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if watch && io::IsTerminal::is_terminal(&out) {
        write!(out, "\x1b[H\x1b[2J")?;
    }
    out.write_all(page.as_bytes())?;
    out.flush()
}

struct View<'a> {
    report: &'a Report,
    now: Option<SystemTime>,
    paint: Paint,
    width: usize,
}

impl View<'_> {
    fn text(&self, address: &str) -> String {
        let report = self.report;
        let mut out = format!(
            "{} {}  {}\n\n",
            self.paint.paint(Tone::Bold, "probegate"),
            report.version,
            self.paint.paint(Tone::Faint, &format!("{address}  {}  {}", report.config.source, clock(&report.at))),
        );
        out.push_str(&self.gates());
        out.push_str(&self.notes());
        self.section(&mut out, "Checks", self.checks());
        self.section(&mut out, "Upstream", self.upstreams());
        self.section(&mut out, "Recently", self.changes());
        self.section(&mut out, "Last hang", self.hang());
        out
    }

    fn section(&self, out: &mut String, heading: &str, body: String) {
        if !body.is_empty() {
            out.push_str(&format!("\n{}\n{body}", self.paint.paint(Tone::Bold, heading)));
        }
    }

    fn gates(&self) -> String {
        let gates = &self.report.gates;
        let all = [("ready", &gates.ready), ("health", &gates.health), ("startup", &gates.startup)];
        let mut rows: Vec<Vec<Cell>> = all.iter().map(|(name, gate)| self.gate(name, gate)).collect();
        rows.push(self.model());
        terminal::table(&rows, 2, self.width, self.paint)
    }

    fn model(&self) -> Vec<Cell> {
        let model = &self.report.model;
        vec![
            ("model".to_owned(), Tone::Bold),
            (model.state.to_uppercase(), tone(&model.state)),
            (format!("for {}", self.ago(&model.since)), Tone::Faint),
            (model.reason.clone(), Tone::Plain),
        ]
    }

    fn gate(&self, name: &str, gate: &GateReport) -> Vec<Cell> {
        let mut words: Vec<String> = gate.why.iter().map(|why| why.text.clone()).collect();
        if let Some(failing) = gate.why.first().and_then(|why| why.check.as_deref()).and_then(|name| self.failing(name))
        {
            words[0].push_str(&failing);
        }
        if let Some(next) = &gate.next {
            words.push(self.next(next));
        }
        vec![
            (name.to_owned(), Tone::Bold),
            (gate.status.to_uppercase(), tone(&gate.status)),
            (format!("for {}", self.ago(&gate.since)), Tone::Faint),
            (words.join("; "), Tone::Plain),
        ]
    }

    /// ` (3 times since 12:00:57Z)`.
    fn failing(&self, name: &str) -> Option<String> {
        let check = self.report.checks.iter().find(|check| check.name == name)?;
        let since = check.failing_since.as_deref()?;
        (check.failures > 1).then(|| format!(" ({} times since {})", check.failures, clock(since)))
    }

    /// What stands over everything else.
    fn notes(&self) -> String {
        let report = self.report;
        let mut notes: Vec<(Tone, String)> = Vec::new();
        if let Some(since) = &report.drain.since {
            let in_flight = report.drain.in_flight;
            notes.push((
                Tone::Doubtful,
                format!("draining since {}: {}, {in_flight} in flight", clock(since), report.drain.phase),
            ));
        }
        notes.extend(
            report
                .disabled_since
                .iter()
                .map(|since| (Tone::Doubtful, format!("out of rotation by hand since {}", clock(since)))),
        );
        notes.extend(report.doubt.iter().map(|doubt| {
            (Tone::Doubtful, format!("the sidecar doubts itself since {}: {}", clock(&doubt.since), doubt.reason))
        }));
        notes.extend(report.stuck.iter().map(|stuck| (Tone::Bad, format!("the sidecar is ill: {stuck}"))));
        if let Some(problem) = &report.config.problem {
            notes.push((Tone::Bad, "the file on disk was refused; what ran before still runs:".to_owned()));
            notes.extend(problem.lines().map(|line| (Tone::Plain, format!("  {line}"))));
        }
        if !report.config.needs_restart.is_empty() {
            notes.push((Tone::Doubtful, format!("waiting for a restart: {}", report.config.needs_restart.join(", "))));
        }
        let mut out = String::new();
        for (tone, note) in notes {
            out.push_str(if out.is_empty() { "\n" } else { "" });
            out.push_str(&terminal::table(&[vec![(note, tone)]], 2, self.width, self.paint));
        }
        out
    }

    fn checks(&self) -> String {
        let mut checks: Vec<&Check> = self.report.checks.iter().collect();
        if checks.len() > CHECKS_SHOWN {
            checks.sort_by_key(|check| check.state == "up");
        }
        let rows: Vec<Vec<Cell>> = checks.iter().take(CHECKS_SHOWN).map(|check| self.check(check)).collect();
        let mut out = terminal::table(&rows, 2, self.width, self.paint);
        if checks.len() > CHECKS_SHOWN {
            let up = checks[CHECKS_SHOWN..].iter().filter(|check| check.state == "up").count();
            out.push_str(&format!("  ... and {} more, {up} of them up\n", checks.len() - CHECKS_SHOWN));
        }
        out
    }

    fn check(&self, check: &Check) -> Vec<Cell> {
        let latency = check.last.as_ref().map_or_else(|| "-".to_owned(), |last| format!("{:.1} ms", last.latency_ms));
        let mut words = check.reason.clone();
        if words.is_empty() {
            words = check.last.as_ref().map(|last| last.reason.clone()).unwrap_or_default();
        }
        if let Some(forced) = &check.forced {
            words = format!("forced {} by hand until {}; {words}", forced.state, clock(&forced.until));
        }
        if check.state != "up"
            && let Some(runbook) = &check.runbook
        {
            words = format!("{words}  {runbook}");
        }
        vec![
            (check.name.clone(), Tone::Bold),
            (check.state.clone(), tone(&check.state)),
            (self.ago(&check.since), Tone::Faint),
            (check.kind.clone(), Tone::Faint),
            (latency, Tone::Faint),
            (words.trim_end_matches("; ").to_owned(), Tone::Plain),
        ]
    }

    fn next(&self, next: &Next) -> String {
        let when = next.at.as_deref().and_then(|at| self.until(at));
        when.map_or_else(|| format!("next: {}", next.text), |when| format!("in {when}: {}", next.text))
    }

    fn upstreams(&self) -> String {
        let traffic = &self.report.traffic;
        let mut rows: Vec<Vec<Cell>> = Vec::new();
        for upstream in &self.report.upstreams {
            let next = upstream.next.as_ref().map(|next| self.next(next)).unwrap_or_default();
            let words = [upstream.reason.as_str(), &next].into_iter().filter(|words| !words.is_empty());
            rows.push(vec![
                (upstream.address.clone(), Tone::Bold),
                (upstream.state.clone(), tone(&upstream.state)),
                (format!("for {}", self.ago(&upstream.since)), Tone::Faint),
                (words.collect::<Vec<_>>().join("; "), Tone::Plain),
            ]);
        }
        let mut out = terminal::table(&rows, 2, self.width, self.paint);
        out.push_str(&format!(
            "  {} in flight, {} requests, {} failed, {} refused\n",
            traffic.in_flight, traffic.requests, traffic.failed, traffic.refused
        ));
        out
    }

    fn changes(&self) -> String {
        let history = &self.report.history;
        let recent = &history[history.len().saturating_sub(CHANGES_SHOWN)..];
        let rows: Vec<Vec<Cell>> = recent.iter().rev().map(|change| self.change(change)).collect();
        terminal::table(&rows, 2, self.width, self.paint)
    }

    /// The report as it was written, after when and by which check.
    fn hang(&self) -> String {
        let Some(report) = &self.report.hang else { return String::new() };
        let earlier = if report.before_restart { ", before the restart" } else { "" };
        let found = format!("found by {} {} ago{earlier}", report.check, self.ago(&report.at));
        let lines = std::iter::once(found.as_str()).chain(report.hang.lines());
        let rows: Vec<Vec<Cell>> = lines.map(|line| vec![(line.to_owned(), Tone::Plain)]).collect();
        terminal::table(&rows, 2, self.width, self.paint)
    }

    fn change(&self, change: &Change) -> Vec<Cell> {
        let what = match change.what.as_str() {
            "gate" | "check" | "upstream" => change.name.clone(),
            "instance" => format!("server {}", change.name),
            other => other.to_owned(),
        };
        let earlier = if change.before_restart { "(before the restart) " } else { "" };
        vec![
            (clock(&change.at), Tone::Faint),
            (what, Tone::Bold),
            (change.to.clone(), tone(&change.to)),
            (format!("{earlier}{}", change.reason), Tone::Plain),
        ]
    }

    /// How long ago, in the two largest units.
    fn ago(&self, at: &str) -> String {
        self.now
            .zip(moment(at))
            .map_or_else(|| "?".to_owned(), |(now, at)| span(now.duration_since(at).unwrap_or_default()))
    }

    /// How long until; none if it has passed.
    fn until(&self, at: &str) -> Option<String> {
        let (now, at) = self.now.zip(moment(at))?;
        at.duration_since(now).ok().map(span)
    }
}

fn tone(state: &str) -> Tone {
    match state {
        "pass" | "up" | "ready" | "started" | "enabled" | "sure" => Tone::Good,
        "fail" | "down" | "gone" | "dead" | "stalled" | "ejected" => Tone::Bad,
        "warn" | "stale" | "saturated" | "degraded" | "disabled" | "doubt" | "propagating" | "finishing"
        | "skipped" | "probation" => Tone::Doubtful,
        _ => Tone::Plain,
    }
}

fn moment(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

/// `12:01:07Z` of an RFC 3339 time.
fn clock(text: &str) -> String {
    let time = text.split_once('T').map_or(text, |(_, time)| time);
    let end = time.find(['.', 'Z']).unwrap_or(time.len());
    format!("{}Z", &time[..end])
}

/// `2h 5m`, `41s`, `3d 1h`.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let spans = [0, 59, 61, 3_725, 90_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["0s", "59s", "1m 1s", "1h 2m", "1d 1h"]);
    }

    #[test]
    fn the_time_of_day_is_cut_out_of_any_form() {
        assert_eq!(clock("2026-11-21T12:01:07.250Z"), "12:01:07Z");
        assert_eq!(clock("2026-11-21T12:01:07Z"), "12:01:07Z");
        assert_eq!(clock("garbage"), "garbageZ");
    }
}
