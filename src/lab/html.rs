//! The results of an experiment as one page that needs nothing else: for a laptop, a phone, light and dark.

mod style;
mod time;

use std::fmt::Write as _;

use super::report::{DesignReport, Interval, Report, clock};
use super::scenario::Metric;
use super::world::Act;

pub(super) use style::STYLE;

/// Notes shown for each design.
const NOTES: usize = 60;
/// The least that a bar shows of requests that did not end well, in per cent.
const LOSS_SHOWN_MIN: f64 = 1.5;
/// Causes shown of what decided.
const DECISIONS: usize = 12;

/// A column that only faults of servers fill.
const NOTICED: &str = "noticed";

/// The whole page.
pub fn page(report: &Report) -> String {
    let title = escape(&report.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}{}</style></head><body>\n<p class=\"tag\">probegate lab</p><h1>{title}</h1>\n",
        style::OWN
    );
    paragraph(&mut out, "asked", "Asked", &report.question);
    paragraph(&mut out, "predicted", "Predicted", &report.prediction);
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<p class=\"dim\">{} designs on the same faults; {} pods, {} of virtual time, {}. Values are medians, with the \
         range over the seeds below.</p>",
        report.designs.len(),
        report.pods,
        clock(report.duration_seconds),
        report.which_seeds()
    );
    time::events(&mut out, report);
    out.push_str("<h2>Design against design</h2>\n");
    table(&mut out, report);
    out.push_str("<h2>How requests ended, minute by minute</h2>\n");
    out.push_str("<p class=\"dim\">Shares of all requests sent in a minute, over all seeds.</p>\n");
    time::minutes(&mut out, report);
    out.push_str("<h2>Pod by pod</h2>\n");
    let _ = writeln!(out, "<p class=\"dim\">Time lines and stories are those of seed {}.</p>", report.first_seed);
    time::key(&mut out);
    for (index, design) in report.designs.iter().enumerate() {
        section(&mut out, report, index, design);
    }
    expectations(&mut out, report);
    out.push_str("</body></html>\n");
    out
}

fn paragraph(out: &mut String, class: &str, lead: &str, text: &str) {
    if !text.is_empty() {
        let _ = writeln!(out, "<p class=\"{class}\"><b>{lead}</b>{}</p>", escape(text));
    }
}

fn table(out: &mut String, report: &Report) {
    let heads = [
        ("ended well", "requests, retries included"),
        ("worst minute", "requests that ended well in the worst minute"),
        ("failed", "requests that did not end well"),
        (NOTICED, "from a server's fault to its pod leaving rotation or its process ending"),
        ("out", "pod-seconds out of rotation"),
        ("pods lost", "most pods out at one time"),
        ("restarts", "of the model server"),
        ("wanted", "killed while it stood still"),
        ("unwanted", "killed though a restart mends nothing"),
    ];
    out.push_str("<div class=\"wide\"><table class=\"designs\"><thead><tr><th>design</th>");
    for (head, says) in heads.into_iter().filter(|(head, _)| *head != NOTICED || report.has_detection()) {
        let _ = write!(out, "<th title=\"{says}\">{head}</th>");
    }
    out.push_str("</tr></thead><tbody>\n");
    for (index, design) in report.designs.iter().enumerate() {
        row(out, report, index, design);
    }
    out.push_str("</tbody></table></div>\n");
}

fn row(out: &mut String, report: &Report, index: usize, design: &DesignReport) {
    let metric = |metric: Metric| design.metric(metric);
    let _ = write!(out, "<tr><td><a href=\"#d{index}\">{}</a></td><td>", escape(&design.name));
    figure(out, metric(Metric::Availability), 2, " %");
    let lost = 100.0 - metric(Metric::Availability).median;
    // The smallest loss is to be seen, too.
    let lost = if lost > 0.0 { lost.max(LOSS_SHOWN_MIN) } else { 0.0 };
    let _ = write!(out, "<span class=\"bar\"><i style=\"width:{lost:.1}%\"></i></span></td>");
    cell(out, metric(Metric::WorstMinute), 1, " %", false);
    cell(out, metric(Metric::Failed), 0, "", false);
    if report.has_detection() {
        noticed(out, design);
    }
    cell(out, metric(Metric::OutOfRotationSeconds), 0, " s", false);
    let lost = metric(Metric::PodsLost);
    cell(out, lost, 0, "", lost.median >= report.pods as f64);
    cell(out, metric(Metric::Restarts), 0, "", false);
    cell(out, metric(Metric::WantedRestarts), 0, "", false);
    let unwanted = metric(Metric::UnwantedRestarts);
    cell(out, unwanted, 0, "", unwanted.high > 0.0);
    out.push_str("</tr>\n");
}

fn noticed(out: &mut String, design: &DesignReport) {
    match design.detection_seconds {
        Some(seconds) => {
            out.push_str("<td>");
            figure(out, seconds, 1, " s");
            if design.undetected > 0 {
                let _ = write!(out, "<small class=\"no\">{} never</small>", design.undetected);
            }
            out.push_str("</td>");
        }
        None if design.undetected > 0 => out.push_str("<td class=\"no\">never</td>"),
        None => out.push_str("<td>-</td>"),
    }
}

