//! Time lines on a page: of pods, of requests by minute, with what happened to the world behind them.

use std::fmt::Write as _;

use super::escape;
use crate::lab::report::{DesignReport, Report, clock, kinds};

/// Time lines shown of one design; further pods are counted.
const LANES_MAX: usize = 40;
/// Columns of a chart by minute; of a longer run several minutes share one.
const BINS_MAX: usize = 180;
/// Ticks of an axis, both ends among them.
const TICKS: u32 = 5;

/// A lane's letter, its colour and its meaning.
const STATES: [(char, &str, &str); 5] = [
    ('=', "--up", "in rotation"),
    ('!', "--lie", "in rotation, not serving"),
    ('o', "--idle", "serving, out of rotation"),
    ('.', "--down", "neither"),
    ('R', "--again", "restarted"),
];

/// What happened to the world, with the letters that the time lines bear.
pub(super) fn events(out: &mut String, report: &Report) {
    if report.events.is_empty() {
        return;
    }
    out.push_str("<ul class=\"events\">");
    for kind in kinds(&report.events) {
        // Writing to a string cannot fail.
        let _ = write!(out, "<li><b>{}</b>{}: {}</li>", kind.letter, kind.when(), escape(kind.text));
    }
    out.push_str("</ul>\n");
}

/// How the requests of each minute ended: one chart for each design, all to the same scale.
pub(super) fn minutes(out: &mut String, report: &Report) {
    out.push_str("<div class=\"card minutes\">");
    marks(out, report);
    for design in &report.designs {
        let _ = write!(out, "<div class=\"lane\"><span>{}</span><div class=\"line\">", escape(&design.name));
        columns(out, design);
        edges(out, report);
        out.push_str("</div></div>\n");
    }
    axis(out, report);
    let mut seen: Vec<&str> = Vec::new();
    for outcome in report.designs.iter().flat_map(|design| &design.minutes) {
        if !seen.contains(&outcome.cause) {
            seen.push(outcome.cause);
        }
    }
    out.push_str("<div class=\"key\">");
    for cause in seen {
        let _ = write!(out, "<span><i style=\"background: var(--{cause})\"></i>{}</span>", cause.replace('_', " "));
    }
    out.push_str("</div></div>\n");
}

/// Shares of each minute's requests, stacked, the good ones below.
fn columns(out: &mut String, design: &DesignReport) {
    let count = design.minutes.first().map_or(0, |outcome| outcome.by_minute.len());
    let size = count.div_ceil(BINS_MAX).max(1);
    let bins = count.div_ceil(size);
    let in_bin = |by_minute: &[u64], bin: usize| -> u64 { by_minute.iter().skip(bin * size).take(size).sum() };
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {} 100\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"requests of {} by minute\">",
        bins.max(1),
        escape(&design.name)
    );
    let totals: Vec<u64> =
        (0..bins).map(|bin| design.minutes.iter().map(|outcome| in_bin(&outcome.by_minute, bin)).sum()).collect();
    let mut bottoms = vec![100.0_f64; bins];
    for outcome in &design.minutes {
        let heights: Vec<f64> = (totals.iter().enumerate())
            .map(|(bin, total)| in_bin(&outcome.by_minute, bin) as f64 * 100.0 / (*total).max(1) as f64)
            .collect();
        let mut path = String::new();
        for (bin, height) in heights.iter().enumerate().filter(|(_, height)| **height > 0.0) {
            bottoms[bin] -= height;
            let _ = write!(path, "M{bin} {:.1}h1v{height:.1}h-1z", bottoms[bin]);
        }
        let cause = outcome.cause;
        let _ = write!(out, "<path fill=\"var(--{cause})\" d=\"{path}\"><title>{cause}</title></path>");
    }
    out.push_str("</svg>");
}

/// One line for each pod of the first seed.
pub(super) fn lanes(out: &mut String, report: &Report, design: &DesignReport) {
    marks(out, report);
    for (pod, lane) in design.lanes.iter().enumerate().take(LANES_MAX) {
        let _ = write!(out, "<div class=\"lane\"><span>pod {pod}</span><div class=\"line\">");
        draw(out, pod, lane);
        edges(out, report);
        out.push_str("</div></div>\n");
    }
    axis(out, report);
    if design.lanes.len() > LANES_MAX {
        let _ = write!(out, "<p class=\"dim\">and {} more pods</p>", design.lanes.len() - LANES_MAX);
    }
}

/// What the colours of [`lanes`] mean.
pub(super) fn key(out: &mut String) {
    out.push_str("<div class=\"key\">");
    for (_, colour, meaning) in STATES {
        let _ = write!(out, "<span><i style=\"background: var({colour})\"></i>{meaning}</span>");
    }
    out.push_str("</div>\n");
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
        if let Some((_, colour, _)) = STATES.iter().find(|state| state.0 == letters[at]) {
            let _ = write!(out, "<rect x=\"{at}\" width=\"{length}\" height=\"1\" fill=\"var({colour})\"/>");
        }
        at += length;
    }
    out.push_str("</svg>");
}

fn percent(report: &Report, at: f64) -> f64 {
    (at / report.duration_seconds * 100.0).clamp(0.0, 100.0)
}

/// Where something begins or ends.
fn edges(out: &mut String, report: &Report) {
    for at in report.events.iter().flat_map(|event| [Some(event.at), event.until]).flatten() {
        let _ = write!(out, "<i class=\"edge\" style=\"left:{:.2}%\"></i>", percent(report, at));
    }
}

/// A letter where something begins, a bar for as long as it lasts.
fn marks(out: &mut String, report: &Report) {
    if report.events.is_empty() {
        return;
    }
    out.push_str("<div class=\"lane\"><span></span><div class=\"marks\">");
    for kind in kinds(&report.events) {
        for (at, until) in &kind.spans {
            let from = percent(report, *at);
            let width = until.map_or(0.0, |until| percent(report, until) - from);
            let _ = write!(
                out,
                "<span style=\"left:{from:.2}%\">{}</span><i style=\"left:{from:.2}%;width:{width:.2}%\"></i>",
                kind.letter
            );
        }
    }
    out.push_str("</div></div>\n");
}

fn axis(out: &mut String, report: &Report) {
    out.push_str("<div class=\"lane\"><span></span><div class=\"axis\">");
    for tick in 0..TICKS {
        let share = f64::from(tick) / f64::from(TICKS - 1);
        let _ =
            write!(out, "<span style=\"left:{:.0}%\">{}</span>", share * 100.0, clock(report.duration_seconds * share));
    }
    out.push_str("</div></div>\n");
}
