//! The figures that Probegate is to reach, each beside what was measured. A goal that this run did not measure is
//! said to be so, never passed over.

use serde::Serialize;

use crate::contenders::Contender;
use crate::record::{Cell, Held, Probed, Results, cpu_against};
use crate::scenes::{FLOODED, FLOOR, FULL, LIMITED, OVERLOAD};
use crate::work::Work;

/// The most CPU per request that is allowed, as a share of nginx's.
const CPU: [(usize, f64); 3] = [(32, 1.0), (256, 1.0), (1_000, 0.85)];
const IDLE_MB: f64 = 8.0;
const ACTIVE_MB: [(usize, f64); 2] = [(32, 10.0), (1_000, 16.0)];
const IDLE_CONNECTION_KIB: f64 = 2.0;
/// With ten thousand token streams open.
const STREAMS_MB: f64 = 200.0;
const STREAMS: usize = 10_000;
const PROBE_P50_MS: f64 = 0.8;
/// Above the prober's own floor.
const PROBE_P999_ABOVE_FLOOR_MS: f64 = 2.0;

/// One goal.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) at_most: f64,
    /// None: this run did not measure it.
    pub(crate) measured: Option<f64>,
}

impl Target {
    fn new(what: impl Into<String>, at_most: f64, measured: Option<f64>) -> Self {
        Self { what: what.into(), at_most, measured }
    }

    /// Whether it is reached; none if it was not measured.
    pub(crate) fn reached(&self) -> Option<bool> {
        self.measured.map(|measured| measured <= self.at_most)
    }
}

/// All goals, against these results.
pub(crate) fn all(results: &Results) -> Vec<Target> {
    let mut targets = Vec::new();
    for (connections, share) in CPU {
        let what = format!("CPU per request at {connections} connections, nginx = 1");
        targets.push(Target::new(what, share, cpu_share(results, connections)));
    }
    let held = results.held.iter().find(|held| held.contender == Contender::Probegate);
    targets.push(Target::new("RSS idle, MB", IDLE_MB, held.map(|held| held.idle_mb)));
    for (connections, megabytes) in ACTIVE_MB {
        let rss = json(results, Contender::Probegate, connections).map(|cell| cell.closed.rss_mb);
        targets.push(Target::new(format!("RSS at {connections} active connections, MB"), megabytes, rss));
    }
    let per_idle = held.and_then(|held| held.kib_per_idle);
    targets.push(Target::new("KiB per idle kept connection", IDLE_CONNECTION_KIB, per_idle));
    targets.push(Target::new("RSS with 10 000 open token streams, MB", STREAMS_MB, held.and_then(streams)));
    for (connections, _) in CPU {
        targets.push(added(results, connections));
    }
    probes(results, &mut targets);
    targets
}

fn json(results: &Results, contender: Contender, connections: usize) -> Option<&Cell> {
    results.cell(contender, Work::Json, connections)
}

fn cpu_share(results: &Results, connections: usize) -> Option<f64> {
    let of = |contender| Some(json(results, contender, connections)?.closed_runs.as_slice());
    cpu_against(of(Contender::Probegate)?, of(Contender::Nginx)?)
}

/// Brought up to the goal's number where the limit of descriptors allowed a few less; many less say nothing about it.
fn streams(held: &Held) -> Option<f64> {
    let megabytes = held.streams_mb.filter(|_| held.streams >= STREAMS / 10 * 9)?;
    Some(held.idle_mb + (megabytes - held.idle_mb) * STREAMS as f64 / held.streams as f64)
}

/// The limit is nginx's own figure.
fn added(results: &Results, connections: usize) -> Target {
    let of = |contender| results.added_p99(json(results, contender, connections)?);
    let what = format!("p99 added at half load and {connections} connections, ms (nginx's)");
    match of(Contender::Nginx) {
        Some(nginx) => Target::new(what, nginx, of(Contender::Probegate)),
        None => Target::new(what, 0.0, None),
    }
}

fn probes(results: &Results, targets: &mut Vec<Target>) {
    let of = |scene: &str| results.probed.iter().find(|one| one.scene == scene && one.target.starts_with("probegate"));
    let full = of(FULL);
    targets.push(Target::new("probe p50 at full load, ms", PROBE_P50_MS, full.map(|one| one.latency_ms.p50)));
    let floor = results.probed.iter().find(|one| one.target == FLOOR).map(|one| one.latency_ms.p999);
    let above = full.zip(floor).map(|(one, floor)| (one.latency_ms.p999 - floor).max(0.0));
    targets.push(Target::new(
        "probe p99.9 at full load above the prober's floor, ms",
        PROBE_P999_ABOVE_FLOOR_MS,
        above,
    ));
    for scene in [FULL, LIMITED, FLOODED, OVERLOAD] {
        targets.push(Target::new(format!("probes missed: {scene}"), 0.0, of(scene).map(lost)));
    }
}

/// Late, or not 200: the kubelet counts both.
fn lost(probed: &Probed) -> f64 {
    (probed.missed + probed.refused) as f64
}
