//! Shape errors, all of them: unknown keys, wrong types, misspelt values, wherever they are.
//!
//! Serde stops at the first type error of a document, so the values are walked against the schema first. What is
//! wrong is reported and taken out; what is left cannot fail to be read, and goes on to be judged for sense.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fault::{Fault, Faults, KeyPath, show_text};
use super::raw::{KINDS, UNIT, accepts, expected};
use super::schema::schema;

/// Tables of the contract that this build does not have.
const LATER_TABLES: [&str; 1] = ["peers"];

/// Takes out of `value` what does not have the file's shape, and says so. `typed` are texts that came from the
/// environment, by path: there, a number may have been meant as a text.
pub(crate) fn prune(value: &mut Value, typed: &BTreeMap<KeyPath, String>, faults: &mut Faults) {
    let mut walk = Walk { path: KeyPath::new(), typed, faults };
    walk.value(value, schema());
}

struct Walk<'a> {
    path: KeyPath,
    typed: &'a BTreeMap<KeyPath, String>,
    faults: &'a mut Faults,
}

impl Walk<'_> {
    /// Whether the value may stay.
    fn value(&mut self, value: &mut Value, shape: &Value) -> bool {
        let shape = resolve(shape);
        if !types(shape).iter().any(|name| has_type(value, name)) && !self.retype(value, shape) {
            if !types(shape).is_empty() {
                self.fault(value, &describe(shape));
                return false;
            }
            return true;
        }
        if let Some(branches) = shape.get("anyOf").and_then(Value::as_array) {
            let fits = |branch: &&Value| types(branch).iter().any(|name| has_type(value, name));
            return match branches.iter().find(fits) {
                Some(branch) => self.value(value, branch),
                None => true,
            };
        }
        match value {
            Value::Object(object) => self.object(object, shape),
            Value::Array(items) => {
                if let Some(item) = shape.get("items") {
                    self.items(items, item);
                }
                true
            }
            _ => self.scalar(value, shape),
        }
    }

    fn scalar(&mut self, value: &Value, shape: &Value) -> bool {
        if let Some(unit) = shape.get(UNIT).and_then(Value::as_str) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if !accepts(unit, &text) {
                self.fault(value, expected(unit).unwrap_or("another value"));
                return false;
            }
        }
        if let (Some(values), Some(text)) = (shape.get("enum").and_then(Value::as_array), value.as_str())
            && !values.iter().any(|known| known == text)
        {
            let words: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            let fault = Fault::value(self.path.clone(), format!("found {}", show_text(text)));
            self.faults.push(fault.expected(one_of(&words)).near(text, words.iter().copied()));
            return false;
        }
        true
    }

    fn object(&mut self, object: &mut Map<String, Value>, shape: &Value) -> bool {
        let empty = Map::new();
        let properties = shape.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let others = shape.get("additionalProperties");
        object.retain(|key, value| {
            self.path.push(key.clone());
            let keep = match (properties.get(key), others) {
                (Some(known), _) => self.value(value, known),
                (None, Some(Value::Bool(false))) => {
                    self.unknown(key, value, properties);
                    false
                }
                (None, Some(other)) => self.value(value, other),
                (None, None) => true,
            };
            self.path.pop();
            keep
        });
        let mut whole = true;
        for key in shape.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(key) {
                whole = false;
                if !self.faults.below(&self.path) {
                    self.faults.push(Fault::key(self.path.clone(), format!("`{key}` is missing")));
                }
            }
        }
        whole
    }

    fn items(&mut self, items: &mut [Value], shape: &Value) {
        for (index, item) in items.iter_mut().enumerate() {
            self.path.push(index.to_string());
            if !self.value(item, shape) {
                // An empty text keeps the others' indices; those who read the list skip it.
                *item = Value::String(String::new());
            }
            self.path.pop();
        }
    }

    /// The environment has texts only: `PROBEGATE_UPSTREAM__MODELS=7` is a list of one name, not a number.
    fn retype(&self, value: &mut Value, shape: &Value) -> bool {
        let Some(text) = self.typed.get(&self.path) else { return false };
        let types = types(shape);
        if types.contains(&"string") {
            *value = Value::String(text.clone());
        } else if types.contains(&"array") {
            *value = text.split(',').map(|part| Value::String(part.trim().to_owned())).collect();
        } else {
            return false;
        }
        true
    }

    fn fault(&mut self, value: &Value, expected: &str) {
        let hidden = is_sensitive(&self.path);
        let mut fault = Fault::value(self.path.clone(), format!("found {}", found(value, hidden))).expected(expected);
        fault.secret = hidden;
        self.faults.push(fault);
    }

    fn unknown(&mut self, key: &str, value: &Value, properties: &Map<String, Value>) {
        let in_check = properties.contains_key("max_withdrawal");
        let fault = Fault::key(self.path.clone(), "unknown key");
        let fault = if self.path.len() == 1 && LATER_TABLES.contains(&key) {
            Fault::key(self.path.clone(), format!("this build has no `[{key}]` yet"))
        } else if in_check && (key == "type" || key == "kind") {
            fault.expected(format!("the kind itself as a key: {}", KINDS.join(", ")))
        } else if in_check && value.is_object() {
            fault.expected(format!("a common key, or a kind: {}", KINDS.join(", "))).near(key, names(properties))
        } else {
            let near = fault.near(key, names(properties));
            if near.nearest.is_none() && properties.len() <= 16 {
                near.expected(one_of(&names(properties).collect::<Vec<_>>()))
            } else {
                near
            }
        };
        self.faults.push(fault);
    }
}

