//! The workers at work: ticks, triggers, probes, verdicts, and the status they change.

use super::life::narrow;
use super::pod::Pod;
use super::prober::{Beat, Look, Seen, Update, Verdict};
use super::spec::{Handler, PortRef, ProbeKind, RestartPolicy, Role};
use super::status::{ContainerState, ContainerStatus, Phase};
use super::{Answer, Event, Io};
use crate::engine::Time;

/// §2.2: a probe whose body stalls is tried so often before it is thrown away.
const TRIES_ON_ERROR: u32 = 3;

impl Pod {
    // Looking.

    pub(super) fn reset_ticker(&mut self, worker: usize, now: Time, io: &mut Io<'_>) {
        let beat = &mut self.beats[worker];
        beat.generation += 1;
        beat.has_tick = false;
        beat.next = now + self.workers[worker].period;
        io.plan(beat.next, Event::Tick { worker: narrow(worker), generation: beat.generation });
    }

    pub(super) fn tick(&mut self, worker: usize, generation: u32, now: Time, io: &mut Io<'_>) {
        let beat = &mut self.beats[worker];
        if beat.has_left || beat.generation != generation {
            return;
        }
        beat.next += self.workers[worker].period;
        let next = beat.next;
        let is_probing = beat.is_probing;
        // §2.1: one tick is kept for a worker that is still probing.
        beat.has_tick |= is_probing;
        io.plan(next, Event::Tick { worker: narrow(worker), generation });
        if !is_probing {
            self.do_probe(worker, now, io);
        }
    }

    /// §2.4: an extra probe at once, and the ticker starts anew.
    fn trigger(&mut self, worker: usize, now: Time, io: &mut Io<'_>) {
        let Beat { has_left, is_probing, .. } = self.beats[worker];
        if has_left {
            return;
        }
        if is_probing {
            self.beats[worker].has_trigger = true;
            return;
        }
        self.reset_ticker(worker, now, io);
        self.do_probe(worker, now, io);
    }

    fn do_probe(&mut self, worker: usize, now: Time, io: &mut Io<'_>) {
        let seen = self.seen(worker, now);
        let (look, update) = self.workers[worker].look(&seen);
        if let Some(update) = update {
            self.tell(worker, update, now, io);
        }
        match look {
            Look::Keep => {}
            Look::Leave => self.beats[worker].has_left = true,
            Look::Probe => self.begin_probe(worker, now, io),
        }
    }

    /// The worker reads the status manager's cache, not the runtime.
    fn seen(&self, worker: usize, now: Time) -> Seen {
        let container = self.workers[worker].container;
        let ContainerStatus { state, is_started, .. } = self.status.containers[container];
        let is_sidecar = self.spec.containers[container].role == Role::Sidecar;
        let running_for = match state {
            ContainerState::Running { since, .. } => {
                // §2.1: StartedAt is cut to whole seconds of the node's clock.
                let cut = (since + self.knobs.second_began).as_nanos() / 1_000_000_000;
                Some((now + self.knobs.second_began).since(Time::from_secs(cut)).as_secs())
            }
            ContainerState::Absent | ContainerState::Exited { .. } => None,
        };
        let has_ended = matches!(state, ContainerState::Exited { is_waiting: false, .. });
        Seen {
            pod_is_over: self.status.phase.is_over(),
            incarnation: state.incarnation(),
            running_for,
            stays_down: has_ended && self.spec.restart == RestartPolicy::Never && !is_sidecar,
            started: is_started,
            was_deleting: false,
        }
    }

    // Probing.

    fn begin_probe(&mut self, worker: usize, now: Time, io: &mut Io<'_>) {
        let (container, kind) = (self.workers[worker].container, self.workers[worker].kind);
        let Some(probe) = self.spec.containers[container].probe(kind) else { return };
        let timeout = probe.timeout;
        self.beats[worker].is_probing = true;
        let (took, result) = if is_unresolvable(&probe.handler) {
            // §3: an unknown port name is an error, and an error is thrown away.
            (std::time::Duration::ZERO, None)
        } else {
            let reply = io.world.probe(now, container, kind, probe);
            let way = self.knobs.wire.draw(&mut self.rng);
            match (reply.after.map(|after| after + way), reply.answer) {
                (_, Answer::StalledBody) => (timeout * TRIES_ON_ERROR, None),
                (Some(took), answer) if took < timeout => {
                    let verdict = if answer == Answer::Success { Verdict::Success } else { Verdict::Failure };
                    (took, Some(verdict))
                }
                _ => (timeout, Some(Verdict::Failure)),
            }
        };
        io.plan(now + took, Event::ProbeEnds { worker: narrow(worker), result });
    }

    pub(super) fn probe_ends(&mut self, worker: usize, result: Option<Verdict>, now: Time, io: &mut Io<'_>) {
        self.beats[worker].is_probing = false;
        if self.beats[worker].has_left {
            return;
        }
        if let Some(update) = self.workers[worker].judge(result) {
            self.tell(worker, update, now, io);
        }
        let beat = &mut self.beats[worker];
        if std::mem::take(&mut beat.has_trigger) {
            self.trigger(worker, now, io);
        } else if std::mem::take(&mut beat.has_tick) {
            self.do_probe(worker, now, io);
        }
    }

