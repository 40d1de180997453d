//! What the traffic plane tells: samples in, and from them whether work is pending and what may excuse silence.
//!
//! Owns the ledger of abandoned work. What a client gave up on most servers finish nevertheless, and a new
//! request is silent for as long. How long that may take follows from three numbers that the proxy has: how
//! many gave up, how long they had waited, and how fast answers came while they came. The excuse is bounded
//! by [`ABANDONED_WORK_MAX`] after the last sign of life.

use std::time::Duration;

use super::time::Time;
use crate::limits::{ABANDONED_PACE, ABANDONED_WORK_MAX, OWED_IDLE, WORKER_SILENCE};

/// What the traffic plane has counted until now. Sampled a few times a second.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// Requests sent to the model server whose last byte is still to come. Tunnels (WebSockets) are left out:
    /// their silence says nothing.
    pub in_flight: u64,
    /// When the oldest of them began.
    pub oldest_begun: Option<Time>,
    /// The last byte (or else the beginning) of the one of them that has been silent for longest.
    pub quietest_since: Option<Time>,
    /// When the model server last sent anything that counts, on any request.
    pub last_byte: Option<Time>,
    /// Requests that ended by the client's leaving or by a timeout of ours, ever.
    pub abandoned: u64,
    /// How long those had waited, all together.
    pub abandoned_wait: Duration,
    /// Time that one answer takes the server, recent mean: response time over the requests it shared it with.
    pub pace: Option<Duration>,
    /// The longest `stall_after` that a route of a pending request asks for; zero if none does.
    pub patience: Duration,
    /// Requests that ended well, ever.
    pub succeeded: u64,
    /// Requests that ended by the model server's failure, ever: 5xx, resets, timeouts. No client's fault is one.
    pub failed: u64,
    /// When the worker that has been silent for longest last turned its loop.
    pub last_beat: Option<Time>,
}

/// What an attempt read beside its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// A `progress` check's counter, summed over its series; a `golden` check's accuracy. None if there is none.
    pub value: Option<f64>,
    /// How old the page was when the attempt ended.
    pub age: Duration,
    /// CPU time that the server's processes have used, if they were looked at and found.
    pub cpu: Option<Duration>,
}

/// The traffic as the engine knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    latest: Traffic,
    told_at: Option<Time>,
    pace: Option<Duration>,
    /// Until when the server may be at work on what nobody waits for.
    busy_until: Time,
    /// Since when that excuse has been running without a sign of life.
    excused_since: Option<Time>,
    /// Since when an answer has been due that its client gave up on, and that no backlog explains.
    owed_since: Option<Time>,
    idle_since: Option<Time>,
    last_success: Option<Time>,
    /// Since when the samples can be believed.
    sighted_since: Time,
}

impl Flow {
    /// Takes a sample. `starved`: the process itself did not get to run.
    pub(super) fn told(&mut self, now: Time, sample: Traffic, starved: bool) {
        let before = std::mem::replace(&mut self.latest, sample);
        let told_before = self.told_at.replace(now);
        let first = told_before.is_none();
        if starved || self.worker_is_silent(now) {
            self.sighted_since = now;
        }
        self.pace = sample.pace.or(self.pace);
        if sample.succeeded > before.succeeded && !first {
            self.last_success = Some(now);
        }
        if sample.last_byte > before.last_byte {
            self.owed_since = None;
            self.excused_since = self.excused_since.filter(|_| now < self.busy_until).map(|_| now);
        }
        let gave_up = sample.abandoned.saturating_sub(before.abandoned);
        if gave_up > 0 && !first {
            let waited = sample.abandoned_wait.saturating_sub(before.abandoned_wait);
            self.abandoned(now, gave_up, waited / u32::try_from(gave_up).unwrap_or(u32::MAX));
        }
        self.rest(now, told_before);
    }

    /// Whether `gave_up` clients that waited for `waited` each had to: behind a backlog they had, and theirs
    /// has become part of it; otherwise an answer is owed.
    fn abandoned(&mut self, now: Time, gave_up: u64, waited: Duration) {
        let pace = self.pace.unwrap_or(ABANDONED_PACE);
        let came = Time::ZERO + now.since(Time::ZERO + waited);
        let sharing = u32::try_from(self.latest.in_flight.max(1)).unwrap_or(u32::MAX);
        let explained = self.busy_until.since(came) + pace.saturating_mul(sharing);
        let excuse_ends = *self.excused_since.get_or_insert(now) + ABANDONED_WORK_MAX;
        if explained < waited || excuse_ends <= now {
            self.owed_since = Some(self.owed_since.map_or(came, |since| since.min(came)));
            return;
        }
        let more = pace.saturating_mul(u32::try_from(gave_up).unwrap_or(u32::MAX));
        self.busy_until = (self.busy_until.max(now) + more).min(excuse_ends);
    }

    /// With nobody waiting and nothing left over, old debts lapse; until then they do not grow.
    fn rest(&mut self, now: Time, before: Option<Time>) {
        if self.latest.in_flight > 0 {
            self.idle_since = None;
            return;
        }
        let idle = self.idle_since.and(before).map_or(Duration::ZERO, |before| now.since(before));
        self.owed_since = self.owed_since.map(|since| since + idle);
        let since = *self.idle_since.get_or_insert(now);
        if self.busy_until <= now {
            self.excused_since = None;
        }
        if OWED_IDLE <= now.since(since) {
            self.owed_since = None;
        }
    }

