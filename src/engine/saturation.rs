//! Whether the model server has more work than it can do, by marks that the file sets.
//!
//! Owns one `saturation` check: what it looks at (requests in flight and waiting, the wait of the one that has
//! waited for longest, a gauge of the server's own), a high mark for each, a low one below it, and for how long a
//! mark must be passed before the check turns. One high mark is enough to turn down; to turn back all must be
//! below their low ones. It refuses to guess: a gauge that cannot be read speaks neither for nor against. What
//! follows from it is not its business: requests are shed, readiness turns where a gate requires it, and no
//! file may wire it to liveness.

use std::time::Duration;

use super::plan::TrafficRule;
use super::time::Time;
use super::traffic::Flow;
use super::view::span;
use super::{CheckState, Engine};

/// The marks of one check. At least one of them is set.
#[derive(Clone, Debug, PartialEq)]
pub struct SaturationPlan {
    /// Requests sent to the model server. Not zero.
    pub in_flight: Option<u64>,
    /// Requests that wait in the proxy. Not zero.
    pub queued: Option<u64>,
    /// The longest wait of one of those. Not zero.
    pub queue_age: Option<Duration>,
    pub gauge: Option<GaugePlan>,
    /// The low marks' share of the high ones, in thousandths; at most 1000.
    pub low_permille: u32,
    /// A mark is passed once it has been for so long.
    pub hold: Duration,
    /// While it is down, new requests are refused.
    pub shed: bool,
}

/// A number that the model server exports.
#[derive(Clone, Debug, PartialEq)]
pub struct GaugePlan {
    /// As typed, for messages.
    pub name: String,
    /// Its high mark. Above zero.
    pub max: f64,
}

/// What one check remembers of the present model server.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// The gauge as last read, and when.
    gauge: Option<(Time, f64)>,
    /// Why it is saturated, while it is.
    saturated: Option<String>,
    /// Since when the marks have said otherwise than it does.
    contrary: Option<Time>,
}

/// One judgement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Judged {
    pub(super) down: bool,
    pub(super) reason: String,
}

/// A value beside its high mark.
struct Signal {
    value: f64,
    high: f64,
    text: String,
}

impl Marks {
    /// Judges at `now`, after a sample. A gauge that was read longer than `max_age` ago says nothing.
    pub(super) fn judge(&mut self, now: Time, plan: &SaturationPlan, flow: &Flow, max_age: Duration) -> Judged {
        let signals = self.signals(now, plan, flow, max_age);
        let low = f64::from(plan.low_permille) / 1000.0;
        let passed = |signal: &&Signal| signal.high <= signal.value;
        let contrary = match self.saturated {
            None => signals.iter().any(|signal| passed(&signal)),
            Some(_) => signals.iter().all(|signal| signal.value <= signal.high * low),
        };
        self.contrary = contrary.then(|| self.contrary.unwrap_or(now));
        if self.contrary.is_some_and(|since| plan.hold <= now.since(since)) {
            self.contrary = None;
            let why = || signals.iter().filter(passed).map(|s| s.text.as_str()).collect::<Vec<_>>().join(" and ");
            self.saturated = match self.saturated {
                None => Some(format!("saturated: {} for {}", why(), span(plan.hold))),
                Some(_) => None,
            };
        }
        let all = || signals.iter().map(|signal| signal.text.as_str()).collect::<Vec<_>>().join(", ");
        let reason = self.saturated.clone().unwrap_or_else(all);
        Judged { down: self.saturated.is_some(), reason }
    }

    pub(super) const fn take_reading(&mut self, at: Time, value: Option<f64>) {
        if let Some(value) = value {
            self.gauge = Some((at, value));
        }
    }

