//! Probegate in front of a simulated server: the very engine of the pod, driven in virtual time.

use std::sync::Arc;
use std::time::Duration;

use super::plane::Plane;
use super::server::Overview;
use crate::engine::{
    Answers, Attempt, BackendId, Changed, CheckId, DrainPhase, Engine, Fault, Gate, Input, Outcome, Output, Passage,
    Plan, Reading, Sign, Status, Subject, Time,
};
use crate::lab::scenario::Terms;

/// A running sidecar.
#[derive(Debug)]
pub(super) struct Sidecar {
    engine: Engine,
    /// By [`Gate`]: followed from the engine's own transitions.
    gates: [Status; 3],
    pub(super) passage: Passage,
    pub(super) plane: Plane,
    pub(super) drain: DrainPhase,
    /// When it is to be woken up next.
    wake: Option<Time>,
    /// Which process this is; events of an earlier one are dropped.
    pub(super) life: u32,
    pub(super) attempts: Attempts,
}

/// What is in flight: one attempt of a check at a time.
#[derive(Debug)]
pub(super) struct Attempts {
    by_check: Vec<Option<Attempt>>,
    /// The engine wanted a second attempt of a check beside the first.
    pub(super) is_doubled: bool,
}

/// What an attempt saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sight {
    /// The right answer, after so long.
    Good(Duration),
    /// Another answer.
    Bad(Duration),
    /// The server is busy, or has not loaded: a golden request says nothing.
    Busy,
    /// The process is there, and it is this one.
    Process {
        number: u32,
    },
    /// The server's counter and its CPU time.
    Read {
        counter: Option<u64>,
        cpu: Duration,
    },
    /// Its metrics page does not answer; the CPU time is read all the same.
    Unread {
        cpu: Duration,
    },
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
    pub(super) timeout: Duration,
}

/// What the driver has to do after a step.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) attempts: Vec<Wanted>,
    /// When to call again, if that is news.
    pub(super) wake: Option<Time>,
    /// Gate changes, with the engine's own reason.
    pub(super) turns: Vec<(Gate, &'static str, String)>,
    /// Requests may pass that could not, or the other way round.
    pub(super) has_passage_changed: bool,
}

impl Attempts {
    fn new(checks: usize) -> Self {
        Self { by_check: vec![None; checks], is_doubled: false }
    }

    fn begun(&mut self, check: CheckId, attempt: Attempt) {
        self.is_doubled |= self.by_check[check.index()].replace(attempt).is_some();
    }

    /// Of its own accord, or because the engine has had enough of it; the result of a cancelled one comes later.
    fn ended(&mut self, check: CheckId, attempt: Attempt) {
        let known = &mut self.by_check[check.index()];
        if *known == Some(attempt) {
            *known = None;
        }
    }
}

impl Steps {
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.attempts.is_empty() && self.wake.is_none() && self.turns.is_empty() && !self.has_passage_changed
    }
}

impl Sidecar {
    pub(super) fn new(now: Time, plan: &Arc<Plan>, terms: Terms, seed: u64, life: u32, steps: &mut Steps) -> Self {
        let engine = Engine::new(now, Arc::clone(plan), seed);
        let mut sidecar = Self {
            engine,
            gates: [Status::Fail, Status::Fail, Status::Pass],
            passage: Passage::NotReady,
            plane: Plane::new(terms),
            drain: DrainPhase::Serving,
            wake: None,
            life,
            attempts: Attempts::new(plan.checks.len()),
        };
        sidecar.passage = Passage::of(&sidecar.engine.snapshot());
        sidecar.carry_out(steps);
        sidecar
    }

    pub(super) fn passes(&self, gate: Gate) -> bool {
        self.gates[gate as usize] != Status::Fail
    }

    pub(super) fn wants_traffic(&self) -> bool {
        self.engine.wants_traffic()
    }

    pub(super) fn wake_up(&mut self, now: Time, steps: &mut Steps) {
        // A call that a sooner one has overtaken is spent: were it heard, each would plan another, for ever.
        if self.wake.take_if(|planned| *planned <= now).is_none() {
            return;
        }
        self.engine.handle_timeout(now);
        self.carry_out(steps);
    }

    /// As the driver in the pod tells it.
    pub(super) fn told(&mut self, now: Time, seen: Overview, steps: &mut Steps) {
        self.plane.left_over = self.engine.left_over();
        let traffic = self.plane.sample(now, seen);
        self.engine.handle_input(now, Input::Traffic(traffic));
        self.carry_out(steps);
    }

