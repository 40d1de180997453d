//! What happens next: a heap of events by time, first come first served at an equal time.
//!
//! Events are small and are never taken out early. Whoever plans one that may be overtaken puts a generation
//! into it and drops it on arrival: cheaper than searching, and the order stays that of the planning.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::engine::Time;

/// The agenda of a world.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    planned: u64,
    now: Time,
}

#[derive(Debug)]
struct Entry<E> {
    at: Time,
    order: u64,
    event: E,
}

impl<E> Queue<E> {
    pub const fn new() -> Self {
        Self { heap: BinaryHeap::new(), planned: 0, now: Time::ZERO }
    }

    /// Plans an event; one in the past happens now.
    pub fn push(&mut self, at: Time, event: E) {
        let at = at.max(self.now);
        self.heap.push(Entry { at, order: self.planned, event });
        self.planned += 1;
    }

    /// The next event up to and including `until`. Time never goes back.
    pub fn pop(&mut self, until: Time) -> Option<(Time, E)> {
        if self.heap.peek()?.at > until {
            return None;
        }
        let entry = self.heap.pop()?;
        debug_assert!(entry.at >= self.now, "time went back");
        self.now = entry.at;
        Some((entry.at, entry.event))
    }

    /// When the next event happens.
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|entry| entry.at)
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// The heap gives its greatest first, so the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(queue.next(), Some(Time::from_secs(5)));
    }
}
