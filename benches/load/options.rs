//! What a person may ask of the bench.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::contenders::Contender;
use crate::work::Work;

/// Drives the same work through Probegate and its peers, and probes them while they are busy.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo bench --bench load --")]
pub(crate) struct Options {
    /// One short round of fewer cells: within two minutes instead of twelve, figures become rough
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these parts, as in `json,probes`
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Part>,
    /// Only these, as in `direct,probegate,nginx`
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) contenders: Vec<Contender>,
    /// These numbers of connections instead of each workload's own
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) connections: Vec<u64>,
    /// Rounds; the median of them is shown
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=25))]
    pub(crate) rounds: Option<u64>,
    /// Seconds that one run measures
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=120))]
    pub(crate) seconds: Option<u64>,
    /// Write the results to this file too
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Measure nothing: print what an earlier run wrote as Markdown, for a README [default: target/load/results.json]
    #[arg(long, value_name = "RESULTS", num_args = 0..=1)]
    pub(crate) markdown: Option<Option<PathBuf>>,
    /// What this process is: the bench starts itself again for its backend
    #[arg(long, value_enum, hide = true, default_value = "bench")]
    pub(crate) mode: Mode,
    /// Given by `cargo bench`; without it the bench only tests itself, which is what `cargo test` wants
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Mode {
    Backend,
    Bare,
    Bench,
}

/// A part of the bench: a workload, or one of the other tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
pub(crate) enum Part {
    Json,
    Tensor,
    Tokens,
    Grpc,
    Websocket,
    /// Probe answers while the data plane is busy
    Probes,
    /// Resident memory: idle, idle connections, open streams
    Memory,
}

impl Part {
    fn work(self) -> Option<Work> {
        match self {
            Self::Json => Some(Work::Json),
            Self::Tensor => Some(Work::Tensor),
            Self::Tokens => Some(Work::Tokens),
            Self::Grpc => Some(Work::Grpc),
            Self::Websocket => Some(Work::Websocket),
            Self::Probes | Self::Memory => None,
        }
    }
}

impl Options {
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    pub(crate) fn works(&self) -> Vec<Work> {
        let parts = [Part::Json, Part::Tensor, Part::Tokens, Part::Grpc, Part::Websocket];
        parts.into_iter().filter(|part| self.wants(*part)).filter_map(Part::work).collect()
    }

    pub(crate) fn connections_of(&self, work: Work) -> Vec<usize> {
        if !self.connections.is_empty() {
            return self.connections.iter().map(|count| usize::try_from(*count).unwrap_or(usize::MAX)).collect();
        }
        let all = work.connections();
        // In a hurry: the two that the targets are stated for.
        all.iter().copied().filter(|count| !self.quick || all.len() == 1 || [32, 256].contains(count)).collect()
    }

    /// Whether a load is also driven at half: the one that the targets are stated for, and no single connection,
    /// which has no queue to wait in.
    pub(crate) fn halves(&self, work: Work, connections: usize) -> bool {
        work == Work::Json && connections > 1
    }

    /// Whether a contender takes part at all; in a hurry the second nginx, which only shows what a mistake costs, not.
    pub(crate) fn invites(&self, contender: Contender) -> bool {
        if self.contenders.is_empty() {
            !(self.quick && contender == Contender::Nginx64)
        } else {
            self.contenders.contains(&contender)
        }
    }

    /// CPU at rest is counted over so long: rounds of Probegate's checks.
    pub(crate) fn resting(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 2 })
    }

    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    pub(crate) fn measure(&self) -> Duration {
        self.given(Duration::from_millis(if self.quick { 500 } else { 1_200 }))
    }

    pub(crate) fn warm(&self) -> Duration {
        Duration::from_millis(if self.quick { 150 } else { 300 })
    }

    /// For the tail of probe answers: a thousand of them, or 200 in a hurry.
    pub(crate) fn probing(&self) -> Duration {
        self.given(Duration::from_millis(if self.quick { 1_000 } else { 5_000 }))
    }

    /// A program has settled by then, Probegate's twenty checks have run.
    pub(crate) fn settling(&self) -> Duration {
        Duration::from_millis(if self.quick { 500 } else { 1_200 })
    }

    fn given(&self, otherwise: Duration) -> Duration {
        self.seconds.map_or(otherwise, Duration::from_secs)
    }
}
