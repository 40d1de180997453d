//! One pod on its node: the pod worker, which does one thing at a time (§4).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::knobs::{Knobs, Requeue};
use super::plan::{Actions, Sight};
use super::prober::{Beat, Verdict, Worker};
use super::spec::{PodSpec, ProbeKind};
use super::status::{ContainerState, PodStatus};
use super::stop::Stop;
use super::{Event, Io};
use crate::engine::Time;
use crate::lab::rng::Rng;

/// A pod and everything that the kubelet keeps about it.
#[derive(Debug)]
pub struct Pod {
    pub(super) spec: Arc<PodSpec>,
    pub(super) knobs: Arc<Knobs>,
    pub(super) rng: Rng,
    /// What the runtime would say now.
    pub(super) runtime: Vec<ContainerState>,
    /// What it said at the last relist: all that a sync knows.
    pub(super) cached: Vec<ContainerState>,
    /// When each container's newest instance but the running one ended; and the same as of the last relist.
    pub(super) ended: Vec<Option<Time>>,
    pub(super) cached_ended: Vec<Option<Time>>,
    /// And as of the beginning of the sync under way: what it knows does not change while it works (§4.1).
    pub(super) known_ended: Vec<Option<Time>>,
    pub(super) backoff: Vec<Backoff>,
    /// A start was refused, and none has succeeded since.
    pub(super) refused_start: Vec<bool>,
    pub(super) stops: Vec<Option<Stop>>,
    /// Grows with every stop, so that what was planned for an earlier one is dropped.
    pub(super) stop_generation: u32,
    pub(super) workers: Vec<Worker>,
    pub(super) beats: Vec<Beat>,
    pub(super) status: PodStatus,
    pub(super) is_patch_planned: bool,
    pub(super) turn: Turn,
    /// Somebody asked for a sync while one was waiting or under way.
    pub(super) is_sync_wanted: bool,
    pub(super) last_sync: Time,
    pub(super) relisted: Time,
    pub(super) requeue_generation: u32,
    pub(super) steps: VecDeque<StepKind>,
    /// Of the sync under way: why it must be tried again, and when that becomes possible at the earliest.
    pub(super) failed_until: Option<Time>,
    pub(super) has_sandbox: bool,
    /// The API server wants it gone.
    pub(super) deletion: Option<Deletion>,
}

/// What the pod worker is at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    Idle,
    /// For the cache to be newer than the last sync (§4.1).
    AwaitsRelist,
    Syncs,
    Terminates,
    Over,
}

