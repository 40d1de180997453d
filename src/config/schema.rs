//! The JSON Schema of the file: what editors complete with, and what [`super::shape`] checks against.

use std::sync::OnceLock;

#[cfg(feature = "schema")]
use serde_json::Map;
use serde_json::Value;

/// The schema as a JSON value, made once.
pub fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(made)
}

/// From the types that are parsed.
#[cfg(feature = "schema")]
fn made() -> Value {
    let mut schema = schemars::schema_for!(super::raw::RawConfig).to_value();
    tidy(&mut schema);
    schema
}

/// As it is committed, which a test holds against the types: the generator is half a megabyte of program.
#[cfg(not(feature = "schema"))]
fn made() -> Value {
    // A committed file that is no JSON does not pass that test, so nobody meets the empty one.
    serde_json::from_str(include_str!("../../config/schema.json")).unwrap_or_default()
}

/// The schema as it is committed and printed.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

/// TOML has no null, a default of an empty table says nothing, and the shape of a Rust number is nobody's concern.
#[cfg(feature = "schema")]
fn tidy(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(object) => {
            for key in ["default", "format"] {
                if object.get(key).is_some_and(|value| !value.is_object() || key == "default") {
                    object.remove(key);
                }
            }
            drop_null(object);
            object.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

#[cfg(feature = "schema")]
fn drop_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if let Some(Value::Array(branches)) = object.get_mut("anyOf") {
        branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = branches.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
}

#[cfg(all(test, feature = "schema"))]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schema_is_the_one_that_the_types_give() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/schema.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == schema_text(), "config/schema.json is out of date: probegate schema > config/schema.json");
    }

    #[test]
    fn every_key_is_described() {
        fn walk(path: &str, value: &Value) {
            if let Some(Value::Object(properties)) = value.get("properties") {
                for (name, property) in properties {
                    assert!(property.get("description").is_some(), "{path}.{name} has no description");
                }
            }
            match value {
                Value::Object(object) => object.iter().for_each(|(key, value)| walk(&format!("{path}.{key}"), value)),
                Value::Array(items) => items.iter().for_each(|value| walk(path, value)),
                _ => {}
            }
        }
        walk("", schema());
    }
}
