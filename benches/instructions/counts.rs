//! What was counted beside what is recorded.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::Work;

/// Over the recorded count by more than this, and the check fails. Another compiler, or another C library's way to
/// copy memory, stays below it as a rule.
const MARGIN: f64 = 0.05;

/// Instructions for one turn of each work.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counts {
    /// What compiled it; another one compiles otherwise.
    rustc: String,
    counts: BTreeMap<String, u64>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { rustc: rustc(), counts: BTreeMap::new() }
    }
}

impl Counts {
    pub(crate) fn put(&mut self, work: Work, count: u64) {
        self.counts.insert(work.name().to_owned(), count);
    }

    pub(crate) fn load(file: &Path) -> io::Result<Self> {
        let named = |error: String| io::Error::other(format!("{}: {error}", file.display()));
        let text = fs::read_to_string(file).map_err(|error| named(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| named(error.to_string()))
    }

    pub(crate) fn save(&self, file: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        fs::write(file, text + "\n")?;
        println!("recorded in {}", file.display());
        Ok(())
    }

    /// Says how each compares; whether all are within the margin. A work without a recorded count is not.
    pub(crate) fn check(&self, recorded: &Self) -> bool {
        if self.rustc != recorded.rustc {
            println!(
                "recorded with {}, counted with {}: some of a difference may be the compiler's",
                recorded.rustc, self.rustc
            );
        }
        let mut within = true;
        for (name, count) in &self.counts {
            let Some(before) = recorded.counts.get(name) else {
                println!("{name:<8} is not recorded: scripts/instructions record");
                within = false;
                continue;
            };
            let change = *count as f64 / *before as f64 - 1.0;
            let verdict = match change {
                more if more > MARGIN => {
                    "TOO MANY: make it cheaper, or record the price with scripts/instructions record"
                }
                less if less < -MARGIN => "fewer: hold the gain with scripts/instructions record",
                _ => "within the margin",
            };
            within &= change <= MARGIN;
            println!("{name:<8} {before:>8} recorded {:>+7.1} %  {verdict}", change * 100.0);
        }
        within
    }
}

/// `rustc 1.95.0 (...)`, or a word in its place: a count is a count without it.
fn rustc() -> String {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version").output();
    let text = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    text.map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "an unknown compiler".into())
}
