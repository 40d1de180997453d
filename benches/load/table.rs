//! The tables as text, for a terminal and for a README.

use std::fmt::Write as _;

use crate::contenders::Contender;
use crate::record::{Cell, Results, Run, cpu_against};
use crate::targets;
use crate::work::Work;

/// All tables that have something in them.
pub(crate) fn render(results: &Results) -> String {
    let mut text = heading(results);
    for work in [Work::Json, Work::Tensor, Work::Tokens, Work::Grpc, Work::Websocket] {
        let cells: Vec<&Cell> = results.cells.iter().filter(|cell| cell.work == work).collect();
        if !cells.is_empty() {
            rows(&mut text, &title(work), &COLUMNS, cells.iter().map(|cell| cell_row(results, cell)).collect());
        }
    }
    if !results.probed.is_empty() {
        rows(&mut text, "probe answers while the data plane is busy, ms", &PROBE_COLUMNS, probe_rows(results));
    }
    if !results.held.is_empty() {
        rows(&mut text, "resident memory", &MEMORY_COLUMNS, memory_rows(results));
    }
    let goals = targets::all(results).into_iter().filter(|target| target.measured.is_some()).map(|target| {
        let reached = if target.reached() == Some(true) { "yes" } else { "no" };
        vec![target.what.clone(), figure(target.at_most), target.measured.map_or_else(dash, figure), reached.into()]
    });
    let goals: Vec<Vec<String>> = goals.collect();
    if !goals.is_empty() {
        rows(&mut text, "goals that this run measured", &GOAL_COLUMNS, goals);
    }
    for skipped in &results.skipped {
        line(&mut text, &format!("left out: {}, {}: {}", skipped.contender.name(), skipped.what, skipped.why));
    }
    text
}

pub(crate) fn title(work: Work) -> String {
    let what = match work {
        Work::Json => "60 bytes of JSON each way",
        Work::Tensor => "64 KiB each way",
        Work::Tokens => "SSE, 50 tokens a second on each stream (latency: backend's write to client's read)",
        Work::Grpc => "gRPC unary, 60 bytes each way",
        Work::Websocket => "WebSocket echo of 60 bytes",
    };
    format!("{work}: {what}")
}

pub(crate) const COLUMNS: [&str; 18] = [
    "conns",
    "contender",
    "cpu us",
    "ratio",
    "per s",
    "core %",
    "load %",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "half: cpu us",
    "ratio",
    "p50",
    "p99",
    "p99.9",
    "added p99",
    "RSS MB",
];
pub(crate) const PROBE_COLUMNS: [&str; 11] =
    ["scene", "who answers", "p50", "p90", "p99", "p99.9", "max", "missed", "not 200", "core %", "queue"];
pub(crate) const GOAL_COLUMNS: [&str; 4] = ["goal", "at most", "measured", "reached"];
pub(crate) const MEMORY_COLUMNS: [&str; 7] = [
    "contender",
    "idle MB",
    "of it anonymous",
    "idle CPU %",
    "KiB per idle connection",
    "MB with streams",
    "connections, streams",
];

/// One contender at one load. Latencies in milliseconds.
pub(crate) fn cell_row(results: &Results, cell: &Cell) -> Vec<String> {
    let beside = results.beside(cell);
    let half = cell.half.as_ref();
    let half_of = |pick: fn(&Run) -> f64| half.map_or_else(dash, |run| figure(pick(run)));
    let (run, direct) = (&cell.closed, cell.contender == Contender::Direct);
    vec![
        cell.connections.to_string(),
        named(cell),
        cpu(Some(run)),
        ratio(beside.and_then(|other| cpu_against(&cell.closed_runs, &other.closed_runs))),
        format!("{:.0}", run.per_second),
        if direct { dash() } else { format!("{:.0}", run.cpu_share * 100.0) },
        format!("{:.0}", run.load_share * 100.0),
        figure(run.latency_ms.p50),
        figure(run.latency_ms.p90),
        figure(run.latency_ms.p99),
        figure(run.latency_ms.p999),
        cpu(half),
        ratio(beside.and_then(|other| cpu_against(&cell.half_runs, &other.half_runs))),
        half_of(|run| run.latency_ms.p50),
        half_of(|run| run.latency_ms.p99),
        half_of(|run| run.latency_ms.p999),
        results.added_p99(cell).map_or_else(dash, figure),
        if direct { dash() } else { format!("{:.1}", run.rss_mb) },
    ]
}

pub(crate) fn probe_rows(results: &Results) -> Vec<Vec<String>> {
    let row = |one: &crate::record::Probed| {
        let ms = one.latency_ms;
        vec![
            one.scene.clone(),
            one.target.clone(),
            figure(ms.p50),
            figure(ms.p90),
            figure(ms.p99),
            figure(ms.p999),
            figure(ms.max),
            format!("{} of {}", one.missed, one.sent),
            one.refused.to_string(),
            format!("{:.0}", one.cpu_share * 100.0),
            one.queue.to_string(),
        ]
    };
    results.probed.iter().map(row).collect()
}

