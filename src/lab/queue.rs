//! What happens next: events by time, first come first served at an equal time.
//!
//! A calendar. Time is cut into days of about four milliseconds; the next seventeen seconds of them are lists that
//! nobody sorts before their day comes, and what is planned for later waits in a heap. A world plans and takes some
//! thousand events in a virtual second, so that a day holds a handful: each costs the same, however many are planned.
//!
//! Events are small and are never taken out early. Whoever plans one that may be overtaken puts a generation
//! into it and drops it on arrival: cheaper than searching, and the order stays that of the planning.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::engine::Time;

/// A day is 2^22 ns.
const DAY_BITS: u32 = 22;
/// Days of the calendar, today among them: a power of two.
const DAYS: u64 = 4096;
/// No event.
const NONE: u32 = u32::MAX;

/// The agenda of a world.
#[derive(Debug)]
pub struct Queue<E> {
    /// What is planned, by place; free places are linked as days are.
    places: Vec<Place<E>>,
    free: u32,
    /// Which day the calendar begins with.
    day: u64,
    /// What is left of today, and what was planned for an earlier time since: the next one last.
    today: Vec<Key>,
    /// By day, modulo [`DAYS`]: the first of its events.
    days: Vec<u32>,
    /// By day, modulo [`DAYS`], a bit: whether it has any.
    busy: [u64; DAYS as usize / 64],
    /// Beyond the calendar.
    later: BinaryHeap<Reverse<Key>>,
    planned: u64,
    len: usize,
    now: Time,
}

#[derive(Debug)]
struct Place<E> {
    key: Key,
    /// The next of its day.
    next: u32,
    event: E,
}

/// Events come by time, then by the order of planning; where they are kept does not decide.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Key {
    at: Time,
    order: u64,
    place: u32,
}

impl Key {
    #[inline]
    const fn day(self) -> u64 {
        self.at.as_nanos() >> DAY_BITS
    }
}

impl<E: Copy> Queue<E> {
    pub fn new() -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
            day: 0,
            today: Vec::new(),
            days: vec![NONE; DAYS as usize],
            busy: [0; DAYS as usize / 64],
            later: BinaryHeap::new(),
            planned: 0,
            len: 0,
            now: Time::ZERO,
        }
    }

    /// Plans an event; one in the past happens now.
    #[inline]
    pub fn push(&mut self, at: Time, event: E) {
        let key = self.keep(at.max(self.now), event);
        if key.day() <= self.day {
            // The newest comes after all that are planned for the same time.
            let place = self.today.partition_point(|known| key.at < known.at);
            self.today.insert(place, key);
        } else {
            self.enter(key);
        }
    }

    /// The next event up to and including `until`. Time never goes back.
    #[inline]
    pub fn pop(&mut self, until: Time) -> Option<(Time, E)> {
        if self.next_at()? > until {
            return None;
        }
        let key = self.today.pop()?;
        debug_assert!(key.at >= self.now, "time went back");
        self.now = key.at;
        self.len -= 1;
        let place = &mut self.places[key.place as usize];
        place.next = std::mem::replace(&mut self.free, key.place);
        Some((key.at, place.event))
    }

    /// When the next event happens.
    #[inline]
    pub fn next_at(&mut self) -> Option<Time> {
        if self.today.is_empty() {
            self.turn_over();
        }
        self.today.last().map(|key| key.at)
    }

    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives an event a place.
    fn keep(&mut self, at: Time, event: E) -> Key {
        let order = self.planned;
        self.planned += 1;
        self.len += 1;
        if let Some(place) = self.places.get_mut(self.free as usize) {
            let key = Key { at, order, place: self.free };
            self.free = place.next;
            *place = Place { key, next: NONE, event };
            return key;
        }
        // Four thousand million events at once would have filled the memory before.
        let place = u32::try_from(self.places.len()).unwrap_or(NONE);
        let key = Key { at, order, place };
        self.places.push(Place { key, next: NONE, event });
        key
    }

    /// Enters a day to come, or one beyond the calendar.
    fn enter(&mut self, key: Key) {
        let day = key.day();
        if self.day + DAYS <= day {
            self.later.push(Reverse(key));
            return;
        }
        let slot = (day % DAYS) as usize;
        self.places[key.place as usize].next = std::mem::replace(&mut self.days[slot], key.place);
        self.busy[slot / 64] |= 1 << (slot % 64);
    }

    /// Goes on to the next day that has any event, and sorts it.
    fn turn_over(&mut self) {
        let beyond = self.later.peek().map(|Reverse(key)| key.day());
        let Some(day) = self.next_busy_day().into_iter().chain(beyond).min() else { return };
        self.day = day;
        let slot = (day % DAYS) as usize;
        self.busy[slot / 64] &= !(1 << (slot % 64));
        let mut at = std::mem::replace(&mut self.days[slot], NONE);
        while let Some(place) = self.places.get(at as usize) {
            self.today.push(place.key);
            at = place.next;
        }
        // The calendar reaches further now.
        while let Some(&Reverse(key)) = self.later.peek()
            && key.day() < day + DAYS
        {
            self.later.pop();
            if key.day() == day {
                self.today.push(key);
            } else {
                self.enter(key);
            }
        }
        self.today.sort_unstable_by(|one, other| other.cmp(one));
    }

    /// The first day after today with an event in the calendar.
    fn next_busy_day(&self) -> Option<u64> {
        let words = self.busy.len() as u64;
        let first = (self.day + 1) % DAYS;
        // The first word is looked at twice: from tomorrow on, and last up to tomorrow.
        (0..=words).find_map(|step| {
            let word = (first / 64 + step) % words;
            let from_tomorrow = u64::MAX << (first % 64);
            let wanted = match step {
                0 => from_tomorrow,
                _ if step == words => !from_tomorrow,
                _ => u64::MAX,
            };
            let found = self.busy[word as usize] & wanted;
            let slot = (found != 0).then(|| word * 64 + u64::from(found.trailing_zeros()))?;
            Some(self.day + 1 + (slot + DAYS - first) % DAYS)
        })
    }
}

