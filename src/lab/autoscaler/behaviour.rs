//! How fast it may follow a proposal: stabilisation windows and scaling policies.

use super::{Rules, Select, Spec, Step};
use crate::engine::Time;

/// What it did at one look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) at: Time,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// The present number, moved no further than every proposal of the window agrees.
pub(super) fn stabilized(now: Time, spec: &Spec, current: usize, proposal: usize, earlier: &[(Time, usize)]) -> usize {
    let within = |window| earlier.iter().filter(move |(at, _)| now.since(*at) < window).map(|(_, proposal)| *proposal);
    let up = within(spec.up.window).fold(proposal, usize::min);
    let down = within(spec.down.window).fold(proposal, usize::max);
    current.max(up).min(down)
}

/// No further than the policies and the bounds allow.
pub(super) fn limited(now: Time, spec: &Spec, current: usize, wanted: usize, changes: &[Change]) -> usize {
    if wanted > current {
        let most = highest(now, &spec.up, current, changes).max(current).min(spec.max);
        wanted.min(most)
    } else if wanted < current {
        let least = lowest(now, &spec.down, current, changes).min(current).max(spec.min);
        wanted.max(least)
    } else {
        wanted
    }
}

fn highest(now: Time, rules: &Rules, current: usize, changes: &[Change]) -> usize {
    let allowed = rules.policies.iter().map(|policy| {
        let began = at_begin(now, policy.every, current, changes);
        match policy.by {
            Step::Pods(pods) => began.saturating_add(pods),
            Step::Percent(percent) => began.saturating_mul(100 + percent).div_ceil(100),
        }
    });
    let found = match rules.select {
        Select::Disabled => None,
        Select::Max => allowed.max(),
        Select::Min => allowed.min(),
    };
    found.unwrap_or(current)
}

fn lowest(now: Time, rules: &Rules, current: usize, changes: &[Change]) -> usize {
    let allowed = rules.policies.iter().map(|policy| {
        let began = at_begin(now, policy.every, current, changes);
        match policy.by {
            Step::Pods(pods) => began.saturating_sub(pods),
            Step::Percent(percent) => began * 100_usize.saturating_sub(percent) / 100,
        }
    });
    let found = match rules.select {
        Select::Disabled => None,
        Select::Max => allowed.min(),
        Select::Min => allowed.max(),
    };
    found.unwrap_or(current)
}

/// How many there would have been at the beginning of a policy's period.
fn at_begin(now: Time, every: std::time::Duration, current: usize, changes: &[Change]) -> usize {
    let recent = || changes.iter().filter(|change| now.since(change.at) < every);
    let added: usize = recent().map(|change| change.to.saturating_sub(change.from)).sum();
    let taken: usize = recent().map(|change| change.from.saturating_sub(change.to)).sum();
    (current + taken).saturating_sub(added)
}
