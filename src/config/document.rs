//! From a key path to a line and a column of the file.

use std::ops::Range;

use toml_edit::{ImDocument, Item, Value};

use super::fault::{At, hide_userinfo};

/// The file's text, parsed for its places only; the values come by way of the layers.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    text: &'a str,
    /// None: the text is not TOML.
    toml: Option<ImDocument<&'a str>>,
    /// Where each line begins: thousands of problems must not each count a mebibyte of lines.
    lines: Vec<usize>,
}

/// A place in the text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Spot {
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
    /// The line as it may be shown, what could be secret masked.
    pub(crate) shown: String,
    /// Where the carets begin under `shown`, and how many.
    pub(crate) carets: (usize, usize),
}

/// A parsed entry: of a table, or of an array.
#[derive(Clone, Copy)]
enum Node<'a> {
    Item(&'a Item),
    Value(&'a Value),
}

/// What may be shown of the marked text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Show {
    Marked,
    Nothing,
}

impl<'a> Document<'a> {
    /// Parses; the error is what the parser says and where.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Box<(Self, String, Range<usize>)>> {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        match ImDocument::parse(text) {
            Ok(toml) => Ok(Self { text, toml: Some(toml), lines }),
            Err(error) => {
                let span = error.span().unwrap_or(text.len()..text.len());
                let message = error.message().trim().lines().collect::<Vec<_>>().join("; ");
                Err(Box::new((Self { text, toml: None, lines }, message, span)))
            }
        }
    }

    /// The place of a path, or of the deepest table of it that is typed; whether it is the path's own.
    pub(crate) fn locate(&self, path: &[String], at: At) -> (Range<usize>, bool) {
        let mut best = 0..0;
        let Some(toml) = &self.toml else { return (best, false) };
        let mut node = Node::Item(toml.as_item());
        for (depth, key) in path.iter().enumerate() {
            let Some((key_span, child)) = node.child(key) else { return (best, false) };
            let last = depth + 1 == path.len();
            let wanted =
                if last && at == At::Value { child.span().or(key_span) } else { key_span.or_else(|| child.span()) };
            best = wanted.unwrap_or(best);
            node = child;
        }
        (best, !path.is_empty())
    }

    /// Line, column and what to show for a span of the text.
    pub(crate) fn spot(&self, span: Range<usize>, show: Show) -> Spot {
        let start = floor(self.text, span.start);
        let line = self.lines.partition_point(|begin| *begin <= start);
        // The first line begins at 0, so there is always one at or before `start`.
        let begin = self.lines[line - 1];
        let end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let stop = floor(self.text, span.end.max(start)).min(end);
        let (before, marked, after) = (&self.text[begin..start], &self.text[start..stop], &self.text[stop..end]);
        let syntax = self.toml.is_none();
        let open = before.matches(['"', '\'']).count() % 2 == 1;
        let (before_shown, after_shown) = (hide_strings(before), hide_strings(after));
        let (marked_shown, after_shown) = if show == Show::Nothing {
            ("***".to_owned(), String::new())
        } else if syntax && (open || is_sensitive(before)) {
            ("…".to_owned(), String::new())
        } else {
            (hide_userinfo(marked), after_shown)
        };
        let before_shown = if syntax && is_sensitive(before) { keep_key(before) } else { before_shown };
        let (before_shown, marked_shown) = (clip_start(before_shown), clip_end(marked_shown));
        let carets = (before_shown.chars().count(), marked_shown.chars().count().max(1));
        let shown = format!("{before_shown}{marked_shown}{}", clip_end(after_shown)).trim_end().to_owned();
        Spot { line, column: before.chars().count() + 1, shown, carets }
    }
}

impl<'a> Node<'a> {
    fn child(self, key: &str) -> Option<(Option<Range<usize>>, Self)> {
        let (table, array) = match self {
            Node::Item(item) => (item.as_table_like(), item.as_array()),
            Node::Value(value) => {
                (value.as_inline_table().map(|table| table as &dyn toml_edit::TableLike), value.as_array())
            }
        };
        if let Some(table) = table {
            return table.get_key_value(key).map(|(key, item)| (key.span(), Node::Item(item)));
        }
        array?.get(key.parse().ok()?).map(|value| (None, Node::Value(value)))
    }

    fn span(self) -> Option<Range<usize>> {
        match self {
            Node::Item(item) => item.span(),
            Node::Value(value) => value.span(),
        }
    }
}

/// The character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Every quoted text becomes `"…"`: only what is marked is anyone's business.
fn hide_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '#' {
            break;
        }
        out.push(c);
        if c == '"' || c == '\'' {
            out.push('…');
            let mut escaped = false;
            for inner in chars.by_ref() {
                if inner == c && !escaped {
                    out.push(inner);
                    break;
                }
                escaped = c == '"' && inner == '\\' && !escaped;
            }
        }
    }
    out
}

/// Of a line that is longer than any terminal, what is next to the mark.
const PART_CHARS_MAX: usize = 80;

fn clip_start(text: String) -> String {
    match text.chars().count().checked_sub(PART_CHARS_MAX) {
        None | Some(0) => text,
        Some(more) => text.chars().skip(more).collect(),
    }
}

fn clip_end(text: String) -> String {
    match text.char_indices().nth(PART_CHARS_MAX) {
        Some((at, _)) => text[..at].to_owned(),
        None => text,
    }
}

/// Whether a line of broken TOML looks like one that holds a secret.
fn is_sensitive(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["pass", "secret", "token", "auth", "key", "://", "cred"].iter().any(|word| text.contains(word))
}

fn keep_key(text: &str) -> String {
    match text.split_once('=') {
        Some((key, value)) if !value.trim().is_empty() => format!("{key}= …"),
        _ => text.to_owned(),
    }
}
