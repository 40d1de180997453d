//! `[upstream.passive]`: when real requests put an address out of rotation.

use std::time::Duration;

use super::super::fault::{Fault, Faults, KeyPath, path};
use super::super::raw::{RawPassive, Span};
use super::server::positive;
use crate::engine::PassivePlan;

/// More failures in a row than this are no rule but a wish.
const COUNT_MAX: i64 = 1_000_000;

/// None where it is switched off. What is faulty has its default meanwhile.
pub(super) fn lower(raw: &RawPassive, faults: &mut Faults) -> Option<PassivePlan> {
    let default = PassivePlan::default();
    let mut count = |typed: Option<i64>, least: i64, key: &str, default: u32| match typed {
        None => default,
        // Within bounds that fit.
        Some(number) if (least..=COUNT_MAX).contains(&number) => number as u32,
        Some(number) => {
            faults.push(Fault::value(at(key), format!("found {number}")).expected(format!("{least} to {COUNT_MAX}")));
            default
        }
    };
    let consecutive_failures = count(raw.consecutive_failures, 0, "consecutive_failures", default.consecutive_failures);
    let min_requests = count(raw.min_requests, 1, "min_requests", default.min_requests);
    let mut span = |typed: &Option<Span>, key: &str, default: Duration| {
        typed.as_ref().and_then(|span| positive(span, at(key), faults)).unwrap_or(default)
    };
    let plan = PassivePlan {
        consecutive_failures,
        min_requests,
        min_success_permille: raw.min_success.as_ref().map_or(default.min_success_permille, |share| share.0),
        window: span(&raw.window, "window", default.window),
        base_ejection: span(&raw.base_ejection, "base_ejection", default.base_ejection),
        max_ejection: span(&raw.max_ejection, "max_ejection", default.max_ejection),
        max_ejected_permille: raw.max_ejected.as_ref().map_or(default.max_ejected_permille, |share| share.0),
        probation: span(&raw.probation, "probation", default.probation),
    };
    if plan.max_ejection < plan.base_ejection {
        let fault = Fault::value(at("base_ejection"), "longer than `max_ejection`");
        faults.push(fault.expected("at most `max_ejection`"));
    }
    raw.enabled.unwrap_or(true).then_some(plan)
}

fn at(key: &str) -> KeyPath {
    path(["upstream", "passive", key])
}
