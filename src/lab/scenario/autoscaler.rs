//! The autoscaler of a scenario file, by upstream's names and defaults, and the surges that it is for.

use std::time::Duration;

use super::parse::{DURATION_MAX, PODS_MAX};
use super::raw::{RawAutoscaler, RawPolicy, RawRules, RawSurge, Span};
use crate::lab::autoscaler::{Policy, Rules, Select, Spec, Step, Target};

/// Most that a surge multiplies by.
const TIMES_MAX: f64 = 1000.0;
/// Longest stabilisation window and longest period of a policy, as the API server allows.
const WINDOW_MAX: Duration = Duration::from_secs(3600);
const EVERY_MAX: Duration = Duration::from_secs(1800);

/// More requests than usual, for a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surge {
    pub at: Duration,
    pub until: Duration,
    pub times: f64,
}

impl RawAutoscaler {
    pub(super) fn validate(&self) -> Result<Spec, String> {
        let usual = Spec::default();
        if self.min == 0 || self.max < self.min || self.max > PODS_MAX {
            return Err(format!("min, max: 1 <= {} <= {} <= {PODS_MAX} does not hold", self.min, self.max));
        }
        let target = match (self.in_flight, self.utilisation) {
            (Some(requests), None) if (0.001..=1e6).contains(&requests) => {
                Target::InFlight((requests * 1000.0).round() as u64)
            }
            (None, Some(percent)) if (1..=1000).contains(&percent) => Target::Utilisation(percent),
            _ => return Err("one of in_flight (above 0) and utilisation (per cent, 1 to 1000) is needed".to_owned()),
        };
        let spec = Spec {
            min: self.min,
            max: self.max,
            target,
            sync: self.sync.map_or(usual.sync, |Span(sync)| sync),
            tolerance: self.tolerance.unwrap_or(usual.tolerance),
            initial_readiness_delay: self.initial_readiness_delay.map_or(usual.initial_readiness_delay, |span| span.0),
            cpu_initialization_period: self
                .cpu_initialization_period
                .map_or(usual.cpu_initialization_period, |span| span.0),
            up: self.up.over(usual.up).map_err(|why| format!("up.{why}"))?,
            down: self.down.over(usual.down).map_err(|why| format!("down.{why}"))?,
        };
        if spec.sync < Duration::from_secs(1) || spec.sync > WINDOW_MAX {
            return Err("sync: not between a second and an hour".to_owned());
        }
        if !(0.0..1.0).contains(&spec.tolerance) {
            return Err(format!("tolerance: {} is not a share of 1", spec.tolerance));
        }
        if spec.initial_readiness_delay.max(spec.cpu_initialization_period) > DURATION_MAX {
            return Err("initial_readiness_delay, cpu_initialization_period: longer than a day".to_owned());
        }
        Ok(spec)
    }
}

impl RawRules {
    fn over(&self, usual: Rules) -> Result<Rules, String> {
        let window = self.window.map_or(usual.window, |Span(window)| window);
        if window > WINDOW_MAX {
            return Err("window: longer than an hour".to_owned());
        }
        let select = match self.select.as_deref() {
            None | Some("max") => Select::Max,
            Some("min") => Select::Min,
            Some("disabled") => Select::Disabled,
            Some(other) => return Err(format!("select: {other:?} is none of max, min, disabled")),
        };
        let policies = match &self.policies {
            None => usual.policies,
            Some(raw) if raw.is_empty() => return Err("policies: none; leave them out for the usual ones".to_owned()),
            Some(raw) => raw.iter().map(RawPolicy::validate).collect::<Result<_, _>>()?,
        };
        Ok(Rules { window, select, policies })
    }
}

impl RawPolicy {
    fn validate(&self) -> Result<Policy, String> {
        let by = match (self.pods, self.percent) {
            (Some(pods), None) if (1..=PODS_MAX).contains(&pods) => Step::Pods(pods),
            (None, Some(percent)) if (1..=100_000).contains(&percent) => Step::Percent(percent),
            _ => return Err("policies: each is one of pods and percent, above 0".to_owned()),
        };
        let Span(every) = self.every;
        if every < Duration::from_secs(1) || every > EVERY_MAX {
            return Err("policies.every: not between a second and half an hour".to_owned());
        }
        Ok(Policy { by, every })
    }
}

impl RawSurge {
    pub(super) fn validate(&self) -> Result<Surge, String> {
        let (Span(at), Span(lasts)) = (self.at, self.lasts);
        if at.max(lasts) > DURATION_MAX {
            return Err("at, for: longer than a day".to_owned());
        }
        if !(1.0 / TIMES_MAX..=TIMES_MAX).contains(&self.times) {
            return Err(format!("times: {} is not between a thousandth and {TIMES_MAX}", self.times));
        }
        Ok(Surge { at, until: at + lasts, times: self.times })
    }
}
