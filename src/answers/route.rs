//! From a request line to a question: paths, aliases and the query of the probe listener.
//!
//! It owns the names of the contract. It refuses to know what the answer is, and it never fails: a query
//! that makes no sense asks for nothing special.

use std::time::Duration;

use crate::engine::Gate;
use crate::limits::DRAIN_LOOKOUT_MAX;

/// What a path asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Question {
    Gate(Gate),
    /// One check (or group) as seen by a gate.
    Member(Gate, String),
    Metrics,
    SelfHealth,
    WaitForDrain,
}

/// What a query asks for beyond the path. Later `format`s win, `exclude`s add up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Query {
    pub verbose: bool,
    pub format: Option<String>,
    pub exclude: Vec<String>,
    /// How long to look out for a drain that has not begun; nothing by default.
    pub within: Duration,
}

/// `exclude` may be repeated so often; more are not looked at.
const EXCLUDES_MAX: usize = 256;

/// The question of `path`; `None` is a 404. A trailing slash is not another path.
pub(super) fn question(path: &str) -> Option<Question> {
    let path = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    match path {
        "/self" => return Some(Question::SelfHealth),
        "/metrics" => return Some(Question::Metrics),
        "/wait-for-drain" => return Some(Question::WaitForDrain),
        _ => {}
    }
    let rest = path.strip_prefix('/')?;
    let (head, member) = rest.split_once('/').map_or((rest, None), |(head, member)| (head, Some(member)));
    let gate = gate(head)?;
    match member {
        None => Some(Question::Gate(gate)),
        Some(name) if name.is_empty() || name.contains('/') => None,
        Some(name) => Some(Question::Member(gate, decode(name))),
    }
}

fn gate(word: &str) -> Option<Gate> {
    match word {
        "health" | "livez" | "healthz" => Some(Gate::Health),
        "ready" | "readyz" => Some(Gate::Ready),
        "startup" | "startupz" => Some(Gate::Startup),
        _ => None,
    }
}

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let mut parsed = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "verbose" => parsed.verbose = true,
                "format" => parsed.format = Some(decode(value)),
                "within" => parsed.within = humantime::parse_duration(&decode(value)).unwrap_or_default(),
                "exclude" if parsed.exclude.len() < EXCLUDES_MAX => parsed.exclude.push(decode(value)),
                _ => {}
            }
        }
        parsed.within = parsed.within.min(DRAIN_LOOKOUT_MAX);
        parsed
    }
}

/// Percent-decoding that cannot fail: what is not an escape stays, bytes that are not UTF-8 are replaced.
pub(super) fn decode(text: &str) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = (byte == b'%').then(|| hex_pair(bytes.get(at + 1..at + 3)?)).flatten();
        match escape {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(digit(pair[0])? * 16 + digit(pair[1])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_and_alias_of_the_contract_is_known() {
        for (path, gate) in [
            ("/health", Gate::Health),
            ("/livez", Gate::Health),
            ("/healthz", Gate::Health),
            ("/ready", Gate::Ready),
            ("/readyz", Gate::Ready),
            ("/startup", Gate::Startup),
            ("/startupz", Gate::Startup),
            ("/ready/", Gate::Ready),
        ] {
            assert_eq!(question(path), Some(Question::Gate(gate)), "{path}");
        }
        assert_eq!(question("/readyz/redis"), Some(Question::Member(Gate::Ready, "redis".into())));
        assert_eq!(question("/self"), Some(Question::SelfHealth));
        assert_eq!(question("/metrics"), Some(Question::Metrics));
        assert_eq!(question("/wait-for-drain"), Some(Question::WaitForDrain));
    }

    #[test]
    fn other_paths_are_nobodys() {
        for path in ["/", "", "*", "/Ready", "/ready//", "/ready/a/b", "//ready", "/readyzz", "/self/x", "/metrics/x"] {
            assert_eq!(question(path), None, "{path}");
        }
    }

    #[test]
    fn a_query_of_nonsense_asks_for_nothing_special() {
        for query in [None, Some(""), Some("&&=&%"), Some("verbosity"), Some("=verbose")] {
            assert_eq!(Query::parse(query), Query::default(), "{query:?}");
        }
    }

    #[test]
    fn exclude_adds_up_and_is_percent_decoded() {
        let query = Query::parse(Some("verbose&exclude=redis&exclude=a%2Db&format=json"));
        assert!(query.verbose);
        assert_eq!(query.exclude, ["redis", "a-b"]);
        assert_eq!(query.format.as_deref(), Some("json"));
    }

    #[test]
    fn the_lookout_for_a_drain_is_a_duration_and_bounded() {
        let within = |query| Query::parse(Some(query)).within;
        assert_eq!(within("within=2s"), Duration::from_secs(2));
        assert_eq!(within("within=1h"), DRAIN_LOOKOUT_MAX);
        for nonsense in ["within", "within=", "within=2", "within=-1s", "within=soon"] {
            assert_eq!(within(nonsense), Duration::ZERO, "{nonsense}");
        }
    }

    #[test]
    fn a_broken_escape_stays_as_it_is() {
        for (text, decoded) in [("%", "%"), ("%2", "%2"), ("%zz", "%zz"), ("a+b", "a b"), ("%ff", "\u{fffd}")] {
            assert_eq!(decode(text), decoded);
        }
    }
}
