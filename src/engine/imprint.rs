//! What a recording keeps of a plan: enough to tell another plan apart, and to know which check a number meant.
//!
//! It holds names, kinds and addresses. It refuses what a check asks and how it is judged: no plan can be made of it.

use super::plan::Plan;
use super::trace::{escape, number, unescape};

/// A plan's imprint.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Imprint {
    /// [`Plan::fingerprint`]; none in a recording that does not tell.
    pub fingerprint: Option<u64>,
    pub checks: Vec<String>,
    /// Of the checks, in their order; empty in a recording that does not tell.
    pub kinds: Vec<String>,
    /// The upstream addresses; empty in a recording that does not tell.
    pub backends: Vec<String>,
}

impl Imprint {
    pub fn of(plan: &Plan) -> Self {
        Self {
            fingerprint: Some(plan.fingerprint()),
            checks: plan.checks.iter().map(|check| check.name.clone()).collect(),
            kinds: plan.checks.iter().map(|check| check.kind.to_owned()).collect(),
            backends: plan.backends.iter().map(|backend| backend.address.clone()).collect(),
        }
    }

    /// Whether it is this plan's.
    pub fn is_of(&self, plan: &Plan) -> bool {
        self.fingerprint == Some(plan.fingerprint())
    }

    /// As words of one line: the fingerprint, how many checks, name and kind of each, the addresses.
    pub(super) fn words(&self) -> Vec<String> {
        let fingerprint = self.fingerprint.map_or_else(|| "-".to_owned(), |known| format!("{known:016x}"));
        let mut words = vec![fingerprint, self.checks.len().to_string()];
        for (index, name) in self.checks.iter().enumerate() {
            words.extend([escape(name), self.kinds.get(index).map_or_else(String::new, |kind| escape(kind))]);
        }
        words.extend(self.backends.iter().map(|address| escape(address)));
        words
    }

    pub(super) fn from_words(words: &[&str]) -> Result<Self, String> {
        let [fingerprint, count, rest @ ..] = words else { return Err("a plan has a fingerprint".to_owned()) };
        let count: usize = number(count)?;
        let checks = count.checked_mul(2).and_then(|words| rest.get(..words));
        let checks = checks.ok_or_else(|| format!("fewer than {count} checks"))?;
        let texts = |words: &[&str], step: usize| -> Result<Vec<String>, String> {
            words.iter().step_by(step).map(|word| unescape(word)).collect()
        };
        Ok(Self {
            fingerprint: if *fingerprint == "-" { None } else { Some(fingerprint_of(fingerprint)?) },
            checks: texts(checks, 2)?,
            kinds: texts(checks.get(1..).unwrap_or_default(), 2)?,
            backends: texts(&rest[checks.len()..], 1)?,
        })
    }
}

/// As a recording writes it.
pub(super) fn fingerprint_of(word: &str) -> Result<u64, String> {
    u64::from_str_radix(word, 16).map_err(|_| format!("no such plan: `{word}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_imprint_comes_back_from_its_words_and_half_of_one_is_refused() {
        let whole = Imprint {
            fingerprint: Some(7),
            checks: vec!["a\tb".to_owned(), "c".to_owned()],
            kinds: vec!["tcp".to_owned(), "http".to_owned()],
            backends: vec!["127.0.0.1:1".to_owned()],
        };
        for imprint in [whole.clone(), Imprint::default()] {
            let words = imprint.words();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_eq!(Imprint::from_words(&words), Ok(imprint));
        }
        let words = whole.words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for half in 0..6 {
            assert!(Imprint::from_words(&words[..half]).is_err(), "{half}");
        }
        assert!(Imprint::from_words(&["x", "0"]).is_err());
        assert!(Imprint::from_words(&["-", "18446744073709551615", "a"]).is_err());
    }
}
