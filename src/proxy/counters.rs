//! What the traffic plane counts: per worker, each number written by one thread only, summed when asked.
//!
//! Nothing here decides. The engine's driver samples the sums, the watchdog the beats, Prometheus all of it.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::durations::{BUCKETS_MS, Buckets, Ring, add};
use super::flights::{FLIGHT_PLACES, Flight, Flights, InFlight, LINE_PLACES, Standing, some_time};
use super::origins::{Origin, Tallied};
use super::refusal::Reason;
use super::tally::Verdict;
use crate::clock::Clock;
use crate::engine::{Origins, Time, Traffic};

/// Statuses from 100 on have a place of their own.
const CODES: usize = 500;

/// The label of answers that are the model server's own.
const FORWARDED: &str = "upstream";

/// Every worker's counters, and what they share.
pub struct Counters {
    workers: Box<[WorkerCounters]>,
    /// Client connections over all workers.
    pub(super) connections: AtomicUsize,
    /// Requests that nobody waits for and that the model server may still be at, as the engine knows it.
    left_over: AtomicU64,
    /// Requests that began before are not judged by.
    judged_since_ns: AtomicU64,
    clock: Clock,
}

/// One worker's numbers. Aligned to two cache lines, so that no worker's writes slow another's.
#[repr(align(128))]
pub(super) struct WorkerCounters {
    beats: AtomicU64,
    in_flight: AtomicU64,
    queued: AtomicU64,
    /// Those that wait for a place, and since when.
    line: Flights,
    held: AtomicU64,
    progress: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    forwarded: [AtomicU64; CODES],
    answered: [AtomicU64; CODES],
    refused: [AtomicU64; Reason::ALL.len()],
    duration: Buckets,
    first_byte: Buckets,
    latency: Ring,
    /// The silent part of an answer's time over the requests that shared the server with it.
    pace: Ring,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// When the loop last turned its timer.
    beat_at: AtomicU64,
    flights: Flights,
    origins: Tallied,
    /// TLS handshakes that failed, and that did not.
    handshakes: [AtomicU64; 2],
    /// Lines of the access log that were dropped, and that were not.
    access_lines: [AtomicU64; 2],
}

impl Counters {
    pub(super) fn new(workers: usize, clock: Clock) -> Self {
        Self {
            workers: (0..workers).map(|_| WorkerCounters::new()).collect(),
            connections: AtomicUsize::new(0),
            left_over: AtomicU64::new(0),
            judged_since_ns: AtomicU64::new(0),
            clock,
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn worker(&self, index: usize) -> &WorkerCounters {
        &self.workers[index]
    }

    /// How often a worker's loop has turned its timer, about four times a second; 0 for a worker that is not.
    pub fn beats(&self, worker: usize) -> u64 {
        self.workers.get(worker).map_or(0, |w| w.beats.load(Relaxed))
    }

    /// Requests whose last byte is still to come, over all workers.
    pub fn in_flight(&self) -> u64 {
        self.sum(|w| w.in_flight.load(Relaxed))
    }

    /// Requests that wait for a place, over all workers.
    pub fn queued(&self) -> u64 {
        self.sum(|w| w.queued.load(Relaxed))
    }

    /// Requests that wait for the model server to start or to come back, over all workers.
    pub fn held(&self) -> u64 {
        self.sum(|w| w.held.load(Relaxed))
    }

    /// Client connections that are open, over all workers.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed) as u64
    }

    /// When the model server last sent anything, over all workers; `Time::ZERO` if it never did.
    pub fn last_progress(&self) -> Time {
        Time::from_nanos(self.workers.iter().map(|w| w.progress.load(Relaxed)).max().unwrap_or(0))
    }

    /// Body bytes taken from clients and given to them.
    pub fn bytes(&self) -> (u64, u64) {
        (self.sum(|w| w.bytes_in.load(Relaxed)), self.sum(|w| w.bytes_out.load(Relaxed)))
    }

    /// How often a request ended for this reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.sum(|w| w.refused[reason as usize].load(Relaxed))
    }

    /// Requests that the model server answered with this status and that ended whole.
    pub fn forwarded(&self, code: u16) -> u64 {
        slot(code).map_or(0, |slot| self.sum(|w| w.forwarded[slot].load(Relaxed)))
    }

