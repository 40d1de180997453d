//! The sidecar's traffic plane: who waits for what, and what the engine is told of the traffic.
//!
//! It counts as the proxy in the pod counts; whether a request may pass is the engine's word.

use std::collections::VecDeque;
use std::time::Duration;

use super::ends::End;
use super::server::{Flight, Overview, Request};
use crate::engine::{Passage, Time, Traffic};
use crate::lab::scenario::Terms;

/// Answers of so many seconds make the pace, as in the proxy.
const PACE_WINDOW: u64 = 60;

/// A request that has not reached the server yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) request: Request,
    /// When it came: a hold is measured from there.
    pub(super) came: Time,
    /// It is over then, in this way.
    pub(super) until: Time,
    pub(super) end: End,
    /// Until when its client waits.
    pub(super) deadline: Time,
    /// A held one tries again then, or as soon as the judgement is no longer this.
    pub(super) tries: Time,
    pub(super) seen: Passage,
}

#[derive(Debug)]
pub(super) struct Plane {
    pub(super) terms: Terms,
    /// For a place, first come first served.
    pub(super) queued: VecDeque<Waiting>,
    /// For a server.
    pub(super) held: VecDeque<Waiting>,
    pub(super) is_trial_inside: bool,
    /// When the queue and the held ones are looked at next.
    pub(super) looks_at: Option<Time>,
    succeeded: u64,
    failed: u64,
    abandoned: u64,
    abandoned_wait: Duration,
    abandoned_sharing: u64,
    shed: u64,
    last_byte: Option<Time>,
    pace: Pace,
    /// Requests that the server may still be at though nobody waits, as the engine said last: they share it too.
    pub(super) left_over: u64,
}

impl Plane {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            queued: VecDeque::new(),
            held: VecDeque::new(),
            is_trial_inside: false,
            looks_at: None,
            succeeded: 0,
            failed: 0,
            abandoned: 0,
            abandoned_wait: Duration::ZERO,
            abandoned_sharing: 0,
            shed: 0,
            last_byte: None,
            pace: Pace::default(),
            left_over: 0,
        }
    }

    /// A request that the server had is over.
    pub(super) fn ended(&mut self, flight: &Flight) {
        self.is_trial_inside &= !flight.request.is_trial;
        let took = flight.ends.since(flight.begun);
        match flight.end {
            End::Ok | End::Wrong | End::Dependency => {
                let silent = flight.silent();
                // Most have the server to themselves, and dividing is dear.
                let pace = if flight.sharing <= 1 { silent } else { silent / flight.sharing };
                self.pace.observe(pace, flight.ends);
                self.last_byte = self.last_byte.max(Some(flight.ends));
                let is_good = flight.end != End::Dependency;
                self.succeeded += u64::from(is_good);
                self.failed += u64::from(!is_good);
            }
            End::Timeout => {
                self.abandoned += 1;
                self.abandoned_wait += took;
                self.abandoned_sharing += u64::from(flight.sharing);
                // Our own patience ended: the server's failure. The client's end is nobody's.
                self.failed += u64::from(self.terms.first_byte_timeout.is_some_and(|limit| limit <= took));
            }
            _ => self.failed += 1,
        }
    }

    /// The server answered at once that it cannot.
    pub(super) fn rejected(&mut self, request: &Request, end: End, now: Time) {
        self.is_trial_inside &= !request.is_trial;
        if end != End::Refused {
            self.pace.observe(Duration::ZERO, now);
            self.last_byte = Some(now);
            self.failed += 1;
        }
    }

    /// A request was refused for want of room.
    pub(super) const fn shed(&mut self) {
        self.shed += 1;
    }

    /// What the engine is told.
    pub(super) fn sample(&mut self, now: Time, seen: Overview) -> Traffic {
        self.last_byte = self.last_byte.max(seen.last_byte);
        Traffic {
            in_flight: seen.in_flight,
            oldest_begun: seen.oldest_begun,
            quietest_since: seen.quietest_since,
            last_byte: self.last_byte,
            // All that its clients send is work.
            work_begun: seen.oldest_begun,
            work_byte: self.last_byte,
            abandoned: self.abandoned,
            abandoned_wait: self.abandoned_wait,
            abandoned_sharing: self.abandoned_sharing,
            lent_until: None,
            pace: self.pace.largest(now),
            patience: Duration::ZERO,
            queued: self.queued.len() as u64,
            queue_since: self.queued.front().map(|first| first.came),
            shed: self.shed,
            succeeded: self.succeeded,
            failed: self.failed,
            last_beat: Some(now),
        }
    }
}

/// The largest of a window, to the second: those that a later one has not reached, the largest first.
#[derive(Debug, Default)]
struct Pace(VecDeque<(u64, Duration)>);

impl Pace {
    fn observe(&mut self, took: Duration, now: Time) {
        let second = second(now);
        while self.0.back().is_some_and(|(_, last)| *last <= took) {
            self.0.pop_back();
        }
        // A smaller one of the same second will never be asked for.
        if self.0.back().is_none_or(|(of, _)| *of < second) {
            self.0.push_back((second, took));
        }
    }

    fn largest(&mut self, now: Time) -> Option<Duration> {
        let oldest = (second(now) + 1).saturating_sub(PACE_WINDOW);
        while self.0.front().is_some_and(|(of, _)| *of < oldest) {
            self.0.pop_front();
        }
        self.0.front().map(|(_, largest)| *largest)
    }
}

const fn second(now: Time) -> u64 {
    now.as_nanos() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_the_largest_of_the_last_minute() {
        let mut pace = Pace::default();
        pace.observe(Duration::from_millis(30), Time::from_secs(100));
        pace.observe(Duration::from_millis(10), Time::from_secs(159));
        assert_eq!(pace.largest(Time::from_secs(159)), Some(Duration::from_millis(30)));
        assert_eq!(pace.largest(Time::from_secs(160)), Some(Duration::from_millis(10)));
        assert_eq!(pace.largest(Time::from_secs(300)), None);
    }
}
