//! Self-doubt: when the sidecar itself is ill, what it sees says nothing about others.
//!
//! Three causes: the engine woke much later than it asked for; the process is being kept from its CPU by
//! its cgroup; every check over the network fails in the way of a broken network, all at once. While in
//! doubt, failures of remote checks are no evidence, and `/health` is withheld.

use super::evidence::{Fault, Verdict};
use super::time::Time;
use crate::limits::{DOUBT_HOLD, DOUBT_LATE};

#[derive(Debug, Default)]
pub(super) struct Doubt {
    late_until: Option<Time>,
    throttled: bool,
    /// Remote checks that have a result at all, and those whose latest is a network failure.
    remote: u32,
    remote_failing: u32,
    since: Option<Time>,
}

impl Doubt {
    /// Notes that the engine was due at `due` and woke at `now`; says whether that was too late.
    pub(super) fn woke(&mut self, now: Time, due: Time) -> bool {
        let late = now.since(due) > DOUBT_LATE;
        if late {
            self.late_until = Some(now + DOUBT_HOLD);
        }
        late
    }

    pub(super) const fn throttled(&mut self, on: bool) {
        self.throttled = on;
    }

    /// Notes how a remote check's latest result changed: `None` is "no result".
    pub(super) const fn remote_changed(&mut self, from: Option<bool>, to: Option<bool>) {
        self.remote = self.remote + to.is_some() as u32 - from.is_some() as u32;
        self.remote_failing = self.remote_failing + matches!(to, Some(true)) as u32 - matches!(from, Some(true)) as u32;
    }

    /// Forgets all remote results: after a reload they are told anew.
    pub(super) const fn forget_remote(&mut self) {
        self.remote = 0;
        self.remote_failing = 0;
    }

    /// Lets time pass; says whether the doubt began or ended.
    pub(super) fn step(&mut self, now: Time) -> Option<bool> {
        if self.late_until.is_some_and(|until| until <= now) {
            self.late_until = None;
        }
        match (self.is_ill(), self.since) {
            (true, None) => {
                self.since = Some(now);
                Some(true)
            }
            (false, Some(_)) => {
                self.since = None;
                Some(false)
            }
            _ => None,
        }
    }

    const fn is_ill(&self) -> bool {
        self.is_starved() || self.network_is_out()
    }

    /// The process itself did not get to run: no timeout means anything, local ones included.
    pub(super) const fn is_starved(&self) -> bool {
        self.late_until.is_some() || self.throttled
    }

    pub(super) const fn since(&self) -> Option<Time> {
        self.since
    }

    pub(super) const fn wake(&self) -> Option<Time> {
        self.late_until
    }

    /// Why, for a person; none if there is no doubt.
    pub(super) fn reason(&self) -> Option<String> {
        let mut causes = Vec::new();
        if self.late_until.is_some() {
            causes.push("the engine was woken late: the process did not get the CPU".to_owned());
        }
        if self.throttled {
            causes.push("the process is being throttled by its CPU limit".to_owned());
        }
        if self.network_is_out() {
            causes.push(format!("all {} remote checks fail at once: the network may be out", self.remote));
        }
        if causes.is_empty() { None } else { Some(causes.join("; ")) }
    }

    /// One remote check alone can be wrong about itself; all of several cannot.
    const fn network_is_out(&self) -> bool {
        self.remote >= 2 && self.remote_failing == self.remote
    }
}

/// Whether a result looks like a broken network rather than a broken peer.
pub(super) const fn is_network_failure(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Fail(Fault::Timeout | Fault::Unreachable))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_late_wake_up_is_doubted_for_a_while() {
        let mut doubt = Doubt::default();
        assert!(!doubt.woke(Time::from_secs(10), Time::from_secs(10)));
        assert_eq!(doubt.step(Time::from_secs(10)), None);
        assert!(doubt.woke(Time::from_secs(20), Time::from_secs(15)));
        assert_eq!(doubt.step(Time::from_secs(20)), Some(true));
        assert_eq!(doubt.wake(), Some(Time::from_secs(20) + DOUBT_HOLD));
        assert_eq!(doubt.step(Time::from_secs(20) + DOUBT_HOLD + Duration::from_nanos(1)), Some(false));
    }

    #[test]
    fn one_remote_check_alone_is_no_network() {
        let mut doubt = Doubt::default();
        doubt.remote_changed(None, Some(true));
        assert_eq!(doubt.reason(), None);
        doubt.remote_changed(None, Some(true));
        assert!(doubt.reason().is_some());
        doubt.remote_changed(Some(true), Some(false));
        assert_eq!(doubt.reason(), None);
    }
}
