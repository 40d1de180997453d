//! Which bytes of an answer are progress: comments and blank lines that only keep a connection open are not, nor is the
//! head of a stream, which a front sends before its engine has done anything.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

/// Reads an answer's frames for substance, by its content type.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Substance {
    /// Every byte counts.
    #[default]
    All,
    /// Lines of JSON: blank ones do not count.
    Lines,
    /// Server-sent events: comments (`:` first) and blank lines do not count.
    Events(Line),
}

/// Where in a line the last frame ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Line {
    #[default]
    Start,
    Comment,
    Text,
}

impl Substance {
    pub(super) fn of(headers: &HeaderMap<HeaderValue>) -> Self {
        Self::of_type(headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default())
    }

    /// Of a `Content-Type`; empty if there is none.
    pub(super) fn of_type(kind: &[u8]) -> Self {
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is = |name: &str| kind.eq_ignore_ascii_case(name.as_bytes());
        if is("text/event-stream") {
            Self::Events(Line::Start)
        } else if is("application/x-ndjson") || is("application/jsonl") || is("application/json") {
            Self::Lines
        } else {
            Self::All
        }
    }

    /// Whether the head is only a promise: a server of events or lines sends it at once, with its engine hung too.
    /// Elsewhere it comes with the answer, and may be all of it.
    pub(super) const fn is_promised(&self) -> bool {
        matches!(self, Self::Lines | Self::Events(_))
    }

    /// Whether this frame brought anything.
    pub(super) fn has(&mut self, frame: &[u8]) -> bool {
        match self {
            Self::All => !frame.is_empty(),
            Self::Lines => frame.iter().any(|byte| !byte.is_ascii_whitespace()),
            Self::Events(line) => line.read(frame),
        }
    }
}

impl Line {
    fn read(&mut self, frame: &[u8]) -> bool {
        let mut substance = false;
        for &byte in frame {
            *self = match (*self, byte) {
                (_, b'\n' | b'\r') => Self::Start,
                (Self::Start, b':') => Self::Comment,
                (Self::Start, _) => Self::Text,
                (line, _) => line,
            };
            substance |= *self == Self::Text;
            if substance {
                break;
            }
        }
        // The rest only matters for where it ends.
        if substance {
            let end = frame.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
            *self = match frame[end..].first() {
                None => Self::Start,
                Some(b':') if end > 0 => Self::Comment,
                Some(_) => Self::Text,
            };
        }
        substance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &'static str) -> Substance {
        Substance::of(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]))
    }

    #[test]
    fn comments_and_blank_lines_of_an_event_stream_are_no_progress() {
        let mut events = of("text/event-stream; charset=utf-8");
        for (frame, substance) in [
            (": ping\n\n", false),
            (":", false),
            (" a comment in two frames\n", false),
            ("\r\n", false),
            ("data: 1\n\n: ping\n", true),
            ("\n", false),
            (": ping\n\ndata: 2\n\n", true),
            ("da", true),
            ("ta: 3", true),
            ("\n\n: p", false),
            ("ing\n", false),
            ("data: 4\n\n:", true),
            ("still a comment\n", false),
            ("", false),
        ] {
            assert_eq!(events.has(frame.as_bytes()), substance, "{frame:?}");
        }
    }

    #[test]
    fn blank_lines_between_lines_of_json_are_no_progress_and_elsewhere_every_byte_is() {
        assert!(!of("application/x-ndjson").has(b"\n"));
        assert!(!of("application/json").has(b"  \n"));
        assert!(of("application/x-ndjson").has(b"\n{}"));
        assert!(of("text/plain").has(b"\n"));
        assert!(!of("text/plain").has(b""));
    }
}
