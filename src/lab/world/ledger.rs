//! Which requests are under way, each by its number: one that ends twice and one that never ends are both named, even
//! where their counts cancel out. It keeps one bit a request, and only from the oldest that is under way on.

use std::collections::VecDeque;

/// Requests of one word.
const WORD: u32 = u64::BITS;

/// Numbers are given in the order of sending and wrap around; no two under way are 2^32 requests apart.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The first number of the first word.
    first: u32,
    next: u32,
    /// A bit is set while its request is under way.
    words: VecDeque<u64>,
}

impl Ledger {
    /// A request is under way; its number.
    pub(super) fn sent(&mut self) -> u32 {
        let number = self.next;
        if number.is_multiple_of(WORD) {
            self.words.push_back(0);
        }
        if let Some(last) = self.words.back_mut() {
            *last |= 1 << (number % WORD);
        }
        self.next = number.wrapping_add(1);
        number
    }

    /// It is over for good. False if it was not under way: it has ended before, or was never sent.
    #[must_use]
    pub(super) fn ended(&mut self, number: u32) -> bool {
        let at = number.wrapping_sub(self.first);
        let Some(word) = self.words.get_mut((at / WORD) as usize) else { return false };
        let bit = 1 << (at % WORD);
        let was_under_way = *word & bit != 0;
        *word &= !bit;
        // The last word is still being written.
        while self.words.len() > 1 && self.words.front() == Some(&0) {
            self.words.pop_front();
            self.first = self.first.wrapping_add(WORD);
        }
        was_under_way
    }

    /// Nothing is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that has sent and ended so many.
    fn after(requests: u32) -> Ledger {
        let mut ledger = Ledger::default();
        for _ in 0..requests {
            let number = ledger.sent();
            assert!(ledger.ended(number));
        }
        ledger
    }

    #[test]
    fn each_ends_once_wherever_in_a_word_it_falls_and_in_whatever_order() {
        for before in [0, 1, 63, 64, 65, 1000] {
            let mut ledger = after(before);
            let numbers: Vec<u32> = (0..200).map(|_| ledger.sent()).collect();
            assert!(!ledger.is_settled());
            for step in 0..200 {
                // 77 and 200 have no common divisor: each comes once.
                let number = numbers[step * 77 % 200];
                assert!(ledger.ended(number), "{before}: {number}");
                assert!(!ledger.ended(number), "{before}: {number} has ended");
            }
            assert!(ledger.is_settled());
        }
    }

    #[test]
    fn one_that_was_never_sent_cannot_end() {
        assert!(!after(0).ended(0));
        let mut ledger = after(70);
        assert!(!ledger.ended(70) && !ledger.ended(71) && !ledger.ended(5000));
    }

    #[test]
    fn it_keeps_what_is_under_way_and_forgets_the_rest() {
        let mut ledger = after(100_000);
        assert_eq!(ledger.words.len(), 1);
        let old = ledger.sent();
        for _ in 0..1000 {
            let number = ledger.sent();
            assert!(ledger.ended(number));
        }
        assert!(ledger.words.len() > 10, "nothing behind the oldest is forgotten");
        assert!(ledger.ended(old) && ledger.is_settled());
        assert_eq!(ledger.words.len(), 1);
    }

    #[test]
    fn numbers_begin_again_after_the_last_one() {
        let last = u32::MAX - 63;
        let mut ledger = Ledger { first: last, next: last, ..Ledger::default() };
        let numbers: Vec<u32> = (0..130).map(|_| ledger.sent()).collect();
        assert_eq!(numbers.last(), Some(&65));
        assert!(numbers.iter().rev().all(|number| ledger.ended(*number)));
        assert!(ledger.is_settled() && !ledger.ended(u32::MAX));
    }
}
