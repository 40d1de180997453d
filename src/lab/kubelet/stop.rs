//! Stopping containers: preStop, SIGTERM, grace, SIGKILL, and the order of it at the end of a pod (§4, §6).

use std::time::Duration;

use super::life::narrow;
use super::pod::{Pod, Turn};
use super::spec::{Hook, ProbeKind, Role};
use super::{Event, Io, KILLED};
use crate::engine::Time;

/// One container on its way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub(super) generation: u32,
    began: Time,
    grace: Duration,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Hook,
    /// For the containers that must go first (§6.4).
    AwaitsTurn,
    Signalled,
}

impl Pod {
    /// §4: preStop, bounded by the grace, then SIGTERM with what is left of it, at least two seconds.
    pub(super) fn begin_stop(&mut self, container: usize, grace: Duration, now: Time, io: &mut Io<'_>) {
        self.stop_generation += 1;
        let generation = self.stop_generation;
        let has_hook = self.spec.containers[container].pre_stop.is_some() && !grace.is_zero();
        self.stops[container] = Some(Stop { generation, began: now, grace, phase: Phase::Hook });
        let container_number = narrow(container);
        if !self.runtime[container].is_running() {
            io.plan(now, Event::StopEnds { container: container_number, generation });
        } else if has_hook {
            let takes = self.hook_way(container);
            io.plan(now + takes, Event::HookBegins { container: container_number, generation });
        } else {
            self.await_turn(container, now, io);
        }
    }

    /// A sleep is the kubelet's own; an exec goes through the runtime; a request goes over the wire.
    fn hook_way(&mut self, container: usize) -> Duration {
        match self.spec.containers[container].pre_stop {
            Some(Hook::Exec { .. }) => self.knobs.exec.draw(&mut self.rng),
            Some(Hook::Http { .. }) => self.knobs.wire.draw(&mut self.rng),
            Some(Hook::Sleep(_)) | None => Duration::ZERO,
        }
    }

    fn stop_of(&mut self, container: usize, generation: u32) -> Option<&mut Stop> {
        self.stops[container].as_mut().filter(|stop| stop.generation == generation)
    }

    pub(super) fn hook_begins(&mut self, container: usize, generation: u32, now: Time, io: &mut Io<'_>) {
        let Some(&mut Stop { began, grace, .. }) = self.stop_of(container, generation) else { return };
        let Some(hook) = self.spec.containers[container].pre_stop.clone() else { return };
        let ends = match hook {
            Hook::Sleep(span) => now + span,
            Hook::Exec { .. } | Hook::Http { .. } => {
                io.world.hook_begins(now, container, &hook).map_or(began + grace, |takes| now + takes)
            }
        };
        let ends = ends.min(began + grace);
        io.plan(ends, Event::HookEnds { container: narrow(container), generation });
    }

    /// The world says that a hook whose end it did not know is over.
    pub fn finish_hook(&mut self, container: usize, now: Time, io: &mut Io<'_>) {
        if let Some(stop) = self.stops[container].filter(|stop| stop.phase == Phase::Hook) {
            io.plan(now, Event::HookEnds { container: narrow(container), generation: stop.generation });
        }
    }

    pub(super) fn hook_ends(&mut self, container: usize, generation: u32, now: Time, io: &mut Io<'_>) {
        let Some(&mut Stop { began, grace, .. }) = self.stop_of(container, generation) else { return };
        let was_cut_off = now >= began + grace;
        if let Some(hook) = self.spec.containers[container].pre_stop.clone().filter(|_| !was_cut_off) {
            io.world.hook_ends(now, container, &hook);
        }
        self.await_turn(container, now, io);
    }

    /// §6.4: at the end of a pod a sidecar's SIGTERM waits for all regular containers and for the sidecars
    /// after it, as long as its own grace lasts.
    fn await_turn(&mut self, container: usize, now: Time, io: &mut Io<'_>) {
        let is_its_turn = self.turn != Turn::Terminates || !self.must_wait(container);
        let Some(stop) = &mut self.stops[container] else { return };
        let left = remaining(stop, now);
        if is_its_turn || left.is_zero() {
            self.signal(container, now, io);
            return;
        }
        stop.phase = Phase::AwaitsTurn;
        let generation = stop.generation;
        io.plan(now + left, Event::Kill { container: narrow(container), generation });
    }

