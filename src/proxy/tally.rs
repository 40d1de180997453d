//! What the requests to one upstream address come to: how many are under way, and how they ended.
//!
//! Owns the counting rules, for all counts of good and bad ends. A failure is an answer with 5xx, a gRPC status
//! that says that the server failed, or none at all; 429, 503 with `Retry-After` and `RESOURCE_EXHAUSTED` say that
//! it is busy, and count as nothing; so do a client's own error, a client that left, and beside work the answers that
//! a front gives by itself. It refuses to conclude: the engine samples the sums. Each worker writes its own lane; only
//! what a row of failures is made of is shared.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use super::durations::add;
use super::refusal::Reason;
use crate::engine::{Ends, Failure, Time};

/// gRPC: the deadline was over.
const DEADLINE_EXCEEDED: u16 = 4;
/// gRPC: `UNKNOWN`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`.
const GRPC_FAILURES: [u16; 4] = [2, 13, 14, 15];

/// The counts of one address, for as long as it is configured.
pub(super) struct Tally {
    lanes: Box<[Lane]>,
    /// Failures since the last good end.
    row: AtomicU64,
    /// The last failure's code.
    failure: AtomicU32,
    /// The one place of a request on trial is taken.
    trying: AtomicBool,
}

/// One worker's counts. Aligned to two cache lines, so that no worker's writes slow another's.
#[derive(Default)]
#[repr(align(128))]
struct Lane {
    in_flight: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    trials_succeeded: AtomicU64,
    trials_failed: AtomicU64,
    trials_unanswered: AtomicU64,
    /// Tunnels among those in flight: their silence says nothing.
    tunnels: AtomicU64,
    /// When the server last sent something that counts, in nanoseconds; 0 if it never did.
    last_byte: AtomicU64,
}

/// One request's turn at an address: in flight until it is dropped. Never leaves its worker.
pub(super) struct Turn {
    tally: Arc<Tally>,
    worker: usize,
    /// It decides whether the address is trusted.
    trial: bool,
    /// Whether running out of time is the server's failure.
    timeouts: bool,
    /// What its answer says so far; none before the head.
    verdict: Option<Verdict>,
    tunnel: bool,
}

/// What an answer says about the server that gave it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Good,
    Bad(Failure),
    /// Not within the time that the client gave it, by its own word.
    Late,
    /// It says nothing about the server.
    Neither,
}

impl Verdict {
    /// By a head that cannot be gRPC's. `retry_after`: it names a time to come back.
    pub(super) const fn of_head(status: u16, retry_after: bool) -> Self {
        match status {
            503 if retry_after => Self::Neither,
            500.. => Self::Bad(Failure::Status(status)),
            400..500 => Self::Neither,
            _ => Self::Good,
        }
    }

    /// By a head, which may be all that there is of a gRPC answer.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        Self::of_head(status.as_u16(), headers.contains_key(RETRY_AFTER)).with(headers)
    }

    /// The same with these trailers: the last word of gRPC.
    pub(super) fn with(self, trailers: &HeaderMap) -> Self {
        let status = || trailers.get("grpc-status")?.to_str().ok()?.parse().ok();
        match (self, status()) {
            (Self::Good, Some(DEADLINE_EXCEEDED)) => Self::Late,
            (Self::Good, Some(failed)) if GRPC_FAILURES.contains(&failed) => Self::Bad(Failure::Grpc(failed)),
            (Self::Good, Some(1_u16..)) => Self::Neither,
            (said, _) => said,
        }
    }
}

