//! The file: what was typed, and the plan that comes of it.
//!
//! `defaults < preset < file < PROBEGATE_* environment < flags` become one value; the value is checked for shape,
//! read, and lowered to a [`Config`] that cannot be wrong. All problems of a file are reported at once, each at its
//! place. Nothing here opens a socket. Of secrets, only a URL's host and port are looked at; none is kept or printed.

mod document;
mod fault;
mod layers;
mod lower;
mod nearest;
mod plan;
mod presets;
mod problem;
mod raw;
mod reload;
mod schema;
mod selector;
mod shape;
mod units;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

pub use plan::*;
pub use presets::{PRESETS, Preset};
pub use problem::{Problem, Problems};
pub use reload::{Reload, Watcher, waits_for_restart};
pub use schema::{schema, schema_text};

pub(crate) use nearest::nearest;

use document::{Document, Show};
use fault::{Faults, path};
use layers::{Given, Layers};
use problem::Place;
use raw::RawConfig;

/// What stands above the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The environment. Only `PROBEGATE_*` names change the configuration.
    pub environment: BTreeMap<String, String>,
    /// `--listen-traffic`
    pub listen_traffic: Option<String>,
    /// `--listen-probes`
    pub listen_probes: Option<String>,
    /// `--listen-admin`
    pub listen_admin: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
    /// `--record`
    pub record: Option<String>,
}

impl Overrides {
    /// The process's own environment and no flags. Variables that are not Unicode are none of ours.
    pub fn from_process() -> Self {
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { environment: environment.collect(), ..Self::default() }
    }

    fn flags(&self) -> Vec<Given> {
        [
            ("--listen-traffic", ["listen", "traffic"], &self.listen_traffic),
            ("--listen-probes", ["listen", "probes"], &self.listen_probes),
            ("--listen-admin", ["listen", "admin"], &self.listen_admin),
            ("--log-format", ["log", "format"], &self.log_format),
            ("--log-level", ["log", "level"], &self.log_level),
            ("--record", ["report", "trace"], &self.record),
        ]
        .into_iter()
        .filter_map(|(name, key, text)| Some(Given { path: path(key), name: name.to_owned(), text: text.clone()? }))
        .collect()
    }
}

/// Reads and validates a file.
///
/// # Errors
/// Every problem of the file at once; or the one that kept it from being read.
pub fn load(file: &Path, overrides: &Overrides) -> Result<Config, Problems> {
    let text = read(file).map_err(|message| Problems::whole(file, message))?;
    from_str(file, &text, overrides)
}

/// Validates a text as if it had been read from `file`, which need not exist.
///
/// # Errors
/// Every problem of the text at once.
pub fn from_str(file: &Path, text: &str, overrides: &Overrides) -> Result<Config, Problems> {
    let (layers, raw, mut faults) = examine(file, text, overrides)?;
    let config = raw.and_then(|raw| lower::lower(file, &raw, &mut faults));
    match config {
        Some(config) if faults.0.is_empty() => Ok(config),
        _ => Err(problems(&layers, faults)),
    }
}

/// Where a sidecar with this text listens, whatever else is wrong with the text: who wants to speak to a sidecar that
/// runs on an earlier, better one must still find it.
///
/// # Errors
/// The text is not TOML, or its `[listen]` is faulty.
pub fn listen(file: &Path, text: &str, overrides: &Overrides) -> Result<Listen, Problems> {
    let (layers, raw, mut faults) = examine(file, text, overrides)?;
    let listen = raw.map(|raw| lower::listen(&raw, &mut faults));
    faults.0.retain(|fault| fault.path.first().is_none_or(|table| table == "listen"));
    match listen {
        Some(listen) if faults.0.is_empty() => Ok(listen),
        _ => Err(problems(&layers, faults)),
    }
}

/// The layers of a text, and what they come to, as typed; its shape's faults.
fn examine<'a>(
    file: &'a Path,
    text: &'a str,
    overrides: &Overrides,
) -> Result<(Layers<'a>, Option<RawConfig>, Faults), Problems> {
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(fault) => {
            let (document, message, span) = *fault;
            let place = Place::File(file.to_owned(), document.spot(span, Show::Marked));
            let message = format!("not TOML: {message}");
            let problem = Problem { place, key: String::new(), message, expected: None, nearest: None };
            return Err(Problems::new(vec![problem]));
        }
    };
    let mut layers = Layers::new(file, document, text, &overrides.environment, overrides.flags());
    let mut faults = Faults::default();
    let mut value = layers.merge(&mut faults);
    shape::prune(&mut value, &layers.given_texts(), &mut faults);
    let raw = match serde_json::from_value(value) {
        Ok(raw) => Some(raw),
        Err(error) => {
            // The shape was checked, so this is a gap in the check; better a vague message than none.
            faults.push(fault::Fault::key(Vec::new(), format!("cannot be read: {error}")));
            None
        }
    };
    Ok((layers, raw, faults))
}

/// The faults at their places, each once.
fn problems(layers: &Layers<'_>, mut faults: Faults) -> Problems {
    let mut seen = std::collections::BTreeSet::new();
    faults.0.retain(|fault| seen.insert((fault.path.clone(), fault.message.clone())));
    Problems::new(faults.0.into_iter().map(|fault| layers.place(fault)).collect())
}

/// Environment variables that the configuration refers to as `${NAME}` and that are not set, each with the check that
/// needs it. `run` and `check` refuse to start on them; a file can be whole without them.
pub fn unset_variables(config: &Config, environment: &BTreeMap<String, String>) -> Vec<UnsetVariable> {
    let mut unset: Vec<UnsetVariable> = Vec::new();
    for check in &config.checks {
        for source in check.kind.secrets() {
            let crate::secret::SecretSource::Template(template) = source else { continue };
            for name in template.variables() {
                let missing = UnsetVariable { check: check.name.clone(), name: name.to_owned() };
                if !environment.contains_key(name) && !unset.contains(&missing) {
                    unset.push(missing);
                }
            }
        }
    }
    unset
}

/// A variable that a check needs and that is not set.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("checks.{check}: environment variable {name} is not set")]
pub struct UnsetVariable {
    pub check: String,
    pub name: String,
}

/// The file's text, or why there is none, for a person.
pub(crate) fn read(file: &Path) -> Result<String, String> {
    let say = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "this is a directory, expected a file".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let max = crate::limits::CONFIG_BYTES_MAX;
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(say)?;
    opened.take(max as u64 + 1).read_to_end(&mut bytes).map_err(say)?;
    if bytes.len() > max {
        return Err(format!("larger than {} MiB", max / 1024 / 1024));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("not UTF-8 text (line {line})")
    })
}

#[cfg(test)]
mod tests;
