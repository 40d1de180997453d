//! The published view, made from the engine's state: every status with its reasons and what comes next.

use std::sync::Arc;
use std::time::Duration;

use super::graph::Levels;
use super::plan::{CheckId, GroupId, Member, TrafficRule};
use super::snapshot::{
    Cause, CheckView, DoubtView, Gate, GateView, GroupView, InstancePhase, Level, Next, Snapshot, Status, Why,
};
use super::time::plain;
use super::{Engine, check_id};
use crate::limits::GATE_REASONS;

impl Engine {
    /// The judgement now, with reasons. Costs as much as the plan is long; take it when [`Engine::revision`] moved.
    pub fn snapshot(&mut self) -> Snapshot {
        let checks: Arc<[Arc<CheckView>]> = (0..self.checks.len()).map(|index| self.check_view(index)).collect();
        Snapshot {
            revision: self.revision,
            at: self.now,
            plan: Arc::clone(&self.plan),
            startup: self.gate_view(Gate::Startup),
            ready: self.gate_view(Gate::Ready),
            health: self.gate_view(Gate::Health),
            checks,
            groups: (0..self.plan.groups.len()).map(|index| self.group_view(index)).collect(),
            backends: (0..self.plan.backends.len()).map(|index| self.backend_view(index)).collect(),
            instance: self.instance.view(),
            model: self.model_view(),
            drain: self.drain.view(self.plan.drain),
            disabled_since: self.disabled_since,
            trial: self.graph.members(Gate::Ready).iter().any(|member| self.checks[member.check.index()].on_trial),
            shedding: self.shedding(),
            doubt: self.doubt.since().map(|since| DoubtView { since, reason: self.doubt.reason().unwrap_or_default() }),
            history: self.history.view(),
        }
    }

    fn check_view(&mut self, index: usize) -> Arc<CheckView> {
        let (check, plan) = (&self.checks[index], &self.plan.checks[index]);
        Arc::clone(self.views[index].get_or_insert_with(|| Arc::new(check.view(plan))))
    }

    fn group_view(&self, index: usize) -> GroupView {
        let id = GroupId(u32::try_from(index).unwrap_or(u32::MAX));
        let (up, of, min) = self.graph.group_counts(id);
        let level = self.graph.level(Member::Group(id)).strict;
        GroupView { name: self.plan.groups[index].name.clone(), level, up, of, min }
    }

    fn gate_view(&self, gate: Gate) -> GateView {
        let state = self.gates[gate as usize];
        let why = self.why(gate);
        let next = self.next(gate, state.status, why.first());
        GateView {
            gate,
            status: state.status,
            since: state.since,
            why,
            next,
            members: self.graph.members(gate).to_vec(),
        }
    }

    /// Why a gate has just turned, in one line.
    pub(super) fn headline(&self, gate: Gate) -> String {
        if let Some(why) = self.why_above(gate).into_iter().next() {
            return why.text;
        }
        let moved = self.moved.filter(|&id| self.graph.speaks_in(id, gate)).and_then(|id| self.why_check(gate, id));
        if let Some(why) = moved.or_else(|| self.why_checks(gate).next()) {
            return why.text;
        }
        match gate {
            Gate::Startup => "every required check has been up",
            Gate::Ready => "every required check is up",
            Gate::Health => "no required check is down",
        }
        .to_owned()
    }

    /// Why it is not a plain pass, the deciding reason first, at most so many.
    fn why(&self, gate: Gate) -> Vec<Why> {
        let mut all = self.why_above(gate);
        let room = GATE_REASONS.saturating_sub(all.len());
        let mut checks: Vec<Why> = self.why_checks(gate).collect();
        // What fails before what only degrades; otherwise in the file's order.
        checks.sort_by_key(|why| !matches!(why.cause, Cause::Check(_)));
        all.extend(checks.into_iter().take(room));
        all
    }

    /// Reasons that stand above single checks.
    pub(super) fn why_above(&self, gate: Gate) -> Vec<Why> {
        let mut all = Vec::new();
        match gate {
            Gate::Ready => {
                if self.drain.is_draining() {
                    all.push(why(Cause::Draining, self.drain.view(self.plan.drain).since, "the pod is draining"));
                }
                if let Some(since) = self.disabled_since {
                    all.push(why(Cause::Disabled, since, "taken out of rotation by hand"));
                }
                match self.instance.phase() {
                    InstancePhase::Starting => all.push(self.why_starting()),
                    InstancePhase::Gone if !self.plan.startup.require.is_empty() => all.push(self.why_gone()),
                    InstancePhase::Gone | InstancePhase::Started => {}
                }
            }
            Gate::Startup => match self.instance.phase() {
                _ if self.plan.startup.require.is_empty() => {}
                InstancePhase::Started => {}
                InstancePhase::Starting => all.push(self.why_starting()),
                InstancePhase::Gone => all.push(self.why_gone()),
            },
            Gate::Health => {
                let status = self.gates[Gate::Health as usize].status;
                if self.would_condemn() && status == Status::Warn {
                    all.push(self.why_held_back());
                }
                let starting = self.instance.phase() == InstancePhase::Starting;
                if self.is_overdue() || starting && self.graph.health_down() {
                    all.push(self.why_starting());
                } else if self.instance.phase() == InstancePhase::Gone && !self.graph.health_down() {
                    all.push(self.why_gone());
                }
            }
        }
        all
    }

