//! One check's life: results in, a state out. Knows nothing of other checks.

use std::time::Duration;

use super::Attempt;
use super::accuracy::Accuracy;
use super::evidence::{Fault, Outcome, Sign, Verdict};
use super::flow::Watch;
use super::plan::{CheckPlan, FailureRule, OnStale, OnTimeout, Subject};
use super::snapshot::{CheckState, CheckView, Evidence, Forced, ForcedView, Level};
use super::stall::Golden;
use super::time::{Time, earliest, plain};
use crate::limits::{CHECK_WINDOW_MAX, DEADLINE_SLACK};

#[derive(Debug)]
pub(super) struct Check {
    /// As measured: pending, up, down or stale. Overrides and skipping lie on top of it.
    measured: CheckState,
    /// The state as last shown, and since when.
    pub(super) shown: CheckState,
    pub(super) since: Time,
    passes: u32,
    failures: u32,
    failing_since: Option<Time>,
    /// The last results, newest in the lowest bit, a failure as 1.
    window: u64,
    last: Option<Evidence>,
    last_success: Option<Time>,
    /// When evidence last counted.
    evidence_at: Option<Time>,
    /// What the last fresh state said, while stale under `on_stale = "hold"`.
    held: Option<Level>,
    next_attempt: Option<Time>,
    in_flight: Option<InFlight>,
    attempts: u64,
    pub(super) forced: Option<ForcedView>,
    /// How many parents are down.
    pub(super) parents_down: u32,
    /// One of them, by name.
    pub(super) parent_down: String,
    /// Its `max_withdrawal` is used up.
    pub(super) waived: bool,
    pub(super) not_up_since: Option<Time>,
    /// The last sign of a process that it reported about the present model server.
    pub(super) identity: Option<Sign>,
    /// Whether the latest result was a failure of the network; none before the first.
    pub(super) network_failing: Option<bool>,
    /// What it remembers if it is judged by the traffic.
    pub(super) watch: Option<Watch>,
    /// How its own requests are answered.
    pub(super) golden: Golden,
    /// How many of them are answered right.
    pub(super) accuracy: Accuracy,
    /// Up on trial: single requests decide.
    pub(super) on_trial: bool,
    /// Timeouts in a row that count once the model server has been silent for too long, and when the first of
    /// those attempts began.
    late: Option<(Time, u32)>,
    /// Up, with a remark that is worth showing.
    remarkable: bool,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    attempt: Attempt,
    started: Time,
    deadline: Time,
}

impl Check {
    pub(super) fn new(now: Time) -> Self {
        Self {
            measured: CheckState::Pending,
            shown: CheckState::Pending,
            since: now,
            passes: 0,
            failures: 0,
            failing_since: None,
            window: 0,
            last: None,
            last_success: None,
            evidence_at: None,
            held: None,
            next_attempt: None,
            in_flight: None,
            attempts: 0,
            forced: None,
            parents_down: 0,
            parent_down: String::new(),
            waived: false,
            not_up_since: Some(now),
            identity: None,
            network_failing: None,
            watch: None,
            golden: Golden::default(),
            accuracy: Accuracy::default(),
            on_trial: false,
            late: None,
            remarkable: false,
        }
    }

    /// As the gates see it.
    pub(super) const fn state(&self) -> CheckState {
        match self.forced {
            Some(ForcedView { forced: Forced::Up, .. }) => CheckState::Up,
            Some(ForcedView { forced: Forced::Down, .. }) => CheckState::Down,
            None if self.parents_down > 0 => CheckState::Skipped,
            None => self.measured,
        }
    }

    /// For `/health`, `/startup` and children: fresh evidence only.
    pub(super) const fn strict(&self) -> Level {
        match self.state() {
            CheckState::Up => Level::Up,
            CheckState::Down => Level::Down,
            CheckState::Pending | CheckState::Stale | CheckState::Skipped => Level::Unknown,
        }
    }

