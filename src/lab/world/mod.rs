//! The world of one design: pods on their nodes, a Service in front, clients, dependencies, faults.
//!
//! It owns virtual time and who talks to whom. What the kubelet, the engine and a server decide is theirs.

mod faults;
mod outside;
mod requests;
mod score;
mod server;
mod sidecar;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use outside::{Inner, Outside};
use score::Rotation;
use server::{Life, Request, Server};
use sidecar::{Sidecar, Sight, Steps};

pub use score::{Note, Score};
pub use server::End;

use crate::engine::{Attempt, CheckId, Gate, Time};
use crate::lab::kubelet::{self, Io, Knobs, Pod};
use crate::lab::queue::Queue;
use crate::lab::rng::Rng;
use crate::lab::scenario::{Design, Illness, Scenario, Signal};

/// Time zero of a scenario: the nodes have been up for long.
const ZERO: Time = Time::from_secs(3600);
/// The pods of a new Deployment are made, bound and seen by their kubelets within about so long.
const ROLLOUT: Duration = Duration::from_secs(3);
/// kube-proxy on the clients' nodes follows a change of the slice within its sync period (§5).
const PROXY_SYNC: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
enum Happening {
    /// The scheduler has bound the pod to its node.
    Admit {
        pod: u16,
    },
    CheckEnds {
        pod: u16,
        life: u32,
        check: CheckId,
        attempt: Attempt,
        sight: Sight,
    },
    /// Requests of this pod end badly now.
    Expire {
        pod: u16,
    },
    FaultBegins {
        fault: u16,
    },
    FaultEnds {
        fault: u16,
    },
    Loaded {
        pod: u16,
        incarnation: u32,
    },
    /// A tenth of a column has passed.
    Paint,
    Pod {
        pod: u16,
        event: kubelet::Event,
    },
    Relist {
        pod: u16,
        began: Time,
    },
    Retry {
        request: Request,
    },
    /// The clients' nodes have heard of the pod's endpoint.
    Routed {
        pod: u16,
    },
    SidecarWakes {
        pod: u16,
        life: u32,
    },
}

/// What the dependencies of a world are like now.
#[derive(Clone, Debug)]
struct Dependency {
    name: String,
    latency: Duration,
    /// By pod.
    illness: Vec<Option<Illness>>,
}

struct Slot {
    kube: Pod,
    inner: Inner,
    rng: Rng,
    is_routed: bool,
    is_restarted_since_paint: bool,
    /// Faults of this pod's server that nobody has noticed yet: the index of their detection and their time.
    undetected: Vec<(usize, Time)>,
}

struct World<'a> {
    scenario: &'a Scenario,
    design: &'a Design,
    knobs: Arc<Knobs>,
    queue: Queue<Happening>,
    slots: Vec<Slot>,
    dependencies: Vec<Dependency>,
    routed: Vec<u16>,
    rotation: Rotation,
    traffic: Rng,
    /// Between two requests, on average.
    gap: Duration,
    next_arrival: Time,
    retries: u64,
    score: Score,
    end: Time,
}

