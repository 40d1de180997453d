//! The tokens of an exposition line: names, quoted texts, labels, numbers, taken off its front.

use std::borrow::Cow;

use super::line::{Exemplar, Labels, LineError, unescape};
use crate::limits::METRIC_LABELS_MAX;

/// The rest of a line.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a str);

/// One label as it stands in the line.
#[derive(Clone, Copy)]
pub(super) struct RawLabel<'a> {
    name: &'a str,
    name_is_quoted: bool,
    /// Still escaped.
    pub(super) value: &'a str,
}

impl<'a> RawLabel<'a> {
    pub(super) fn name(&self) -> Cow<'a, str> {
        if self.name_is_quoted { unescape(self.name) } else { Cow::Borrowed(self.name) }
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn peek(&self) -> Option<u8> {
        self.0.as_bytes().first().copied()
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    pub(super) fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    /// Everything up to the next blank.
    pub(super) fn token(&mut self) -> &'a str {
        self.skip_blanks();
        let end = self.0.bytes().position(|b| b == b' ' || b == b'\t').unwrap_or(self.0.len());
        self.split(end)
    }

    pub(super) fn number(&mut self) -> Option<(&'a str, f64)> {
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
    pub(super) fn plain_name(&mut self, colons: bool) -> &'a str {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (colons && b == b':');
        let end = self.0.bytes().position(|b| !is_name(b)).unwrap_or(self.0.len());
        let end = if self.peek().is_some_and(|b| b.is_ascii_digit()) { 0 } else { end };
        self.split(end)
    }

    /// A plain or quoted metric name; `None` where neither begins.
    pub(super) fn metric_name(&mut self) -> Result<Option<Cow<'a, str>>, LineError> {
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

    pub(super) fn label(&mut self) -> Result<RawLabel<'a>, LineError> {
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
    pub(super) fn labels(&mut self, name: &mut Option<Cow<'a, str>>) -> Result<Labels<'a>, LineError> {
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
    pub(super) fn exemplar(&mut self) -> Result<Exemplar<'a>, LineError> {
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
