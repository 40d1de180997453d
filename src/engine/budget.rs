//! How often `/health` may condemn: a restart costs minutes of model load, so condemnations are rationed.

use std::collections::VecDeque;

use super::plan::RestartBudget;
use super::time::Time;

/// The times of past condemnations that still count.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    condemned_at: VecDeque<Time>,
}

impl Ledger {
    /// Whether one more condemnation fits into the window that ends now.
    pub(super) fn allows(&mut self, now: Time, budget: RestartBudget) -> bool {
        while self.condemned_at.front().is_some_and(|&at| at + budget.window <= now) {
            self.condemned_at.pop_front();
        }
        self.condemned_at.len() < budget.count as usize
    }

    pub(super) fn record(&mut self, now: Time) {
        self.condemned_at.push_back(now);
    }

    /// When the next place becomes free; none if there never is one.
    pub(super) fn frees_at(&self, budget: RestartBudget) -> Option<Time> {
        let over = (self.condemned_at.len() + 1).checked_sub(budget.count as usize)?;
        let oldest = over.checked_sub(1)?;
        self.condemned_at.get(oldest).map(|&at| at + budget.window)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_spent_budget_frees_itself_when_the_oldest_leaves_the_window() {
        let budget = RestartBudget { count: 2, window: Duration::from_secs(100) };
        let mut ledger = Ledger::default();
        for at in [10, 20] {
            assert!(ledger.allows(Time::from_secs(at), budget));
            ledger.record(Time::from_secs(at));
        }
        assert!(!ledger.allows(Time::from_secs(109), budget));
        assert_eq!(ledger.frees_at(budget), Some(Time::from_secs(110)));
        assert!(ledger.allows(Time::from_secs(110), budget));
    }

    #[test]
    fn a_budget_of_none_never_condemns() {
        let budget = RestartBudget { count: 0, window: Duration::from_secs(1) };
        let mut ledger = Ledger::default();
        assert!(!ledger.allows(Time::from_secs(9), budget));
        assert_eq!(ledger.frees_at(budget), None);
    }
}