    /// Mean time to the last byte over the last minute, in milliseconds; `None` without an answer in it.
    pub fn latency_ms(&self) -> Option<f64> {
        let now = self.clock.now();
        let (sum, count) = self.workers.iter().map(|w| w.latency.sum(now)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        (count > 0).then(|| sum as f64 / 1e6 / count as f64)
    }

    /// So many that nobody waits for share the model server with those that begin from now on.
    pub fn left_over(&self, count: u64) {
        self.left_over.store(count, Relaxed);
    }

    /// An upstream address has left the configuration: what is in flight may wait for a server that is judged no more,
    /// and its silence says nothing of those that stay.
    pub fn upstream_left(&self) {
        self.judged_since_ns.store(self.clock.now().as_nanos(), Relaxed);
    }

    /// Requests that one that begins now shares the model server with, itself among them if it is counted already.
    pub(super) fn shared_by(&self) -> u32 {
        u32::try_from(self.in_flight() + self.left_over.load(Relaxed)).unwrap_or(u32::MAX)
    }

    /// Whether an answer, whole at `now`, tells how the model server works: beside work a short question's does not.
    pub(super) fn tells(&self, worker: usize, flight: Flight, now: Time) -> bool {
        !self.worker(worker).flights.is_short_question(flight, now)
            || !self.workers.iter().any(|w| w.flights.works(now))
    }

    /// What the engine judges by, now.
    pub fn traffic(&self) -> Traffic {
        let (now, since) = (self.clock.now(), Time::from_nanos(self.judged_since_ns.load(Relaxed)));
        let mut all = Traffic::default();
        let earlier = |a: Option<Time>, b: Option<Time>| a.into_iter().chain(b).min();
        for worker in &self.workers {
            let overview = worker.flights.overview(now, since);
            worker.flights.add_abandoned(&mut all);
            all.pace = all.pace.max(worker.pace.largest(now));
            all.patience = all.patience.max(overview.patience);
            all.queue_since = earlier(all.queue_since, worker.line.overview(now, Time::ZERO).oldest_begun);
            let aside = worker.flights.tunnels() + overview.earlier;
            all.in_flight += worker.in_flight.load(Relaxed).saturating_sub(aside);
            all.oldest_begun = earlier(all.oldest_begun, overview.oldest_begun);
            all.quietest_since = earlier(all.quietest_since, overview.quietest_since);
            all.work_begun = earlier(all.work_begun, overview.work_begun);
            all.work_byte = all.work_byte.max(overview.work_byte);
            all.succeeded += worker.succeeded.load(Relaxed);
            all.failed += worker.failed.load(Relaxed);
            all.last_beat = earlier(all.last_beat, some_time(worker.beat_at.load(Relaxed)));
        }
        all.queued = self.queued();
        all.shed = Reason::ALL.into_iter().filter(|reason| reason.full()).map(|reason| self.refused(reason)).sum();
        all.last_byte = some_time(self.last_progress().as_nanos());
        all
    }

    /// How requests ended by their origin, over all workers.
    pub fn origins(&self) -> Origins {
        let mut all = Origins::default();
        self.workers.iter().for_each(|worker| worker.origins.add_to(&mut all));
        all
    }

    /// Every request in flight that has a place of its own, oldest first.
    pub fn flights(&self) -> Vec<InFlight> {
        let mut all: Vec<InFlight> = self.workers.iter().flat_map(|worker| worker.flights.in_flight()).collect();
        all.sort_by_key(|flight| flight.begun);
        all
    }

    fn sum(&self, of: impl Fn(&WorkerCounters) -> u64) -> u64 {
        self.workers.iter().map(of).fold(0, u64::wrapping_add)
    }
}

impl WorkerCounters {
    fn new() -> Self {
        Self {
            beats: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            line: Flights::new(LINE_PLACES),
            held: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            forwarded: [const { AtomicU64::new(0) }; CODES],
            answered: [const { AtomicU64::new(0) }; CODES],
            refused: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            duration: Buckets::new(),
            first_byte: Buckets::new(),
            latency: Ring::new(),
            pace: Ring::new(),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            beat_at: AtomicU64::new(0),
            flights: Flights::new(FLIGHT_PLACES),
            origins: Tallied::default(),
            handshakes: Default::default(),
            access_lines: Default::default(),
        }
    }