    fn tell(&mut self, worker: usize, update: Update, now: Time, io: &mut Io<'_>) {
        let after = self.knobs.verdict.draw(&mut self.rng);
        io.plan(now + after, Event::Verdict { worker: narrow(worker), update });
    }

    // Acting.

    /// §4: liveness only asks for a sync when it fails; readiness and startup write the status at once.
    pub(super) fn act_on(&mut self, worker: usize, update: Update, now: Time, io: &mut Io<'_>) {
        let (container, kind) = (self.workers[worker].container, self.workers[worker].kind);
        let is_success = update.verdict == Verdict::Success;
        let status = &mut self.status.containers[container];
        let is_current = status.state.incarnation() == Some(update.incarnation);
        match kind {
            ProbeKind::Liveness if is_success => return,
            ProbeKind::Liveness => {}
            ProbeKind::Readiness if is_current && !self.status.phase.is_over() => status.is_ready = is_success,
            ProbeKind::Startup if is_current => status.is_started = is_success,
            ProbeKind::Readiness | ProbeKind::Startup => {}
        }
        self.status.conclude(&self.spec);
        self.patch(now, io);
        self.want_sync(now, io);
    }

    // Status.

    /// §2.4, §2.6: a sync writes the status from the cached view, and wakes the readiness workers whose
    /// container is started and not ready.
    pub(super) fn publish(&mut self, now: Time, io: &mut Io<'_>) {
        let before = self.status.clone();
        let mut next = before.clone();
        let mut triggers = Vec::new();
        for index in 0..next.containers.len() {
            next.containers[index] = self.container_status(index);
            let status = &mut next.containers[index];
            let readiness = self.worker_of(index, ProbeKind::Readiness);
            if let (true, false, Some(worker)) = (status.is_started, status.is_ready, readiness) {
                triggers.push(worker);
            }
        }
        next.conclude(&self.spec);
        // A trigger is sent before the status is in place, so a worker may wake up to the old one.
        let is_new = |worker: &usize| {
            let container = self.workers[*worker].container;
            before.containers[container].state.incarnation() != next.containers[container].state.incarnation()
        };
        let misses = triggers.iter().any(is_new) && !self.rng.chance(self.knobs.trigger_hits_permille);
        if misses {
            triggers.iter().for_each(|worker| self.trigger(*worker, now, io));
        }
        self.status = next;
        if self.status != before {
            self.patch(now, io);
        }
        if !misses {
            triggers.iter().for_each(|worker| self.trigger(*worker, now, io));
        }
    }

    fn worker_of(&self, container: usize, kind: ProbeKind) -> Option<usize> {
        self.workers.iter().position(|worker| worker.container == container && worker.kind == kind)
    }

    fn container_status(&self, index: usize) -> ContainerStatus {
        let mut state = self.cached[index];
        if let ContainerState::Exited { is_waiting, .. } = &mut state {
            *is_waiting = self.refused_start[index];
        }
        let ContainerState::Running { incarnation, .. } = state else {
            return ContainerStatus { state, is_ready: self.init_is_done(index), is_started: false };
        };
        let verdict = |kind| self.worker_of(index, kind).map(|worker| self.workers[worker].verdict_on(incarnation));
        // §2.5, §2.6: no worker means yes.
        let succeeded = |kind| verdict(kind).is_none_or(|verdict| verdict == Some(Verdict::Success));
        let is_started = succeeded(ProbeKind::Startup);
        ContainerStatus { state, is_started, is_ready: is_started && succeeded(ProbeKind::Readiness) }
    }

    fn init_is_done(&self, index: usize) -> bool {
        let is_done = matches!(self.cached[index], ContainerState::Exited { code: 0, .. });
        self.spec.containers[index].role == Role::Init && is_done
    }

    /// The last status of a pod whose containers are gone.
    pub(super) fn finish_status(&mut self, now: Time, io: &mut Io<'_>) {
        for index in 0..self.status.containers.len() {
            self.status.containers[index] = self.container_status(index);
        }
        if !self.status.phase.is_over() {
            let has_failed =
                |state: &ContainerState| matches!(state, ContainerState::Exited { code, .. } if *code != 0);
            let failed = self.cached.iter().any(has_failed);
            self.status.phase = if failed { Phase::Failed } else { Phase::Succeeded };
        }
        self.status.conclude(&self.spec);
        self.patch(now, io);
    }

    /// §5: the status manager sends in its own time, and sends what it has by then.
    pub(super) fn patch(&mut self, now: Time, io: &mut Io<'_>) {
        if !std::mem::replace(&mut self.is_patch_planned, true) {
            io.plan(now + self.knobs.status.draw(&mut self.rng), Event::Patch);
        }
    }

    pub(super) fn patched(&mut self, now: Time, io: &mut Io<'_>) {
        self.is_patch_planned = false;
        io.world.status(now, Some(&self.status));
    }
}

const fn is_unresolvable(handler: &Handler) -> bool {
    matches!(handler, Handler::Http { port: PortRef::Unknown(_), .. } | Handler::Tcp { port: PortRef::Unknown(_), .. })
}
