//! One line of an exposition page: what it says, or why it cannot be read.
//!
//! Owns the grammar of Prometheus text 0.0.4 and OpenMetrics 1.0, quoted names included. It is stricter than
//! it need be for no one and looser where real servers are: blanks anywhere between tokens, `\r\n`, unknown
//! escapes. It refuses what a Prometheus would refuse a whole page for: a label given twice, an open quote.

use std::borrow::Cow;
use std::fmt;

use super::MetricType;
use super::cursor::Cursor;

/// What a line says. Everything borrows from the page.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<'a> {
    /// A blank line, or a comment for people.
    Comment,
    /// `# EOF`: an OpenMetrics page is whole up to here.
    Eof,
    /// `# HELP name text`, the text still escaped.
    Help {
        family: Cow<'a, str>,
        text: &'a str,
    },
    Sample(Sample<'a>),
    /// `# TYPE name type`.
    Type {
        family: Cow<'a, str>,
        kind: MetricType,
    },
    /// `# UNIT name unit`.
    Unit {
        family: Cow<'a, str>,
        unit: &'a str,
    },
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// With its suffix, as in `http_requests_total`.
    pub name: Cow<'a, str>,
    pub labels: Labels<'a>,
    pub value: f64,
    /// The value as it was written.
    pub value_text: &'a str,
    /// As it was written: milliseconds in text 0.0.4, seconds in OpenMetrics.
    pub timestamp: Option<&'a str>,
    pub exemplar: Option<Exemplar<'a>>,
}

/// One request that went into a sample, as OpenMetrics carries it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar<'a> {
    pub labels: Labels<'a>,
    pub value_text: &'a str,
    /// Seconds, as written.
    pub timestamp: Option<&'a str>,
}

/// The labels of a sample, checked once and read again on demand: nothing is allocated until a value is
/// unescaped.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Labels<'a>(pub(super) &'a str);

impl<'a> Labels<'a> {
    /// As they stand between the braces, the metric's own quoted name left out.
    pub const fn as_written(self) -> &'a str {
        self.0
    }

    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, unescaped, in the page's order.
    pub fn iter(self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        let mut cursor = Cursor(self.0);
        std::iter::from_fn(move || {
            cursor.skip_blanks();
            // What does not parse any more is the end: the text was checked when the line was read.
            let label = cursor.label().ok()?;
            cursor.skip_blanks();
            let _ = cursor.eat(b',');
            Some((label.name(), unescape(label.value)))
        })
    }

    /// The value of one label, unescaped.
    pub fn get(self, name: &str) -> Option<Cow<'a, str>> {
        self.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }
}

/// Why a line cannot be read, for a person.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LineError {
    /// The line is not UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// A sample or a metadata line without a metric's name.
    #[error("no metric name")]
    Name,
    /// `# TYPE` with an unknown or missing word.
    #[error("unknown metric type")]
    Type,
    /// A label without name, `=` or quotes.
    #[error("malformed label")]
    Label,
    /// The quote or the brace never closes.
    #[error("labels are not closed")]
    Open,
    /// The same label twice: a Prometheus refuses the whole page for it.
    #[error("a label is given twice")]
    Twice,
    /// More than [`crate::limits::METRIC_LABELS_MAX`] labels.
    #[error("too many labels")]
    Labels,
    /// The value is missing or no number.
    #[error("the value is not a number")]
    Value,
    /// The timestamp is no number.
    #[error("the timestamp is not a number")]
    Timestamp,
    /// An exemplar that does not follow `# {labels} value [timestamp]`.
    #[error("malformed exemplar")]
    Exemplar,
    /// Words after the end of a sample.
    #[error("text after the sample")]
    Trailing,
}

/// Reads one line, without its line feed.
pub fn parse_line(line: &[u8]) -> Result<Line<'_>, LineError> {
    let text = std::str::from_utf8(line).map_err(|_| LineError::Encoding)?;
    let mut cursor = Cursor(text.strip_suffix('\r').unwrap_or(text));
    cursor.skip_blanks();
    match cursor.peek() {
        None => Ok(Line::Comment),
        Some(b'#') => parse_meta(cursor),
        Some(_) => parse_sample(cursor).map(Line::Sample),
    }
}

