//! What is worth choosing from, and what to choose.

use std::fmt::Write as _;

use super::tie::gentlest;
use super::{Axis, Cost, Point, Proposal, Sweep};
use crate::lab::report::wrapped;

/// Lost requests within such a share of the fewest count as equal: the difference is chance.
const EQUAL_LOSS: f64 = 0.05;
/// Detection times that differ by less count as equal: a probe's own jitter.
const EQUAL_SECONDS: f64 = 0.5;

/// Indices of the points that no other point beats, by detection time, then as they come.
pub(super) fn of(points: &[Point]) -> Vec<usize> {
    let known: Vec<(usize, Cost)> =
        points.iter().enumerate().filter_map(|(index, point)| Some((index, point.cost?))).collect();
    let beaten =
        |(index, cost): &(usize, Cost)| known.iter().any(|(other, better)| other != index && beats(*better, *cost));
    let mut front: Vec<(usize, Cost)> = known.iter().filter(|point| !beaten(point)).copied().collect();
    front.sort_by(|one, other| one.1.detection_seconds.total_cmp(&other.1.detection_seconds).then(one.0.cmp(&other.0)));
    front.into_iter().map(|(index, _)| index).collect()
}

/// Nowhere worse and somewhere better.
fn beats(one: Cost, other: Cost) -> bool {
    let pairs = [
        (one.detection_seconds, other.detection_seconds),
        (one.unwanted_restarts, other.unwanted_restarts),
        (one.lost, other.lost),
    ];
    pairs.iter().all(|(one, other)| one <= other) && pairs.iter().any(|(one, other)| one < other)
}

/// Fewest unwanted restarts, then fewest lost requests, then fastest detection; among equals the most cautious.
pub(super) fn propose(points: &[Point], front: &[usize], axes: &[Axis], has_detection: bool) -> Option<Proposal> {
    let mut left: Vec<(usize, Cost)> =
        points.iter().enumerate().filter_map(|(index, point)| Some((index, point.cost?))).collect();
    let least = |left: &[(usize, Cost)], of: fn(&Cost) -> f64| {
        left.iter().map(|(_, cost)| of(cost)).fold(f64::INFINITY, f64::min)
    };
    let restarts = least(&left, |cost| cost.unwanted_restarts);
    left.retain(|(_, cost)| cost.unwanted_restarts <= restarts);
    let gentle = left.len();
    let lost = least(&left, |cost| cost.lost);
    left.retain(|(_, cost)| cost.lost <= lost * (1.0 + EQUAL_LOSS));
    let close = left.len();
    let seconds = least(&left, |cost| cost.detection_seconds);
    left.retain(|(_, cost)| cost.detection_seconds <= seconds + EQUAL_SECONDS);
    let equals: Vec<usize> = left.iter().map(|(index, _)| *index).collect();
    let (point, caution) = gentlest(points, &equals, axes)?;
    let cost = points[point].cost?;
    let what = if point == 0 {
        "Keep the design as written".to_owned()
    } else {
        format!("Take {}", name(&points[point], axes))
    };
    let mut reason = format!(
        "{what}: {gentle} of {} points have the fewest unwanted restarts ({restarts:.1} a run); {close} of these \
         lose no more than 5 % above the fewest requests ({lost:.0})",
        points.iter().filter(|point| point.cost.is_some()).count()
    );
    // Writing to a string cannot fail.
    let _ = if has_detection {
        write!(
            reason,
            "; of these none notices a fault faster, by more than chance, than in {:.1} s.",
            cost.detection_seconds
        )
    } else {
        write!(reason, "; the scenario has no fault of a server, so there is nothing to detect.")
    };
    reason.push_str(&caution);
    reason.push_str(&against_written(points, point, cost));
    reason.push_str(&against_fastest(points, front, axes, cost, has_detection));
    Some(Proposal { point, reason })
}

