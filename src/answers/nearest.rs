//! The name that somebody probably meant.

/// The known name with the fewest edits from `wanted`; none if all are too far to be meant.
pub(super) fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer than any name; a longer wish is not a slip of the finger.
    const LENGTH_MAX: usize = 100;
    if LENGTH_MAX < wanted.len() {
        return None;
    }
    let limit = wanted.chars().count() / 2 + 1;
    let ranked = known.map(|name| (edits(wanted, name), name)).filter(|(distance, _)| *distance <= limit);
    ranked.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Levenshtein's distance, one row at a time.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_the_one_with_the_fewest_edits() {
        let known = ["redis", "model", "profile-api"];
        assert_eq!(nearest("rediss", known.into_iter()), Some("redis"));
        assert_eq!(nearest("profile_api", known.into_iter()), Some("profile-api"));
        assert_eq!(nearest("something-else", known.into_iter()), None);
        assert_eq!(nearest(&"x".repeat(5000), known.into_iter()), None);
    }
}
