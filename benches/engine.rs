//! What does one event cost the engine, and does it grow with the number of checks?
//!
//! Expected: around a microsecond for a whole turn of a check (due, started, result taken, judged, next one
//! planned), growing with no more than the logarithm of the number of checks. A snapshot costs as much as
//! the plan is long and is taken at most 20 times a second.

#[path = "instructions/driven.rs"]
mod driven;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use driven::Driven;

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
