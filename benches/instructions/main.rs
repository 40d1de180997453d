//! How many instructions does a step of the engine take, a choice of upstream, a proxied request?
//!
//! Unlike time, a count is the same on a busy machine and on a quiet one, so a change can be held to it: `check` fails
//! when a count is over the recorded one by more than 5 %. `scripts/instructions` builds and runs this with valgrind
//! found or installed; `scripts/instructions record` writes `benches/instructions.json` anew.
//!
//! Each work runs twice under callgrind, the second time with more turns; the difference of both counts over the
//! difference of turns is the cost of one turn, and whatever starting costs is in neither.

mod counts;
mod driven;
mod plane;
mod valgrind;

use std::hint::black_box;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use counts::Counts;
use driven::Driven;
use plane::Plane;

/// As many as the load bench gives the sidecar.
const CHECKS: u32 = 20;
/// One upstream needs no choosing.
const UPSTREAMS: usize = 4;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Counts, and compares with what is recorded
    Check,
    /// Counts, and records
    Record,
    /// Does the work itself; what valgrind is put around
    #[command(hide = true)]
    Work { work: Work, turns: u32 },
}

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Work {
    /// One event of an engine with 20 checks: a result judged, or a check that came due
    Step,
    /// The balancer's choice among four upstreams, in turn
    Select,
    /// One request through one worker of the traffic plane, with the client and the model server of the instrument
    Forward,
    /// The same to the least loaded of four upstreams
    Spread,
}

impl Work {
    pub(crate) const ALL: [Self; 4] = [Self::Step, Self::Select, Self::Forward, Self::Spread];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Select => "select",
            Self::Forward => "forward",
            Self::Spread => "spread",
        }
    }

    /// Few and many. Enough that growing buffers and lazy beginnings are over after the few.
    pub(crate) fn turns(self) -> (u32, u32) {
        match self {
            Self::Step => (10_000, 60_000),
            Self::Select | Self::Forward | Self::Spread => (200, 1_200),
        }
    }

    /// The only function that is counted, as a pattern; none: everything is.
    ///
    /// The choice is made behind a trait object, so that the function is always there by name. Its closures have
    /// longer names, and must not match: each match toggles the counting.
    pub(crate) fn function(self) -> Option<&'static str> {
        match self {
            Self::Select => Some("*upstreams::Balance>::select"),
            Self::Step | Self::Forward | Self::Spread => None,
        }
    }

    fn run(self, turns: u32) -> io::Result<()> {
        match self {
            Self::Step => {
                let mut driven = Driven::new(CHECKS);
                (0..turns).for_each(|_| driven.event());
                black_box(driven.engine);
                Ok(())
            }
            Self::Select => requests(UPSTREAMS, "round-robin", turns),
            Self::Forward => requests(1, "least-loaded", turns),
            Self::Spread => requests(UPSTREAMS, "least-loaded", turns),
        }
    }
}

fn requests(upstreams: usize, algorithm: &str, turns: u32) -> io::Result<()> {
    let mut plane = Plane::start(upstreams, algorithm)?;
    (0..turns).try_for_each(|_| plane.request())
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Check => count().and_then(|counts| Ok(counts.check(&Counts::load(&file())?))),
        Command::Record => count().and_then(|counts| counts.save(&file())).map(|()| true),
        Command::Work { work, turns } => work.run(turns).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json")
}

fn count() -> io::Result<Counts> {
    let mut counts = Counts::default();
    for work in Work::ALL {
        let count = valgrind::per_turn(work)?;
        println!("{:<8} {count:>8} instructions", work.name());
        counts.put(work, count);
    }
    Ok(counts)
}