    pub(super) fn beat(&self, now: Time) {
        add(&self.beats, 1);
        self.beat_at.store(now.as_nanos(), Relaxed);
    }

    /// `patience`: how long the request's route lets the model server be silent, if it says.
    pub(super) fn begin(&self, now: Time, patience: Duration) -> Flight {
        add(&self.in_flight, 1);
        self.flights.begin(now, patience)
    }

    /// It ended at `now`.
    pub(super) fn end(&self, flight: Flight, now: Time) {
        add(&self.in_flight, u64::MAX);
        self.flights.end(flight, now);
    }

    pub(super) const fn flights(&self) -> &Flights {
        &self.flights
    }

    /// Counts a request as queued, since `now` and until the answer is dropped.
    pub(super) fn queue(&self, now: Time) -> (Counted<'_>, Standing<'_>) {
        (Counted::new(&self.queued), self.line.stand(now))
    }

    /// Counts a request as held until the answer is dropped.
    pub(super) fn hold(&self) -> Counted<'_> {
        Counted::new(&self.held)
    }

    /// How many are held now.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// The model server sent something.
    pub(super) fn progress(&self, now: Time) {
        self.progress.store(now.as_nanos(), Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        add(&self.bytes_in, bytes as u64);
    }

    pub(super) fn sent(&self, bytes: usize) {
        add(&self.bytes_out, bytes as u64);
    }

    /// A TLS handshake ended.
    pub(super) fn shook_hands(&self, well: bool) {
        add(&self.handshakes[usize::from(well)], 1);
    }

    /// A request's line was handed to the access log, or there was no room for it.
    pub(super) fn logged(&self, taken: bool) {
        add(&self.access_lines[usize::from(taken)], 1);
    }

    /// The model server's head came.
    pub(super) fn answered(&self, code: u16, took: Duration) {
        self.first_byte.observe(took);
        if let Some(slot) = slot(code) {
            add(&self.answered[slot], 1);
        }
    }

    /// A request ended with the model server's answer, whole.
    pub(super) fn finished(&self, code: u16, took: Duration, now: Time) {
        self.duration.observe(took);
        self.latency.observe(took, now);
        if let Some(slot) = slot(code) {
            add(&self.forwarded[slot], 1);
        }
    }

    /// A request of ours ended whole, having waited silently for `silent` and shared the server with `sharing`
    /// requests, itself among them.
    pub(super) fn judged(&self, verdict: Verdict, from: Origin, silent: Duration, sharing: u32, now: Time) {
        self.pace.observe(silent / sharing.max(1), now);
        match verdict {
            Verdict::Bad(_) => {
                add(&self.failed, 1);
                self.origins.note(from, false);
            }
            Verdict::Good => {
                add(&self.succeeded, 1);
                self.origins.note(from, true);
            }
            // A client's own error, or its haste, says nothing of the model server.
            Verdict::Late | Verdict::Neither => {}
        }
    }

    /// A request that was sent to the model server ended in another way.
    pub(super) fn failed(&self, reason: Reason, from: Origin) {
        self.refuse(reason);
        if reason.is_servers_failure() {
            self.origins.note(from, false);
        }
    }

    /// A tunnel ended. How long it was open says nothing about how fast the model server answers.
    pub(super) fn tunnelled(&self, code: u16) {
        if let Some(slot) = slot(code) {
            add(&self.forwarded[slot], 1);
        }
    }

    /// A request ended in another way.
    pub(super) fn refuse(&self, reason: Reason) {
        add(&self.refused[reason as usize], 1);
        if reason.is_servers_failure() {
            add(&self.failed, 1);
        }
    }
}

/// One more of something, for as long as this lives. Never leaves its worker.
pub(super) struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(gauge: &'a AtomicU64) -> Self {
        add(gauge, 1);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        add(self.0, u64::MAX);
    }
}

