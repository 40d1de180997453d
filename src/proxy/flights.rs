//! Requests in flight, one place each: when they began and when the model server last said something.
//!
//! Written by the worker whose requests they are, without a lock; read by whoever samples. A request beyond
//! the last place is counted like any other and only has no place of its own.
//!
//! It also tells apart whose bytes may be no work: those of a question (a safe method) and of a refusal. A server's
//! front gives both by itself, so they count as work only if they took longer than [`ASIDE_MAX`].

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::durations::add;
use crate::engine::{Time, Traffic};
use crate::limits::{ASIDE_MAX, OUTCOMES_WORK_MEMORY};

/// Requests in flight of one worker whose silence is watched one by one.
pub(super) const FLIGHT_PLACES: usize = 2048;
/// Requests in the line of one worker whose wait is known one by one.
pub(super) const LINE_PLACES: usize = 256;
/// Places that are looked at for a free one.
const LOOKS: usize = 16;

/// One worker's requests in flight, and what became of those that were given up.
pub(super) struct Flights {
    places: Box<[Place]>,
    /// Where the next free place may be.
    next: AtomicUsize,
    /// Places that have ever been taken are below this.
    used: AtomicUsize,
    /// Tunnels among the requests in flight: their silence says nothing.
    tunnels: AtomicU64,
    abandoned: AtomicU64,
    abandoned_wait_ns: AtomicU64,
    /// How many requests were in flight when those began, all together.
    abandoned_sharing: AtomicU64,
    /// Until when those on routes with a patience of their own may keep the model server silent.
    lent_until_ns: AtomicU64,
    /// When the model server last sent something that was work, of requests without a place or ended; 0 if never.
    work_byte_ns: AtomicU64,
    /// When a request that asks for work last came; 0 if none did.
    work_came_ns: AtomicU64,
}

#[derive(Default)]
struct Place {
    /// When it began; 0 for a free place.
    begun: AtomicU64,
    /// When the model server last sent something for it.
    last: AtomicU64,
    /// How long its route lets the model server be silent; 0: as long as any.
    patience_ns: AtomicU64,
    /// It asks the model server for no work.
    asks: AtomicBool,
    /// Its answer is no good one.
    refused: AtomicBool,
}

/// A request's place, if it got one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight(Option<usize>);

/// A request in flight, as it is reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InFlight {
    pub begun: Time,
    /// When the model server last sent something for it; none if it has not.
    pub last_byte: Option<Time>,
}

/// All of a worker's at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overview {
    pub(super) oldest_begun: Option<Time>,
    pub(super) quietest_since: Option<Time>,
    /// The longest that a route allows.
    pub(super) patience: Duration,
    /// When the oldest of those that ask for work began.
    pub(super) work_begun: Option<Time>,
    /// When the model server last sent something that was work.
    pub(super) work_byte: Option<Time>,
    /// Requests that began before the time from which they are looked at.
    pub(super) earlier: u64,
}

impl Flights {
    /// `places`: so many requests have one each.
    pub(super) fn new(places: usize) -> Self {
        Self {
            places: (0..places).map(|_| Place::default()).collect(),
            next: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
            tunnels: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            abandoned_wait_ns: AtomicU64::new(0),
            abandoned_sharing: AtomicU64::new(0),
            lent_until_ns: AtomicU64::new(0),
            work_byte_ns: AtomicU64::new(0),
            work_came_ns: AtomicU64::new(0),
        }
    }

