//! The nearest valid name to one that was mistyped.

/// The candidate within a third of the word's length in edits, the closest first; none if nothing is near.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(64).collect();
    let limit = word.len().div_ceil(3).clamp(1, 4).min(word.len() / 2);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        // A word of two letters is two edits from everything.
        .filter(|(edits, candidate)| *edits <= limit && *edits < candidate.len().min(word.len().max(1)))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits between two words: insertions, deletions, replacements, and two neighbours swapped.
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        let words = ["interval", "timeout", "initial_delay"];
        assert_eq!(nearest("intervall", words), Some("interval"));
        assert_eq!(nearest("tiemout", words), Some("timeout"));
        assert_eq!(nearest("initial-delay", words), Some("initial_delay"));
    }

    #[test]
    fn a_stranger_finds_nothing() {
        assert_eq!(nearest("colour", ["interval", "timeout"]), None);
        assert_eq!(nearest("foo", ["log"]), None);
        assert_eq!(nearest("", ["a"]), None);
    }
}
