//! The engine in a world of its own: virtual time, scripted checks, no runtime.

mod addresses;
mod behaviour;
mod dropped;
mod golden;
mod instance;
mod lateness;
mod laws;
mod model;
mod overload;
mod questions;
mod stall;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::*;

/// What a scripted check answers to an attempt that starts now.
type Script = Box<dyn FnMut(Time) -> Outcome>;

/// Drives one engine as the contract says.
struct World {
    engine: Engine,
    now: Time,
    scripts: Vec<Script>,
    /// Results under way, by the time they arrive.
    results: BTreeMap<(Time, u64), (CheckId, Attempt, Outcome)>,
    sent: u64,
    transitions: Vec<Transition>,
    outputs: Vec<(Time, Output)>,
}

impl World {
    fn new(plan: Plan) -> Self {
        let scripts: Vec<Script> = plan.checks.iter().map(|_| passing()).collect();
        let now = Time::from_secs(1);
        let mut world = Self {
            engine: Engine::new(now, Arc::new(plan), 7),
            now,
            scripts,
            results: BTreeMap::new(),
            sent: 0,
            transitions: Vec::new(),
            outputs: Vec::new(),
        };
        world.carry_out();
        world
    }

    fn script(&mut self, name: &str, script: Script) {
        let id = self.id(name);
        self.scripts[id.index()] = script;
    }

    fn id(&self, name: &str) -> CheckId {
        self.engine.plan().check_named(name).unwrap()
    }

    fn input(&mut self, input: Input) {
        self.engine.handle_input(self.now, input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            self.outputs.push((self.now, output.clone()));
            match output {
                Output::Start { check, attempt, deadline } => {
                    let outcome = (self.scripts[check.index()])(self.now);
                    let at = (self.now + outcome.latency).min(deadline);
                    self.sent += 1;
                    self.results.insert((at, self.sent), (check, attempt, outcome));
                }
                Output::Cancel { attempt, .. } => self.results.retain(|_, (_, known, _)| *known != attempt),
                Output::Transition(transition) => self.transitions.push(transition),
            }
        }
    }

    /// Moves to the next thing that happens, at most to `until`.
    fn step(&mut self, until: Time) -> bool {
        let result = self.results.first_key_value().map(|(&(at, _), _)| at);
        let due = [result, self.engine.poll_timeout()].into_iter().flatten().min();
        let Some(at) = due.filter(|&at| at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(at);
        if result == Some(at) {
            let (_, (check, attempt, outcome)) = self.results.pop_first().unwrap();
            self.engine.handle_input(self.now, Input::Result { check, attempt, outcome });
        } else {
            self.engine.handle_timeout(self.now);
        }
        self.carry_out();
        true
    }

    fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step(until) {}
    }

    fn run_secs(&mut self, secs: u64) {
        self.run_for(Duration::from_secs(secs));
    }

    fn status(&mut self, gate: Gate) -> Status {
        self.engine.snapshot().gate(gate).status
    }

    fn statuses(&mut self) -> [Status; 3] {
        Gate::ALL.map(|gate| self.status(gate))
    }

    fn state(&mut self, name: &str) -> CheckState {
        self.engine.snapshot().check_named(name).unwrap().state
    }

    /// When a gate turned to a status, every time.
    fn turns(&self, gate: Gate, to: Status) -> Vec<Time> {
        self.transitions.iter().filter(|t| t.what == Changed::Gate(gate) && t.to == to.as_str()).map(|t| t.at).collect()
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn passing() -> Script {
    Box::new(|_| Outcome::pass(ms(1)))
}

fn failing(fault: Fault) -> Script {
    Box::new(move |_| Outcome::fail(fault, format!("scripted {}", fault.as_str()), ms(1)))
}

/// Fails between two times (in seconds), passes otherwise.
fn failing_between(from: u64, to: u64) -> Script {
    Box::new(move |now| {
        if now >= Time::from_secs(from) && now < Time::from_secs(to) {
            Outcome::fail(Fault::Refused, "connection refused by 127.0.0.1:6379", ms(1))
        } else {
            Outcome::pass(ms(1))
        }
    })
}

/// The model server at its one address: refused between two times, answering otherwise.
fn away_between(from: u64, to: u64) -> Script {
    away_within(Time::from_secs(from)..Time::from_secs(to))
}

fn away_within(times: Range<Time>) -> Script {
    Box::new(move |now| {
        if times.contains(&now) {
            Outcome::fail(Fault::Refused, "connection refused by 127.0.0.1:8000", ms(1)).sign(Sign::Refused)
        } else {
            Outcome::pass(ms(1)).sign(Sign::Answered)
        }
    })
}

/// A check with exact times: no jitter.
fn check(name: &str) -> CheckPlan {
    CheckPlan { jitter_permille: 0, ..CheckPlan::new(name, "tcp") }
}

fn one(index: u32) -> Vec<Member> {
    vec![Member::Check(CheckId(index))]
}

/// `model` at the one upstream address and `redis` beside it; both make ready, `model` makes startup and health.
fn typical() -> Plan {
    let model = CheckPlan { subject: Subject::Backend(BackendId(0)), ..check("model") };
    Plan {
        checks: vec![model, check("redis")],
        backends: vec![BackendPlan { address: "127.0.0.1:8000".to_owned(), check: CheckId(0) }],
        startup: StartupPlan { require: one(0), budget: secs(60) },
        ready: ReadyPlan { require: vec![Member::Check(CheckId(0)), Member::Check(CheckId(1))], degrade: vec![] },
        health: HealthPlan { require: one(0), ..HealthPlan::default() },
        ..Plan::default()
    }
}