    fn signals(&self, now: Time, plan: &SaturationPlan, flow: &Flow, max_age: Duration) -> Vec<Signal> {
        let traffic = flow.latest();
        let count = |value: u64, high: Option<u64>, what: &str| {
            // Far below what a float holds exactly.
            high.map(|high| Signal {
                value: value as f64,
                high: high as f64,
                text: format!("{value} {what} of {high}"),
            })
        };
        let waited = traffic.queue_since.map_or(Duration::ZERO, |since| now.since(since));
        let age = plan.queue_age.map(|high| Signal {
            value: waited.as_secs_f64(),
            high: high.as_secs_f64(),
            text: format!("a wait of {} of {}", span(waited), span(high)),
        });
        let fresh = self.gauge.filter(|(at, _)| now.since(*at) < max_age);
        let gauge = plan.gauge.as_ref().zip(fresh).map(|(plan, (_, value))| Signal {
            value,
            high: plan.max,
            text: format!("{} {value} of {}", plan.name, plan.max),
        });
        [
            count(traffic.in_flight, plan.in_flight, "in flight"),
            count(traffic.queued, plan.queued, "waiting"),
            age,
            gauge,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl SaturationPlan {
    /// Whether its numbers are within their ranges.
    pub(super) fn is_sound(&self) -> bool {
        let marks = [self.in_flight, self.queued].into_iter().flatten().all(|mark| mark > 0);
        let age = self.queue_age.is_none_or(|age| !age.is_zero());
        let gauge = self.gauge.as_ref().is_none_or(|gauge| gauge.max > 0.0 && gauge.max.is_finite());
        marks && age && gauge && self.low_permille <= 1000
    }
}

impl Engine {
    /// Why new requests are refused for the model server's sake, while they are.
    pub(super) fn shedding(&self) -> bool {
        self.saturated_checks(true).next().is_some()
    }

    /// The reason of the first `saturation` check that is down.
    pub(super) fn saturated(&self) -> Option<String> {
        self.saturated_checks(false).next()
    }

    fn saturated_checks(&self, shedding: bool) -> impl Iterator<Item = String> {
        self.ruled.iter().filter_map(move |id| {
            let (plan, check) = (&self.plan.checks[id.index()], &self.checks[id.index()]);
            let Some(TrafficRule::Saturation(rule)) = &plan.rule else { return None };
            let counts = check.state() == CheckState::Down && (rule.shed || !shedding);
            counts.then(|| check.reason(plan))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Traffic;

    fn plan() -> SaturationPlan {
        SaturationPlan {
            in_flight: Some(10),
            queued: None,
            queue_age: Some(Duration::from_secs(2)),
            gauge: Some(GaugePlan { name: "kv_usage".to_owned(), max: 0.9 }),
            low_permille: 800,
            hold: Duration::from_secs(3),
            shed: true,
        }
    }

    struct Scene {
        marks: Marks,
        flow: Flow,
        second: u64,
    }

    impl Scene {
        fn new() -> Self {
            Self { marks: Marks::default(), flow: Flow::default(), second: 100 }
        }

        /// So many seconds with this sample; the last judgement.
        fn with(&mut self, seconds: u64, sample: Traffic) -> Judged {
            let mut last = None;
            for _ in 0..seconds {
                self.second += 1;
                let now = Time::from_secs(self.second);
                self.flow.told(now, sample, false);
                last = Some(self.marks.judge(now, &plan(), &self.flow, Duration::from_secs(11)));
            }
            last.expect("at least one second")
        }

        fn in_flight(&mut self, seconds: u64, in_flight: u64) -> bool {
            self.with(seconds, Traffic { in_flight, ..Traffic::default() }).down
        }
    }

    #[test]
    fn a_high_mark_turns_it_after_its_time_and_only_the_low_one_turns_it_back() {
        let mut scene = Scene::new();
        assert!(!scene.in_flight(3, 10), "not for long enough");
        assert!(!scene.in_flight(1, 9));
        assert!(!scene.in_flight(3, 30), "it begins anew");
        assert!(scene.in_flight(1, 10));
        assert!(scene.in_flight(60, 9), "between the marks nothing turns");
        assert!(scene.in_flight(3, 8));
        assert!(scene.in_flight(1, 9));
        assert!(scene.in_flight(3, 8), "this begins anew too");
        assert!(!scene.in_flight(1, 8));
    }

    #[test]
    fn the_longest_wait_counts_and_the_reason_names_what_it_was() {
        let mut scene = Scene::new();
        let waiting = Traffic { in_flight: 4, queue_since: Some(Time::from_secs(100)), ..Traffic::default() };
        assert!(!scene.with(4, waiting).down);
        let judged = scene.with(1, waiting);
        assert!(judged.down);
        assert_eq!(judged.reason, "saturated: a wait of 5s of 2s for 3s");
        assert!(scene.in_flight(3, 4));
        assert_eq!(scene.with(1, Traffic::default()).reason, "0 in flight of 10, a wait of 0s of 2s");
    }

    #[test]
    fn a_gauge_counts_while_it_is_fresh_and_says_nothing_after() {
        let mut scene = Scene::new();
        scene.marks.take_reading(Time::from_secs(100), Some(0.95));
        assert!(!scene.in_flight(3, 1));
        assert!(scene.in_flight(1, 1));
        scene.marks.take_reading(Time::from_secs(104), None);
        assert!(scene.in_flight(9, 1), "read at 100 it is fresh until 111");
        assert!(!scene.in_flight(1, 1), "three seconds later without it");
    }

    #[test]
    fn one_mark_that_is_passed_keeps_it_down_whatever_the_others_say() {
        let mut scene = Scene::new();
        assert!(scene.in_flight(4, 10));
        scene.marks.take_reading(Time::from_secs(104), Some(0.8));
        assert!(scene.in_flight(9, 0), "above its low mark of 0.72");
    }
}
