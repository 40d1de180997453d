//! Which upstream addresses the traffic has discredited, and their way back.
//!
//! Owns ejection (too many failures in a row, too small a share of good ends, or silence with requests pending
//! for as long as makes a hang), its time, and probation: after an ejection, or after it was gone, an address is
//! trusted again only once a single real request has ended well. It refuses to empty the set: a share at most is
//! out, and one address that its own check holds open is always trusted. It speaks about addresses only; no gate
//! hears of it.

use std::time::Duration;

use super::ends::Ends;
use super::plan::{BackendId, PassivePlan};
use super::time::Time;
use super::view::span;
use super::window::Window;
use crate::limits::OWED_IDLE;

/// Steps that a window is cut into, so that its length costs nothing.
const STEPS: u32 = 32;

/// What its own check says of an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Door {
    Shut,
    /// Open without its check's word: somebody has had an answer from it.
    Ajar,
    /// Its check is up.
    Open,
}

impl Door {
    const fn is_open(self) -> bool {
        !matches!(self, Self::Shut)
    }
}

/// How far the traffic trusts an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trust {
    Full,
    /// One request at a time; the first that ends decides. `quiet`: since when none has come.
    Probation {
        quiet: Time,
    },
    Ejected {
        until: Time,
    },
}

impl Trust {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "trusted",
            Self::Probation { .. } => "probation",
            Self::Ejected { .. } => "ejected",
        }
    }

    const fn is_full(self) -> bool {
        matches!(self, Self::Full)
    }
}

/// How often an address was ejected, by cause.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ejections {
    /// For failures in a row.
    pub consecutive_failures: u64,
    /// For too small a share of good ends.
    pub success_ratio: u64,
    /// For a request on trial that failed.
    pub probation: u64,
    /// For silence with requests pending.
    pub silence: u64,
}

/// One address as the traffic shows it.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) trust: Trust,
    pub(super) since: Time,
    /// Why it is not trusted; while it is, why it should not be, if the others leave no choice.
    pub(super) reason: String,
    pub(super) ejections: Ejections,
    /// Ejections in a row, each longer than the last.
    repeats: u32,
    seen: Option<Ends>,
    /// Failures up to this count are no evidence: they are about a former life, or were seen in doubt.
    excused: u64,
    window: Window,
    /// For how long somebody has waited, all in all, without a byte to anybody.
    waited: Duration,
    /// For how long somebody has waited there, all in all, since the whole last moved.
    pending_for: Duration,
    /// When a request was last seen pending there.
    awaited_at: Option<Time>,
}

/// A change of trust, to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Move {
    pub(super) backend: BackendId,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) reason: String,
}

/// Every address, by `BackendId`.
#[derive(Clone, Debug, Default)]
pub(super) struct Passive {
    lives: Vec<Life>,
    moves: Vec<Move>,
    /// When the last sample came.
    told_at: Option<Time>,
    /// Something that is shown has changed, though no trust has.
    remarked: bool,
}

#[derive(Clone, Copy, Debug)]
enum Charge {
    Row,
    Ratio,
    Silence,
    Trial,
}

/// How a sample is to be taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bearing {
    /// What is seen now is no evidence.
    pub(super) doubt: bool,
    /// Silence is explained: work that clients gave up on may be left over.
    pub(super) excused: bool,
    /// Silence of so long is a hang.
    pub(super) stall_after: Duration,
    /// The last sign of life of the whole.
    pub(super) moved: Option<Time>,
}

impl Life {
    fn new(now: Time) -> Self {
        Self {
            trust: Trust::Full,
            since: now,
            reason: String::new(),
            ejections: Ejections::default(),
            repeats: 0,
            seen: None,
            excused: 0,
            window: Window::default(),
            waited: Duration::ZERO,
            pending_for: Duration::ZERO,
            awaited_at: None,
        }
    }

