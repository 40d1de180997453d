//! Scenario files: a world, faults on a time line, designs to compare, and what is expected of them.
//!
//! It owns the format and says what is wrong with a file; it refuses to run it. What a file names (a
//! Probegate configuration) is read by the caller, so that shipped scenarios need no file system.

mod autoscaler;
mod expect;
mod faults;
mod fleet;
mod parse;
mod raw;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::engine;
use crate::lab::autoscaler::Spec;
use crate::lab::kubelet::PodSpec;

pub use autoscaler::Surge;
pub use expect::{Comparison, Expectation, Metric};
pub use faults::{Fault, FaultKind, Illness, ServerFault, SidecarFault};
pub use fleet::{Action, ActionKind, Deployment, Share};
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
    /// By version: the first is what the scenario begins with.
    pub versions: Vec<Version>,
    pub deployment: Deployment,
    /// What makes `pods` more or fewer by itself.
    pub autoscaler: Option<Spec>,
    pub actions: Vec<Action>,
    pub clients: ClientSpec,
    pub dependencies: Vec<DependencySpec>,
    pub faults: Vec<Fault>,
    pub designs: Vec<Design>,
    pub expectations: Vec<Expectation>,
}

/// A version of the model server.
#[derive(Clone, Debug)]
pub struct Version {
    pub name: String,
    pub server: ServerSpec,
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
    /// After SIGTERM it takes nothing new and finishes what it has; otherwise it ends at once.
    pub finishes: bool,
    /// Its metrics page is served by what serves requests, and stands still with it.
    pub page_hangs: bool,
    /// Its own paths are answered by a front process, which goes on while what serves requests stands still.
    pub front_answers: bool,
    /// Every answer is wrong.
    pub is_garbage: bool,
    /// It loads and never comes to an end.
    pub never_ready: bool,
    /// It exits with 1 so long after its start.
    pub crash_after: Option<Duration>,
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

#[derive(Clone, Debug)]
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
    /// Connections that are kept and stay with their pod; 0: a new one for every request.
    pub connections: u32,
    /// Requests in a thousand that take a new connection all the same.
    pub fresh_permille: u32,
    pub streams: Option<StreamSpec>,
    /// When the rate is another.
    pub surges: Vec<Surge>,
}

/// Requests whose answers come in pieces.
#[derive(Clone, Copy, Debug)]
pub struct StreamSpec {
    /// So many requests in a thousand.
    pub permille: u32,
    /// Mean of an exponential distribution, from the first piece to the last.
    pub lasts: Duration,
    /// Between two pieces.
    pub gap: Duration,
}

#[derive(Clone, Debug)]
pub struct DependencySpec {
    pub name: String,
    pub latency: Duration,
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
    pub terms: Terms,
}

/// How the sidecar's proxy admits requests: what `[traffic]` says for every path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Terms {
    pub max_in_flight: Option<usize>,
    /// How many wait above it, and for how long.
    pub queue: Option<(usize, Duration)>,
    /// How long a request waits for a server that starts or is gone.
    pub hold: Option<Duration>,
    pub first_byte_timeout: Option<Duration>,
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
    /// What a check reads that real traffic judges: the server's counter and its CPU time.
    Counter,
    /// A labelled example through the server's workers: answered right, wrong or not at all.
    Golden,
    /// Less than nine tenths of the memory have leaked away.
    Memory,
    /// A request through the server's own workers, behind the others.
    Work,
}