impl Tally {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            lanes: (0..workers).map(|_| Lane::default()).collect(),
            row: AtomicU64::new(0),
            failure: AtomicU32::new(0),
            trying: AtomicBool::new(false),
        }
    }

    /// Requests under way there, over all workers.
    pub(super) fn in_flight(&self) -> u64 {
        self.sum(|lane| &lane.in_flight)
    }

    /// Whether a request on trial is under way.
    pub(super) fn is_trying(&self) -> bool {
        self.trying.load(Acquire)
    }

    /// A turn for one request of `worker`.
    pub(super) fn turn(self: &Arc<Self>, worker: usize, timeouts: bool) -> Turn {
        add(&self.lanes[worker].in_flight, 1);
        Turn { tally: Arc::clone(self), worker, trial: false, timeouts, verdict: None, tunnel: false }
    }

    /// The one turn of a trial; none while another has it.
    pub(super) fn trial(self: &Arc<Self>, worker: usize, timeouts: bool) -> Option<Turn> {
        self.trying.compare_exchange(false, true, AcqRel, Relaxed).ok()?;
        let mut turn = self.turn(worker, timeouts);
        turn.trial = true;
        Some(turn)
    }

    /// What the engine judges by.
    pub(super) fn ends(&self) -> Ends {
        // First, so that the end of a trial is never missing from the counts once its place is free.
        let trying = self.is_trying();
        Ends {
            succeeded: self.sum(|lane| &lane.succeeded),
            failed: self.sum(|lane| &lane.failed),
            row: self.row.load(Relaxed),
            failure: Failure::of_code(self.failure.load(Relaxed)),
            trials_succeeded: self.sum(|lane| &lane.trials_succeeded),
            trials_failed: self.sum(|lane| &lane.trials_failed),
            trials_unanswered: self.sum(|lane| &lane.trials_unanswered),
            trying,
            pending: self.in_flight().saturating_sub(self.sum(|lane| &lane.tunnels)),
            last_byte: self.last_byte(),
        }
    }

    fn last_byte(&self) -> Option<Time> {
        let last = self.lanes.iter().map(|lane| lane.last_byte.load(Relaxed)).max();
        last.filter(|at| *at > 0).map(Time::from_nanos)
    }

    fn sum(&self, of: impl Fn(&Lane) -> &AtomicU64) -> u64 {
        self.lanes.iter().map(|lane| of(lane).load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

impl Turn {
    /// The server sent something that counts.
    pub(super) fn moved(&self, now: Time) {
        self.tally.lanes[self.worker].last_byte.store(now.as_nanos(), Relaxed);
    }

    /// What the answer says so far: its head has come, or its trailers.
    pub(super) fn says(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
    }

    /// It ended whole.
    pub(super) fn finish(mut self) {
        self.settle();
    }

    /// It has become a tunnel: in flight until it is dropped, and good already.
    pub(super) fn switched(&mut self) {
        self.verdict = Some(Verdict::Good);
        self.settle();
        self.let_go();
        self.verdict = Some(Verdict::Neither);
        self.tunnel = true;
        add(&self.tally.lanes[self.worker].tunnels, 1);
    }

    /// It ended otherwise.
    pub(super) fn fail(mut self, reason: Reason) {
        let failure = match reason {
            Reason::UpstreamAborted => Failure::Aborted,
            Reason::UpstreamInvalid => Failure::Invalid,
            Reason::UpstreamRefused => Failure::Refused,
            Reason::UpstreamReset => Failure::Reset,
            Reason::UpstreamUnreachable => Failure::Unreachable,
            Reason::FirstByteTimeout | Reason::UpstreamConnectTimeout if self.timeouts => Failure::Timeout,
            _ => return,
        };
        self.verdict = Some(Verdict::Bad(failure));
        self.settle();
    }

    fn settle(&mut self) {
        let lane = &self.tally.lanes[self.worker];
        let late = |verdict: Verdict| if verdict == Verdict::Late { self.late() } else { verdict };
        match self.verdict.map(late) {
            Some(Verdict::Good) => {
                // Read first: writing shared memory for every request would cost all workers.
                if self.tally.row.load(Relaxed) != 0 {
                    self.tally.row.store(0, Relaxed);
                }
                add(&lane.succeeded, 1);
                add(&lane.trials_succeeded, self.trial.into());
            }
            Some(Verdict::Bad(failure)) => {
                self.tally.row.fetch_add(1, Relaxed);
                self.tally.failure.store(failure.code(), Relaxed);
                add(&lane.failed, 1);
                add(&lane.trials_failed, self.trial.into());
            }
            Some(Verdict::Late | Verdict::Neither) | None => {}
        }
    }

    const fn late(&self) -> Verdict {
        if self.timeouts { Verdict::Bad(Failure::Grpc(DEADLINE_EXCEEDED)) } else { Verdict::Neither }
    }

    /// Gives the place of a trial free.
    fn let_go(&mut self) {
        if std::mem::take(&mut self.trial) {
            self.tally.trying.store(false, Release);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let lane = &self.tally.lanes[self.worker];
        add(&lane.in_flight, u64::MAX);
        if self.tunnel {
            add(&lane.tunnels, u64::MAX);
        }
        // Given up before the head: nobody knows what the answer would have been.
        if self.trial && self.verdict.is_none() {
            add(&lane.trials_unanswered, 1);
        }
        self.let_go();
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("trial", &self.trial).field("verdict", &self.verdict).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    /// Good and bad ends after one request with this answer.
    fn count(
        status: u16,
        head: &[(&'static str, &'static str)],
        trailers: &[(&'static str, &'static str)],
    ) -> (u64, u64) {
        let tally = Arc::new(Tally::new(1));
        let mut turn = tally.turn(0, true);
        turn.says(Verdict::of(StatusCode::from_u16(status).unwrap(), &headers(head)).with(&headers(trailers)));
        turn.finish();
        (tally.ends().succeeded, tally.ends().failed)
    }

    #[test]
    fn busy_is_not_dead_and_a_clients_error_is_its_own() {
        for status in [400, 404, 422, 429, 499] {
            assert_eq!(count(status, &[], &[]), (0, 0), "{status}");
        }
        assert_eq!(count(503, &[("retry-after", "1")], &[]), (0, 0));
        for status in [500, 501, 502, 503, 504] {
            assert_eq!(count(status, &[], &[]), (0, 1), "{status}");
        }
        assert_eq!(count(200, &[], &[]), (1, 0));
        assert_eq!(count(302, &[], &[]), (1, 0));
    }

    #[test]
    fn the_grpc_status_has_the_last_word_in_head_or_trailers() {
        for failure in ["2", "4", "13", "14", "15"] {
            assert_eq!(count(200, &[], &[("grpc-status", failure)]), (0, 1), "{failure}");
            assert_eq!(count(200, &[("grpc-status", failure)], &[]), (0, 1), "{failure}");
        }
        for neither in ["1", "3", "5", "7", "8", "12", "16"] {
            assert_eq!(count(200, &[], &[("grpc-status", neither)]), (0, 0), "{neither}");
        }
        assert_eq!(count(200, &[], &[("grpc-status", "0")]), (1, 0));
        assert_eq!(count(200, &[], &[("grpc-status", "many")]), (1, 0));
        assert_eq!(count(500, &[], &[("grpc-status", "0")]), (0, 1));
    }

    #[test]
    fn where_timeouts_prove_nothing_they_count_as_nothing() {
        let tally = Arc::new(Tally::new(1));
        for timeouts in [false, true] {
            tally.turn(0, timeouts).fail(Reason::FirstByteTimeout);
            tally.turn(0, timeouts).fail(Reason::UpstreamConnectTimeout);
        }
        assert_eq!((tally.ends().failed, tally.ends().failure), (2, Some(Failure::Timeout)));
        for timeouts in [false, true] {
            let mut turn = tally.turn(0, timeouts);
            turn.says(Verdict::Good.with(&headers(&[("grpc-status", "4")])));
            turn.finish();
        }
        assert_eq!((tally.ends().failed, tally.ends().failure), (3, Some(Failure::Grpc(4))));
        tally.turn(0, true).fail(Reason::ClientGone);
        tally.turn(0, true).fail(Reason::UpstreamReset);
        assert_eq!((tally.ends().failed, tally.ends().failure), (4, Some(Failure::Reset)));
    }

    #[test]
    fn a_row_is_counted_over_all_workers_and_broken_by_any() {
        let tally = Arc::new(Tally::new(3));
        for worker in [0, 1, 2, 0] {
            tally.turn(worker, true).fail(Reason::UpstreamReset);
        }
        assert_eq!(tally.ends().row, 4);
        let mut good = tally.turn(1, true);
        good.says(Verdict::Good);
        assert_eq!(tally.in_flight(), 1);
        good.finish();
        assert_eq!((tally.ends().row, tally.ends().failed, tally.in_flight()), (0, 4, 0));
    }

    #[test]
    fn one_trial_at_a_time_and_its_end_is_told_apart() {
        let tally = Arc::new(Tally::new(2));
        let first = tally.trial(0, true).unwrap();
        assert!(tally.trial(1, true).is_none());
        assert!(tally.ends().trying);
        drop(first);
        assert_eq!(tally.ends().trials_unanswered, 1);
        tally.trial(1, true).unwrap().fail(Reason::UpstreamReset);
        let mut tunnel = tally.trial(0, true).unwrap();
        tunnel.says(Verdict::Good);
        tunnel.switched();
        assert!(!tally.ends().trying, "an open tunnel holds no trial up");
        assert_eq!((tally.in_flight(), tally.ends().pending), (1, 0), "and is no work pending");
        drop(tunnel);
        let ends = tally.ends();
        assert_eq!((ends.trials_succeeded, ends.trials_failed, ends.trials_unanswered), (1, 1, 1));
        assert_eq!((ends.succeeded, ends.failed, tally.in_flight()), (1, 1, 0));
    }

    #[test]
    fn what_is_pending_and_the_last_byte_of_any_worker_are_told() {
        let tally = Arc::new(Tally::new(2));
        let (first, second) = (tally.turn(0, true), tally.turn(1, true));
        assert_eq!((tally.ends().pending, tally.ends().last_byte), (2, None));
        second.moved(Time::from_secs(7));
        first.moved(Time::from_secs(5));
        drop(first);
        assert_eq!((tally.ends().pending, tally.ends().last_byte), (1, Some(Time::from_secs(7))));
    }

    #[test]
    fn a_client_that_leaves_within_the_answer_says_nothing() {
        let tally = Arc::new(Tally::new(1));
        let mut turn = tally.trial(0, true).unwrap();
        turn.says(Verdict::Good);
        drop(turn);
        assert_eq!(tally.ends(), Ends::default());
    }
}
