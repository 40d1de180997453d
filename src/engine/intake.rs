//! Evidence coming in: results, and what they say about which model server this is.

use std::sync::Arc;

use super::check;
use super::doubt;
use super::instance::Presence;
use super::lateness::Lateness;
use super::plan::{BackendId, CheckId, OnTimeout, Subject};
use super::snapshot::{Changed, InstancePhase};
use super::time::Time;
use super::{Attempt, Engine, Fault, Outcome, Output, Sign, Verdict, check_id};
use crate::limits::GLANCE;

impl Engine {
    pub(super) fn take_result(&mut self, id: CheckId, attempt: Attempt, outcome: &Outcome) {
        let is_current = self.checks.get(id.index()).is_some_and(|check| check.is_in_flight(attempt));
        if !is_current {
            return;
        }
        if let Some(presence) = presence_of(outcome) {
            self.take_sign(id, presence);
        }
        if let Some(sign) = outcome.sign {
            self.take_sign(id, sign);
        }
        self.count(id, attempt, outcome);
        self.refresh(id, "");
    }

    /// Ends the attempt, counts what it says, plans the next.
    pub(super) fn count(&mut self, id: CheckId, attempt: Attempt, outcome: &Outcome) {
        let plan = Arc::clone(&self.plan);
        let plan = &plan.checks[id.index()];
        let check = &mut self.checks[id.index()];
        let Some(started) = check.end(attempt) else { return };
        check.note_answer(started, self.now, outcome);
        let remote = plan.subject == Subject::Remote;
        if remote {
            let failing = Some(doubt::is_network_failure(outcome.verdict));
            self.doubt.remote_changed(check.network_failing, failing);
            check.network_failing = failing;
            self.step_doubt();
        }
        if plan.rule.is_some() {
            self.take_reading(id, started, outcome);
            return self.plan_next(id, started);
        }
        let timeout = outcome.verdict == Verdict::Fail(Fault::Timeout);
        let doubted = remote && self.doubt.since().is_some() || timeout && self.doubt.is_starved();
        if timeout && !doubted && self.plan.checks[id.index()].on_timeout == OnTimeout::UnknownWhileMoving {
            let lateness = self.lateness(started);
            if lateness != Lateness::Counts {
                self.checks[id.index()].take_late(self.now, outcome, (lateness == Lateness::Kept).then_some(started));
                return self.plan_next(id, started);
            }
        }
        let plan = &self.plan.checks[id.index()];
        let check = &mut self.checks[id.index()];
        match plan.accuracy {
            Some(accuracy) => {
                let judged = check.accuracy.judge(self.now, accuracy, outcome);
                check.take(self.now, &judged, doubted, plan);
                if judged.verdict == Verdict::Unknown && outcome.verdict == Verdict::Pass {
                    check.holds(self.now);
                }
                if outcome.verdict == Verdict::Pass {
                    self.golden_answered_well();
                }
            }
            None => check.take(self.now, outcome, doubted, plan),
        }
        self.plan_next(id, started);
    }

    fn plan_next(&mut self, id: CheckId, started: Time) {
        let plan = &self.plan.checks[id.index()];
        let check = &self.checks[id.index()];
        // Until it has been read once, a counter can witness nothing.
        let mut interval = if check.wants_first_reading(plan) { plan.pending_interval } else { check.interval(plan) };
        if self.watches(id) {
            interval = interval.min(GLANCE);
        }
        let wait = self.jitter.stretch(interval, plan.jitter_permille);
        self.checks[id.index()].plan_attempt((started + wait).max(self.now));
    }

    /// A restart is called for: from now on the ports are watched closely, so that it is not missed.
    pub(super) fn watch_ports(&mut self) {
        for at in 0..self.plan.backends.len() {
            let id = self.plan.backends[at].check;
            let is_late = self.checks[id.index()].next_attempt().is_some_and(|next| next > self.now + GLANCE);
            if is_late && self.watches(id) {
                self.checks[id.index()].plan_attempt(self.now + GLANCE);
                self.refresh(id, "");
            }
        }
    }

    /// Whether a port is watched closely. Not while its own results decide its state: they count by their interval.
    fn watches(&self, id: CheckId) -> bool {
        let away = self.instance.phase() == InstancePhase::Gone;
        self.condemned
            && (away || !self.checks[id.index()].is_turning())
            && self.plan.backends.iter().any(|backend| backend.check == id)
    }

    fn take_sign(&mut self, id: CheckId, sign: Sign) {
        let subject = self.plan.checks[id.index()].subject;
        match (subject, sign) {
            (Subject::Backend(backend), Sign::Answered | Sign::Refused) => {
                self.take_backend_sign(backend, sign, Some(id));
            }
            (_, Sign::Answered | Sign::Refused) | (Subject::Local | Subject::Remote, _) => {}
            (Subject::Backend(_) | Subject::Server, Sign::CounterReset) => {
                // The first reading after a restart is always lower; only a second life seen by this very
                // check is news.
                if self.checks[id.index()].has_evidence() {
                    self.new_instance("a counter went backwards", Some(id));
                }
            }
            (Subject::Backend(_) | Subject::Server, Sign::Process { .. } | Sign::StartedAt { .. }) => {
                let known = self.checks[id.index()].identity.replace(sign);
                if known.is_some_and(|known| known != sign) {
                    let what = if matches!(sign, Sign::Process { .. }) { "its process" } else { "its start time" };
                    self.new_instance(&format!("{what} is another"), Some(id));
                    self.checks[id.index()].identity = Some(sign);
                }
            }
        }
    }

