//! Probegate in front of a simulated server: the very engine of the pod, driven in virtual time.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{
    Attempt, Changed, CheckId, Engine, Fault, Gate, Input, Outcome, Output, Plan, Sign, Status, Subject, Time,
};

/// A running sidecar.
#[derive(Debug)]
pub(super) struct Sidecar {
    engine: Engine,
    /// By [`Gate`]: followed from the engine's own transitions.
    gates: [Status; 3],
    /// When the driver was last told to wake up.
    wake: Option<Time>,
    /// Which process this is; events of an earlier one are dropped.
    pub(super) life: u32,
}

/// What an attempt saw.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sight {
    /// The right answer, after so long.
    Good(Duration),
    /// Another answer.
    Bad(Duration),
    /// No evidence either way.
    Nothing,
    Refused,
    /// Nothing at all.
    Silence,
}

/// An attempt that the engine wants made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) check: CheckId,
    pub(super) attempt: Attempt,
    pub(super) deadline: Time,
}

/// What the driver has to do after a step.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) attempts: Vec<Wanted>,
    /// When to call again, if that is news.
    pub(super) wake: Option<Time>,
    /// Gate changes, with the engine's own reason.
    pub(super) turns: Vec<(Gate, &'static str, String)>,
}

impl Sidecar {
    pub(super) fn new(now: Time, plan: &Arc<Plan>, seed: u64, life: u32, steps: &mut Steps) -> Self {
        let engine = Engine::new(now, Arc::clone(plan), seed);
        let mut sidecar = Self { engine, gates: [Status::Fail, Status::Fail, Status::Pass], wake: None, life };
        sidecar.carry_out(steps);
        sidecar
    }

    pub(super) fn passes(&self, gate: Gate) -> bool {
        self.gates[gate as usize] != Status::Fail
    }

    pub(super) fn wake_up(&mut self, now: Time, steps: &mut Steps) {
        self.engine.handle_timeout(now);
        // That call is spent, whatever it was for.
        self.wake = None;
        self.carry_out(steps);
    }

    pub(super) fn result(&mut self, now: Time, check: CheckId, attempt: Attempt, sight: Sight, steps: &mut Steps) {
        let outcome = self.outcome(check, sight);
        self.engine.handle_input(now, Input::Result { check, attempt, outcome });
        self.carry_out(steps);
    }

    fn outcome(&self, check: CheckId, sight: Sight) -> Outcome {
        let plan = &self.engine.plan().checks[check.index()];
        let is_backend = matches!(plan.subject, Subject::Backend(_));
        match sight {
            Sight::Good(took) => Outcome::pass(took),
            Sight::Bad(took) => Outcome::fail(Fault::Answer, "the answer is not the expected one", took),
            Sight::Nothing => Outcome::unknown("the lab does not show the engine its traffic yet", Duration::ZERO),
            Sight::Refused => {
                let outcome = Outcome::fail(Fault::Refused, "connection refused", Duration::ZERO);
                if is_backend { outcome.sign(Sign::Refused) } else { outcome }
            }
            Sight::Silence => Outcome::fail(Fault::Timeout, format!("no answer in {:?}", plan.timeout), plan.timeout),
        }
    }

    /// The driving contract: every output, then the next time to call.
    fn carry_out(&mut self, steps: &mut Steps) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Start { check, attempt, deadline } => steps.attempts.push(Wanted { check, attempt, deadline }),
                // A cancelled attempt's result comes all the same, and the engine drops it.
                Output::Cancel { .. } => {}
                Output::Transition(transition) => {
                    if let Changed::Gate(gate) = transition.what {
                        self.gates[gate as usize] = match transition.to {
                            "pass" => Status::Pass,
                            "warn" => Status::Warn,
                            _ => Status::Fail,
                        };
                        steps.turns.push((gate, transition.to, transition.reason));
                    }
                }
            }
        }
        let due = self.engine.poll_timeout();
        if let Some(due) = due.filter(|due| self.wake.is_none_or(|planned| *due < planned)) {
            self.wake = Some(due);
            steps.wake = Some(due);
        }
    }
}
