//! The model server in one word, for people and dashboards: what every gate and check says together.
//!
//! Owns the word, its reason and since when it holds. It decides nothing: gates are decided by their members, and
//! a saturated server is named so that nobody takes it for a dead one.

use super::snapshot::{Gate, InstancePhase};
use super::time::Time;
use super::{CheckState, Engine};
use crate::limits::SATURATED_FOR;

/// The states of a model server, the first that fits.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ModelState {
    /// It answered once and nobody listens any more, or it has not started within its budget.
    Dead,
    /// It has not passed the startup gate.
    Loading,
    /// Work is pending, and nothing moves: a `progress` check is down.
    Stalled,
    /// It is well and has more work than it can do: requests wait or are shed, or it works off what its clients
    /// gave up on.
    Saturated,
    /// It works, and something that readiness or liveness looks at is not as it should be.
    Degraded,
    Ready,
}

/// The word with its reason.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelView {
    pub state: ModelState,
    pub since: Time,
    /// For a person, without secrets, no times in it; empty when ready.
    pub reason: String,
    /// Until when work that nobody waits for may keep it silent, while it may.
    pub busy_until: Option<Time>,
}

impl ModelState {
    pub const ALL: [Self; 6] = [Self::Dead, Self::Loading, Self::Stalled, Self::Saturated, Self::Degraded, Self::Ready];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Loading => "loading",
            Self::Stalled => "stalled",
            Self::Saturated => "saturated",
            Self::Degraded => "degraded",
            Self::Ready => "ready",
        }
    }
}

impl Engine {
    /// Names the state anew; a change of it is worth a snapshot.
    pub(super) fn name_model(&mut self) {
        let state = self.model_state();
        if self.model.0 != state {
            self.model = (state, self.now);
            self.revision += 1;
        }
    }

    /// Looks at the traffic anew, with each sample: between them nothing changes by time alone.
    pub(super) fn note_saturation(&mut self) {
        let saturation = self.saturation_now();
        if self.saturation != saturation {
            self.saturation = saturation;
            self.revision += 1;
        }
    }

    fn model_state(&self) -> ModelState {
        match self.instance.phase() {
            InstancePhase::Gone => ModelState::Dead,
            InstancePhase::Starting if self.is_overdue() => ModelState::Dead,
            InstancePhase::Starting => ModelState::Loading,
            InstancePhase::Started if self.stalled().is_some() => ModelState::Stalled,
            InstancePhase::Started if self.saturation != Saturation::default() || self.saturated().is_some() => {
                ModelState::Saturated
            }
            InstancePhase::Started if self.is_troubled() => ModelState::Degraded,
            InstancePhase::Started => ModelState::Ready,
        }
    }

    /// The reason of the first `progress` check that is down.
    fn stalled(&self) -> Option<String> {
        let down = |id: &&super::CheckId| {
            self.plan.checks[id.index()].progress().is_some() && self.checks[id.index()].state() == CheckState::Down
        };
        let id = self.ruled.iter().find(down)?;
        Some(self.checks[id.index()].reason(&self.plan.checks[id.index()]))
    }

    const fn is_troubled(&self) -> bool {
        self.graph.ready_missing()
            || self.graph.ready_degraded()
            || self.graph.ready_waived()
            || self.graph.health_down()
    }

    pub(super) fn model_view(&self) -> ModelView {
        let (state, since) = self.model;
        let reason = match state {
            ModelState::Dead | ModelState::Loading => {
                let gates = [Gate::Startup, Gate::Health, Gate::Ready];
                let why = gates.into_iter().find_map(|gate| self.why_above(gate).into_iter().next());
                why.map_or_else(|| self.refused(), |why| why.text)
            }
            ModelState::Stalled => self.stalled().unwrap_or_default(),
            ModelState::Saturated => self.saturated().unwrap_or_else(|| self.saturation.text()),
            ModelState::Degraded => {
                let mut why = [Gate::Health, Gate::Ready].into_iter().flat_map(|gate| self.why_checks(gate));
                why.next().map(|why| why.text).unwrap_or_default()
            }
            ModelState::Ready => String::new(),
        };
        ModelView { state, since, reason, busy_until: self.saturation.busy_until }
    }

    fn saturation_now(&self) -> Saturation {
        let busy_until = Some(self.flow.busy_until()).filter(|until| self.now < *until);
        let abandoned = if busy_until.is_some() { self.flow.abandoned() } else { 0 };
        let lately = |since: Option<Time>| since.is_some_and(|since| self.now.since(since) < SATURATED_FOR);
        let queued = self.flow.queued_since().is_some_and(|since| SATURATED_FOR <= self.now.since(since));
        Saturation { queued, shed: lately(self.flow.shed_at()), abandoned, busy_until }
    }
}

/// What speaks for more work than the server can do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Saturation {
    queued: bool,
    shed: bool,
    /// Requests that clients gave up on and that may still be worked on.
    abandoned: u64,
    busy_until: Option<Time>,
}

impl Saturation {
    fn text(&self) -> String {
        let mut all = Vec::new();
        if self.queued {
            all.push("requests wait for a place".to_owned());
        }
        if self.shed {
            all.push("requests are shed".to_owned());
        }
        if self.busy_until.is_some() {
            all.push(format!("work may be left over from {} requests that clients gave up on", self.abandoned));
        }
        all.join(", ")
    }
}