    /// Clients that give up one after the other wait all in all; the time between them is nobody's, and after long
    /// enough what came before is forgotten. `before`: the sample before this one, and when it was told.
    fn listen(&mut self, now: Time, sample: &Ends, before: (&Ends, Time), bearing: &Bearing) {
        let rested = self.awaited_at.is_none_or(|at| OWED_IDLE <= now.since(at));
        if before.0.last_byte < sample.last_byte || bearing.doubt || bearing.excused || rested {
            self.waited = Duration::ZERO;
        } else if sample.pending > 0 && before.0.pending > 0 {
            self.waited += now.since(before.1);
        }
        if bearing.doubt || rested || before.1 < bearing.moved.unwrap_or_default() {
            self.pending_for = Duration::ZERO;
        } else if sample.pending > 0 && before.0.pending > 0 {
            self.pending_for += now.since(before.1);
        }
        if sample.pending > 0 {
            self.awaited_at = Some(now);
        }
    }

    /// Whether it hangs, as one of several.
    fn silence(&self, bearing: &Bearing) -> Option<String> {
        let pending = self.seen.map_or(0, |seen| seen.pending);
        let requests = if pending == 1 { "1 request".to_owned() } else { format!("{pending} requests") };
        let text = || format!("no byte for {} with {requests} pending", span(bearing.stall_after));
        (pending > 0 && bearing.stall_after <= self.waited).then(text)
    }

    /// Takes the counts as they are: what came before is no evidence any more.
    fn excuse(&mut self) {
        self.excused = self.seen.map_or(0, |seen| seen.failed);
        self.window.clear();
    }

    fn row(&self) -> u64 {
        self.seen.map_or(0, |seen| seen.row.min(seen.failed.saturating_sub(self.excused)))
    }

    fn note(&mut self, now: Time, plan: &PassivePlan, good: u64, bad: u64) {
        self.window.expire(now, |age| plan.window < age);
        self.window.add(now, plan.window / STEPS, good, bad);
    }

    /// What speaks against it, if enough does.
    fn complaint(&self, plan: &PassivePlan, bearing: &Bearing) -> Option<(Charge, String)> {
        if let Some(text) = self.silence(bearing) {
            return Some((Charge::Silence, text));
        }
        let looked = self.seen.and_then(|seen| seen.failure).map(|failure| format!(", the last: {}", failure.words()));
        let looked = looked.unwrap_or_default();
        let row = self.row();
        if plan.consecutive_failures > 0 && u64::from(plan.consecutive_failures) <= row {
            return Some((Charge::Row, format!("{row} requests failed in a row{looked}")));
        }
        let (good, bad) = self.window.sums();
        let all: u64 = good + bad;
        if all < u64::from(plan.min_requests) || u64::from(plan.min_success_permille) * all <= good * 1000 {
            return None;
        }
        let text = format!("{bad} of the last {all} requests failed within {}{looked}", span(plan.window));
        Some((Charge::Ratio, text))
    }
}

impl Passive {
    pub(super) fn new(now: Time, backends: usize) -> Self {
        Self { lives: (0..backends).map(|_| Life::new(now)).collect(), ..Self::default() }
    }

    /// A new set of addresses; `before` tells the place that each had in the old one.
    pub(super) fn renumbered(&self, now: Time, before: impl Iterator<Item = Option<usize>>) -> Self {
        let life = |old: Option<usize>| old.and_then(|old| self.lives.get(old)).cloned();
        Self { lives: before.map(|old| life(old).unwrap_or_else(|| Life::new(now))).collect(), ..Self::default() }
    }

    pub(super) fn life(&self, backend: usize) -> Option<&Life> {
        self.lives.get(backend)
    }

    /// What has changed and is not told yet.
    pub(super) fn take_moves(&mut self) -> Vec<Move> {
        std::mem::take(&mut self.moves)
    }

    /// Whether something that is shown has changed since last asked, though no trust has.
    pub(super) fn take_remarked(&mut self) -> bool {
        std::mem::take(&mut self.remarked)
    }

