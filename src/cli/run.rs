//! `probegate run`: the sidecar.

use std::path::PathBuf;

use super::{Answer, Failure, Outcome};
use crate::config::Overrides;
use crate::run::{self, Ending, Source};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "probegate.toml")]
    config: PathBuf,

    /// Where the proxied service listens, instead of listen.traffic
    #[arg(long, value_name = "HOST:PORT")]
    listen_traffic: Option<String>,

    /// Where the kubelet and Prometheus are answered, instead of listen.probes
    #[arg(long, value_name = "HOST:PORT")]
    listen_probes: Option<String>,

    /// Where the status page and the commands are, instead of listen.admin
    #[arg(long, value_name = "HOST:PORT|unix:PATH")]
    listen_admin: Option<String>,

    /// `auto` (text on a terminal), `text` or `json`, instead of log.format
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,

    /// A filter such as `info` or `probegate=debug`, instead of log.level
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// Record what the verdicts rest on, bounded and without secrets, for `lab replay`; instead of report.trace
    #[arg(long, value_name = "FILE")]
    record: Option<String>,
}

pub(super) fn run(args: Args) -> Outcome {
    let overrides = Overrides {
        listen_traffic: args.listen_traffic,
        listen_probes: args.listen_probes,
        listen_admin: args.listen_admin,
        log_format: args.log_format,
        log_level: args.log_level,
        record: args.record,
        ..Overrides::from_process()
    };
    let (config, source) = Source::open(&args.config, &overrides).map_err(Failure::new)?;
    match run::run(config, source).map_err(|error| Failure::new(error.to_string()))? {
        Ending::Drained => Ok(Answer::Yes),
        Ending::CutOff | Ending::Died(_) => Ok(Answer::No),
    }
}
