//! Recorded evidence before another engine: what would this design have done?
//!
//! It owns the way from a recording of one configuration to the judgement of another, in virtual time; it refuses to
//! guess what nobody saw. A check of the same name and kind takes the recorded outcomes as they stood at the moment
//! when the new plan asks; a check that nobody recorded stays pending and is named. The same plan is given the very
//! events of the recording and turns as the recorded one did, to the nanosecond, until another configuration was
//! loaded; from there on the recorded events are another design's, and it goes on with what was seen.
//!
//! The world does not answer back: a restart that this design would have asked for is not in the recording.

mod course;
mod evidence;
mod side;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::engine::{Event, Plan, Time, Told, Trace};
use course::Course;
use evidence::Evidence;

pub use side::{Gate, Row, Side, rows};

/// The longest recording that is replayed: what a minute of computing is good for, tenfold.
const SPAN_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// What a design made of a recording.
#[derive(Clone, Debug)]
pub struct Replay {
    /// When the recorded engine began, on its own clock.
    pub started: Time,
    /// From there to the last event.
    pub span: Duration,
    /// The plan is the one that the recording begins with.
    pub is_same: bool,
    /// The configurations that were loaded meanwhile.
    pub reloads: Vec<Reloaded>,
    /// A reload of which the recording does not tell to what: what follows cannot be read and was not replayed.
    pub cut_by_reload: bool,
    pub without_evidence: Vec<Missing>,
    /// What the recorded design told people, if the recording tells.
    pub recorded: Vec<Told>,
    /// What this one would have told them.
    pub design: Vec<Told>,
}

/// A reload in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reloaded {
    /// Seconds from the start of the recording.
    pub at: f64,
    /// Whether it led to the design that is replayed; none where the recording does not tell.
    pub same_design: Option<bool>,
}

/// A check of the new plan that stays pending.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Missing {
    pub check: String,
    pub kind: &'static str,
    pub why: &'static str,
    /// The state in which the replay left it.
    pub state: &'static str,
}

impl Replay {
    /// Replays a recording with a plan.
    ///
    /// # Errors
    /// The recording spans more time than anybody records.
    pub fn new(trace: &Trace, plan: &Arc<Plan>) -> Result<Self, String> {
        let mut trace = trace.clone();
        let reloads = reloads(&trace, plan);
        let cut = trace.events.iter().position(|(_, event)| *event == Event::Reload(None));
        if let Some(cut) = cut {
            let at = trace.events[cut].0;
            trace.events.truncate(cut);
            trace.told.retain(|told| told.at < at);
        }
        let end = trace.events.iter().map(|(at, _)| *at).fold(trace.started, Time::max);
        let span = end.since(trace.started);
        if SPAN_MAX < span {
            return Err(format!("it spans {} days; 31 are replayed at most", span.as_secs() / 86_400));
        }
        let evidence = Evidence::new(&trace, plan);
        let (design, without_evidence) = Course::new(&trace, plan, &evidence, end).run();
        Ok(Self {
            started: trace.started,
            span,
            is_same: trace.plan.is_of(plan),
            reloads,
            cut_by_reload: cut.is_some(),
            without_evidence,
            recorded: trace.told,
            design,
        })
    }

    /// Whether the same plan told people the same; none for another plan, or where nothing was recorded to compare.
    ///
    /// A recording ends in mid-turn where its file was full: what its last event led to may be missing there. What
    /// another configuration told after a reload is not compared.
    pub fn reproduces(&self) -> Option<bool> {
        let end = self.started + self.span;
        let other = self.reloads.iter().find(|reload| reload.same_design != Some(true));
        let is_before = |told: &&Told| other.is_none_or(|other| told.at.since(self.started).as_secs_f64() < other.at);
        let [recorded, design] =
            [&self.recorded, &self.design].map(|told| told.iter().filter(is_before).collect::<Vec<_>>());
        let is_cut = |rest: &[&Told]| rest.iter().all(|told| end <= told.at);
        let rest = design.strip_prefix(recorded.as_slice());
        (self.is_same && !self.recorded.is_empty()).then(|| rest.is_some_and(is_cut))
    }
}

/// Up to the first of which nobody knows to what.
fn reloads(trace: &Trace, plan: &Plan) -> Vec<Reloaded> {
    let mut reloads = Vec::new();
    for (at, event) in &trace.events {
        let Event::Reload(imprint) = event else { continue };
        let same_design = imprint.as_ref().map(|imprint| imprint.is_of(plan));
        reloads.push(Reloaded { at: at.since(trace.started).as_secs_f64(), same_design });
        if same_design.is_none() {
            break;
        }
    }
    reloads
}
