//! Checks that are judged by the traffic: samples and readings in, their states out.

use std::sync::Arc;
use std::time::Duration;

use super::check::Check;
use super::evidence::{Fault, Outcome, Verdict};
use super::origins::Origins;
use super::outcomes::Outcomes;
use super::plan::{CheckId, CheckPlan, Plan, TrafficRule};
use super::saturation::Marks;
use super::snapshot::{Changed, CheckState};
use super::stall::{Class, Stall};
use super::time::Time;
use super::traffic::Traffic;
use super::{Engine, check_id};

/// What a check that is judged by the traffic remembers of the present model server.
#[derive(Debug)]
pub(super) enum Watch {
    Outcomes(Box<Outcomes>),
    Progress(Box<Stall>),
    Saturation(Box<Marks>),
}

impl Watch {
    fn of(rule: &TrafficRule) -> Self {
        match rule {
            TrafficRule::Outcomes(_) => Self::Outcomes(Box::default()),
            TrafficRule::Progress(_) => Self::Progress(Box::default()),
            TrafficRule::Saturation(_) => Self::Saturation(Box::default()),
        }
    }
}

/// The checks that have such a rule.
pub(super) fn ruled(plan: &Plan) -> Vec<CheckId> {
    (0..plan.checks.len()).filter(|&index| plan.checks[index].rule.is_some()).map(check_id).collect()
}

impl Engine {
    pub(super) fn take_traffic(&mut self, sample: Traffic) {
        self.flow.told(self.now, sample, self.doubt.is_starved());
        self.note_saturation();
        self.count_lateness();
        for at in 0..self.ruled.len() {
            self.judge_by_traffic(self.ruled[at]);
        }
    }

    fn judge_by_traffic(&mut self, id: CheckId) {
        let check_plan = &self.plan.checks[id.index()];
        let Some(rule) = &check_plan.rule else { return };
        let (now, starved) = (self.now, self.doubt.is_starved());
        let golden_id = check_plan.progress().and_then(|progress| progress.golden);
        let golden = golden_id.map(|golden| self.checks[golden.index()].golden).unwrap_or_default();
        let alone = check_plan.progress().and_then(|_| self.hangs_alone()).map(str::to_owned);
        let check = &mut self.checks[id.index()];
        let before = check.standing();
        let (mut look, mut asked) = (false, None);
        if let Some(why) = self.flow.blindness(now, starved) {
            check.cannot_judge(now, why);
        } else {
            match (check.watch.get_or_insert_with(|| Watch::of(rule)), rule) {
                (Watch::Progress(stall), TrafficRule::Progress(plan)) => {
                    let judged = stall.judge(now, plan, &self.flow, golden, alone.as_deref());
                    look = judged.look;
                    asked = golden_id.filter(|golden_id| {
                        let timeout = self.plan.checks[golden_id.index()].timeout;
                        stall.wants_golden(now, plan, &self.flow, golden, timeout)
                    });
                    let remarkable = matches!(judged.class, Class::Stuck | Class::Withheld);
                    check.judged(now, judged.class == Class::Stalled, remarkable, false, &judged.reason);
                }
                (Watch::Outcomes(outcomes), TrafficRule::Outcomes(plan)) => {
                    let traffic = self.flow.latest();
                    let origins = self.origins.as_deref();
                    let judged = outcomes.judge(now, plan, traffic, origins, check_plan.success_threshold);
                    check.judged(now, judged.down, judged.trial || judged.withheld, judged.trial, &judged.reason);
                }
                (Watch::Saturation(marks), TrafficRule::Saturation(plan)) => {
                    let judged = marks.judge(now, plan, &self.flow, check_plan.max_age);
                    check.judged(now, judged.down, false, false, &judged.reason);
                }
                // A check of another kind is another check, and starts with nothing.
                (watch, rule) => *watch = Watch::of(rule),
            }
        }
        let changed = check.standing() != before;
        let remark = check.new_remark(before);
        if look {
            self.checks[id.index()].plan_attempt(now);
            self.begin_due(id);
        }
        if let Some(golden_id) = asked {
            self.ask_golden(golden_id);
        }
        if changed {
            self.refresh(id, "");
            if let Some(remark) = remark {
                let name = Changed::Check(self.plan.checks[id.index()].name.clone());
                self.tell(name, CheckState::Up.as_str(), CheckState::Up.as_str(), &remark);
            }
        } else {
            // Nothing that is worth telling: only fresher.
            self.views[id.index()] = None;
            let wake = self.checks[id.index()].wake(&self.plan.checks[id.index()], self.instance.started_at());
            self.schedule.set(id.0, wake);
        }
    }

