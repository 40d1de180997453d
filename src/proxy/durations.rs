//! Durations as the workers count them: a histogram, and sums of the last minute.
//!
//! Written by one thread, read by any; a reader may see a request half counted, never a number lost.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::engine::Time;

/// Upper bounds in milliseconds: 1 ms to 10 min, for a token stream lasts minutes.
pub(super) const BUCKETS_MS: [u64; 18] =
    [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000];

/// The mean latency looks back this far.
const LATENCY_WINDOW_SECONDS: usize = 60;

/// A histogram of durations.
pub(super) struct Buckets {
    counts: [AtomicU64; BUCKETS_MS.len() + 1],
    sum_ns: AtomicU64,
}

impl Buckets {
    pub(super) fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS_MS.len() + 1], sum_ns: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MS.partition_point(|bound| bound * 1_000_000 < nanos);
        add(&self.counts[bucket], 1);
        add(&self.sum_ns, nanos);
    }

    /// How many durations fell into the bucket at `place`.
    pub(super) fn count(&self, place: usize) -> u64 {
        self.counts[place].load(Relaxed)
    }

    pub(super) fn sum_ns(&self) -> u64 {
        self.sum_ns.load(Relaxed)
    }
}

/// Sums per second for the last minute.
pub(super) struct Ring {
    seconds: [RingSecond; LATENCY_WINDOW_SECONDS],
}

struct RingSecond {
    second: AtomicU64,
    sum_ns: AtomicU64,
    count: AtomicU64,
    max_ns: AtomicU64,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            seconds: [const {
                RingSecond {
                    second: AtomicU64::new(u64::MAX),
                    sum_ns: AtomicU64::new(0),
                    count: AtomicU64::new(0),
                    max_ns: AtomicU64::new(0),
                }
            }; LATENCY_WINDOW_SECONDS],
        }
    }

    pub(super) fn observe(&self, took: Duration, now: Time) {
        let second = now.as_nanos() / 1_000_000_000;
        let place = &self.seconds[second as usize % LATENCY_WINDOW_SECONDS];
        if place.second.load(Relaxed) != second {
            place.sum_ns.store(0, Relaxed);
            place.count.store(0, Relaxed);
            place.max_ns.store(0, Relaxed);
            place.second.store(second, Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        add(&place.sum_ns, nanos);
        add(&place.count, 1);
        place.max_ns.store(place.max_ns.load(Relaxed).max(nanos), Relaxed);
    }

    pub(super) fn sum(&self, now: Time) -> (u64, u64) {
        self.recent(now)
            .fold((0, 0), |sum, place| (sum.0 + place.sum_ns.load(Relaxed), sum.1 + place.count.load(Relaxed)))
    }

    /// The largest of the last minute; none without any.
    pub(super) fn largest(&self, now: Time) -> Option<Duration> {
        self.recent(now).map(|place| Duration::from_nanos(place.max_ns.load(Relaxed))).max()
    }

    fn recent(&self, now: Time) -> impl Iterator<Item = &RingSecond> {
        let second = now.as_nanos() / 1_000_000_000;
        let oldest = (second + 1).saturating_sub(LATENCY_WINDOW_SECONDS as u64);
        self.seconds.iter().filter(move |place| (oldest..second + 1).contains(&place.second.load(Relaxed)))
    }
}

/// One thread writes each number, so that a load and a store do what a locked instruction would.
pub(super) fn add(to: &AtomicU64, what: u64) {
    to.store(to.load(Relaxed).wrapping_add(what), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_latency_forgets_what_is_older_than_a_minute() {
        let ring = Ring::new();
        ring.observe(Duration::from_nanos(10), Time::from_secs(100));
        ring.observe(Duration::from_nanos(30), Time::from_secs(159));
        assert_eq!(ring.sum(Time::from_secs(159)), (40, 2));
        assert_eq!(ring.largest(Time::from_secs(159)), Some(Duration::from_nanos(30)));
        assert_eq!(ring.sum(Time::from_secs(160)), (30, 1));
        ring.observe(Duration::from_nanos(5), Time::from_secs(160));
        assert_eq!(ring.sum(Time::from_secs(160)), (35, 2));
        assert_eq!(ring.sum(Time::from_secs(300)), (0, 0));
        assert_eq!(ring.largest(Time::from_secs(300)), None);
    }

    #[test]
    fn a_duration_on_a_bound_belongs_below_it() {
        let buckets = Buckets::new();
        buckets.observe(Duration::from_millis(1));
        buckets.observe(Duration::from_nanos(1_000_001));
        buckets.observe(Duration::from_secs(601));
        assert_eq!(buckets.counts[0].load(Relaxed), 1);
        assert_eq!(buckets.counts[1].load(Relaxed), 1);
        assert_eq!(buckets.counts[BUCKETS_MS.len()].load(Relaxed), 1);
    }
}
