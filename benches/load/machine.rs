//! The machine: which cores are ours, how busy strangers keep them, how many descriptors we may open.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Kernel ticks in a second of `/proc/PID/stat`; the same on every Linux that Rust's targets know.
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;
/// Ten thousand connections through a proxy are twenty thousand descriptors there and ten thousand here.
const DESCRIPTORS: u64 = 65_536;
/// Listeners, logs, event queues, checks.
const DESCRIPTORS_SPARE: u64 = 200;

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Core(pub(crate) usize);

/// Where things run. With two cores the generator and the backend share one; more cores part them.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Cores {
    /// The contender's alone.
    pub(crate) proxy: Core,
    pub(crate) backend: Core,
    pub(crate) generator: Core,
    pub(crate) prober: Core,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: Cores,
    pub(crate) core_count: usize,
    pub(crate) cpu: String,
    pub(crate) kernel: String,
    pub(crate) memory_mb: u64,
    /// Whether all of it runs in a network namespace of its own.
    pub(crate) own_network: bool,
    /// Open descriptors that a process may have.
    pub(crate) descriptors: u64,
}

impl Machine {
    /// Looks around and raises the limit of descriptors. One core alone would measure the scheduler: refused.
    pub(crate) fn look(own_network: bool) -> io::Result<Self> {
        let descriptors = raise_descriptors();
        let set = sched_getaffinity(None)?;
        let ours: Vec<Core> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).map(Core).collect();
        let (Some(first), Some(second)) = (ours.first(), ours.get(1)) else {
            return Err(io::Error::other("this bench needs two cores: one for the proxy, one for the load"));
        };
        let nth = |at: usize| ours.get(at).unwrap_or(second);
        let cores = Cores { proxy: *first, backend: *second, generator: *nth(2), prober: *nth(3) };
        Ok(Self {
            cores,
            core_count: ours.len(),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            memory_mb: field("/proc/meminfo", "MemTotal")
                .and_then(|total| total.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            own_network,
            descriptors,
        })
    }

    /// Connections that a proxy can carry: two descriptors each, some for itself.
    pub(crate) fn proxied_connections(&self) -> u64 {
        (self.descriptors - DESCRIPTORS_SPARE) / 2
    }
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The calling thread, and whatever it starts from now on.
pub(crate) fn pin(core: Core) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core.0);
    Ok(sched_setaffinity(None, &set)?)
}

/// Lets the calling thread run before the load that shares its core. Without the right to, it stays as it is.
pub(crate) fn prefer() -> bool {
    setpriority_process(Some(gettid()), -15).is_ok()
}

/// Raises the soft limit of open descriptors as far as allowed; children inherit it. What it came to.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(DESCRIPTORS).max(DESCRIPTORS);
    // Some may raise the hard one too; else what there is must do, and counts of connections are cut to it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum: Some(maximum) })
        .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }));
    getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS)
}

/// CPU seconds that all processes together have used so far, by the kernel's own count.
pub(crate) fn busy_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let mut ticks =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).map(|n| n.parse().unwrap_or(0.0));
    let mut next = || ticks.next().unwrap_or(0.0);
    let (user, nice, system, _idle, _iowait, irq, softirq) = (next(), next(), next(), next(), next(), next(), next());
    (user + nice + system + irq + softirq) / TICKS_PER_SECOND
}
