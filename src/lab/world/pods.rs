//! One pod: what the kubelet, the server and the sidecar in it do to each other.

use std::time::Duration;

use super::decisions::Act;
use super::ends::End;
use super::outside::{self, Outside};
use super::sidecar::{Sidecar, Sight, Steps};
use super::{Happening, PROXY_SYNC, World, narrow};
use crate::engine::{DrainPhase, Gate, Time};
use crate::lab::kubelet::{Io, Pod};
use crate::lab::scenario::{ServerFault, SidecarFault, Signal};
use crate::limits;

/// A server whose dependency is away looks again so often.
const LOAD_STEP: Duration = Duration::from_millis(500);
/// A local answer from memory.
const QUICK: Duration = Duration::from_millis(1);

/// The stream of chance by which clients' nodes hear that a pod no longer serves while it terminates.
const LEAVING: u64 = 7;

impl World<'_> {
    /// Lets the kubelet act on one pod, then carries on what came of it.
    pub(super) fn with_pod(&mut self, now: Time, pod: usize, act: impl FnOnce(&mut Pod, &mut Io<'_>)) {
        let mut agenda = std::mem::take(&mut self.agenda);
        let slot = &mut self.slots[pod];
        let mut outside =
            Outside { pod, design: self.design, dependencies: &self.dependencies, inner: &mut slot.inner };
        act(&mut slot.kube, &mut Io { agenda: &mut agenda, world: &mut outside });
        for (at, event) in agenda.drain(..) {
            self.queue.push(at, Happening::Pod { pod: narrow(pod), event });
        }
        self.agenda = agenda;
        self.follow_up(now, pod);
    }

    /// What the kubelet's act changed outside it.
    fn follow_up(&mut self, now: Time, pod: usize) {
        if let Some(code) = self.slots[pod].inner.server_exit.take() {
            self.server_exited(now, pod, code);
        }
        if std::mem::take(&mut self.slots[pod].inner.has_server_started) {
            self.server_started(now, pod);
        }
        if std::mem::take(&mut self.slots[pod].inner.has_sidecar_exited) {
            self.sidecar_exited(now, pod);
        }
        if std::mem::take(&mut self.slots[pod].inner.has_sidecar_started) {
            self.sidecar_started(now, pod);
        }
        if std::mem::take(&mut self.slots[pod].inner.is_condemned) {
            // A server that hears SIGTERM closes the connections on which nothing is under way.
            let hears = self.design.sidecar.is_none() && !self.slots[pod].inner.server.is_hung();
            self.slots[pod].epoch += u32::from(hears);
            if !self.slots[pod].is_deleted {
                self.condemned(now, pod);
            }
        }
        if let Some((container, until)) = self.slots[pod].inner.lookout.take() {
            self.queue.push(until, Happening::LookoutEnds { pod: narrow(pod), container: narrow(container) });
        }
        if std::mem::take(&mut self.slots[pod].inner.wants_drain) {
            self.begin_drain(now, pod);
        }
        if std::mem::take(&mut self.slots[pod].inner.has_endpoint_changed) {
            self.status_told(now, pod);
        }
    }

    /// The kubelet's word has reached the API server, if it can.
    pub(super) fn status_told(&mut self, now: Time, pod: usize) {
        if !self.nodes[self.slots[pod].node].is_cut() {
            self.slots[pod].is_ready = self.slots[pod].inner.is_ready;
            self.update_endpoint(now, pod);
            self.plan_reconcile(now);
        }
    }

    /// The EndpointSlice follows the pod (§5).
    pub(super) fn update_endpoint(&mut self, now: Time, pod: usize) {
        let slot = &mut self.slots[pod];
        let is_ready = slot.is_ready && !slot.inner.is_gone;
        if slot.ready_since.is_some() != is_ready {
            slot.ready_changed = now;
        }
        slot.ready_since = if is_ready { slot.ready_since.or(Some(now)) } else { None };
        let (wants, is_leaving) = (is_ready && !slot.is_deleted, is_ready && slot.is_deleted);
        let was_leaving = std::mem::replace(&mut slot.is_leaving, is_leaving);
        if wants != slot.is_endpoint {
            slot.is_endpoint = wants;
            let heard = self.knobs.endpoints.draw(&mut slot.rng) + slot.rng.between(Duration::ZERO, PROXY_SYNC);
            self.queue.push(now + heard, Happening::Routed { pod: narrow(pod) });
        } else if was_leaving != is_leaving {
            // Chance of its own: what happens to a pod that ends moves nothing else.
            let mut own = slot.rng.fork(LEAVING);
            let heard = self.knobs.endpoints.draw(&mut own) + own.between(Duration::ZERO, PROXY_SYNC);
            self.queue.push(now + heard, Happening::Routed { pod: narrow(pod) });
        }
    }

    // Servers.

    pub(super) fn server_started(&mut self, now: Time, pod: usize) {
        self.collect(now, pod);
        let inner = &mut self.slots[pod].inner;
        inner.server.start(now);
        let number = inner.server.starts;
        if let Some(ended) = inner.server.ended_at.filter(|_| pod == 0) {
            self.score.waits.push(now.since(ended).as_millis() as f64 / 1000.0);
        }
        if number > 1 {
            self.score.restarts += 1;
            self.slots[pod].is_restarted_since_paint = true;
            self.note(now, pod, "the server is restarted".to_owned());
        }
        self.plan_crash(now, pod, number);
        if !self.slots[pod].inner.server.spec.never_ready {
            self.plan_load(now, pod);
        }
    }

    /// How this process ends by itself, if anything makes it.
    pub(super) fn plan_crash(&mut self, now: Time, pod: usize, number: u32) {
        let looping = self.server_faults(pod).find_map(|fault| match fault {
            ServerFault::CrashLoop(after) => Some((after, 1)),
            ServerFault::Leak(after) => Some((after, crate::lab::kubelet::KILLED)),
            _ => None,
        });
        let own = self.slots[pod].inner.server.spec.crash_after.map(|after| (after, 1));
        if let Some((after, code)) = looping.into_iter().chain(own).min() {
            self.queue.push(now + after, Happening::Crash { pod: narrow(pod), is_sidecar: false, number, code });
        }
    }

    /// Loading begins when the dependency it loads from is there.
    pub(super) fn plan_load(&mut self, now: Time, pod: usize) {
        let server = &self.slots[pod].inner.server;
        let (incarnation, load) = (server.starts, server.spec.load);
        let is_there = |index: usize| self.dependencies[index].illness(now, pod).is_none();
        if server.spec.loads_from.is_none_or(is_there) {
            self.queue.push(now + load, Happening::Loaded { pod: narrow(pod), incarnation });
        } else {
            self.queue.push(now + LOAD_STEP, Happening::TryLoad { pod: narrow(pod), incarnation });
        }
    }

    pub(super) fn server_exited(&mut self, now: Time, pod: usize, code: u8) {
        self.collect(now, pod);
        self.slots[pod].inner.server.die(now);
        self.collect(now, pod);
        if self.design.sidecar.is_none() {
            self.slots[pod].epoch += 1;
        }
        self.detected(now, pod);
        self.note(now, pod, format!("the server has ended with {code}"));
    }

    /// The kubelet has decided to kill the server; was there something that a restart mends?
    pub(super) fn condemned(&mut self, now: Time, pod: usize) {
        let is_wanted = self.slots[pod].inner.server.is_hung();
        self.score.wanted_restarts += u64::from(is_wanted);
        self.score.unwanted_restarts += u64::from(!is_wanted);
        let seen = self.slots[pod].inner.last_failure.clone();
        let act = if is_wanted { Act::KilledRightly } else { Act::KilledWrongly };
        self.score.decided(act, seen.as_deref().unwrap_or("its probe failed"));
        let verdict = if is_wanted { "wanted" } else { "nothing that a restart mends" };
        let why = seen.map_or_else(String::new, |why| format!(" because {why}"));
        self.note(now, pod, format!("the kubelet kills the server{why} ({verdict})"));
    }

    pub(super) fn crash(&mut self, now: Time, pod: usize, code: u8) {
        self.score.crashes += 1;
        let server = self.design.server;
        self.with_pod(now, pod, |kube, io| kube.crash(server, code, now, io));
    }

    /// A process ends by itself now, if it is still the one that was meant.
    pub(super) fn crashes(&mut self, now: Time, pod: usize, is_sidecar: bool, number: u32, code: u8) {
        let inner = &self.slots[pod].inner;
        if !is_sidecar && inner.server.starts == number && inner.server.life != super::Life::Gone {
            // The fault may be over since.
            let is_own = inner.server.spec.crash_after.is_some();
            if is_own
                || self
                    .server_faults(pod)
                    .any(|fault| matches!(fault, ServerFault::CrashLoop(_) | ServerFault::Leak(_)))
            {
                self.crash(now, pod, code);
            }
        }
        let is_same = self.slots[pod].inner.sidecar.as_ref().is_some_and(|sidecar| sidecar.life == number);
        let goes_on = |fault| matches!(fault, SidecarFault::CrashLoop(_) | SidecarFault::Oom(_));
        if is_sidecar && is_same && self.sidecar_faults(pod).any(goes_on) {
            self.crash_sidecar(now, pod, code);
        }
    }

    // Sidecars.

    pub(super) fn sidecar_started(&mut self, now: Time, pod: usize) {
        let Some(spec) = &self.design.sidecar else { return };
        let slot = &mut self.slots[pod];
        slot.inner.sidecar_lives += 1;
        let life = slot.inner.sidecar_lives;
        self.score.sidecar_restarts += u64::from(life > 1);
        let seed = slot.rng.next_u64();
        let mut steps = Steps::default();
        let sidecar = Sidecar::new(now, &spec.plan, spec.terms, seed, life, &mut steps);
        if sidecar.wants_traffic() {
            self.queue.push(now, Happening::Sample { pod: narrow(pod), life });
        }
        slot.inner.sidecar = Some(sidecar);
        slot.inner.turned = <[String; 3]>::default();
        slot.inner.is_sidecar_hung = false;
        slot.inner.is_sidecar_stopping = false;
        self.follow_sidecar(now, pod, life, &mut steps);
        let looping = self.sidecar_faults(pod).find_map(|fault| match fault {
            SidecarFault::CrashLoop(after) => Some((after, 1)),
            SidecarFault::Oom(after) => Some((after, crate::lab::kubelet::KILLED)),
            _ => None,
        });
        if let Some((after, code)) = looping {
            let crash = Happening::Crash { pod: narrow(pod), is_sidecar: true, number: life, code };
            self.queue.push(now + after, crash);
        }
    }

    /// Whatever went through it is lost.
    fn sidecar_exited(&mut self, now: Time, pod: usize) {
        self.collect(now, pod);
        self.slots[pod].inner.server.lose_all(now);
        self.collect(now, pod);
        self.send_away(now, pod, End::Reset);
        if self.slots[pod].inner.sidecar.take().is_some_and(|sidecar| sidecar.attempts.is_doubled) {
            self.score.breaks("a second attempt of a check beside the first");
        }
        self.slots[pod].epoch += 1;
        self.note(now, pod, "the sidecar has ended".to_owned());
        self.release_hooks(now, pod);
    }

    pub(super) fn crash_sidecar(&mut self, now: Time, pod: usize, code: u8) {
        if let Some(spec) = &self.design.sidecar {
            let container = spec.container;
            self.with_pod(now, pod, |kube, io| kube.crash(container, code, now, io));
        }
    }

    fn begin_drain(&mut self, now: Time, pod: usize) {
        let Some(life) = self.slots[pod].inner.sidecar.as_ref().map(|sidecar| sidecar.life) else { return };
        // The next answer on each kept connection ends it.
        self.slots[pod].epoch += 1;
        self.with_sidecar(now, pod, life, |sidecar, steps| sidecar.begin_drain(now, steps));
        self.drain_tick(now, pod, life);
    }

    /// As the driver in the pod: while it drains, what is in flight is counted often.
    pub(super) fn drain_tick(&mut self, now: Time, pod: usize, life: u32) {
        self.collect(now, pod);
        let requests = self.slots[pod].inner.server.in_flight() as u64;
        self.with_sidecar(now, pod, life, |sidecar, steps| sidecar.in_flight(now, requests, steps));
        let Some(sidecar) = self.slots[pod].inner.sidecar.as_ref().filter(|sidecar| sidecar.life == life) else {
            return;
        };
        if sidecar.drain != DrainPhase::Done {
            self.queue.push(now + limits::DRAIN_SAMPLE, Happening::DrainTick { pod: narrow(pod), life });
            return;
        }
        self.release_hooks(now, pod);
        if std::mem::take(&mut self.slots[pod].inner.is_sidecar_stopping) {
            self.crash_sidecar(now, pod, 0);
        }
    }

    /// A hook that has looked out for a drain for as long as it may is over, unless one has begun.
    pub(super) fn lookout_ends(&mut self, now: Time, pod: usize, container: usize) {
        let inner = &mut self.slots[pod].inner;
        let waiting = inner.waiting_hooks.len();
        if !inner.is_draining() {
            inner.waiting_hooks.retain(|known| *known != container);
        }
        if inner.waiting_hooks.len() < waiting {
            self.with_pod(now, pod, |kube, io| kube.finish_hook(container, now, io));
        }
    }

    fn release_hooks(&mut self, now: Time, pod: usize) {
        for container in std::mem::take(&mut self.slots[pod].inner.waiting_hooks) {
            self.with_pod(now, pod, |kube, io| kube.finish_hook(container, now, io));
        }
    }

    /// The traffic plane is sampled, as often as in the pod.
    pub(super) fn sample(&mut self, now: Time, pod: usize, life: u32) {
        if self.slots[pod].inner.sidecar.as_ref().is_none_or(|sidecar| sidecar.life != life) {
            return;
        }
        self.queue.push(now + limits::TRAFFIC_SAMPLE, Happening::Sample { pod: narrow(pod), life });
        self.collect(now, pod);
        let seen = self.slots[pod].inner.server.overview(now);
        self.with_sidecar(now, pod, life, |sidecar, steps| sidecar.told(now, seen, steps));
    }

    pub(super) fn with_sidecar(
        &mut self,
        now: Time,
        pod: usize,
        life: u32,
        act: impl FnOnce(&mut Sidecar, &mut Steps),
    ) {
        if self.slots[pod].inner.is_sidecar_hung {
            return;
        }
        let Some(sidecar) = self.slots[pod].inner.sidecar.as_mut().filter(|sidecar| sidecar.life == life) else {
            return;
        };
        act(sidecar, &mut self.steps);
        // Most samples of the traffic change nothing.
        if self.steps.is_empty() {
            return;
        }
        let mut steps = std::mem::take(&mut self.steps);
        self.follow_sidecar(now, pod, life, &mut steps);
        self.steps = steps;
    }

    /// Carries out the steps; none of them is left.
    fn follow_sidecar(&mut self, now: Time, pod: usize, life: u32, steps: &mut Steps) {
        let Some(spec) = &self.design.sidecar else { return };
        for wanted in steps.attempts.drain(..) {
            let signal = spec.checks[wanted.check.index()];
            if matches!(signal, Signal::Counter) {
                self.collect(now, pod);
            }
            let sight = self.ask(now, pod, signal);
            let (ends, sight) = match sight {
                Sight::Good(took) | Sight::Bad(took) if now + took < wanted.deadline => (now + took, sight),
                Sight::Refused | Sight::Busy => (now, sight),
                Sight::Process { .. } | Sight::Read { .. } => (now + QUICK, sight),
                // The page's own deadline comes a little earlier.
                Sight::Unread { .. } => (now + wanted.timeout * 9 / 10, sight),
                Sight::Good(_) | Sight::Bad(_) | Sight::Silence => (wanted.deadline, Sight::Silence),
            };
            let (check, attempt) = (wanted.check, wanted.attempt);
            self.queue.push(ends, Happening::CheckEnds { pod: narrow(pod), life, check, attempt, sight });
        }
        if let Some(wake) = steps.wake.take() {
            self.queue.push(wake, Happening::SidecarWakes { pod: narrow(pod), life });
        }
        for (gate, to, reason) in steps.turns.drain(..) {
            // How a pod first becomes ready is no story.
            if gate != Gate::Startup && self.rotation.began.is_some() {
                let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                self.note(now, pod, format!("/{} turns to {to}{because}", gate.as_str()));
            }
            self.slots[pod].inner.turned[gate as usize] = reason;
        }
        if std::mem::take(&mut steps.has_passage_changed) {
            self.look_at_requests(now, pod);
        }
    }

    fn ask(&mut self, now: Time, pod: usize, signal: Signal) -> Sight {
        outside::ask(signal, now, pod, &mut self.slots[pod].inner.server, &self.dependencies)
    }
}
