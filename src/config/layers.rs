//! The layers of a configuration and which of them said what: preset < file < environment < flags.

use std::collections::BTreeMap;
use std::path::Path;

use figment::Figment;
use figment::providers::Serialized;
use figment::{Profile, Provider};
use serde_json::{Value, json};

use super::document::{Document, Show};
use super::fault::{Fault, Faults, KeyPath, path, show_path, show_text};
use super::presets::{self, PRESETS, Preset};
use super::problem::{Place, Problem};

/// Every variable of ours begins with this.
const PREFIX: &str = "PROBEGATE_";
const SEPARATOR: &str = "__";

/// A value that came from a variable or a flag.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) path: KeyPath,
    /// The variable's or the flag's name.
    pub(crate) name: String,
    pub(crate) text: String,
}

#[derive(Debug)]
pub(crate) struct Layers<'a> {
    file: &'a Path,
    document: Document<'a>,
    typed: Value,
    variables: Vec<Given>,
    flags: Vec<Given>,
    /// Name and content.
    preset: (&'static str, Value),
}

impl<'a> Layers<'a> {
    pub(crate) fn new(
        file: &'a Path,
        document: Document<'a>,
        text: &str,
        environment: &BTreeMap<String, String>,
        flags: Vec<Given>,
    ) -> Self {
        let typed = presets::toml(text).unwrap_or_else(|| json!({}));
        let mut variables: Vec<Given> = environment.iter().filter_map(|(name, text)| variable(name, text)).collect();
        let known: Vec<&str> = ["checks", "groups"]
            .iter()
            .filter_map(|table| typed.get(table)?.as_object())
            .flat_map(|table| table.keys().map(String::as_str))
            .collect();
        for given in &mut variables {
            restore_name(&mut given.path, &known);
        }
        Self { file, document, typed, variables, flags, preset: (presets::DEFAULT, Value::Null) }
    }

    /// All layers as one value, and the preset's own faults.
    pub(crate) fn merge(&mut self, faults: &mut Faults) -> Value {
        let upper = flatten(self.upper(Figment::new()));
        let name = upper.pointer("/upstream/preset").and_then(Value::as_str).unwrap_or(presets::DEFAULT);
        let preset = Preset::find(name).unwrap_or_else(|| {
            let names = PRESETS.map(|preset| preset.name);
            let fault = Fault::value(path(["upstream", "preset"]), format!("no preset is called {}", show_text(name)));
            faults.push(fault.expected(super::shape::one_of(&names)).near(name, names));
            &PRESETS[0]
        });
        let models: Vec<String> = match upper.pointer("/upstream/models") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(names)) => names.split(',').map(|name| name.trim().to_owned()).collect(),
            _ => Vec::new(),
        };
        let (mut layer, lacking) = preset.layer(&models);
        if lacking && !faults.below(&path(["upstream", "models"])) {
            let message = format!("preset {} needs the models' names: `upstream.models` is missing", preset.name);
            faults.push(Fault::value(path(["upstream", "preset"]), message).expected("models = [\"NAME\"]"));
        }
        let mut implicit = json!({ "checks": { "upstream": { "tcp": "upstream" } } });
        presets::give_way(&mut implicit, &layer);
        presets::give_way(&mut implicit, &upper);
        presets::give_way(&mut layer, &upper);
        let base = Figment::from(Serialized::defaults(&implicit)).merge(Serialized::defaults(&layer));
        let merged = flatten(self.upper(base));
        self.preset = (preset.name, layer);
        merged
    }

    fn upper(&self, base: Figment) -> Figment {
        let mut figment = base.merge(Serialized::defaults(&self.typed));
        for given in self.variables.iter().chain(&self.flags) {
            figment = figment.merge(Serialized::defaults(given.nested()));
        }
        figment
    }

    /// Texts from the environment and the flags, by path.
    pub(crate) fn given_texts(&self) -> BTreeMap<KeyPath, String> {
        self.variables.iter().chain(&self.flags).map(|given| (given.path.clone(), given.text.clone())).collect()
    }

    /// Gives a fault its place: the topmost layer that said it.
    pub(crate) fn place(&self, fault: Fault) -> Problem {
        let Fault { path, at, message, expected, nearest, secret } = fault;
        let said = |given: &&Given| path.starts_with(&given.path);
        let (span, exact) = self.document.locate(&path, at);
        let below = |given: &&Given| given.path.starts_with(&path) && !path.is_empty() && !exact;
        let place = if let Some(flag) = self.flags.iter().find(said) {
            Place::Flag(flag.name.clone())
        } else if let Some(variable) = self.variables.iter().find(said).or_else(|| self.variables.iter().find(below)) {
            Place::Variable(variable.name.clone())
        } else if !exact && self.in_preset(&path) {
            Place::Preset(self.preset.0.to_owned())
        } else {
            let show = if secret { Show::Nothing } else { Show::Marked };
            Place::File(self.file.to_owned(), self.document.spot(span, show))
        };
        Problem { place, key: show_path(&path), message, expected, nearest }
    }

    fn in_preset(&self, path: &[String]) -> bool {
        let mut value = &self.preset.1;
        for key in path {
            let child = match value {
                Value::Array(items) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
                other => other.get(key),
            };
            let Some(child) = child else { return false };
            value = child;
        }
        path.len() > 1
    }
}

impl Given {
    fn nested(&self) -> Value {
        // Infallible: what is no list, number or truth value is a text.
        let value: Value = match self.text.parse::<figment::value::Value>() {
            Ok(value) => serde_json::to_value(value).unwrap_or_default(),
            Err(never) => match never {},
        };
        self.path.iter().rev().fold(value, |value, key| json!({ key.as_str(): value }))
    }
}

/// The value of a merge. Merging values that are already values cannot fail.
fn flatten(figment: Figment) -> Value {
    let dict = figment.data().ok().and_then(|mut data| data.remove(&Profile::Default)).unwrap_or_default();
    serde_json::to_value(dict).unwrap_or_default()
}

fn variable(name: &str, text: &str) -> Option<Given> {
    let rest = name.strip_prefix(PREFIX)?;
    if is_service_link(rest) {
        return None;
    }
    let path = rest.split(SEPARATOR).map(str::to_ascii_lowercase).collect();
    Some(Given { path, name: name.to_owned(), text: text.to_owned() })
}

/// Kubernetes sets `PROBEGATE_SERVICE_HOST`, `PROBEGATE_PORT_9090_TCP_ADDR` and the like in every pod of a namespace
/// that has a Service called `probegate`. They are not ours.
fn is_service_link(rest: &str) -> bool {
    let padded = format!("_{rest}");
    let after_port = padded.rsplit_once("_PORT").map(|(_, after)| after);
    !rest.contains(SEPARATOR)
        && (padded.contains("_SERVICE_HOST")
            || padded.contains("_SERVICE_PORT")
            || after_port.is_some_and(|after| {
                after.is_empty()
                    || after.strip_prefix('_').is_some_and(|tail| tail.starts_with(|c: char| c.is_ascii_digit()))
            }))
}

/// A variable cannot hold a `-`: `PROBEGATE_CHECKS__PROFILE_API__TIMEOUT` means `profile-api` if the file has one.
fn restore_name(path: &mut KeyPath, known: &[&str]) {
    if let [table, name, ..] = path.as_mut_slice()
        && (table == "checks" || table == "groups")
        && !known.contains(&name.as_str())
        && let Some(real) = known.iter().find(|known| known.replace('-', "_") == *name)
    {
        *name = (*real).to_owned();
    }
}