impl<E: Copy> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::rng::Rng;

    #[test]
    fn events_come_by_time_and_then_by_the_order_of_planning() {
        let mut queue = Queue::new();
        for (at, event) in [(3, 'c'), (1, 'a'), (3, 'd'), (2, 'b')] {
            queue.push(Time::from_secs(at), event);
        }
        let order: String = std::iter::from_fn(|| queue.pop(Time::from_secs(9))).map(|(_, event)| event).collect();
        assert_eq!(order, "abcd");
    }

    #[test]
    fn nothing_comes_before_its_time_and_the_past_is_now() {
        let mut queue = Queue::new();
        queue.push(Time::from_secs(5), 'x');
        assert_eq!(queue.pop(Time::from_secs(4)), None);
        assert_eq!(queue.pop(Time::from_secs(5)), Some((Time::from_secs(5), 'x')));
        queue.push(Time::from_secs(1), 'y');
        assert_eq!(queue.next_at(), Some(Time::from_secs(5)));
    }

    /// As far ahead as a world plans: at once, within a day, within the calendar, beyond it, never.
    fn ahead(rng: &mut Rng) -> u64 {
        let most = [1, 1 << 12, 1 << DAY_BITS, 1 << 30, DAYS << DAY_BITS, 1 << 42];
        match rng.below(most.len() as u64 + 1) as usize {
            kind if kind < most.len() => rng.below(most[kind]),
            _ => u64::MAX / 2,
        }
    }

    #[test]
    fn the_calendar_gives_what_a_sorted_list_would_give_wherever_events_fall() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut queue = Queue::new();
            let mut sorted = std::collections::BTreeSet::new();
            let mut now = 0;
            for event in 0..4000_u32 {
                let at = now + ahead(&mut rng);
                queue.push(Time::from_nanos(at), event);
                sorted.insert((at, event));
                assert_eq!(queue.len(), sorted.len());
                let until = now + ahead(&mut rng) / 2;
                // Somebody who only looks changes nothing.
                let looks = rng.chance(500).then(|| queue.next_at().unwrap().as_nanos());
                assert!(looks.is_none_or(|next| Some(next) == sorted.first().map(|(at, _)| *at)));
                let due = sorted.first().copied().filter(|(at, _)| *at <= until);
                if rng.chance(900) && due.is_none_or(|(at, _)| at < 1 << 60) {
                    let popped = queue.pop(Time::from_nanos(until)).map(|(at, event)| (at.as_nanos(), event));
                    assert_eq!(popped, due, "seed {seed}");
                    if let Some(due) = due {
                        sorted.remove(&due);
                        now = due.0;
                    }
                }
            }
            let rest: Vec<_> = std::iter::from_fn(|| queue.pop(Time::from_nanos(u64::MAX))).collect();
            let rest: Vec<_> = rest.into_iter().map(|(at, event)| (at.as_nanos(), event)).collect();
            assert_eq!(rest, sorted.into_iter().collect::<Vec<_>>(), "seed {seed}");
            assert!(queue.is_empty());
        }
    }
}
