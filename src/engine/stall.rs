//! Whether the model server hangs: work pending, and nothing moving, for too long.
//!
//! Owns one `progress` check's reading of the evidence: the traffic's silence, the server's own counter, the
//! CPU time of its processes, the golden request. A verdict needs every kind that is configured to agree.
//! It refuses to take slowness, idleness, an overload's remains or a missing page for a hang; what keeps it
//! from a verdict it says.
//!
//! Whose bytes count: any request's, and where a counter is named, silence is also counted as if no question (a safe
//! method) and no refusal that took less than [`ASIDE_MAX`](crate::limits::ASIDE_MAX) had ever been sent, for a
//! server's front answers those with its engine hung; whatever else moves moves the counter too, and that contradicts.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use super::plan::ProgressPlan;
use super::processes::Processes;
use super::time::{Time, earliest};
use super::traffic::{Flow, Reading};
use super::view::span;
use crate::limits::{READINGS, STALL_HOLD, STALL_LOOK};

/// What one `progress` check remembers of the present model server.
#[derive(Clone, Debug, Default)]
pub(super) struct Stall {
    /// When it was first judged.
    born: Option<Time>,
    page: Page,
    /// The counter's last reading, and when a movement of it was last seen.
    counter: Option<(Time, f64)>,
    counter_moved: Option<Time>,
    /// The same, with only the bytes of work to explain a movement.
    counter_moved_by_work: Option<Time>,
    /// It has been seen to move by work that nobody waited for.
    counter_vouches: bool,
    processes: Processes,
    /// Readings of the counter, newest last.
    history: VecDeque<(Time, f64)>,
    /// When the last attempt began.
    looked: Option<Time>,
    condemned: Option<Condemned>,
    silent_since: Option<Time>,
}

/// What became of the last attempt to read the page or the processes.
#[derive(Clone, Debug, Default)]
enum Page {
    #[default]
    Unread,
    Read,
    /// No answer in time, from the attempt that began then.
    Silent {
        asked: Time,
    },
    /// An answer without what was asked for, or none to be had.
    Unreadable(String),
}

#[derive(Clone, Debug)]
struct Condemned {
    at: Time,
    /// Work was silent for too long, so that only work is a sign of life.
    of_work: bool,
    reason: String,
}

/// What is known of the golden request that a `progress` check names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Golden {
    /// Since when it has gone without an answer.
    pub(super) unanswered_since: Option<Time>,
    /// When the last attempt without an answer ended.
    pub(super) burnt_at: Option<Time>,
    pub(super) answered_at: Option<Time>,
    /// When the last attempt began, unless one was answered since.
    pub(super) began_at: Option<Time>,
    /// When one was last sent out of turn, for silence asked for it.
    pub(super) asked_at: Option<Time>,
}

/// The class of a judgement; a change of it is worth showing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    Idle,
    Moving,
    /// Silent with work pending, and not yet for too long.
    Silent,
    /// Silent for too long, and something speaks against a hang.
    Withheld,
    /// One request is silent beside others that move.
    Stuck,
    Stalled,
}

/// One judgement.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) class: Class,
    /// For a person.
    pub(super) reason: Cow<'static, str>,
    /// A reading is wanted now.
    pub(super) look: bool,
}

/// One way to count silence.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Since when somebody waits.
    pending: Option<Time>,
    /// The last sign of life.
    moved: Time,
}

/// Both ways.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    /// By every request.
    all: Clock,
    /// By work alone: where a counter would tell of whatever else the server does.
    work: Option<Clock>,
}

