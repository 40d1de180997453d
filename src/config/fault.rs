//! What is wrong with a configuration, by key path, before anyone knows which line that is.

use super::nearest::nearest;

/// Keys from the root; an index in decimal.
pub(crate) type KeyPath = Vec<String>;

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) path: KeyPath,
    pub(crate) at: At,
    /// What was found. Never holds a secret.
    pub(crate) message: String,
    pub(crate) expected: Option<String>,
    pub(crate) nearest: Option<String>,
    /// The value itself must not be shown.
    pub(crate) secret: bool,
}

/// Which part of an entry is to blame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum At {
    Key,
    Value,
}

impl Fault {
    pub(crate) fn value(path: KeyPath, message: impl Into<String>) -> Self {
        Self { path, at: At::Value, message: message.into(), expected: None, nearest: None, secret: false }
    }

    pub(crate) fn key(path: KeyPath, message: impl Into<String>) -> Self {
        Self { at: At::Key, ..Self::value(path, message) }
    }

    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(crate) fn near<'a>(mut self, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        self.nearest = nearest(word, candidates).map(str::to_owned);
        self
    }

    pub(crate) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

/// Everything that is wrong, in the order in which it was found.
#[derive(Debug, Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl Faults {
    pub(crate) fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// Whether something at or below this path is already known to be wrong: what seems missing there may only
    /// be misspelt.
    pub(crate) fn below(&self, path: &[String]) -> bool {
        self.0.iter().any(|fault| fault.path.starts_with(path))
    }
}

/// A path from its parts.
pub(crate) fn path<const N: usize>(parts: [&str; N]) -> KeyPath {
    parts.into_iter().map(str::to_owned).collect()
}

/// `path` and one key more.
pub(crate) fn join(path: &[String], key: &str) -> KeyPath {
    path.iter().cloned().chain([key.to_owned()]).collect()
}

/// As people write it: `checks.redis.interval`, `ready.require[1]`.
pub(crate) fn show_path(path: &[String]) -> String {
    let mut text = String::new();
    for part in path {
        let index = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let bare = !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if index && !text.is_empty() {
            text.push_str(&format!("[{part}]"));
            continue;
        }
        if !text.is_empty() {
            text.push('.');
        }
        if bare {
            text.push_str(part);
        } else {
            text.push_str(&format!("{:?}", clip(part)));
        }
    }
    text
}

/// A value as a message may show it: short, on one line, without the user part of a URL.
pub(crate) fn show_text(text: &str) -> String {
    format!("{:?}", clip(&hide_userinfo(text)))
}

/// Masks what stands between `://` and the last `@` of the authority.
pub(crate) fn hide_userinfo(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        // A password may hold a slash that was not escaped, so look for `@` up to the end of the word.
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(sign) => {
                out.push_str("***");
                rest = &after[sign..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

fn clip(text: &str) -> String {
    const CHARS: usize = 60;
    match text.char_indices().nth(CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
