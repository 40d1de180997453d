//! What the kubelet meets in a pod of this world: a model server, and perhaps Probegate in front of it.

use std::time::Duration;

use super::Dependency;
use super::server::{Life, Server};
use super::sidecar::{Sidecar, Sight};
use crate::engine::{DrainPhase, Gate, Time};
use crate::lab::kubelet::{Answer, Handler, Hook, PodStatus, PortRef, ProbeKind, ProbeSpec, Reply, World};
use crate::lab::scenario::{Design, Illness, Signal};

/// From SIGTERM to the end of a server that can hear it.
const STOP_TAKES: Duration = Duration::from_millis(200);
/// A local answer from memory.
const QUICK: Duration = Duration::from_millis(1);

/// A pod's processes, and what they did that the world has not followed up yet.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) server: Server,
    pub(super) sidecar: Option<Sidecar>,
    pub(super) sidecar_lives: u32,
    pub(super) has_server_started: bool,
    pub(super) has_sidecar_started: bool,
    pub(super) server_exit: Option<u8>,
    /// SIGTERM came from the kubelet.
    pub(super) is_condemned: bool,
    /// What the kubelet last told of the pod.
    pub(super) is_ready: bool,
    pub(super) is_gone: bool,
    /// The sidecar is asked to drain; and it ends once it has.
    pub(super) wants_drain: bool,
    pub(super) is_sidecar_stopping: bool,
    /// Containers whose preStop waits for the end of the drain.
    pub(super) waiting_hooks: Vec<usize>,
    /// Of those, one that gives up then if no drain has begun.
    pub(super) lookout: Option<(usize, Time)>,
    pub(super) has_sidecar_exited: bool,
    pub(super) is_sidecar_hung: bool,
    pub(super) sidecar_slowness: Duration,
    pub(super) has_endpoint_changed: bool,
    /// Why a probe that can kill the server last failed, in words.
    pub(super) last_failure: Option<String>,
    /// Why a readiness probe last failed.
    pub(super) not_ready: Option<String>,
    /// Why each of the sidecar's gates last turned, by [`Gate`].
    pub(super) turned: [String; 3],
}

impl Inner {
    pub(super) const fn new(server: Server) -> Self {
        Self {
            server,
            sidecar: None,
            sidecar_lives: 0,
            has_server_started: false,
            has_sidecar_started: false,
            server_exit: None,
            is_condemned: false,
            is_ready: false,
            is_gone: false,
            wants_drain: false,
            is_sidecar_stopping: false,
            waiting_hooks: Vec::new(),
            lookout: None,
            has_sidecar_exited: false,
            is_sidecar_hung: false,
            sidecar_slowness: Duration::ZERO,
            has_endpoint_changed: false,
            last_failure: None,
            not_ready: None,
            turned: [const { String::new() }; 3],
        }
    }

    /// The sidecar drains, or is about to.
    pub(super) fn is_draining(&self) -> bool {
        self.wants_drain || self.sidecar.as_ref().is_some_and(|sidecar| sidecar.drain != DrainPhase::Serving)
    }
}

/// For how long `/wait-for-drain` looks out for a drain to begin; none for another path.
fn lookout(path: &str) -> Option<Duration> {
    let query = path.strip_prefix("/wait-for-drain")?;
    let within = query.strip_prefix("?within=").and_then(|text| humantime::parse_duration(text).ok());
    Some(within.unwrap_or_default())
}

/// One pod's processes while the kubelet acts on it.
pub(super) struct Outside<'a> {
    pub(super) pod: usize,
    pub(super) design: &'a Design,
    pub(super) dependencies: &'a [Dependency],
    pub(super) inner: &'a mut Inner,
}

/// What somebody sees who asks for a signal now.
pub(super) fn ask(signal: Signal, now: Time, pod: usize, server: &mut Server, dependencies: &[Dependency]) -> Sight {
    let is_gone = server.life == Life::Gone;
    match signal {
        Signal::Dependency(index) => match dependencies[index].illness(now, pod) {
            None => Sight::Good(dependencies[index].latency),
            Some(Illness::Down | Illness::Flapping(_)) => Sight::Refused,
            Some(Illness::Silent) => Sight::Silence,
            Some(Illness::Slow(latency)) => Sight::Good(latency),
        },
        Signal::Counter => counter(server, now),
        Signal::Process if is_gone => Sight::Bad(QUICK),
        Signal::Process => Sight::Process { number: server.starts },
        Signal::Memory if server.is_memory_full(now) => Sight::Bad(QUICK),
        Signal::Memory => Sight::Good(QUICK),
        _ if is_gone || server.refuses() => Sight::Refused,
        // The kernel completes the handshake for a process that stands still.
        Signal::Listening => Sight::Good(QUICK),
        _ if server.is_hung() && !(server.spec.front_answers && matches!(signal, Signal::Model | Signal::Cache)) => {
            Sight::Silence
        }
        Signal::Golden if server.life == Life::Loading => Sight::Busy,
        Signal::Golden => golden(server, now),
        Signal::Cache if server.is_cache_full() => Sight::Bad(QUICK),
        Signal::Cache => Sight::Good(QUICK),
        Signal::Model | Signal::Work if server.life == Life::Loading => Sight::Bad(QUICK),
        Signal::Model => Sight::Good(QUICK),
        Signal::Work => server.wait(now).map_or(Sight::Silence, |wait| Sight::Good(wait + QUICK)),
    }
}

