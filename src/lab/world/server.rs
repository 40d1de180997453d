//! One model server process: loading, a bounded pool of workers, a queue, a cache, and how it fails.
//!
//! Requests cost no events: a first-come-first-served pool knows at arrival when each will end. Only those
//! that will not end well are planned, and a crash or a hang goes over what is still in flight.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::ends::End;
use crate::engine::Time;
use crate::lab::rng::Rng;
use crate::lab::scenario::{CacheSpec, ServerSpec, WhenFull};

/// A request under way: the client's first attempt, which attempt this is, and how it travels.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Request {
    pub(super) sent: Time,
    pub(super) attempt: u16,
    /// The client's connection, if it keeps one.
    pub(super) connection: Option<u32>,
    /// Its answer comes in pieces, over a long time.
    pub(super) is_stream: bool,
    /// It decides the sidecar's way back.
    pub(super) is_trial: bool,
    /// All its attempts have the same.
    pub(super) number: u32,
}

/// A request in the server's hands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Flight {
    pub(super) ends: Time,
    pub(super) end: End,
    pub(super) request: Request,
    /// When it reached the server.
    pub(super) begun: Time,
    /// When a worker takes it up.
    starts: Time,
    /// Until when somebody waits: for all of the answer, or for the first byte of a stream.
    pub(super) deadline: Time,
    /// The first byte of a stream, and the time between two.
    stream: Option<(Time, Duration)>,
    /// Requests that the server had at its arrival as the sidecar knows, itself among them.
    pub(super) sharing: u32,
}

/// What a request asks of the server and of others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// What the dependencies take.
    pub(super) takes: Duration,
    pub(super) is_answered: bool,
    /// Until when somebody waits.
    pub(super) deadline: Time,
    /// How long the answer streams, and the time between two pieces.
    pub(super) stream: Option<(Duration, Duration)>,
    /// Requests that nobody waits for any more, and that the server may still be at.
    pub(super) left_over: u64,
}

/// The process of one pod's server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) spec: ServerSpec,
    pub(super) life: Life,
    /// Which process this is, from 1.
    pub(super) starts: u32,
    pub(super) started_at: Time,
    /// When the process before this one ended.
    pub(super) ended_at: Option<Time>,
    /// When each busy worker is free.
    workers: BinaryHeap<Reverse<Time>>,
    /// When each waiting request is taken up, first to last.
    waiting: VecDeque<Time>,
    flights: BinaryHeap<Reverse<Flight>>,
    /// Since when it stands still.
    hung: Option<Time>,
    /// SIGTERM has come: it takes nothing new.
    is_stopping: bool,
    pub(super) is_garbage: bool,
    /// Slowed down so many times, in thousandths.
    pub(super) slowness: u32,
    /// Its memory is full after so long, while it leaks.
    pub(super) leak: Option<Duration>,
    pub(super) is_counter_frozen: bool,
    pub(super) is_page_lost: bool,
    cached: u64,
    /// Requests that it has done, as its metrics page says.
    done: u64,
    /// What a frozen counter shows.
    shown: u64,
    cpu: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Life {
    Gone,
    /// It runs; it loads once its dependency is there.
    Loading,
    Serving,
}

/// What became of a request that has just arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Arrival {
    /// Answered at once, and not well.
    Rejected(End),
    /// Taken; nothing to do unless it ends badly: then look again at that time.
    Taken { look_again: Option<Time> },
}

/// What is in flight at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Overview {
    pub(super) in_flight: u64,
    pub(super) oldest_begun: Option<Time>,
    pub(super) quietest_since: Option<Time>,
    pub(super) last_byte: Option<Time>,
}

impl Flight {
    /// The last byte of a stream by now, from a server that goes on until `until`.
    fn last_byte(&self, until: Time) -> Option<Time> {
        let (first, gap) = self.stream?;
        if until < first {
            return None;
        }
        let gap = u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX).max(1);
        let pieces = until.since(first).as_nanos() as u64 / gap;
        Some(Time::from_nanos(first.as_nanos().saturating_add(pieces.saturating_mul(gap))))
    }

    /// How long its client has waited in silence: for all of the answer, or for the first byte of a stream.
    pub(super) fn silent(&self) -> Duration {
        self.stream.map_or(self.ends, |(first, _)| first.min(self.ends)).since(self.begun)
    }

    /// CPU time that a server which goes on until `until` spends on it.
    fn worked(&self, until: Time) -> Duration {
        until.min(self.ends).since(self.starts)
    }
}

