//! The file of labelled examples: requests, and what their answers must say.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read;
use std::path::Path;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::limits::{GOLDEN_BYTES_MAX, GOLDEN_CASES_MAX};

/// Labels that count as the best ones where the case does not say how many.
const BEST: usize = 5;
/// Of a value, a reason shows so many characters.
const SHOWN: usize = 60;

/// One labelled example, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Vec<u8>,
    /// The body was given as a value, not as a text.
    pub(super) is_json: bool,
    status: Option<u16>,
    pointer: String,
    test: Option<Test>,
}

#[derive(Clone, Debug)]
enum Test {
    Contains(Value),
    Equals(Value),
    Matches(Regex),
    Near { value: f64, tolerance: f64 },
    Top { label: Value, k: usize },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    cases: Vec<RawCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: String,
    request: RawRequest,
    expect: RawExpect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequest {
    method: Option<String>,
    path: String,
    #[serde(default)]
    headers: serde_json::Map<String, Value>,
    body: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    status: Option<u16>,
    #[serde(default)]
    pointer: String,
    equals: Option<Value>,
    near: Option<f64>,
    tolerance: Option<f64>,
    contains: Option<Value>,
    matches: Option<String>,
    top: Option<Value>,
    k: Option<usize>,
}

/// The cases of a file.
#[derive(Debug)]
pub(super) struct Cases {
    pub(super) all: Vec<Case>,
    /// Of the file's text.
    pub(super) fingerprint: u64,
}

/// Reads a file of cases. The error is for a person.
pub(super) fn read(path: &Path) -> Result<Cases, String> {
    let shown = path.display();
    let mut text = String::new();
    let file = File::open(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    file.take(GOLDEN_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot read {shown}: {error}"))?;
    if GOLDEN_BYTES_MAX < text.len() as u64 {
        return Err(format!("{shown} is longer than {GOLDEN_BYTES_MAX} bytes"));
    }
    let all = parse(&text).map_err(|why| format!("{shown}: {why}"))?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Ok(Cases { all, fingerprint: hasher.finish() })
}

pub(super) fn parse(text: &str) -> Result<Vec<Case>, String> {
    let file: RawFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match file.cases.len() {
        0 => Err("no cases".to_owned()),
        1..=GOLDEN_CASES_MAX => file.cases.into_iter().map(Case::of).collect(),
        count => Err(format!("{count} cases, at most {GOLDEN_CASES_MAX}")),
    }
}

impl Case {
    fn of(raw: RawCase) -> Result<Self, String> {
        let wrong = |what: &str| format!("case {:?}: {what}", raw.name);
        let RawRequest { method, path, headers, body } = raw.request;
        let usual = if body.is_some() { "POST" } else { "GET" };
        let method = method.as_deref().unwrap_or(usual);
        let method = method.parse().map_err(|_| wrong("no such method"))?;
        if !path.starts_with('/') {
            return Err(wrong("its path must begin with /"));
        }
        let mut sent = Vec::new();
        for (name, value) in headers {
            let header =
                name.parse::<HeaderName>().ok().zip(value.as_str().and_then(|v| HeaderValue::from_str(v).ok()));
            sent.push(header.ok_or_else(|| wrong(&format!("header {name:?} is malformed")))?);
        }
        let (body, is_json) = match body {
            None => (Vec::new(), false),
            Some(Value::String(text)) => (text.into_bytes(), false),
            Some(value) => (value.to_string().into_bytes(), true),
        };
        let pointer = raw.expect.pointer.clone();
        if !(pointer.is_empty() || pointer.starts_with('/')) {
            return Err(wrong("its pointer must begin with /"));
        }
        let status = raw.expect.status;
        let test = Test::of(raw.expect).map_err(|what| wrong(&what))?;
        if test.is_none() && status.is_none() {
            return Err(wrong("expects nothing"));
        }
        Ok(Self { name: raw.name, method, path, headers: sent, body, is_json, status, pointer, test })
    }

    /// Whether this very status is what it waits for.
    pub(super) fn expects(&self, status: StatusCode) -> bool {
        self.status == Some(status.as_u16())
    }

    /// Whether the answer is the right one; if not, what is wrong with it.
    pub(super) fn judge(&self, status: StatusCode, body: &[u8]) -> Result<(), String> {
        match self.status {
            Some(expected) if expected != status.as_u16() => {
                return Err(format!("status {}, expected {expected}", status.as_u16()));
            }
            None if !status.is_success() => return Err(format!("status {}", status.as_u16())),
            _ => {}
        }
        let Some(test) = &self.test else { return Ok(()) };
        let parsed: Result<Value, _> = serde_json::from_slice(body);
        let found = match (&parsed, self.pointer.is_empty()) {
            (Ok(value), _) => value.pointer(&self.pointer).cloned(),
            // A body that is no JSON is a text.
            (Err(_), true) => Some(Value::String(String::from_utf8_lossy(body).into_owned())),
            (Err(_), false) => return Err("the answer is not JSON".to_owned()),
        };
        let place = if self.pointer.is_empty() { "the body" } else { &self.pointer };
        let Some(found) = found else { return Err(format!("{place} is absent, expected {}", test.expectation())) };
        if test.holds(&found) {
            return Ok(());
        }
        Err(format!("{place} was {}, expected {}", shown(&found), test.expectation()))
    }
}

impl Test {
    fn of(raw: RawExpect) -> Result<Option<Self>, String> {
        let RawExpect { equals, near, tolerance, contains, matches, top, k, .. } = raw;
        if tolerance.is_some() && near.is_none() {
            return Err("`tolerance` means nothing without `near`".to_owned());
        }
        if k.is_some() && top.is_none() {
            return Err("`k` means nothing without `top`".to_owned());
        }
        let mut tests = Vec::new();
        tests.extend(equals.map(Self::Equals));
        tests.extend(near.map(|value| Self::Near { value, tolerance: tolerance.unwrap_or(0.0) }));
        tests.extend(contains.map(Self::Contains));
        if let Some(pattern) = matches {
            let regex = Regex::new(&pattern).map_err(|_| "`matches` is no regular expression".to_owned())?;
            tests.push(Self::Matches(regex));
        }
        tests.extend(top.map(|label| Self::Top { label, k: k.unwrap_or(BEST) }));
        match tests.len() {
            0 | 1 => Ok(tests.pop()),
            _ => Err("more than one of `equals`, `near`, `contains`, `matches` and `top`".to_owned()),
        }
    }

    fn holds(&self, found: &Value) -> bool {
        match self {
            Self::Equals(wanted) => same(found, wanted),
            Self::Near { value, tolerance } => found.as_f64().is_some_and(|found| (found - value).abs() <= *tolerance),
            Self::Contains(wanted) => match (found, wanted) {
                (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
                (Value::Array(items), wanted) => items.iter().any(|item| same(item, wanted)),
                (Value::Object(entries), Value::String(key)) => entries.contains_key(key),
                _ => false,
            },
            Self::Matches(regex) => match found {
                Value::String(text) => regex.is_match(text),
                other => regex.is_match(&other.to_string()),
            },
            Self::Top { label, k } => best(found, *k).iter().any(|found| same(found, label)),
        }
    }

    fn expectation(&self) -> String {
        match self {
            Self::Equals(value) => shown(value),
            Self::Near { value, tolerance } => format!("{value} within {tolerance}"),
            Self::Contains(value) => format!("to contain {}", shown(value)),
            Self::Matches(regex) => format!("to match /{regex}/"),
            Self::Top { label, k } => format!("{} among the best {k}", shown(label)),
        }
    }
}

/// The labels of the `k` best: a list of labels in order; a list of scores, whose labels are their places; a
/// list of `{label, score}`; or an object from label to score.
fn best(found: &Value, k: usize) -> Vec<Value> {
    let mut scored: Vec<(Value, f64)> = match found {
        Value::Object(entries) => {
            entries.iter().filter_map(|(label, score)| Some((Value::from(label.as_str()), score.as_f64()?))).collect()
        }
        Value::Array(items) if items.iter().all(Value::is_number) => {
            items.iter().enumerate().filter_map(|(place, score)| Some((Value::from(place), score.as_f64()?))).collect()
        }
        Value::Array(items) if items.iter().all(Value::is_object) => {
            items.iter().filter_map(|item| Some((item.get("label")?.clone(), item.get("score")?.as_f64()?))).collect()
        }
        Value::Array(items) => return items.iter().take(k).cloned().collect(),
        _ => return Vec::new(),
    };
    scored.sort_by(|a, b| b.1.total_cmp(&a.1));
    scored.into_iter().take(k).map(|(label, _)| label).collect()
}

/// As JSON means it: `1` and `1.0` are the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(expect: &str, body: &str) -> Result<(), String> {
        let file = format!(r#"{{"cases":[{{"name":"c","request":{{"path":"/p"}},"expect":{expect}}}]}}"#);
        parse(&file).expect(expect)[0].judge(StatusCode::OK, body.as_bytes())
    }

    #[test]
    fn every_matcher_tells_right_from_wrong() {
        for (expect, right, wrong) in [
            (r#"{"pointer":"/label","equals":"even"}"#, r#"{"label":"even"}"#, r#"{"label":"odd"}"#),
            (r#"{"pointer":"/y","equals":8}"#, r#"{"y":8.0}"#, r#"{"y":"8"}"#),
            (r#"{"pointer":"/y","near":0.5,"tolerance":0.01}"#, r#"{"y":0.505}"#, r#"{"y":0.52}"#),
            (r#"{"pointer":"/t","contains":"Paris"}"#, r#"{"t":"It is Paris."}"#, r#"{"t":"Rome"}"#),
            (r#"{"pointer":"/t","matches":"^[0-9]+$"}"#, r#"{"t":"42"}"#, r#"{"t":"4 2"}"#),
            (r#"{"matches":"pong"}"#, "pong!", "ping"),
            (r#"{"pointer":"/s","top":2,"k":2}"#, r#"{"s":[0.1,0.2,0.7]}"#, r#"{"s":[0.5,0.3,0.2]}"#),
            (
                r#"{"pointer":"/s","top":"cat","k":1}"#,
                r#"{"s":{"cat":0.9,"dog":0.1}}"#,
                r#"{"s":{"cat":0.1,"dog":0.9}}"#,
            ),
            (r#"{"top":"a","k":2}"#, r#"["b","a"]"#, r#"["b","c","a"]"#),
            (
                r#"{"top":"a","k":1}"#,
                r#"[{"label":"b","score":0.1},{"label":"a","score":0.8}]"#,
                r#"[{"label":"b","score":0.9},{"label":"a","score":0.8}]"#,
            ),
        ] {
            assert_eq!(verdict(expect, right), Ok(()), "{expect} {right}");
            assert!(verdict(expect, wrong).is_err(), "{expect} {wrong}");
        }
    }

    #[test]
    fn a_reason_says_what_was_found_and_what_was_expected() {
        let reason = verdict(r#"{"pointer":"/label","equals":"even"}"#, r#"{"label":"odd"}"#).unwrap_err();
        assert_eq!(reason, r#"/label was "odd", expected "even""#);
        assert_eq!(verdict(r#"{"pointer":"/a","equals":1}"#, "garbage").unwrap_err(), "the answer is not JSON");
    }

    #[test]
    fn a_file_that_is_none_says_why() {
        for (file, why) in [
            ("", "EOF"),
            (r#"{"cases":[]}"#, "no cases"),
            (
                r#"{"cases":[{"name":"a","request":{"path":"p"},"expect":{"status":200}}]}"#,
                "its path must begin with /",
            ),
            (r#"{"cases":[{"name":"a","request":{"path":"/p"},"expect":{}}]}"#, "expects nothing"),
            (r#"{"cases":[{"name":"a","request":{"path":"/p"},"expect":{"equals":1,"near":2}}]}"#, "more than one of"),
            (r#"{"cases":[{"name":"a","request":{"path":"/p"},"expect":{"tolerance":2}}]}"#, "without `near`"),
            (r#"{"cases":[{"name":"a","request":{"path":"/p"},"expect":{"matches":"("}}]}"#, "no regular expression"),
        ] {
            let error = parse(file).unwrap_err();
            assert!(error.contains(why), "{file}: {error}");
        }
    }
}
