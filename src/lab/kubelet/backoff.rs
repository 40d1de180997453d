//! CrashLoopBackOff of one container: how long a start must wait (§4.1).

use std::time::Duration;

use crate::engine::Time;

/// Times of the back-off. Upstream defaults.
#[derive(Clone, Copy, Debug)]
pub struct BackoffKnobs {
    /// First wait, 10 s.
    pub base: Duration,
    /// Longest wait (`MaxContainerBackOff`), 300 s.
    pub cap: Duration,
    /// An entry not touched for so long is forgotten, 600 s.
    pub forget: Duration,
}

impl Default for BackoffKnobs {
    fn default() -> Self {
        Self { base: Duration::from_secs(10), cap: Duration::from_secs(300), forget: Duration::from_secs(600) }
    }
}

/// The entry of one container, if it has one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    entry: Option<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    wait: Duration,
    last_update: Time,
}

impl Backoff {
    /// May the container start at `now`? `ended` is when the newest exited instance in the sync's *cached*
    /// status ended. On yes the entry is moved on.
    ///
    /// # Errors
    /// When it may start at the earliest.
    pub fn try_start(&mut self, now: Time, ended: Option<Time>, knobs: &BackoffKnobs) -> Result<(), Time> {
        // The first start, and a probe kill whose sync still says Running and knows of no earlier end:
        // at once, and no entry is made (§4.1).
        let Some(ended) = ended else { return Ok(()) };
        // Housekeeping drops what has not been touched for so long; the check itself compares with the end.
        let kept = self.entry.filter(|entry| now.since(entry.last_update) <= knobs.forget);
        let entry = kept.filter(|entry| ended.since(entry.last_update) <= knobs.forget);
        let wait = match entry {
            Some(entry) if now.since(ended) < entry.wait => return Err(ended + entry.wait),
            Some(entry) => (entry.wait * 2).min(knobs.cap),
            None => knobs.base,
        };
        self.entry = Some(Entry { wait, last_update: now });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a container as early as it may, `runs` times, each running for `life`; returns the waits.
    fn crashes(life: u64, runs: usize) -> Vec<u64> {
        let (mut backoff, knobs) = (Backoff::default(), BackoffKnobs::default());
        let mut now = Time::from_secs(1000);
        let mut waits = Vec::new();
        for _ in 0..runs {
            now += Duration::from_secs(life);
            let ended = now;
            if let Err(until) = backoff.try_start(now, Some(ended), &knobs) {
                now = until;
                assert_eq!(backoff.try_start(now, Some(ended), &knobs), Ok(()));
            }
            waits.push(now.since(ended).as_secs());
        }
        waits
    }

    #[test]
    fn a_crash_waits_0_10_20_40_up_to_five_minutes() {
        assert_eq!(crashes(3, 9), [0, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn more_than_ten_minutes_of_running_resets_it() {
        assert_eq!(crashes(601, 4), [0, 0, 0, 0]);
        assert_eq!(crashes(590, 3), [0, 10, 20]);
    }

    #[test]
    fn the_first_start_and_the_first_probe_kill_leave_no_entry() {
        let (mut backoff, knobs) = (Backoff::default(), BackoffKnobs::default());
        assert_eq!(backoff.try_start(Time::from_secs(1), None, &knobs), Ok(()));
        assert_eq!(backoff.try_start(Time::from_secs(17), None, &knobs), Ok(()));
        assert_eq!(backoff.try_start(Time::from_secs(33), Some(Time::from_secs(17)), &knobs), Ok(()));
    }

    #[test]
    fn a_probe_kill_is_measured_from_the_previous_end() {
        // §4.1: kills every 16 s; the wait bites first at the fourth, and then from the fresh end.
        let (mut backoff, knobs) = (Backoff::default(), BackoffKnobs::default());
        let at = Time::from_secs;
        assert_eq!(backoff.try_start(at(32), Some(at(16)), &knobs), Ok(()));
        assert_eq!(backoff.try_start(at(48), Some(at(32)), &knobs), Ok(()));
        assert_eq!(backoff.try_start(at(64), Some(at(48)), &knobs), Err(at(68)));
        assert_eq!(backoff.try_start(at(65), Some(at(64)), &knobs), Err(at(84)));
    }
}
