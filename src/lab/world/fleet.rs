//! The Deployment: how many pods of which version there are, and how one version gives way to another.
//!
//! The controller's own arithmetic: surge rounds up, unavailable rounds down, unhealthy old pods go first, a pod
//! that terminates is no longer counted.

use std::sync::Arc;
use std::time::Duration;

use super::outside::Inner;
use super::server::Server;
use super::{Happening, Slot, World, ZERO, narrow};
use crate::engine::Time;
use crate::lab::kubelet::Pod;
use crate::lab::rng::Rng;
use crate::lab::scenario::Share;

/// From a change to the controller's look at it.
const CONTROLLER: Duration = Duration::from_millis(100);
/// From a new pod to its node's first sync of it.
const SCHEDULED: Duration = Duration::from_secs(1);
/// A pod that no node takes is tried again so often.
const UNSCHEDULED: Duration = Duration::from_secs(5);
/// Most pods of one run: whoever makes more has a loop.
const PODS_EVER: usize = 20_000;

/// What is wanted, and how far it is.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) wanted: usize,
    pub(super) version: usize,
    before: usize,
    /// Which look is the one that counts.
    look: u64,
    planned: Option<Time>,
    rollout: Option<Rollout>,
}

#[derive(Clone, Copy, Debug)]
struct Rollout {
    began: Time,
    progressed: Time,
    /// New pods available and old pods left, as last seen.
    seen: (usize, usize),
    has_failed: bool,
}

impl Fleet {
    pub(super) const fn new(wanted: usize) -> Self {
        Self { wanted, version: 0, before: 0, look: 0, planned: None, rollout: None }
    }
}