impl Server {
    pub(super) fn new(spec: &ServerSpec) -> Self {
        Self {
            spec: spec.clone(),
            life: Life::Gone,
            starts: 0,
            started_at: Time::ZERO,
            ended_at: None,
            workers: BinaryHeap::new(),
            waiting: VecDeque::new(),
            flights: BinaryHeap::new(),
            hung: None,
            is_stopping: false,
            is_garbage: false,
            slowness: 1000,
            leak: None,
            is_counter_frozen: false,
            is_page_lost: false,
            cached: 0,
            done: 0,
            shown: 0,
            cpu: Duration::ZERO,
        }
    }

    /// A new process: nothing of the old one is left but the world around it.
    pub(super) fn start(&mut self, now: Time) {
        self.life = Life::Loading;
        self.starts += 1;
        self.started_at = now;
        self.hung = None;
        self.is_stopping = false;
        self.cached = 0;
        self.done = 0;
        self.shown = 0;
        self.cpu = Duration::ZERO;
        self.workers.clear();
        self.waiting.clear();
    }

    pub(super) const fn is_hung(&self) -> bool {
        self.hung.is_some()
    }

    /// Nobody accepts: no process, or one that has closed its listener.
    pub(super) fn refuses(&self) -> bool {
        self.life == Life::Gone || self.is_stopping && !self.is_hung()
    }

    pub(super) fn arrive(&mut self, now: Time, request: Request, asked: Asked, rng: &mut Rng) -> Arrival {
        if self.refuses() {
            return Arrival::Rejected(End::Refused);
        }
        let deadline = asked.deadline;
        let sharing = u32::try_from(self.flights.len() as u64 + 1 + asked.left_over).unwrap_or(u32::MAX);
        let flight = Flight {
            ends: deadline,
            end: End::Timeout,
            request,
            begun: now,
            starts: deadline,
            deadline,
            stream: None,
            sharing,
        };
        if self.is_hung() {
            // The kernel still takes the connection.
            self.flights.push(Reverse(flight));
            return Arrival::Taken { look_again: Some(deadline) };
        }
        if self.life == Life::Loading {
            return Arrival::Rejected(End::Loading);
        }
        let Some(starts) = self.take_worker(now) else { return Arrival::Rejected(End::Overloaded) };
        let first = starts + self.service_time(rng) + asked.takes;
        let done = asked.stream.map_or(first, |(lasts, _)| first + lasts);
        self.occupy(done);
        self.fill_cache();
        let is_late = first > deadline;
        let end = match (is_late, asked.is_answered, self.is_garbage || self.spec.is_garbage) {
            (true, _, _) => End::Timeout,
            (false, false, _) => End::Dependency,
            (false, true, true) => End::Wrong,
            (false, true, false) => End::Ok,
        };
        let ends = if is_late { deadline } else { done };
        let stream = asked.stream.map(|(_, gap)| (first, gap));
        self.flights.push(Reverse(Flight { ends, end, starts, stream, ..flight }));
        let is_bad = matches!(end, End::Timeout | End::Dependency);
        Arrival::Taken { look_again: is_bad.then_some(ends) }
    }

    /// When the request would be taken up; `None` if the queue is full.
    fn take_worker(&mut self, now: Time) -> Option<Time> {
        while self.waiting.front().is_some_and(|starts| *starts <= now) {
            self.waiting.pop_front();
        }
        if self.workers.len() < self.spec.concurrency {
            return Some(now);
        }
        let free = self.workers.peek()?.0;
        if free > now {
            if self.waiting.len() >= self.spec.queue {
                return None;
            }
            self.waiting.push_back(free);
        }
        Some(free.max(now))
    }

    /// The worker that is free first, or a new one, has work until then.
    fn occupy(&mut self, done: Time) {
        if self.workers.len() < self.spec.concurrency {
            self.workers.push(Reverse(done));
        } else if let Some(mut first) = self.workers.peek_mut() {
            *first = Reverse(done);
        }
    }

