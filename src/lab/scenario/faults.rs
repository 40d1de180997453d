//! What goes wrong, when, for whom.

use std::time::Duration;

use super::parse::{DURATION_MAX, Names};
use super::raw::{RawFault, Span};

/// Something goes wrong for a while.
#[derive(Clone, Debug)]
pub struct Fault {
    pub at: Duration,
    pub until: Duration,
    pub what: FaultKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    /// `only`: the pods that see it, by number; all if empty.
    Dependency {
        dependency: usize,
        how: Illness,
        only: Vec<usize>,
    },
    Server {
        pod: usize,
        how: ServerFault,
    },
    Sidecar {
        pod: usize,
        how: SidecarFault,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Illness {
    /// Connections are refused.
    Down,
    /// Down for so long, up for so long, and again.
    Flapping(Duration),
    /// Connections open and nothing comes.
    Silent,
    /// Answers take so long.
    Slow(Duration),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServerFault {
    /// Its progress counter stands still whatever it does.
    CounterFrozen,
    /// Exits with 1, once.
    Crash,
    /// Exits with 1, and again so long after each start.
    CrashLoop(Duration),
    /// Every answer is wrong while it lasts.
    Garbage,
    /// Stands still until it is restarted.
    Hang,
    /// Out of memory so long after each start.
    Leak(Duration),
    /// Its metrics page answers 404.
    MetricsLost,
    /// Takes so many times as long while it lasts, in thousandths.
    Slow(u32),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SidecarFault {
    /// Exits with 1, once.
    Crash,
    /// Exits with 1, and again so long after each start.
    CrashLoop(Duration),
    /// Stands still while it lasts: probes and requests wait.
    Hang,
    /// Killed for its memory, and again so long after each start.
    Oom(Duration),
    /// Every answer and every request takes so much longer.
    Slow(Duration),
}

impl ServerFault {
    /// Whether a restart mends it.
    pub const fn is_mended_by_restart(self) -> bool {
        matches!(self, Self::Hang)
    }

    /// Whether users feel it, so that noticing it is worth something.
    pub const fn is_felt(self) -> bool {
        matches!(self, Self::Crash | Self::CrashLoop(_) | Self::Garbage | Self::Hang | Self::Leak(_))
    }
}

const SERVER: &str = "server: expected counter-frozen, crash, crash-loop, garbage, hang, leak with after, \
    metrics-lost, or slow with times = 1..1000";
const SIDECAR: &str = "sidecar: expected crash, crash-loop, hang, oom, or slow with latency";

impl RawFault {
    pub(super) fn validate(&self, names: &Names<'_>, pods: usize) -> Result<Fault, String> {
        let at = self.at.0;
        if at.max(self.lasts.map_or(Duration::ZERO, |Span(lasts)| lasts)) > DURATION_MAX {
            return Err("at, for: longer than a day".to_owned());
        }
        let until = at + self.lasts.map_or(Duration::ZERO, |Span(lasts)| lasts);
        if self.pod.iter().chain(&self.pods).any(|pod| *pod >= pods) {
            return Err(format!("pod, pods: there are only {pods}, counted from 0"));
        }
        let what = match (&self.dependency, &self.server, &self.sidecar) {
            (Some(name), None, None) => {
                let only = self.pod.iter().chain(&self.pods).copied().collect();
                FaultKind::Dependency { dependency: names.dependency(name)?, how: self.illness()?, only }
            }
            (None, Some(server), None) => {
                FaultKind::Server { pod: self.pod.ok_or("pod: which one?")?, how: self.of_server(server)? }
            }
            (None, None, Some(sidecar)) => {
                FaultKind::Sidecar { pod: self.pod.ok_or("pod: which one?")?, how: self.of_sidecar(sidecar)? }
            }
            _ => return Err("one of dependency, server and sidecar is needed, and no more".to_owned()),
        };
        if !self.pods.is_empty() && self.dependency.is_none() {
            return Err("pods: only for a dependency; give pod = 0 and a fault for each".to_owned());
        }
        Ok(Fault { at, until, what })
    }

    fn illness(&self) -> Result<Illness, String> {
        Ok(match (self.is.as_deref(), self.latency, self.every) {
            (Some("down"), None, None) => Illness::Down,
            (Some("silent"), None, None) => Illness::Silent,
            (Some("slow"), Some(Span(latency)), None) => Illness::Slow(latency),
            (Some("flapping"), None, Some(Span(every))) if !every.is_zero() => Illness::Flapping(every),
            _ => return Err("is: expected down, silent, slow with latency, or flapping with every".to_owned()),
        })
    }

    fn after(&self, default: Duration) -> Duration {
        self.after.map_or(default, |Span(after)| after)
    }

    fn of_server(&self, name: &str) -> Result<ServerFault, String> {
        Ok(match (name, self.times, self.after) {
            ("counter-frozen", None, None) => ServerFault::CounterFrozen,
            ("crash", None, None) => ServerFault::Crash,
            ("crash-loop", None, _) => ServerFault::CrashLoop(self.after(Duration::from_secs(1))),
            ("garbage", None, None) => ServerFault::Garbage,
            ("hang", None, None) => ServerFault::Hang,
            ("leak", None, Some(Span(after))) if !after.is_zero() => ServerFault::Leak(after),
            ("metrics-lost", None, None) => ServerFault::MetricsLost,
            ("slow", Some(times), None) if (1.0..=1000.0).contains(&times) => {
                ServerFault::Slow((times * 1000.0) as u32)
            }
            _ => return Err(format!("{SERVER}; found {name:?}")),
        })
    }

    fn of_sidecar(&self, name: &str) -> Result<SidecarFault, String> {
        Ok(match (name, self.latency, self.after) {
            ("crash", None, None) => SidecarFault::Crash,
            ("crash-loop", None, _) => SidecarFault::CrashLoop(self.after(Duration::from_secs(1))),
            ("hang", None, None) => SidecarFault::Hang,
            ("oom", None, _) => SidecarFault::Oom(self.after(Duration::from_secs(30))),
            ("slow", Some(Span(latency)), None) => SidecarFault::Slow(latency),
            _ => return Err(format!("{SIDECAR}; found {name:?}")),
        })
    }
}