    /// For `/ready`: what `max_withdrawal` and `on_stale` let through counts as up.
    pub(super) fn lenient(&self, plan: &CheckPlan) -> Level {
        let strict = self.strict();
        if strict == Level::Up || self.is_waived(plan) {
            return Level::Up;
        }
        match self.held {
            Some(held) if self.forced.is_none() && self.parents_down == 0 => held,
            _ => strict,
        }
    }

    /// For `/health`. While a new model server is awaited, a check of its port says nothing more: it is as silent
    /// while the new one loads.
    pub(super) fn condemning(&self, plan: &CheckPlan, awaits_server: bool) -> Level {
        let about_port = matches!(plan.subject, Subject::Backend(_));
        match self.strict() {
            Level::Down if awaits_server && about_port && self.forced.is_none() => Level::Unknown,
            level => level,
        }
    }

    /// Not up, but let through with a warning.
    pub(super) fn is_waived(&self, plan: &CheckPlan) -> bool {
        self.strict() != Level::Up
            && (self.waived || (self.state() == CheckState::Stale && plan.on_stale == OnStale::Degrade))
    }

    /// As measured, whatever lies on top of it.
    pub(super) fn is_down(&self) -> bool {
        self.measured == CheckState::Down
    }

    pub(super) fn is_up(&self) -> bool {
        self.measured == CheckState::Up
    }

    /// What of a judgement by the traffic is worth telling.
    pub(super) const fn standing(&self) -> (CheckState, bool, bool) {
        (self.measured, self.on_trial, self.remarkable)
    }

    /// What has become worth telling since it stood as `before`, though its state is the same.
    pub(super) fn new_remark(&self, before: (CheckState, bool, bool)) -> Option<String> {
        let same = self.is_up() && before.0 == CheckState::Up && self.shown == CheckState::Up;
        let new = same && self.remarkable && !before.2;
        self.last.as_ref().filter(|_| new).map(|last| last.reason.clone())
    }

    pub(super) const fn is_skipped(&self) -> bool {
        self.parents_down > 0
    }

    // Attempts.

    /// Plans the next attempt, unless one is in flight or the check is skipped.
    pub(super) fn plan_attempt(&mut self, at: Time) {
        if self.in_flight.is_none() && !self.is_skipped() {
            self.next_attempt = Some(at);
        }
    }

    pub(super) const fn cancel_planned(&mut self) {
        self.next_attempt = None;
    }

    /// Begins the planned attempt if it is due. Says its deadline.
    pub(super) fn begin_due(&mut self, now: Time, attempt: Attempt, plan: &CheckPlan) -> Option<Time> {
        if self.in_flight.is_some() || self.next_attempt.is_none_or(|at| at > now) {
            return None;
        }
        let deadline = now + plan.timeout;
        self.next_attempt = None;
        self.golden.began_at = Some(now);
        self.in_flight = Some(InFlight { attempt, started: now, deadline });
        Some(deadline)
    }