/// One step of a sync.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StepKind {
    Kill {
        container: usize,
        by: ProbeKind,
    },
    Start {
        container: usize,
    },
    /// The runtime has confirmed a start; its postStart hook comes next.
    PostStart {
        container: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Deletion {
    pub(super) grace: Duration,
}

impl Pod {
    /// A pod that the kubelet has not seen yet. `rng` is its own stream.
    pub fn new(spec: Arc<PodSpec>, knobs: Arc<Knobs>, rng: Rng) -> Self {
        let count = spec.containers.len();
        let workers: Vec<Worker> = spec
            .containers
            .iter()
            .enumerate()
            .flat_map(|(index, c)| ProbeKind::ALL.map(|kind| c.probe(kind).map(|p| Worker::new(index, kind, p))))
            .flatten()
            .collect();
        Self {
            runtime: vec![ContainerState::Absent; count],
            cached: vec![ContainerState::Absent; count],
            ended: vec![None; count],
            cached_ended: vec![None; count],
            known_ended: vec![None; count],
            backoff: vec![Backoff::default(); count],
            refused_start: vec![false; count],
            stops: vec![None; count],
            stop_generation: 0,
            beats: vec![Beat::default(); workers.len()],
            workers,
            status: PodStatus::new(&spec),
            is_patch_planned: false,
            turn: Turn::Idle,
            is_sync_wanted: false,
            last_sync: Time::ZERO,
            relisted: Time::ZERO,
            requeue_generation: 0,
            steps: VecDeque::new(),
            failed_until: None,
            has_sandbox: false,
            deletion: None,
            spec,
            knobs,
            rng,
        }
    }

    pub fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// The status as the kubelet has it now.
    pub const fn status(&self) -> &PodStatus {
        &self.status
    }

    /// Whether a container's process runs now.
    pub fn is_running(&self, container: usize) -> bool {
        self.runtime[container].is_running()
    }

    /// Nothing of it is left.
    pub fn is_over(&self) -> bool {
        self.turn == Turn::Over
    }

    /// The scheduler has bound the pod to this node: its first sync begins.
    pub fn admit(&mut self, now: Time, io: &mut Io<'_>) {
        self.patch(now, io);
        // §2: the workers are made before any container is; their phase is that of this sync.
        for worker in 0..self.workers.len() {
            self.reset_ticker(worker, now, io);
        }
        self.sync(now, io);
    }

    /// The API server has set a deletion timestamp.
    pub fn delete(&mut self, now: Time, grace: Duration, io: &mut Io<'_>) {
        if self.deletion.is_none() {
            self.deletion = Some(Deletion { grace });
            let seen = now + self.knobs.deletion.draw(&mut self.rng);
            io.plan(seen, if self.is_over() { Event::Remove } else { Event::DeletionSeen });
        }
    }

    /// The PLEG has listed the node's containers; it began to at `began` (§4.1).
    pub fn relisted(&mut self, now: Time, began: Time, io: &mut Io<'_>) {
        self.relisted = began;
        let has_changed = self.cached != self.runtime;
        if has_changed {
            self.cached.clone_from(&self.runtime);
            self.cached_ended.clone_from(&self.ended);
        }
        // The cache comes first and frees a sync that waits for it; the event follows, and finds the worker at work.
        if self.turn == Turn::AwaitsRelist {
            self.sync(now, io);
        }
        if has_changed {
            self.want_sync(now, io);
        }
    }

    /// A relist that had nothing to tell: see [`Pod::awaits_relist`].
    pub const fn note_relist(&mut self, began: Time) {
        self.relisted = began;
    }

    /// Whether [`Pod::relisted`] would do more than [`Pod::note_relist`]: a world with many pods asks first.
    pub fn awaits_relist(&self) -> bool {
        self.turn == Turn::AwaitsRelist || self.cached != self.runtime
    }

    /// Carries out what was planned.
    pub fn handle(&mut self, now: Time, event: Event, io: &mut Io<'_>) {
        if self.turn == Turn::Over && !matches!(event, Event::Patch | Event::Remove) {
            return;
        }
        match event {
            Event::DeletionSeen => self.want_sync(now, io),
            Event::Exited { container, incarnation, code } => {
                if self.runtime[usize::from(container)].incarnation() == Some(incarnation) {
                    self.container_ends(usize::from(container), code, now, io);
                }
            }
            Event::HookBegins { container, generation } => {
                self.hook_begins(usize::from(container), generation, now, io)
            }
            Event::HookEnds { container, generation } => self.hook_ends(usize::from(container), generation, now, io),
            Event::Kill { container, generation } => self.kill(usize::from(container), generation, now, io),
            Event::Patch => self.patched(now, io),
            Event::ProbeEnds { worker, result } => self.probe_ends(usize::from(worker), result, now, io),
            Event::Remove => io.world.status(now, None),
            Event::Requeue { generation } => {
                if generation == self.requeue_generation {
                    self.want_sync(now, io);
                }
            }
            Event::Started { container } => self.container_starts(usize::from(container), now, io),
            Event::Step => self.step(now, io),
            Event::StopEnds { container, generation } => self.stop_ends(usize::from(container), generation, now, io),
            Event::Tick { worker, generation } => self.tick(usize::from(worker), generation, now, io),
            Event::Verdict { worker, update } => self.act_on(usize::from(worker), update, now, io),
        }
    }

    // The worker's turn.

    /// One sync at a time; one more is remembered while one waits or works (§4).
    pub(super) fn want_sync(&mut self, now: Time, io: &mut Io<'_>) {
        if self.turn == Turn::Idle {
            self.take_turn(now, io);
        } else {
            self.is_sync_wanted = true;
        }
    }

    /// A sync waits until the runtime was listed after the last sync ended (§4.1).
    fn take_turn(&mut self, now: Time, io: &mut Io<'_>) {
        if self.relisted > self.last_sync {
            self.sync(now, io);
        } else {
            self.turn = Turn::AwaitsRelist;
        }
    }

    fn sync(&mut self, now: Time, io: &mut Io<'_>) {
        self.turn = Turn::Syncs;
        self.failed_until = None;
        self.known_ended.clone_from(&self.cached_ended);
        self.publish(now, io);
        if self.deletion.is_some() || self.status.phase.is_over() {
            self.terminate(now, io);
            return;
        }
        let Actions { kill, start, finish } = self.sight(|sight| sight.actions());
        if finish {
            // All containers have ended for good, yet the phase says otherwise: an init container failed.
            self.terminate(now, io);
            return;
        }
        let kills = kill.into_iter().map(|(container, by)| StepKind::Kill { container, by });
        let starts = start.into_iter().map(|container| StepKind::Start { container });
        self.steps = kills.chain(starts).collect();
        let mut takes = self.knobs.sync.draw(&mut self.rng);
        if !self.has_sandbox {
            self.has_sandbox = true;
            takes += self.knobs.sandbox.draw(&mut self.rng);
        }
        io.plan(now + takes, Event::Step);
    }

    fn sight<T>(&self, look: impl FnOnce(&Sight<'_>) -> T) -> T {
        let verdict = |container: usize, kind: ProbeKind, incarnation| -> Option<Verdict> {
            let worker = self.workers.iter().find(|worker| worker.container == container && worker.kind == kind)?;
            worker.verdict_on(incarnation)
        };
        look(&Sight { spec: &self.spec, states: &self.cached, verdict: &verdict })
    }

    /// §4: kills first, then starts, each waiting for the one before: while one container is being killed
    /// no other of the pod is started.
    pub(super) fn step(&mut self, now: Time, io: &mut Io<'_>) {
        if self.turn != Turn::Syncs {
            return;
        }
        match self.steps.pop_front() {
            None => self.end_sync(now, io),
            Some(StepKind::Kill { container, by }) => {
                let own = self.spec.containers[container].probe(by).and_then(|probe| probe.grace);
                self.begin_stop(container, own.unwrap_or(self.spec.grace), now, io);
            }
            Some(StepKind::Start { container }) => self.begin_start(container, now, io),
            Some(StepKind::PostStart { container }) => self.post_start(container, now, io),
        }
    }

    fn end_sync(&mut self, now: Time, io: &mut Io<'_>) {
        self.last_sync = now;
        self.turn = Turn::Idle;
        let base = match (self.failed_until, self.knobs.requeue) {
            (None, _) => self.knobs.resync,
            (Some(_), Requeue::Fixed) => self.knobs.retry,
            (Some(until), Requeue::Expiry) => until.since(now).min(self.knobs.resync),
        };
        // The newest outcome alone decides when the next sync is due.
        self.requeue_generation += 1;
        let due = now + self.rng.stretch_half(base);
        io.plan(next_poll(due, self.knobs.poll), Event::Requeue { generation: self.requeue_generation });
        if std::mem::take(&mut self.is_sync_wanted) {
            self.take_turn(now, io);
        }
    }
}

/// The work queue is looked at once a poll (§4.1).
fn next_poll(due: Time, poll: Duration) -> Time {
    let poll = u64::try_from(poll.as_nanos()).unwrap_or(u64::MAX).max(1);
    Time::from_nanos(due.as_nanos().div_ceil(poll).saturating_mul(poll))
}