fn slot(code: u16) -> Option<usize> {
    usize::from(code).checked_sub(100).filter(|slot| *slot < CODES)
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Collector for Counters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_requests(&mut encoder)?;
        self.encode_shed(&mut encoder)?;
        self.encode_model(&mut encoder)?;
        self.encode_results(
            &mut encoder,
            "probegate_tls_handshakes",
            "TLS handshakes with clients",
            ["failed", "ok"],
            |w| &w.handshakes,
        )?;
        self.encode_results(
            &mut encoder,
            "probegate_access_log_lines",
            "Lines of the access log",
            ["dropped", "written"],
            |w| &w.access_lines,
        )?;
        self.encode_histogram(
            &mut encoder,
            "probegate_request_duration_seconds",
            "From a request's head to the last byte of its answer",
            |w| &w.duration,
        )?;
        self.encode_histogram(
            &mut encoder,
            "probegate_time_to_first_byte_seconds",
            "From a request's head to the head of the model server's answer",
            |w| &w.first_byte,
        )?;
        gauge(&mut encoder, "probegate_in_flight", "Requests whose last byte is still to come", self.in_flight())?;
        gauge(&mut encoder, "probegate_queued", "Requests that wait for a place", self.queued())?;
        gauge(&mut encoder, "probegate_held", "Requests that wait for the model server", self.held())?;
        gauge(&mut encoder, "probegate_connections", "Open client connections", self.connections())
    }
}

impl Counters {
    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut all = encoder.encode_descriptor(
            "probegate_requests",
            "Requests that ended, by status and by who decided",
            None,
            MetricType::Counter,
        )?;
        for code in self.codes(|w| &w.forwarded) {
            let labels = [("code", code.to_string()), ("reason", FORWARDED.to_owned())];
            counter(&mut all, &labels, self.forwarded(code))?;
        }
        for reason in Reason::ALL {
            let labels = [("code", reason.status().to_string()), ("reason", reason.as_str().to_owned())];
            match self.refused(reason) {
                0 => {}
                count => counter(&mut all, &labels, count)?,
            }
        }
        Ok(())
    }

    fn encode_shed(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests refused because the server could not take them now";
        let mut all = encoder.encode_descriptor("probegate_shed", help, None, MetricType::Counter)?;
        for reason in Reason::ALL.into_iter().filter(|reason| reason.shed()) {
            counter(&mut all, &[("reason", reason.as_str().to_owned())], self.refused(reason))?;
        }
        Ok(())
    }

    fn encode_results(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        results: [&'static str; 2],
        of: impl Fn(&WorkerCounters) -> &[AtomicU64; 2],
    ) -> fmt::Result {
        let mut all = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (place, result) in results.into_iter().enumerate() {
            counter(&mut all, &[("result", result.to_owned())], self.sum(|w| of(w)[place].load(Relaxed)))?;
        }
        Ok(())
    }

    fn encode_model(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_answered(encoder)?;
        let help = "Mean time of the model server's answers over the last minute, in milliseconds";
        let mut latency = encoder.encode_descriptor("model_latency_ms", help, None, MetricType::Gauge)?;
        latency.encode_gauge(&self.latency_ms().unwrap_or(0.0))
    }

    fn encode_answered(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests that the model server answered, by status";
        let mut all = encoder.encode_descriptor("model_requests", help, None, MetricType::Counter)?;
        for code in self.codes(|w| &w.answered) {
            let count = slot(code).map_or(0, |slot| self.sum(|w| w.answered[slot].load(Relaxed)));
            counter(&mut all, &[("code", code.to_string())], count)?;
        }
        Ok(())
    }

    fn encode_histogram(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: impl Fn(&WorkerCounters) -> &Buckets,
    ) -> fmt::Result {
        let bounds = BUCKETS_MS.iter().map(|ms| *ms as f64 / 1000.0).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.enumerate().map(|(place, bound)| (bound, self.sum(|w| of(w).count(place)))).collect();
        let sum = Duration::from_nanos(self.sum(|w| of(w).sum_ns())).as_secs_f64();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    /// Statuses that have been counted, and 200 from the start on: a rate needs a series before its first request.
    fn codes(&self, of: impl Fn(&WorkerCounters) -> &[AtomicU64; CODES]) -> impl Iterator<Item = u16> {
        // CODES + 100 is far below the type's end.
        let code = |slot: usize| slot as u16 + 100;
        (0..CODES)
            .filter(move |slot| code(*slot) == 200 || self.workers.iter().any(|w| of(w)[*slot].load(Relaxed) > 0))
            .map(code)
    }
}

fn counter(into: &mut MetricEncoder<'_>, labels: &[(&str, String)], value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(into.encode_family(&labels)?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)
}

#[cfg(test)]
mod tests;