    pub(super) fn begin(&self, now: Time, patience: Duration) -> Flight {
        let places = self.places.len();
        let (start, used) = (self.next.load(Relaxed), self.used.load(Relaxed));
        let is_free = |at: &usize| self.places[*at].begun.load(Relaxed) == 0;
        let free = (start..start + LOOKS).map(|at| at % places).find(is_free);
        let Some(at) = free.or_else(|| (used..places).next()) else {
            self.next.store((start + LOOKS) % places, Relaxed);
            return Flight(None);
        };
        let place = &self.places[at];
        place.last.store(0, Relaxed);
        place.patience_ns.store(nanos(patience), Relaxed);
        place.asks.store(false, Relaxed);
        place.refused.store(false, Relaxed);
        place.begun.store(now.as_nanos().max(1), Relaxed);
        self.used.store(self.used.load(Relaxed).max(at + 1), Relaxed);
        // Low places are taken again first, so that few are looked at when sampled.
        self.next.store(if at + 1 < self.used.load(Relaxed) { at + 1 } else { 0 }, Relaxed);
        Flight(Some(at))
    }

    /// The model server sent something that counts.
    pub(super) fn moved(&self, flight: Flight, now: Time) {
        let place = flight.0.map(|at| &self.places[at]);
        if let Some(place) = place {
            place.last.store(now.as_nanos(), Relaxed);
        }
        if place.is_none_or(|place| !place.is_aside()) {
            self.worked(now);
        }
    }

    /// The model server did some work.
    pub(super) fn worked(&self, now: Time) {
        self.work_byte_ns.store(self.work_byte_ns.load(Relaxed).max(now.as_nanos()), Relaxed);
    }

    /// It is a question, by its method: the server's front may answer it alone.
    pub(super) fn asks(&self, flight: Flight) {
        if let Flight(Some(at)) = flight {
            self.places[at].asks.store(true, Relaxed);
        }
    }

    /// A request that is no question came.
    pub(super) fn work_comes(&self, now: Time) {
        self.work_came_ns.store(now.as_nanos(), Relaxed);
    }

    /// Whether one has come lately. Where none has, questions are the work.
    pub(super) fn works(&self, now: Time) -> bool {
        some_time(self.work_came_ns.load(Relaxed)).is_some_and(|came| now.since(came) < OUTCOMES_WORK_MEMORY)
    }

    /// Whether it is a question that has taken no longer by `now` than a front by itself may take.
    pub(super) fn is_short_question(&self, Flight(at): Flight, now: Time) -> bool {
        let place = at.map(|at| &self.places[at]).filter(|place| place.asks.load(Relaxed));
        let begun = place.and_then(Place::in_flight).map(|flight| flight.begun);
        begun.is_some_and(|begun| now.since(begun) < ASIDE_MAX)
    }

    /// Its answer is no good one.
    pub(super) fn refused(&self, flight: Flight) {
        if let Flight(Some(at)) = flight {
            self.places[at].refused.store(true, Relaxed);
        }
    }

    /// When the model server last sent something for it.
    pub(super) fn last(&self, Flight(at): Flight) -> Option<Time> {
        Some(self.places[at?].last.load(Relaxed)).filter(|last| *last > 0).map(Time::from_nanos)
    }

