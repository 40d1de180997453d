//! `probegate presets`: the built-in presets, or one of them as TOML.

use std::io::Write;

use super::{Answer, Failure, Outcome};
use crate::config::{self, PRESETS, Preset};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print this preset as TOML
    name: Option<String>,
}

pub(super) fn run(args: Args) -> Outcome {
    let mut out = std::io::stdout().lock();
    match args.name {
        None => {
            let width = PRESETS.iter().map(|preset| preset.name.len()).max().unwrap_or(0);
            for preset in &PRESETS {
                writeln!(out, "{:width$}  {}", preset.name, preset.description())?;
            }
        }
        Some(name) => match Preset::find(&name) {
            Some(preset) => out.write_all(preset.text.as_bytes())?,
            None => {
                let names = PRESETS.map(|preset| preset.name);
                let help = config::nearest(&name, names).map(|near| format!("\nhelp: did you mean {near:?}?"));
                let list = names.join(", ");
                return Err(Failure::new(format!(
                    "no preset is called {name:?}; there are {list}{}",
                    help.unwrap_or_default()
                )));
            }
        },
    }
    out.flush()?;
    Ok(Answer::Yes)
}
