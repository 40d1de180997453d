//! `probegate lint`.

use super::{ConfigFile, Failure, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(args: Args) -> Outcome {
    Err(Failure::new(format!("{}: not in this build", args.file.path.display())))
}