    /// Takes a sample: one for each address, in the order of the backends; missing ones say nothing.
    pub(super) fn told(&mut self, now: Time, plan: &PassivePlan, samples: &[Ends], doors: &[Door], bearing: &Bearing) {
        let doubt = bearing.doubt;
        let told_before = self.told_at.replace(now).unwrap_or(now);
        for (index, &sample) in samples.iter().enumerate().take(self.lives.len()) {
            let life = &mut self.lives[index];
            let before = life.seen.replace(sample).unwrap_or(sample);
            life.listen(now, &sample, (&before, told_before), bearing);
            let silence = life.silence(bearing);
            let news = |now: u64, then: u64| now.saturating_sub(then);
            let (good, bad) = (news(sample.succeeded, before.succeeded), news(sample.failed, before.failed));
            if sample.failed < before.failed {
                // Counted anew.
                life.excused = 0;
            }
            if doubt {
                life.excuse();
            } else {
                life.note(now, plan, good, bad);
            }
            let won = news(sample.trials_succeeded, before.trials_succeeded) > 0;
            let lost = !doubt && news(sample.trials_failed, before.trials_failed) > 0;
            let tried = sample.trying || news(sample.trials_unanswered, before.trials_unanswered) > 0;
            match life.trust {
                Trust::Probation { .. } if won => self.trust(now, index, "a request on trial ended well"),
                Trust::Probation { .. } if lost => self.trial_failed(now, plan, index),
                Trust::Probation { .. } if silence.is_some() => {
                    self.eject(now, plan, index, Charge::Silence, silence.unwrap_or_default());
                }
                Trust::Probation { .. } if tried => {
                    life.trust = Trust::Probation { quiet: now };
                    self.remarked = true;
                }
                Trust::Full if !doubt => self.judge(now, plan, index, doors, bearing),
                _ => {}
            }
        }
        self.step(now, plan, doors);
    }

    /// The one that has had somebody wait for longest while the whole is silent, if another stands ready to take work:
    /// open, not ejected, and nobody has waited there for as long as makes a hang.
    pub(super) fn hangs_alone(&self, doors: &[Door], bearing: &Bearing) -> Option<usize> {
        let all = || self.lives.iter().enumerate();
        let is_ready = |(index, life): (usize, &Life)| {
            let is_out = matches!(life.trust, Trust::Ejected { .. });
            is_open(doors, index) && !is_out && life.seen.is_some() && life.pending_for < bearing.stall_after
        };
        let (longest, _) = all().max_by_key(|(_, life)| life.pending_for)?;
        all().filter(|(index, _)| *index != longest).any(is_ready).then_some(longest)
    }

    fn judge(&mut self, now: Time, plan: &PassivePlan, index: usize, doors: &[Door], bearing: &Bearing) {
        let life = &mut self.lives[index];
        if life.repeats > 0 && plan.max_ejection <= now.since(life.since) {
            life.repeats = 0;
        }
        let Some((charge, text)) = life.complaint(plan, bearing) else {
            self.remarked |= !life.reason.is_empty();
            life.reason.clear();
            return;
        };
        match self.spared(plan, index, doors) {
            Some(why) => {
                self.lives[index].reason = format!("{text}; not ejected: {why}");
                self.remarked = true;
            }
            None => self.eject(now, plan, index, charge, text),
        }
    }

