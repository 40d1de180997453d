//! What a person types: one command, one exit code.
//!
//! This file knows the commands and how they end; what each of them does is in its own file. Exit codes:
//! 0 fine, 1 the answer is "no", 2 bad usage or configuration. A reader that went away (`| head`) is no failure.

mod admin;
mod check;
mod completions;
#[cfg(feature = "demo")]
mod demo;
mod drain;
#[cfg(feature = "lab")]
mod lab;
#[cfg(feature = "lab")]
mod lab_replay;
#[cfg(feature = "lab")]
mod lab_sweep;
mod lint;
mod presets;
mod run;
mod schema;
mod status;
mod terminal;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// How a command ended, if it could do its work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// Exit code 0.
    Yes,
    /// Exit code 1: a required check failed, the pod is not ready, the file has faults.
    No,
}

/// Why a command could not do its work: exit code 2, unless the reader went away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The message for standard error, whole; may have several lines.
    #[error("{0}")]
    Message(String),
    /// Writing to standard output failed.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Message(message.into())
    }
}

/// What every command returns.
pub(crate) type Outcome = Result<Answer, Failure>;

/// A health sidecar for model servers: proxies the traffic, judges on evidence, answers the kubelet.
#[derive(Debug, Parser)]
#[command(name = "probegate", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 fine · 1 the answer is \"no\" · 2 bad usage or configuration")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar
    Run(run::Args),
    /// Try it all on this machine: a small real model server with the sidecar in front
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    /// The model server that the demo starts
    #[cfg(feature = "demo")]
    #[command(hide = true)]
    DemoModelServer(crate::demo::model_server::Options),
    /// Run the checks once, now, and say what they saw
    Check(check::Args),
    /// Review a configuration file: all problems at once
    Lint(lint::Args),
    /// The health-design lab: designs against faults, in virtual time
    #[cfg(feature = "lab")]
    Lab(lab::Args),
    /// Show a running sidecar: gates, checks, why, since when, what next
    Status(status::Args),
    /// Start the drain of a running sidecar, as the preStop hook does
    Drain(drain::Args),
    /// List the built-in presets, or print one
    Presets(presets::Args),
    /// Print the JSON Schema of the configuration file
    Schema(schema::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

/// The configuration file, as every command that reads one takes it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConfigFile {
    /// The configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "probegate.toml")]
    pub(crate) path: PathBuf,
}

/// Parses the arguments and runs one command.
pub fn main() -> ExitCode {
    // Bad usage ends here with 2, `--help` and `--version` with 0: clap's own convention is ours.
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Run(args) => run::run(args),
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(args),
        #[cfg(feature = "demo")]
        Command::DemoModelServer(options) => return demo::model_server(options),
        Command::Check(args) => check::run(args),
        Command::Lint(args) => lint::run(args),
        #[cfg(feature = "lab")]
        Command::Lab(args) => lab::run(args),
        Command::Status(args) => status::run(args),
        Command::Drain(args) => drain::run(args),
        Command::Presets(args) => presets::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Completions(args) => completions::run(args),
    };
    end(outcome)
}

fn end(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // Standard error may be gone too; the exit code still says it.
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::from(2)
        }
    }
}
