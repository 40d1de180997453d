//! What the traffic plane tells: samples in, and from them whether work is pending and what may excuse silence.
//!
//! Owns the last sample and what can be believed of it; what abandoned work excuses is the backlog's business.

use std::fmt;
use std::time::Duration;

use super::backlog::Backlog;
use super::plan::Plan;
use super::time::{Time, earliest};
use crate::limits::WORKER_SILENCE;

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
    /// When the oldest of those in flight began that ask for work: not by a safe method (`GET`, `HEAD`, `OPTIONS`).
    pub work_begun: Option<Time>,
    /// When the model server last sent anything that counts on a request that was work: neither asked by a safe method
    /// nor refused, or in flight for longer than [`ASIDE_MAX`](crate::limits::ASIDE_MAX).
    pub work_byte: Option<Time>,
    /// Requests that ended by the client's leaving or by a timeout of ours, ever.
    pub abandoned: u64,
    /// How long those had waited, all together.
    pub abandoned_wait: Duration,
    /// How many requests were in flight when each of those began, itself among them, all together.
    pub abandoned_sharing: u64,
    /// Until when requests that were given up on a route with a patience of its own may keep the server silent.
    pub lent_until: Option<Time>,
    /// Silent time that one answer takes the server, the largest of the last minute: until the last byte, or the
    /// first of a stream, over the requests that it shared the server with, those left over included.
    pub pace: Option<Duration>,
    /// The longest `stall_after` that a route of a pending request asks for; zero if none does.
    pub patience: Duration,
    /// Requests that wait in the proxy for a place.
    pub queued: u64,
    /// Since when the one of them has waited that has waited for longest.
    pub queue_since: Option<Time>,
    /// Requests that the proxy refused for want of room, ever.
    pub shed: u64,
    /// Requests that ended well, ever. The answer to a question that took less than
    /// [`ASIDE_MAX`](crate::limits::ASIDE_MAX) counts only where there has lately been no work, here and below.
    pub succeeded: u64,
    /// Requests that ended by the model server's failure, ever: 5xx, resets, timeouts, a gRPC status that says so.
    /// No client's fault is one, nor is an answer that says "busy" (503 with `Retry-After`).
    pub failed: u64,
    /// When the worker that has been silent for longest last turned its loop.
    pub last_beat: Option<Time>,
}

/// What an attempt read beside its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// The counter of a `progress` check, summed over its series, or the gauge of a `saturation` check.
    pub value: Option<f64>,
    /// How old the page was when the attempt ended.
    pub age: Duration,
    /// CPU time that the server's processes have used, if they were looked at and found.
    pub cpu: Option<Duration>,
    /// Their threads at that moment, if they may be seen.
    pub threads: Option<Threads>,
    /// What a `golden` check was answered; none if it was answered nothing.
    pub answers: Option<Answers>,
    /// A fingerprint of the examples that it asked; any other number is other examples.
    pub examples: u64,
}

/// The threads of the model server's processes, by what they were at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Threads {
    pub all: u32,
    /// Ready to run from one look to the next, without having slept between them: they run, or wait for a CPU.
    pub ready: u32,
    /// In uninterruptible sleep: in the kernel, for a disk or a device.
    pub uninterruptible: u32,
    /// By SIGSTOP or a debugger.
    pub stopped: u32,
    /// Ended, and nobody has noticed: of a zombie.
    pub ended: u32,
}

/// Labelled examples and how they were answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Answers {
    pub right: u32,
    pub asked: u32,
}

impl Answers {
    /// Of those asked, 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.right) / f64::from(self.asked.max(1))
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.right, self.asked)
    }
}

/// The traffic as the engine knows it.
#[derive(Debug, Default)]
pub(super) struct Flow {
    latest: Traffic,
    told_at: Option<Time>,
    backlog: Backlog,
    idle_since: Option<Time>,
    /// Since when nobody has asked for work that is pending.
    work_idle_since: Option<Time>,
    last_success: Option<Time>,
    queued_since: Option<Time>,
    shed_at: Option<Time>,
    /// Since when the samples can be believed.
    sighted_since: Time,
    /// A counter tells of work: only the bytes of work settle a debt.
    counted: bool,
}

