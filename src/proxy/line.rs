//! The line before a gate: who waits, in which order, and for whom there is no room.
//!
//! Owns the order and the bounds, and nothing that waits: no clock, no waker, no lock. Higher priority goes
//! first. Among equals, connections take turns, so that a thousand streams of one do not stand before the one
//! request of another; for connections with one request each that is the order in which they came. Where there
//! is no room, whoever is last in this order has to leave, the newcomer included.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use crate::config::Queue;

/// Who asks for a place.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Applicant {
    /// Higher goes first.
    pub(super) priority: i8,
    /// What its body weighs.
    pub(super) bytes: u64,
    /// Its connection: the same number for all of one connection's requests, and for no other's.
    pub(super) flow: u64,
}

/// A stand in the line. The lesser one is served first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Stand {
    priority: Reverse<i8>,
    round: u64,
    number: u64,
}

/// Those who wait; `T` is how they are told.
#[derive(Debug)]
pub(super) struct Line<T> {
    waiting: BTreeMap<Stand, Waiter<T>>,
    bytes: u64,
    /// How many ever stood here.
    joined: u64,
    /// The round of whoever was served last.
    round: u64,
    flows: HashMap<u64, Flow>,
}

#[derive(Debug)]
struct Waiter<T> {
    bytes: u64,
    flow: u64,
    token: T,
}

/// A connection with requests in the line.
#[derive(Debug)]
struct Flow {
    waiting: usize,
    /// The round of its last one.
    last: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), bytes: 0, joined: 0, round: 0, flows: HashMap::new() }
    }
}

impl<T> Line<T> {
    /// Takes somebody in, and says who had to leave for that. `None`: there is no room for the newcomer.
    pub(super) fn join(&mut self, who: Applicant, token: T, queue: &Queue) -> Option<(Stand, Vec<T>)> {
        let next = self.flows.get(&who.flow).map_or(0, |flow| flow.last + 1);
        let stand = Stand { priority: Reverse(who.priority), round: next.max(self.round), number: self.joined };
        let leave = self.in_the_way(stand, who.bytes, queue)?;
        let left = leave.into_iter().filter_map(|stand| self.remove(stand)).collect();
        self.joined += 1;
        self.bytes += who.bytes;
        let flow = self.flows.entry(who.flow).or_insert(Flow { waiting: 0, last: 0 });
        flow.waiting += 1;
        flow.last = flow.last.max(stand.round);
        self.waiting.insert(stand, Waiter { bytes: who.bytes, flow: who.flow, token });
        Some((stand, left))
    }

    /// Who stands behind `stand` and must leave so that so many more bytes fit. `None`: it is not enough.
    fn in_the_way(&self, stand: Stand, bytes: u64, queue: &Queue) -> Option<Vec<Stand>> {
        let fits = |count: usize, sum: u64| {
            count < queue.max && queue.max_bytes.is_none_or(|max| sum.saturating_add(bytes) <= max)
        };
        let (mut count, mut sum) = (self.waiting.len(), self.bytes);
        let mut leave = Vec::new();
        let mut behind = self.waiting.range(stand..).rev();
        while !fits(count, sum) {
            let (last, waiter) = behind.next()?;
            leave.push(*last);
            count -= 1;
            sum -= waiter.bytes;
        }
        Some(leave)
    }

    /// Whose turn it is; it leaves the line.
    pub(super) fn next(&mut self) -> Option<T> {
        let (stand, _) = self.waiting.first_key_value()?;
        let stand = *stand;
        self.round = self.round.max(stand.round);
        self.remove(stand)
    }

    /// Takes somebody out who does not wait any more. `None`: it is not in the line.
    pub(super) fn remove(&mut self, stand: Stand) -> Option<T> {
        let waiter = self.waiting.remove(&stand)?;
        self.bytes -= waiter.bytes;
        if let Some(flow) = self.flows.get_mut(&waiter.flow) {
            flow.waiting -= 1;
            if flow.waiting == 0 {
                self.flows.remove(&waiter.flow);
            }
        }
        Some(waiter.token)
    }

    /// Bytes of those who wait.
    #[cfg(test)]
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const fn queue(max: usize, max_bytes: Option<u64>) -> Queue {
        Queue { max, max_bytes, timeout: Duration::from_secs(5) }
    }

    const WIDE: Queue = queue(1000, None);

    fn drained(line: &mut Line<u32>) -> Vec<u32> {
        std::iter::from_fn(|| line.next()).collect()
    }

    fn of(flow: u64, priority: i8) -> Applicant {
        Applicant { priority, bytes: 0, flow }
    }

    #[test]
    fn higher_goes_first_and_equals_as_they_came() {
        let mut line = Line::default();
        for (name, priority) in [(1, 0), (2, 5), (3, 0), (4, -5), (5, 5)] {
            line.join(of(u64::from(name), priority), name, &WIDE).unwrap();
        }
        assert_eq!(drained(&mut line), [2, 5, 1, 3, 4]);
    }

