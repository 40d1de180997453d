//! The address with the fewest requests under way for its weight; among equals, whose turn it is by weight.
//!
//! Model servers answer one request at a time, or a batch, and how long one takes varies by orders of magnitude:
//! taking turns queues short requests behind a long one while a neighbour is idle.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The order of turns. Each worker has its own place in it.
pub(super) struct LeastLoaded {
    weights: Vec<u64>,
    /// Places in `weights`, each as often as its weight says, spread evenly.
    turns: Vec<u32>,
    cursors: Box<[Cursor]>,
}

/// Written by one worker. Aligned to two cache lines, so that no worker's writes slow another's.
#[repr(align(128))]
struct Cursor(AtomicUsize);

impl LeastLoaded {
    /// `weights`: at least one, each at least 1.
    pub(super) fn new(weights: &[usize], workers: usize) -> Self {
        Self {
            weights: weights.iter().map(|&weight| weight as u64).collect(),
            turns: turns(weights),
            // Apart, so that workers which begin together do not all begin with the same.
            cursors: (0..workers).map(|worker| Cursor(AtomicUsize::new(worker))).collect(),
        }
    }

    /// The place of the choice; none if `load` has none for any place. `load` tells the requests under way of
    /// a place that may be chosen.
    pub(super) fn choose(&self, worker: usize, load: impl Fn(usize) -> Option<u64>) -> Option<usize> {
        let cursor = &self.cursors[worker].0;
        let turn = cursor.load(Relaxed);
        cursor.store(turn.wrapping_add(1), Relaxed);
        let first = self.turns[turn % self.turns.len()] as usize;
        let mut best: Option<(usize, u64)> = None;
        for step in 0..self.weights.len() {
            let place = (first + step) % self.weights.len();
            let Some(load) = load(place) else { continue };
            let less = |(other, least): (usize, u64)| load * self.weights[other] < least * self.weights[place];
            if best.is_none_or(less) {
                best = Some((place, load));
            }
        }
        best.map(|(place, _)| place)
    }
}

/// Smooth weighted turns: each place as often as its weight, never in a lump.
fn turns(weights: &[usize]) -> Vec<u32> {
    let total: usize = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    let mut turns = Vec::with_capacity(total);
    for _ in 0..total {
        let mut next = 0;
        for (place, weight) in weights.iter().enumerate() {
            // Weights are at most 256.
            credit[place] += *weight as i64;
            if credit[next] < credit[place] {
                next = place;
            }
        }
        credit[next] -= total as i64;
        turns.push(next as u32);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_loaded_is_chosen_and_weights_count() {
        let even = LeastLoaded::new(&[1, 1, 1], 1);
        assert!((0..9).all(|_| even.choose(0, |place| Some([3, 1, 2][place])) == Some(1)));
        let heavy = LeastLoaded::new(&[3, 1], 1);
        assert_eq!(heavy.choose(0, |place| Some([2, 1][place])), Some(0));
        assert_eq!(heavy.choose(0, |place| Some([4, 1][place])), Some(1));
    }

    #[test]
    fn equals_take_turns_by_weight_and_never_in_a_lump() {
        assert_eq!(turns(&[3, 1]), [0, 0, 1, 0]);
        let chooser = LeastLoaded::new(&[2, 1, 1], 1);
        let chosen: Vec<usize> = (0..400).map(|_| chooser.choose(0, |_| Some(0)).unwrap()).collect();
        let of = |place| chosen.iter().filter(|one| **one == place).count();
        assert_eq!([of(0), of(1), of(2)], [200, 100, 100]);
    }

    #[test]
    fn who_may_not_be_chosen_is_passed_over() {
        let chooser = LeastLoaded::new(&[1, 1, 1], 2);
        for worker in [0, 1, 1, 0] {
            assert_eq!(chooser.choose(worker, |place| (place == 2).then_some(99)), Some(2));
            assert_eq!(chooser.choose(worker, |_| None), None);
        }
    }
}
