//! What does one event cost the engine, and does it grow with the number of checks?
//!
//! Expected: around a microsecond for a whole turn of a check (due, started, result taken, judged, next one
//! planned), growing with no more than the logarithm of the number of checks. A snapshot costs as much as
//! the plan is long and is taken at most 20 times a second.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use probegate::engine::{
    CheckId, CheckPlan, Engine, Fault, HealthPlan, Input, Member, Outcome, Output, Plan, ReadyPlan, StartupPlan, Time,
};

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

/// An engine and the results that its attempts will have.
struct Driven {
    engine: Engine,
    now: Time,
    started: VecDeque<(CheckId, probegate::engine::Attempt)>,
    turn: u64,
}

impl Driven {
    fn new(checks: u32) -> Self {
        let now = Time::from_secs(1);
        let engine = Engine::new(now, Arc::new(plan(checks)), 1);
        let mut driven = Self { engine, now, started: VecDeque::new(), turn: 0 };
        for _ in 0..checks * 3 {
            driven.event();
        }
        driven
    }

    /// One event: a result if one is outstanding, else the next timeout. One result in eight is a failure.
    fn event(&mut self) {
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

fn step(c: &mut Criterion) {
    let mut group = c.benchmark_group("event");
    group.throughput(Throughput::Elements(1));
    for checks in [10, 1_000, 10_000] {
        let mut driven = Driven::new(checks);
        group.bench_function(BenchmarkId::from_parameter(checks), |b| b.iter(|| driven.event()));
    }
    group.finish();
}

fn snapshot(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot");
    for checks in [10, 1_000, 10_000] {
        let mut driven = Driven::new(checks);
        group.bench_function(BenchmarkId::from_parameter(checks), |b| {
            b.iter(|| {
                driven.event();
                black_box(driven.engine.snapshot())
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = step, snapshot
}
criterion_main!(benches);
