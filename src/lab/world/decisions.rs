//! Who decided what about a pod: tallied, so that a row of a table can say why.

use serde::Serialize;

/// Most different causes of one run; further ones are not kept.
const CAUSES_MAX: usize = 64;

/// What was decided about a pod.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// The kubelet kills a server that a restart mends.
    KilledRightly,
    /// The kubelet kills a server that had nothing a restart would mend.
    KilledWrongly,
    /// It leaves rotation.
    OutOfRotation,
}

/// One cause and how often it decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    pub act: Act,
    /// What decided: the check of a sidecar, or the server's own words. Free of numbers that change.
    pub by: String,
    /// The whole reason, as given the first time.
    pub reason: String,
    pub times: u64,
}

impl Act {
    /// How a report says it, after a number.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KilledRightly => "killed rightly",
            Self::KilledWrongly => "killed for nothing",
            Self::OutOfRotation => "out of rotation",
        }
    }
}

/// Counts one more; `reason` as the engine or the server gave it.
pub(super) fn tally(decisions: &mut Vec<Decision>, act: Act, reason: &str) {
    let by = cause(reason);
    if let Some(known) = decisions.iter_mut().find(|known| known.act == act && known.by == by) {
        known.times += 1;
    } else if decisions.len() < CAUSES_MAX {
        decisions.push(Decision { act, by: by.to_owned(), reason: reason.to_owned(), times: 1 });
    }
}

/// The engine's reasons begin with the check's name; what follows holds ages and counts.
fn cause(reason: &str) -> &str {
    reason.split_once(": ").map_or(reason, |(check, _)| check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_causes_are_one_however_their_numbers_differ() {
        let mut decisions = Vec::new();
        tally(&mut decisions, Act::OutOfRotation, "embeddings: refused, 3 times");
        tally(&mut decisions, Act::OutOfRotation, "embeddings: refused, 4 times");
        tally(&mut decisions, Act::KilledWrongly, "embeddings: refused, 4 times");
        tally(&mut decisions, Act::OutOfRotation, "/ready says that redis does not answer");
        let seen: Vec<(Act, &str, u64)> =
            decisions.iter().map(|decision| (decision.act, decision.by.as_str(), decision.times)).collect();
        assert_eq!(
            seen,
            [
                (Act::OutOfRotation, "embeddings", 2),
                (Act::KilledWrongly, "embeddings", 1),
                (Act::OutOfRotation, "/ready says that redis does not answer", 1),
            ]
        );
        assert_eq!(decisions[0].reason, "embeddings: refused, 3 times");
    }
}
