//! Faults: what the scenario's time line does to servers, sidecars and dependencies.

use std::time::Duration;

use super::{Happening, World, narrow};
use crate::engine::Time;
use crate::lab::kubelet::KILLED;
use crate::lab::scenario::{Fault, FaultKind, ServerFault, SidecarFault};

impl World<'_> {
    /// The faults of this pod's server that are under way.
    pub(super) fn server_faults(&self, pod: usize) -> impl Iterator<Item = ServerFault> + use<'_> {
        self.active.iter().filter_map(move |&index| match self.scenario.faults[index].what {
            FaultKind::Server { pod: of, how } if of == pod => Some(how),
            _ => None,
        })
    }

    /// The faults of this pod's sidecar that are under way.
    pub(super) fn sidecar_faults(&self, pod: usize) -> impl Iterator<Item = SidecarFault> + use<'_> {
        self.active.iter().filter_map(move |&index| match self.scenario.faults[index].what {
            FaultKind::Sidecar { pod: of, how } if of == pod => Some(how),
            _ => None,
        })
    }

    pub(super) fn fault_begins(&mut self, now: Time, index: usize) {
        let Fault { what, at, until } = &self.scenario.faults[index];
        if at < until {
            self.active.push(index);
        }
        match what {
            FaultKind::Dependency { dependency, how, only } => {
                self.dependencies[*dependency].faults.push((index, now, *how, only.clone()));
            }
            FaultKind::Server { pod, how } => {
                if how.is_felt() && !self.slots[*pod].inner.is_gone {
                    self.slots[*pod].undetected.push((self.score.detections.len(), now));
                    self.score.detections.push(None);
                }
                self.server_fault(now, *pod, *how);
            }
            FaultKind::Sidecar { pod, how } => self.sidecar_fault(now, *pod, *how),
        }
    }

    fn server_fault(&mut self, now: Time, pod: usize, how: ServerFault) {
        match how {
            ServerFault::CounterFrozen => self.slots[pod].inner.server.is_counter_frozen = true,
            ServerFault::Crash | ServerFault::CrashLoop(_) => {
                self.note(now, pod, "fault: the server crashes".to_owned());
                self.crash(now, pod, 1);
            }
            ServerFault::Garbage => self.slots[pod].inner.server.is_garbage = true,
            ServerFault::Hang => {
                self.note(now, pod, "fault: the server hangs".to_owned());
                self.collect(now, pod);
                for at in self.slots[pod].inner.server.hang(now) {
                    self.queue.push(at, Happening::Expire { pod: narrow(pod) });
                }
            }
            ServerFault::Leak(after) => {
                self.note(now, pod, "fault: the server leaks".to_owned());
                let server = &mut self.slots[pod].inner.server;
                server.leak = Some(after);
                // It has leaked since its start, as far as anybody can see.
                let (number, full) = (server.starts, (server.started_at + after).max(now));
                let crash = Happening::Crash { pod: narrow(pod), is_sidecar: false, number, code: KILLED };
                self.queue.push(full, crash);
            }
            ServerFault::MetricsLost => self.slots[pod].inner.server.is_page_lost = true,
            ServerFault::Slow(times) => self.slots[pod].inner.server.slowness = times,
        }
    }

    fn sidecar_fault(&mut self, now: Time, pod: usize, how: SidecarFault) {
        if self.design.sidecar.is_none() {
            return;
        }
        match how {
            SidecarFault::Crash | SidecarFault::CrashLoop(_) => {
                self.note(now, pod, "fault: the sidecar crashes".to_owned());
                self.crash_sidecar(now, pod, 1);
            }
            SidecarFault::Hang => {
                self.note(now, pod, "fault: the sidecar hangs".to_owned());
                let inner = &mut self.slots[pod].inner;
                inner.is_sidecar_hung = inner.sidecar.is_some();
            }
            SidecarFault::Oom(_) => {
                self.note(now, pod, "fault: the sidecar runs out of memory".to_owned());
                self.crash_sidecar(now, pod, KILLED);
            }
            SidecarFault::Slow(latency) => self.slots[pod].inner.sidecar_slowness = latency,
        }
    }

    pub(super) fn fault_ends(&mut self, now: Time, index: usize) {
        self.active.retain(|active| *active != index);
        match self.scenario.faults[index].what {
            FaultKind::Dependency { dependency, .. } => {
                self.dependencies[dependency].faults.retain(|(known, ..)| *known != index);
            }
            FaultKind::Server { pod, how } => {
                let server = &mut self.slots[pod].inner.server;
                match how {
                    ServerFault::CounterFrozen => server.is_counter_frozen = false,
                    ServerFault::Garbage => server.is_garbage = false,
                    ServerFault::Leak(_) => server.leak = None,
                    ServerFault::MetricsLost => server.is_page_lost = false,
                    ServerFault::Slow(_) => server.slowness = 1000,
                    ServerFault::Crash | ServerFault::CrashLoop(_) | ServerFault::Hang => {}
                }
            }
            FaultKind::Sidecar { pod, how } => self.sidecar_mends(now, pod, how),
        }
    }

    fn sidecar_mends(&mut self, now: Time, pod: usize, how: SidecarFault) {
        let inner = &mut self.slots[pod].inner;
        match how {
            SidecarFault::Slow(_) => inner.sidecar_slowness = Duration::ZERO,
            SidecarFault::Hang if inner.is_sidecar_hung => {
                inner.is_sidecar_hung = false;
                let Some(life) = inner.sidecar.as_ref().map(|sidecar| sidecar.life) else { return };
                self.with_sidecar(now, pod, life, |sidecar, steps| sidecar.wake_up(now, steps));
                self.look_at_requests(now, pod);
            }
            _ => {}
        }
    }
}