    pub(super) fn take_backend_sign(&mut self, backend: BackendId, sign: Sign, from: Option<CheckId>) {
        let Some(&presence) = self.presence.get(backend.index()) else { return };
        match (presence, sign) {
            (Presence::Unseen, Sign::Answered) => {
                self.presence[backend.index()] = Presence::Seen;
                self.forget_down(from);
            }
            (Presence::Seen, Sign::Refused) => {
                self.presence[backend.index()] = Presence::Gone;
                if !self.presence.contains(&Presence::Seen) {
                    self.instance_gone();
                }
            }
            (Presence::Gone, Sign::Answered) => {
                self.presence[backend.index()] = Presence::Seen;
                if self.instance.phase() == InstancePhase::Gone {
                    self.new_instance("it was gone and answers again", from);
                } else {
                    self.upstream_returned(backend);
                    self.forget(from, |subject| subject == Subject::Backend(backend));
                }
            }
            _ => {}
        }
    }

    /// Where nobody listens any more, for a person.
    pub(super) fn refused(&self) -> String {
        let backends = self.plan.backends.iter().zip(&self.presence);
        let gone = backends.filter(|&(_, presence)| *presence == Presence::Gone).map(|(b, _)| b.address.as_str());
        format!("connection refused by {}", gone.collect::<Vec<_>>().join(", "))
    }

    pub(super) fn instance_gone(&mut self) {
        let from = self.instance.phase();
        self.instance.gone(self.now, self.plan.startup.budget);
        let refused = self.refused();
        self.tell(Changed::Instance(self.instance.number()), from.as_str(), "gone", &refused);
        // What the traffic said was about requests that have ended with it, and is no reason to kill its successor
        // while that loads with the port still shut.
        self.flow.forget();
        for at in 0..self.ruled.len() {
            if self.checks[self.ruled[at].index()].is_down() {
                self.forget_one(self.ruled[at], "the model server has gone");
            }
        }
        for index in 0..self.checks.len() {
            if matches!(self.plan.checks[index].subject, Subject::Backend(_)) {
                self.refresh(check_id(index), "");
            }
        }
    }

    /// Another model server: whatever was known of the last one is forgotten, except for the check whose
    /// result is the first about the new one (`from`): its attempt goes on to count.
    pub(super) fn new_instance(&mut self, why: &str, from: Option<CheckId>) {
        let before = self.instance.phase();
        self.instance.begin(self.now, self.plan.startup.budget);
        self.flow.forget();
        self.passive.forget(self.now);
        self.tell(Changed::Instance(self.instance.number()), before.as_str(), "starting", why);
        self.forget(from, check::is_about_server);
        self.graph.relatch(&self.plan);
    }

    /// Somebody is there now, or has started: what was down before says nothing about it, and is looked at anew.
    pub(super) fn forget_down(&mut self, from: Option<CheckId>) {
        for index in 0..self.checks.len() {
            let about_server = check::is_about_server(self.plan.checks[index].subject);
            if about_server && from != Some(check_id(index)) && self.checks[index].is_down() {
                self.forget_one(check_id(index), "the model server has appeared");
            }
        }
    }

    fn forget_one(&mut self, id: CheckId, why: &str) {
        self.checks[id.index()].forget();
        self.abort(id);
        self.checks[id.index()].cancel_planned();
        self.plan_first_attempt(id);
        self.refresh(id, why);
    }

    fn forget(&mut self, from: Option<CheckId>, about: impl Fn(Subject) -> bool) {
        for index in 0..self.checks.len() {
            if !about(self.plan.checks[index].subject) {
                continue;
            }
            let (id, why) = (check_id(index), "a new model server has appeared");
            if from == Some(id) {
                self.checks[index].forget();
                self.refresh(id, why);
            } else {
                self.forget_one(id, why);
            }
        }
    }

    pub(super) fn abort(&mut self, id: CheckId) {
        if let Some(attempt) = self.checks[id.index()].abort() {
            self.outputs.push_back(Output::Cancel { check: id, attempt });
        }
    }
}

/// What an outcome says about whether somebody is there, whoever it is about.
const fn presence_of(outcome: &Outcome) -> Option<Sign> {
    match outcome.verdict {
        Verdict::Pass | Verdict::Fail(Fault::Answer) => Some(Sign::Answered),
        Verdict::Fail(Fault::Refused) => Some(Sign::Refused),
        Verdict::Fail(Fault::Local | Fault::Timeout | Fault::Unreachable) | Verdict::Unknown => None,
    }
}
