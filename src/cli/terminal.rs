//! Lines for a terminal: colour where it is wanted, columns that align, text that wraps.

use std::io::{self, IsTerminal};

/// Colour of what a word says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tone {
    Bad,
    Bold,
    Doubtful,
    Faint,
    Good,
    Plain,
}

/// Paints if standard output is a terminal and nobody asked for no colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    pub(super) fn for_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { on: !refused && io::stdout().is_terminal() }
    }

    #[cfg(test)]
    pub(super) const fn never() -> Self {
        Self { on: false }
    }

    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Bad => "31",
            Tone::Bold => "1",
            Tone::Doubtful => "33",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Plain => return text.to_owned(),
        };
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Columns of standard output's terminal; 100 for a file or a pipe, where nothing needs to fit.
pub(super) fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_col);
    if size == 0 { 100 } else { usize::from(size).max(40) }
}

/// One cell: its text, and how it is painted.
pub(super) type Cell = (String, Tone);

/// Rows of cells, every column as wide as its widest cell. The last one wraps to `width` under its own start.
/// What came from outside is stripped of control characters.
pub(super) fn table(rows: &[Vec<Cell>], indent: usize, width: usize, paint: Paint) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.saturating_sub(1))
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.0.chars().count()).max().unwrap_or(0))
        .collect();
    let start: usize = indent + widths.iter().map(|width| width + 2).sum::<usize>();
    let room = width.saturating_sub(start).max(24);
    let mut out = String::new();
    for row in rows {
        let mut line = " ".repeat(indent);
        for (at, (text, tone)) in row.iter().enumerate() {
            let text = clean(text);
            if let Some(width) = widths.get(at) {
                line.push_str(&paint.paint(*tone, &text));
                line.push_str(&" ".repeat(width - text.chars().count() + 2));
            } else {
                let lines: Vec<String> = wrap(&text, room).iter().map(|line| paint.paint(*tone, line)).collect();
                line.push_str(&lines.join(&format!("\n{}", " ".repeat(start))));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Text in lines of at most `room` characters, broken at spaces where there are any. What is indented stays so.
pub(super) fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let words = text.trim_start_matches(' ');
    let mut line = " ".repeat((text.len() - words.len()).min(room / 2));
    for word in words.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let used = line.chars().count();
        if !line.trim_start().is_empty() && room < used + 1 + word.len() {
            lines.push(std::mem::take(&mut line));
        }
        while room < word.len() {
            lines.push(word.drain(..room).collect());
        }
        line.push_str(if line.trim_start().is_empty() { "" } else { " " });
        line.extend(word);
    }
    lines.push(line);
    lines
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> Cell {
        (text.to_owned(), Tone::Plain)
    }

    #[test]
    fn columns_align_and_the_last_wraps_under_itself() {
        let long = "connection refused by 127.0.0.1:6379, three times";
        let rows = [vec![cell("redis"), cell("down"), cell(long)], vec![cell("upstream"), cell("up"), cell("")]];
        let expected =
            "  redis     down  connection refused by\n                  127.0.0.1:6379, three times\n  upstream  up\n";
        assert_eq!(table(&rows, 2, 45, Paint::never()), expected);
    }

    #[test]
    fn a_word_longer_than_the_room_is_cut_and_nothing_is_lost() {
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("", 3), [""]);
        assert_eq!(wrap("   | ^^^", 20), ["   | ^^^"]);
    }

    #[test]
    fn escape_codes_from_outside_do_not_reach_the_terminal() {
        assert_eq!(table(&[vec![cell("a\x1b[31mb\r\n")]], 0, 80, Paint::never()), "a [31mb\n");
    }
}