fn cell(out: &mut String, interval: Interval, digits: usize, unit: &str, is_bad: bool) {
    out.push_str(if is_bad { "<td class=\"no\">" } else { "<td>" });
    figure(out, interval, digits, unit);
    out.push_str("</td>");
}

fn figure(out: &mut String, interval: Interval, digits: usize, unit: &str) {
    let Interval { low, median, high } = interval;
    let _ = write!(out, "{median:.digits$}{unit}");
    if !interval.is_one() {
        let _ = write!(out, "<small>{low:.digits$} to {high:.digits$}</small>");
    }
}

fn section(out: &mut String, report: &Report, index: usize, design: &DesignReport) {
    let _ =
        writeln!(out, "<h2 id=\"d{index}\">{}</h2><p class=\"dim\">{}</p>", escape(&design.name), escape(&design.says));
    if !design.why.is_empty() {
        out.push_str("<ul class=\"why\">");
        for why in &design.why {
            let _ = write!(out, "<li>{}</li>", escape(why));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("<div class=\"card\">\n");
    time::lanes(out, report, design);
    out.push_str("</div>\n");
    causes(out, design);
    decided(out, report, design);
    story(out, report, design);
}

fn causes(out: &mut String, design: &DesignReport) {
    if design.causes.is_empty() {
        return;
    }
    out.push_str("<h3>Requests that did not end well</h3><div class=\"key\">");
    for cause in &design.causes {
        let _ = write!(
            out,
            "<span><i style=\"background: var(--{})\"></i>{:.2} % {}</span>",
            cause.cause,
            cause.percent,
            escape(cause.says)
        );
    }
    out.push_str("</div>\n");
}

/// Which check or which answer led to what.
fn decided(out: &mut String, report: &Report, design: &DesignReport) {
    if design.decisions.is_empty() {
        return;
    }
    out.push_str("<h3>What decided</h3><div class=\"decided\">");
    for decision in design.decisions.iter().take(DECISIONS) {
        let class = if decision.act == Act::KilledWrongly { " class=\"no\"" } else { "" };
        let _ = write!(
            out,
            "<span class=\"n\">{:.1} a run</span><span{class}>{}</span><span>{}</span>",
            decision.times as f64 / report.seeds as f64,
            decision.act.as_str(),
            escape(&decision.reason)
        );
    }
    out.push_str("</div>\n");
}

fn story(out: &mut String, report: &Report, design: &DesignReport) {
    if design.notes.is_empty() {
        return;
    }
    let _ = write!(out, "<details><summary>What happened with seed {}, and why</summary><ol>", report.first_seed);
    for note in design.notes.iter().take(NOTES) {
        let _ = writeln!(
            out,
            "<li><span>{:.1} s</span><span>pod {}</span><span>{}</span></li>",
            note.at,
            note.pod,
            escape(&note.text)
        );
    }
    if design.notes.len() > NOTES {
        let _ =
            writeln!(out, "<li><span></span><span></span><span>and {} more</span></li>", design.notes.len() - NOTES);
    }
    out.push_str("</ol></details>\n");
}

fn expectations(out: &mut String, report: &Report) {
    if report.expectations.is_empty() {
        return;
    }
    let held = report.expectations.iter().filter(|expected| expected.holds).count();
    let _ = write!(
        out,
        "<h2>Expectations</h2><p class=\"dim\">{held} of {} hold on every seed.</p><ul class=\"expect\">",
        report.expectations.len()
    );
    for expected in &report.expectations {
        let (class, mark) = if expected.holds { ("", "✓") } else { (" class=\"missed\"", "✗") };
        let _ = write!(
            out,
            "<li{class}><b>{mark}</b>{} <span class=\"dim\">(seen {})</span></li>",
            escape(&expected.line),
            expected.seen.show(2)
        );
    }
    out.push_str("</ul>\n");
}

pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{fixture, report};

    #[test]
    fn a_page_is_whole_asks_for_nothing_outside_and_escapes_what_it_was_given() {
        let text = r#"
title = "<title> & more"
question = "why?"
prediction = "because"
duration = "4m"
pods = 2
expect = ["<naive>: restarts > 0", "<naive>: restarts = 0"]
[server]
load = "5s"
concurrency = 4
queue = 16
service_time = "20ms"
[clients]
rate = 20.0
from = "30s"
timeout = "1s"
[[faults]]
at = "2m"
pod = 0
server = "hang"
"#;
        let keys = "says = \"a & b\"\nendpoints = { \"/health\" = [] }";
        let design = fixture::design("<naive>", keys, &fixture::probe("liveness", "/health", 5, 2));
        let scenario = fixture::scenario(&(text.to_owned() + &design));
        let page = page(&report::experiment(&scenario, 1, 2, &mut |_| ()));
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(page.contains("&lt;naive&gt;") && page.contains("a &amp; b") && !page.contains("<naive>"));
        assert!(!page.contains("http"), "nothing is fetched");
        assert!(page.contains("server of pod 0 hangs") && page.contains("killed rightly"), "{page}");
        assert!(page.contains("does not answer"), "who decided, and why");
        assert!(page.contains("class=\"missed\"") && page.contains("1 of 2 hold"));
        assert!(page.contains("var(--timeout)"), "how requests ended");
    }
}
