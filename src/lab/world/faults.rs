//! Faults: what the scenario's time line does to servers and dependencies.

use super::server::Life;
use super::{Happening, World, narrow};
use crate::engine::Time;
use crate::lab::scenario::{Fault, FaultKind, Illness, ServerFault};

impl World<'_> {
    pub(super) fn fault_begins(&mut self, now: Time, index: usize) {
        let Fault { what, .. } = &self.scenario.faults[index];
        match *what {
            FaultKind::Dependency { dependency, how, only } => self.set_illness(dependency, only, Some(how)),
            FaultKind::Server { pod, how } => {
                if !matches!(how, ServerFault::Slow(_)) {
                    self.slots[pod].undetected.push((self.score.detections.len(), now));
                    self.score.detections.push(None);
                }
                self.server_fault(now, pod, how);
            }
        }
    }

    pub(super) fn server_fault(&mut self, now: Time, pod: usize, how: ServerFault) {
        match how {
            ServerFault::Crash => {
                self.note(now, pod, "fault: the server crashes".to_owned());
                self.crash(now, pod, 1);
            }
            ServerFault::Garbage => self.slots[pod].inner.server.is_garbage = true,
            ServerFault::Hang => {
                self.note(now, pod, "fault: the server hangs".to_owned());
                self.collect(now, pod);
                for at in self.slots[pod].inner.server.hang() {
                    self.queue.push(at, Happening::Expire { pod: narrow(pod) });
                }
            }
            ServerFault::Slow(times) => self.slots[pod].inner.server.slowness = times,
        }
    }

    pub(super) fn fault_ends(&mut self, now: Time, index: usize) {
        match self.scenario.faults[index].what {
            FaultKind::Dependency { dependency, only, .. } => {
                self.set_illness(dependency, only, None);
                if self.scenario.server.loads_from == Some(dependency) {
                    for pod in 0..self.slots.len() {
                        if self.slots[pod].inner.server.life == Life::Loading {
                            self.plan_load(now, pod);
                        }
                    }
                }
            }
            FaultKind::Server { pod, how: ServerFault::Garbage } => self.slots[pod].inner.server.is_garbage = false,
            FaultKind::Server { pod, how: ServerFault::Slow(_) } => self.slots[pod].inner.server.slowness = 1000,
            FaultKind::Server { .. } => {}
        }
    }

    pub(super) fn set_illness(&mut self, dependency: usize, only: Option<usize>, illness: Option<Illness>) {
        for (pod, known) in self.dependencies[dependency].illness.iter_mut().enumerate() {
            if only.is_none_or(|only| only == pod) {
                *known = illness;
            }
        }
    }
}
