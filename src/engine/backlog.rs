//! What clients gave up on and the model server may still work on: the excuse for silence, and its bound.
//!
//! A proxy knows three things of such work: how many gave up, how many shared the server with each, and how
//! long answers took while they came; an answer that came behind the backlog shared the server with that, too.
//! What was given up in a silence that no queue explains is a debt; once the server moves again, it is work like
//! the rest, for the server may go on with it. The bound is the number times the largest recent pace times
//! [`ABANDONED_SLACK`], for a machine may be starved at the worst moment and nothing then tells how fast it
//! still is. It is an upper bound on purpose: a healthy server must never be condemned for what it works off in
//! silence, and a stopped one is found all the same, later. It refuses to excuse what no queue explains (an
//! answer is owed then), whatever comes after such a debt, and anything for longer than
//! [`ABANDONED_WORK_MAX`] after the last sign of life.
//!
//! A server that drops what clients give up on leaves nothing over: there it excuses no silence, and is only weighed
//! whether such a client had waited for longer than its answer takes.

use std::time::Duration;

use super::plan::Abandoned;
use super::time::Time;
use super::traffic::Traffic;
use crate::limits::{ABANDONED_PACE, ABANDONED_SLACK, ABANDONED_WORK_MAX, BACKLOG_ANSWERS, OWED_IDLE};

/// The work left over, as far as it can be known.
#[derive(Clone, Debug, Default)]
pub(super) struct Backlog {
    /// What becomes of it.
    fate: Abandoned,
    /// When the first of the present ones was given up.
    since: Time,
    count: u64,
    /// Silent time that one answer takes the server: the largest lately, and no less while work is left over.
    pace: Option<Duration>,
    /// The latest end of any excuse counts from here: the last sign of life, or the beginning.
    excused_since: Option<Time>,
    /// Until when a route's own patience excuses silence.
    lent_until: Option<Time>,
    /// Since when an answer has been due that its client gave up on, and that no backlog explains.
    owed_since: Option<Time>,
    /// How many were given up since then.
    owed: u64,
    /// Requests that had ended, and those in flight, when somebody last gave up.
    ended: u64,
    ahead: u64,
}

impl Backlog {
    pub(super) fn new(fate: Abandoned) -> Self {
        Self { fate, ..Self::default() }
    }

    /// What becomes of such work, by a new configuration; by another word, nothing is known of what there was.
    pub(super) fn adopt(&mut self, fate: Abandoned) {
        if self.fate != fate {
            self.forget();
            self.fate = fate;
        }
    }

    /// Takes the next sample. `before`: the one before it; none for the first. `lives`: the model server has moved
    /// since.
    pub(super) fn told(&mut self, now: Time, sample: &Traffic, before: Option<&Traffic>, lives: bool) {
        if let Some(pace) = sample.pace {
            let kept = self.pace.filter(|_| now < self.busy_until());
            self.pace = Some(kept.map_or(pace, |kept| kept.max(pace)));
        }
        self.lent_until = sample.lent_until;
        let Some(before) = before else { return };
        if lives {
            self.excused_since = self.excused_since.filter(|_| now < self.busy_until()).map(|_| now);
            self.settle(now, sample);
        }
        let gave_up = sample.abandoned.saturating_sub(before.abandoned);
        if gave_up > 0 {
            let mean = u32::try_from(gave_up).unwrap_or(u32::MAX);
            let waited = sample.abandoned_wait.saturating_sub(before.abandoned_wait) / mean;
            let sharing = sample.abandoned_sharing.saturating_sub(before.abandoned_sharing) / gave_up;
            self.gave_up(now, gave_up, waited, sharing);
            (self.ended, self.ahead) = (sample.succeeded + sample.failed, sample.in_flight);
        } else if self.is_worked_off(sample) {
            self.count = 0;
        }
    }

    /// Whether `count` clients that waited for `waited` each had to: behind a backlog or in a queue they had, and
    /// theirs has become part of it; otherwise an answer is owed.
    fn gave_up(&mut self, now: Time, count: u64, waited: Duration, sharing: u64) {
        let came = Time::ZERO + now.since(Time::ZERO + waited);
        let sharing = u32::try_from(sharing.max(1)).unwrap_or(u32::MAX);
        // A long answer was due in its own time, dropped or not.
        let due = self.busy_until().max(self.lent_until.unwrap_or_default());
        let explained = due.since(came) + self.allowance().saturating_mul(sharing);
        let spent = *self.excused_since.get_or_insert(now) + ABANDONED_WORK_MAX <= now;
        if explained < waited || spent || self.owed_since.is_some() {
            self.owed_since = Some(self.owed_since.map_or(came, |since| since.min(came)));
            self.owed += count;
            return;
        }
        self.add(now, count);
    }

