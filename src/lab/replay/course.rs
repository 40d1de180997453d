//! An engine on its way through recorded time.
//!
//! While the recording is this plan's own, the engine is given its very events. Where another configuration was loaded,
//! or from the start where the recording is another design's, it asks at its own schedule and sees what was seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Missing;
use super::evidence::Evidence;
use crate::engine::{
    Attempt, BackendId, CheckId, Ends, Engine, Event, Imprint, Input, Output, Plan, Time, Told, Trace,
};

/// A plan's engine on its way through the recorded time.
pub(super) struct Course<'a> {
    trace: &'a Trace,
    plan: &'a Arc<Plan>,
    evidence: &'a Evidence,
    engine: Engine,
    /// The recording is this plan's: its events are the engine's own.
    is_own: bool,
    /// Attempts under way while it is, with their begin and deadline.
    own_attempts: Vec<(CheckId, Attempt, Time, Time)>,
    /// Results under way while it is not, by when they come and in which order they were asked for.
    under_way: BTreeMap<(Time, u64), Input>,
    asked: u64,
    /// Which of the recorded plans is in force, the first being 0.
    recorded_plan: usize,
    /// By address of that plan: the new plan's.
    backends: Vec<Option<BackendId>>,
    end: Time,
    outputs: Vec<(Time, Output)>,
}

impl<'a> Course<'a> {
    pub(super) fn new(trace: &'a Trace, plan: &'a Arc<Plan>, evidence: &'a Evidence, end: Time) -> Self {
        Self {
            trace,
            plan,
            evidence,
            engine: Engine::new(trace.started, Arc::clone(plan), trace.seed),
            is_own: trace.plan.is_of(plan),
            own_attempts: Vec::new(),
            under_way: BTreeMap::new(),
            asked: 0,
            recorded_plan: 0,
            backends: backends(&trace.plan, plan),
            end,
            outputs: Vec::new(),
        }
    }

    /// To the end of the recording: what people were told, and which checks nobody had seen.
    pub(super) fn run(mut self) -> (Vec<Told>, Vec<Missing>) {
        self.carry_out(self.trace.started);
        let mut now = self.trace.started;
        for (at, event) in &self.trace.events {
            // A recording that goes back in time is taken to stand still.
            now = now.max(*at);
            if let Event::Reload(imprint) = event {
                self.reloaded(now, imprint.as_deref());
            } else if self.is_own {
                self.own_event(now, event);
            } else {
                self.go_to(now);
                if let Some(input) = self.translated(event) {
                    self.engine.handle_input(now, input);
                    self.carry_out(now);
                }
            }
        }
        let missing = if self.is_own {
            Vec::new()
        } else {
            self.go_to(self.end);
            self.evidence.missing(&mut self.engine)
        };
        (told(self.outputs), missing)
    }

    fn own_event(&mut self, now: Time, event: &Event) {
        match event {
            Event::Timeout => self.engine.handle_timeout(now),
            Event::Input(input) => {
                if let Input::Result { check, attempt, .. } = input {
                    self.own_attempts.retain(|(known, of, ..)| (known, of) != (check, attempt));
                }
                self.engine.handle_input(now, input.clone());
            }
            Event::Reload(_) => {}
        }
        self.carry_out(now);
    }

    /// Another configuration is in force in the recording. The replayed one stays; where it was loaded again it is
    /// loaded again.
    fn reloaded(&mut self, now: Time, imprint: Option<&Imprint>) {
        let Some(imprint) = imprint else { return };
        self.recorded_plan += 1;
        self.backends = backends(imprint, self.plan);
        if !self.is_own {
            self.go_to(now);
        } else if imprint.is_of(self.plan) {
            self.engine.handle_input(now, Input::Reload { plan: Arc::clone(self.plan) });
            self.carry_out(now);
        } else {
            self.is_own = false;
            for (check, attempt, began, deadline) in std::mem::take(&mut self.own_attempts) {
                self.ask(now, began, check, attempt, deadline);
            }
        }
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
            match output {
                Output::Start { check, attempt, deadline } if self.is_own => {
                    self.own_attempts.push((check, attempt, now, deadline));
                }
                Output::Start { check, attempt, deadline } => self.ask(now, now, check, attempt, deadline),
                Output::Cancel { check, attempt } => {
                    self.own_attempts.retain(|(known, of, ..)| (*known, *of) != (check, attempt));
                }
                Output::Transition(_) => {}
            }
            self.outputs.push((now, output));
        }
    }

    /// A cancelled attempt's result comes all the same, and the engine drops it.
    fn ask(&mut self, now: Time, began: Time, check: CheckId, attempt: Attempt, deadline: Time) {
        let outcome = self.evidence.at(began, check, deadline.since(began));
        self.asked += 1;
        let comes = (began + outcome.latency).min(deadline).max(now);
        self.under_way.insert((comes, self.asked), Input::Result { check, attempt, outcome });
    }

    /// What happened, as the new plan numbers things; none for what it does not know, or asks for itself.
    fn translated(&self, event: &Event) -> Option<Input> {
        let Event::Input(input) = event else { return None };
        let check = |id: &CheckId| self.evidence.new_id(self.recorded_plan, *id);
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
fn backends(recorded: &Imprint, plan: &Plan) -> Vec<Option<BackendId>> {
    let id = |index: usize| u32::try_from(index).ok().map(BackendId);
    if recorded.backends.len() <= 1 && plan.backends.len() == 1 {
        return vec![id(0)];
    }
    let named = |address: &String| plan.backends.iter().position(|backend| backend.address == *address).and_then(id);
    recorded.backends.iter().map(named).collect()
}

fn told(outputs: Vec<(Time, Output)>) -> Vec<Told> {
    let transition = |(_, output)| match output {
        Output::Transition(transition) => Some(Told::from(&transition)),
        Output::Start { .. } | Output::Cancel { .. } => None,
    };
    outputs.into_iter().filter_map(transition).collect()
}
