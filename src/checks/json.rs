//! JSON predicates: what must stand at a pointer of an answer.

use serde_json::Value;

use crate::config::{JsonPredicate, JsonTest};

/// A value in a reason is cut after this many characters.
const SHOWN: usize = 60;
/// Values that one pointer may select: a page of a million models is judged by the first ones.
const SELECTED_MAX: usize = 10_000;

/// What is wrong with the body, as `/status was "degraded", expected "ok"`.
pub(super) fn judge(body: &[u8], predicates: &[JsonPredicate]) -> Result<(), String> {
    if predicates.is_empty() {
        return Ok(());
    }
    if body.trim_ascii().is_empty() {
        return Err("body is empty, expected JSON".to_owned());
    }
    let body = serde_json::from_slice(body).map_err(|error| format!("body is not JSON: {error}"))?;
    predicates.iter().try_for_each(|predicate| predicate_holds(&body, predicate))
}

fn predicate_holds(body: &Value, JsonPredicate { pointer, test }: &JsonPredicate) -> Result<(), String> {
    let place = if pointer.is_empty() { "the body" } else { pointer };
    let expected = expectation(test);
    let selected = select(body, pointer);
    if selected.is_empty() {
        return Err(format!("{place} is absent, expected {expected}"));
    }
    if matches!(test, JsonTest::Any(_)) && selected.iter().any(|value| holds(value, test)) {
        return Ok(());
    }
    match selected.iter().find(|value| !holds(value, test)) {
        Some(wrong) => Err(format!("{place} was {}, expected {expected}", shown(wrong))),
        None => Ok(()),
    }
}

fn holds(value: &Value, test: &JsonTest) -> bool {
    match test {
        JsonTest::Any(wanted) | JsonTest::Equals(wanted) => equal(value, wanted),
        JsonTest::Contains(wanted) => contains(value, wanted),
        JsonTest::NonEmpty => match value {
            Value::Null | Value::Bool(false) => false,
            Value::Bool(true) | Value::Number(_) => true,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(entries) => !entries.is_empty(),
        },
    }
}

/// As JSON means it: `1` and `1.0` are the same number.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

fn contains(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
        (Value::Array(items), wanted) => items.iter().any(|item| equal(item, wanted)),
        (Value::Object(entries), Value::String(key)) => entries.contains_key(key),
        _ => false,
    }
}

fn expectation(test: &JsonTest) -> String {
    match test {
        JsonTest::Any(value) => format!("any {}", shown(value)),
        JsonTest::Contains(value) => format!("to contain {}", shown(value)),
        JsonTest::Equals(value) => shown(value),
        JsonTest::NonEmpty => "a value".to_owned(),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The values at a pointer of RFC 6901, in which a segment `*` stands for every element.
fn select<'a>(body: &'a Value, pointer: &str) -> Vec<&'a Value> {
    let mut selected = vec![body];
    for segment in pointer.split('/').skip(1) {
        let key = segment.replace("~1", "/").replace("~0", "~");
        let step = |value: &'a Value| -> Vec<&'a Value> {
            match value {
                Value::Array(items) if segment == "*" => items.iter().collect(),
                Value::Object(entries) if segment == "*" => entries.values().collect(),
                Value::Array(items) => index(&key).and_then(|at| items.get(at)).into_iter().collect(),
                Value::Object(entries) => entries.get(&key).into_iter().collect(),
                _ => Vec::new(),
            }
        };
        selected = selected.into_iter().flat_map(step).take(SELECTED_MAX).collect();
    }
    selected
}

