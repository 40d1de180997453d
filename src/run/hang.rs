//! The hang report: what was known when a hang was found, written before a restart destroys the evidence.
//!
//! Owns the form of the report, the log lines, the file (the termination-message path or one on a shared volume),
//! and the last report, which the ring keeps over the sidecar's own restart. It takes what `/proc` shows as far
//! as it may be read, and never waits for the model server.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::ring::Ring;
use crate::answers::report::HangReport;
use crate::checks::{ThreadState, threads_of};
use crate::clock::Clock;
use crate::config::ProcessSelect;
use crate::engine::{CheckId, Time, Traffic};
use crate::proxy::InFlight;

/// Requests and threads that are listed; the rest is a number. The kubelet keeps 4096 bytes of a termination
/// message.
const LISTED: usize = 12;
/// The kubelet's own limit (`terminationMessagePath`).
const FILE_BYTES_MAX: usize = 4096;

/// The last report, for whoever asks.
#[derive(Debug, Default)]
pub(super) struct Kept(ArcSwapOption<HangReport>);

impl Kept {
    /// With the one that an earlier run left.
    pub(super) fn new(earlier: Option<HangReport>) -> Arc<Self> {
        Arc::new(Self(ArcSwapOption::from_pointee(earlier)))
    }

    pub(super) fn last(&self) -> Option<HangReport> {
        self.0.load().as_deref().cloned()
    }
}

/// Where reports go besides the log.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    pub(super) kept: Arc<Kept>,
    pub(super) ring: Option<Ring>,
}

impl Shelf {
    fn keep(&self, report: HangReport) {
        if let Some(ring) = &self.ring {
            ring.push_hang(&report);
        }
        self.kept.0.store(Some(Arc::new(report)));
    }
}

/// A hang, as the engine found it.
pub(super) struct Hang<'a> {
    pub(super) at: Time,
    pub(super) check: CheckId,
    pub(super) name: &'a str,
    pub(super) reason: &'a str,
    /// Of the server's own counter, oldest first.
    pub(super) readings: &'a [(Time, f64)],
    pub(super) traffic: &'a Traffic,
}

impl Hang<'_> {
    /// Writes the report to the log, to the shelf and, where there is one, to the file.
    pub(super) fn write(
        &self,
        flights: &[InFlight],
        process: Option<&ProcessSelect>,
        clock: Clock,
        file: Option<&Path>,
        shelf: &Shelf,
    ) {
        let report = self.text(flights, clock);
        log(self.name, &report);
        let (name, process, file) = (self.name.to_owned(), process.cloned(), file.map(Path::to_owned));
        let (at, shelf) = (clock.rfc3339(self.at), shelf.clone());
        // `/proc` of a process in trouble, and a shared volume, may take their time.
        tokio::task::spawn_blocking(move || {
            let threads = threads_text(&process.as_ref().map(threads_of).unwrap_or_default());
            log(&name, &threads);
            let report = report + &threads;
            shelf.keep(HangReport { at, check: name, hang: report.clone(), before_restart: false });
            if let Some(file) = file
                && let Err(error) = fs::write(&file, fitting(&report))
            {
                tracing::warn!(%error, "cannot write the hang report to {}", file.display());
            }
        });
    }

    fn text(&self, flights: &[InFlight], clock: Clock) -> String {
        let mut text = format!("{} at {}: {}\n", self.name, clock.rfc3339(self.at), self.reason);
        let age = |since: Time| format!("{:.1}s", self.at.since(since).as_secs_f64());
        let traffic = self.traffic;
        let last = traffic.last_byte.map_or_else(|| "never".to_owned(), |last| format!("{} ago", age(last)));
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "traffic: {} in flight, last byte from the model server {last}, {} requests given up so far",
            traffic.in_flight, traffic.abandoned
        );
        for flight in flights.iter().take(LISTED) {
            let heard =
                flight.last_byte.map_or_else(|| "nothing heard".to_owned(), |at| format!("last byte {} ago", age(at)));
            let _ = writeln!(text, "request: {} old, {heard}", age(flight.begun));
        }
        if LISTED < flights.len() {
            let _ = writeln!(text, "and {} more requests", flights.len() - LISTED);
        }
        if !self.readings.is_empty() {
            let all: Vec<String> = self
                .readings
                .iter()
                .rev()
                .take(LISTED)
                .map(|(at, value)| format!("{value} ({} ago)", age(*at)))
                .collect();
            let _ = writeln!(text, "counter, newest first: {}", all.join(", "));
        }
        text
    }
}

fn log(check: &str, report: &str) {
    for line in report.lines() {
        tracing::warn!(check, "hang report: {line}");
    }
}

fn threads_text(threads: &[ThreadState]) -> String {
    let mut text = String::new();
    for ThreadState { process, thread, name, state, waits_in } in threads.iter().take(LISTED * 2) {
        let waits = if waits_in.is_empty() { String::new() } else { format!(", waits in {waits_in}") };
        let _ = writeln!(text, "thread: {process}/{thread} {name} is {state}{waits}");
    }
    if LISTED * 2 < threads.len() {
        let _ = writeln!(text, "and {} more threads", threads.len() - LISTED * 2);
    }
    text
}

/// As much of it, in whole lines, as the kubelet keeps.
fn fitting(report: &str) -> &str {
    if report.len() <= FILE_BYTES_MAX {
        return report;
    }
    // A line break is one byte, and so a boundary.
    let end = report.as_bytes()[..FILE_BYTES_MAX].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    &report[..end]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_report_names_requests_bytes_counter_and_threads() {
        let clock = Clock::start();
        let now = clock.now() + Duration::from_secs(100);
        let ago = |secs: u64| Time::ZERO + now.since(Time::ZERO + Duration::from_secs(secs));
        let traffic = Traffic { in_flight: 2, last_byte: Some(ago(60)), abandoned: 3, ..Traffic::default() };
        let hang = Hang {
            at: now,
            check: CheckId(0),
            name: "progress",
            reason: "stalled",
            readings: &[(ago(61), 28.0), (ago(1), 28.0)],
            traffic: &traffic,
        };
        let flights =
            [InFlight { begun: ago(70), last_byte: Some(ago(60)) }, InFlight { begun: ago(65), last_byte: None }];
        let threads = [ThreadState {
            process: 7,
            thread: 8,
            name: "python".to_owned(),
            state: 'T',
            waits_in: "do_signal_stop".to_owned(),
        }];
        let text = hang.text(&flights, clock) + &threads_text(&threads);
        for part in [
            "2 in flight, last byte from the model server 60.0s ago, 3 requests given up",
            "request: 70.0s old, last byte 60.0s ago",
            "request: 65.0s old, nothing heard",
            "counter, newest first: 28 (1.0s ago), 28 (61.0s ago)",
            "thread: 7/8 python is T, waits in do_signal_stop",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn the_file_holds_whole_lines_within_the_kubelets_limit() {
        let report = "a line of the report\n".repeat(400);
        let kept = fitting(&report);
        assert!(kept.len() <= FILE_BYTES_MAX && kept.len() > FILE_BYTES_MAX - 30 && kept.ends_with('\n'));
    }
}
