//! When something is due: one wake-up time a slot, and the seeded stretch that spreads checks over time.

use std::collections::BTreeSet;
use std::time::Duration;

use super::time::Time;

/// Wake-up times of a fixed number of slots. Setting one costs the logarithm of their number.
#[derive(Debug)]
pub(super) struct Schedule {
    due: BTreeSet<(Time, u32)>,
    at: Vec<Option<Time>>,
}

impl Schedule {
    pub(super) fn new(slots: usize) -> Self {
        Self { due: BTreeSet::new(), at: vec![None; slots] }
    }

    /// Sets, moves or clears the wake-up of a slot.
    pub(super) fn set(&mut self, slot: u32, at: Option<Time>) {
        let known = &mut self.at[slot as usize];
        if *known == at {
            return;
        }
        if let Some(old) = *known {
            self.due.remove(&(old, slot));
        }
        if let Some(new) = at {
            self.due.insert((new, slot));
        }
        *known = at;
    }

    /// The earliest wake-up.
    pub(super) fn next(&self) -> Option<Time> {
        self.due.first().map(|&(at, _)| at)
    }

    /// Takes one slot that is due, earliest first, lowest slot first among equals.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<u32> {
        let &(at, slot) = self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        self.at[slot as usize] = None;
        Some(slot)
    }
}

/// A small seeded generator (SplitMix64): enough to spread checks, and the same everywhere.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `wait`, longer by a share between nothing and `permille` thousandths.
    pub(super) fn stretch(&mut self, wait: Duration, permille: u32) -> Duration {
        wait + self.share(wait, permille)
    }

    /// A share of `wait` between nothing and `permille` thousandths.
    pub(super) fn share(&mut self, wait: Duration, permille: u32) -> Duration {
        let span = wait.as_nanos().saturating_mul(u128::from(permille)) / 1000;
        let part = (span.saturating_mul(u128::from(self.next() >> 32))) >> 32;
        Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_wakes_once_at_its_latest_setting() {
        let mut schedule = Schedule::new(2);
        schedule.set(0, Some(Time::from_secs(5)));
        schedule.set(1, Some(Time::from_secs(3)));
        schedule.set(0, Some(Time::from_secs(1)));
        assert_eq!(schedule.next(), Some(Time::from_secs(1)));
        assert_eq!(schedule.pop_due(Time::from_secs(3)), Some(0));
        assert_eq!(schedule.pop_due(Time::from_secs(3)), Some(1));
        assert_eq!(schedule.pop_due(Time::from_secs(9)), None);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_stretch_is_never_shorter_and_never_beyond_its_share() {
        let mut jitter = Jitter::new(7);
        let wait = Duration::from_secs(10);
        let all: Vec<_> = (0..1000).map(|_| jitter.stretch(wait, 100)).collect();
        assert!(all.iter().all(|&s| s >= wait && s <= wait + Duration::from_secs(1)));
        assert!(all.iter().max() > all.iter().min());
        assert_eq!(Jitter::new(7).stretch(wait, 0), wait);
    }
}
