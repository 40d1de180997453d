//! The horizontal pod autoscaler: how many pods are wanted, from what the pods say of themselves.
//!
//! Kubernetes' own algorithm (`autoscaling/v2`), with its numbers: a look every 15 s, a tolerance of a tenth, a window
//! of five minutes before it scales down, four pods or a doubling in 15 s upwards. Sans-IO: whoever owns the world
//! brings the samples and the time, and carries out what comes back. It refuses to know what a request is.

mod behaviour;
mod replicas;

#[cfg(test)]
mod tests;

use std::time::Duration;

use behaviour::Change;
use replicas::proposed;

use crate::engine::Time;

/// What is wanted of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub min: usize,
    pub max: usize,
    pub target: Target,
    /// From one look to the next.
    pub sync: Duration,
    /// How far from 1 the ratio may be without anything to do, as a share.
    pub tolerance: f64,
    /// A pod that was not ready from its start on, and for so long, has never been ready.
    pub initial_readiness_delay: Duration,
    /// For so long after its start the CPU time of a pod counts only while it is ready.
    pub cpu_initialization_period: Duration,
    pub up: Rules,
    pub down: Rules,
}

/// What is held at a level, on average over the pods.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// Requests in a pod at once, in thousandths.
    InFlight(u64),
    /// Per cent of a pod's workers that are busy, as CPU time is of its request.
    Utilisation(u64),
}

/// How fast it may move in one direction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// Of the proposals of so long the least movement is taken.
    pub window: Duration,
    pub select: Select,
    pub policies: Vec<Policy>,
}

/// Which of several policies decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Select {
    /// It never moves in this direction.
    Disabled,
    /// The one that allows most.
    Max,
    /// The one that allows least.
    Min,
}

/// A most of movement in a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    pub by: Step,
    pub every: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    Percent(usize),
    Pods(usize),
}

/// One pod as the control plane knows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// In thousandths: of a request in flight, or of all its workers. None if nobody could ask.
    pub value: Option<u64>,
    pub started: Time,
    pub is_ready: bool,
    /// When it became ready, or ceased to be.
    pub changed: Time,
    /// None of its containers has started yet.
    pub is_pending: bool,
    /// It is being deleted.
    pub is_leaving: bool,
}

/// The controller and what it remembers.
#[derive(Clone, Debug, Default)]
pub struct Autoscaler {
    /// What it proposed, and when, for as long as a window looks back.
    proposals: Vec<(Time, usize)>,
    /// What it did.
    changes: Vec<Change>,
}

impl Default for Spec {
    /// Upstream's defaults; one pod at least and at most.
    fn default() -> Self {
        let every = Duration::from_secs(15);
        let policies = |all: &[Step]| all.iter().map(|by| Policy { by: *by, every }).collect();
        let up = policies(&[Step::Pods(4), Step::Percent(100)]);
        let down = policies(&[Step::Percent(100)]);
        Self {
            min: 1,
            max: 1,
            target: Target::Utilisation(80),
            sync: every,
            tolerance: 0.1,
            initial_readiness_delay: Duration::from_secs(30),
            cpu_initialization_period: Duration::from_secs(300),
            up: Rules { window: Duration::ZERO, select: Select::Max, policies: up },
            down: Rules { window: Duration::from_secs(300), select: Select::Max, policies: down },
        }
    }
}

impl Autoscaler {
    /// How many pods are wanted from now on, `current` having been wanted until now.
    pub fn look(&mut self, now: Time, spec: &Spec, current: usize, samples: &[Sample]) -> usize {
        if self.proposals.is_empty() {
            // What is there when it begins is a proposal too.
            self.proposals.push((now, current));
        }
        let wanted = if current > spec.max {
            spec.max
        } else if current < spec.min {
            spec.min
        } else {
            match proposed(now, spec, current, samples) {
                Some(proposal) => self.allowed(now, spec, current, proposal),
                // Without any metric nothing is done.
                None => current,
            }
        };
        if wanted != current {
            self.changes.push(Change { at: now, from: current, to: wanted });
        }
        wanted
    }

    /// What the windows, the policies and the bounds leave of a proposal.
    fn allowed(&mut self, now: Time, spec: &Spec, current: usize, proposal: usize) -> usize {
        let stable = behaviour::stabilized(now, spec, current, proposal, &self.proposals);
        let longest = spec.up.window.max(spec.down.window);
        self.proposals.retain(|(at, _)| now.since(*at) < longest);
        self.proposals.push((now, proposal));
        let periods = spec.up.policies.iter().chain(&spec.down.policies).map(|policy| policy.every);
        let longest = periods.max().unwrap_or_default();
        self.changes.retain(|change| now.since(change.at) < longest);
        behaviour::limited(now, spec, current, stable, &self.changes)
    }
}
