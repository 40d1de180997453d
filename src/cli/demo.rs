//! `probegate demo`: everything on this machine, nothing else to install.
//!
//! Sets the stage through [`crate::demo`] and runs on it what `probegate run -c FILE` runs.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use super::{Arguments, Command, Failure, Outcome};
use crate::demo;
use crate::demo::model_server::{self, Release};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which release of the model: v2 answers 200 with garbage
    #[arg(long = "version", value_enum, default_value_t = Release::V1)]
    release: Release,

    /// How long the model loads, at the start and after each crash
    #[arg(long, default_value = "3s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    load_time: Duration,

    /// End after this time, as Ctrl-C would
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
}

pub(super) fn run(args: Args) -> Outcome {
    let options = demo::Options { release: args.release, load_time: args.load_time, lasts: args.lasts };
    demo::run(&options, sidecar).map_err(|error| Failure::new(format!("the demo cannot start: {error}")))?
}

/// The sidecar as a person would start it on this file.
fn sidecar(config: &Path) -> Outcome {
    let line = [OsStr::new("probegate"), OsStr::new("run"), OsStr::new("-c"), config.as_os_str()];
    let arguments = Arguments::try_parse_from(line).map_err(|error| Failure::new(error.to_string()))?;
    match arguments.command {
        Command::Run(args) => super::run::run(args),
        _ => Err(Failure::new("`run` is not the command it was")),
    }
}

/// The hidden command that is the demo's model server.
pub(super) fn model_server(options: model_server::Options) -> ExitCode {
    model_server::run(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hidden_command_has_the_name_that_the_demo_calls() {
        let arguments = Arguments::try_parse_from(["probegate", demo::MODEL_SERVER_COMMAND, "--version", "v2"]);
        let arguments = arguments.unwrap();
        assert!(matches!(arguments.command, Command::DemoModelServer(options) if options.release == Release::V2));
    }

    #[test]
    fn help_does_not_show_the_hidden_command() {
        let help = <Arguments as clap::CommandFactory>::command().render_help().to_string();
        assert!(help.contains("demo "), "{help}");
        assert!(!help.contains(demo::MODEL_SERVER_COMMAND), "{help}");
    }
}