    /// An attempt of a check that is judged by the traffic: what it read is evidence for the next sample.
    pub(super) fn take_reading(&mut self, id: CheckId, started: Time, outcome: &Outcome) {
        let plan = Arc::clone(&self.plan);
        let Some(rule) = &plan.checks[id.index()].rule else { return };
        let check = &mut self.checks[id.index()];
        check.ended();
        match (check.watch.get_or_insert_with(|| Watch::of(rule)), rule) {
            (Watch::Progress(stall), TrafficRule::Progress(plan)) => match (outcome.verdict, outcome.reading) {
                (Verdict::Pass, Some(reading)) => stall.take_reading(self.now, started, reading, plan, &self.flow),
                (verdict, reading) => {
                    let is_silent = verdict == Verdict::Fail(Fault::Timeout);
                    stall.take_failure(started, is_silent, &outcome.reason);
                    // By the deadline of a silent page the processes had been looked at, if they could be.
                    if is_silent || reading.is_some() {
                        stall.take_cpu_reading(self.now, reading.unwrap_or_default(), plan);
                    }
                }
            },
            (Watch::Saturation(marks), TrafficRule::Saturation(_)) => {
                let reading = outcome.reading.unwrap_or_default();
                marks.take_reading(Time::ZERO + self.now.since(Time::ZERO + reading.age), reading.value);
            }
            _ => {}
        }
    }

    /// A golden request was answered well: a trial of the model server as good as a real one.
    pub(super) fn golden_answered_well(&mut self) {
        for &id in &self.ruled {
            if let Some(Watch::Outcomes(outcomes)) = &mut self.checks[id.index()].watch {
                outcomes.answered_well();
            }
        }
    }

    /// Sends a golden request out of turn, unless one is in flight. What ended well before the silence holds it back no
    /// more: real requests do not say enough while they are silent.
    fn ask_golden(&mut self, id: CheckId) {
        self.checks[id.index()].plan_attempt(self.now);
        if self.begin(id) {
            self.checks[id.index()].golden.asked_at = Some(self.now);
            self.refresh(id, "");
        }
    }

    /// Whether an attempt that is due has to wait, for real requests say enough; it is asked again soon.
    pub(super) fn postpone(&mut self, id: CheckId) -> bool {
        /// How soon it is asked again.
        const SOON: Duration = Duration::from_secs(1);
        let Some(idle) = self.plan.checks[id.index()].only_when_idle else { return false };
        let check = &mut self.checks[id.index()];
        if !check.is_due(self.now) || !self.flow.succeeded_within(self.now, idle) || !check.is_up() {
            return false;
        }
        check.renew(self.now);
        check.plan_attempt(self.now + SOON);
        true
    }

    // For the report.

    /// How long work has been pending without progress, by the check that has seen it for longest.
    pub fn stalled_for(&self) -> Duration {
        self.ruled
            .iter()
            .filter_map(|&id| self.stall(id))
            .map(|stall| stall.silent_for(self.now))
            .max()
            .unwrap_or_default()
    }

    /// The last readings of a `progress` check's counter, oldest first; empty for any other check.
    pub fn counter_readings(&self, id: CheckId) -> Vec<(Time, f64)> {
        self.stall(id).map(|stall| stall.history().collect()).unwrap_or_default()
    }

    /// Requests that clients gave up on and that the model server may still be at: those that come now wait behind
    /// them.
    pub fn left_over(&self) -> u64 {
        if self.now < self.flow.busy_until() { self.flow.abandoned() } else { 0 }
    }

    /// The traffic as last told.
    pub const fn traffic(&self) -> &Traffic {
        self.flow.latest()
    }

    /// Whether any check is judged by the traffic or waits for it to rest.
    pub fn wants_traffic(&self) -> bool {
        let judged = !self.ruled.is_empty() || !self.patient.is_empty();
        judged || self.plan.checks.iter().any(|check| check.only_when_idle.is_some())
    }

    /// Whether a check asks who failed.
    pub fn wants_origins(&self) -> bool {
        self.plan.checks.iter().any(|check| matches!(check.rule, Some(TrafficRule::Outcomes(_))))
    }

    /// The origins as last told.
    pub fn origins(&self) -> Option<&Origins> {
        self.origins.as_deref()
    }

    fn stall(&self, id: CheckId) -> Option<&Stall> {
        match self.checks.get(id.index())?.watch.as_ref()? {
            Watch::Progress(stall) => Some(stall),
            Watch::Outcomes(_) | Watch::Saturation(_) => None,
        }
    }
}

impl Check {
    /// Whether something that it is to read has never been read from the present model server.
    pub(super) fn wants_first_reading(&self, plan: &CheckPlan) -> bool {
        match (plan.progress(), &self.watch) {
            (Some(progress), Some(Watch::Progress(stall))) => stall.lacks_a_reading(progress),
            (Some(progress), _) => progress.has_witness(),
            (None, _) => false,
        }
    }

    /// Notes how an attempt that sends a request of ours ended, for whoever judges silence by it.
    pub(super) fn note_answer(&mut self, started: Time, now: Time, outcome: &Outcome) {
        let has_answered = outcome.reading.is_some_and(|reading| reading.answers.is_some());
        match outcome.verdict {
            Verdict::Fail(Fault::Timeout) if !has_answered => {
                self.golden.unanswered_since.get_or_insert(started);
                self.golden.burnt_at = Some(now);
            }
            Verdict::Pass | Verdict::Fail(Fault::Answer | Fault::Timeout) => {
                let asked_at = self.golden.asked_at;
                self.golden = super::stall::Golden { answered_at: Some(now), asked_at, ..Default::default() };
            }
            Verdict::Fail(_) | Verdict::Unknown => {}
        }
    }
}