/// The metrics page, and the CPU time of its processes.
fn counter(server: &mut Server, now: Time) -> Sight {
    let cpu = server.cpu(now);
    match () {
        () if server.is_hung() && server.spec.page_hangs => Sight::Unread { cpu },
        () if server.life == Life::Gone || server.is_page_lost => Sight::Read { counter: None, cpu },
        () => Sight::Read { counter: Some(server.counter()), cpu },
    }
}

fn golden(server: &Server, now: Time) -> Sight {
    let Some(wait) = server.wait(now) else { return Sight::Silence };
    let takes = wait + server.spec.service_time * server.slowness / 1000;
    if server.is_garbage || server.spec.is_garbage { Sight::Bad(takes) } else { Sight::Good(takes) }
}

/// A signal that failed, in words.
fn failure(signal: Signal, dependencies: &[Dependency]) -> String {
    match signal {
        Signal::Cache => "the cache is full".to_owned(),
        Signal::Dependency(index) => format!("{} does not answer", dependencies[index].name),
        Signal::Listening | Signal::Process => "the server is gone".to_owned(),
        Signal::Model => "the model is not loaded".to_owned(),
        Signal::Counter | Signal::Golden => "real traffic decides".to_owned(),
        Signal::Memory => "the memory is full".to_owned(),
        Signal::Work => "the workers are busy".to_owned(),
    }
}

impl Outside<'_> {
    /// The server's own path: asks one thing after the other, and stops at the first that fails. Returns why
    /// it did not say 200, in words.
    fn server_answers(&mut self, now: Time, path: &str) -> (Reply, Option<String>) {
        let server = &mut self.inner.server;
        let silence = Reply { after: None, answer: Answer::Failure };
        if server.refuses() {
            let why = if server.life == Life::Gone { "the server is gone" } else { "the server is on its way out" };
            return (Reply::REFUSED, Some(why.to_owned()));
        }
        if server.is_hung() && !server.spec.front_answers {
            return (silence, Some("the server does not answer".to_owned()));
        }
        let Some(endpoint) = self.design.endpoints.iter().find(|endpoint| endpoint.path == path) else {
            return (Reply::http(404, QUICK), Some(format!("the server knows no {path}")));
        };
        let mut took = QUICK;
        for &signal in &endpoint.asks {
            let failed = match ask(signal, now, self.pod, server, self.dependencies) {
                Sight::Good(takes) => {
                    took += takes;
                    continue;
                }
                Sight::Process { .. } | Sight::Busy | Sight::Read { .. } | Sight::Unread { .. } => continue,
                Sight::Bad(takes) => Reply::http(503, took + takes),
                Sight::Refused => Reply::http(503, took),
                Sight::Silence => silence,
            };
            return (failed, Some(format!("{path} says that {}", failure(signal, self.dependencies))));
        }
        (Reply::http(200, took), None)
    }

    /// A path of the sidecar, and why it does not pass: the engine's own reason.
    fn sidecar_answers(&self, path: &str) -> (Reply, Option<String>) {
        let Some(sidecar) = &self.inner.sidecar else {
            return (Reply::REFUSED, Some("the sidecar is gone".to_owned()));
        };
        if self.inner.is_sidecar_hung {
            return (Reply { after: None, answer: Answer::Failure }, Some("the sidecar does not answer".to_owned()));
        }
        let takes = QUICK + self.inner.sidecar_slowness;
        let gate = match path {
            "/health" | "/livez" | "/healthz" => Gate::Health,
            "/ready" | "/readyz" => Gate::Ready,
            "/startup" | "/startupz" => Gate::Startup,
            "/self" => return (Reply::http(200, takes), None),
            _ => return (Reply::http(404, takes), Some(format!("the sidecar knows no {path}"))),
        };
        if sidecar.passes(gate) {
            return (Reply::http(200, takes), None);
        }
        let reason = self.inner.turned[gate as usize].clone();
        (
            Reply::http(503, takes),
            Some(if reason.is_empty() { "the sidecar knows nothing yet".to_owned() } else { reason }),
        )
    }

    fn is_sidecar(&self, container: usize) -> bool {
        self.design.sidecar.as_ref().is_some_and(|sidecar| sidecar.container == container)
    }

    fn answers_at(&mut self, now: Time, port: u16, path: &str) -> (Reply, Option<String>) {
        match self.design.pod.owner_of_port(port) {
            Some(container) if container == self.design.server => self.server_answers(now, path),
            Some(container) if self.is_sidecar(container) => self.sidecar_answers(path),
            _ => (Reply::REFUSED, Some(format!("nobody listens at {port}"))),
        }
    }
}

