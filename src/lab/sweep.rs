//! A grid over the numbers of one design: what each choice costs, and which to take.
//!
//! It owns the grid, the runs (every point on the same seeds and faults, on as many threads as there are cores), the
//! Pareto front and a proposal with its reason. The results do not depend on the number of threads. It refuses to
//! weigh restarts against lost requests by a secret formula: the order of preference is written in the reason.

mod axis;
mod front;
mod page;
mod tie;

#[cfg(test)]
mod tests;

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use super::scenario::{Design, Scenario};
use super::world;

pub use axis::{Axis, Source};
pub use page::page;

/// Most points of a grid, and most runs of a sweep: some minutes of one core.
pub const POINTS_MAX: usize = 512;
pub const RUNS_MAX: u64 = 20_000;

/// What a sweep found.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    pub title: String,
    pub design: String,
    pub first_seed: u64,
    pub seeds: u64,
    pub axes: Vec<Axis>,
    /// Whether there was a fault of a server in any run, so that there is something to detect.
    pub has_detection: bool,
    /// The first is the design as written; then the grid, the last axis turning fastest.
    pub points: Vec<Point>,
    /// Indices of `points`, by detection time: nothing is better in one respect without being worse in another.
    pub front: Vec<usize>,
    pub proposal: Option<Proposal>,
}

/// One choice of numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// One value for each axis; empty for the design as written.
    pub values: Vec<String>,
    /// Why it cannot be run: the configuration refuses it.
    pub refused: Option<String>,
    pub cost: Option<Cost>,
}

/// Means over the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// From a server's fault to its pod leaving rotation or its process ending; never counts as the whole run.
    pub detection_seconds: f64,
    /// Faults of a server, a run.
    pub faults: f64,
    /// Of those, noticed by nobody.
    pub undetected: f64,
    /// Restarts that mend nothing, a run.
    pub unwanted_restarts: f64,
    /// Requests that failed or were answered wrong, a run.
    pub lost: f64,
}

/// Which point to take.
#[derive(Clone, Debug, Serialize)]
pub struct Proposal {
    pub point: usize,
    /// In words, with figures.
    pub reason: String,
}

/// Runs a sweep of `scenario.designs[design]`. `told` hears of each run that ended, and of how many there are.
///
/// # Errors
/// The grid is too large, or a key of it does not fit the design.
pub fn sweep(
    scenario: &Scenario,
    design: usize,
    source: &Source,
    axes: Vec<Axis>,
    (first_seed, seeds): (u64, u64),
    told: &(dyn Fn(usize, usize) + Sync),
) -> Result<Sweep, String> {
    let base = scenario.designs.get(design).ok_or("no such design")?;
    let seeds = seeds.max(1);
    let size = axes.iter().map(|axis| axis.values.len()).try_fold(1_usize, usize::checked_mul);
    let size = size.filter(|size| *size <= POINTS_MAX);
    let size = size.ok_or_else(|| format!("the grid has more than {POINTS_MAX} points: vary less at once"))?;
    if RUNS_MAX < seeds.saturating_mul(size as u64 + 1) {
        return Err(format!(
            "{size} points on {seeds} seeds are more than {RUNS_MAX} runs: vary less, or on fewer seeds"
        ));
    }
    let mut points = vec![Point { values: Vec::new(), refused: None, cost: None }];
    let mut designs = vec![Some(base.clone())];
    for index in 0..size {
        let choice = choice(&axes, index);
        let values = choice.iter().map(|(_, value)| (*value).to_owned()).collect();
        let varied = axis::varied(base, source, &choice);
        points.push(Point { values, refused: varied.as_ref().err().cloned(), cost: None });
        designs.push(varied.ok());
    }
    if let Some(why) = points[1..].iter().map(|point| point.refused.as_ref()).collect::<Option<Vec<_>>>() {
        return Err(why
            .first()
            .map_or_else(|| "an empty grid".to_owned(), |why| format!("no point can be run: {why}")));
    }
    for (point, cost) in points.iter_mut().zip(costs(scenario, &designs, first_seed, seeds, told)) {
        point.cost = cost;
    }
    let has_detection = points.iter().filter_map(|point| point.cost).any(|cost| cost.faults > 0.0);
    let front = front::of(&points);
    let proposal = front::propose(&points, &front, &axes, has_detection);
    let (title, design) = (scenario.title.clone(), base.name.clone());
    Ok(Sweep { title, design, first_seed, seeds, axes, has_detection, points, front, proposal })
}

/// The values of a point of the grid.
fn choice(axes: &[Axis], mut index: usize) -> Vec<(&Axis, &str)> {
    let mut all = Vec::with_capacity(axes.len());
    for axis in axes.iter().rev() {
        all.push((axis, axis.values[index % axis.values.len()].as_str()));
        index /= axis.values.len();
    }
    all.reverse();
    all
}

/// The cost of each design, none for none.
fn costs(
    scenario: &Scenario,
    designs: &[Option<Design>],
    first_seed: u64,
    seeds: u64,
    told: &(dyn Fn(usize, usize) + Sync),
) -> Vec<Option<Cost>> {
    let jobs: Vec<(usize, u64)> = (0..designs.len())
        .filter(|index| designs[*index].is_some())
        .flat_map(|index| (first_seed..first_seed.saturating_add(seeds)).map(move |seed| (index, seed)))
        .collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<(usize, Cost)>> = Mutex::new(Vec::with_capacity(jobs.len()));
    let work = || {
        let mut own = Vec::new();
        loop {
            let job = next.fetch_add(1, Ordering::Relaxed);
            let Some((index, seed)) = jobs.get(job) else { break };
            if let Some(design) = &designs[*index] {
                own.push((job, cost_of_run(scenario, design, *seed)));
            }
            told(done.fetch_add(1, Ordering::Relaxed) + 1, jobs.len());
        }
        // A thread that panicked takes the whole sweep with it when the scope ends.
        results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(own);
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(jobs.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Sums of fractions depend on their order.
    results.sort_by_key(|(job, _)| *job);
    let mut sums: Vec<Option<Cost>> = vec![None; designs.len()];
    for (job, run) in results {
        let sum = &mut sums[jobs[job].0];
        *sum = Some(sum.map_or(run, |sum| sum.plus(run)));
    }
    sums.into_iter().map(|sum| sum.map(|sum| sum.over(seeds as f64))).collect()
}

fn cost_of_run(scenario: &Scenario, design: &Design, seed: u64) -> Cost {
    let score = world::run(scenario, design, seed);
    let never = scenario.duration.as_secs_f64();
    let seen: f64 = score.detections.iter().map(|seconds| seconds.unwrap_or(never)).sum();
    Cost {
        detection_seconds: seen / score.detections.len().max(1) as f64,
        faults: score.detections.len() as f64,
        undetected: score.detections.iter().filter(|seconds| seconds.is_none()).count() as f64,
        unwanted_restarts: score.unwanted_restarts as f64,
        lost: score.failed() as f64,
    }
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self {
            detection_seconds: self.detection_seconds + other.detection_seconds,
            faults: self.faults + other.faults,
            undetected: self.undetected + other.undetected,
            unwanted_restarts: self.unwanted_restarts + other.unwanted_restarts,
            lost: self.lost + other.lost,
        }
    }

    fn over(self, runs: f64) -> Self {
        Self {
            detection_seconds: self.detection_seconds / runs,
            faults: self.faults / runs,
            undetected: self.undetected / runs,
            unwanted_restarts: self.unwanted_restarts / runs,
            lost: self.lost / runs,
        }
    }
}