impl Stall {
    /// Judges at `now`. Call it with each sample. `alone`: the upstream that hangs while another stands ready.
    pub(super) fn judge(
        &mut self,
        now: Time,
        plan: &ProgressPlan,
        flow: &Flow,
        golden: Golden,
        alone: Option<&str>,
    ) -> Judged {
        let born = *self.born.get_or_insert(now);
        let clocks = self.clocks(plan, flow, golden);
        if let Some(judged) = self.still_condemned(now, clocks, flow) {
            return judged;
        }
        let work = clocks.work.and_then(|work| self.silence(now, born, work, flow));
        let Some(since) = earliest([self.silence(now, born, clocks.all, flow), work]) else {
            self.silent_since = None;
            return judged(Class::Idle, "nothing is pending: silence says nothing");
        };
        let stall_after = plan.stall_after.max(flow.latest().patience);
        self.silent_since = (since < now).then_some(since);
        let silent = now.since(since);
        if silent < stall_after {
            let look = self.wants_look(now, since, plan, stall_after);
            return Judged { look, ..self.not_yet(now, clocks.all.moved, since, flow, golden, stall_after) };
        }
        let mut objections = self.objections(now, since, stall_after, plan, golden);
        objections.extend(alone.map(|address| format!("{address} hangs alone: another upstream stands ready")));
        if objections.is_empty() {
            let reason = self.sentence(now, since, plan, flow, golden);
            let of_work = work.is_some_and(|since| stall_after <= now.since(since));
            self.condemned = Some(Condemned { at: now, of_work, reason: reason.clone() });
            return Judged { class: Class::Stalled, reason: reason.into(), look: false };
        }
        let look = self.wants_look(now, since, plan, stall_after);
        let reason = format!("silent for {} with work pending, but {}", span(silent), objections.join(" and "));
        Judged { class: Class::Withheld, reason: reason.into(), look }
    }

    fn clocks(&self, plan: &ProgressPlan, flow: &Flow, golden: Golden) -> Clocks {
        // A golden request of ours is work like any other where a second witness can agree.
        let ours = golden.unanswered_since.filter(|_| plan.has_witness());
        let clock = |pending, byte: Option<Time>, counter| {
            // None comes before any time.
            let moved = byte.max(counter).max(self.processes.moved()).max(golden.answered_at);
            Clock { pending: earliest([pending, ours]), moved: moved.unwrap_or_default() }
        };
        let traffic = flow.latest();
        let work = || clock(flow.work_pending_since(), traffic.work_byte, self.counter_moved_by_work);
        let all = clock(flow.pending_since(), traffic.last_byte, self.counter_moved);
        Clocks { all, work: plan.counter.is_some().then(work) }
    }

    /// Since when there is silence that nothing excuses; none with nothing pending.
    fn silence(&self, now: Time, born: Time, clock: Clock, flow: &Flow) -> Option<Time> {
        let since = [clock.pending?, clock.moved, flow.lent_until(), flow.sighted_since(), born];
        let since = since.into_iter().max().unwrap_or(now);
        Some(if self.sees_the_backlog(since) { since } else { since.max(flow.busy_until()) })
    }

    /// Whether the counter would show work that clients gave up on, so that its standing still since `since` says that
    /// none is done: then what may be left over excuses no silence.
    fn sees_the_backlog(&self, since: Time) -> bool {
        let is_read = matches!(self.page, Page::Read) && self.looked.is_some_and(|looked| since <= looked);
        self.counter_vouches && is_read
    }

    /// A verdict stands until something moves: that its clients have left does not mend the server. With
    /// nobody asking for long enough it is tried again.
    fn still_condemned(&mut self, now: Time, clocks: Clocks, flow: &Flow) -> Option<Judged> {
        let condemned = self.condemned.as_ref()?;
        let (at, of_work) = (condemned.at, condemned.of_work);
        let moved = if of_work { clocks.work.map_or(now, |work| work.moved) } else { clocks.all.moved };
        let idle = if of_work { flow.work_idle_since() } else { flow.idle_since() };
        let tried_again = idle.is_some_and(|idle| STALL_HOLD <= now.since(idle.max(at))) || at < flow.sighted_since();
        if at < moved || tried_again {
            self.condemned = None;
            self.born = Some(now);
            return None;
        }
        Some(Judged { class: Class::Stalled, reason: condemned.reason.clone().into(), look: false })
    }

    /// `moved`: the last sign of life of any kind; `since`: the beginning of the silence that is counted.
    fn not_yet(
        &self,
        now: Time,
        moved: Time,
        since: Time,
        flow: &Flow,
        golden: Golden,
        stall_after: Duration,
    ) -> Judged {
        let (traffic, busy_until) = (flow.latest(), flow.busy_until());
        if now < busy_until && moved + STALL_LOOK < now {
            let left = span(busy_until.since(now));
            return judged(
                Class::Silent,
                format!(
                    "silent, and up to {left} of work are left over from {} requests that clients gave up on",
                    flow.abandoned()
                ),
            );
        }
        let quietest = traffic.quietest_since.map_or(Duration::ZERO, |since| now.since(since));
        let unheard = traffic.last_byte.max(traffic.oldest_begun).map_or(Duration::ZERO, |heard| now.since(heard));
        if let Some(witness) = self.witness(moved, golden)
            && stall_after <= unheard
        {
            let reason = format!("silent for {} with work pending, but {witness}", span(unheard));
            return judged(Class::Withheld, reason);
        }
        if stall_after <= quietest && now.since(moved) < stall_after {
            let silent = span(quietest);
            let of = traffic.in_flight;
            return judged(Class::Stuck, format!("one of {of} requests is silent for {silent} while others move"));
        }
        if now.since(moved) < STALL_LOOK * 2 && STALL_LOOK * 2 <= now.since(since) {
            return judged(
                Class::Silent,
                format!("{} pending, and only questions or refusals answered until now", requests(traffic.in_flight)),
            );
        }
        if now.since(moved) < STALL_LOOK * 2 {
            return judged(Class::Moving, "moving");
        }
        judged(Class::Silent, format!("{} pending, silent until now", requests(traffic.in_flight)))
    }

