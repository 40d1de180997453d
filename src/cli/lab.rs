//! `probegate lab`: the health-design lab, in virtual time.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Answer, Failure, Outcome};
use crate::lab::trace::{self, TraceFile};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Simulate the pod of a recorded trace and print its rows as JSON
    Trace(TraceArgs),
}

#[derive(Debug, clap::Args)]
struct TraceArgs {
    /// A trace file: the pod, what its apps do, for how long it is watched
    file: PathBuf,
    /// Chance; equal seeds give equal output
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(args: Args) -> Outcome {
    match args.command {
        Command::Trace(args) => trace(&args),
    }
}

fn trace(args: &TraceArgs) -> Outcome {
    let text = read(&args.file)?;
    let file = TraceFile::parse(&text).map_err(|error| Failure::new(format!("{}: {error}", args.file.display())))?;
    let rows = trace::run(&file, args.seed);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    writeln!(out, "{{\"trace\": [")?;
    for (index, row) in rows.iter().enumerate() {
        let line = serde_json::to_string(row).map_err(|error| Failure::new(format!("cannot write a row: {error}")))?;
        writeln!(out, "  {line}{}", if index + 1 < rows.len() { "," } else { "" })?;
    }
    writeln!(out, "]}}")?;
    out.flush()?;
    Ok(Answer::Yes)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}