/// Runs one design through the scenario. Equal seeds give equal scores.
pub fn run(scenario: &Scenario, design: &Design, seed: u64) -> Score {
    let mut world = World::new(scenario, design, seed);
    world.run();
    world.score
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, design: &'a Design, seed: u64) -> Self {
        let rng = Rng::new(seed);
        let knobs = Arc::new(Knobs::default());
        let slots = (0..scenario.pods)
            .map(|index| {
                let own = rng.fork(1000 + index as u64);
                Slot {
                    kube: Pod::new(Arc::clone(&design.pod), Arc::clone(&knobs), own.fork(1)),
                    inner: Inner::new(Server::new(&scenario.server)),
                    rng: own.fork(2),
                    is_routed: false,
                    is_restarted_since_paint: false,
                    undetected: Vec::new(),
                }
            })
            .collect();
        let dependencies = scenario
            .dependencies
            .iter()
            .map(|spec| Dependency {
                name: spec.name.clone(),
                latency: spec.latency,
                illness: vec![None; scenario.pods],
            })
            .collect();
        Self {
            scenario,
            design,
            knobs,
            queue: Queue::new(),
            slots,
            dependencies,
            routed: Vec::with_capacity(scenario.pods),
            rotation: Rotation::default(),
            traffic: rng.fork(1),
            gap: Duration::from_secs_f64(1.0 / scenario.clients.rate),
            next_arrival: ZERO,
            retries: 0,
            score: Score::new(scenario.pods, scenario.duration),
            end: ZERO + scenario.duration,
        }
    }

    fn run(&mut self) {
        for pod in 0..self.slots.len() {
            let began = ZERO + self.slots[pod].rng.between(Duration::ZERO, self.knobs.relist);
            self.queue.push(began, Happening::Relist { pod: narrow(pod), began });
            let admitted = ZERO + self.slots[pod].rng.between(Duration::ZERO, ROLLOUT);
            self.queue.push(admitted, Happening::Admit { pod: narrow(pod) });
        }
        for (index, fault) in self.scenario.faults.iter().enumerate() {
            self.queue.push(ZERO + fault.at, Happening::FaultBegins { fault: narrow(index) });
            if fault.until > fault.at {
                self.queue.push(ZERO + fault.until, Happening::FaultEnds { fault: narrow(index) });
            }
        }
        self.next_arrival = ZERO + self.scenario.clients.from + self.traffic.exponential(self.gap);
        self.queue.push(ZERO + self.column(), Happening::Paint);
        loop {
            self.score.events += 1;
            // Arrivals are most of all events and come one after the other: they need no heap.
            if self.next_arrival <= self.end && self.queue.next().is_none_or(|next| self.next_arrival < next) {
                self.arrive();
            } else if let Some((now, happening)) = self.queue.pop(self.end) {
                self.happen(now, happening);
            } else {
                break;
            }
        }
        self.finish();
    }

    fn happen(&mut self, now: Time, happening: Happening) {
        match happening {
            Happening::Admit { pod } => self.with_pod(now, usize::from(pod), |kube, io| kube.admit(now, io)),
            Happening::CheckEnds { pod, life, check, attempt, sight } => {
                self.with_sidecar(now, usize::from(pod), life, |sidecar, steps| {
                    sidecar.result(now, check, attempt, sight, steps);
                });
            }
            Happening::Expire { pod } => self.collect(now, usize::from(pod)),
            Happening::FaultBegins { fault } => self.fault_begins(now, usize::from(fault)),
            Happening::FaultEnds { fault } => self.fault_ends(now, usize::from(fault)),
            Happening::Loaded { pod, incarnation } => {
                let inner = &mut self.slots[usize::from(pod)].inner;
                if inner.server_starts == incarnation && inner.server.life == Life::Loading && !inner.server.is_hung {
                    inner.server.life = Life::Serving;
                }
            }
            Happening::Paint => self.paint(now),
            Happening::Pod { pod, event } => {
                self.with_pod(now, usize::from(pod), |kube, io| kube.handle(now, event, io))
            }
            Happening::Relist { pod, began } => self.relist(now, usize::from(pod), began),
            Happening::Retry { request } => self.send(now, request),
            Happening::Routed { pod } => self.route(now, usize::from(pod)),
            Happening::SidecarWakes { pod, life } => {
                self.with_sidecar(now, usize::from(pod), life, |sidecar, steps| sidecar.wake_up(now, steps));
            }
        }
    }

    fn relist(&mut self, now: Time, pod: usize, began: Time) {
        if self.slots[pod].kube.awaits_relist() {
            self.with_pod(now, pod, |kube, io| kube.relisted(now, began, io));
        } else {
            self.slots[pod].kube.note_relist(began);
        }
        let begins = now + self.knobs.relist;
        let takes = self.knobs.relist_takes.draw(&mut self.slots[pod].rng);
        self.queue.push(begins + takes, Happening::Relist { pod: narrow(pod), began: begins });
    }

    /// Lets the kubelet act on one pod, then carries on what came of it.
    fn with_pod(&mut self, now: Time, pod: usize, act: impl FnOnce(&mut Pod, &mut Io<'_>)) {
        let mut agenda = Vec::new();
        let slot = &mut self.slots[pod];
        let mut outside =
            Outside { pod, design: self.design, dependencies: &self.dependencies, inner: &mut slot.inner };
        act(&mut slot.kube, &mut Io { agenda: &mut agenda, world: &mut outside });
        for (at, event) in agenda {
            self.queue.push(at, Happening::Pod { pod: narrow(pod), event });
        }
        self.follow_up(now, pod);
    }

    /// What the kubelet's act changed outside it.
    fn follow_up(&mut self, now: Time, pod: usize) {
        if std::mem::take(&mut self.slots[pod].inner.has_server_started) {
            self.server_started(now, pod);
        }
        if let Some(code) = self.slots[pod].inner.server_exit.take() {
            self.server_exited(now, pod, code);
        }
        if std::mem::take(&mut self.slots[pod].inner.has_sidecar_started) {
            self.sidecar_started(now, pod);
        }
        if std::mem::take(&mut self.slots[pod].inner.is_condemned) {
            self.condemned(now, pod);
        }
        if std::mem::take(&mut self.slots[pod].inner.has_endpoint_changed) {
            let slot = &mut self.slots[pod];
            let heard = self.knobs.endpoints.draw(&mut slot.rng) + slot.rng.between(Duration::ZERO, PROXY_SYNC);
            self.queue.push(now + heard, Happening::Routed { pod: narrow(pod) });
        }
    }

    // Servers.

    fn server_started(&mut self, now: Time, pod: usize) {
        self.collect(now, pod);
        let inner = &mut self.slots[pod].inner;
        inner.server.start();
        inner.server_starts += 1;
        if inner.server_starts > 1 {
            self.score.restarts += 1;
            self.slots[pod].is_restarted_since_paint = true;
            self.note(now, pod, "the server is restarted".to_owned());
        }
        self.plan_load(now, pod);
    }

    /// Loading begins when the dependency it loads from is there.
    fn plan_load(&mut self, now: Time, pod: usize) {
        let is_there = |index: usize| self.dependencies[index].illness[pod].is_none();
        if self.scenario.server.loads_from.is_none_or(is_there) {
            let incarnation = self.slots[pod].inner.server_starts;
            let done = now + self.scenario.server.load;
            self.queue.push(done, Happening::Loaded { pod: narrow(pod), incarnation });
        }
    }

    fn server_exited(&mut self, now: Time, pod: usize, code: u8) {
        self.collect(now, pod);
        self.slots[pod].inner.server.die(now);
        self.collect(now, pod);
        self.detected(now, pod);
        self.note(now, pod, format!("the server has ended with {code}"));
    }

    /// The kubelet has decided to kill the server; was there something that a restart mends?
    fn condemned(&mut self, now: Time, pod: usize) {
        let is_wanted = self.slots[pod].inner.server.is_hung;
        self.score.unwanted_restarts += u64::from(!is_wanted);
        let seen = self.slots[pod].inner.last_failure.clone();
        let verdict = if is_wanted { "wanted" } else { "nothing that a restart mends" };
        let why = seen.map_or_else(String::new, |why| format!(" because {why}"));
        self.note(now, pod, format!("the kubelet kills the server{why} ({verdict})"));
    }

    fn crash(&mut self, now: Time, pod: usize, code: u8) {
        self.score.crashes += 1;
        let server = self.design.server;
        self.with_pod(now, pod, |kube, io| kube.crash(server, code, now, io));
    }

    // Sidecars.

    fn sidecar_started(&mut self, now: Time, pod: usize) {
        let Some(spec) = &self.design.sidecar else { return };
        let slot = &mut self.slots[pod];
        slot.inner.sidecar_lives += 1;
        let life = slot.inner.sidecar_lives;
        let seed = slot.rng.next_u64();
        let mut steps = Steps::default();
        slot.inner.sidecar = Some(Sidecar::new(now, &spec.plan, seed, life, &mut steps));
        self.follow_sidecar(now, pod, life, steps);
    }

    fn with_sidecar(&mut self, now: Time, pod: usize, life: u32, act: impl FnOnce(&mut Sidecar, &mut Steps)) {
        let Some(sidecar) = self.slots[pod].inner.sidecar.as_mut().filter(|sidecar| sidecar.life == life) else {
            return;
        };
        let mut steps = Steps::default();
        act(sidecar, &mut steps);
        self.follow_sidecar(now, pod, life, steps);
    }

    fn follow_sidecar(&mut self, now: Time, pod: usize, life: u32, steps: Steps) {
        let Some(spec) = &self.design.sidecar else { return };
        for wanted in steps.attempts {
            let sight = self.ask(now, pod, spec.checks[wanted.check.index()]);
            let (ends, sight) = match sight {
                Sight::Good(took) | Sight::Bad(took) if now + took < wanted.deadline => (now + took, sight),
                Sight::Nothing | Sight::Refused => (now, sight),
                Sight::Good(_) | Sight::Bad(_) | Sight::Silence => (wanted.deadline, Sight::Silence),
            };
            let (check, attempt) = (wanted.check, wanted.attempt);
            self.queue.push(ends, Happening::CheckEnds { pod: narrow(pod), life, check, attempt, sight });
        }
        if let Some(wake) = steps.wake {
            self.queue.push(wake, Happening::SidecarWakes { pod: narrow(pod), life });
        }
        for (gate, to, reason) in steps.turns {
            // How a pod first becomes ready is no story.
            if gate != Gate::Startup && self.rotation.began.is_some() {
                let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                self.note(now, pod, format!("/{} turns to {to}{because}", gate.as_str()));
            }
            if gate == Gate::Health && to == "fail" {
                self.slots[pod].inner.last_failure = Some(reason);
            }
        }
    }

    fn ask(&self, now: Time, pod: usize, signal: Signal) -> Sight {
        outside::ask(signal, now, pod, &self.slots[pod].inner.server, &self.dependencies)
    }

    // Rotation.

    fn route(&mut self, now: Time, pod: usize) {
        let wants = self.slots[pod].inner.is_endpoint_ready;
        if self.slots[pod].is_routed == wants {
            return;
        }
        self.slots[pod].is_routed = wants;
        self.routed.clear();
        self.routed.extend((0..self.slots.len()).filter(|index| self.slots[*index].is_routed).map(narrow));
        let out = (self.slots.len() - self.routed.len()) as u64;
        self.rotation.changed(now, out, &mut self.score);
        self.note(now, pod, if wants { "in rotation" } else { "out of rotation" }.to_owned());
        if !wants {
            self.detected(now, pod);
        }
    }

    fn detected(&mut self, now: Time, pod: usize) {
        for (index, at) in std::mem::take(&mut self.slots[pod].undetected) {
            self.score.detections[index] = Some(now.since(at).as_millis() as f64 / 1000.0);
        }
    }

    // Bookkeeping.

    fn note(&mut self, now: Time, pod: usize, text: String) {
        self.score.note(now.since(ZERO), pod, text);
    }

    fn column(&self) -> Duration {
        self.scenario.duration / Score::COLUMNS as u32
    }

    fn paint(&mut self, now: Time) {
        for (slot, lane) in self.slots.iter_mut().zip(&mut self.score.lanes) {
            let is_restarted = std::mem::take(&mut slot.is_restarted_since_paint);
            lane.push(match (is_restarted, slot.is_routed, slot.inner.server.life, slot.inner.server.is_hung) {
                (true, ..) => 'R',
                (_, true, Life::Serving, false) => '=',
                (_, true, ..) => '!',
                (_, false, Life::Serving, false) => 'o',
                (_, false, ..) => '.',
            });
        }
        let next = now + self.column();
        self.queue.push(next, Happening::Paint);
    }

    /// Whatever is still in flight ends as it will.
    fn finish(&mut self) {
        let out = (self.slots.len() - self.routed.len()) as u64;
        self.rotation.changed(self.end, out, &mut self.score);
        for pod in 0..self.slots.len() {
            self.collect(Time::from_nanos(u64::MAX), pod);
        }
        debug_assert!(self.score.is_conserved(), "each request ends once");
    }
}

/// Pods and faults number below a thousand.
fn narrow(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}
