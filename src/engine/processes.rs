//! What the model server's processes show of life: the CPU time that they use, and threads that would use it.
//!
//! Owns one `progress` check's readings of them. Use of a CPU is a sign of life like a byte. A thread that is ready to
//! run and is not let is none: it says only that the machine keeps the server from showing one, so that no verdict can
//! be reached now. It neither lifts one that stands, nor excuses for longer than [`ABANDONED_WORK_MAX`]: one starved
//! helper thread must not hide a hang for good.

use std::time::Duration;

use super::time::Time;
use super::traffic::{Reading, Threads};
use crate::limits::{ABANDONED_WORK_MAX, CPU_QUIET_PERMILLE, CPU_SPAN};

/// The processes as last seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    /// The CPU time that the next readings are compared with, and when it was read.
    base: Option<(Time, Duration)>,
    /// The last look; none where they could not be seen.
    seen: Option<Time>,
    /// When they were last seen to have used a CPU.
    moved: Option<Time>,
    threads: Threads,
    /// When a thread was last seen to be ready to run.
    starved_at: Option<Time>,
}

impl Processes {
    pub(super) fn take(&mut self, now: Time, reading: Reading) {
        self.threads = reading.threads.unwrap_or_default();
        if self.threads.ready > 0 {
            self.starved_at = Some(now);
        }
        self.seen = reading.cpu.map(|_| now);
        let (Some(used), Some((before, last))) = (reading.cpu, self.base) else {
            self.base = reading.cpu.map(|used| (now, used));
            return;
        };
        let passed = now.since(before);
        let worked = used.saturating_sub(last).as_nanos() * 1000;
        // Less than before: other processes.
        let has_moved = used < last || CPU_QUIET_PERMILLE * passed.max(CPU_SPAN).as_nanos() < worked;
        if has_moved {
            self.moved = Some(now);
        }
        if has_moved || CPU_SPAN <= passed {
            self.base = Some((now, used));
        }
    }

    /// The last sign of life.
    pub(super) const fn moved(&self) -> Option<Time> {
        self.moved
    }

    pub(super) const fn are_seen(&self) -> bool {
        self.seen.is_some()
    }

    /// What speaks against a hang that began at `since`, once it has lasted for `stall_after`.
    pub(super) fn objection(&self, now: Time, since: Time, stall_after: Duration) -> Option<String> {
        let Some(seen) = self.seen else { return Some("the CPU time of its processes cannot be read".to_owned()) };
        if seen < last_look(since, stall_after) {
            return Some("the CPU time of its processes is to be read once more".to_owned());
        }
        let is_starved = self.starved_at.is_some_and(|at| since <= at && seen < at + stall_after);
        let Threads { all, ready, .. } = self.threads;
        (is_starved && now < since + stall_after + ABANDONED_WORK_MAX).then(|| match ready {
            0 => "threads that were ready to run are to be looked at once more".to_owned(),
            1 => format!("1 of {all} threads runs or waits for a CPU"),
            ready => format!("{ready} of {all} threads run or wait for a CPU"),
        })
    }

    /// When further looks are wanted in such a silence.
    pub(super) fn wanted_looks(&self, since: Time, stall_after: Duration) -> impl Iterator<Item = Time> + use<> {
        let after_starving = self.starved_at.filter(|at| since <= *at).map(|at| at + stall_after);
        std::iter::once(last_look(since, stall_after)).chain(after_starving)
    }

    /// For a person, what they do in a hang.
    pub(super) fn idleness(&self) -> String {
        let Threads { all, ready, uninterruptible, stopped, ended } = self.threads;
        let threads = match (stopped, ended, uninterruptible, ready) {
            _ if all == 0 => return "its processes use no CPU".to_owned(),
            (0, 0, 0, 0) => format!("none of {all} threads seen waiting for one"),
            (0, 0, 0, ready) => format!("{ready} of {all} threads ready to run"),
            (0, 0, stuck, _) => format!("{stuck} of {all} threads in uninterruptible sleep"),
            (0, ended, ..) => format!("{ended} of {all} threads ended"),
            (stopped, ..) => format!("{stopped} of {all} threads stopped"),
        };
        format!("its processes use no CPU ({threads})")
    }
}

/// The look that a verdict needs: so soon before it that one which waits for a silent page as well ends in time.
fn last_look(since: Time, stall_after: Duration) -> Time {
    since + stall_after.saturating_sub(CPU_SPAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looked at after so many milliseconds, each time having used so many.
    fn moved_at(looks: &[(u64, u64)]) -> Vec<u64> {
        let mut processes = Processes::default();
        let ms = Duration::from_millis;
        let mut all = Vec::new();
        for &(at, used) in looks {
            let now = Time::ZERO + ms(at);
            processes.take(now, Reading { cpu: Some(ms(used)), ..Reading::default() });
            all.extend(processes.moved().filter(|moved| *moved == now).map(|_| at));
        }
        all
    }

    #[test]
    fn a_twentieth_of_a_cpu_is_life_and_a_tick_within_a_moment_is_none() {
        assert_eq!(moved_at(&[(0, 0), (1000, 50), (2000, 101)]), [2000]);
        assert_eq!(moved_at(&[(0, 0), (100, 10), (250, 20), (900, 40), (10_000, 300)]), [] as [u64; 0]);
        assert_eq!(moved_at(&[(0, 0), (100, 90)]), [100], "a whole core is seen at once");
    }

    #[test]
    fn looks_in_quick_succession_add_up() {
        let looks: Vec<(u64, u64)> = (0..20).map(|look| (look * 100, look * 10)).collect();
        assert_eq!(moved_at(&looks), [600, 1200, 1800], "a tenth of a CPU, by each look a tick");
    }

    #[test]
    fn other_processes_are_another_life() {
        assert_eq!(moved_at(&[(0, 900), (5000, 20), (10_000, 30)]), [5000]);
    }
}
