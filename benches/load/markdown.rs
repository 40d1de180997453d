//! The results of an earlier run as Markdown tables, for a README: the figures that are asked after, and nothing
//! that the page does not show in full.

use std::fmt::Write as _;

use crate::contenders::Contender;
use crate::record::{Cell, Probed, Results, cpu_against};
use crate::table::{figure, strangers};
use crate::targets;
use crate::work::Work;

/// All tables that have something in them.
pub(crate) fn render(results: &Results) -> String {
    let mut text = String::new();
    heading(&mut text, results);
    let loads = loads(results);
    let cpu = |cell: &Cell| {
        let own = cell.closed.cpu_us?;
        let ratio = results.beside(cell).and_then(|beside| cpu_against(&cell.closed_runs, &beside.closed_runs));
        Some(ratio.map_or_else(|| figure(own), |ratio| format!("{} ({ratio:.2})", figure(own))))
    };
    let reference = results.reference.map_or("nothing", Contender::name);
    by_load(&mut text, results, &loads, &format!("CPU per answer, µs (× {reference})"), &cpu);
    by_load(&mut text, results, &loads, "p99 added at half load, ms", &|cell| Some(figure(results.added_p99(cell)?)));
    memory(&mut text, results);
    probes(&mut text, results);
    goals(&mut text, results);
    text
}

fn heading(text: &mut String, results: &Results) {
    let machine = &results.machine;
    let names: Vec<String> = results
        .entrants
        .iter()
        .filter(|entrant| entrant.missing.is_none() && entrant.contender != Contender::Direct)
        .map(|entrant| entrant.version.clone().unwrap_or_else(|| entrant.contender.name().to_owned()))
        .collect();
    let words = format!(
        "{} × {}, Linux {}; the proxy alone on one core, medians of {} rounds of {} s; {}. {}.",
        machine.core_count,
        machine.cpu,
        machine.kernel,
        results.rounds,
        results.seconds,
        strangers(results),
        names.join("; ")
    );
    line(text, &words);
}

/// The loads that somebody carried, in their order.
fn loads(results: &Results) -> Vec<(Work, usize)> {
    let mut loads = Vec::new();
    for cell in &results.cells {
        if !loads.contains(&(cell.work, cell.connections)) {
            loads.push((cell.work, cell.connections));
        }
    }
    loads
}

/// A contender a row, a load a column; rows and columns without a figure are left out.
fn by_load(
    text: &mut String,
    results: &Results,
    loads: &[(Work, usize)],
    title: &str,
    words: &dyn Fn(&Cell) -> Option<String>,
) {
    let figure_of =
        |contender, (work, connections): (Work, usize)| words(results.cell(contender, work, connections)?);
    let loads: Vec<(Work, usize)> = loads
        .iter()
        .copied()
        .filter(|load| Contender::ALL.iter().any(|contender| figure_of(*contender, *load).is_some()))
        .collect();
    let mut columns = vec![title.to_owned()];
    columns.extend(loads.iter().map(|(work, connections)| format!("{work}, {connections}")));
    let rows = Contender::ALL.into_iter().filter_map(|contender| {
        let figures: Vec<Option<String>> = loads.iter().map(|load| figure_of(contender, *load)).collect();
        figures.iter().any(Option::is_some).then(|| row_of(contender, figures))
    });
    table(text, &columns, &rows.collect::<Vec<_>>());
}

fn row_of(contender: Contender, figures: Vec<Option<String>>) -> Vec<String> {
    let mut row = vec![contender.name().to_owned()];
    row.extend(figures.into_iter().map(Option::unwrap_or_default));
    row
}

fn memory(text: &mut String, results: &Results) {
    let mut active: Vec<usize> =
        results.cells.iter().filter(|cell| cell.work == Work::Json).map(|cell| cell.connections).collect();
    active.dedup();
    let mut columns = vec!["RSS, MB".to_owned(), "idle".to_owned()];
    columns.extend(active.iter().map(|connections| format!("{connections} active")));
    columns.extend(["KiB per idle connection".to_owned(), "open streams".to_owned()]);
    let rows = results.held.iter().map(|held| {
        let mut figures = vec![Some(figure(held.idle_mb))];
        figures.extend(active.iter().map(|connections| {
            results.cell(held.contender, Work::Json, *connections).map(|cell| figure(cell.closed.rss_mb))
        }));
        figures.push(held.kib_per_idle.map(figure));
        figures.push(held.streams_mb.map(|mb| format!("{} with {}", figure(mb), held.streams)));
        row_of(held.contender, figures)
    });
    table(text, &columns, &rows.collect::<Vec<_>>());
}

fn probes(text: &mut String, results: &Results) {
    let mut scenes: Vec<&str> = Vec::new();
    let mut targets: Vec<&str> = Vec::new();
    for probed in &results.probed {
        if !scenes.contains(&probed.scene.as_str()) {
            scenes.push(&probed.scene);
        }
        if !targets.contains(&probed.target.as_str()) {
            targets.push(&probed.target);
        }
    }
    let mut columns = vec!["Probe p50 / p99 / p99.9, ms".to_owned()];
    columns.extend(scenes.iter().map(|scene| (*scene).to_owned()));
    let rows = targets.iter().map(|target| {
        let mut row = vec![(*target).to_owned()];
        row.extend(scenes.iter().map(|scene| {
            let mut all = results.probed.iter();
            all.find(|one| one.target == *target && one.scene == *scene).map(probe).unwrap_or_default()
        }));
        row
    });
    table(text, &columns, &rows.collect::<Vec<_>>());
}

fn probe(probed: &Probed) -> String {
    let ms = probed.latency_ms;
    let lost = match probed.missed + probed.refused {
        0 => String::new(),
        lost => format!(", **{lost} of {} lost**", probed.sent),
    };
    format!("{} / {} / {}{lost}", figure(ms.p50), figure(ms.p99), figure(ms.p999))
}

fn goals(text: &mut String, results: &Results) {
    let columns = ["Goal", "at most", "measured", "reached"].map(str::to_owned);
    let rows = targets::all(results).into_iter().map(|target| {
        let reached = target.reached().map_or("not measured", |reached| if reached { "yes" } else { "no" });
        let measured = target.measured.map(figure).unwrap_or_default();
        vec![target.what.clone(), figure(target.at_most), measured, reached.to_owned()]
    });
    table(text, &columns, &rows.collect::<Vec<_>>());
}

/// Nothing for no rows.
fn table(text: &mut String, columns: &[String], rows: &[Vec<String>]) {
    if rows.is_empty() || columns.len() < 2 {
        return;
    }
    line(text, "");
    line(text, &format!("| {} |", columns.join(" | ")));
    line(text, &format!("|---{}|", "|---:".repeat(columns.len() - 1)));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        line(text, &format!("| {} |", cells.join(" | ")));
    }
}

fn line(text: &mut String, words: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{words}");
}