    /// Whether a planned attempt is due.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.in_flight.is_none() && self.next_attempt.is_some_and(|at| at <= now)
    }

    /// Ends the attempt in flight if it is this one. Says when it started.
    pub(super) fn end(&mut self, attempt: Attempt) -> Option<Time> {
        let in_flight = self.in_flight.filter(|in_flight| in_flight.attempt == attempt)?;
        self.in_flight = None;
        Some(in_flight.started)
    }

    pub(super) fn is_in_flight(&self, attempt: Attempt) -> bool {
        self.in_flight.is_some_and(|in_flight| in_flight.attempt == attempt)
    }

    /// Gives up whatever attempt is in flight.
    pub(super) fn abort(&mut self) -> Option<Attempt> {
        self.in_flight.take().map(|in_flight| in_flight.attempt)
    }

    /// The attempt in flight, if its collector has let even the slack after the deadline pass.
    pub(super) fn overdue(&self, now: Time) -> Option<(Attempt, Time)> {
        let in_flight = self.in_flight?;
        (in_flight.deadline + DEADLINE_SLACK <= now).then_some((in_flight.attempt, in_flight.started))
    }

    /// From the start of one attempt to the start of the next, as things stand.
    pub(super) fn interval(&self, plan: &CheckPlan) -> Duration {
        match self.measured {
            CheckState::Pending | CheckState::Stale | CheckState::Skipped => plan.pending_interval,
            CheckState::Up | CheckState::Down if self.is_turning() => plan.fast_interval,
            CheckState::Up => plan.interval,
            CheckState::Down => plan.down_interval,
        }
    }

    /// Whether its last results contradict its state: how soon the next ones come decides when it turns.
    pub(super) const fn is_turning(&self) -> bool {
        match self.measured {
            CheckState::Up => self.failures > 0,
            CheckState::Down => self.passes > 0,
            CheckState::Pending | CheckState::Stale | CheckState::Skipped => true,
        }
    }

    // Evidence.

    /// Takes a result. `doubted`: failures say nothing now.
    pub(super) fn take(&mut self, now: Time, outcome: &Outcome, doubted: bool, plan: &CheckPlan) {
        self.attempts += 1;
        self.last = Some(Evidence::from_outcome(now, outcome));
        match outcome.verdict {
            Verdict::Pass => {
                self.late = None;
                self.count(now, true, plan);
            }
            Verdict::Fail(fault) => {
                let busy = fault == Fault::Timeout && plan.on_timeout == OnTimeout::Unknown;
                if !doubted && !busy {
                    self.count_late(now, plan);
                    self.count(now, false, plan);
                }
            }
            Verdict::Unknown => {}
        }
    }

    /// Takes a timeout that is no news, for the model server moves. `kept`: it will be if that turns out otherwise,
    /// and its attempt began then.
    pub(super) fn take_late(&mut self, now: Time, outcome: &Outcome, kept: Option<Time>) {
        self.attempts += 1;
        let reason = format!("late, and no news while the model server moves: {}", outcome.reason);
        self.last = Some(Evidence { reason, ..Evidence::from_outcome(now, outcome) });
        self.late =
            kept.map(|started| self.late.map_or((started, 1), |(first, count)| (first, count.saturating_add(1))));
        if self.is_up() {
            self.remarkable = true;
            self.renew(now);
        }
    }

    /// The model server has moved: what was kept before is no news.
    pub(super) fn forgive_late(&mut self, byte: Time) {
        self.late = self.late.filter(|(first, _)| byte < *first);
    }

    /// Whether timeouts are kept that may count yet.
    pub(super) const fn has_late(&self) -> bool {
        self.late.is_some()
    }

    /// Counts the timeouts that were kept, if there are any.
    pub(super) fn count_late(&mut self, now: Time, plan: &CheckPlan) -> bool {
        let Some((_, late)) = self.late.take() else { return false };
        // As many as a window is wide: more make no difference.
        (0..late.min(CHECK_WINDOW_MAX)).for_each(|_| self.count(now, false, plan));
        true
    }

    /// Takes the judgement of one who looked at the traffic. `reason` says why it is down, or remarks.
    pub(super) fn judged(&mut self, now: Time, down: bool, remarkable: bool, on_trial: bool, reason: &str) {
        let verdict = if down { Verdict::Fail(Fault::Answer) } else { Verdict::Pass };
        // It is told some times a second, and is nearly always the same.
        let mut known = self.last.take().map(|last| last.reason).unwrap_or_default();
        if known != reason {
            reason.clone_into(&mut known);
        }
        self.last = Some(Evidence { at: now, verdict, reason: known, latency: Duration::ZERO });
        self.evidence_at = Some(now);
        (self.remarkable, self.on_trial) = (remarkable, on_trial);
        self.failures = u32::from(down);
        self.passes = u32::from(!down);
        self.held = None;
        if down {
            self.measured = CheckState::Down;
            self.failing_since.get_or_insert(now);
        } else {
            self.measured = CheckState::Up;
            self.failing_since = None;
            self.last_success = Some(now);
        }
    }

    /// The traffic cannot be seen: what was well counts as well for as long, and no verdict stands on nothing.
    pub(super) fn cannot_judge(&mut self, now: Time, why: &str) {
        if self.is_up() {
            let reason = format!("cannot be judged: {why}");
            self.last = Some(Evidence { at: now, verdict: Verdict::Unknown, reason, latency: Duration::ZERO });
            self.evidence_at = Some(now);
        }
    }

    /// Evidence from elsewhere says that it holds on.
    pub(super) const fn renew(&mut self, now: Time) {
        self.evidence_at = Some(now);
    }

    /// A result that turns nothing, and is worth showing.
    pub(super) fn holds(&mut self, now: Time) {
        self.evidence_at = self.evidence_at.map(|_| now);
        self.remarkable = self.is_up();
    }

    /// The engine itself did not run until now: evidence grows old from here.
    pub(super) fn outlived(&mut self, now: Time) {
        self.evidence_at = self.evidence_at.map(|_| now);
    }

    /// An attempt ended that counts neither for nor against.
    pub(super) const fn ended(&mut self) {
        self.attempts += 1;
    }

    fn count(&mut self, now: Time, pass: bool, plan: &CheckPlan) {
        self.evidence_at = Some(now);
        self.remarkable = false;
        self.window = self.window << 1 | u64::from(!pass);
        if pass {
            self.passes = self.passes.saturating_add(1);
            self.failures = 0;
            self.failing_since = None;
            self.last_success = Some(now);
        } else {
            self.passes = 0;
            self.failures = self.failures.saturating_add(1);
            self.failing_since.get_or_insert(now);
        }
        self.measured = self.decide(plan);
        if matches!(self.measured, CheckState::Up | CheckState::Down) {
            self.held = None;
        }
    }

    fn decide(&self, plan: &CheckPlan) -> CheckState {
        let down = match plan.failure_rule {
            FailureRule::Consecutive(threshold) => self.failures >= threshold,
            FailureRule::Window { fail, of } => {
                let mask = u64::MAX >> (64 - of.clamp(1, 64));
                (self.window & mask).count_ones() >= fail
            }
        };
        if down {
            CheckState::Down
        } else if self.passes >= plan.success_threshold {
            CheckState::Up
        } else if self.measured == CheckState::Stale {
            CheckState::Pending
        } else {
            self.measured
        }
    }

    /// When the evidence becomes stale.
    fn stale_at(&self, plan: &CheckPlan) -> Option<Time> {
        match self.measured {
            CheckState::Up | CheckState::Down => self.evidence_at.map(|at| at + plan.max_age),
            CheckState::Pending | CheckState::Stale | CheckState::Skipped => None,
        }
    }

    /// Turns stale if it is time.
    pub(super) fn expire(&mut self, now: Time, plan: &CheckPlan) {
        if self.stale_at(plan).is_none_or(|at| at > now) {
            return;
        }
        if plan.on_stale == OnStale::Hold {
            self.held = Some(if self.measured == CheckState::Up { Level::Up } else { Level::Down });
        }
        self.measured = CheckState::Stale;
        self.forget_streaks();
    }

    /// Back to pending: what it knew was about something that is no more.
    pub(super) fn forget(&mut self) {
        self.measured = CheckState::Pending;
        self.last = None;
        self.evidence_at = None;
        self.held = None;
        self.identity = None;
        self.watch = None;
        self.golden = Golden::default();
        self.accuracy = Accuracy::default();
        self.on_trial = false;
        self.late = None;
        self.remarkable = false;
        self.forget_streaks();
    }

    const fn forget_streaks(&mut self) {
        self.passes = 0;
        self.failures = 0;
        self.failing_since = None;
        self.window = 0;
    }

    /// Whether it has spoken about the present model server at all.
    pub(super) const fn has_evidence(&self) -> bool {
        self.evidence_at.is_some()
    }

    /// When it wants to be looked at by itself. `started`: since when `max_withdrawal` may count at all.
    pub(super) fn wake(&self, plan: &CheckPlan, started: Option<Time>) -> Option<Time> {
        earliest([
            self.next_attempt,
            self.in_flight.map(|in_flight| in_flight.deadline + DEADLINE_SLACK),
            if self.is_skipped() { None } else { self.stale_at(plan) },
            self.forced.map(|forced| forced.until),
            self.withdrawal_ends(plan, started),
        ])
    }

    /// When it will have kept the pod out for as long as it may.
    pub(super) fn withdrawal_ends(&self, plan: &CheckPlan, started: Option<Time>) -> Option<Time> {
        if self.waived {
            return None;
        }
        Some(self.not_up_since?.max(started?) + plan.max_withdrawal?)
    }

    // What people read.

    /// Why it is in its state, without times. Empty when simply up.
    pub(super) fn reason(&self, plan: &CheckPlan) -> String {
        if let Some(view) = self.forced {
            return format!("forced {} by hand", view.forced.as_str());
        }
        let last = self.last.as_ref().map_or("", |last| last.reason.as_str());
        match self.state() {
            CheckState::Up if self.failures > 0 => {
                format!("failing ({} of {}): {last}", self.failures_of(plan).0, self.failures_of(plan).1)
            }
            CheckState::Up if self.remarkable => last.to_owned(),
            CheckState::Up => String::new(),
            CheckState::Down => last.to_owned(),
            CheckState::Pending if self.last.is_none() => "no result yet".to_owned(),
            CheckState::Pending if last.is_empty() => "not enough results yet".to_owned(),
            CheckState::Pending => format!("not decided yet: {last}"),
            CheckState::Stale if last.is_empty() => format!("no fresh result for {}", plain(plan.max_age)),
            CheckState::Stale => format!("no fresh result for {}; last: {last}", plain(plan.max_age)),
            CheckState::Skipped => format!("depends on {}, which is down", self.parent_down),
        }
    }

    /// Failures that count so far, and how many it takes.
    pub(super) fn failures_of(&self, plan: &CheckPlan) -> (u32, u32) {
        match plan.failure_rule {
            FailureRule::Consecutive(threshold) => (self.failures, threshold),
            FailureRule::Window { fail, of } => {
                let mask = u64::MAX >> (64 - of.clamp(1, 64));
                ((self.window & mask).count_ones(), fail)
            }
        }
    }

    pub(super) const fn is_failing(&self) -> bool {
        self.failures > 0
    }

    pub(super) const fn next_attempt(&self) -> Option<Time> {
        self.next_attempt
    }

    pub(super) fn view(&self, plan: &CheckPlan) -> CheckView {
        CheckView {
            name: plan.name.clone(),
            kind: plan.kind,
            target: plan.target.clone(),
            state: self.shown,
            since: self.since,
            last: self.last.clone(),
            passes: self.passes,
            failures: self.failures,
            failing_since: self.failing_since,
            last_success: self.last_success,
            next_attempt: self.next_attempt,
            in_flight_since: self.in_flight.map(|in_flight| in_flight.started),
            forced: self.forced,
            reason: self.reason(plan),
            attempts: self.attempts,
            scope: plan.scope,
            runbook: plan.runbook.clone(),
            accuracy: self.accuracy.share().filter(|_| self.measured != CheckState::Stale),
        }
    }
}

/// Whether a check looks at the model server, and through which address.
pub(super) const fn is_about_server(subject: Subject) -> bool {
    matches!(subject, Subject::Backend(_) | Subject::Server)
}
