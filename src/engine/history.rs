//! What changed, kept for people: the last so many transitions.

use std::collections::VecDeque;
use std::sync::Arc;

use super::snapshot::Transition;
use crate::limits::HISTORY_TRANSITIONS;

#[derive(Debug, Default)]
pub(super) struct History {
    ring: VecDeque<Transition>,
    /// The ring as last shown, until it changes.
    shown: Option<Arc<[Transition]>>,
}

impl History {
    pub(super) fn push(&mut self, transition: Transition) {
        if self.ring.len() == HISTORY_TRANSITIONS {
            self.ring.pop_front();
        }
        self.ring.push_back(transition);
        self.shown = None;
    }

    /// Oldest first.
    pub(super) fn view(&mut self) -> Arc<[Transition]> {
        self.shown.get_or_insert_with(|| self.ring.iter().cloned().collect()).clone()
    }
}