pub(crate) fn memory_rows(results: &Results) -> Vec<Vec<String>> {
    let row = |held: &crate::record::Held| {
        vec![
            held.contender.name().to_owned(),
            format!("{:.1}", held.idle_mb),
            format!("{:.1}", held.idle_anonymous_mb),
            format!("{:.1}", held.idle_cpu_percent),
            held.kib_per_idle.map_or_else(|| held.notes.join("; "), |kib| format!("{kib:.1}")),
            held.streams_mb.map_or_else(|| held.notes.join("; "), |mb| format!("{mb:.0}")),
            format!("{}, {}", held.idle_connections, held.streams),
        ]
    };
    results.held.iter().map(row).collect()
}

/// What the run came from, in a paragraph.
pub(crate) fn heading(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = String::new();
    line(
        &mut text,
        &format!("{} x {}, {} MB, Linux {}", machine.core_count, machine.cpu, machine.memory_mb, machine.kernel),
    );
    if !machine.own_network {
        line(&mut text, "on the host's own loopback: no network namespace of its own was to be had");
    }
    let cores = machine.cores;
    line(
        &mut text,
        &format!(
            "contender alone on core {}, backend on {}, generator on {}, prober on {}; {} rounds of {} s, medians",
            cores.proxy.0, cores.backend.0, cores.generator.0, cores.prober.0, results.rounds, results.seconds
        ),
    );
    line(&mut text, &strangers(results));
    for entrant in &results.entrants {
        let unsaid = if entrant.contender == Contender::Direct { "the backend itself" } else { "version unknown" };
        let words = entrant.missing.as_deref().or(entrant.version.as_deref()).unwrap_or(unsaid);
        line(&mut text, &format!("  {:<11} {words}", entrant.contender.name()));
    }
    if let Some(reference) = results.reference {
        line(
            &mut text,
            &format!(
                "ratios are of CPU per answer, to {}, the median of each round's; `half` is half of what it answered",
                reference.name()
            ),
        );
    }
    text
}

/// How quiet it was: figures from a busy machine are worth less, and must not hide it.
pub(crate) fn strangers(results: &Results) -> String {
    let (middle, worst) = results.foreign();
    format!(
        "other processes used {:.0} % of the machine meanwhile (median of the runs; {:.0} % at worst)",
        middle * 100.0,
        worst * 100.0
    )
}

/// A note marks a run in which something failed or was never answered.
fn named(cell: &Cell) -> String {
    let name = cell.contender.name();
    let half = cell.half.as_ref().map_or(0, |half| half.failures + half.unanswered);
    match cell.closed.failures + half {
        0 => name.to_owned(),
        lost => format!("{name} (lost {lost})"),
    }
}

fn cpu(run: Option<&Run>) -> String {
    run.and_then(|run| run.cpu_us).map_or_else(dash, |us| format!("{us:.1}"))
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(dash, |ratio| format!("{ratio:.2}"))
}

/// Three digits that matter.
pub(crate) fn figure(value: f64) -> String {
    match value {
        // An added latency may be below nothing: noise, and shown as it is.
        small if small.abs() < 10.0 => format!("{small:.2}"),
        middle if middle < 100.0 => format!("{middle:.1}"),
        large => format!("{large:.0}"),
    }
}

fn dash() -> String {
    "-".into()
}

fn line(text: &mut String, words: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{words}");
}

/// A title and aligned columns: words to the left, figures to the right.
fn rows(text: &mut String, title: &str, columns: &[&str], rows: Vec<Vec<String>>) {
    line(text, &format!("\n{title}"));
    let (columns, rows) = filled(columns, &rows);
    let head: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(&rows).collect();
    let widths: Vec<usize> =
        (0..columns.len()).map(|at| all.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    for row in all {
        let mut words = String::new();
        for ((word, width), column) in row.iter().zip(&widths).zip(&columns) {
            let left = ["contender", "goal", "scene", "who answers"].contains(column);
            let _ = if left { write!(words, "{word:<width$}  ") } else { write!(words, "{word:>width$}  ") };
        }
        line(text, words.trim_end());
    }
}

/// Without the columns in which nobody has a figure.
pub(crate) fn filled<'a>(columns: &[&'a str], rows: &[Vec<String>]) -> (Vec<&'a str>, Vec<Vec<String>>) {
    let kept: Vec<usize> = (0..columns.len()).filter(|at| rows.iter().any(|row| row[*at] != dash())).collect();
    let pick = |row: &Vec<String>| kept.iter().map(|at| row[*at].clone()).collect();
    (kept.iter().map(|at| columns[*at]).collect(), rows.iter().map(pick).collect())
}
