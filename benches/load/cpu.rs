//! CPU time as the kernel counts it, for one or several processes.
//!
//! The scheduler's own count (`schedstat`) is in nanoseconds but forgets a thread that has ended; `stat` remembers
//! but counts hundredths of a second, which in a short run at half load are several per cent. So both are read, and
//! the fine one is used unless it misses something that the coarse one saw.

use std::collections::BTreeMap;
use std::fs;

use crate::machine::TICKS_PER_SECOND;

/// More than the rounding of user and system time in a handful of processes.
const ROUNDING_SECONDS: f64 = 0.04;

/// User and system time used so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuTime {
    /// Nanoseconds on a CPU of each thread that lives.
    threads: BTreeMap<u32, u64>,
    /// Of ended threads too.
    ticks: f64,
}

impl CpuTime {
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut sum = Self::default();
        for pid in pids {
            sum.ticks += ticks(*pid).unwrap_or(0.0);
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse::<u32>().ok());
            sum.threads.extend(ids.filter_map(|thread| Some((thread, nanoseconds(*pid, thread)?))));
        }
        sum
    }

    pub(crate) fn and(mut self, other: Self) -> Self {
        self.ticks += other.ticks;
        self.threads.extend(other.threads);
        self
    }

    /// Seconds used between two looks at the same processes.
    pub(crate) fn since(&self, before: &Self) -> f64 {
        let coarse = (self.ticks - before.ticks) / TICKS_PER_SECOND;
        let fine: u64 = self
            .threads
            .iter()
            .map(|(thread, now)| now.saturating_sub(before.threads.get(thread).copied().unwrap_or(0)))
            .sum();
        let fine = fine as f64 / 1e9;
        if coarse - fine > ROUNDING_SECONDS { coarse } else { fine }
    }
}

/// The fields of `/proc/PID/stat` from the third on.
pub(crate) fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses: what counts begins after the last one.
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// utime and stime: fields 14 and 15.
fn ticks(pid: u32) -> Option<f64> {
    let fields = stat_fields(pid)?;
    Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
}

fn nanoseconds(pid: u32, thread: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}
