//! Scenario files: a world, faults on a time line, designs to compare, and what is expected of them.
//!
//! It owns the format and says what is wrong with a file; it refuses to run it. What a file names (a
//! Probegate configuration) is read by the caller, so that shipped scenarios need no file system.

mod expect;
mod parse;
mod raw;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::engine;
use crate::lab::kubelet::PodSpec;

pub use expect::{Comparison, Expectation, Metric};
pub use parse::ScenarioError;

/// A scenario that can be run.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub title: String,
    /// What the experiment asks, what was predicted, for people.
    pub question: String,
    pub prediction: String,
    pub duration: Duration,
    pub pods: usize,
    pub server: ServerSpec,
    pub clients: ClientSpec,
    pub dependencies: Vec<DependencySpec>,
    pub faults: Vec<Fault>,
    pub designs: Vec<Design>,
    pub expectations: Vec<Expectation>,
}

/// The model server of every pod.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// From its start (or from `loads_from` being up) to its first answer.
    pub load: Duration,
    /// The dependency without which it cannot load.
    pub loads_from: Option<usize>,
    /// Requests that it works on at once.
    pub concurrency: usize,
    /// Requests that wait; one more is answered 503.
    pub queue: usize,
    /// Mean of an exponential distribution.
    pub service_time: Duration,
    pub uses: Vec<Use>,
    pub cache: Option<CacheSpec>,
}

/// A dependency that every request asks.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    pub dependency: usize,
    /// Without it the request fails; otherwise it is answered without.
    pub is_required: bool,
    pub timeout: Duration,
}

/// A cache in the server's memory.
#[derive(Clone, Copy, Debug)]
pub struct CacheSpec {
    pub limit_bytes: u64,
    pub per_request_bytes: u64,
    pub when_full: WhenFull,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WhenFull {
    /// It throws out old entries and goes on.
    Evict,
    /// It grows past its limit by a tenth, and the kernel kills the process.
    Oom,
}

#[derive(Clone, Copy, Debug)]
pub struct ClientSpec {
    /// Requests a second over all pods, whatever the answers (open loop).
    pub rate: f64,
    /// The first request comes no earlier.
    pub from: Duration,
    pub timeout: Duration,
    pub retries: u32,
    pub retry_after: Duration,
    /// Retries may be at most so many per cent of requests.
    pub retry_budget_percent: u32,
}

#[derive(Clone, Debug)]
pub struct DependencySpec {
    pub name: String,
    pub latency: Duration,
}

/// Something goes wrong for a while.
#[derive(Clone, Debug)]
pub struct Fault {
    pub at: Duration,
    pub until: Duration,
    pub what: FaultKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    Dependency { dependency: usize, how: Illness, only: Option<usize> },
    Server { pod: usize, how: ServerFault },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Illness {
    /// Connections are refused.
    Down,
    /// Connections open and nothing comes.
    Silent,
    /// Answers take so long.
    Slow(Duration),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServerFault {
    /// Exits with 1, once.
    Crash,
    /// Every answer is wrong while it lasts.
    Garbage,
    /// Stands still until it is restarted.
    Hang,
    /// Takes so many times as long while it lasts, in thousandths.
    Slow(u32),
}

/// One way to probe the pod.
#[derive(Clone, Debug)]
pub struct Design {
    pub name: String,
    pub says: String,
    pub pod: Arc<PodSpec>,
    /// The container that serves, and the sidecar in front of it.
    pub server: usize,
    pub sidecar: Option<Sidecar>,
    /// What the server's own paths look at.
    pub endpoints: Vec<Endpoint>,
}

/// A path of the server and what it asks before it says 200.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub path: String,
    pub asks: Vec<Signal>,
}

/// Probegate in front: the engine's plan, and what each of its checks looks at.
#[derive(Clone, Debug)]
pub struct Sidecar {
    pub container: usize,
    pub plan: Arc<engine::Plan>,
    pub checks: Vec<Signal>,
}

/// Something in the world that can be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// Less than nine tenths of the cache's limit are used.
    Cache,
    Dependency(usize),
    /// The server's port accepts.
    Listening,
    /// The model is loaded, by the server's own word.
    Model,
    /// The server's process exists.
    Process,
    /// What only real traffic shows (`progress`, `outcomes`, `golden`). The lab's requests do not reach the engine
    /// yet, so such a check has no evidence there: it stays pending.
    Traffic,
    /// A request through the server's own workers, behind the others.
    Work,
}