    fn why_starting(&self) -> Why {
        let waits: Vec<&str> = self
            .plan
            .startup
            .require
            .iter()
            .enumerate()
            .filter(|&(index, _)| !self.graph.is_latched(index))
            .map(|(_, &member)| self.plan.member_name(member))
            .collect();
        let shown = waits.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        let more = if waits.len() > 3 { format!(" and {} more", waits.len() - 3) } else { String::new() };
        let since = self.instance.since();
        if self.is_overdue() {
            let budget = plain(self.plan.startup.budget);
            let waits = if shown.is_empty() { "a new model server".to_owned() } else { shown + &more };
            let text = format!("the startup budget of {budget} is spent, still waiting for {waits}");
            return Why { cause: Cause::StartupBudget, since, text };
        }
        Why { cause: Cause::Starting, since, text: format!("the model server is starting: waiting for {shown}{more}") }
    }

    fn why_gone(&self) -> Why {
        let text = format!("the model server is gone: {}; waiting for a new one", self.refused());
        Why { cause: Cause::Gone, since: self.instance.since(), text }
    }

    fn why_held_back(&self) -> Why {
        if let (Some(since), Some(reason)) = (self.doubt.since(), self.doubt.reason()) {
            return Why { cause: Cause::Doubt, since, text: format!("a verdict is withheld: {reason}") };
        }
        let budget = self.plan.health.restart_budget;
        let text = format!(
            "the restart budget is spent ({} per {}): a restart is held back",
            budget.count,
            plain(budget.window)
        );
        Why { cause: Cause::RestartBudget, since: self.gates[Gate::Health as usize].since, text }
    }

    pub(super) fn why_checks(&self, gate: Gate) -> impl Iterator<Item = Why> {
        self.graph.members(gate).iter().filter_map(move |member| self.why_check(gate, member.check))
    }

    /// What one check has to say against a gate, if it is heard: a member of a group that is satisfied is not.
    fn why_check(&self, gate: Gate, id: CheckId) -> Option<Why> {
        let (check, plan) = (&self.checks[id.index()], &self.plan.checks[id.index()]);
        let strict = check.strict();
        let cause = match gate {
            Gate::Startup if self.instance.phase() == InstancePhase::Started => return None,
            Gate::Startup => (strict != Level::Up).then_some(Cause::Check(id)),
            Gate::Health => (check.condemning(plan, self.awaits_server()) == Level::Down).then_some(Cause::Check(id)),
            Gate::Ready => {
                let required = self.graph.required_for_ready(id);
                match (required, check.lenient(plan) == Level::Up) {
                    (true, true) if check.waived && check.is_waived(plan) => Some(Cause::Withdrawn(id)),
                    (true, true) if check.is_waived(plan) => Some(Cause::Degraded(id)),
                    (_, true) => None,
                    (true, false) => Some(Cause::Check(id)),
                    (false, false) => Some(Cause::Degraded(id)),
                }
            }
        }?;
        let group = self.unsatisfied_group(gate, id)?;
        let reason = check.reason(plan);
        let colon = if reason.is_empty() { "" } else { ": " };
        let waived =
            if matches!(cause, Cause::Withdrawn(_)) { ", and has kept the pod out for as long as it may" } else { "" };
        let text = format!("{group}{} is {}{waived}{colon}{reason}", plan.name, check.shown.as_str());
        Some(Why { cause, since: check.since, text })
    }

    /// How a check reaches a gate that it speaks against: directly (an empty string), or through a group that
    /// is not satisfied (its name and count). None: every group between is satisfied without it.
    fn unsatisfied_group(&self, gate: Gate, id: CheckId) -> Option<String> {
        let direct: [&[Member]; 2] = match gate {
            Gate::Startup => [&self.plan.startup.require, &[]],
            Gate::Ready => [&self.plan.ready.require, &self.plan.ready.degrade],
            Gate::Health => [&self.plan.health.require, &[]],
        };
        let heard = |levels: Levels| match gate {
            Gate::Startup => levels.strict != Level::Up,
            Gate::Health => levels.condemning == Level::Down,
            Gate::Ready => levels.lenient != Level::Up,
        };
        if !self.graph.is_in_a_group(id) || direct.iter().any(|members| members.contains(&Member::Check(id))) {
            return Some(String::new());
        }
        let mut groups: Vec<GroupId> = direct.iter().flat_map(|m| m.iter()).filter_map(|m| group_of(*m)).collect();
        while let Some(group) = groups.pop() {
            let waived = gate == Gate::Ready && self.checks[id.index()].is_waived(&self.plan.checks[id.index()]);
            if !heard(self.graph.level(Member::Group(group))) && !waived {
                continue;
            }
            let plan = &self.plan.groups[group.index()];
            if plan.of.contains(&Member::Check(id)) {
                let (up, of, min) = self.graph.group_counts(group);
                return Some(format!("{} has {up} of {of} up and needs {min}: ", plan.name));
            }
            groups.extend(plan.of.iter().filter_map(|&member| group_of(member)));
        }
        None
    }

