//! What was measured: single runs, their medians, and the whole that goes into the JSON file.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::contenders::Contender;
use crate::machine::Machine;
use crate::work::Work;

/// Latency in milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Quantiles {
    pub(crate) fn of(latency: &Histogram<u64>) -> Self {
        let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1e6;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: latency.max() as f64 / 1e6 }
    }
}

/// One run of one contender, or the median of several, field by field.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Run {
    /// Answered in each second.
    pub(crate) per_second: f64,
    /// Asked in each second; none in a closed loop.
    pub(crate) offered: Option<f64>,
    /// The proxy's user and system time for each answer, in microseconds; none for the direct way.
    pub(crate) cpu_us: Option<f64>,
    /// How much of its core the proxy used, 0 to 1.
    pub(crate) cpu_share: f64,
    /// How many cores the generator and the backend used; near what they have, they set the pace.
    pub(crate) load_share: f64,
    /// At the end of the run, under load.
    pub(crate) rss_mb: f64,
    pub(crate) latency_ms: Quantiles,
    pub(crate) failures: u64,
    pub(crate) unanswered: u64,
    pub(crate) first_failure: Option<String>,
    /// What other processes used of the machine meanwhile, 0 to 1.
    pub(crate) foreign: f64,
}

impl Run {
    /// The median of each figure; failures are summed, for one is one too many.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let of = |pick: fn(&Self) -> f64| median(runs.iter().map(pick));
        let cpu: Vec<f64> = runs.iter().filter_map(|run| run.cpu_us).collect();
        Self {
            per_second: of(|run| run.per_second),
            offered: runs.first().and_then(|run| run.offered),
            cpu_us: (!cpu.is_empty()).then(|| median(cpu)),
            cpu_share: of(|run| run.cpu_share),
            load_share: of(|run| run.load_share),
            rss_mb: of(|run| run.rss_mb),
            latency_ms: Quantiles {
                p50: of(|run| run.latency_ms.p50),
                p90: of(|run| run.latency_ms.p90),
                p99: of(|run| run.latency_ms.p99),
                p999: of(|run| run.latency_ms.p999),
                max: of(|run| run.latency_ms.max),
            },
            failures: runs.iter().map(|run| run.failures).sum(),
            unanswered: runs.iter().map(|run| run.unanswered).sum(),
            first_failure: runs.iter().find_map(|run| run.first_failure.clone()),
            foreign: of(|run| run.foreign),
        }
    }
}

/// 0 of nothing; the lower middle of an even count would hide the worse half, so the mean of both middles.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// One contender at one workload and number of connections.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Cell {
    pub(crate) contender: Contender,
    pub(crate) work: Work,
    pub(crate) connections: usize,
    /// As fast as it goes; for tokens at their own pace.
    pub(crate) closed: Run,
    /// At half of what the reference managed.
    pub(crate) half: Option<Run>,
    pub(crate) closed_runs: Vec<Run>,
    pub(crate) half_runs: Vec<Run>,
}

/// CPU per answer against `other`'s: the median of the rounds, each by itself, for a slow minute of the machine is in
/// both runs of a round. 1 is the same.
pub(crate) fn cpu_against(own: &[Run], other: &[Run]) -> Option<f64> {
    let ratio = |(own, other): (&Run, &Run)| Some(own.cpu_us? / other.cpu_us.filter(|us| *us > 0.0)?);
    let ratios: Vec<f64> = own.iter().zip(other).filter_map(ratio).collect();
    (!ratios.is_empty()).then(|| median(ratios))
}

/// A cell that could not be measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Skipped {
    pub(crate) contender: Contender,
    pub(crate) what: String,
    pub(crate) why: String,
}

/// Probe answers of one kind under one load.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Probed {
    pub(crate) scene: String,
    pub(crate) target: String,
    pub(crate) sent: u64,
    /// No whole answer within the kubelet's second.
    pub(crate) missed: u64,
    /// Answered, but not with 200.
    pub(crate) refused: u64,
    pub(crate) first_miss: Option<String>,
    pub(crate) latency_ms: Quantiles,
    /// How much of its core the contender used meanwhile, 0 to 1.
    pub(crate) cpu_share: f64,
    /// Requests answered by the data plane in each second meanwhile.
    pub(crate) traffic_per_second: f64,
    /// What other processes used of the machine meanwhile, 0 to 1.
    pub(crate) foreign: f64,
    /// Longest accept queue of the traffic port that was seen.
    pub(crate) queue: u64,
}

/// Resident memory of one contender.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Held {
    pub(crate) contender: Contender,
    pub(crate) idle_mb: f64,
    /// Of it, what is no file's: heap and stacks, without the program's own pages.
    pub(crate) idle_anonymous_mb: f64,
    /// For each idle kept connection.
    pub(crate) kib_per_idle: Option<f64>,
    pub(crate) idle_connections: usize,
    /// With all streams open.
    pub(crate) streams_mb: Option<f64>,
    pub(crate) streams: usize,
    /// CPU at rest, in per cent of a core.
    pub(crate) idle_cpu_percent: f64,
    pub(crate) notes: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entrant {
    pub(crate) contender: Contender,
    pub(crate) version: Option<String>,
    /// Why it takes no part.
    pub(crate) missing: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) rounds: u64,
    pub(crate) seconds: f64,
    pub(crate) entrants: Vec<Entrant>,
    /// Ratios are to this one.
    pub(crate) reference: Option<Contender>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) probed: Vec<Probed>,
    pub(crate) held: Vec<Held>,
    pub(crate) skipped: Vec<Skipped>,
}

impl Results {
    /// What a contender adds to the backend's own 99th percentile at half load, in milliseconds: the median of the
    /// rounds, each by itself.
    pub(crate) fn added_p99(&self, cell: &Cell) -> Option<f64> {
        let direct = &self.cell(Contender::Direct, cell.work, cell.connections)?.half_runs;
        let own = Some(&cell.half_runs).filter(|_| cell.contender != Contender::Direct)?;
        let added = |(own, direct): (&Run, &Run)| own.latency_ms.p99 - direct.latency_ms.p99;
        let added: Vec<f64> = own.iter().zip(direct).map(added).collect();
        (!added.is_empty()).then(|| median(added))
    }

    /// What other processes used of the machine: the median of all runs, and the worst; 0 to 1.
    pub(crate) fn foreign(&self) -> (f64, f64) {
        let runs = self.cells.iter().flat_map(|cell| cell.closed_runs.iter().chain(&cell.half_runs));
        let all = || runs.clone().map(|run| run.foreign).chain(self.probed.iter().map(|probed| probed.foreign));
        (median(all()), all().fold(0.0, f64::max))
    }

    pub(crate) fn cell(&self, contender: Contender, work: Work, connections: usize) -> Option<&Cell> {
        let mut cells = self.cells.iter();
        cells.find(|cell| cell.contender == contender && cell.work == work && cell.connections == connections)
    }

    /// The reference's cell beside `cell`.
    pub(crate) fn beside(&self, cell: &Cell) -> Option<&Cell> {
        self.cell(self.reference?, cell.work, cell.connections)
    }
}
