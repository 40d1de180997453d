//! A new plan takes over: what stays the same keeps its state and its history.

use std::collections::HashMap;
use std::sync::Arc;

use super::check::Check;
use super::graph::Graph;
use super::instance::Presence;
use super::plan::{CheckPlan, Plan, Subject};
use super::schedule::Schedule;
use super::snapshot::InstancePhase;
use super::{Engine, check_id};

impl Engine {
    pub(super) fn reload(&mut self, plan: Arc<Plan>) {
        debug_assert_eq!(plan.validate(), Ok(()));
        for index in 0..self.checks.len() {
            self.abort(check_id(index));
        }
        let old_plan = std::mem::replace(&mut self.plan, plan);
        let plan = Arc::clone(&self.plan);
        // Where each address was before.
        let places: Vec<Option<usize>> = plan
            .backends
            .iter()
            .map(|new| old_plan.backends.iter().position(|old| old.address == new.address))
            .collect();
        let same = |a: &CheckPlan, b: &CheckPlan| a.name == b.name && a.kind == b.kind && a.target == b.target;
        let same_server = |old: Subject, new: Subject| match (old, new) {
            (Subject::Backend(old), Subject::Backend(new)) => places.get(new.index()) == Some(&Some(old.index())),
            _ => true,
        };
        let mut old: HashMap<&str, (usize, Check)> = old_plan
            .checks
            .iter()
            .map(|plan| plan.name.as_str())
            .zip(std::mem::take(&mut self.checks).into_iter().enumerate())
            .collect();
        self.checks = plan
            .checks
            .iter()
            .map(|check| match old.remove(check.name.as_str()) {
                Some((index, mut life)) if same(&old_plan.checks[index], check) => {
                    if !same_server(old_plan.checks[index].subject, check.subject) {
                        life.forget();
                    }
                    life
                }
                _ => Check::new(self.now),
            })
            .collect();
        self.presence = places.iter().map(|place| place.map_or(Presence::Unseen, |old| self.presence[old])).collect();
        self.passive = self.passive.renumbered(self.now, places.iter().copied());
        self.restart_bookkeeping(&old_plan);
        if !places.is_empty() && !old_plan.backends.is_empty() && places.iter().all(Option::is_none) {
            self.new_instance("it is at another address", None);
        } else if self.is_away() {
            self.instance_gone();
        }
    }

    /// Whether it has gone, for whoever did not see it go: only the others stood, and have left the configuration.
    fn is_away(&self) -> bool {
        let known = self.instance.phase() != InstancePhase::Gone;
        known && self.presence.contains(&Presence::Gone) && !self.presence.contains(&Presence::Seen)
    }

    /// Rebuilds what is derived from plan and checks; the startup latches carry over by name.
    fn restart_bookkeeping(&mut self, old_plan: &Plan) {
        let latched: Vec<&str> = old_plan
            .startup
            .require
            .iter()
            .enumerate()
            .filter(|&(index, _)| self.graph.is_latched(index))
            .map(|(_, &member)| old_plan.member_name(member))
            .collect();
        let plan = Arc::clone(&self.plan);
        self.graph = Graph::new(&plan);
        self.ruled = super::flow::ruled(&plan);
        self.flow.adopt(&plan);
        self.patient = super::lateness::patient(&plan);
        self.graph.latch_by_name(|member| latched.contains(&plan.member_name(member)), &plan);
        self.schedule = Schedule::new(self.checks.len() + 1);
        self.views = vec![None; self.checks.len()];
        self.moved = None;
        self.doubt.forget_remote();
        for index in 0..self.checks.len() {
            let id = check_id(index);
            let check = &mut self.checks[index];
            check.parents_down = 0;
            check.network_failing =
                if plan.checks[index].subject == Subject::Remote { check.network_failing } else { None };
            self.doubt.remote_changed(None, check.network_failing);
            let soonest = self.now + plan.checks[index].interval;
            match check.next_attempt() {
                Some(at) => check.plan_attempt(at.min(soonest)),
                None => self.plan_first_attempt(id),
            }
        }
        for index in 0..self.checks.len() {
            self.refresh(check_id(index), "the configuration has changed");
        }
        self.revision += 1;
    }
}