    /// A new model server owes nothing for the last one.
    pub(super) fn forget(&mut self, now: Time) {
        self.busy_until = now;
        self.excused_since = None;
        self.owed_since = None;
    }

    fn worker_is_silent(&self, now: Time) -> bool {
        self.latest.last_beat.is_some_and(|beat| WORKER_SILENCE < now.since(beat))
    }

    /// Why the samples cannot be believed, if they cannot.
    pub(super) fn blindness(&self, now: Time, starved: bool) -> Option<&'static str> {
        match () {
            () if starved => Some("the sidecar itself does not get to run"),
            () if self.worker_is_silent(now) => Some("a worker of the proxy does not turn"),
            () => None,
        }
    }

    pub(super) const fn latest(&self) -> &Traffic {
        &self.latest
    }

    /// Since when somebody waits, or has waited in vain.
    pub(super) fn pending_since(&self) -> Option<Time> {
        if self.latest.in_flight == 0 {
            return None;
        }
        [self.latest.oldest_begun, self.owed_since].into_iter().flatten().min()
    }

    /// Since when nothing is pending; none while something is.
    pub(super) const fn idle_since(&self) -> Option<Time> {
        self.idle_since
    }

    pub(super) const fn busy_until(&self) -> Time {
        self.busy_until
    }

    pub(super) const fn sighted_since(&self) -> Time {
        self.sighted_since
    }

    /// Whether real requests have ended well within the last `span`.
    pub(super) fn succeeded_within(&self, now: Time, span: Duration) -> bool {
        self.last_success.is_some_and(|at| now.since(at) < span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    fn sample(in_flight: u64, abandoned: u64, waited: Duration) -> Traffic {
        Traffic {
            in_flight,
            abandoned,
            abandoned_wait: waited,
            oldest_begun: (in_flight > 0).then_some(Time::ZERO),
            pace: Some(SEC / 2),
            ..Traffic::default()
        }
    }

    #[test]
    fn what_an_overload_left_behind_is_work_for_as_long_as_it_takes() {
        let mut flow = Flow::default();
        flow.told(Time::from_secs(10), sample(12, 0, Duration::ZERO), false);
        // Twelve share half a second each: two seconds of waiting are no surprise.
        flow.told(Time::from_secs(12), sample(12, 20, SEC * 40), false);
        assert_eq!(flow.busy_until(), Time::from_secs(22));
        flow.told(Time::from_secs(13), sample(12, 26, SEC * 52), false);
        assert_eq!(flow.busy_until(), Time::from_secs(25));
        assert_eq!(flow.pending_since(), Some(Time::ZERO));
    }

    #[test]
    fn the_excuse_is_bounded_however_many_give_up() {
        let mut flow = Flow::default();
        flow.told(Time::from_secs(10), sample(500, 0, Duration::ZERO), false);
        for second in 11..400 {
            flow.told(Time::from_secs(second), sample(500, second * 100, SEC * 200 * second as u32), false);
        }
        assert_eq!(flow.busy_until(), Time::from_secs(11) + ABANDONED_WORK_MAX);
    }

    #[test]
    fn a_wait_that_no_backlog_explains_is_a_debt() {
        let mut flow = Flow::default();
        flow.told(Time::from_secs(10), sample(1, 0, Duration::ZERO), false);
        flow.told(Time::from_secs(15), sample(1, 1, SEC * 5), false);
        assert_eq!(flow.busy_until(), Time::ZERO);
        let later = Traffic { oldest_begun: Some(Time::from_secs(15)), ..sample(1, 1, SEC * 5) };
        flow.told(Time::from_secs(16), later, false);
        assert_eq!(flow.pending_since(), Some(Time::from_secs(10)));
        // Paid with the next byte.
        flow.told(Time::from_secs(17), Traffic { last_byte: Some(Time::from_secs(17)), ..later }, false);
        assert_eq!(flow.pending_since(), Some(Time::from_secs(15)));
    }

    #[test]
    fn a_client_more_hasty_than_the_server_is_fast_is_owed_nothing() {
        let mut flow = Flow::default();
        flow.told(Time::from_secs(10), sample(0, 0, Duration::ZERO), false);
        for turn in 1..100 {
            flow.told(Time::from_secs(10 + turn * 5), sample(0, turn, SEC / 10 * turn as u32), false);
            flow.told(Time::from_secs(12 + turn * 5), sample(0, turn, SEC / 10 * turn as u32), false);
            assert_eq!(flow.owed_since, None);
        }
    }

    #[test]
    fn a_worker_that_does_not_turn_makes_blind() {
        let mut flow = Flow::default();
        let silent = Traffic { last_beat: Some(Time::from_secs(10)), ..sample(1, 0, Duration::ZERO) };
        flow.told(Time::from_secs(11), silent, false);
        assert_eq!(flow.blindness(Time::from_secs(11), false), None);
        flow.told(Time::from_secs(13), silent, false);
        assert!(flow.blindness(Time::from_secs(13), false).is_some());
        assert_eq!(flow.sighted_since(), Time::from_secs(13));
    }
}