impl World for Outside<'_> {
    fn probe(&mut self, now: Time, container: usize, kind: ProbeKind, probe: &ProbeSpec) -> Reply {
        match &probe.handler {
            Handler::Http { port: PortRef::Number(port), path, host: None } => {
                let (reply, why) = self.answers_at(now, *port, path);
                let is_late = why.is_none() && reply.after.is_some_and(|after| after >= probe.timeout);
                let why = if is_late { Some(format!("{path} is answered too late")) } else { why };
                match why {
                    Some(why) if kind == ProbeKind::Readiness => self.inner.not_ready = Some(why),
                    // Only the other two can kill.
                    Some(why) if container == self.design.server => self.inner.last_failure = Some(why),
                    _ => {}
                }
                reply
            }
            Handler::Tcp { port: PortRef::Number(port), host: None } => {
                let is_open = match self.design.pod.owner_of_port(*port) {
                    Some(owner) if owner == self.design.server => self.inner.server.life != Life::Gone,
                    Some(owner) if self.is_sidecar(owner) => self.inner.sidecar.is_some(),
                    _ => false,
                };
                if is_open { Reply::http(200, Duration::ZERO) } else { Reply::REFUSED }
            }
            Handler::Exec { .. } if container == self.design.server && self.inner.server.life == Life::Gone => {
                Reply::REFUSED
            }
            Handler::Exec { .. } => Reply::http(200, QUICK),
            Handler::Http { .. } | Handler::Tcp { .. } | Handler::Grpc { .. } => Reply::REFUSED,
        }
    }

    fn started(&mut self, _now: Time, container: usize) -> Option<(Duration, u8)> {
        self.inner.has_server_started |= container == self.design.server;
        self.inner.has_sidecar_started |= self.is_sidecar(container);
        None
    }

    fn terminate(&mut self, now: Time, container: usize) -> Option<Duration> {
        if container == self.design.server {
            self.inner.is_condemned = true;
            return self.inner.server.stop(now, STOP_TAKES);
        }
        if !self.is_sidecar(container) {
            return Some(STOP_TAKES);
        }
        if self.inner.is_sidecar_hung {
            return None;
        }
        let is_done = self.inner.sidecar.as_ref().is_none_or(|sidecar| sidecar.drain == DrainPhase::Done);
        self.inner.wants_drain = !is_done;
        self.inner.is_sidecar_stopping = !is_done;
        is_done.then_some(STOP_TAKES)
    }

    fn exited(&mut self, _now: Time, container: usize, code: u8) {
        if container == self.design.server {
            self.inner.server_exit = Some(code);
        } else if self.is_sidecar(container) {
            self.inner.has_sidecar_exited = true;
        }
    }

    fn hook_begins(&mut self, now: Time, container: usize, hook: &Hook) -> Option<Duration> {
        let has_sidecar = self.inner.sidecar.is_some() && !self.inner.is_sidecar_hung;
        let is_over = self.inner.sidecar.as_ref().is_none_or(|sidecar| sidecar.drain == DrainPhase::Done);
        let waits = match hook {
            Hook::Sleep(span) => return Some(*span),
            // `probegate drain [--wait]`.
            Hook::Exec { command } if has_sidecar && command.iter().any(|word| word == "drain") => {
                self.inner.wants_drain = true;
                command.iter().any(|word| word == "--wait")
            }
            Hook::Http { path, .. } if has_sidecar => match lookout(path) {
                Some(within) if !self.inner.is_draining() && !within.is_zero() => {
                    self.inner.lookout = Some((container, now + within));
                    true
                }
                Some(_) => self.inner.is_draining(),
                None => false,
            },
            Hook::Exec { .. } | Hook::Http { .. } => false,
        };
        if !waits || is_over {
            return Some(QUICK);
        }
        self.inner.waiting_hooks.push(container);
        None
    }

    fn hook_ends(&mut self, _now: Time, _container: usize, _hook: &Hook) {}

    fn status(&mut self, _now: Time, status: Option<&PodStatus>) {
        let is_ready = status.is_some_and(|status| status.is_ready);
        self.inner.is_gone |= status.is_none();
        self.inner.has_endpoint_changed |= self.inner.is_ready != is_ready || status.is_none();
        self.inner.is_ready = is_ready;
    }
}