fn names(properties: &Map<String, Value>) -> impl Iterator<Item = &str> {
    properties.keys().map(String::as_str)
}

/// A value below one of these keys may be a secret, whatever its type.
fn is_sensitive(path: &[String]) -> bool {
    let words = ["password", "headers", "env", "token", "url"];
    path.iter().any(|part| words.contains(&part.as_str()))
}

/// Follows a reference into the definitions.
fn resolve(shape: &Value) -> &Value {
    match shape.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix('#')) {
        Some(pointer) => schema().pointer(pointer).unwrap_or(shape),
        None => shape,
    }
}

/// The JSON types that a shape accepts; none if it accepts all.
fn types(shape: &Value) -> Vec<&str> {
    let shape = resolve(shape);
    if let Some(branches) = shape.get("anyOf").and_then(Value::as_array) {
        return branches.iter().flat_map(types).collect();
    }
    match shape.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object() && !is_date(value),
        _ => false,
    }
}

/// TOML's dates come through as a table with one odd key.
fn is_date(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.keys().any(|key| key.starts_with("$__toml")))
}

fn describe(shape: &Value) -> String {
    if let Some(unit) = shape.get(UNIT).and_then(Value::as_str)
        && let Some(text) = expected(unit)
    {
        return text.to_owned();
    }
    if let Some(values) = shape.get("enum").and_then(Value::as_array) {
        return one_of(&values.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    }
    let mut words: Vec<&str> = types(shape)
        .into_iter()
        .map(|name| match name {
            "string" => "a text",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            _ => "a table",
        })
        .collect();
    words.dedup();
    words.join(" or ")
}

fn found(value: &Value, hidden: bool) -> String {
    match value {
        Value::Null => "a number that is not finite".to_owned(),
        Value::Bool(_) | Value::Number(_) if !hidden => value.to_string(),
        Value::String(text) if !hidden => show_text(text),
        Value::Bool(_) => "a truth value".to_owned(),
        Value::Number(_) => "a number".to_owned(),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) if is_date(value) => "a date".to_owned(),
        Value::Object(_) => "a table".to_owned(),
    }
}

/// `"a", "b" or "c"`.
pub(crate) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "nothing".to_owned(),
    }
}