    /// Why it stays although enough speaks against it.
    fn spared(&self, plan: &PassivePlan, index: usize, doors: &[Door]) -> Option<&'static str> {
        let others = || self.lives.iter().enumerate().filter(move |(other, _)| *other != index);
        let out = others().filter(|(_, life)| !life.trust.is_full()).count();
        if !others().any(|(other, life)| life.trust.is_full() && is_open(doors, other)) {
            Some("no other upstream is left")
        } else if most_out(plan, self.lives.len()) <= out {
            Some("as many are out as `max_ejected` allows")
        } else {
            None
        }
    }

    fn eject(&mut self, now: Time, plan: &PassivePlan, index: usize, charge: Charge, reason: String) {
        let life = &mut self.lives[index];
        life.repeats = life.repeats.saturating_add(1);
        let time = plan.base_ejection.saturating_mul(life.repeats).min(plan.max_ejection);
        match charge {
            Charge::Row => life.ejections.consecutive_failures += 1,
            Charge::Ratio => life.ejections.success_ratio += 1,
            Charge::Silence => life.ejections.silence += 1,
            Charge::Trial => life.ejections.probation += 1,
        }
        self.set(now, index, Trust::Ejected { until: now + time }, reason);
    }

    fn trial_failed(&mut self, now: Time, plan: &PassivePlan, index: usize) {
        let failure = self.lives[index].seen.and_then(|seen| seen.failure);
        let looked = failure.map_or_else(String::new, |failure| format!(": {}", failure.words()));
        self.eject(now, plan, index, Charge::Trial, format!("a request on trial failed{looked}"));
    }

    /// Moves on whatever is due.
    pub(super) fn step(&mut self, now: Time, plan: &PassivePlan, doors: &[Door]) {
        for index in 0..self.lives.len() {
            let life = &self.lives[index];
            match life.trust {
                Trust::Ejected { until } if until <= now && is_open(doors, index) => {
                    let reason = format!("on trial, one request at a time: {}", life.reason);
                    self.set(now, index, Trust::Probation { quiet: now }, reason);
                }
                Trust::Probation { quiet }
                    if quiet + plan.probation <= now && doors.get(index) == Some(&Door::Open) =>
                {
                    self.trust(now, index, "no request came to try it, and its check is up");
                }
                _ => {}
            }
        }
        let open = |(index, life): &(usize, &Life)| is_open(doors, *index) && life.trust.is_full();
        if !self.lives.iter().enumerate().any(|one| open(&one)) {
            for index in 0..self.lives.len() {
                if is_open(doors, index) {
                    self.trust(now, index, "no other upstream is left");
                }
            }
        }
    }

    /// It was gone and answers again: another process, that has yet to show itself.
    pub(super) fn returned(&mut self, now: Time, backend: BackendId) {
        if let Some(life) = self.lives.get_mut(backend.index()) {
            life.repeats = 0;
            let reason = "on trial, one request at a time: it was gone and answers again".to_owned();
            self.set(now, backend.index(), Trust::Probation { quiet: now }, reason);
        }
    }

    /// Another model server altogether: nothing is known against it.
    pub(super) fn forget(&mut self, now: Time) {
        for index in 0..self.lives.len() {
            self.lives[index].repeats = 0;
            self.lives[index].excuse();
            self.trust(now, index, "a new model server has appeared");
        }
    }

    /// When to look again, if nothing comes.
    pub(super) fn wake(&self, now: Time, plan: &PassivePlan) -> Option<Time> {
        let due = |life: &Life| match life.trust {
            Trust::Full => None,
            Trust::Ejected { until } => Some(until),
            Trust::Probation { quiet } => Some(quiet + plan.probation),
        };
        // What is due already waits for its check, and that wakes us.
        self.lives.iter().filter_map(due).filter(|at| now < *at).min()
    }

    fn trust(&mut self, now: Time, index: usize, why: &str) {
        let life = &mut self.lives[index];
        if life.trust.is_full() {
            life.reason.clear();
            return;
        }
        life.excuse();
        self.set(now, index, Trust::Full, why.to_owned());
        self.lives[index].reason.clear();
    }

    fn set(&mut self, now: Time, index: usize, to: Trust, reason: String) {
        let life = &mut self.lives[index];
        // The number of addresses is that of a plan's backends.
        let backend = BackendId(index as u32);
        self.moves.push(Move { backend, from: life.trust.as_str(), to: to.as_str(), reason: reason.clone() });
        life.trust = to;
        life.since = now;
        life.reason = reason;
    }
}

fn is_open(doors: &[Door], index: usize) -> bool {
    doors.get(index).is_some_and(|door| door.is_open())
}

/// How many may be out at once: the share, and one at least, for else two addresses would be none.
fn most_out(plan: &PassivePlan, backends: usize) -> usize {
    (backends * plan.max_ejected_permille as usize / 1000).max(1)
}

#[cfg(test)]
mod tests;
