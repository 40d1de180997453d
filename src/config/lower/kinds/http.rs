//! `http`: the request, and what its answer must hold.

use std::collections::BTreeMap;

use ::http::{HeaderName, Method};
use serde_json::Value;

use super::super::super::fault::{Fault, join, show_text};
use super::super::super::plan::*;
use super::super::super::raw::*;
use super::super::text;
use super::{Ground, HTTP, Parts};
use crate::engine::Subject;
use crate::secret::SecretSource;

impl Ground<'_> {
    pub(super) fn http(&mut self, raw: &TextOr<RawHttp>) -> Option<Parts> {
        let default = RawHttp::default();
        let table = match raw {
            TextOr::Text(_) => &default,
            TextOr::Other(table) => table,
        };
        let (url, place) = match raw {
            TextOr::Text(url) => (Some(url.as_str()), self.here.clone()),
            TextOr::Other(table) => (table.url.as_deref(), self.at("url")),
        };
        let headers = self.headers(&table.headers);
        let json = self.json(&table.json);
        let matches = self.regex(table.matches.as_deref(), "matches");
        let not_matches = self.regex(table.not_matches.as_deref(), "not_matches");
        self.refuse_unused_tls(table.tls.as_ref(), table.url.as_deref(), "http", "https");
        let tls = self.client(table.tls.as_ref());
        let method = self.method(table);
        let (url, subject) = match url {
            Some(path) if path.starts_with('/') && table.url_file.is_none() => {
                let address = self.scene.addresses.get(self.backend.index())?;
                let whole = format!("http://{address}{path}");
                let url = text::typed_url(&whole, &place, &HTTP, self.faults)?;
                (url, Subject::Backend(self.backend))
            }
            Some(text) if table.url_file.is_none() => {
                let url = text::typed_url(text, &place, &HTTP, self.faults)?;
                let subject = text::subject(url.host_port.as_ref(), self.scene);
                (url, subject)
            }
            text => self.url(text, table.url_file.as_deref(), &HTTP)?,
        };
        let check = HttpCheck {
            method,
            url: url.source,
            headers,
            body: table.body.clone(),
            status: table
                .status
                .as_ref()
                .map_or_else(|| vec![StatusRange { from: 200, to: 299 }], |status| status.0.clone()),
            json,
            matches,
            not_matches,
            tls,
        };
        Some((Kind::Http(Box::new(check)), url.target, subject))
    }

    fn method(&mut self, table: &RawHttp) -> Method {
        let text = table.method.as_deref().unwrap_or("GET");
        let known = ["GET", "HEAD", "POST", "PUT", "OPTIONS"];
        match known.iter().find(|name| **name == text.to_ascii_uppercase()) {
            Some(name) => Method::from_bytes(name.as_bytes()).unwrap_or(Method::GET),
            None => {
                let fault = Fault::value(self.at("method"), format!("found {}", show_text(text)));
                self.fault(fault.expected(super::super::super::shape::one_of(&known)).near(text, known));
                Method::GET
            }
        }
    }

    fn headers(&mut self, typed: &BTreeMap<String, TextOr<RawFile>>) -> Vec<(HeaderName, SecretSource)> {
        let mut headers = Vec::new();
        for (name, value) in typed {
            let here = join(&self.at("headers"), name);
            let Ok(header) = name.parse::<HeaderName>() else {
                self.fault(Fault::key(here, format!("{} is no header name", show_text(name))));
                continue;
            };
            if let TextOr::Text(text) = value
                && text.contains(|c: char| c.is_control() && c != '\t')
            {
                self.fault(Fault::value(here, "a control character in a header").secret());
                continue;
            }
            if let Some(source) = text::value(name, value, &here, self.faults) {
                headers.push((header, source));
            }
        }
        headers
    }

    fn json(&mut self, typed: &BTreeMap<String, Value>) -> Vec<JsonPredicate> {
        let mut predicates = Vec::new();
        for (pointer, value) in typed {
            let here = join(&self.at("json"), pointer);
            if !(pointer.is_empty() || pointer.starts_with('/')) {
                let fault = Fault::key(here, format!("{} is no JSON pointer", show_text(pointer)));
                self.fault(fault.expected(format!(
                    "one that begins with `/`, as in \"/{}\"",
                    pointer.trim_start_matches(['$', '.'])
                )));
                continue;
            }
            match json_test(value) {
                Some(test) => predicates.push(JsonPredicate { pointer: pointer.clone(), test }),
                None => {
                    let fault = Fault::value(here, "no predicate");
                    self.fault(
                        fault.expected("a value, or exactly one of `equals`, `contains`, `any`, `non_empty = true`"),
                    );
                }
            }
        }
        predicates
    }
}

/// A predicate as typed: a table with exactly one test, or the value that is expected.
fn json_test(value: &Value) -> Option<JsonTest> {
    let Value::Object(table) = value else { return Some(JsonTest::Equals(value.clone())) };
    let mut entries = table.iter();
    let (key, value) = entries.next()?;
    if entries.next().is_some() {
        return None;
    }
    match (key.as_str(), value) {
        ("any", value) => Some(JsonTest::Any(value.clone())),
        ("contains", value) => Some(JsonTest::Contains(value.clone())),
        ("equals", value) => Some(JsonTest::Equals(value.clone())),
        ("non_empty", Value::Bool(true)) => Some(JsonTest::NonEmpty),
        _ => None,
    }
}