impl World<'_> {
    /// Another pod; `within`: how long until its kubelet sees it, at most.
    pub(super) fn make_pod(&mut self, now: Time, version: usize, within: Duration) -> bool {
        let Some(node) = self.node_for_a_pod() else { return false };
        if self.slots.len() >= PODS_EVER {
            return false;
        }
        let index = self.slots.len();
        let own: Rng = self.rng.fork(1000 + index as u64);
        let mut slot = Slot {
            kube: Pod::new(Arc::clone(&self.design.pod), Arc::clone(&self.knobs), own.fork(1)),
            inner: Inner::new(Server::new(&self.scenario.versions[version].server)),
            rng: own.fork(2),
            version,
            node,
            made: now,
            is_deleted: false,
            is_ready: false,
            ready_since: None,
            ready_changed: now,
            cpu_reading: None,
            is_endpoint: false,
            is_leaving: false,
            epoch: 0,
            is_routed: false,
            is_last_resort: false,
            is_restarted_since_paint: false,
            undetected: Vec::new(),
        };
        let began = now + slot.rng.between(Duration::ZERO, self.knobs.relist);
        self.queue.push(began, Happening::Relist { pod: narrow(index), began });
        let admitted = now + slot.rng.between(Duration::ZERO, within);
        self.queue.push(admitted, Happening::Admit { pod: narrow(index) });
        self.slots.push(slot);
        self.score.new_lane();
        if now > ZERO {
            self.score.pods_made += 1;
            let name = &self.scenario.versions[version].name;
            self.note(now, index, format!("a pod of {name} is made on node {node}"));
        }
        true
    }

    /// `kubectl delete pod`, an eviction, or the controller's own.
    pub(super) fn delete_pod(&mut self, now: Time, pod: usize, why: &str) {
        if self.slots[pod].is_deleted {
            return;
        }
        self.slots[pod].is_deleted = true;
        self.note(now, pod, why.to_owned());
        self.update_endpoint(now, pod);
        self.tell_deletion(now, pod);
        self.plan_reconcile(now);
    }

    /// The kubelet hears of it, if anybody can tell it.
    pub(super) fn tell_deletion(&mut self, now: Time, pod: usize) {
        if !self.nodes[self.slots[pod].node].is_cut() {
            let grace = self.design.pod.grace;
            self.with_pod(now, pod, |kube, io| kube.delete(now, grace, io));
        }
    }

    pub(super) fn roll_out(&mut self, now: Time, version: usize) {
        if version != self.fleet.version {
            self.fleet.before = self.fleet.version;
        }
        self.fleet.version = version;
        self.fleet.rollout = Some(Rollout { began: now, progressed: now, seen: (0, 0), has_failed: false });
        let name = &self.scenario.versions[version].name;
        self.score.note_all(now.since(ZERO), format!("rollout of {name} begins"));
        self.plan_reconcile(now);
    }

    pub(super) fn undo(&mut self, now: Time) {
        self.roll_out(now, self.fleet.before);
    }

    pub(super) fn scale(&mut self, now: Time, pods: usize) {
        self.fleet.wanted = pods;
        self.score.pods_most = self.score.pods_most.max(pods as u64);
        self.count_rotation(now);
        self.plan_reconcile(now);
    }

    // The controller.

    pub(super) fn plan_reconcile(&mut self, now: Time) {
        self.look_again(now + CONTROLLER);
    }

    /// The earliest look wins; another follows from what it finds.
    fn look_again(&mut self, at: Time) {
        if self.fleet.planned.is_none_or(|planned| at < planned) {
            self.fleet.planned = Some(at);
            self.fleet.look += 1;
            self.queue.push(at, Happening::Reconcile { number: self.fleet.look });
        }
    }

    pub(super) fn reconcile_if(&mut self, now: Time, number: u64) {
        if number == self.fleet.look {
            self.fleet.planned = None;
            self.reconcile(now);
        }
    }

    fn reconcile(&mut self, now: Time) {
        let deployment = &self.scenario.deployment;
        let wanted = self.fleet.wanted;
        let (surge, missing) = bounds(deployment.max_surge, deployment.max_unavailable, wanted);
        let (new, old) = self.living();
        let is_available = |pod: &usize| self.available_at(*pod).is_some_and(|at| at <= now);
        let new_available = new.iter().filter(|pod| is_available(pod)).count();
        let (old_good, old_bad): (Vec<usize>, Vec<usize>) = old.iter().copied().partition(|pod| is_available(pod));
        let all = new.len() + old.len();

        let room = (wanted + surge).saturating_sub(all);
        let more = wanted.saturating_sub(new.len()).min(room);
        let fewer = new.len().saturating_sub(wanted);
        // Old pods that may go: bad ones first, good ones only while enough is available.
        let least = wanted.saturating_sub(missing);
        let spare = all.saturating_sub(least + (new.len() - new_available));
        let bad = old_bad.len().min(spare);
        let good = (new_available + old_good.len()).saturating_sub(least).min(spare - bad).min(old_good.len());
        self.progress(now, new_available, old.len());

        let version = self.fleet.version;
        for _ in 0..more {
            if !self.make_pod(now, version, SCHEDULED) {
                self.look_again(now + UNSCHEDULED);
                break;
            }
        }
        let goners: Vec<usize> = old_bad.into_iter().take(bad).chain(old_good.into_iter().take(good)).collect();
        for pod in goners {
            self.delete_pod(now, pod, "deleted: an old version");
        }
        // The youngest go first when there are too many.
        for pod in new.into_iter().rev().take(fewer) {
            self.delete_pod(now, pod, "deleted: one too many");
        }
        self.plan_next_look(now);
    }

    /// By time alone a pod becomes available, or a rollout fails.
    fn plan_next_look(&mut self, now: Time) {
        let available = (0..self.slots.len()).filter(|pod| !self.slots[*pod].is_deleted);
        let next = available.filter_map(|pod| self.available_at(pod)).filter(|at| now < *at).min();
        let deadline = self.fleet.rollout.filter(|rollout| !rollout.has_failed);
        let deadline = deadline.map(|rollout| rollout.progressed + self.scenario.deployment.progress_deadline);
        if let Some(at) = next.into_iter().chain(deadline.filter(|at| now < *at)).min() {
            self.look_again(at);
        }
    }

    /// Pods that nobody has deleted: of the wanted version, and others.
    fn living(&self) -> (Vec<usize>, Vec<usize>) {
        let living =
            (0..self.slots.len()).filter(|pod| !self.slots[*pod].is_deleted && !self.slots[*pod].inner.is_gone);
        living.partition(|pod| self.slots[*pod].version == self.fleet.version)
    }

    fn available_at(&self, pod: usize) -> Option<Time> {
        Some(self.slots[pod].ready_since? + self.scenario.deployment.min_ready)
    }

    fn progress(&mut self, now: Time, new_available: usize, old: usize) {
        let wanted = self.fleet.wanted;
        let Some(rollout) = &mut self.fleet.rollout else { return };
        if rollout.seen != (new_available, old) {
            rollout.seen = (new_available, old);
            rollout.progressed = now;
        }
        if old == 0 && new_available >= wanted {
            let took = now.since(rollout.began);
            self.fleet.rollout = None;
            self.score.rollout_ended(took);
            self.score.note_all(now.since(ZERO), "the rollout is complete".to_owned());
        } else if !rollout.has_failed && now >= rollout.progressed + self.scenario.deployment.progress_deadline {
            rollout.has_failed = true;
            self.score.rollouts_failed += 1;
            self.score.note_all(now.since(ZERO), "the rollout has made no progress in time".to_owned());
            if self.scenario.deployment.undo_at_deadline {
                self.undo(now);
            }
        }
    }
}

/// How many more and how many fewer pods there may be; both zero would stand still.
const fn bounds(surge: Share, unavailable: Share, wanted: usize) -> (usize, usize) {
    let (surge, unavailable) = (surge.of(wanted, true), unavailable.of(wanted, false));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}
