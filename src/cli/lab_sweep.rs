//! `probegate lab sweep`: a grid over the numbers of one design.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{Answer, Failure, Outcome, lab, terminal};
use crate::lab::scenario::Scenario;
use crate::lab::shipped::{self, Shipped};
use crate::lab::sweep::{self, Axis, Source};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A shipped scenario's name, or a file
    scenario: String,
    /// The design to vary; without it the first with a sidecar, or the first
    #[arg(long, value_name = "NAME")]
    design: Option<String>,
    /// A key and its values: `readinessProbe.periodSeconds=1,5`, `checks.NAME.interval=1s,5s`, `checks.*.KEY`;
    /// repeatable. Without any: a usual grid
    #[arg(long, value_name = "KEY=V1,V2")]
    vary: Vec<String>,
    /// The first seed; equal seeds give equal output
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds each point is run on
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Also write the results as JSON to this file, `-` for standard output instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write one self-contained page to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Outcome {
    let scenario = lab::load(&args.scenario)?;
    let design = chosen(&scenario, args.design.as_deref())?;
    let source = source(&args.scenario, &scenario.designs[design].name)?;
    let axes = match args.vary.as_slice() {
        [] => Axis::usual(&scenario.designs[design]),
        given => given.iter().map(|text| Axis::parse(text)).collect::<Result<_, _>>().map_err(refused("--vary"))?,
    };
    let seeds = (args.seed, args.seeds);
    let sweep = sweep::sweep(&scenario, design, &source, axes, seeds, &|done, all| lab::progress("runs", done, all))
        .map_err(refused(&args.scenario))?;
    if let Some(path) = &args.html {
        lab::write(path, &sweep::page(&sweep))?;
    }
    let json = || {
        let text = serde_json::to_string_pretty(&sweep);
        text.map_err(|error| Failure::new(format!("cannot write the results: {error}")))
    };
    let mut out = std::io::stdout().lock();
    match args.json.as_deref() {
        Some(path) if path == Path::new("-") => writeln!(out, "{}", json()?)?,
        given => {
            if let Some(path) = given {
                lab::write(path, &(json()? + "\n"))?;
            }
            out.write_all(sweep.text(terminal::width()).as_bytes())?;
        }
    }
    out.flush()?;
    Ok(Answer::Yes)
}

fn refused(what: &str) -> impl Fn(String) -> Failure {
    move |why| Failure::new(format!("{what}: {why}"))
}

fn chosen(scenario: &Scenario, name: Option<&str>) -> Result<usize, Failure> {
    let names = || scenario.designs.iter().map(|design| design.name.as_str());
    match name {
        Some(name) => scenario.designs.iter().position(|design| design.name == name).ok_or_else(|| {
            Failure::new(format!(
                "--design: no design is called {name}; there are {}",
                names().collect::<Vec<_>>().join(", ")
            ))
        }),
        None => Ok(scenario.designs.iter().position(|design| design.sidecar.is_some()).unwrap_or(0)),
    }
}

/// The Probegate file of the design, from where the scenario comes from.
fn source(scenario: &str, design: &str) -> Result<Source, Failure> {
    let found = match Shipped::find(scenario) {
        Some(shipped) => Source::of(shipped.text, design, &shipped::read),
        None => {
            let path = Path::new(scenario);
            let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
            let beside =
                move |file: &str| std::fs::read_to_string(folder.join(file)).map_err(|error| error.to_string());
            Source::of(&lab::read(path)?, design, &beside)
        }
    };
    found.map_err(refused(scenario))
}
