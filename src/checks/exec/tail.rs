//! The end of a child's output, as much as a reason needs.

use crate::limits::{EXEC_OUTPUT_BYTES_MAX, REASON_BYTES_MAX};

/// The last bytes of a stream, however long it was.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(EXEC_OUTPUT_BYTES_MAX)..];
        let excess = (self.0.len() + bytes.len()).saturating_sub(EXEC_OUTPUT_BYTES_MAX);
        self.0.drain(..excess);
        self.0.extend_from_slice(bytes);
    }

    /// The last line that says something, fit for a terminal.
    pub(super) fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
        let mut shown = String::with_capacity(line.len().min(REASON_BYTES_MAX));
        for c in line.chars() {
            if shown.len() + c.len_utf8() > REASON_BYTES_MAX {
                break;
            }
            shown.push(if c.is_control() { ' ' } else { c });
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.push(&[b'x'; 777]);
        }
        assert_eq!(tail.0.len(), EXEC_OUTPUT_BYTES_MAX);
        tail.push(&vec![b'y'; 3 * EXEC_OUTPUT_BYTES_MAX]);
        assert_eq!(tail.0, vec![b'y'; EXEC_OUTPUT_BYTES_MAX]);
        assert_eq!(tail.last_line().len(), REASON_BYTES_MAX);
        tail.push(b"\nthe end\n \n\n");
        assert_eq!(tail.last_line(), "the end");
        assert_eq!(tail.0.len(), EXEC_OUTPUT_BYTES_MAX);
    }

    #[test]
    fn control_characters_and_broken_utf8_do_not_reach_a_terminal() {
        let mut tail = Tail::default();
        assert_eq!(tail.last_line(), "");
        tail.push(b"\x1b[31mred\xff\x07\r\n");
        assert_eq!(tail.last_line(), " [31mred\u{fffd} ");
    }
}
