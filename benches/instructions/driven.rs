//! An engine under a load of its own making: checks that are due, started, answered and judged, event by event.
//! One result in eight is a failure. Deterministic: no clock, no randomness beside the engine's own seed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use probegate::engine::{
    Attempt, CheckId, CheckPlan, Engine, Fault, HealthPlan, Input, Member, Outcome, Output, Plan, ReadyPlan,
    StartupPlan, Time,
};

/// An engine and the results that its attempts will have.
pub(crate) struct Driven {
    pub(crate) engine: Engine,
    now: Time,
    started: VecDeque<(CheckId, Attempt)>,
    turn: u64,
}

/// So many checks, all of them required by all three gates.
fn plan(checks: u32) -> Plan {
    let members: Vec<Member> = (0..checks).map(|index| Member::Check(CheckId(index))).collect();
    Plan {
        checks: (0..checks).map(|index| CheckPlan::new(format!("check-{index}"), "tcp")).collect(),
        startup: StartupPlan { require: members.clone(), ..StartupPlan::default() },
        ready: ReadyPlan { require: members.clone(), degrade: Vec::new() },
        health: HealthPlan { require: members, ..HealthPlan::default() },
        ..Plan::default()
    }
}

impl Driven {
    /// Past its first round: every check has had results.
    pub(crate) fn new(checks: u32) -> Self {
        let now = Time::from_secs(1);
        let engine = Engine::new(now, Arc::new(plan(checks)), 1);
        let mut driven = Self { engine, now, started: VecDeque::new(), turn: 0 };
        for _ in 0..checks * 3 {
            driven.event();
        }
        driven
    }

    /// One event: a result if one is outstanding, else the next timeout.
    pub(crate) fn event(&mut self) {
        if let Some((check, attempt)) = self.started.pop_front() {
            self.turn += 1;
            let outcome = if self.turn.is_multiple_of(8) {
                Outcome::fail(Fault::Answer, "status 503, expected 200", Duration::from_millis(1))
            } else {
                Outcome::pass(Duration::from_millis(1))
            };
            self.engine.handle_input(self.now, Input::Result { check, attempt, outcome });
        } else if let Some(due) = self.engine.poll_timeout() {
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
        }
        while let Some(output) = self.engine.poll_output() {
            if let Output::Start { check, attempt, .. } = output {
                self.started.push_back((check, attempt));
            }
        }
    }
}
