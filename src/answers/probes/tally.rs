//! Counting answers: label sets resolved once, so that a probe costs two atomic additions.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use crate::engine::Gate;
use crate::telemetry::{GateLabels, ProbeLabels, Telemetry};

/// What is counted apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Slot {
    Startup,
    Ready,
    Health,
    /// `/self`.
    Itself,
}

pub(super) struct Tally([Counted; 4]);

struct Counted {
    passed: Counter,
    failed: Counter,
    duration: Histogram,
}

impl Tally {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        Self([Slot::Startup, Slot::Ready, Slot::Health, Slot::Itself].map(|slot| {
            let gate = slot.as_str();
            Counted {
                passed: telemetry.probe_requests.get_or_create_owned(&ProbeLabels { gate, code: 200 }),
                failed: telemetry.probe_requests.get_or_create_owned(&ProbeLabels { gate, code: 503 }),
                duration: telemetry.probe_duration.get_or_create_owned(&GateLabels { gate }),
            }
        }))
    }

    pub(super) fn count(&self, slot: Slot, passed: bool, took: Duration) {
        let counted = &self.0[slot as usize];
        if passed { &counted.passed } else { &counted.failed }.inc();
        counted.duration.observe(took.as_secs_f64());
    }
}

impl Slot {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => Gate::Startup.as_str(),
            Self::Ready => Gate::Ready.as_str(),
            Self::Health => Gate::Health.as_str(),
            Self::Itself => "self",
        }
    }
}

impl From<Gate> for Slot {
    fn from(gate: Gate) -> Self {
        match gate {
            Gate::Startup => Self::Startup,
            Gate::Ready => Self::Ready,
            Gate::Health => Self::Health,
        }
    }
}
