//! The world of one design: pods on their nodes, a Service in front, clients, dependencies, faults.
//!
//! It owns virtual time and who talks to whom. What the kubelet, the engine and a server decide is theirs.

mod decisions;
mod ends;
mod faults;
mod fleet;
mod ledger;
mod nodes;
mod outside;
mod plane;
mod pods;
mod requests;
mod scale;
mod score;
mod server;
mod sidecar;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use fleet::Fleet;
use ledger::Ledger;
use nodes::Node;
use outside::Inner;
use requests::Connection;
use scale::CpuReading;
use score::Rotation;
use server::{Life, Request};
use sidecar::{Sight, Steps};

pub use decisions::{Act, Decision};
pub use ends::End;
pub use score::{Note, Score};

use crate::engine::{Attempt, CheckId, Time};
use crate::lab::autoscaler::Autoscaler;
use crate::lab::kubelet::{self, Knobs, Pod};
use crate::lab::queue::Queue;
use crate::lab::rng::Rng;
use crate::lab::scenario::{Design, Illness, Scenario};

/// Time zero of a scenario: the nodes have been up for long.
const ZERO: Time = Time::from_secs(3600);
/// The pods of a new Deployment are made, bound and seen by their kubelets within about so long.
const ROLLOUT: Duration = Duration::from_secs(3);
/// kube-proxy on the clients' nodes follows a change of the slice within its sync period (§5).
const PROXY_SYNC: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
enum Happening {
    /// Somebody does something.
    ActionBegins {
        action: u16,
    },
    ActionEnds {
        action: u16,
    },
    /// The scheduler has bound the pod to its node.
    Admit {
        pod: u16,
    },
    /// The autoscaler looks.
    Autoscale,
    CheckEnds {
        pod: u16,
        life: u32,
        check: CheckId,
        attempt: Attempt,
        sight: Sight,
    },
    /// A process of the pod ends by itself, if it is still the same.
    Crash {
        pod: u16,
        is_sidecar: bool,
        number: u32,
        code: u8,
    },
    /// A draining sidecar counts what is in flight.
    DrainTick {
        pod: u16,
        life: u32,
    },
    /// An eviction is tried.
    Evict {
        pod: u16,
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
    /// Nobody has answered the client, and nobody will.
    GiveUp {
        request: Request,
    },
    Loaded {
        pod: u16,
        incarnation: u32,
    },
    /// A preStop hook has looked out for a drain for long enough.
    LookoutEnds {
        pod: u16,
        container: u16,
    },
    /// The control plane looks at a node that has been silent.
    NodeSilent {
        node: u16,
        /// Which silence.
        number: u32,
        has_tolerated: bool,
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
    /// The Deployment's controller looks.
    Reconcile {
        number: u64,
    },
    /// The clients' nodes have heard of the pod's endpoint.
    Routed {
        pod: u16,
    },
    /// The sidecar's traffic plane is sampled.
    Sample {
        pod: u16,
        life: u32,
    },
    SidecarWakes {
        pod: u16,
        life: u32,
    },
    /// A surge begins or ends.
    Surge,
    /// A server that waits for what it loads from looks again.
    TryLoad {
        pod: u16,
        incarnation: u32,
    },
}

/// What the dependencies of a world are like now.
#[derive(Clone, Debug)]
struct Dependency {
    name: String,
    latency: Duration,
    /// The faults under way: which, since when, how, and for which pods (all if empty).
    faults: Vec<(usize, Time, Illness, Vec<usize>)>,
    /// Pods that reach nothing.
    cut: Vec<usize>,
}

struct Slot {
    kube: Pod,
    inner: Inner,
    rng: Rng,
    version: usize,
    node: usize,
    made: Time,
    /// The API server wants it gone.
    is_deleted: bool,
    /// The API server's view of its readiness.
    is_ready: bool,
    ready_since: Option<Time>,
    /// When that became so or ceased to be.
    ready_changed: Time,
    cpu_reading: Option<CpuReading>,
    /// In the EndpointSlice, ready.
    is_endpoint: bool,
    /// In the EndpointSlice, serving and terminating.
    is_leaving: bool,
    /// Grows when the clients' connections to it break.
    epoch: u32,
    is_routed: bool,
    /// The clients' nodes know it as serving and terminating.
    is_last_resort: bool,
    is_restarted_since_paint: bool,
    /// Faults of this pod's server that nobody has noticed yet: the index of their detection and their time.
    undetected: Vec<(usize, Time)>,
}

impl Slot {
    /// An endpoint whose pod has ended.
    const fn is_ghost(&self) -> bool {
        (self.is_endpoint || self.is_leaving) && self.inner.is_gone
    }
}

struct World<'a> {
    scenario: &'a Scenario,
    design: &'a Design,
    knobs: Arc<Knobs>,
    queue: Queue<Happening>,
    /// What a pod plans and what a sidecar wants, while either acts: kept for its room alone.
    agenda: Vec<(Time, kubelet::Event)>,
    steps: Steps,
    slots: Vec<Slot>,
    dependencies: Vec<Dependency>,
    /// Pods of the EndpointSlice as the clients' nodes know it.
    routed: Vec<u16>,
    /// Of those that serve and terminate: where traffic goes while nobody is ready (§5).
    last_resorts: Vec<u16>,
    nodes: Vec<Node>,
    fleet: Fleet,
    autoscaler: Autoscaler,
    connections: Vec<Connection>,
    /// Faults under way.
    active: Vec<usize>,
    rotation: Rotation,
    traffic: Rng,
    /// Between two requests, on average.
    gap: Duration,
    next_arrival: Time,
    retries: u64,
    ledger: Ledger,
    score: Score,
    rng: Rng,
    now: Time,
    end: Time,
}

/// Runs one design through the scenario. Equal seeds give equal scores.
pub fn run(scenario: &Scenario, design: &Design, seed: u64) -> Score {
    let mut world = World::new(scenario, design, seed);
    world.run();
    world.score
}

impl Dependency {
    /// What this pod meets now; of several faults the latest.
    fn illness(&self, now: Time, pod: usize) -> Option<Illness> {
        if self.cut.contains(&pod) {
            return Some(Illness::Silent);
        }
        let found = self.faults.iter().rev().filter(|(.., only)| only.is_empty() || only.contains(&pod));
        found.map(|(_, began, how, _)| (now.since(*began), *how)).find_map(|(since, how)| match how {
            Illness::Flapping(every) => (since.as_nanos() / every.as_nanos().max(1) % 2 == 0).then_some(how),
            _ => Some(how),
        })
    }
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, design: &'a Design, seed: u64) -> Self {
        let rng = Rng::new(seed);
        let knobs = Arc::new(Knobs::default());
        let dependencies = scenario
            .dependencies
            .iter()
            .map(|spec| Dependency {
                name: spec.name.clone(),
                latency: spec.latency,
                faults: Vec::new(),
                cut: Vec::new(),
            })
            .collect();
        Self {
            scenario,
            design,
            knobs,
            queue: Queue::new(),
            agenda: Vec::new(),
            steps: Steps::default(),
            slots: Vec::with_capacity(scenario.pods),
            dependencies,
            routed: Vec::with_capacity(scenario.pods),
            last_resorts: Vec::new(),
            nodes: vec![Node::default(); scenario.deployment.nodes],
            fleet: Fleet::new(scenario.pods),
            autoscaler: Autoscaler::default(),
            connections: vec![Connection::default(); scenario.clients.connections as usize],
            active: Vec::new(),
            rotation: Rotation::default(),
            traffic: rng.fork(1),
            gap: Duration::from_secs_f64(1.0 / scenario.clients.rate),
            next_arrival: ZERO,
            retries: 0,
            ledger: Ledger::default(),
            score: Score::new(scenario.duration),
            rng,
            now: ZERO,
            end: ZERO + scenario.duration,
        }
    }

