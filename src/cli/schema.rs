//! `probegate schema`: the JSON Schema of the configuration file.

use std::io::Write;

use super::{Answer, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: Args) -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(crate::config::schema_text().as_bytes())?;
    out.flush()?;
    Ok(Answer::Yes)
}
