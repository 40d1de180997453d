//! The results of an experiment as one page that needs nothing else: for a laptop, a phone, light and dark.

use std::fmt::Write as _;

use super::report::{DesignReport, Interval, Report};

/// Notes shown for each design.
const NOTES: usize = 60;

pub(super) const STYLE: &str = "
:root { color-scheme: light dark; --bg: #fff; --fg: #1b1f24; --dim: #5b6470; --line: #d8dde3; --card: #f6f8fa;
  --up: #2f9e63; --lie: #d9480f; --idle: #8fa3b8; --down: #d3d9df; --again: #7048e8; }
@media (prefers-color-scheme: dark) { :root { --bg: #12161b; --fg: #e6eaef; --dim: #98a3b0; --line: #2d353e;
  --card: #1a2027; --up: #43b97a; --lie: #ff7a3d; --idle: #5f7690; --down: #303943; --again: #9775fa; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 1.5rem 1rem 4rem; background: var(--bg); color: var(--fg);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; }
p { margin: .25rem 0 1rem; } .dim { color: var(--dim); }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; font-size: .92rem; text-align: right; white-space: nowrap;
  border-top: 1px solid var(--line); }
thead th { border-top: 0; font-weight: 600; color: var(--dim); } th:first-child, td:first-child { text-align: left; }
td small { color: var(--dim); display: block; font-size: .75rem; }
.card { background: var(--card); border-radius: 8px; padding: .75rem; }
svg { display: block; width: 100%; height: 1.4rem; margin: .15rem 0; border-radius: 3px; }
.lane { display: grid; grid-template-columns: 3.2rem 1fr; align-items: center; font-size: .85rem; color: var(--dim); }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1rem; font-size: .85rem; color: var(--dim); margin: .5rem 0 0; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .35rem; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--dim); }
ol { margin: .5rem 0; padding: 0; list-style: none; font-size: .9rem; }
ol li { display: grid; grid-template-columns: 4.5rem 3.5rem 1fr; gap: .5rem; padding: .15rem 0; }
ol li span:first-child { text-align: right; font-variant-numeric: tabular-nums; color: var(--dim); }
.missed { color: var(--lie); font-weight: 600; }
";

/// A lane's letter, its colour and its meaning.
const STATES: [(char, &str, &str); 5] = [
    ('=', "--up", "in rotation"),
    ('!', "--lie", "in rotation, not serving"),
    ('o', "--idle", "serving, out of rotation"),
    ('.', "--down", "neither"),
    ('R', "--again", "restarted"),
];

/// The whole page.
pub fn page(report: &Report, question: &str, prediction: &str) -> String {
    let title = escape(&report.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    paragraph(&mut out, "", question);
    paragraph(&mut out, "Predicted: ", prediction);
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<p class=\"dim\">{} seeds from {}; values are medians, the range below them.</p>",
        report.seeds, report.first_seed
    );
    table(&mut out, report);
    expectations(&mut out, report);
    for design in &report.designs {
        section(&mut out, design);
    }
    out.push_str("</body></html>\n");
    out
}

fn paragraph(out: &mut String, lead: &str, text: &str) {
    if !text.is_empty() {
        let _ = writeln!(out, "<p>{lead}{}</p>", escape(text));
    }
}