    fn run(&mut self) {
        for _ in 0..self.scenario.pods {
            self.make_pod(ZERO, 0, ROLLOUT);
        }
        for (index, action) in self.scenario.actions.iter().enumerate() {
            self.queue.push(ZERO + action.at, Happening::ActionBegins { action: narrow(index) });
            if let Some(until) = action.until {
                self.queue.push(ZERO + until, Happening::ActionEnds { action: narrow(index) });
            }
        }
        for (index, fault) in self.scenario.faults.iter().enumerate() {
            self.queue.push(ZERO + fault.at, Happening::FaultBegins { fault: narrow(index) });
            if fault.until > fault.at {
                self.queue.push(ZERO + fault.until, Happening::FaultEnds { fault: narrow(index) });
            }
        }
        for at in self.scenario.clients.surges.iter().flat_map(|surge| [surge.at, surge.until]) {
            self.queue.push(ZERO + at, Happening::Surge);
        }
        if let Some(spec) = &self.scenario.autoscaler {
            self.queue.push(ZERO + spec.sync, Happening::Autoscale);
        }
        self.next_arrival = ZERO + self.scenario.clients.from + self.traffic.exponential(self.gap);
        self.queue.push(ZERO + self.column(), Happening::Paint);
        loop {
            self.score.events += 1;
            // Arrivals are most of all events and come one after the other: they need no heap.
            if self.next_arrival <= self.end && self.queue.next_at().is_none_or(|next| self.next_arrival < next) {
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
        self.moves_on(now);
        match happening {
            Happening::ActionBegins { action } => self.action_begins(now, usize::from(action)),
            Happening::ActionEnds { action } => self.action_ends(now, usize::from(action)),
            Happening::Autoscale => self.autoscale(now),
            Happening::Surge => self.surge(now),
            Happening::Crash { pod, is_sidecar, number, code } => {
                self.crashes(now, usize::from(pod), is_sidecar, number, code);
            }
            Happening::DrainTick { pod, life } => self.drain_tick(now, usize::from(pod), life),
            Happening::Evict { pod } => self.evict(now, usize::from(pod)),
            Happening::GiveUp { request } => self.attempt_ended(now, request, End::Timeout),
            Happening::LookoutEnds { pod, container } => {
                self.lookout_ends(now, usize::from(pod), usize::from(container));
            }
            Happening::NodeSilent { node, number, has_tolerated } => {
                self.node_silent(now, usize::from(node), number, has_tolerated);
            }
            Happening::Reconcile { number } => self.reconcile_if(now, number),
            Happening::Sample { pod, life } => self.sample(now, usize::from(pod), life),
            Happening::TryLoad { pod, incarnation } => {
                if self.slots[usize::from(pod)].inner.server.starts == incarnation {
                    self.plan_load(now, usize::from(pod));
                }
            }
            Happening::Admit { pod } => self.with_pod(now, usize::from(pod), |kube, io| kube.admit(now, io)),
            Happening::CheckEnds { pod, life, check, attempt, sight } => {
                self.with_sidecar(now, usize::from(pod), life, |sidecar, steps| {
                    sidecar.result(now, check, attempt, sight, steps);
                });
            }
            Happening::Expire { pod } => self.look_at_requests(now, usize::from(pod)),
            Happening::FaultBegins { fault } => self.fault_begins(now, usize::from(fault)),
            Happening::FaultEnds { fault } => self.fault_ends(now, usize::from(fault)),
            Happening::Loaded { pod, incarnation } => {
                let server = &mut self.slots[usize::from(pod)].inner.server;
                if server.starts == incarnation && server.life == Life::Loading && !server.is_hung() {
                    server.life = Life::Serving;
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

    /// Every event and every arrival passes here.
    fn moves_on(&mut self, now: Time) {
        if now < self.now {
            self.score.breaks("time went back");
        }
        self.now = now;
    }

    fn relist(&mut self, now: Time, pod: usize, began: Time) {
        if self.slots[pod].inner.is_gone {
            return;
        }
        if self.slots[pod].kube.awaits_relist() {
            self.with_pod(now, pod, |kube, io| kube.relisted(now, began, io));
        } else {
            self.slots[pod].kube.note_relist(began);
        }
        let begins = now + self.knobs.relist;
        let takes = self.knobs.relist_takes.draw(&mut self.slots[pod].rng);
        self.queue.push(begins + takes, Happening::Relist { pod: narrow(pod), began: begins });
    }

    // Rotation.

    fn route(&mut self, now: Time, pod: usize) {
        let is_leaving = self.slots[pod].is_leaving;
        if std::mem::replace(&mut self.slots[pod].is_last_resort, is_leaving) != is_leaving {
            list(&mut self.last_resorts, pod, is_leaving);
        }
        let wants = self.slots[pod].is_endpoint;
        if self.slots[pod].is_routed == wants {
            return;
        }
        self.slots[pod].is_routed = wants;
        list(&mut self.routed, pod, wants);
        self.count_rotation(now);
        if wants {
            self.note(now, pod, "in rotation".to_owned());
            return;
        }
        let why = self.why_out(pod);
        self.note(now, pod, format!("out of rotation: {why}"));
        self.score.decided(Act::OutOfRotation, &why);
        self.detected(now, pod);
    }

    fn why_out(&self, pod: usize) -> String {
        let slot = &self.slots[pod];
        match () {
            () if slot.inner.is_gone || slot.is_deleted => "the pod is deleted".to_owned(),
            () if self.nodes[slot.node].is_cut() => "its node is lost".to_owned(),
            () if slot.inner.sidecar.is_none() && self.design.sidecar.is_some() => "the sidecar has ended".to_owned(),
            () if slot.inner.server.life == Life::Gone => "the server has ended".to_owned(),
            () => slot.inner.not_ready.clone().unwrap_or_else(|| "not ready".to_owned()),
        }
    }

    fn count_rotation(&mut self, now: Time) {
        let out = self.fleet.wanted.saturating_sub(self.routed.len()) as u64;
        self.rotation.changed(now, out, &mut self.score);
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
        self.look_for_ghosts();
        for (slot, lane) in self.slots.iter_mut().zip(&mut self.score.lanes) {
            let is_restarted = std::mem::take(&mut slot.is_restarted_since_paint);
            let is_cut = self.nodes[slot.node].is_cut();
            if slot.inner.is_gone {
                lane.push(' ');
                continue;
            }
            let server = &slot.inner.server;
            let serves = server.life == Life::Serving && !server.is_hung() && !server.refuses();
            lane.push(match (is_restarted, slot.is_routed, serves) {
                (true, ..) => 'R',
                (_, true, true) if !is_cut => '=',
                (_, true, _) => '!',
                (_, false, true) => 'o',
                (_, false, false) => '.',
            });
        }
        let next = now + self.column();
        self.queue.push(next, Happening::Paint);
    }

    /// An endpoint ends before its pod does. Looked at from time to time, and not where endpoints change: a change
    /// that never came would not be looked at there.
    fn look_for_ghosts(&mut self) {
        // What ends on a lost node is there for as long as the control plane hears nothing else.
        if self.slots.iter().any(|slot| slot.is_ghost() && !self.nodes[slot.node].is_cut()) {
            self.score.breaks("an endpoint of a pod that does not exist");
        }
    }

    /// Whatever is still in flight ends as it will.
    fn finish(&mut self) {
        self.look_for_ghosts();
        self.count_rotation(self.end);
        for pod in 0..self.slots.len() {
            self.collect(Time::from_nanos(u64::MAX), pod);
            self.send_away(self.end, pod, End::Timeout);
            if self.slots[pod].inner.sidecar.as_ref().is_some_and(|sidecar| sidecar.attempts.is_doubled) {
                self.score.breaks("a second attempt of a check beside the first");
            }
        }
        if !self.ledger.is_settled() {
            self.score.breaks("a request never ended");
        }
    }
}

/// Puts a pod in its place among others, or takes it out.
fn list(pods: &mut Vec<u16>, pod: usize, is_in: bool) {
    if is_in {
        let at = pods.partition_point(|known| usize::from(*known) < pod);
        pods.insert(at, narrow(pod));
    } else {
        pods.retain(|known| usize::from(*known) != pod);
    }
}

/// Pods and faults number below a thousand.
fn narrow(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}
