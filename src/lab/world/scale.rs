//! The autoscaler in this world: what it is told of the pods, and what it changes; and the surges that it meets.

use std::time::Duration;

use super::server::Life;
use super::{Happening, World, ZERO};
use crate::engine::Time;
use crate::lab::autoscaler::{Sample, Target};

/// What a pod's CPU time was when it was last read.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuReading {
    at: Time,
    /// Of which process.
    process: u32,
    used: Duration,
}

impl World<'_> {
    pub(super) fn autoscale(&mut self, now: Time) {
        let Some(spec) = &self.scenario.autoscaler else { return };
        self.queue.push(now + spec.sync, Happening::Autoscale);
        let pods: Vec<usize> = (0..self.slots.len()).filter(|pod| !self.slots[*pod].inner.is_gone).collect();
        let samples: Vec<Sample> = pods.into_iter().map(|pod| self.sample_of(now, pod, spec.target)).collect();
        let current = self.fleet.wanted;
        let wanted = self.autoscaler.look(now, spec, current, &samples);
        if !(spec.min..=spec.max).contains(&wanted) {
            self.score.breaks("the autoscaler has left its bounds");
        }
        if wanted != current {
            self.score.scalings += 1;
            self.score.note_all(now.since(ZERO), format!("the autoscaler wants {wanted} pods instead of {current}"));
            self.scale(now, wanted);
        }
    }

    fn sample_of(&mut self, now: Time, pod: usize, target: Target) -> Sample {
        self.collect(now, pod);
        let value = match target {
            Target::InFlight(_) => self.in_flight_of(pod).map(|requests| requests * 1000),
            Target::Utilisation(_) => self.utilisation_of(now, pod),
        };
        let slot = &self.slots[pod];
        Sample {
            // Nobody reaches a lost node; what its processes do goes on being read once it is back.
            value: value.filter(|_| !self.nodes[slot.node].is_cut()),
            started: slot.made,
            is_ready: slot.is_ready,
            changed: slot.ready_changed,
            is_pending: slot.inner.server.starts == 0,
            is_leaving: slot.is_deleted,
        }
    }

    /// Those that wait at the sidecar are in the pod too.
    fn in_flight_of(&self, pod: usize) -> Option<u64> {
        let inner = &self.slots[pod].inner;
        let waiting = inner.sidecar.as_ref().map_or(0, |sidecar| sidecar.plane.queued.len() + sidecar.plane.held.len());
        (inner.server.life != Life::Gone).then(|| (inner.server.in_flight() + waiting) as u64)
    }

    /// Of the workers' time since the last look, in thousandths; none of a process that was not there then.
    fn utilisation_of(&mut self, now: Time, pod: usize) -> Option<u64> {
        let slot = &mut self.slots[pod];
        let server = &slot.inner.server;
        if server.life == Life::Gone {
            slot.cpu_reading = None;
            return None;
        }
        let reading = CpuReading { at: now, process: server.starts, used: server.cpu(now) };
        let last = slot.cpu_reading.replace(reading).filter(|last| last.process == reading.process)?;
        let whole = now.since(last.at).as_nanos() * server.spec.concurrency as u128;
        let used = reading.used.saturating_sub(last.used).as_nanos();
        u64::try_from((used * 1000).checked_div(whole)?).ok()
    }

    /// How many requests come from now on.
    pub(super) fn surge(&mut self, now: Time) {
        let clients = &self.scenario.clients;
        let since = now.since(ZERO);
        let active = clients.surges.iter().filter(|surge| surge.at <= since && since < surge.until);
        let times: f64 = active.map(|surge| surge.times).product();
        self.gap = Duration::from_secs_f64(1.0 / (clients.rate * times));
    }
}
