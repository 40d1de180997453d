//! The first table: the same work through every contender, run by run in turn, so that a slow minute of the machine
//! is everybody's.

use std::cell;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::{self, nanos};
use crate::contenders::{Contender, Place, Standing};
use crate::cpu::CpuTime;
use crate::drive::{Load, Pace, Underway};
use crate::machine::{self, Machine};
use crate::options::Options;
use crate::process::Process;
use crate::record::{Cell, Quantiles, Results, Run, Skipped, median};
use crate::work::Work;

/// A run during which strangers used more of the machine is made again ...
const FOREIGN_MAX: f64 = 0.10;
/// ... at most so often; then it counts as it is, and says so.
const REPEATS_MAX: usize = 2;
/// All repeats together may take so long: on a machine that is never quiet the bench must end too.
const REPEATING_MAX: Duration = Duration::from_secs(90);

/// What every run needs.
pub(crate) struct Stage {
    pub(crate) options: Options,
    pub(crate) machine: Machine,
    pub(crate) backend: Process,
    pub(crate) backend_at: std::net::SocketAddr,
    pub(crate) folder: PathBuf,
    /// Nanoseconds that repeated runs have taken so far.
    pub(crate) repeating: cell::Cell<u64>,
}

impl Stage {
    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            folder: &self.folder,
            core: self.machine.cores.proxy,
            backend: self.backend_at,
            connections_max: self.machine.proxied_connections(),
        }
    }

    pub(crate) fn say(&self, line: &str) {
        eprintln!("{line}");
    }
}

/// Fills the table, cell by cell.
pub(crate) async fn fill(stage: &Stage, results: &mut Results) {
    let entrants: Vec<Contender> =
        results.entrants.iter().filter(|entrant| entrant.missing.is_none()).map(|entrant| entrant.contender).collect();
    for work in stage.options.works() {
        for connections in stage.options.connections_of(work) {
            let enter: Vec<Contender> =
                entrants.iter().copied().filter(|contender| contender.enters(work, connections)).collect();
            let closed = rounds(stage, results, &enter, work, connections, None).await;
            let half = match half_load(results.reference, &closed).filter(|_| stage.options.halves(work, connections)) {
                Some(rate) => rounds(stage, results, &enter, work, connections, Some(rate)).await,
                None => Vec::new(),
            };
            for (contender, closed_runs) in closed {
                let half_runs = half.iter().find(|(other, _)| *other == contender).map(|(_, runs)| runs.clone());
                let half_runs = half_runs.unwrap_or_default();
                results.cells.push(Cell {
                    contender,
                    work,
                    connections,
                    closed: Run::median(&closed_runs),
                    half: (!half_runs.is_empty()).then(|| Run::median(&half_runs)),
                    closed_runs,
                    half_runs,
                });
            }
        }
    }
}

/// Half of what the reference answered.
fn half_load(reference: Option<Contender>, closed: &[(Contender, Vec<Run>)]) -> Option<f64> {
    let (_, runs) = closed.iter().find(|(contender, _)| Some(*contender) == reference)?;
    Some(median(runs.iter().map(|run| run.per_second)) / 2.0).filter(|rate| *rate > 1.0)
}

/// All rounds of one cell: contender after contender, again and again. One that cannot is asked only once.
async fn rounds(
    stage: &Stage,
    results: &mut Results,
    enter: &[Contender],
    work: Work,
    connections: usize,
    rate: Option<f64>,
) -> Vec<(Contender, Vec<Run>)> {
    let mut all: Vec<(Contender, Vec<Run>)> = enter.iter().map(|contender| (*contender, Vec::new())).collect();
    let pace = rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second });
    for _ in 0..stage.options.rounds() {
        let mut standing = Vec::new();
        for (contender, mut runs) in all {
            match quiet_run(stage, contender, work, connections, pace).await {
                Ok(run) => {
                    stage.say(&line(contender, work, connections, &run));
                    runs.push(run);
                    standing.push((contender, runs));
                }
                Err(why) => {
                    let what = format!("{work} at {connections}");
                    stage.say(&format!("{:<11} {what}: left out: {why}", contender.name()));
                    results.skipped.push(Skipped { contender, what, why });
                }
            }
        }
        all = standing;
    }
    all
}

fn line(contender: Contender, work: Work, connections: usize, run: &Run) -> String {
    let pace = run.offered.map_or_else(String::new, |rate| format!(" of {rate:.0}"));
    format!(
        "{:<11} {work} at {connections:<5} {:>7.0}{pace}/s  cpu {:>6.1} us  p50 {:.2} ms  p99 {:.2} ms  rss {:.1} MB  foreign {:.0} %{}",
        contender.name(),
        run.per_second,
        run.cpu_us.unwrap_or(0.0),
        run.latency_ms.p50,
        run.latency_ms.p99,
        run.rss_mb,
        run.foreign * 100.0,
        run.first_failure.as_ref().map_or_else(String::new, |why| format!("  FAILED {}: {why}", run.failures)),
    )
}

