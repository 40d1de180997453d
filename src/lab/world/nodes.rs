//! Nodes: where pods run, how they are drained, and what becomes of pods whose node is lost.

use std::time::Duration;

use super::{Happening, World, ZERO, narrow};
use crate::engine::Time;
use crate::lab::scenario::ActionKind;

/// `kubectl drain` tries an eviction that the budget forbids again after this.
const EVICTION_RETRY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Node {
    is_cordoned: bool,
    is_cut: bool,
    /// How often it was lost.
    losses: u32,
    /// The control plane has noticed.
    is_not_ready: bool,
}

impl Node {
    /// Neither the control plane nor a client reaches it.
    pub(super) const fn is_cut(&self) -> bool {
        self.is_cut
    }
}

impl World<'_> {
    /// The node with the fewest pods that takes any; the first of equals.
    pub(super) fn node_for_a_pod(&self) -> Option<usize> {
        let mut pods = vec![0; self.nodes.len()];
        for slot in self.slots.iter().filter(|slot| !slot.is_deleted && !slot.inner.is_gone) {
            pods[slot.node] += 1;
        }
        let takes = |node: &usize| !self.nodes[*node].is_cordoned && !self.nodes[*node].is_not_ready;
        (0..self.nodes.len()).filter(takes).min_by_key(|node| pods[*node])
    }

    pub(super) fn action_begins(&mut self, now: Time, index: usize) {
        match self.scenario.actions[index].what {
            ActionKind::Delete { pod } => self.delete_pod(now, pod, "deleted by hand"),
            ActionKind::Drain { node } => self.drain_node(now, node),
            ActionKind::Lose { node } => self.lose_node(now, node),
            ActionKind::Rollout { version } => self.roll_out(now, version),
            ActionKind::Scale { pods } => self.scale(now, pods),
            ActionKind::Undo => self.undo(now),
        }
    }

    pub(super) fn action_ends(&mut self, now: Time, index: usize) {
        match self.scenario.actions[index].what {
            ActionKind::Drain { node } => {
                self.nodes[node].is_cordoned = false;
                self.plan_reconcile(now);
            }
            ActionKind::Lose { node } => self.node_returns(now, node),
            _ => {}
        }
    }

    fn pods_of(&self, node: usize) -> Vec<usize> {
        (0..self.slots.len()).filter(|pod| self.slots[*pod].node == node && !self.slots[*pod].inner.is_gone).collect()
    }

    fn drain_node(&mut self, now: Time, node: usize) {
        self.nodes[node].is_cordoned = true;
        self.score.note_all(now.since(ZERO), format!("node {node} is drained"));
        for pod in self.pods_of(node) {
            self.evict(now, pod);
        }
    }

    /// An eviction, if the budget allows one now; otherwise it is tried again while the node is cordoned.
    pub(super) fn evict(&mut self, now: Time, pod: usize) {
        let slot = &self.slots[pod];
        if slot.is_deleted || slot.inner.is_gone || !self.nodes[slot.node].is_cordoned {
            return;
        }
        let healthy = self.slots.iter().filter(|slot| slot.is_ready && !slot.is_deleted && !slot.inner.is_gone).count();
        // One that is not ready takes nothing away from those that are.
        let left = healthy - usize::from(slot.is_ready);
        if self.scenario.deployment.min_available.is_none_or(|least| least <= left) {
            self.score.evicted += 1;
            self.delete_pod(now, pod, "evicted");
        } else {
            self.queue.push(now + EVICTION_RETRY, Happening::Evict { pod: narrow(pod) });
        }
    }

    fn lose_node(&mut self, now: Time, node: usize) {
        let known = &mut self.nodes[node];
        if known.is_cut {
            return;
        }
        known.is_cut = true;
        known.losses += 1;
        let number = known.losses;
        self.score.note_all(now.since(ZERO), format!("node {node} is lost"));
        let pods = self.pods_of(node);
        for dependency in &mut self.dependencies {
            dependency.cut.extend(&pods);
        }
        let silent = Happening::NodeSilent { node: narrow(node), number, has_tolerated: false };
        self.queue.push(now + self.scenario.deployment.node_grace, silent);
        for pod in pods {
            self.slots[pod].epoch += 1;
            // Nothing that was asked there is answered any more.
            self.collect(now, pod);
            self.silence(now, pod);
        }
    }

    /// §5: after the grace its pods are not ready, after the toleration they are deleted.
    pub(super) fn node_silent(&mut self, now: Time, node: usize, number: u32, has_tolerated: bool) {
        let known = &mut self.nodes[node];
        if !known.is_cut || known.losses != number {
            return;
        }
        known.is_not_ready = true;
        for pod in self.unheard_on(node) {
            self.update_endpoint(now, pod);
        }
        for pod in self.pods_of(node) {
            if has_tolerated {
                self.delete_pod(now, pod, "deleted: its node has been away for too long");
            } else {
                self.slots[pod].is_ready = false;
                self.update_endpoint(now, pod);
            }
        }
        if !has_tolerated {
            let silent = Happening::NodeSilent { node: narrow(node), number, has_tolerated: true };
            self.queue.push(now + self.scenario.deployment.toleration, silent);
        }
        self.plan_reconcile(now);
    }

    /// Pods that ended while nobody could hear of it: endpoints still.
    fn unheard_on(&self, node: usize) -> Vec<usize> {
        (0..self.slots.len()).filter(|&pod| self.slots[pod].node == node && self.slots[pod].is_ghost()).collect()
    }

    fn node_returns(&mut self, now: Time, node: usize) {
        if !std::mem::take(&mut self.nodes[node].is_cut) {
            return;
        }
        self.nodes[node].is_not_ready = false;
        self.score.note_all(now.since(ZERO), format!("node {node} is back"));
        let pods = self.pods_of(node);
        for dependency in &mut self.dependencies {
            dependency.cut.retain(|pod| !pods.contains(pod));
        }
        for pod in self.unheard_on(node) {
            self.status_told(now, pod);
        }
        for pod in pods {
            self.status_told(now, pod);
            if self.slots[pod].is_deleted {
                self.tell_deletion(now, pod);
            }
        }
    }
}