    /// The same for one that waits in line.
    pub(super) fn stand(&self, now: Time) -> Standing<'_> {
        Standing { line: self, flight: self.begin(now, Duration::ZERO) }
    }

    /// It ended at `now`.
    pub(super) fn end(&self, flight: Flight, now: Time) {
        if let Flight(Some(at)) = flight {
            self.places[at].long_work(now).into_iter().for_each(|at| self.worked(at));
            self.free(flight);
        }
    }

    fn free(&self, Flight(at): Flight) {
        at.into_iter().for_each(|at| self.places[at].begun.store(0, Relaxed));
    }

    /// It is a tunnel from now on, and has no place any more.
    pub(super) fn becomes_tunnel(&self, flight: &mut Flight) {
        self.free(*flight);
        *flight = Flight(None);
        add(&self.tunnels, 1);
    }

    pub(super) fn tunnel_ends(&self) {
        add(&self.tunnels, u64::MAX);
    }

    pub(super) fn tunnels(&self) -> u64 {
        self.tunnels.load(Relaxed)
    }

    /// Somebody gave up at `now` on an answer, after the model server had been silent on it since `quiet`, and
    /// `sharing` requests had been in flight when it began. `patience` is its route's.
    pub(super) fn abandon(&self, now: Time, quiet: Time, sharing: u32, patience: Duration) {
        add(&self.abandoned, 1);
        add(&self.abandoned_wait_ns, nanos(now.since(quiet)));
        add(&self.abandoned_sharing, sharing.into());
        if !patience.is_zero() {
            let until = (quiet + patience).as_nanos();
            self.lent_until_ns.store(self.lent_until_ns.load(Relaxed).max(until), Relaxed);
        }
    }

    /// Adds what was given up, ever.
    pub(super) fn add_abandoned(&self, to: &mut Traffic) {
        to.abandoned += self.abandoned.load(Relaxed);
        to.abandoned_wait += Duration::from_nanos(self.abandoned_wait_ns.load(Relaxed));
        to.abandoned_sharing += self.abandoned_sharing.load(Relaxed);
        let lent = Some(self.lent_until_ns.load(Relaxed)).filter(|until| *until > 0).map(Time::from_nanos);
        to.lent_until = to.lent_until.max(lent);
    }

    /// Of the requests that began at `since` or later.
    pub(super) fn overview(&self, now: Time, since: Time) -> Overview {
        let work_byte = Some(self.work_byte_ns.load(Relaxed)).filter(|at| *at > 0).map(Time::from_nanos);
        let mut all = Overview { work_byte, ..Overview::default() };
        for place in self.taken() {
            let Some(flight) = place.in_flight() else { continue };
            if flight.begun < since {
                all.earlier += 1;
                continue;
            }
            all.work_byte = all.work_byte.max(place.long_work(now));
            if !place.asks.load(Relaxed) {
                all.work_begun = Some(all.work_begun.map_or(flight.begun, |oldest| oldest.min(flight.begun)));
            }
            let quiet = flight.last_byte.unwrap_or(flight.begun);
            all.patience = all.patience.max(Duration::from_nanos(place.patience_ns.load(Relaxed)));
            all.oldest_begun = Some(all.oldest_begun.map_or(flight.begun, |oldest| oldest.min(flight.begun)));
            all.quietest_since = Some(all.quietest_since.map_or(quiet, |since| since.min(quiet)));
        }
        all
    }

    /// Every request that has a place.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = InFlight> {
        self.taken().filter_map(Place::in_flight)
    }

    fn taken(&self) -> impl Iterator<Item = &Place> {
        self.places[..self.used.load(Relaxed)].iter()
    }
}

/// A request that waits in line, for as long as this lives. Never leaves its worker.
pub(super) struct Standing<'a> {
    line: &'a Flights,
    flight: Flight,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.line.free(self.flight);
    }
}

impl Place {
    fn in_flight(&self) -> Option<InFlight> {
        let begun = Some(self.begun.load(Relaxed)).filter(|begun| *begun > 0)?;
        let last = Some(self.last.load(Relaxed)).filter(|last| *last > 0).map(Time::from_nanos);
        Some(InFlight { begun: Time::from_nanos(begun), last_byte: last })
    }

    fn is_aside(&self) -> bool {
        self.asks.load(Relaxed) || self.refused.load(Relaxed)
    }

    /// Its last byte, if it has been in flight for so long that it is work whatever it asks.
    fn long_work(&self, now: Time) -> Option<Time> {
        self.in_flight().filter(|flight| ASIDE_MAX <= now.since(flight.begun))?.last_byte
    }
}

