//! The results of a sweep as one page that needs nothing else.

use std::fmt::Write as _;

use super::{Cost, Sweep};
use crate::lab::html::{STYLE, escape};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 48.0;
const OWN_STYLE: &str = "
svg.plot { height: auto; } svg text { fill: var(--dim); font: 12px system-ui, sans-serif; }
td.name { text-align: left; white-space: normal; min-width: 8rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) { svg text { font-size: 22px; } th, td { padding: .4rem .35rem; }
  td.name { font-size: .8rem; } }
tr.take { font-weight: 600; }
.lead { font-size: 1.05rem; }
";

/// The whole page.
pub fn page(sweep: &Sweep) -> String {
    let title = escape(&sweep.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}{OWN_STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<p class=\"dim\">{}: {} points, seeds {} to {}, means over the seeds.</p>",
        escape(&sweep.design),
        sweep.points.len(),
        sweep.first_seed,
        sweep.last_seed()
    );
    if let Some(proposal) = &sweep.proposal {
        let _ = writeln!(out, "<p class=\"lead\">{}</p>", escape(&proposal.reason));
    }
    plot(&mut out, sweep);
    table(&mut out, sweep);
    out.push_str("</body></html>\n");
    out
}

/// Detection time to the right, lost requests upwards; red restarts what it should not.
fn plot(out: &mut String, sweep: &Sweep) {
    let costs: Vec<(usize, Cost)> =
        sweep.points.iter().enumerate().filter_map(|(index, point)| Some((index, point.cost?))).collect();
    let most = |of: fn(&Cost) -> f64| costs.iter().map(|(_, cost)| of(cost)).fold(0.0, f64::max).max(1.0);
    let (seconds, lost) = (most(|cost| cost.detection_seconds), most(|cost| cost.lost));
    let (wide, high) = (2.0_f64.mul_add(-MARGIN, WIDTH), 2.0_f64.mul_add(-MARGIN, HEIGHT));
    let _ = writeln!(
        out,
        "<div class=\"card\"><svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"lost requests against detection time\">\
         <path d=\"M{MARGIN} {MARGIN} V{} H{}\" fill=\"none\" stroke=\"var(--line)\"/>\
         <text x=\"{MARGIN}\" y=\"{}\">lost requests, up to {lost:.0}</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">seconds to detection, up to {seconds:.0}</text>",
        HEIGHT - MARGIN,
        WIDTH - MARGIN,
        MARGIN - 12.0,
        WIDTH - MARGIN,
        HEIGHT - MARGIN + 28.0
    );
    for (index, cost) in costs {
        let x = MARGIN + wide * cost.detection_seconds / seconds;
        let y = HEIGHT - MARGIN - high * cost.lost / lost;
        let is_front = sweep.front.contains(&index);
        let is_taken = sweep.proposal.as_ref().is_some_and(|proposal| proposal.point == index);
        let color = if cost.unwanted_restarts > 0.0 { "--lie" } else { "--up" };
        let (radius, opacity) = match (is_taken, is_front) {
            (true, _) => (9.0, 1.0),
            (false, true) => (6.0, 1.0),
            (false, false) => (4.0, 0.35),
        };
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"var({color})\" opacity=\"{opacity}\">\
             <title>{}: {:.1} s, {:.1} unwanted, {:.0} lost</title></circle>",
            escape(&sweep.name(&sweep.points[index])),
            cost.detection_seconds,
            cost.unwanted_restarts,
            cost.lost
        );
    }
    out.push_str(
        "</svg><p class=\"key\"><span><i style=\"background:var(--up)\"></i>no unwanted restart</span>\
         <span><i style=\"background:var(--lie)\"></i>unwanted restarts</span>\
         <span>large: proposed; faint: beaten</span>\
         </p></div>\n",
    );
}

fn table(out: &mut String, sweep: &Sweep) {
    out.push_str(
        "<h2>The front</h2><div class=\"wide\"><table><thead><tr><th>choice</th><th>detected</th><th>never</th>\
         <th>unwanted</th><th>lost</th></tr></thead><tbody>\n",
    );
    let written = (!sweep.front.contains(&0)).then_some(0);
    for index in sweep.front.iter().copied().chain(written) {
        let Some(cost) = sweep.points[index].cost else { continue };
        let taken = sweep.proposal.as_ref().is_some_and(|proposal| proposal.point == index);
        let class = if taken { " class=\"take\"" } else { "" };
        let detected = if sweep.has_detection { format!("{:.1} s", cost.detection_seconds) } else { "-".to_owned() };
        let beaten = if written == Some(index) { " (beaten)" } else { "" };
        let _ = writeln!(
            out,
            "<tr{class}><td class=\"name\">{}{beaten}</td><td>{detected}</td><td>{:.1}</td>\
             <td>{:.1}</td><td>{:.0}</td></tr>",
            // On a phone a key is broken at its dots.
            escape(&sweep.name(&sweep.points[index])).replace('.', ".<wbr>"),
            cost.undetected,
            cost.unwanted_restarts,
            cost.lost
        );
    }
    out.push_str("</tbody></table></div>\n");
}