/// An array index as RFC 6901 writes it: no sign, no leading zero.
fn index(key: &str) -> Option<usize> {
    let plain = key.bytes().all(|b| b.is_ascii_digit()) && (key == "0" || !key.starts_with('0'));
    key.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: Value, pointer: &str, test: JsonTest) -> Result<(), String> {
        judge(body.to_string().as_bytes(), &[JsonPredicate { pointer: pointer.to_owned(), test }])
    }

    #[test]
    fn a_value_must_equal_the_expected_one() {
        let equals = |value| JsonTest::Equals(value);
        assert_eq!(check(json!({"status": "ok"}), "/status", equals(json!("ok"))), Ok(()));
        let wrong = check(json!({"status": "degraded"}), "/status", equals(json!("ok")));
        assert_eq!(wrong.unwrap_err(), "/status was \"degraded\", expected \"ok\"");
        assert_eq!(check(json!({}), "/status", equals(json!("ok"))).unwrap_err(), "/status is absent, expected \"ok\"");
        assert_eq!(check(json!({"n": 1.0}), "/n", equals(json!(1))), Ok(()));
        assert_eq!(check(json!({"a/b": {"~": [0, 7]}}), "/a~1b/~0/1", equals(json!(7))), Ok(()));
        assert!(check(json!([1, 2]), "/01", equals(json!(2))).is_err());
    }

    #[test]
    fn a_star_asks_for_one_with_any_and_for_all_otherwise() {
        let body = json!({"model_version_status": [{"state": "END"}, {"state": "AVAILABLE"}]});
        let pointer = "/model_version_status/*/state";
        assert_eq!(check(body.clone(), pointer, JsonTest::Any(json!("AVAILABLE"))), Ok(()));
        let all = check(body, pointer, JsonTest::Equals(json!("AVAILABLE")));
        assert_eq!(all.unwrap_err(), format!("{pointer} was \"END\", expected \"AVAILABLE\""));
        let loading = json!({"model_version_status": [{"state": "LOADING"}]});
        let none = check(loading, pointer, JsonTest::Any(json!("AVAILABLE")));
        assert_eq!(none.unwrap_err(), format!("{pointer} was \"LOADING\", expected any \"AVAILABLE\""));
        let empty = check(json!({"model_version_status": []}), pointer, JsonTest::Any(json!("AVAILABLE")));
        assert_eq!(empty.unwrap_err(), format!("{pointer} is absent, expected any \"AVAILABLE\""));
        assert!(check(json!({"m": {"a": {"r": true}, "b": {"r": false}}}), "/m/*/r", JsonTest::NonEmpty).is_err());
    }

    #[test]
    fn containing_is_of_text_of_elements_and_of_keys() {
        let contains = |body, wanted| check(body, "", JsonTest::Contains(wanted));
        assert_eq!(contains(json!("it is ready"), json!("ready")), Ok(()));
        assert_eq!(contains(json!(["a", 2.0]), json!(2)), Ok(()));
        assert_eq!(contains(json!({"a": 1}), json!("a")), Ok(()));
        assert_eq!(contains(json!(5), json!("a")).unwrap_err(), "the body was 5, expected to contain \"a\"");
    }

    #[test]
    fn emptiness_is_null_nothing_false_or_empty() {
        for empty in [json!(null), json!(""), json!([]), json!({}), json!(false)] {
            assert!(check(json!({"v": empty}), "/v", JsonTest::NonEmpty).is_err());
        }
        for full in [json!(0), json!("x"), json!([0]), json!({"a": 1}), json!(true)] {
            assert_eq!(check(json!({"v": full}), "/v", JsonTest::NonEmpty), Ok(()));
        }
    }

    #[test]
    fn bodies_that_are_no_json_or_too_deep_are_refused_with_the_place() {
        let predicate = || [JsonPredicate { pointer: String::new(), test: JsonTest::NonEmpty }];
        assert_eq!(judge(b" \n", &predicate()).unwrap_err(), "body is empty, expected JSON");
        assert!(judge(b"<html>", &predicate()).unwrap_err().starts_with("body is not JSON: expected value at line 1"));
        assert!(judge("[".repeat(100_000).as_bytes(), &predicate()).unwrap_err().contains("recursion limit"));
        assert_eq!(judge(b"<html>", &[]), Ok(()), "nobody asked");
    }

    #[test]
    fn a_long_value_is_cut_in_the_reason() {
        let reason = check(json!("é".repeat(500)), "", JsonTest::Equals(json!(1))).unwrap_err();
        assert!(reason.chars().count() < 100 && reason.contains("…, expected 1"), "{reason}");
    }
}