/// None for 0, which stands for never.
pub(super) fn some_time(nanos: u64) -> Option<Time> {
    (nanos > 0).then(|| Time::from_nanos(nanos))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: usize = 2048;

    #[test]
    fn the_oldest_and_the_quietest_are_told_apart() {
        let flights = Flights::new(PLACES);
        let first = flights.begin(Time::from_secs(10), Duration::ZERO);
        let second = flights.begin(Time::from_secs(20), Duration::ZERO);
        flights.moved(first, Time::from_secs(30));
        let overview = flights.overview(Time::from_secs(40), Time::ZERO);
        assert_eq!(overview.oldest_begun, Some(Time::from_secs(10)));
        assert_eq!(overview.quietest_since, Some(Time::from_secs(20)));
        flights.end(first, Time::from_secs(40));
        assert_eq!(flights.overview(Time::from_secs(40), Time::ZERO).oldest_begun, Some(Time::from_secs(20)));
        flights.end(second, Time::from_secs(40));
        assert_eq!(flights.overview(Time::from_secs(40), Time::ZERO).oldest_begun, None);
    }

    #[test]
    fn what_began_before_the_time_from_which_it_is_judged_is_only_counted() {
        let flights = Flights::new(PLACES);
        flights.begin(Time::from_secs(10), Duration::from_secs(600));
        flights.begin(Time::from_secs(20), Duration::ZERO);
        let overview = flights.overview(Time::from_secs(40), Time::from_secs(15));
        assert_eq!((overview.earlier, overview.oldest_begun), (1, Some(Time::from_secs(20))));
        assert_eq!((overview.patience, overview.work_begun), (Duration::ZERO, Some(Time::from_secs(20))));
    }

    #[test]
    fn places_are_taken_again_and_more_requests_than_places_do_no_harm() {
        let flights = Flights::new(PLACES);
        for turn in 0..10_000 {
            let flight = flights.begin(Time::from_secs(turn + 1), Duration::ZERO);
            assert!(flight.0.is_some());
            flights.end(flight, Time::from_secs(40));
        }
        assert!(flights.used.load(Relaxed) <= 2);
        let all: Vec<Flight> = (0..PLACES * 2).map(|_| flights.begin(Time::from_secs(1), Duration::ZERO)).collect();
        assert!(all.iter().filter(|flight| flight.0.is_some()).count() > PLACES / 2);
        all.into_iter().for_each(|flight| flights.end(flight, Time::from_secs(40)));
        assert_eq!(flights.in_flight().count(), 0);
    }

    #[test]
    fn short_questions_and_refusals_are_no_work_and_long_ones_are() {
        let flights = Flights::new(PLACES);
        let at = |ms: u64| Time::from_secs(10) + Duration::from_millis(ms);
        let seen = |ms| {
            let all = flights.overview(at(ms), Time::ZERO);
            (all.work_begun, all.work_byte)
        };
        let question = flights.begin(at(0), Duration::ZERO);
        flights.asks(question);
        let refused = flights.begin(at(100), Duration::ZERO);
        flights.refused(refused);
        flights.moved(question, at(200));
        flights.moved(refused, at(300));
        assert_eq!(seen(400), (Some(at(100)), None), "work is asked for, and none is seen");
        flights.end(refused, at(400));
        assert_eq!(seen(999), (None, None));
        assert_eq!(seen(1000), (None, Some(at(200))), "it takes too long for a front alone");
        flights.end(question, at(1500));
        assert_eq!(seen(1500), (None, Some(at(200))));
        let work = flights.begin(at(1600), Duration::ZERO);
        flights.moved(work, at(1601));
        assert_eq!(seen(1602), (Some(at(1600)), Some(at(1601))));
        flights.end(work, at(1603));
        let next = flights.begin(at(1700), Duration::ZERO);
        assert_eq!(seen(1700).0, Some(at(1700)), "a place forgets what had it before");
        flights.end(next, at(1701));
        assert_eq!(seen(1800), (None, Some(at(1601))));
    }

    #[test]
    fn bytes_of_a_request_without_a_place_are_work() {
        let flights = Flights::new(1);
        let _first = flights.begin(Time::from_secs(1), Duration::ZERO);
        let second = flights.begin(Time::from_secs(2), Duration::ZERO);
        flights.asks(second);
        flights.moved(second, Time::from_secs(3));
        assert_eq!(flights.overview(Time::from_secs(3), Time::ZERO).work_byte, Some(Time::from_secs(3)));
    }
}
