//! The results as one page that needs nothing else: plots, tables, method, and every contender's configuration.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::contenders::Contender;
use crate::plot::{self, Group, Row, escape};
use crate::record::{Cell, Results, Run};
use crate::table::{
    self, COLUMNS, GOAL_COLUMNS, MEMORY_COLUMNS, PROBE_COLUMNS, cell_row, figure, memory_rows, probe_rows,
};
use crate::targets;
use crate::work::Work;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #d8dee4; --soft: #57606a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --faint: #30363d; --soft: #9198a1; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1200px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem } pre, td, th { font-variant-numeric: tabular-nums }
pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--faint); border-radius: 6px; font-size: 12px }
table { border-collapse: collapse; font-size: 13px; width: 100%; display: block; overflow-x: auto }
td, th { padding: .25rem .55rem; text-align: right; border-bottom: 1px solid var(--faint); white-space: nowrap }
th { color: var(--soft); font-weight: 500 } td.words, th.words { text-align: left }
/* On a phone a plot scrolls: shrunk, its words could not be read. */
.plot { overflow-x: auto } .plot svg { min-width: 640px; width: 100%; height: auto } svg text { font-size: 11px; fill: var(--soft) }
.grid { stroke: var(--faint); stroke-width: 1 } .range { stroke-width: 3 }
.direct { fill: #9198a1; stroke: #9198a1 } .probegate { fill: #1a7f5a; stroke: #1a7f5a } .nginx { fill: #3b7dd8; stroke: #3b7dd8 }
.nginx64 { fill: #93b8ea; stroke: #93b8ea } .haproxy { fill: #c9822b; stroke: #c9822b } .envoy { fill: #a44fb5; stroke: #a44fb5 }
.queue-proxy { fill: #c2483d; stroke: #c2483d }
.key span { display: inline-block; margin-right: 1rem } .key svg { width: 10px; height: 10px; margin-right: .3rem }
p.note { color: var(--soft) }";

const METHOD: &str = "\
CPU per answer is user plus system time of the contender's processes, from the scheduler's count in /proc, over the answers within the window. \
A closed loop asks again when it is answered; an open loop asks at a fixed rate, and its latency counts from the moment the request \
was due, so that a stall shows in every request it held up. Contenders are started afresh for each run and take turns run by run; \
the tables show medians. A run during which other processes used more than a tenth of the machine is made again, twice at most, while an allowance of 90 s lasts. \
With two cores the generator and the backend share one, so at few connections they set the pace and not the contender: compare CPU \
per answer there. `core %` says how busy the contender was, `load %` the generator and the backend (100 is one core): a probe table is about a busy data plane only where it is near 100, \
or near 20 under the CPU limit. Probes are new connections, two hundred a second, each with a second's time, sent by a thread that runs before the load; a missed one counts as a second.";

/// The whole page. `folder` is where the contenders' configurations lie.
pub(crate) fn render(results: &Results, folder: &Path) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Probegate beside its peers</title><style>{STYLE}</style></head><body>\n<h1>Probegate beside its peers</h1>\n"
    );
    put(&mut html, &format!("<pre>{}</pre>", escape(table::heading(results).trim_end())));
    put(&mut html, &key(results));
    for work in [Work::Json, Work::Tensor, Work::Tokens, Work::Grpc, Work::Websocket] {
        work_section(&mut html, results, work);
    }
    probe_section(&mut html, results);
    memory_section(&mut html, results);
    goal_section(&mut html, results);
    put(&mut html, &format!("<h2>Method</h2>\n<p>{METHOD}</p>"));
    for skipped in &results.skipped {
        let words = format!("Left out: {}, {}: {}", skipped.contender.name(), skipped.what, skipped.why);
        put(&mut html, &format!("<p class=\"note\">{}</p>", escape(&words)));
    }
    configurations(&mut html, folder);
    html.push_str("</body></html>\n");
    html
}

fn key(results: &Results) -> String {
    let mut words = String::from("<p class=\"key\">");
    for entrant in results.entrants.iter().filter(|entrant| entrant.missing.is_none()) {
        let name = entrant.contender.name();
        let _ = write!(
            words,
            "<span><svg viewBox=\"0 0 10 10\"><rect class=\"{name}\" width=\"10\" height=\"10\"/></svg>{name}</span>"
        );
    }
    words + "</p>"
}

fn work_section(html: &mut String, results: &Results, work: Work) {
    let cells: Vec<&Cell> = results.cells.iter().filter(|cell| cell.work == work).collect();
    if cells.is_empty() {
        return;
    }
    put(html, &format!("<h2>{}</h2>", escape(&table::title(work))));
    draw(html, &plot::bars(&format!("us/{}", work.unit()), &groups(&cells, |cell| cell.closed.cpu_us)));
    let half: Vec<Row> = cells.iter().filter_map(|cell| Some(latency_row(cell, cell.half.as_ref()?))).collect();
    if half.is_empty() {
        let paced: Vec<Row> = cells.iter().map(|cell| latency_row(cell, &cell.closed)).collect();
        let what = if work == Work::Tokens {
            "From the backend's write to the client's read"
        } else {
            "Latency in the closed loop"
        };
        put(html, &format!("<p class=\"note\">{what}: p50, p90, p99, p99.9</p>"));
        draw(html, &plot::quantiles(&paced));
    } else {
        put(html, "<p class=\"note\">Latency at half load, open loop: p50, p90, p99, p99.9</p>");
        draw(html, &plot::quantiles(&half));
    }
    put(html, &table_of(&COLUMNS, &cells.iter().map(|cell| cell_row(results, cell)).collect::<Vec<_>>()));
}

fn latency_row(cell: &Cell, run: &Run) -> Row {
    let lost = run.failures + run.unanswered;
    Row {
        label: format!("{}, {} connections", cell.contender.name(), cell.connections),
        class: cell.contender.name().to_owned(),
        points: [run.latency_ms.p50, run.latency_ms.p90, run.latency_ms.p99, run.latency_ms.p999],
        note: if lost == 0 { String::new() } else { format!("lost {lost}") },
    }
}

/// Cells by number of connections.
fn groups(cells: &[&Cell], value: fn(&Cell) -> Option<f64>) -> Vec<Group> {
    let mut groups: Vec<(usize, Group)> = Vec::new();
    for cell in cells {
        let Some(value) = value(cell) else { continue };
        let bar = (cell.contender.name().to_owned(), value);
        match groups.iter_mut().find(|(connections, _)| *connections == cell.connections) {
            Some((_, group)) => group.bars.push(bar),
            None => groups.push((
                cell.connections,
                Group { label: format!("{} connections", cell.connections), bars: vec![bar] },
            )),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

fn probe_section(html: &mut String, results: &Results) {
    if results.probed.is_empty() {
        return;
    }
    put(html, "<h2>Probe answers while the data plane is busy</h2>");
    let mut scenes: Vec<&str> = Vec::new();
    for probed in &results.probed {
        if !scenes.contains(&probed.scene.as_str()) {
            scenes.push(&probed.scene);
        }
    }
    for scene in scenes {
        let rows: Vec<Row> = results.probed.iter().filter(|probed| probed.scene == scene).map(probe_row).collect();
        put(html, &format!("<p class=\"note\">{}: p50, p90, p99, p99.9</p>", escape(scene)));
        draw(html, &plot::quantiles(&rows));
    }
    put(html, &table_of(&PROBE_COLUMNS, &probe_rows(results)));
}

fn probe_row(probed: &crate::record::Probed) -> Row {
    let ms = probed.latency_ms;
    let class = Contender::ALL.into_iter().map(Contender::name).find(|name| probed.target.starts_with(name));
    Row {
        label: probed.target.clone(),
        class: class.unwrap_or("direct").to_owned(),
        points: [ms.p50, ms.p90, ms.p99, ms.p999],
        note: if probed.missed == 0 { String::new() } else { format!("missed {}", probed.missed) },
    }
}

fn memory_section(html: &mut String, results: &Results) {
    let loaded: Vec<&Cell> = results.cells.iter().filter(|cell| cell.work == Work::Json).collect();
    let mut sizes = groups(&loaded, |cell| (cell.closed.rss_mb > 0.0).then_some(cell.closed.rss_mb));
    let idle: Vec<(String, f64)> =
        results.held.iter().map(|held| (held.contender.name().to_owned(), held.idle_mb)).collect();
    if !idle.is_empty() {
        sizes.insert(0, Group { label: "idle".into(), bars: idle });
    }
    if sizes.is_empty() {
        return;
    }
    put(html, "<h2>Resident memory</h2>");
    draw(html, &plot::bars("MB", &sizes));
    if !results.held.is_empty() {
        put(html, &table_of(&MEMORY_COLUMNS, &memory_rows(results)));
    }
}

fn goal_section(html: &mut String, results: &Results) {
    let rows = targets::all(results).into_iter().map(|target| {
        let reached = target.reached().map_or("not measured", |reached| if reached { "yes" } else { "no" });
        let measured = target.measured.map_or_else(|| "-".into(), figure);
        vec![target.what.clone(), figure(target.at_most), measured, reached.to_owned()]
    });
    put(html, "<h2>Goals</h2>");
    put(html, &table_of(&GOAL_COLUMNS, &rows.collect::<Vec<_>>()));
}

fn configurations(html: &mut String, folder: &Path) {
    put(
        html,
        "<h2>Configurations</h2>\n<p class=\"note\">As last written, with the ports and folders of that run.</p>",
    );
    for name in ["probegate.toml", "nginx.conf", "haproxy.cfg", "envoy.yaml", "queue-proxy.env"] {
        // A contender that took no part wrote none.
        if let Ok(text) = fs::read_to_string(folder.join(name)) {
            let text = text.replace(&folder.display().to_string(), "/tmp/load");
            put(html, &format!("<details><summary>{name}</summary><pre>{}</pre></details>", escape(&text)));
        }
    }
}

fn table_of(columns: &[&str], rows: &[Vec<String>]) -> String {
    let (columns, rows) = table::filled(columns, rows);
    let mut html = String::from("<table><tr>");
    let class = |at: usize| {
        let words = ["contender", "goal", "scene", "who answers"].contains(&columns[at]);
        if words { " class=\"words\"" } else { "" }
    };
    for (at, column) in columns.iter().enumerate() {
        let _ = write!(html, "<th{}>{}</th>", class(at), escape(column));
    }
    for row in rows {
        html.push_str("</tr>\n<tr>");
        for (at, words) in row.iter().enumerate() {
            let _ = write!(html, "<td{}>{}</td>", class(at), escape(words));
        }
    }
    html + "</tr></table>"
}

fn draw(html: &mut String, svg: &str) {
    put(html, &format!("<div class=\"plot\">{svg}</div>"));
}

fn put(html: &mut String, element: &str) {
    html.push_str(element);
    html.push('\n');
}
