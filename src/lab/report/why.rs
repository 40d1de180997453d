//! Why a row of the table is as it is: only what surprises, in the words of whoever decided.

use super::{DesignReport, Report};
use crate::lab::scenario::Metric;
use crate::lab::world::{Act, Decision};

/// Per cent of requests below the best design that want an explanation.
const SURPRISING_LOSS: f64 = 0.05;
/// A cause of fewer of all requests is left out, in per cent.
const SMALL_CAUSE: f64 = 0.01;
/// Causes named in one line.
const NAMED_MAX: usize = 3;

/// Fills in `why` of every design.
pub(super) fn explain(report: &mut Report) {
    let best = report.designs.iter().map(|design| design.metric(Metric::Availability).median).fold(0.0, f64::max);
    let (pods, seeds) = (report.pods, report.seeds);
    for design in &mut report.designs {
        let lines = [
            lost_pods(design, pods),
            kills(design, Act::KilledWrongly, seeds),
            kills(design, Act::KilledRightly, seeds),
            unnoticed(design),
            requests(design, best),
        ];
        design.why = lines.into_iter().flatten().collect();
    }
}

fn kills(design: &DesignReport, act: Act, seeds: u64) -> Option<String> {
    let of = |decision: &&Decision| decision.act == act;
    let times: u64 = design.decisions.iter().filter(of).map(|decision| decision.times).sum();
    let reasons = named(design.decisions.iter().filter(of))?;
    let a_run = if seeds > 1 { " a run" } else { "" };
    Some(format!("{} {}{a_run}: {reasons}", number(times as f64 / seeds as f64), act.as_str()))
}

/// Every pod out at one time.
fn lost_pods(design: &DesignReport, pods: usize) -> Option<String> {
    let lost = design.metric(Metric::PodsLost).high;
    if pods < 2 || lost < pods as f64 {
        return None;
    }
    let out = design.decisions.iter().filter(|decision| decision.act == Act::OutOfRotation);
    Some(format!("all {pods} pods were out at one time: {}", named(out)?))
}

fn unnoticed(design: &DesignReport) -> Option<String> {
    let DesignReport { undetected, detectable, .. } = design;
    let nobody = "no probe of this design looks at what broke, or none leads to an act";
    (*undetected > 0)
        .then(|| format!("{undetected} of {detectable} server faults over all seeds went unnoticed: {nobody}"))
}

fn requests(design: &DesignReport, best: f64) -> Option<String> {
    let availability = design.metric(Metric::Availability).median;
    if best - availability < SURPRISING_LOSS {
        return None;
    }
    let large = design.causes.iter().filter(|cause| cause.percent >= SMALL_CAUSE).take(NAMED_MAX);
    let causes: Vec<String> = large.map(|cause| format!("{:.2} % {}", cause.percent, cause.says)).collect();
    let behind = best - availability;
    (!causes.is_empty()).then(|| format!("{behind:.2} points of availability behind the best: {}", causes.join("; ")))
}

/// The most frequent reasons.
fn named<'a>(decisions: impl Iterator<Item = &'a Decision>) -> Option<String> {
    let all: Vec<&Decision> = decisions.collect();
    let shown: Vec<&str> = all.iter().take(NAMED_MAX).map(|decision| decision.reason.as_str()).collect();
    let more = all.len() - shown.len();
    let rest = if more > 0 { format!("; and {more} more reasons") } else { String::new() };
    (!shown.is_empty()).then(|| shown.join("; ") + &rest)
}

fn number(value: f64) -> String {
    if value.fract().abs() < 1e-9 { format!("{value:.0}") } else { format!("{value:.1}") }
}