    fn must_wait(&self, container: usize) -> bool {
        let is_before_it = |other: usize| match self.spec.containers[other].role {
            Role::Regular => true,
            Role::Init | Role::Sidecar => other > container,
        };
        self.spec.containers[container].role == Role::Sidecar
            && (0..self.stops.len())
                .any(|other| other != container && is_before_it(other) && self.stops[other].is_some())
    }

    fn signal(&mut self, container: usize, now: Time, io: &mut Io<'_>) {
        // One that ended while it waited is on its way to be reaped.
        if !self.runtime[container].is_running() {
            return;
        }
        let grace_min = self.knobs.grace_min;
        self.stop_generation += 1;
        let generation = self.stop_generation;
        let Some(stop) = &mut self.stops[container] else { return };
        stop.phase = Phase::Signalled;
        stop.generation = generation;
        let left = remaining(stop, now).max(grace_min);
        let container_number = narrow(container);
        let Some(incarnation) = self.runtime[container].incarnation() else { return };
        match io.world.terminate(now, container) {
            Some(takes) if takes < left => {
                io.plan(now + takes, Event::Exited { container: container_number, incarnation, code: 0 });
            }
            _ => io.plan(now + left, Event::Kill { container: container_number, generation }),
        }
    }

    /// The time of a stop's present phase is up: a sidecar has waited long enough, or SIGKILL is due.
    pub(super) fn kill(&mut self, container: usize, generation: u32, now: Time, io: &mut Io<'_>) {
        let Some(phase) = self.stop_of(container, generation).map(|stop| stop.phase) else { return };
        if phase == Phase::AwaitsTurn {
            self.signal(container, now, io);
        } else {
            self.container_ends(container, KILLED, now, io);
        }
    }

    pub(super) fn stop_ends(&mut self, container: usize, generation: u32, now: Time, io: &mut Io<'_>) {
        if self.stop_of(container, generation).is_none() {
            return;
        }
        self.stops[container] = None;
        if self.turn != Turn::Terminates {
            self.step(now, io);
            return;
        }
        for other in 0..self.stops.len() {
            let waits = self.stops[other].is_some_and(|stop| stop.phase == Phase::AwaitsTurn);
            if waits && !self.must_wait(other) {
                self.signal(other, now, io);
            }
        }
        self.finish_if_done(now, io);
    }

    /// The end of the pod (§6): probes of liveness and startup stop, then everything is stopped at once.
    pub(super) fn terminate(&mut self, now: Time, io: &mut Io<'_>) {
        self.turn = Turn::Terminates;
        let stay = self.knobs.sidecars_stay_judged;
        for (worker, beat) in self.workers.iter().zip(&mut self.beats) {
            let is_regular = self.spec.containers[worker.container].role == Role::Regular;
            // §6.2, §6.3: readiness goes on to the end, and so do a sidecar's probes.
            beat.has_left |= worker.kind != ProbeKind::Readiness && (is_regular || !stay);
        }
        let grace = self.deletion.map_or(self.spec.grace, |deletion| deletion.grace);
        let running: Vec<usize> = (0..self.runtime.len()).filter(|index| self.runtime[*index].is_running()).collect();
        // All stops exist before any of them asks whose turn it is.
        for &container in &running {
            self.stop_generation += 1;
            let generation = self.stop_generation;
            self.stops[container] = Some(Stop { generation, began: now, grace, phase: Phase::Hook });
        }
        for container in running {
            self.begin_stop(container, grace, now, io);
        }
        self.finish_if_done(now, io);
    }

    fn finish_if_done(&mut self, now: Time, io: &mut Io<'_>) {
        if self.stops.iter().any(Option::is_some) {
            return;
        }
        for beat in &mut self.beats {
            beat.has_left = true;
        }
        self.cached.clone_from(&self.runtime);
        self.finish_status(now, io);
        self.turn = Turn::Over;
        if self.deletion.is_some() {
            io.plan(now + self.knobs.deletion.draw(&mut self.rng) + self.knobs.status.high, Event::Remove);
        }
    }
}

/// The kubelet counts what a hook or a wait took in whole seconds, cut off.
fn remaining(stop: &Stop, now: Time) -> Duration {
    stop.grace.saturating_sub(Duration::from_secs(now.since(stop.began).as_secs()))
}
