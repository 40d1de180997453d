//! When something is due: one wake-up time a slot, and the seeded stretch that spreads checks over time.

use std::time::Duration;

use super::time::Time;

/// Not in the heap.
const NONE: u32 = u32::MAX;

/// Wake-up times of a fixed number of slots: a heap that knows where each slot is. Setting one costs the logarithm
/// of their number, and nothing is allocated.
#[derive(Debug)]
pub(super) struct Schedule {
    /// No entry comes before its parent, which is half as far from the beginning.
    heap: Vec<(Time, u32)>,
    /// By slot: where in the heap it is.
    place: Vec<u32>,
}

impl Schedule {
    pub(super) fn new(slots: usize) -> Self {
        Self { heap: Vec::with_capacity(slots), place: vec![NONE; slots] }
    }

    /// Sets, moves or clears the wake-up of a slot.
    pub(super) fn set(&mut self, slot: u32, at: Option<Time>) {
        let place = self.place[slot as usize] as usize;
        match (self.heap.get(place).map(|(at, _)| *at), at) {
            (None, None) => {}
            (Some(_), None) => self.remove(place),
            (None, Some(new)) => {
                self.heap.push((new, slot));
                self.rise(self.heap.len() - 1);
            }
            (Some(old), Some(new)) => {
                self.heap[place].0 = new;
                match new.cmp(&old) {
                    std::cmp::Ordering::Less => self.rise(place),
                    std::cmp::Ordering::Equal => {}
                    std::cmp::Ordering::Greater => self.sink(place),
                }
            }
        }
    }

    /// The earliest wake-up.
    pub(super) fn next(&self) -> Option<Time> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// Takes one slot that is due, earliest first, lowest slot first among equals.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<u32> {
        let (_, slot) = self.heap.first().copied().filter(|(at, _)| *at <= now)?;
        self.remove(0);
        Some(slot)
    }

    fn remove(&mut self, place: usize) {
        let (_, slot) = self.heap.swap_remove(place);
        self.place[slot as usize] = NONE;
        if place < self.heap.len() {
            // What was last may belong above or below.
            self.rise(place);
            self.sink(place);
        }
    }

    /// Moves an entry to before all that come later than it, and notes where it is.
    fn rise(&mut self, mut place: usize) {
        let entry = self.heap[place];
        while let Some(above) = place.checked_sub(1).map(|before| before / 2)
            && entry < self.heap[above]
        {
            self.put(place, self.heap[above]);
            place = above;
        }
        self.put(place, entry);
    }

    fn sink(&mut self, mut place: usize) {
        let entry = self.heap[place];
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let Some(&(mut first)) = self.heap.get(left) else { break };
            let mut below = left;
            if let Some(&other) = self.heap.get(right).filter(|other| **other < first) {
                (first, below) = (other, right);
            }
            if entry <= first {
                break;
            }
            self.put(place, first);
            place = below;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: (Time, u32)) {
        self.heap[place] = entry;
        // There are fewer places than slots, and slots are counted by `u32`.
        self.place[entry.1 as usize] = place as u32;
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
    fn slots_come_in_the_order_of_their_times_however_often_they_are_moved() {
        let (mut schedule, mut jitter) = (Schedule::new(50), Jitter::new(11));
        let mut known = vec![None; 50];
        for round in 0..20_000_u64 {
            let (slot, kind) = (jitter.next() % 50, jitter.next() % 8);
            let at = (kind > 0).then(|| Time::from_millis(round + jitter.next() % 40));
            schedule.set(slot as u32, at);
            known[slot as usize] = at;
            let first = known.iter().enumerate().filter_map(|(slot, at)| Some(((*at)?, slot))).min();
            assert_eq!(schedule.next(), first.map(|(at, _)| at));
            let now = Time::from_millis(round);
            let due = first.filter(|(at, _)| *at <= now);
            assert_eq!(schedule.pop_due(now), due.map(|(_, slot)| slot as u32));
            if let Some((_, slot)) = due {
                known[slot] = None;
            }
        }
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
