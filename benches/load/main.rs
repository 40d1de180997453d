//! What does a request through Probegate cost beside its peers, and how long does a kubelet wait meanwhile?
//!
//! Expected on one core: CPU per request no higher than nginx's at 32 and 256 connections, a probe answered within
//! 2 ms of the prober's own floor while the data plane is driven as hard as it goes.
//!
//! `cargo bench --bench load` (`-- --quick`, `-- --help`). Loopback only. Needs two cores: the contender has one to
//! itself, the generator and the backend share the other. Peers are what is installed (`scripts/setup bench`).
//! Results: a table here, `target/load/results.json`, `target/load/index.html`, and each contender's configuration.
//! Without `--bench`, as `cargo test --bench load` starts it, it only tests its own instruments.

mod backend;
mod clock;
mod contenders;
mod cpu;
mod drive;
mod exchange;
mod machine;
mod markdown;
mod memory;
mod network;
mod options;
mod page;
mod plot;
mod prober;
mod process;
mod record;
mod round;
mod scenes;
mod selftest;
mod strain;
mod table;
mod targets;
mod wire;
mod work;

use std::cell;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use contenders::Contender;
use machine::Machine;
use options::{Mode, Options, Part};
use process::Process;
use record::{Entrant, Results};
use round::Stage;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(file) = &options.markdown {
        return ended(print_markdown(file.clone()));
    }
    ended(match options.mode {
        Mode::Backend => backend::run(),
        Mode::Bare => backend::run_bare(),
        Mode::Bench if options.bench => {
            // Before any other thread is started.
            let own_network = network::enter_own();
            on_local_runtime(bench(options, own_network))
        }
        Mode::Bench => on_local_runtime(selftest::run()),
    })
}

fn ended(outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs to the end, or until somebody asks to stop: then everything that was started is dropped, and so ended.
fn on_local_runtime(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = LocalSet::new().block_on(&runtime, async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err(io::Error::other("stopped")),
            _ = terminate.recv() => Err(io::Error::other("stopped")),
        }
    });
    // A generator that is stopped half-way is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn bench(options: Options, own_network: bool) -> io::Result<()> {
    let machine = Machine::look(own_network)?;
    machine::pin(machine.cores.generator)?;
    let folder = results_folder();
    fs::create_dir_all(&folder)?;
    let (backend, backend_at) = Process::start_own("backend", machine.cores.backend)?;
    let mut results = Results {
        rounds: options.rounds(),
        seconds: options.measure().as_secs_f64(),
        entrants: entrants(&options),
        reference: None,
        cells: Vec::new(),
        probed: Vec::new(),
        held: Vec::new(),
        skipped: Vec::new(),
        machine: machine.clone(),
    };
    results.reference = reference(&results.entrants);
    for absent in results.entrants.iter().filter(|entrant| entrant.missing.is_some()) {
        eprintln!("{}: left out: {}", absent.contender.name(), absent.missing.as_deref().unwrap_or_default());
    }
    let stage = Stage { options, machine, backend, backend_at, folder, repeating: cell::Cell::default() };
    let began = clock::now();
    let elapsed = |part: &str| {
        eprintln!("{part}: done after {} s", Duration::from_nanos(clock::now() - began).as_secs());
    };
    round::fill(&stage, &mut results).await;
    elapsed("loads");
    if stage.options.wants(Part::Probes) {
        scenes::play(&stage, &mut results).await;
        elapsed("probes");
    }
    if stage.options.wants(Part::Memory) {
        memory::weigh(&stage, &mut results).await;
        elapsed("memory");
    }
    report(&stage, &results)
}

fn results_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/load")
}

fn print_markdown(file: Option<PathBuf>) -> io::Result<()> {
    let file = file.unwrap_or_else(|| results_folder().join("results.json"));
    let named = |error: String| io::Error::other(format!("{}: {error}", file.display()));
    let text = fs::read_to_string(&file).map_err(|error| named(error.to_string()))?;
    let results: Results = serde_json::from_str(&text).map_err(|error| named(error.to_string()))?;
    print!("{}", markdown::render(&results));
    Ok(())
}

fn entrants(options: &Options) -> Vec<Entrant> {
    Contender::ALL
        .into_iter()
        .filter(|contender| options.invites(*contender))
        .map(|contender| Entrant { contender, version: contender.version(), missing: contender.missing() })
        .collect()
}

/// nginx, or whoever is there in its place; never the direct way, which costs no proxy anything.
fn reference(entrants: &[Entrant]) -> Option<Contender> {
    [Contender::Nginx, Contender::Haproxy, Contender::Envoy, Contender::Probegate]
        .into_iter()
        .find(|one| entrants.iter().any(|entrant| entrant.contender == *one && entrant.missing.is_none()))
}

fn report(stage: &Stage, results: &Results) -> io::Result<()> {
    let json = serde_json::to_string_pretty(results).map_err(io::Error::other)?;
    fs::write(stage.folder.join("results.json"), &json)?;
    if let Some(path) = &stage.options.json {
        fs::write(path, &json)?;
    }
    let page = stage.folder.join("index.html");
    fs::write(&page, page::render(results, &stage.folder))?;
    print!("{}", table::render(results));
    println!("\n{}", page.display());
    Ok(())
}