    /// So many more are left over.
    fn add(&mut self, now: Time, count: u64) {
        if self.fate == Abandoned::Dropped {
            return;
        }
        if self.busy_until() <= now {
            (self.since, self.count) = (now, 0);
        }
        self.count += count;
    }

    /// The server moves: what was given up while it did not is left over, and it may go on with that.
    fn settle(&mut self, now: Time, sample: &Traffic) {
        let owed = std::mem::take(&mut self.owed);
        if self.owed_since.take().is_none() || owed == 0 {
            return;
        }
        self.add(now, owed);
        self.excused_since = Some(now);
        (self.ended, self.ahead) = (sample.succeeded + sample.failed, sample.in_flight);
    }

    /// So many have been answered since somebody last gave up that most of them came after it: what was there
    /// before has had its turn.
    const fn is_worked_off(&self, sample: &Traffic) -> bool {
        let wanted = if self.count < BACKLOG_ANSWERS { BACKLOG_ANSWERS } else { self.count };
        self.ended + self.ahead + wanted <= sample.succeeded + sample.failed
    }

    /// What one request may take at most, on a machine that has become slow.
    pub(super) fn allowance(&self) -> Duration {
        self.pace.map_or(ABANDONED_PACE, |pace| pace.saturating_mul(ABANDONED_SLACK))
    }

    /// Until when the server may be at work on what nobody waits for.
    pub(super) fn busy_until(&self) -> Time {
        let lent = self.lent_until();
        if self.count == 0 {
            return lent;
        }
        let work = self.allowance().saturating_mul(u32::try_from(self.count).unwrap_or(u32::MAX));
        let latest = self.excused_since.unwrap_or(self.since) + ABANDONED_WORK_MAX;
        (self.since + work).min(latest).max(lent)
    }

    pub(super) fn lent_until(&self) -> Time {
        self.lent_until.filter(|_| self.fate == Abandoned::WorkedOff).unwrap_or_default()
    }

    /// How many requests that is.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// With nobody waiting since `idle_since`, and already so `idle` ago: debts do not grow, and lapse in the end.
    pub(super) fn rest(&mut self, now: Time, idle_since: Time, idle: Duration) {
        self.owed_since = self.owed_since.map(|since| since + idle);
        if self.busy_until() <= now {
            self.excused_since = None;
            self.count = 0;
        }
        if OWED_IDLE <= now.since(idle_since) {
            (self.owed_since, self.owed) = (None, 0);
        }
    }

    /// A new model server owes nothing for the last one, and nothing is known of its pace.
    pub(super) fn forget(&mut self) {
        *self = Self { fate: self.fate, pace: self.pace, ..Self::default() };
    }