impl Flow {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { backlog: Backlog::new(plan.abandoned), counted: plan.counts_work(), ..Self::default() }
    }

    /// What a new configuration says of the model server.
    pub(super) fn adopt(&mut self, plan: &Plan) {
        self.backlog.adopt(plan.abandoned);
        self.counted = plan.counts_work();
    }

    /// Takes a sample. `starved`: the process itself did not get to run.
    pub(super) fn told(&mut self, now: Time, sample: Traffic, starved: bool) {
        let before = std::mem::replace(&mut self.latest, sample);
        let told_before = self.told_at.replace(now);
        let first = told_before.is_none();
        if starved || self.worker_is_silent(now) {
            self.sighted_since = now;
        }
        if sample.succeeded > before.succeeded && !first {
            self.last_success = Some(now);
        }
        if sample.shed > before.shed && !first {
            self.shed_at = Some(now);
        }
        self.queued_since = (sample.queued > 0).then(|| self.queued_since.unwrap_or(now));
        self.work_idle_since = sample.work_begun.is_none().then(|| self.work_idle_since.unwrap_or(now));
        let lives = !first && self.life_in(&before) < self.life();
        self.backlog.told(now, &sample, (!first).then_some(&before), lives);
        self.rest(now, told_before);
    }

    /// With nobody waiting and nothing left over, old debts lapse; until then they do not grow.
    fn rest(&mut self, now: Time, before: Option<Time>) {
        if self.latest.in_flight > 0 {
            self.idle_since = None;
            return;
        }
        let idle = self.idle_since.and(before).map_or(Duration::ZERO, |before| now.since(before));
        let since = *self.idle_since.get_or_insert(now);
        self.backlog.rest(now, since, idle);
    }

    /// A new model server owes nothing for the last one.
    pub(super) fn forget(&mut self) {
        self.backlog.forget();
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

    /// When the model server last moved: a byte of work where a counter tells of it, of anything else.
    pub(super) fn life(&self) -> Option<Time> {
        self.life_in(&self.latest)
    }

    fn life_in(&self, sample: &Traffic) -> Option<Time> {
        sample.work_byte.filter(|_| self.counted).or(sample.last_byte)
    }

    pub(super) const fn latest(&self) -> &Traffic {
        &self.latest
    }

    /// Since when somebody waits, or has waited in vain.
    pub(super) fn pending_since(&self) -> Option<Time> {
        if self.latest.in_flight == 0 {
            return None;
        }
        earliest([self.latest.oldest_begun, self.backlog.owed_since()])
    }

    /// The same of those that ask for work.
    pub(super) fn work_pending_since(&self) -> Option<Time> {
        let begun = self.latest.work_begun?;
        Some(self.backlog.owed_since().map_or(begun, |owed| owed.min(begun)))
    }

    /// Since when no request for work is pending; none while one is.
    pub(super) const fn work_idle_since(&self) -> Option<Time> {
        self.work_idle_since
    }

    /// Since when nothing is pending; none while something is.
    pub(super) const fn idle_since(&self) -> Option<Time> {
        self.idle_since
    }

    /// How many requests that clients gave up on may still be worked on.
    pub(super) const fn abandoned(&self) -> u64 {
        self.backlog.count()
    }

    /// Since when requests have waited for a place.
    pub(super) const fn queued_since(&self) -> Option<Time> {
        self.queued_since
    }

    /// When a request was last refused for want of room.
    pub(super) const fn shed_at(&self) -> Option<Time> {
        self.shed_at
    }

    /// Until when a route's own patience, that of a request that was given up, excuses silence.
    pub(super) fn lent_until(&self) -> Time {
        self.backlog.lent_until()
    }

    /// Until when the server may be at work on what nobody waits for.
    pub(super) fn busy_until(&self) -> Time {
        self.backlog.busy_until()
    }

    /// What one answer may take, on a machine that has become slow.
    pub(super) fn longest_answer(&self) -> Duration {
        self.backlog.allowance()
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

    #[test]
    fn a_worker_that_does_not_turn_makes_blind() {
        let mut flow = Flow::default();
        let silent = Traffic { in_flight: 1, last_beat: Some(Time::from_secs(10)), ..Traffic::default() };
        flow.told(Time::from_secs(11), silent, false);
        assert_eq!(flow.blindness(Time::from_secs(11), false), None);
        flow.told(Time::from_secs(13), silent, false);
        assert!(flow.blindness(Time::from_secs(13), false).is_some());
        assert_eq!(flow.sighted_since(), Time::from_secs(13));
    }
}