    /// What happens next if nothing changes.
    fn next(&self, gate: Gate, status: Status, why: Option<&Why>) -> Option<Next> {
        let started = self.instance.started_at();
        match why.map(|why| &why.cause) {
            Some(Cause::Starting | Cause::Gone) => {
                let text = "the startup budget ends; then /startup and /health fail";
                Some(Next { at: self.instance.budget_until(), text: text.to_owned() })
            }
            Some(Cause::StartupBudget) => Some(restart()),
            Some(Cause::Draining) => {
                let drain = self.drain.view(self.plan.drain);
                Some(Next {
                    at: drain.until,
                    text: format!("the drain ({}) moves on at the latest", drain.phase.as_str()),
                })
            }
            Some(Cause::Disabled) => Some(Next { at: None, text: "ready again when enabled by hand".to_owned() }),
            Some(Cause::Doubt) => {
                Some(Next { at: self.doubt.wake(), text: "judged again once the doubt ends".to_owned() })
            }
            Some(Cause::RestartBudget) => {
                let at = self.ledger.frees_at(self.plan.health.restart_budget);
                Some(Next { at, text: "the restart budget has room again; then /health fails".to_owned() })
            }
            Some(&Cause::Check(_)) if gate == Gate::Health && status == Status::Fail => Some(restart()),
            Some(&(Cause::Check(id) | Cause::Degraded(id) | Cause::Withdrawn(id))) => {
                let (check, plan) = (&self.checks[id.index()], &self.plan.checks[id.index()]);
                if let Some(at) = check.withdrawal_ends(plan, started).filter(|_| gate == Gate::Ready) {
                    let text = format!("{} has used up its max_withdrawal; then it only degrades", plan.name);
                    return Some(Next { at: Some(at), text });
                }
                if let Some(rule) = &plan.rule {
                    return Some(way_back(rule, &plan.name));
                }
                let passes = plan.success_threshold;
                let row = if passes == 1 {
                    "one pass makes it up".to_owned()
                } else {
                    format!("{passes} passes in a row make it up")
                };
                let tried = if check.next_attempt().is_some() { "is tried again" } else { "is being tried" };
                Some(Next { at: check.next_attempt(), text: format!("{} {tried}; {row}", plan.name) })
            }
            None => self.next_of_a_pass(gate),
        }
    }

    /// A pass that is about to end says so.
    fn next_of_a_pass(&self, gate: Gate) -> Option<Next> {
        let failing = self.graph.members(gate).iter().find(|member| {
            gate != Gate::Startup && member.required && self.checks[member.check.index()].is_failing()
        })?;
        let (check, plan) = (&self.checks[failing.check.index()], &self.plan.checks[failing.check.index()]);
        let (failed, of) = check.failures_of(plan);
        let text = format!("{} has failed {failed} of {of} times and is tried again", plan.name);
        Some(Next { at: check.next_attempt(), text })
    }
}

fn why(cause: Cause, since: super::Time, text: &str) -> Why {
    Why { cause, since, text: text.to_owned() }
}

/// What makes a check up again that is judged by the traffic.
fn way_back(rule: &TrafficRule, name: &str) -> Next {
    let text = match rule {
        TrafficRule::Progress(_) => format!("anything that moves makes {name} up"),
        TrafficRule::Saturation(_) => format!("{name} is up again below its low marks"),
        TrafficRule::Outcomes(_) => format!("{name} lets single requests decide after a pause"),
    };
    Next { at: None, text }
}

/// A duration for a person: whole seconds from ten on.
pub(super) fn span(span: Duration) -> String {
    if span < Duration::from_secs(10) && span.subsec_millis() >= 100 {
        format!("{:.1}s", span.as_secs_f64())
    } else {
        format!("{}s", span.as_secs())
    }
}

fn restart() -> Next {
    Next { at: None, text: "the kubelet restarts the model server once its own threshold is reached".to_owned() }
}

const fn group_of(member: Member) -> Option<GroupId> {
    match member {
        Member::Group(group) => Some(group),
        Member::Check(_) => None,
    }
}

impl super::Plan {
    /// The name of a check or group.
    pub fn member_name(&self, member: Member) -> &str {
        match member {
            Member::Check(check) => &self.checks[check.index()].name,
            Member::Group(group) => &self.groups[group.index()].name,
        }
    }

    /// The check of a name.
    pub fn check_named(&self, name: &str) -> Option<CheckId> {
        self.checks.iter().position(|check| check.name == name).map(check_id)
    }
}
