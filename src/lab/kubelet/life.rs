//! Starting and ending containers.

use std::time::Duration;

use super::pod::{Pod, StepKind, Turn};
use super::prober::Incarnation;
use super::spec::Role;
use super::status::ContainerState;
use super::{Event, Io};
use crate::engine::Time;

/// From the process's first instruction to the runtime's word that it runs.
const START_CONFIRMED: Duration = Duration::from_millis(15);

impl Pod {
    /// §4.1: a start may be refused; then the next container has its turn, and the sync counts as failed.
    pub(super) fn begin_start(&mut self, container: usize, now: Time, io: &mut Io<'_>) {
        debug_assert!(!self.runtime[container].is_running(), "a running container is not started");
        let ended = self.known_ended[container];
        if let Err(until) = self.backoff[container].try_start(now, ended, &self.knobs.backoff) {
            self.failed_until = Some(self.failed_until.map_or(until, |known| known.min(until)));
            self.refused_start[container] = true;
            if self.spec.containers[container].role == Role::Init {
                self.steps.clear();
            }
            self.step(now, io);
            return;
        }
        self.refused_start[container] = false;
        let is_slow = self.rng.chance(self.knobs.slow_start_permille);
        let spread = if is_slow { self.knobs.slow_start } else { self.knobs.start };
        io.plan(now + spread.draw(&mut self.rng), Event::Started { container: narrow(container) });
    }

    pub(super) fn container_starts(&mut self, container: usize, now: Time, io: &mut Io<'_>) {
        let number = self.runtime[container].incarnation().map_or(0, |known| known.0) + 1;
        let incarnation = Incarnation(number);
        self.runtime[container] = ContainerState::Running { incarnation, since: now };
        if let Some((after, code)) = io.world.started(now, container) {
            io.plan(now + after, Event::Exited { container: narrow(container), incarnation, code });
        }
        self.steps.push_front(StepKind::PostStart { container });
        io.plan(now + START_CONFIRMED, Event::Step);
    }

    /// The postStart hook holds the sync up.
    pub(super) fn post_start(&mut self, container: usize, now: Time, io: &mut Io<'_>) {
        let Some(hook) = self.spec.containers[container].post_start.clone() else {
            self.step(now, io);
            return;
        };
        let begins = self.knobs.exec.draw(&mut self.rng);
        let takes = io.world.hook_begins(now + begins, container, &hook).unwrap_or_default();
        io.plan(now + begins + takes, Event::Step);
    }

    /// A process crashes, or is made to: as if it had ended by itself now.
    pub fn crash(&mut self, container: usize, code: u8, now: Time, io: &mut Io<'_>) {
        if self.turn != Turn::Over {
            self.container_ends(container, code, now, io);
        }
    }

    pub(super) fn container_ends(&mut self, container: usize, code: u8, now: Time, io: &mut Io<'_>) {
        let ContainerState::Running { incarnation, .. } = self.runtime[container] else { return };
        self.runtime[container] = ContainerState::Exited { incarnation, at: now, code, is_waiting: false };
        self.ended[container] = Some(now);
        io.world.exited(now, container, code);
        if let Some(stop) = &mut self.stops[container] {
            // Whatever the stop was waiting for, it is over; the runtime needs a moment to say so.
            self.stop_generation += 1;
            stop.generation = self.stop_generation;
            let reap = self.knobs.reap.draw(&mut self.rng);
            io.plan(now + reap, Event::StopEnds { container: narrow(container), generation: self.stop_generation });
        }
    }
}

/// Containers and workers of a pod number far below 65 536: the spec's size is bounded by the API server.
pub(super) fn narrow(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}