fn parse_meta(mut cursor: Cursor<'_>) -> Result<Line<'_>, LineError> {
    cursor.0 = &cursor.0[1..];
    // `#TYPE` without a blank is a comment, and so is any word but these.
    if !matches!(cursor.peek(), Some(b' ' | b'\t')) {
        return Ok(Line::Comment);
    }
    let word = cursor.token();
    match word {
        "EOF" if cursor.0.trim().is_empty() => return Ok(Line::Eof),
        "HELP" | "TYPE" | "UNIT" => {}
        _ => return Ok(Line::Comment),
    }
    cursor.skip_blanks();
    let family = cursor.metric_name()?.ok_or(LineError::Name)?;
    if !matches!(cursor.peek(), None | Some(b' ' | b'\t')) {
        return Err(LineError::Name);
    }
    cursor.skip_blanks();
    match word {
        "HELP" => Ok(Line::Help { family, text: cursor.0 }),
        "TYPE" => {
            let kind = MetricType::from_word(cursor.0.trim_end()).ok_or(LineError::Type)?;
            Ok(Line::Type { family, kind })
        }
        _ => Ok(Line::Unit { family, unit: cursor.0.trim_end() }),
    }
}

fn parse_sample(mut cursor: Cursor<'_>) -> Result<Sample<'_>, LineError> {
    let mut name = match cursor.peek() {
        Some(b'"') => return Err(LineError::Name),
        _ => cursor.metric_name()?,
    };
    cursor.skip_blanks();
    let labels = if cursor.eat(b'{') { cursor.labels(&mut name)? } else { Labels::default() };
    let name = name.ok_or(LineError::Name)?;
    let (value_text, value) = cursor.number().ok_or(LineError::Value)?;
    cursor.skip_blanks();
    let timestamp = match cursor.peek() {
        None | Some(b'#') => None,
        Some(_) => Some(cursor.number().filter(|(_, at)| at.is_finite()).ok_or(LineError::Timestamp)?.0),
    };
    cursor.skip_blanks();
    let exemplar = if cursor.eat(b'#') { Some(cursor.exemplar()?) } else { None };
    cursor.skip_blanks();
    if cursor.0.is_empty() {
        Ok(Sample { name, labels, value, value_text, timestamp, exemplar })
    } else {
        Err(LineError::Trailing)
    }
}

/// Resolves `\\`, `\"` and `\n`; any other escape stays as it is, as Prometheus leaves it.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some(c @ ('"' | '\\')) => out.push(c),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    Cow::Owned(out)
}

/// Whether a metric's name needs no quotes.
fn is_plain(name: &str) -> bool {
    let mut cursor = Cursor(name);
    !name.is_empty() && cursor.plain_name(true).len() == name.len()
}

/// Writes a family's name, quoted if it must be.
pub(super) fn write_name(f: &mut impl fmt::Write, name: &str) -> fmt::Result {
    if is_plain(name) {
        return f.write_str(name);
    }
    f.write_char('"')?;
    for c in name.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '"' => f.write_str("\\\"")?,
            '\n' => f.write_str("\\n")?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// As a line of the page it came from, without the line feed.
impl fmt::Display for Sample<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.labels.as_written();
        if is_plain(&self.name) {
            f.write_str(&self.name)?;
            if !labels.is_empty() {
                write!(f, "{{{labels}}}")?;
            }
        } else {
            f.write_str("{")?;
            write_name(f, &self.name)?;
            if !labels.is_empty() {
                write!(f, ",{labels}")?;
            }
            f.write_str("}")?;
        }
        write!(f, " {}", self.value_text)?;
        if let Some(at) = self.timestamp {
            write!(f, " {at}")?;
        }
        self.exemplar.map_or(Ok(()), |exemplar| write!(f, " # {exemplar}"))
    }
}

impl fmt::Display for Exemplar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}} {}", self.labels.as_written(), self.value_text)?;
        self.timestamp.map_or(Ok(()), |at| write!(f, " {at}"))
    }
}