fn table(out: &mut String, report: &Report) {
    out.push_str("<div class=\"wide\"><table><thead><tr>");
    for head in
        ["design", "ended well", "worst minute", "failed", "restarts", "unwanted", "pods lost", "out", "noticed"]
    {
        let _ = write!(out, "<th>{head}</th>");
    }
    out.push_str("</tr></thead><tbody>\n");
    for design in &report.designs {
        let _ = write!(out, "<tr><td>{}</td>", escape(&design.name));
        cell(out, design.availability, 2, " %");
        cell(out, design.worst_minute, 1, " %");
        cell(out, design.failed, 0, "");
        cell(out, design.restarts, 0, "");
        cell(out, design.unwanted_restarts, 0, "");
        cell(out, design.pods_lost, 0, "");
        cell(out, design.out_of_rotation_seconds, 0, " s");
        match design.detection_seconds {
            Some(seconds) => cell(out, seconds, 1, " s"),
            None if design.undetected > 0 => out.push_str("<td>never</td>"),
            None => out.push_str("<td>-</td>"),
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn cell(out: &mut String, interval: Interval, digits: usize, unit: &str) {
    let Interval { low, median, high } = interval;
    let _ = write!(out, "<td>{median:.digits$}{unit}");
    if low.total_cmp(&high).is_ne() {
        let _ = write!(out, "<small>{low:.digits$} to {high:.digits$}</small>");
    }
    out.push_str("</td>");
}

fn expectations(out: &mut String, report: &Report) {
    let missed = report.expectations.iter().filter(|expected| !expected.holds);
    for expected in missed.clone() {
        let _ = writeln!(out, "<p class=\"missed\">Missed: {}</p>", escape(&expected.line));
    }
    let held = report.expectations.len() - missed.count();
    if held > 0 {
        let _ = writeln!(out, "<p class=\"dim\">{held} of {} expectations hold.</p>", report.expectations.len());
    }
}

fn section(out: &mut String, design: &DesignReport) {
    let _ = writeln!(out, "<h2>{}</h2><p class=\"dim\">{}</p>", escape(&design.name), escape(&design.says));
    out.push_str("<div class=\"card\">\n");
    for (pod, lane) in design.lanes.iter().enumerate() {
        let _ = write!(out, "<div class=\"lane\"><span>pod {pod}</span>");
        draw(out, pod, lane);
        out.push_str("</div>\n");
    }
    out.push_str("<div class=\"key\">");
    for (_, colour, meaning) in STATES {
        let _ = write!(out, "<span><i style=\"background: var({colour})\"></i>{meaning}</span>");
    }
    out.push_str("</div></div>\n");
    if !design.causes.is_empty() {
        let causes: Vec<String> = design.causes.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        let _ = writeln!(out, "<p class=\"dim\">Not well, over all seeds: {}.</p>", escape(&causes.join(", ")));
    }
    story(out, design);
}

/// Equal neighbours become one rectangle.
fn draw(out: &mut String, pod: usize, lane: &str) {
    let letters: Vec<char> = lane.chars().collect();
    let width = letters.len().max(1);
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {width} 1\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"pod {pod}: {}\">",
        escape(lane)
    );
    let mut at = 0;
    while at < letters.len() {
        let length = letters[at..].iter().take_while(|letter| **letter == letters[at]).count();
        let colour = STATES.iter().find(|state| state.0 == letters[at]).map_or("--down", |state| state.1);
        let _ = write!(out, "<rect x=\"{at}\" width=\"{length}\" height=\"1\" fill=\"var({colour})\"/>");
        at += length;
    }
    out.push_str("</svg>");
}

fn story(out: &mut String, design: &DesignReport) {
    if design.notes.is_empty() {
        return;
    }
    out.push_str("<details><summary>What happened, and why</summary><ol>\n");
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
    use crate::lab::world::Note;

    #[test]
    fn a_page_is_whole_asks_for_nothing_outside_and_escapes_what_it_was_given() {
        let one = Interval { low: 1.0, median: 2.0, high: 3.0 };
        let design = DesignReport {
            name: "<naive>".to_owned(),
            says: "a & b".to_owned(),
            availability: one,
            worst_minute: one,
            failed: one,
            restarts: one,
            unwanted_restarts: one,
            pods_lost: one,
            out_of_rotation_seconds: one,
            detection_seconds: None,
            undetected: 1,
            causes: vec![("timeout", 3)],
            lanes: vec!["==R.".to_owned()],
            notes: vec![Note { at: 1.0, pod: 0, text: "\"quoted\"".to_owned() }],
        };
        let report =
            Report { title: "t".to_owned(), seeds: 1, first_seed: 1, designs: vec![design], expectations: Vec::new() };
        let page = page(&report, "why?", "because");
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(page.contains("&lt;naive&gt;") && page.contains("a &amp; b") && page.contains("&quot;quoted&quot;"));
        assert!(page.contains("x=\"0\" width=\"2\""), "neighbours are joined");
        assert!(!page.contains("http"), "nothing is fetched");
        assert!(page.contains("never"));
    }
}
