//! Recorded evidence before another engine: what would this design have done?
//!
//! It owns the way from a recording of one configuration to the judgement of another, in virtual time; it refuses to
//! guess what nobody saw. A check of the same name and kind takes the recorded outcomes as they stood at the moment
//! when the new plan asks; a check that nobody recorded stays pending and is named. The same plan is given the very
//! events of the recording and turns as the recorded one did, to the nanosecond.
//!
//! The world does not answer back: a restart that this design would have asked for is not in the recording.

mod evidence;
mod side;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::engine::{Attempt, BackendId, CheckId, Ends, Engine, Event, Input, Output, Plan, Time, Told, Trace};
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
    /// The plan is the recorded one.
    pub is_same: bool,
    /// The recording goes on under another configuration: what follows was not replayed.
    pub cut_by_reload: bool,
    pub without_evidence: Vec<Missing>,
    /// What the recorded design told people, if the recording tells.
    pub recorded: Vec<Told>,
    /// What this one would have told them.
    pub design: Vec<Told>,
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
        let cut = trace.events.iter().position(|(_, event)| *event == Event::Reload);
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
        let is_same = trace.fingerprint == Some(plan.fingerprint());
        let evidence = Evidence::new(&trace, plan);
        let (design, without_evidence) = if is_same {
            (told(trace.replay(&[Arc::clone(plan)])), Vec::new())
        } else {
            Course::new(&trace, plan, &evidence, end).run()
        };
        let cut_by_reload = cut.is_some();
        Ok(Self {
            started: trace.started,
            span,
            is_same,
            cut_by_reload,
            without_evidence,
            recorded: trace.told,
            design,
        })
    }

    /// Whether the same plan told people the same; none for another plan, or where nothing was recorded to compare.
    ///
    /// A recording ends in mid-turn where its file was full: what its last event led to may be missing there.
    pub fn reproduces(&self) -> Option<bool> {
        let end = self.started + self.span;
        let is_cut = |rest: &[Told]| rest.iter().all(|told| end <= told.at);
        let rest = self.design.strip_prefix(self.recorded.as_slice());
        (self.is_same && !self.recorded.is_empty()).then(|| rest.is_some_and(is_cut))
    }
}

fn told(outputs: Vec<(Time, Output)>) -> Vec<Told> {
    let transition = |(_, output)| match output {
        Output::Transition(transition) => Some(Told::from(&transition)),
        Output::Start { .. } | Output::Cancel { .. } => None,
    };
    outputs.into_iter().filter_map(transition).collect()
}

/// Another plan's engine on its way through the recorded time.
struct Course<'a> {
    trace: &'a Trace,
    evidence: &'a Evidence,
    engine: Engine,
    /// Results under way, by when they come and in which order they were asked for.
    under_way: BTreeMap<(Time, u64), Input>,
    asked: u64,
    /// By recorded address: the new plan's.
    backends: Vec<Option<BackendId>>,
    end: Time,
    outputs: Vec<(Time, Output)>,
}

impl<'a> Course<'a> {
    fn new(trace: &'a Trace, plan: &Arc<Plan>, evidence: &'a Evidence, end: Time) -> Self {
        Self {
            trace,
            evidence,
            engine: Engine::new(trace.started, Arc::clone(plan), trace.seed),
            under_way: BTreeMap::new(),
            asked: 0,
            backends: backends(trace, plan),
            end,
            outputs: Vec::new(),
        }
    }

    fn run(mut self) -> (Vec<Told>, Vec<Missing>) {
        self.carry_out(self.trace.started);
        let mut now = self.trace.started;
        for (at, event) in &self.trace.events {
            // A recording that goes back in time is taken to stand still.
            now = now.max(*at);
            self.go_to(now);
            if let Some(input) = self.translated(event) {
                self.engine.handle_input(now, input);
                self.carry_out(now);
            }
        }
        self.go_to(self.end);
        let missing = self.evidence.missing(&mut self.engine);
        (told(self.outputs), missing)
    }

    /// Handles whatever happens by itself until `then`.
    fn go_to(&mut self, then: Time) {
        loop {
            let result = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let due = self.engine.poll_timeout();
            let Some(next) = [result, due].into_iter().flatten().min().filter(|next| *next <= then) else { return };
            if result == Some(next)
                && let Some((_, input)) = self.under_way.pop_first()
            {
                self.engine.handle_input(next, input);
            } else {
                self.engine.handle_timeout(next);
            }
            self.carry_out(next);
        }
    }

    fn carry_out(&mut self, now: Time) {
        while let Some(output) = self.engine.poll_output() {
            if let Output::Start { check, attempt, deadline } = output {
                self.ask(now, check, attempt, deadline);
            }
            self.outputs.push((now, output));
        }
    }

    /// A cancelled attempt's result comes all the same, and the engine drops it.
    fn ask(&mut self, now: Time, check: CheckId, attempt: Attempt, deadline: Time) {
        let outcome = self.evidence.at(now, check, deadline.since(now));
        self.asked += 1;
        let comes = (now + outcome.latency).min(deadline);
        self.under_way.insert((comes, self.asked), Input::Result { check, attempt, outcome });
    }

    /// What happened, as the new plan numbers things; none for what it does not know, or asks for itself.
    fn translated(&self, event: &Event) -> Option<Input> {
        let Event::Input(input) = event else { return None };
        let check = |id: &CheckId| self.evidence.new_id(*id);
        match input {
            Input::Result { .. } | Input::Reload { .. } => None,
            Input::Sign { backend, sign } => {
                Some(Input::Sign { backend: (*self.backends.get(backend.index())?)?, sign: *sign })
            }
            Input::RunNow { check: id } => Some(Input::RunNow { check: check(id)? }),
            Input::Override { check: id, forced, ttl } => {
                Some(Input::Override { check: check(id)?, forced: *forced, ttl: *ttl })
            }
            Input::Ends(ends) => {
                let mut all = vec![Ends::default(); self.engine.plan().backends.len()];
                for (ends, backend) in ends.iter().zip(&self.backends) {
                    if let Some(slot) = backend.and_then(|backend| all.get_mut(backend.index())) {
                        *slot = *ends;
                    }
                }
                Some(Input::Ends(all))
            }
            Input::SetReady { .. }
            | Input::Drain
            | Input::InFlight { .. }
            | Input::Traffic(_)
            | Input::Origins(_)
            | Input::Throttled { .. } => Some(input.clone()),
        }
    }
}

/// By recorded address, the new plan's: the one of the same name, or the only one for the only one.
fn backends(trace: &Trace, plan: &Plan) -> Vec<Option<BackendId>> {
    let id = |index: usize| u32::try_from(index).ok().map(BackendId);
    if trace.backends.len() <= 1 && plan.backends.len() == 1 {
        return vec![id(0)];
    }
    let named = |address: &String| plan.backends.iter().position(|backend| backend.address == *address).and_then(id);
    trace.backends.iter().map(named).collect()
}