/// A run that strangers did not spoil, if one of three can be had; else the least spoilt.
async fn quiet_run(
    stage: &Stage,
    contender: Contender,
    work: Work,
    connections: usize,
    pace: Pace,
) -> Result<Run, String> {
    let repeats = if stage.options.quick { 0 } else { REPEATS_MAX };
    let mut best: Option<Run> = None;
    for attempt in 0..=repeats {
        let began = clock::now();
        let run = one_run(stage, contender, work, connections, pace).await?;
        if attempt > 0 {
            stage.repeating.set(stage.repeating.get() + (clock::now() - began));
        }
        let quiet = run.foreign <= FOREIGN_MAX;
        if best.as_ref().is_none_or(|best| run.foreign < best.foreign) {
            best = Some(run);
        }
        if quiet || stage.repeating.get() > nanos(REPEATING_MAX) {
            break;
        }
    }
    best.ok_or_else(|| "no run".into())
}

async fn one_run(
    stage: &Stage,
    contender: Contender,
    work: Work,
    connections: usize,
    pace: Pace,
) -> Result<Run, String> {
    let standing = contender.start(&stage.place()).await?;
    standing.carries(work).await.map_err(|why| format!("does not carry it: {why}"))?;
    let load = Load {
        work,
        to: standing.takes(work),
        connections,
        pace,
        warm: stage.options.warm(),
        measure: stage.options.measure(),
    };
    measured(stage, &standing, load).await
}

/// Drives `load` and looks at the contender's processes when the window opens and when it closes.
pub(crate) async fn measured(stage: &Stage, standing: &Standing, load: Load) -> Result<Run, String> {
    let (underway, window) = Underway::start(load, stage.machine.cores.generator)
        .await
        .map_err(|error| format!("could not connect: {error}"))?;
    clock::sleep_until(window.from).await;
    let before = Look::now(stage, standing);
    clock::sleep_until(window.to).await;
    let rss_bytes = standing.process.as_ref().map_or(0, Process::rss_bytes);
    let used = Look::now(stage, standing).since(&before);
    let driven = underway.finish().await.map_err(|error| error.to_string())?;
    if driven.completed == 0 {
        return Err(format!("nothing came back: {}", driven.first_failure.unwrap_or_else(|| "silence".into())));
    }
    let per_second = driven.completed as f64 / load.measure.as_secs_f64();
    Ok(Run {
        per_second,
        offered: match load.pace {
            Pace::Closed => None,
            Pace::Open { per_second } => Some(per_second),
        },
        // By rates, for the looks come a little later than the window's ends.
        cpu_us: standing.process.is_some().then(|| used.proxy / used.elapsed / per_second * 1e6),
        cpu_share: used.proxy / used.elapsed,
        load_share: used.load / used.elapsed,
        rss_mb: rss_bytes as f64 / 1e6,
        latency_ms: Quantiles::of(&driven.latency),
        failures: driven.failures,
        unanswered: driven.unanswered,
        first_failure: driven.first_failure,
        foreign: used.foreign(stage.machine.core_count),
    })
}

/// What everybody has used so far.
pub(crate) struct Look {
    at: u64,
    proxy: CpuTime,
    load: CpuTime,
    busy: f64,
}

/// What was used between two looks.
pub(crate) struct Use {
    /// Seconds.
    pub(crate) elapsed: f64,
    /// CPU seconds of the contender.
    pub(crate) proxy: f64,
    /// CPU seconds of the generator, the prober and the backend.
    pub(crate) load: f64,
    /// CPU seconds of everybody.
    busy: f64,
}

impl Look {
    pub(crate) fn now(stage: &Stage, standing: &Standing) -> Self {
        Self {
            at: clock::now(),
            proxy: standing.process.as_ref().map(Process::cpu).unwrap_or_default(),
            load: stage.backend.cpu().and(CpuTime::of(&[std::process::id()])),
            busy: machine::busy_seconds(),
        }
    }

    pub(crate) fn since(&self, before: &Self) -> Use {
        Use {
            elapsed: Duration::from_nanos(self.at - before.at).as_secs_f64(),
            proxy: self.proxy.since(&before.proxy),
            load: self.load.since(&before.load),
            busy: self.busy - before.busy,
        }
    }
}

impl Use {
    /// What other processes used of the machine, 0 to 1.
    pub(crate) fn foreign(&self, cores: usize) -> f64 {
        ((self.busy - self.proxy - self.load) / (self.elapsed * cores as f64)).max(0.0)
    }
}