    fn service_time(&self, rng: &mut Rng) -> Duration {
        rng.exponential(self.spec.service_time) * self.slowness / 1000
    }

    /// How long a request that arrives now would wait for a worker; `None`: for ever.
    pub(super) fn wait(&self, now: Time) -> Option<Duration> {
        if self.is_hung() {
            return None;
        }
        if self.workers.len() < self.spec.concurrency {
            return Some(Duration::ZERO);
        }
        Some(self.workers.peek().map_or(Duration::ZERO, |free| free.0.since(now)))
    }

    fn fill_cache(&mut self) {
        if let Some(CacheSpec { limit_bytes, per_request_bytes, when_full }) = self.spec.cache {
            self.cached = self.cached.saturating_add(per_request_bytes);
            if when_full == WhenFull::Evict {
                self.cached = self.cached.min(limit_bytes);
            }
        }
    }

    /// Nine tenths of the cache's limit are used.
    pub(super) fn is_cache_full(&self) -> bool {
        self.spec.cache.is_some_and(|cache| self.cached >= cache.limit_bytes / 10 * 9)
    }

    /// Nine tenths of its memory have leaked away.
    pub(super) fn is_memory_full(&self, now: Time) -> bool {
        self.leak.is_some_and(|full| now.since(self.started_at) >= full / 10 * 9)
    }