fn against_written(points: &[Point], point: usize, cost: Cost) -> String {
    match points.first().and_then(|written| written.cost) {
        Some(_) if point == 0 => " What the grid has better is within chance.".to_owned(),
        Some(written) => format!(
            " As written it is {:.1} s, {:.1} unwanted restarts, {:.0} lost; so {:.1} s, {:.1}, {:.0}.",
            written.detection_seconds,
            written.unwanted_restarts,
            written.lost,
            cost.detection_seconds,
            cost.unwanted_restarts,
            cost.lost
        ),
        None => String::new(),
    }
}

/// What more haste would cost.
fn against_fastest(points: &[Point], front: &[usize], axes: &[Axis], cost: Cost, has_detection: bool) -> String {
    let Some((fastest, its)) = front.first().and_then(|index| Some((&points[*index], points[*index].cost?))) else {
        return String::new();
    };
    if !has_detection || cost.detection_seconds <= its.detection_seconds + EQUAL_SECONDS {
        return String::new();
    }
    format!(
        " Faster is {}: {:.1} s, at {:+.1} unwanted restarts and {:+.0} lost requests.",
        name(fastest, axes),
        its.detection_seconds,
        its.unwanted_restarts - cost.unwanted_restarts,
        its.lost - cost.lost
    )
}

pub(super) fn name(point: &Point, axes: &[Axis]) -> String {
    if point.values.is_empty() {
        return "the design as written".to_owned();
    }
    let pairs = axes.iter().zip(&point.values).map(|(axis, value)| format!("{}={value}", axis.key));
    pairs.collect::<Vec<_>>().join(" ")
}

impl Sweep {
    pub(super) const fn last_seed(&self) -> u64 {
        self.first_seed.saturating_add(self.seeds - 1)
    }

    /// What a point is called.
    pub fn name(&self, point: &Point) -> String {
        name(point, &self.axes)
    }

    /// For a terminal: the front, the design as written, what was refused, the proposal.
    pub fn text(&self, width: usize) -> String {
        let mut out = String::new();
        wrapped(&mut out, "", &self.title, width);
        let refused = self.points.iter().filter(|point| point.refused.is_some()).count();
        let refused = if refused == 0 { String::new() } else { format!(", {refused} refused") };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{} on seeds {}-{}: {} points, {} of them on the front{refused}",
            self.design,
            self.first_seed,
            self.last_seed(),
            self.points.len(),
            self.front.len()
        );
        let _ = writeln!(
            out,
            "means over the seeds; > is proposed\n\n  {:>10}  {:>5}  {:>8}  {:>8}  choice",
            "detected s", "never", "unwanted", "lost"
        );
        let mut shown: Vec<usize> = self.front.clone();
        if !shown.contains(&0) {
            shown.push(0);
        }
        for index in shown {
            let point = &self.points[index];
            let Some(cost) = point.cost else { continue };
            let chosen = self.proposal.as_ref().is_some_and(|proposal| proposal.point == index);
            let detected = if self.has_detection { format!("{:.1}", cost.detection_seconds) } else { "-".to_owned() };
            let beaten = if self.front.contains(&index) { "" } else { " (beaten)" };
            let mark = if chosen { ">" } else { " " };
            let Cost { undetected, unwanted_restarts, lost, .. } = cost;
            let figures = format!("{mark} {detected:>10}  {undetected:>5.1}  {unwanted_restarts:>8.1}  {lost:>8.0}  ");
            wrapped(&mut out, &figures, &format!("{}{beaten}", self.name(point)), width);
        }
        for point in self.points.iter().filter(|point| point.refused.is_some()).take(3) {
            let why = point.refused.as_deref().unwrap_or_default();
            wrapped(&mut out, "refused: ", &format!("{}: {why}", self.name(point)), width);
        }
        if let Some(proposal) = &self.proposal {
            out.push('\n');
            wrapped(&mut out, "", &proposal.reason, width);
        }
        out
    }
}
