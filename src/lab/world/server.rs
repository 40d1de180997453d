//! One model server process: loading, a bounded pool of workers, a queue, a cache, and how it fails.
//!
//! Requests cost no events: a first-come-first-served pool knows at arrival when each will end. Only those
//! that will not end well are planned, and a crash or a hang goes over what is still in flight.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::engine::Time;
use crate::lab::rng::Rng;
use crate::lab::scenario::{CacheSpec, ServerSpec, WhenFull};

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum End {
    Ok,
    /// A 200 with garbage in it.
    Wrong,
    /// A dependency that it needs did not answer.
    Dependency,
    /// Loading: 503.
    Loading,
    /// Nobody in rotation.
    NoEndpoint,
    /// The queue is full: 503.
    Overloaded,
    /// Nobody listens.
    Refused,
    /// The server died with the request in its hands.
    Reset,
    /// The client gave up.
    Timeout,
}

impl End {
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Wrong,
        Self::Dependency,
        Self::Loading,
        Self::NoEndpoint,
        Self::Overloaded,
        Self::Refused,
        Self::Reset,
        Self::Timeout,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Wrong => "wrong",
            Self::Dependency => "dependency",
            Self::Loading => "loading",
            Self::NoEndpoint => "no_endpoint",
            Self::Overloaded => "overloaded",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
        }
    }
}

/// A request under way: the client's first attempt, and which attempt this is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Request {
    pub(super) sent: Time,
    pub(super) attempt: u32,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Flight {
    ends: Time,
    end: End,
    request: Request,
    deadline: Time,
}

/// What the dependencies do to one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) takes: Duration,
    pub(super) is_answered: bool,
}

/// The process of one pod's server.
#[derive(Debug)]
pub(super) struct Server {
    spec: ServerSpec,
    pub(super) life: Life,
    /// When each busy worker is free.
    workers: BinaryHeap<Reverse<Time>>,
    /// When each waiting request is taken up, first to last.
    waiting: VecDeque<Time>,
    flights: BinaryHeap<Reverse<Flight>>,
    pub(super) is_hung: bool,
    pub(super) is_garbage: bool,
    /// Slowed down so many times, in thousandths.
    pub(super) slowness: u32,
    cached: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Life {
    Gone,
    /// Since when it runs; it loads once its dependency is there.
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

impl Server {
    pub(super) fn new(spec: &ServerSpec) -> Self {
        Self {
            spec: spec.clone(),
            life: Life::Gone,
            workers: BinaryHeap::with_capacity(spec.concurrency),
            waiting: VecDeque::new(),
            flights: BinaryHeap::new(),
            is_hung: false,
            is_garbage: false,
            slowness: 1000,
            cached: 0,
        }
    }

    /// A new process: nothing of the old one is left but the world around it.
    pub(super) fn start(&mut self) {
        self.life = Life::Loading;
        self.is_hung = false;
        self.cached = 0;
        self.workers.clear();
        self.waiting.clear();
    }

    pub(super) fn arrive(
        &mut self,
        now: Time,
        request: Request,
        timeout: Duration,
        asked: Asked,
        rng: &mut Rng,
    ) -> Arrival {
        match self.life {
            Life::Gone => return Arrival::Rejected(End::Refused),
            Life::Loading if !self.is_hung => return Arrival::Rejected(End::Loading),
            Life::Loading | Life::Serving => {}
        }
        let deadline = now + timeout;
        if self.is_hung {
            // The kernel still takes the connection.
            self.flights.push(Reverse(Flight { ends: deadline, end: End::Timeout, request, deadline }));
            return Arrival::Taken { look_again: Some(deadline) };
        }
        let Some(starts) = self.take_worker(now) else { return Arrival::Rejected(End::Overloaded) };
        let work = self.service_time(rng);
        let done = starts + work + asked.takes;
        self.workers.push(Reverse(done));
        self.fill_cache();
        let end = match (done > deadline, asked.is_answered, self.is_garbage) {
            (true, _, _) => End::Timeout,
            (false, false, _) => End::Dependency,
            (false, true, true) => End::Wrong,
            (false, true, false) => End::Ok,
        };
        let ends = done.min(deadline);
        self.flights.push(Reverse(Flight { ends, end, request, deadline }));
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
        self.workers.pop();
        Some(free.max(now))
    }

    fn service_time(&self, rng: &mut Rng) -> Duration {
        rng.exponential(self.spec.service_time) * self.slowness / 1000
    }

    /// How long a request that arrives now would wait for a worker; `None`: for ever.
    pub(super) fn wait(&self, now: Time) -> Option<Duration> {
        if self.is_hung {
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

    /// The cache has grown a tenth past its limit: the kernel kills the process.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.spec.cache.is_some_and(|cache| {
            cache.when_full == WhenFull::Oom
                && self.cached > cache.limit_bytes.saturating_add(cache.limit_bytes / 10)
                && self.life != Life::Gone
        })
    }

    /// Everything that has ended by `now`, in the order of its end.
    pub(super) fn ended(&mut self, now: Time) -> Option<(Time, End, Request)> {
        let Reverse(first) = self.flights.peek()?;
        if first.ends > now {
            return None;
        }
        self.flights.pop().map(|Reverse(flight)| (flight.ends, flight.end, flight.request))
    }

    /// The process stands still: whoever is in flight waits for as long as the client does. Call
    /// [`Server::ended`] to its end first; returns when to look again.
    pub(super) fn hang(&mut self) -> Vec<Time> {
        self.is_hung = true;
        let flights = std::mem::take(&mut self.flights);
        let stuck = flights
            .into_iter()
            .map(|Reverse(flight)| Reverse(Flight { ends: flight.deadline, end: End::Timeout, ..flight }));
        self.flights = stuck.collect();
        self.flights.iter().map(|Reverse(flight)| flight.ends).collect()
    }

    /// The process is gone. Call [`Server::ended`] to its end first; everything in flight ends now.
    pub(super) fn die(&mut self, now: Time) {
        self.life = Life::Gone;
        let flights = std::mem::take(&mut self.flights);
        let lost = flights.into_iter().map(|Reverse(flight)| Reverse(Flight { ends: now, end: End::Reset, ..flight }));
        self.flights = lost.collect();
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
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
            cache: Some(CacheSpec { limit_bytes: 100, per_request_bytes: 10, when_full: WhenFull::Oom }),
        });
        server.start();
        server.life = Life::Serving;
        server
    }

    const NOTHING: Asked = Asked { takes: Duration::ZERO, is_answered: true };

    fn arrive(server: &mut Server, now: Time) -> Arrival {
        let request = Request { sent: now, attempt: 0 };
        server.arrive(now, request, Duration::from_secs(1), NOTHING, &mut Rng::new(1))
    }

    fn ends(server: &mut Server, until: Time) -> Vec<End> {
        std::iter::from_fn(|| server.ended(until)).map(|(_, end, _)| end).collect()
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
        assert_eq!(server.hang().len(), 1);
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
        server.start();
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
        server.start();
        assert!(!server.is_cache_full(), "a new process has an empty cache");
    }
}