    /// Who has shown the last sign of life, where that was no byte of a real request.
    fn witness(&self, moved: Time, golden: Golden) -> Option<&'static str> {
        match Some(moved) {
            at if at == self.counter_moved => Some("its counter moves"),
            at if at == self.processes.moved() => Some("its processes use the CPU"),
            at if at == golden.answered_at => Some("the golden request is answered"),
            _ => None,
        }
    }

    /// What is configured and does not say "hang" for `stall_after` from `since` on.
    fn objections(
        &self,
        now: Time,
        since: Time,
        stall_after: Duration,
        plan: &ProgressPlan,
        golden: Golden,
    ) -> Vec<String> {
        let mut objections = Vec::new();
        let due = since + stall_after;
        let silent_page = matches!(self.page, Page::Silent { asked } if since <= asked);
        if let Some(counter) = &plan.counter {
            let covered = self.counter.is_some_and(|(at, _)| due + counter.lag <= at);
            match (&self.page, self.counter) {
                _ if self.counter.is_some() && silent_page => {}
                (Page::Unreadable(why), _) => objections.push(format!("its counter says nothing: {why}")),
                (_, None) => objections.push(format!("its counter {} has never been read", counter.name)),
                (_, Some(_)) if covered => {}
                _ => objections.push("its counter is to be read once more".to_owned()),
            }
        }
        if plan.cpu.is_some() {
            objections.extend(self.processes.objection(now, since, stall_after));
        }
        if plan.golden.is_some() && golden.burnt_at.is_none_or(|at| at < since) {
            objections.push("the golden request has not gone unanswered".to_owned());
        }
        objections
    }

    /// Whether a witness has never said anything.
    pub(super) const fn lacks_a_reading(&self, plan: &ProgressPlan) -> bool {
        plan.counter.is_some() && self.counter.is_none() || plan.cpu.is_some() && !self.processes.are_seen()
    }

    /// Whether a reading is wanted: soon after silence began, once more when a late page has caught up, and at
    /// the end.
    fn wants_look(&self, now: Time, since: Time, plan: &ProgressPlan, stall_after: Duration) -> bool {
        if !plan.has_witness() {
            return false;
        }
        let lag = plan.counter.as_ref().map_or(Duration::ZERO, |counter| counter.lag);
        let wanted = [since + STALL_LOOK, since + STALL_LOOK + lag, since + stall_after + lag];
        let processes = plan.cpu.iter().flat_map(|_| self.processes.wanted_looks(since, stall_after));
        wanted.into_iter().chain(processes).any(|at| at <= now && self.looked.is_none_or(|looked| looked < at))
    }

    /// Whether the golden request is wanted now, out of its turn, so that its `timeout` ends together with
    /// `stall_after`: once in a silence, and no sooner than so long after the last such one, for a server that is slow
    /// has many silences.
    pub(super) fn wants_golden(
        &self,
        now: Time,
        plan: &ProgressPlan,
        flow: &Flow,
        golden: Golden,
        timeout: Duration,
    ) -> bool {
        let Some(since) = self.silent_since.filter(|_| self.condemned.is_none()) else { return false };
        let stall_after = plan.stall_after.max(flow.latest().patience);
        let due = since + stall_after.saturating_sub(timeout).max(STALL_LOOK);
        let is_under_way = golden.began_at.max(golden.burnt_at).is_some_and(|at| since <= at);
        due <= now && !is_under_way && golden.asked_at.is_none_or(|at| at + timeout <= now)
    }

    // Readings.

    /// Takes what an attempt that began at `started` read.
    pub(super) fn take_reading(
        &mut self,
        now: Time,
        started: Time,
        reading: Reading,
        plan: &ProgressPlan,
        flow: &Flow,
    ) {
        self.looked = Some(started);
        self.page = Page::Read;
        let at = Time::ZERO + now.since(Time::ZERO + reading.age);
        if let Some(plan) = &plan.counter {
            match reading.value {
                Some(value) => self.take_counter(at, value, plan.lag, flow),
                None => self.page = Page::Unreadable(format!("{} is not on the metrics page", plan.name)),
            }
        }
        self.take_cpu_reading(now, reading, plan);
    }

    /// The part of a reading that is about processes.
    pub(super) fn take_cpu_reading(&mut self, now: Time, reading: Reading, plan: &ProgressPlan) {
        if plan.cpu.is_some() {
            self.processes.take(now, reading);
        }
    }

    /// An attempt that read nothing. `silent`: no answer in time; otherwise `why`.
    pub(super) fn take_failure(&mut self, started: Time, silent: bool, why: &str) {
        self.looked = Some(started);
        self.page = if silent { Page::Silent { asked: started } } else { Page::Unreadable(why.to_owned()) };
    }

    fn take_counter(&mut self, at: Time, value: f64, lag: Duration, flow: &Flow) {
        if self.counter.is_some_and(|(last, _)| at <= last) {
            return;
        }
        if READINGS <= self.history.len() {
            self.history.pop_front();
        }
        self.history.push_back((at, value));
        let Some((before, last)) = self.counter.replace((at, value)) else { return };
        if value == last {
            return;
        }
        // What moved it may be the very work whose bytes were the last: then silence began with those. Less is a
        // new beginning: nothing is known from before it.
        let explained = |byte: Time| last < value && before < byte + lag && byte <= at;
        let moved = |byte| {
            if explained(byte) { byte.max(Time::ZERO + at.since(Time::ZERO + STALL_LOOK * 2)) } else { at }
        };
        let [byte, work_byte] = [flow.latest().last_byte, flow.latest().work_byte].map(Option::unwrap_or_default);
        self.counter_vouches |= last < value && !explained(byte) && flow.abandoned() > 0;
        self.counter_moved = self.counter_moved.max(Some(moved(byte)));
        self.counter_moved_by_work = self.counter_moved_by_work.max(Some(moved(work_byte)));
    }

    // What people read.

    /// How long work has been pending without progress.
    pub(super) fn silent_for(&self, now: Time) -> Duration {
        self.silent_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// The counter's readings, oldest first.
    pub(super) fn history(&self) -> impl Iterator<Item = (Time, f64)> {
        self.history.iter().copied()
    }

    fn sentence(&self, now: Time, since: Time, plan: &ProgressPlan, flow: &Flow, golden: Golden) -> String {
        let (traffic, busy_until) = (flow.latest(), flow.busy_until());
        let mut text = format!("stalled: no byte from the model server for {}", span(now.since(since)));
        let _ = match traffic.in_flight {
            0 => write!(text, " to the golden request"),
            count => write!(text, " with {} pending", requests(count)),
        };
        if traffic.last_byte.is_some_and(|last| since < last) {
            text.push_str(", but for questions and refusals that its front answers by itself");
        }
        if let Some(last) = traffic.last_byte.filter(|last| *last < since && busy_until == since) {
            let _ = write!(text, " beyond the work that clients gave up on (last byte {} ago)", span(now.since(last)));
        }
        if since < busy_until {
            let count = flow.abandoned();
            let _ = write!(text, ", though {count} requests that clients gave up on may be left over");
        }
        if let Some(counter) = &plan.counter {
            let value = self.counter.map_or(0.0, |(_, value)| value);
            let _ = match self.page {
                Page::Silent { .. } => write!(text, ", its metrics page silent too ({} was {value})", counter.name),
                _ => write!(text, ", {} frozen at {value}", counter.name),
            };
        }
        if plan.cpu.is_some() {
            let _ = write!(text, ", {}", self.processes.idleness());
        }
        if golden.burnt_at.is_some() && plan.golden.is_some() {
            text.push_str(", the golden request unanswered");
        }
        text
    }
}

fn judged(class: Class, reason: impl Into<Cow<'static, str>>) -> Judged {
    Judged { class, reason: reason.into(), look: false }
}

fn requests(count: u64) -> String {
    if count == 1 { "1 request".to_owned() } else { format!("{count} requests") }
}
