//! `memory`: how much is used, against a limit.
//!
//! Owns four readings (control group, processes, Redis, a gauge) and one comparison. A reading that cannot be
//! had says nothing about memory: it is no evidence, not a failure. The kind of thing that could not be read
//! has a check of its own.

use std::sync::Mutex;
use std::time::Duration;

use super::bytes_text::{percent, size};
use super::cgroup::Cgroup;
use super::metric::{selector, selects, unjudged_page};
use super::proc::{MemoryRead, Proc, Stat};
use super::process::select_processes;
use super::{Memory, Scene, redis};
use crate::config::{Amount, MemoryCheck, MemoryOf, MetricSelector, ProcessMemory, ProcessSelect};
use crate::engine::{Fault, Outcome};
use crate::scrape::Scraper;
use crate::scrape::text::samples;

/// What is used, what it is called, and what it may use.
#[derive(Clone, Debug, PartialEq)]
struct Reading {
    what: &'static str,
    used: u64,
    limit: Limit,
}

/// What a share is a share of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    /// Set for it.
    Own(u64),
    /// Nobody set one: the machine's memory.
    Machine(u64),
    Unknown,
}

pub(super) async fn attempt(
    spec: &MemoryCheck,
    scraper: Option<&Scraper>,
    memory: &Mutex<Memory>,
    scene: &Scene,
) -> Outcome {
    let reading = match &spec.of {
        MemoryOf::Cgroup { path } => {
            let path = path.clone();
            let read = move || {
                let proc = Proc::here();
                let cgroup = path.map_or_else(|| Cgroup::own(&proc), |path| Ok(Cgroup::at(path)));
                cgroup.and_then(|cgroup| of_cgroup(&proc, &cgroup))
            };
            scene.blocking("the memory of the control group", read).await
        }
        MemoryOf::Process { select, count } => {
            let (select, count) = (select.clone(), *count);
            let read = move || of_processes(&Proc::here(), std::process::id(), &select, count);
            scene.blocking("the memory of the processes", read).await
        }
        MemoryOf::Redis(redis) => Ok(of_redis(redis::memory(redis, scene).await.map_err(|failure| failure.reason))),
        MemoryOf::Metric { selector, .. } => Ok(of_metric(scraper, selector, memory, scene).await),
    };
    match reading {
        Ok(Ok(reading)) => judge(spec.max, &reading, scene.elapsed()),
        Ok(Err(reason)) => Outcome::unknown(reason, scene.elapsed()),
        Err(outcome) => outcome,
    }
}

fn of_cgroup(proc: &Proc, cgroup: &Cgroup) -> Result<Reading, String> {
    let memory = cgroup.memory()?;
    let limit = memory.limit.map_or_else(|| machine(proc), Limit::Own);
    Ok(Reading { what: "working set", used: memory.working_set, limit })
}

fn of_processes(proc: &Proc, own_pid: u32, select: &ProcessSelect, count: ProcessMemory) -> Result<Reading, String> {
    let mut used: u64 = 0;
    for stat in select_processes(proc, own_pid, select)? {
        let read = match count {
            ProcessMemory::Pss => proc.pss(stat.pid),
            ProcessMemory::Rss => proc.rss(stat.pid),
        };
        match read {
            Ok(bytes) => used = used.saturating_add(bytes),
            // It ended while we counted: it holds none.
            Err(MemoryRead::Gone) => {}
            Err(MemoryRead::Failed(error)) => return Err(unreadable(&stat, count, &error)),
        }
    }
    let what = match count {
        ProcessMemory::Pss => "proportional set size",
        ProcessMemory::Rss => "resident set size",
    };
    // The processes may be another container's: only the machine's memory is sure to be theirs too.
    let own = Cgroup::own(proc).and_then(|cgroup| cgroup.memory()).ok().and_then(|memory| memory.limit);
    Ok(Reading { what, used, limit: own.map_or_else(|| machine(proc), Limit::Own) })
}

fn unreadable(stat: &Stat, count: ProcessMemory, error: &std::io::Error) -> String {
    let (pid, name) = (stat.pid, stat.name.escape_debug());
    match (count, error.kind()) {
        (ProcessMemory::Pss, std::io::ErrorKind::PermissionDenied) => format!(
            "permission denied to read the PSS of process {pid} ({name}): run as its user, or count the RSS instead"
        ),
        _ => format!("cannot read the memory of process {pid} ({name}): {error}"),
    }
}

fn of_redis(memory: Result<redis::RedisMemory, String>) -> Result<Reading, String> {
    let memory = memory?;
    Ok(Reading {
        what: "used_memory",
        used: memory.used,
        // The machine that it runs on is not ours to know.
        limit: memory.max.map_or(Limit::Unknown, Limit::Own),
    })
}

async fn of_metric(
    scraper: Option<&Scraper>,
    wanted: &MetricSelector,
    memory: &Mutex<Memory>,
    scene: &Scene,
) -> Result<Reading, String> {
    let scraper = scraper.ok_or("no metrics page to read")?;
    scene.waiting_for(format!("the metrics page of {}", scraper.whom()));
    let page = unjudged_page(scraper, memory, scene).await?;
    gauge(&page.body, wanted)
}

/// The sum of the series that match: a gauge a device, or a gauge a pool, is memory of one server.
fn gauge(page: &[u8], wanted: &MetricSelector) -> Result<Reading, String> {
    let values = samples(page).filter(|sample| selects(wanted, sample)).map(|sample| sample.value);
    let sum = values.reduce(|sum, value| sum + value);
    match sum {
        // A float beyond the range saturates.
        Some(bytes) if bytes >= 0.0 => Ok(Reading { what: "gauge", used: bytes as u64, limit: Limit::Unknown }),
        Some(other) => Err(format!("{} is {other}, which is no number of bytes", selector(wanted))),
        None => Err(format!("{} is not on the metrics page", selector(wanted))),
    }
}

fn machine(proc: &Proc) -> Limit {
    proc.memory_total().map_or(Limit::Unknown, Limit::Machine)
}

fn judge(max: Amount, reading: &Reading, latency: Duration) -> Outcome {
    let (what, used) = (reading.what, reading.used);
    let (whole, of, wanted) = match (max, reading.limit) {
        (Amount::Bytes(max), _) => {
            let said = format!("{what} is {}", size(used));
            return if used > max.0 {
                Outcome::fail(Fault::Local, format!("{said}, expected at most {}", size(max.0)), latency)
            } else {
                Outcome::pass(latency).remark(said)
            };
        }
        (Amount::PercentOf(wanted, whole), _) => (whole.0, size(whole.0), wanted),
        (Amount::PercentOfLimit(wanted), Limit::Own(limit)) => (limit, size(limit), wanted),
        (Amount::PercentOfLimit(wanted), Limit::Machine(total)) => {
            (total, format!("the machine's {}, for there is no limit", size(total)), wanted)
        }
        (Amount::PercentOfLimit(_), Limit::Unknown) => {
            let reason =
                format!("{what} is {} of an unknown limit: give max in bytes or as a share of some", size(used));
            return Outcome::unknown(reason, latency);
        }
    };
    let share = if whole == 0 { f64::INFINITY } else { used as f64 / whole as f64 * 100.0 };
    let said = format!("{what} is {} of {of} ({})", size(used), percent(share));
    if share > wanted {
        Outcome::fail(Fault::Local, format!("{said}, expected at most {}", percent(wanted)), latency)
    } else {
        Outcome::pass(latency).remark(said)
    }
}

#[cfg(test)]
mod tests;