    /// The cache has grown a tenth past its limit: the kernel kills the process.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.spec.cache.is_some_and(|cache| {
            cache.when_full == WhenFull::Oom
                && self.cached > cache.limit_bytes.saturating_add(cache.limit_bytes / 10)
                && self.life != Life::Gone
        })
    }

    /// The first that has ended by `now`, in the order of the ends.
    pub(super) fn ended(&mut self, now: Time) -> Option<Flight> {
        let Reverse(first) = self.flights.peek()?;
        if first.ends > now {
            return None;
        }
        let Reverse(flight) = self.flights.pop()?;
        self.cpu += flight.worked(self.hung.unwrap_or(flight.ends));
        // What its client gave up on the server finishes nevertheless.
        self.done += u64::from(!self.is_hung() && self.life != Life::Gone);
        Some(flight)
    }

    /// When the next one ends.
    pub(super) fn next_end(&self) -> Option<Time> {
        self.flights.peek().map(|Reverse(flight)| flight.ends)
    }

    /// The process stands still: whoever is in flight waits for as long as the client does. Call
    /// [`Server::ended`] to its end first; returns when to look again.
    pub(super) fn hang(&mut self, now: Time) -> Vec<Time> {
        if self.is_hung() || self.life == Life::Gone {
            return Vec::new();
        }
        self.hung = Some(now);
        let flights = std::mem::take(&mut self.flights);
        let stuck = flights.into_iter().map(|Reverse(flight)| {
            let patience = flight.deadline.since(flight.begun);
            Reverse(match flight.last_byte(now) {
                Some(last) => Flight { ends: (last + patience).max(now), end: End::Cut, ..flight },
                None => Flight { ends: flight.deadline.max(now), end: End::Timeout, ..flight },
            })
        });
        self.flights = stuck.collect();
        self.flights.iter().map(|Reverse(flight)| flight.ends).collect()
    }

    /// The process is gone. Call [`Server::ended`] to its end first; everything in flight ends now.
    pub(super) fn die(&mut self, now: Time) {
        self.life = Life::Gone;
        self.ended_at = Some(now);
        self.hung = None;
        self.lose_all(now);
    }

    /// Every connection to it is gone.
    pub(super) fn lose_all(&mut self, now: Time) {
        let flights = std::mem::take(&mut self.flights);
        let lost = flights.into_iter().map(|Reverse(flight)| {
            let end = if flight.last_byte(now).is_some() { End::Cut } else { End::Reset };
            Reverse(Flight { ends: now, end, ..flight })
        });
        self.flights = lost.collect();
    }

    /// Every connection to it has fallen silent: what is in flight is taken away, streams that had begun as cut.
    pub(super) fn lose_unanswered(&mut self, now: Time) -> Vec<Flight> {
        self.lose_all(now);
        let mut lost: Vec<Flight> =
            std::mem::take(&mut self.flights).into_iter().map(|Reverse(flight)| flight).collect();
        lost.sort_unstable();
        lost
    }

    /// SIGTERM. Returns how long it takes to end, if it hears the signal at all: one that finishes what it has
    /// takes until the last answer, another `at_once`.
    pub(super) fn stop(&mut self, now: Time, at_once: Duration) -> Option<Duration> {
        if self.is_hung() {
            return None;
        }
        if !self.spec.finishes {
            return Some(at_once);
        }
        self.is_stopping = true;
        let last = self.flights.iter().map(|Reverse(flight)| flight.ends).max().unwrap_or(now);
        Some(last.since(now).max(at_once))
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// What is in flight. Call [`Server::ended`] to its end first.
    pub(super) fn overview(&self, now: Time) -> Overview {
        let until = self.hung.unwrap_or(now);
        let mut all = Overview { in_flight: self.flights.len() as u64, ..Overview::default() };
        for Reverse(flight) in &self.flights {
            let last = flight.last_byte(until);
            let quiet = last.unwrap_or(flight.begun);
            all.oldest_begun = Some(all.oldest_begun.map_or(flight.begun, |oldest| oldest.min(flight.begun)));
            all.quietest_since = Some(all.quietest_since.map_or(quiet, |since| since.min(quiet)));
            all.last_byte = all.last_byte.max(last);
        }
        all
    }

    /// What its metrics page says it has done. Call [`Server::ended`] to its end first.
    pub(super) const fn counter(&mut self) -> u64 {
        if !self.is_counter_frozen {
            self.shown = self.done;
        }
        self.shown
    }

    pub(super) fn cpu(&self, now: Time) -> Duration {
        let until = self.hung.unwrap_or(now);
        self.cpu + self.flights.iter().map(|Reverse(flight)| flight.worked(until)).sum::<Duration>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(concurrency: usize, queue: usize) -> Server {
        let mut server = Server::new(&ServerSpec {
            load: Duration::from_secs(1),
            loads_from: None,
            concurrency,
            queue,
            service_time: Duration::from_millis(10),
            uses: Vec::new(),
            finishes: false,
            page_hangs: false,
            front_answers: false,
            is_garbage: false,
            never_ready: false,
            crash_after: None,
            cache: Some(CacheSpec { limit_bytes: 100, per_request_bytes: 10, when_full: WhenFull::Oom }),
        });
        server.start(Time::ZERO);
        server.life = Life::Serving;
        server
    }

    fn arrive(server: &mut Server, now: Time) -> Arrival {
        arrive_with(server, now, None)
    }

    fn arrive_with(server: &mut Server, now: Time, stream: Option<(Duration, Duration)>) -> Arrival {
        server.arrive(now, request(now, stream.is_some()), asked(now, stream), &mut Rng::new(1))
    }

    const fn request(now: Time, is_stream: bool) -> Request {
        Request { sent: now, attempt: 0, connection: None, is_stream, is_trial: false, number: 0 }
    }

    fn asked(now: Time, stream: Option<(Duration, Duration)>) -> Asked {
        let deadline = now + Duration::from_secs(1);
        Asked { takes: Duration::ZERO, is_answered: true, deadline, stream, left_over: 0 }
    }

    fn ends(server: &mut Server, until: Time) -> Vec<End> {
        std::iter::from_fn(|| server.ended(until)).map(|flight| flight.end).collect()
    }

    #[test]
    fn what_nobody_waits_for_any_more_shares_the_server_too() {
        let mut server = server(2, 3);
        let now = Time::from_secs(1);
        let asked = Asked { left_over: 3, ..asked(now, None) };
        server.arrive(now, request(now, false), asked, &mut Rng::new(1));
        arrive(&mut server, now);
        let sharing: Vec<u32> = std::iter::from_fn(|| server.ended(Time::from_secs(9))).map(|f| f.sharing).collect();
        assert_eq!(sharing.iter().max(), Some(&4));
        assert_eq!(sharing.iter().min(), Some(&2));
    }

    #[test]
    fn a_full_queue_sheds_and_everything_taken_ends_once() {
        let mut server = server(2, 3);
        let now = Time::from_secs(1);
        let taken = (0..7).filter(|_| matches!(arrive(&mut server, now), Arrival::Taken { .. })).count();
        assert_eq!(taken, 5, "two in work, three waiting");
        assert_eq!(ends(&mut server, Time::from_secs(9)), [End::Ok; 5]);
        assert_eq!(server.in_flight(), 0);
    }

    #[test]
    fn a_hang_turns_what_is_in_flight_into_timeouts_and_still_takes_connections() {
        let mut server = server(2, 3);
        let now = Time::from_secs(1);
        arrive(&mut server, now);
        assert_eq!(server.hang(now).len(), 1);
        assert_eq!(arrive(&mut server, now), Arrival::Taken { look_again: Some(Time::from_secs(2)) });
        assert_eq!(ends(&mut server, Time::from_millis(1999)), []);
        assert_eq!(ends(&mut server, Time::from_secs(2)), [End::Timeout; 2]);
        assert_eq!(server.wait(now), None);
    }

    #[test]
    fn a_death_resets_what_is_in_flight_and_refuses_the_rest() {
        let mut server = server(2, 3);
        let now = Time::from_secs(1);
        arrive(&mut server, now);
        server.die(now);
        assert_eq!(ends(&mut server, now), [End::Reset]);
        assert_eq!(arrive(&mut server, now), Arrival::Rejected(End::Refused));
        server.start(Time::ZERO);
        assert_eq!(arrive(&mut server, now), Arrival::Rejected(End::Loading));
    }

    #[test]
    fn a_cache_that_does_not_evict_ends_in_the_kernels_hands() {
        let mut server = server(50, 0);
        for _ in 0..11 {
            arrive(&mut server, Time::from_secs(1));
        }
        assert!(server.is_cache_full() && !server.is_out_of_memory());
        arrive(&mut server, Time::from_secs(1));
        assert!(server.is_out_of_memory());
        server.start(Time::ZERO);
        assert!(!server.is_cache_full(), "a new process has an empty cache");
    }

    #[test]
    fn a_stream_that_has_begun_is_cut_and_its_last_byte_is_known() {
        let mut server = server(4, 3);
        let (now, gap) = (Time::from_secs(10), Duration::from_millis(500));
        arrive_with(&mut server, now, Some((Duration::from_secs(60), gap)));
        arrive(&mut server, now);
        let later = Time::from_secs(15);
        assert_eq!(ends(&mut server, later), [End::Ok], "the short one");
        let seen = server.overview(later);
        assert_eq!((seen.in_flight, seen.oldest_begun), (1, Some(now)));
        assert!(seen.last_byte.is_some_and(|last| later.since(last) <= gap), "{seen:?}");
        server.hang(later);
        let last = server.overview(Time::from_secs(100)).last_byte;
        assert_eq!(last, seen.last_byte, "nothing comes from a server that stands still");
        assert_eq!(ends(&mut server, later + Duration::from_secs(1)), [End::Cut]);
    }

    #[test]
    fn a_counter_moves_with_the_work_and_stands_still_in_a_hang() {
        let mut server = server(4, 3);
        arrive(&mut server, Time::from_secs(1));
        ends(&mut server, Time::from_secs(2));
        let (before, used) = (server.counter(), server.cpu(Time::from_secs(2)));
        assert_eq!(before, 1);
        assert!(used > Duration::ZERO);
        arrive(&mut server, Time::from_secs(3));
        server.hang(Time::from_secs(3));
        ends(&mut server, Time::from_secs(9));
        assert_eq!((server.counter(), server.cpu(Time::from_secs(9))), (before, used));
    }

    #[test]
    fn one_that_finishes_what_it_has_ends_with_its_last_answer_and_takes_nothing_new() {
        let mut server = server(4, 3);
        server.spec.finishes = true;
        let (now, quick) = (Time::from_secs(1), Duration::from_millis(200));
        arrive_with(&mut server, now, Some((Duration::from_secs(20), Duration::from_secs(1))));
        let takes = server.stop(now, quick).unwrap();
        assert!(takes >= Duration::from_secs(20), "{takes:?}");
        assert_eq!(arrive(&mut server, now), Arrival::Rejected(End::Refused));
        server.hang(now);
        assert_eq!(server.stop(now, quick), None, "a process that stands still hears no signal");
    }
}