    #[test]
    fn many_streams_of_one_connection_take_turns_with_the_rest() {
        let mut line = Line::default();
        for name in 0..5 {
            line.join(of(1, 0), name, &WIDE).unwrap();
        }
        line.join(of(2, 0), 10, &WIDE).unwrap();
        line.join(of(3, 0), 11, &WIDE).unwrap();
        assert_eq!(drained(&mut line), [0, 10, 11, 1, 2, 3, 4]);
    }

    #[test]
    fn a_full_line_sends_its_last_away_and_that_may_be_the_newcomer() {
        let mut line = Line::default();
        line.join(of(1, 0), 1, &queue(2, None)).unwrap();
        line.join(of(2, 0), 2, &queue(2, None)).unwrap();
        assert!(line.join(of(3, 0), 3, &queue(2, None)).is_none(), "an equal goes behind");
        let (_, left) = line.join(of(4, 1), 4, &queue(2, None)).unwrap();
        assert_eq!(left, [2]);
        assert_eq!(drained(&mut line), [4, 1]);
    }

    #[test]
    fn nobody_leaves_for_a_newcomer_that_does_not_fit_even_then() {
        let mut line = Line::default();
        let narrow = queue(9, Some(100));
        line.join(Applicant { bytes: 60, ..of(1, 0) }, 1, &narrow).unwrap();
        line.join(Applicant { bytes: 40, ..of(2, -1) }, 2, &narrow).unwrap();
        assert!(line.join(Applicant { bytes: 101, ..of(3, 9) }, 3, &narrow).is_none());
        assert!(line.join(Applicant { bytes: 41, ..of(3, 0) }, 3, &narrow).is_none());
        assert_eq!(line.bytes(), 100);
        let (_, left) = line.join(Applicant { bytes: 40, ..of(3, 0) }, 3, &narrow).unwrap();
        assert_eq!((left, line.bytes()), (vec![2], 100));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(Applicant),
        Next,
        Leave(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let who = (-2_i8..3, 0_u64..50, 0_u64..4)
            .prop_map(|(priority, bytes, flow)| Step::Join(Applicant { priority, bytes, flow }));
        let step = prop_oneof![4 => who, 2 => Just(Step::Next), 1 => (0_usize..8).prop_map(Step::Leave)];
        prop::collection::vec(step, 0..80)
    }

    proptest! {
        #[test]
        fn whoever_joined_is_served_once_or_leaves_once_within_the_bounds(steps in steps()) {
            let bounds = queue(6, Some(120));
            let mut line = Line::default();
            let mut inside: Vec<(Stand, usize, Applicant)> = Vec::new();
            for (name, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Join(who) => if let Some((stand, left)) = line.join(who, name, &bounds) {
                        for gone in left {
                            let at = inside.iter().position(|(_, name, _)| *name == gone).unwrap();
                            let (behind, _, _) = inside.remove(at);
                            prop_assert!(stand < behind, "only who stands behind has to leave");
                        }
                        inside.push((stand, name, who));
                    },
                    Step::Next => {
                        let first = inside.iter().min_by_key(|(stand, ..)| *stand).map(|(_, name, _)| *name);
                        prop_assert_eq!(line.next(), first);
                        inside.retain(|(_, name, _)| Some(*name) != first);
                    }
                    Step::Leave(at) if at < inside.len() => {
                        let (stand, name, _) = inside.remove(at);
                        prop_assert_eq!(line.remove(stand), Some(name));
                        prop_assert_eq!(line.remove(stand), None);
                    }
                    Step::Leave(_) => {}
                }
                let bytes: u64 = inside.iter().map(|(.., who)| who.bytes).sum();
                prop_assert_eq!((line.waiting.len(), line.bytes()), (inside.len(), bytes));
                prop_assert!(inside.len() <= 6 && bytes <= 120);
                let flows: usize = line.flows.values().map(|flow| flow.waiting).sum();
                prop_assert_eq!(flows, inside.len());
            }
        }

        #[test]
        fn with_one_request_each_equals_are_served_as_they_came(priorities in prop::collection::vec(-2_i8..3, 0..60)) {
            let mut line = Line::default();
            let mut expected: Vec<(Reverse<i8>, usize)> = Vec::new();
            for (name, priority) in priorities.into_iter().enumerate() {
                line.join(of(name as u64, priority), name, &WIDE).unwrap();
                expected.push((Reverse(priority), name));
            }
            expected.sort();
            let served: Vec<usize> = std::iter::from_fn(|| line.next()).collect();
            prop_assert_eq!(served, expected.into_iter().map(|(_, name)| name).collect::<Vec<_>>());
        }
    }
}
