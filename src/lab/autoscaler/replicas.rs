//! From the pods' samples to a number of pods: upstream's replica calculator.

use super::{Sample, Spec, Target};
use crate::engine::Time;

/// A target of utilisation is per cent of this.
const WHOLE: u64 = 1000;

/// Pods by what is known of them.
#[derive(Debug, Default)]
struct Groups {
    /// What each that counts says.
    values: Vec<u64>,
    unready: usize,
    missing: usize,
}

/// How many pods would bring the average to the target; none if no pod says anything.
pub(super) fn proposed(now: Time, spec: &Spec, current: usize, samples: &[Sample]) -> Option<usize> {
    let Groups { mut values, unready, missing } = groups(now, spec, samples);
    if values.is_empty() {
        return None;
    }
    let ratio = ratio(&values, spec.target);
    let rises_with_unready = unready > 0 && ratio > 1.0;
    if !rises_with_unready && missing == 0 {
        let is_close = is_within(ratio, spec.tolerance);
        return Some(if is_close { current } else { times(ratio, values.len()) });
    }
    // The unknown speaks against any movement: it counts as busy on the way down, as idle on the way up.
    // At the target exactly there is no way to go; of plain numbers upstream takes even that for a way up.
    let is_plain = matches!(spec.target, Target::InFlight(_));
    if missing > 0 && (ratio != 1.0 || is_plain) {
        let busy = match spec.target {
            Target::InFlight(target) => target,
            Target::Utilisation(percent) => percent.max(100) * WHOLE / 100,
        };
        values.extend(std::iter::repeat_n(if ratio < 1.0 { busy } else { 0 }, missing));
    }
    if rises_with_unready {
        values.extend(std::iter::repeat_n(0, unready));
    }
    let cautious = self::ratio(&values, spec.target);
    let turns = ratio < 1.0 && cautious > 1.0 || ratio > 1.0 && cautious < 1.0;
    if is_within(cautious, spec.tolerance) || turns {
        return Some(current);
    }
    let proposal = times(cautious, values.len());
    let contradicts = cautious < 1.0 && proposal > current || cautious > 1.0 && proposal < current;
    Some(if contradicts { current } else { proposal })
}

fn groups(now: Time, spec: &Spec, samples: &[Sample]) -> Groups {
    let mut groups = Groups::default();
    for sample in samples.iter().filter(|sample| !sample.is_leaving) {
        match sample.value {
            _ if sample.is_pending => groups.unready += 1,
            None => groups.missing += 1,
            Some(_) if is_unready(now, spec, sample) => groups.unready += 1,
            Some(value) => groups.values.push(value),
        }
    }
    groups
}

/// A pod that starts uses CPU for itself: what it says then is no load. Requests in flight are load at any time.
fn is_unready(now: Time, spec: &Spec, sample: &Sample) -> bool {
    if matches!(spec.target, Target::InFlight(_)) {
        return false;
    }
    if now < sample.started + spec.cpu_initialization_period {
        // A sample covers the time since the last look.
        return !sample.is_ready || now < sample.changed + spec.sync;
    }
    !sample.is_ready && sample.changed < sample.started + spec.initial_readiness_delay
}

/// Of the average to the target, in whole per cent of a pod or whole thousandths, as upstream counts.
fn ratio(values: &[u64], target: Target) -> f64 {
    let (total, count) = (values.iter().sum::<u64>(), values.len() as u64);
    let (average, target) = match target {
        Target::InFlight(target) => (total / count, target),
        Target::Utilisation(percent) => (total * 100 / (count * WHOLE), percent),
    };
    average as f64 / target as f64
}

fn is_within(ratio: f64, tolerance: f64) -> bool {
    (1.0 - tolerance..=1.0 + tolerance).contains(&ratio)
}

fn times(ratio: f64, pods: usize) -> usize {
    (ratio * pods as f64).ceil() as usize
}