    /// The proxy's connect was refused.
    pub(super) fn refused(&mut self, now: Time, steps: &mut Steps) {
        self.engine.handle_input(now, Input::Sign { backend: BackendId(0), sign: Sign::Refused });
        self.carry_out(steps);
    }

    pub(super) fn begin_drain(&mut self, now: Time, steps: &mut Steps) {
        self.engine.handle_input(now, Input::Drain);
        self.carry_out(steps);
    }

    pub(super) fn in_flight(&mut self, now: Time, requests: u64, steps: &mut Steps) {
        self.engine.handle_input(now, Input::InFlight { requests });
        self.carry_out(steps);
    }

    pub(super) fn result(&mut self, now: Time, check: CheckId, attempt: Attempt, sight: Sight, steps: &mut Steps) {
        let outcome = self.outcome(check, sight);
        self.attempts.ended(check, attempt);
        self.engine.handle_input(now, Input::Result { check, attempt, outcome });
        self.carry_out(steps);
    }

    fn outcome(&self, check: CheckId, sight: Sight) -> Outcome {
        let plan = &self.engine.plan().checks[check.index()];
        let is_backend = matches!(plan.subject, Subject::Backend(_));
        let is_golden = plan.accuracy.is_some();
        let answered = |right: u32| Reading { answers: Some(Answers { right, asked: 1 }), ..Reading::default() };
        match sight {
            Sight::Good(took) if is_golden => Outcome::pass(took).reading(answered(1)),
            Sight::Good(took) => Outcome::pass(took),
            Sight::Bad(took) if is_golden => {
                Outcome::fail(Fault::Answer, "the labelled examples are answered wrong", took).reading(answered(0))
            }
            Sight::Bad(took) => Outcome::fail(Fault::Answer, "the answer is not the expected one", took),
            Sight::Busy => Outcome::unknown("the model server is busy", Duration::ZERO),
            Sight::Process { number } => {
                let outcome = Outcome::pass(Duration::ZERO);
                let sign = Sign::Process { pid: number, started: u64::from(number) };
                if plan.kind == "process" { outcome.sign(sign) } else { outcome }
            }
            Sight::Read { counter: None, .. } => Outcome::unknown("no metrics page to read", Duration::ZERO),
            Sight::Read { counter: Some(value), cpu } => {
                let reading = Reading { value: Some(value as f64), cpu: Some(cpu), ..Reading::default() };
                Outcome::pass(Duration::ZERO).reading(reading)
            }
            Sight::Unread { cpu } => {
                let reading = Reading { cpu: Some(cpu), ..Reading::default() };
                Outcome::fail(Fault::Timeout, "the metrics page is silent", plan.timeout).reading(reading)
            }
            Sight::Refused => {
                let outcome = Outcome::fail(Fault::Refused, "connection refused", Duration::ZERO);
                if is_backend { outcome.sign(Sign::Refused) } else { outcome }
            }
            Sight::Silence => Outcome::fail(Fault::Timeout, format!("no answer in {:?}", plan.timeout), plan.timeout),
        }
    }

    /// The driving contract: every output, then the next time to call.
    fn carry_out(&mut self, steps: &mut Steps) {
        let mut has_turned = false;
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Start { check, attempt, deadline } => {
                    let timeout = self.engine.plan().checks[check.index()].timeout;
                    self.attempts.begun(check, attempt);
                    steps.attempts.push(Wanted { check, attempt, deadline, timeout });
                }
                // A cancelled attempt's result comes all the same, and the engine drops it.
                Output::Cancel { check, attempt } => self.attempts.ended(check, attempt),
                Output::Transition(transition) => {
                    has_turned = true;
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
        if has_turned {
            let snapshot = self.engine.snapshot();
            self.drain = snapshot.drain.phase;
            let passage = Passage::of(&snapshot);
            steps.has_passage_changed |= passage != self.passage;
            self.passage = passage;
        }
        let due = self.engine.poll_timeout();
        if let Some(due) = due.filter(|due| self.wake.is_none_or(|planned| *due < planned)) {
            self.wake = Some(due);
            steps.wake = Some(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_attempt_beside_the_first_is_seen_and_one_after_it_is_none() {
        let (check, other) = (CheckId(0), CheckId(1));
        let mut attempts = Attempts::new(2);
        attempts.begun(check, Attempt(1));
        attempts.begun(other, Attempt(2));
        attempts.ended(check, Attempt(1));
        attempts.begun(check, Attempt(3));
        // The late result of the first says nothing about the second.
        attempts.ended(check, Attempt(1));
        assert!(!attempts.is_doubled);
        attempts.begun(check, Attempt(4));
        assert!(attempts.is_doubled);
    }
}
