//! `probegate presets`.

use super::{Failure, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: Args) -> Outcome {
    Err(Failure::new("not in this build"))
}
