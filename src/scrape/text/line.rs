//! One line of an exposition page: what it says, or why it cannot be read.
//!
//! Owns the grammar of Prometheus text 0.0.4 and OpenMetrics 1.0, quoted names included. It is stricter than
//! it need be for no one and looser where real servers are: blanks anywhere between tokens, `\r\n`, unknown
//! escapes. It refuses what a Prometheus would refuse a whole page for: a label given twice, an open quote.

use std::borrow::Cow;
use std::fmt;

use super::MetricType;
use crate::limits::METRIC_LABELS_MAX;

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
pub struct Labels<'a>(&'a str);

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
    /// More than [`METRIC_LABELS_MAX`] labels.
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

/// The rest of a line.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a str);

/// One label as it stands in the line.
#[derive(Clone, Copy)]
struct RawLabel<'a> {
    name: &'a str,
    name_is_quoted: bool,
    value: &'a str,
}

impl<'a> RawLabel<'a> {
    fn name(&self) -> Cow<'a, str> {
        if self.name_is_quoted { unescape(self.name) } else { Cow::Borrowed(self.name) }
    }
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.as_bytes().first().copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    /// Everything up to the next blank.
    fn token(&mut self) -> &'a str {
        self.skip_blanks();
        let end = self.0.bytes().position(|b| b == b' ' || b == b'\t').unwrap_or(self.0.len());
        self.split(end)
    }

    fn number(&mut self) -> Option<(&'a str, f64)> {
        let text = self.token();
        text.parse().ok().map(|value| (text, value))
    }

    /// The first `end` bytes, which must end at a character boundary.
    fn split(&mut self, end: usize) -> &'a str {
        let (head, tail) = self.0.split_at(end);
        self.0 = tail;
        head
    }

    /// Bytes of a plain name; `colons` for metrics, which may hold them.
    fn plain_name(&mut self, colons: bool) -> &'a str {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (colons && b == b':');
        let end = self.0.bytes().position(|b| !is_name(b)).unwrap_or(self.0.len());
        let end = if self.peek().is_some_and(|b| b.is_ascii_digit()) { 0 } else { end };
        self.split(end)
    }

    /// A plain or quoted metric name; `None` where neither begins.
    fn metric_name(&mut self) -> Result<Option<Cow<'a, str>>, LineError> {
        if self.peek() == Some(b'"') {
            let name = unescape(self.quoted()?);
            return if name.is_empty() { Err(LineError::Name) } else { Ok(Some(name)) };
        }
        let name = self.plain_name(true);
        Ok((!name.is_empty()).then_some(Cow::Borrowed(name)))
    }

    /// The inside of a quoted text, still escaped.
    fn quoted(&mut self) -> Result<&'a str, LineError> {
        if !self.eat(b'"') {
            return Err(LineError::Label);
        }
        let bytes = self.0.as_bytes();
        let mut at = 0;
        // Only ASCII bytes are looked for, and no byte inside a UTF-8 sequence is one: `at` ends on a boundary.
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'"' => {
                    let inside = self.split(at);
                    self.0 = &self.0[1..];
                    return Ok(inside);
                }
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        Err(LineError::Open)
    }

    fn label(&mut self) -> Result<RawLabel<'a>, LineError> {
        let name_is_quoted = self.peek() == Some(b'"');
        let name = if name_is_quoted { self.quoted()? } else { self.plain_name(false) };
        if name.is_empty() {
            return Err(LineError::Label);
        }
        self.skip_blanks();
        if !self.eat(b'=') {
            return Err(LineError::Label);
        }
        self.skip_blanks();
        Ok(RawLabel { name, name_is_quoted, value: self.quoted()? })
    }

    /// The labels after `{`, up to and including `}`. A quoted text alone in the first place is the metric's name.
    fn labels(&mut self, name: &mut Option<Cow<'a, str>>) -> Result<Labels<'a>, LineError> {
        self.skip_blanks();
        self.quoted_metric_name(name)?;
        let whole = self.0;
        // The page's author pays for a long list, not we: looking for doubles is quadratic in a bounded number.
        let mut seen: [&str; METRIC_LABELS_MAX] = [""; METRIC_LABELS_MAX];
        let mut count = 0;
        loop {
            self.skip_blanks();
            let before = whole.len() - self.0.len();
            if self.eat(b'}') {
                return Ok(Labels(whole[..before].trim_end_matches([' ', '\t', ','])));
            }
            if self.0.is_empty() {
                return Err(LineError::Open);
            }
            let label = self.label()?;
            if seen[..count].contains(&label.name) {
                return Err(LineError::Twice);
            }
            *seen.get_mut(count).ok_or(LineError::Labels)? = label.name;
            count += 1;
            self.skip_blanks();
            if !self.eat(b',') && self.peek() != Some(b'}') {
                return Err(if self.0.is_empty() { LineError::Open } else { LineError::Label });
            }
        }
    }

    fn quoted_metric_name(&mut self, name: &mut Option<Cow<'a, str>>) -> Result<(), LineError> {
        if self.peek() != Some(b'"') {
            return Ok(());
        }
        let mut ahead = *self;
        let quoted = ahead.quoted()?;
        ahead.skip_blanks();
        if ahead.peek() == Some(b'=') {
            return Ok(());
        }
        if name.is_some() || quoted.is_empty() {
            return Err(LineError::Label);
        }
        if !ahead.eat(b',') && ahead.peek() != Some(b'}') {
            return Err(LineError::Label);
        }
        *name = Some(unescape(quoted));
        ahead.skip_blanks();
        *self = ahead;
        Ok(())
    }

    /// What follows the `#` behind a sample.
    fn exemplar(&mut self) -> Result<Exemplar<'a>, LineError> {
        self.skip_blanks();
        if !self.eat(b'{') {
            return Err(LineError::Exemplar);
        }
        let mut no_name = None;
        let labels = self.labels(&mut no_name)?;
        if no_name.is_some() {
            return Err(LineError::Exemplar);
        }
        let (value_text, _) = self.number().ok_or(LineError::Exemplar)?;
        self.skip_blanks();
        let timestamp = match self.peek() {
            None => None,
            Some(_) => Some(self.number().filter(|(_, at)| at.is_finite()).ok_or(LineError::Exemplar)?.0),
        };
        Ok(Exemplar { labels, value_text, timestamp })
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
