//! `probegate lab`: the health-design lab, in virtual time.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::terminal::{self, Paint, Tone};
use super::{Answer, Failure, Outcome, lab_replay, lab_sweep};
use crate::lab::report::Column;
use crate::lab::scenario::Scenario;
use crate::lab::shipped::{self, GROUPS, Shipped};
use crate::lab::trace::{self, TraceFile};
use crate::lab::{fuzz, html, report};

/// Room for a name, so that the titles of all groups stand below each other.
const NAME: usize = 21;
/// Lines of progress where nobody rewrites a line.
const TOLD: usize = 10;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run a scenario: every design on the same faults; exit 1 if an expectation is missed
    Run(RunArgs),
    /// List the shipped scenarios
    List,
    /// Print a shipped scenario's file
    Show {
        /// Its name, as `lab list` prints it
        name: String,
    },
    /// Run random worlds and look for a broken law; exit 1 with the seed of the first
    Fuzz(FuzzArgs),
    /// Simulate the pod of a recorded trace and print its rows as JSON
    Trace(TraceArgs),
    /// What another configuration would have made of a recording of `run --record`
    Replay(lab_replay::Args),
    /// Vary the numbers of one design over a grid: what each choice costs, and which to take
    Sweep(lab_sweep::Args),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// A shipped scenario's name, or a file
    scenario: String,
    /// The first seed; equal seeds give equal output
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to run, for intervals
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: u64,
    /// How many lines of each design's story to show
    #[arg(long, default_value_t = 8)]
    notes: usize,
    /// Also write the results as JSON to this file, `-` for standard output instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print Markdown instead: what was asked and predicted, and a table with these columns, separated by commas:
    /// metrics of `expect` lines, `noticed`, `causes`, or `waits` alone
    #[arg(long, value_name = "COLUMNS", conflicts_with = "json", value_parser = Columns::parse)]
    markdown: Option<Columns>,
    /// Also write one self-contained page to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Columns of a table.
#[derive(Clone, Debug)]
struct Columns(Vec<Column>);

impl Columns {
    fn parse(text: &str) -> Result<Self, String> {
        report::columns(text).map(Self)
    }
}

#[derive(Debug, clap::Args)]
struct FuzzArgs {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many worlds
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Print the scenario of the first seed instead of running it
    #[arg(long)]
    show: bool,
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
        Command::Run(args) => run_scenario(&args),
        Command::List => list(),
        Command::Show { name } => show(&name),
        Command::Fuzz(args) => look_for_broken_laws(&args),
        Command::Trace(args) => trace(&args),
        Command::Replay(args) => lab_replay::run(&args),
        Command::Sweep(args) => lab_sweep::run(&args),
    }
}

fn run_scenario(args: &RunArgs) -> Outcome {
    let scenario = load(&args.scenario)?;
    let mut told = |design: &str| {
        // Progress is for whoever watches; nobody watching is no failure.
        let _ = writeln!(std::io::stderr(), "running {design}");
    };
    let report = report::experiment(&scenario, args.seed, args.seeds, &mut told);
    if let Some(path) = &args.html {
        write(path, &html::page(&report))?;
    }
    let mut out = std::io::stdout().lock();
    let json = || {
        let text = serde_json::to_string_pretty(&report);
        text.map_err(|error| Failure::new(format!("cannot write the results: {error}")))
    };
    match args.json.as_deref() {
        _ if args.markdown.is_some() => {
            let columns = args.markdown.as_ref().map_or(&[][..], |columns| &columns.0);
            out.write_all(report.markdown(columns).as_bytes())?;
        }
        Some(path) if path == Path::new("-") => writeln!(out, "{}", json()?)?,
        given => {
            if let Some(path) = given {
                write(path, &(json()? + "\n"))?;
            }
            out.write_all(report.text(args.notes, terminal::width()).as_bytes())?;
        }
    }
    out.flush()?;
    Ok(if report.holds() { Answer::Yes } else { Answer::No })
}

pub(super) fn load(name: &str) -> Result<Scenario, Failure> {
    if let Some(shipped) = Shipped::find(name) {
        return Scenario::parse(shipped.text, &shipped::read).map_err(|error| Failure::new(format!("{name}: {error}")));
    }
    let path = Path::new(name);
    if !path.exists() {
        let names = shipped::all().map(|shipped| shipped.name);
        let hint =
            crate::config::nearest(name, names).map_or_else(String::new, |near| format!(", did you mean {near}?"));
        return Err(Failure::new(format!(
            "{name}: neither a shipped scenario (`probegate lab list`) nor a file{hint}"
        )));
    }
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let beside = move |file: &str| std::fs::read_to_string(folder.join(file)).map_err(|error| error.to_string());
    Scenario::parse(&read(path)?, &beside).map_err(|error| Failure::new(format!("{name}: {error}")))
}

fn list() -> Outcome {
    let mut out = std::io::stdout().lock();
    for (index, group) in GROUPS.iter().enumerate() {
        let gap = if index > 0 { "\n" } else { "" };
        writeln!(out, "{gap}{} ({})", group.title, group.page)?;
        let mut rows = Vec::new();
        for shipped in group.scenarios {
            let name = format!("{:<NAME$}", shipped.name);
            rows.push(vec![(name, Tone::Plain), (load(shipped.name)?.title, Tone::Plain)]);
        }
        out.write_all(terminal::table(&rows, 2, terminal::width(), Paint::for_stdout()).as_bytes())?;
    }
    writeln!(out, "\n`probegate lab run NAME` runs one, `probegate lab show NAME` prints its file.")?;
    Ok(Answer::Yes)
}

fn show(name: &str) -> Outcome {
    let shipped = Shipped::find(name);
    let shipped = shipped.ok_or_else(|| Failure::new(format!("{name}: no such scenario (`probegate lab list`)")))?;
    std::io::stdout().lock().write_all(shipped.text.as_bytes())?;
    Ok(Answer::Yes)
}

fn look_for_broken_laws(args: &FuzzArgs) -> Outcome {
    let mut out = std::io::stdout().lock();
    if args.show {
        let (scenario, file) = fuzz::files(args.seed);
        write!(out, "{scenario}\n# random.toml:\n")?;
        for line in file.lines() {
            writeln!(out, "# {line}")?;
        }
        return Ok(Answer::Yes);
    }
    let all = usize::try_from(args.count).unwrap_or(usize::MAX);
    for (done, seed) in (1..).zip(args.seed..args.seed.saturating_add(args.count)) {
        let broken = fuzz::broken(seed);
        // The last line of progress is whole before anything is said.
        progress("worlds", done, if broken.is_some() { done } else { all });
        if let Some(law) = broken {
            writeln!(out, "seed {seed}: {law}")?;
            writeln!(out, "replay: probegate lab fuzz --seed {seed} --count 1")?;
            return Ok(Answer::No);
        }
    }
    writeln!(out, "{} random worlds from seed {}: every law holds", args.count, args.seed)?;
    Ok(Answer::Yes)
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

/// Progress is for whoever watches; nobody watching is no failure.
pub(super) fn progress(what: &str, done: usize, all: usize) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let end = if done == all { "\n" } else { "" };
        let _ = write!(err, "\r{done} of {all} {what}{end}");
    } else if all > TOLD && done / all.div_ceil(TOLD) != (done - 1) / all.div_ceil(TOLD) {
        let _ = writeln!(err, "{done} of {all} {what}");
    }
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}