    /// Since when somebody has waited in vain.
    pub(super) const fn owed_since(&self) -> Option<Time> {
        self.owed_since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    /// Counted until `second`: so many gave up, each after two seconds beside five others.
    fn sample(in_flight: u64, abandoned: u64) -> Traffic {
        Traffic {
            in_flight,
            abandoned,
            abandoned_wait: SEC * 2 * u32::try_from(abandoned).unwrap(),
            abandoned_sharing: abandoned * 6,
            pace: Some(SEC / 2),
            ..Traffic::default()
        }
    }

    struct Told {
        backlog: Backlog,
        before: Option<Traffic>,
    }

    impl Told {
        fn new() -> Self {
            Self { backlog: Backlog::default(), before: None }
        }

        fn at(&mut self, second: u64, sample: Traffic) {
            let lives = self.before.is_some_and(|before| before.last_byte < sample.last_byte);
            self.backlog.told(Time::from_secs(second), &sample, self.before.as_ref(), lives);
            self.before = Some(sample);
        }
    }

    #[test]
    fn what_an_overload_left_behind_is_work_for_three_times_as_long_as_it_takes() {
        let mut told = Told::new();
        told.at(10, sample(12, 0));
        told.at(12, sample(12, 20));
        assert_eq!(told.backlog.busy_until(), Time::from_secs(42));
        told.at(13, sample(12, 26));
        assert_eq!(told.backlog.busy_until(), Time::from_secs(51));
        assert_eq!(told.backlog.owed_since(), None);
    }

    #[test]
    fn a_slower_answer_makes_the_whole_estimate_longer_and_a_faster_one_no_shorter() {
        let mut told = Told::new();
        told.at(10, sample(12, 0));
        told.at(12, sample(12, 20));
        told.at(13, Traffic { pace: Some(SEC), ..sample(12, 20) });
        assert_eq!(told.backlog.busy_until(), Time::from_secs(72));
        told.at(14, Traffic { pace: Some(SEC / 10), ..sample(12, 20) });
        assert_eq!(told.backlog.busy_until(), Time::from_secs(72));
        told.at(80, Traffic { pace: Some(SEC / 10), ..sample(12, 20) });
        told.at(81, sample(12, 20));
        assert_eq!(told.backlog.pace, Some(SEC / 2), "nothing is left over: what is recent counts");
    }

    #[test]
    fn the_excuse_is_bounded_however_many_give_up() {
        let mut told = Told::new();
        told.at(10, sample(500, 0));
        for second in 11..800 {
            told.at(second, sample(500, (second - 10) * 100));
        }
        assert_eq!(told.backlog.busy_until(), Time::from_secs(11) + ABANDONED_WORK_MAX);
        assert!(told.backlog.owed_since().is_some(), "then answers are owed");
    }

    #[test]
    fn answers_to_those_who_came_later_end_the_excuse() {
        let mut told = Told::new();
        told.at(10, sample(4, 0));
        told.at(12, sample(4, 5));
        told.at(13, Traffic { succeeded: 8, ..sample(4, 5) });
        assert!(Time::from_secs(13) < told.backlog.busy_until(), "four of the eight were there before");
        told.at(14, Traffic { succeeded: 9, ..sample(4, 5) });
        assert_eq!(told.backlog.busy_until(), Time::ZERO);
    }

    #[test]
    fn a_wait_that_no_backlog_explains_is_a_debt_and_excuses_nobody_after_it() {
        let mut told = Told::new();
        let alone = |abandoned: u64| Traffic {
            abandoned_wait: SEC * 5 * u32::try_from(abandoned).unwrap(),
            abandoned_sharing: abandoned,
            ..sample(1, abandoned)
        };
        told.at(10, alone(0));
        told.at(15, alone(1));
        assert_eq!(told.backlog.busy_until(), Time::ZERO);
        assert_eq!(told.backlog.owed_since(), Some(Time::from_secs(10)));
        told.at(16, Traffic { abandoned_sharing: 200, ..alone(2) });
        assert_eq!((told.backlog.busy_until(), told.backlog.count()), (Time::ZERO, 0));
        // Paid with the next byte: from then on both are work like any other.
        told.at(17, Traffic { last_byte: Some(Time::from_secs(17)), abandoned_sharing: 200, ..alone(2) });
        assert_eq!((told.backlog.owed_since(), told.backlog.count()), (None, 2));
        assert_eq!(told.backlog.busy_until(), Time::from_secs(20));
    }

    #[test]
    fn a_client_more_hasty_than_the_server_is_fast_is_owed_nothing() {
        let mut told = Told::new();
        let hasty = |turn: u64| Traffic { abandoned_wait: SEC / 10 * u32::try_from(turn).unwrap(), ..sample(0, turn) };
        told.at(10, hasty(0));
        for turn in 1..100 {
            told.at(10 + turn * 5, hasty(turn));
            let at = Time::from_secs(12 + turn * 5);
            told.at(12 + turn * 5, hasty(turn));
            told.backlog.rest(at, at, Duration::ZERO);
            assert_eq!(told.backlog.owed_since(), None);
        }
    }

    #[test]
    fn a_patient_route_that_was_given_up_lends_its_patience_to_all() {
        let mut told = Told::new();
        told.at(10, sample(1, 0));
        told.at(11, Traffic { lent_until: Some(Time::from_secs(600)), ..sample(1, 1) });
        assert_eq!(told.backlog.busy_until(), Time::from_secs(600));
    }
}
