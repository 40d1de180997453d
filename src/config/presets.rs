//! Built-in checks and gates for well-known servers, as readable TOML.
//!
//! A preset is a layer below the file. Beside ordinary tables it may hold `[each_model]`, instantiated for every
//! name in `upstream.models`, and `[no_models]`, which stands in when there is none. In an instance `{model}` is the
//! model's name as one segment of a path, `{name}` the name as it is.

use figment::providers::{Format, Toml};
use figment::{Profile, Provider};
use serde_json::{Map, Value, json};

use super::raw::KINDS;

/// One built-in preset.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    pub name: &'static str,
    /// What else people call it.
    pub aliases: &'static [&'static str],
    /// The TOML, with its comments.
    pub text: &'static str,
}

/// What a file without `upstream.preset` gets.
pub(crate) const DEFAULT: &str = "generic";

/// Every preset of this build, by name.
pub const PRESETS: [Preset; 21] = [
    preset("bentoml", &["bento"], include_str!("presets/bentoml.toml")),
    preset("fastapi", &["asgi", "uvicorn"], include_str!("presets/fastapi.toml")),
    preset("flask", &["gunicorn", "wsgi"], include_str!("presets/flask.toml")),
    preset("generic", &[], include_str!("presets/generic.toml")),
    preset("kserve-v1", &["kserve"], include_str!("presets/kserve-v1.toml")),
    preset("llamacpp", &["llama-cpp", "llama.cpp", "llama-server"], include_str!("presets/llamacpp.toml")),
    preset("localai", &["local-ai"], include_str!("presets/localai.toml")),
    preset("mlflow", &[], include_str!("presets/mlflow.toml")),
    preset("mlserver", &[], include_str!("presets/mlserver.toml")),
    preset("nim", &["nvidia-nim"], include_str!("presets/nim.toml")),
    preset("oip-v2", &["kserve-v2", "oip", "v2"], include_str!("presets/oip-v2.toml")),
    preset("ollama", &[], include_str!("presets/ollama.toml")),
    preset("ray-serve", &["ray", "rayserve"], include_str!("presets/ray-serve.toml")),
    preset("seldon-v2", &["seldon", "seldon-core-v2"], include_str!("presets/seldon-v2.toml")),
    preset("sglang", &[], include_str!("presets/sglang.toml")),
    preset("tei", &["text-embeddings-inference"], include_str!("presets/tei.toml")),
    preset("tensorflow-serving", &["tf-serving", "tfserving"], include_str!("presets/tensorflow-serving.toml")),
    preset("tgi", &["text-generation-inference"], include_str!("presets/tgi.toml")),
    preset("torchserve", &["torch-serve"], include_str!("presets/torchserve.toml")),
    preset("triton", &["tritonserver"], include_str!("presets/triton.toml")),
    preset("vllm", &[], include_str!("presets/vllm.toml")),
];

const fn preset(name: &'static str, aliases: &'static [&'static str], text: &'static str) -> Preset {
    Preset { name, aliases, text }
}

impl Preset {
    /// The preset of this name or alias.
    pub fn find(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name || preset.aliases.contains(&name))
    }

    /// One line for a list.
    pub fn description(&self) -> String {
        self.value()["description"].as_str().unwrap_or_default().to_owned()
    }

    fn value(&self) -> Value {
        toml(self.text).unwrap_or_default()
    }

    /// The layer for these models; whether the preset needs models and has none.
    pub(crate) fn layer(&self, models: &[String]) -> (Value, bool) {
        let mut layer = self.value();
        let Some(table) = layer.as_object_mut() else { return (layer, false) };
        table.remove("description");
        let each = table.remove("each_model");
        let none = table.remove("no_models");
        let lacking = models.is_empty() && each.is_some() && none.is_none();
        let contributed = if models.is_empty() { none } else { each.map(|each| instantiate(&each, models)) };
        if let Some(contributed) = contributed {
            merge(&mut layer, contributed);
        }
        (layer, lacking)
    }
}

/// TOML as a JSON value; none if it is not TOML.
pub(crate) fn toml(text: &str) -> Option<Value> {
    let dict = Toml::string(text).data().ok()?.remove(&Profile::Default)?;
    serde_json::to_value(dict).ok()
}

/// One check for each model; with several, `NAME-MODEL` each and a group `NAME` of all.
fn instantiate(each: &Value, models: &[String]) -> Value {
    let (mut checks, mut groups) = (Map::new(), Map::new());
    for (name, check) in each["checks"].as_object().into_iter().flatten() {
        if let [model] = models {
            checks.insert(name.clone(), fill(check, model));
            continue;
        }
        let mut members = Vec::new();
        for model in models {
            let mut member = format!("{name}-{}", slug(model));
            while checks.contains_key(&member) {
                member.push_str("-2");
            }
            checks.insert(member.clone(), fill(check, model));
            members.push(member);
        }
        groups.insert(name.clone(), json!({ "all": members }));
    }
    json!({ "checks": checks, "groups": groups })
}

/// A model's name as a part of a check's.
fn slug(model: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
    model.chars().map(plain).take(40).collect()
}

fn fill(value: &Value, model: &str) -> Value {
    match value {
        Value::String(text) if text.contains("{name}") => Value::String(text.replace("{name}", model)),
        // As one segment of a path.
        Value::String(text) => {
            let mut segment = String::new();
            for byte in model.bytes() {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => segment.push(byte.into()),
                    _ => segment.push_str(&format!("%{byte:02X}")),
                }
            }
            Value::String(text.replace("{model}", &segment))
        }
        Value::Array(items) => items.iter().map(|item| fill(item, model)).collect(),
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), fill(value, model))).collect(),
        other => other.clone(),
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Takes out of a preset's layer what the upper layers say anew: a check that names its kind there keeps nothing of
/// the preset's kind, for half of one and half of another is neither.
pub(crate) fn give_way(layer: &mut Value, upper: &Value) {
    let typed = |table: &str| -> Vec<&String> {
        upper.get(table).and_then(Value::as_object).into_iter().flat_map(Map::keys).collect()
    };
    for name in typed("checks") {
        if let Some(groups) = layer.get_mut("groups").and_then(Value::as_object_mut) {
            groups.remove(name);
        }
        let says_kind = KINDS.iter().any(|kind| upper["checks"][name.as_str()].get(kind).is_some());
        if says_kind && let Some(check) = layer.pointer_mut(&format!("/checks/{name}")).and_then(Value::as_object_mut) {
            check.retain(|key, _| !KINDS.contains(&key.as_str()));
        }
    }
    for name in typed("groups") {
        for table in ["groups", "checks"] {
            if let Some(table) = layer.get_mut(table).and_then(Value::as_object_mut) {
                table.remove(name);
            }
        }
    }
}
