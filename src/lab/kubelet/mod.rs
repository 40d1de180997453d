//! The kubelet, as it is: probe workers, the serial pod worker, container life, status.
//!
//! Modelled from the kubelet's own behaviour rule by rule; `§` in a comment names the section of the
//! project's kubelet notes that the rule is from. Sans-IO like the engine: a [`Pod`] takes events with their
//! time, plans new ones, and asks a [`World`] what containers do. It owns what the kubelet decides and
//! refuses to know what an app is, who sends requests, or what an endpoint is for.

mod backoff;
mod knobs;
mod life;
mod plan;
mod pod;
mod prober;
mod probing;
mod spec;
mod status;
mod stop;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use backoff::{Backoff, BackoffKnobs};
pub use knobs::{Knobs, Requeue, Spread};
pub use pod::Pod;
pub use prober::{Beat, Incarnation, Look, Seen, Update, Verdict, Worker};
pub use spec::{
    ContainerPort, ContainerSpec, Handler, Hook, PodSpec, PortRef, ProbeKind, ProbeSpec, RawPod, RestartPolicy, Role,
};
pub use status::{ContainerState, ContainerStatus, Phase, PodStatus};

use crate::engine::Time;

/// What happens to a pod on its node. Planned by the pod, handed back by whoever keeps the agenda.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// The API server's deletion has reached the pod worker.
    DeletionSeen,
    /// A container ended by itself, by a signal or by the kubelet's hand.
    Exited { container: u16, incarnation: Incarnation, code: u8 },
    /// A preStop hook begins in the container.
    HookBegins { container: u16, generation: u32 },
    /// A preStop hook is over, or its time is.
    HookEnds { container: u16, generation: u32 },
    /// The grace is over: SIGKILL.
    Kill { container: u16, generation: u32 },
    /// The kubelet's status reaches the API server.
    Patch,
    /// A probe came to its end.
    ProbeEnds { worker: u16, result: Option<Verdict> },
    /// The pod object leaves the API server.
    Remove,
    /// A sync is due by the work queue.
    Requeue { generation: u32 },
    /// A container's process starts.
    Started { container: u16 },
    /// The next step of the sync under way.
    Step,
    /// The runtime says that a stopped container is gone.
    StopEnds { container: u16, generation: u32 },
    /// A worker's ticker.
    Tick { worker: u16, generation: u32 },
    /// A change of a results cache reaches the sync loop.
    Verdict { worker: u16, update: Update },
}

/// How a probe was answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reply {
    /// From the request to the answer; `None` if none ever comes.
    pub after: Option<Duration>,
    pub answer: Answer,
}

/// What an answer amounts to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    Failure,
    /// Headers came and the body did not: the kubelet throws such a probe away (§2.2).
    StalledBody,
    Success,
}

impl Reply {
    /// Nobody listens.
    pub const REFUSED: Self = Self { after: Some(Duration::ZERO), answer: Answer::Failure };

    /// An HTTP status: 200 to 399 is a success (§3).
    pub const fn http(code: u16, after: Duration) -> Self {
        let answer = if code >= 200 && code < 400 { Answer::Success } else { Answer::Failure };
        Self { after: Some(after), answer }
    }
}

/// What the kubelet meets outside itself.
pub trait World {
    /// A probe of this container's spec is made now.
    fn probe(&mut self, now: Time, container: usize, kind: ProbeKind, probe: &ProbeSpec) -> Reply;

    /// A container's process starts. Returns after what time it ends by itself, and with which code.
    fn started(&mut self, now: Time, container: usize) -> Option<(Duration, u8)>;

    /// SIGTERM. Returns what time the process takes to end, `None` if it ignores the signal.
    fn terminate(&mut self, now: Time, container: usize) -> Option<Duration>;

    /// A container's process has ended.
    fn exited(&mut self, now: Time, container: usize, code: u8);

    /// A lifecycle hook begins. Returns how long it takes by itself; `None` if only the world knows its end and
    /// will say so to [`Pod::finish_hook`].
    fn hook_begins(&mut self, now: Time, container: usize, hook: &Hook) -> Option<Duration>;

    /// A lifecycle hook is over while its container still runs.
    fn hook_ends(&mut self, now: Time, container: usize, hook: &Hook);

    /// The API server has another status of the pod; `None`: the pod is gone.
    fn status(&mut self, now: Time, status: Option<&PodStatus>);
}

/// Where a pod puts what it plans, and whom it asks.
pub struct Io<'a> {
    pub agenda: &'a mut Vec<(Time, Event)>,
    pub world: &'a mut dyn World,
}

impl Io<'_> {
    fn plan(&mut self, at: Time, event: Event) {
        self.agenda.push((at, event));
    }
}

/// The code of a process that was killed.
pub const KILLED: u8 = 137;
