//! One probe worker: the loop that the kubelet runs for each container and each kind of probe (§2).
//!
//! The worker decides whether to probe, what a result means and when to look again; it refuses to know how
//! a probe is made, what it costs, or what the kubelet does about a verdict.

use std::time::Duration;

use super::spec::{ProbeKind, ProbeSpec};
use crate::engine::Time;

/// Which run of a container: the kubelet tells them apart by container id, and so does this. Starts at 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Incarnation(pub u32);

/// What the results cache may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Success,
    Failure,
    /// Startup, before its first verdict.
    Unknown,
}

/// What the status cache says about the worker's container, as the worker reads it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// The pod is Succeeded or Failed.
    pub pod_is_over: bool,
    /// The container of the cached status; none before the first one is in it.
    pub incarnation: Option<Incarnation>,
    /// Running, and for so many whole seconds since `StartedAt`, which itself is cut to whole seconds.
    pub running_for: Option<u64>,
    /// Terminated, and the restart policy is Never.
    pub stays_down: bool,
    pub started: bool,
    /// The pod was being deleted when the worker was made.
    pub was_deleting: bool,
}

/// What one look came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Look {
    Keep,
    Leave,
    Probe,
}

/// A change of the results cache. Verdicts are kept by container: one about an old container moves nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Update {
    pub incarnation: Incarnation,
    pub verdict: Verdict,
}

/// The state of one worker.
#[derive(Clone, Debug)]
pub struct Worker {
    pub kind: ProbeKind,
    pub container: usize,
    pub period: Duration,
    initial_delay: u64,
    success_threshold: u32,
    failure_threshold: u32,
    incarnation: Option<Incarnation>,
    result: Option<Update>,
    on_hold: bool,
    last: Option<Verdict>,
    run: u32,
}

impl Worker {
    pub fn new(container: usize, kind: ProbeKind, spec: &ProbeSpec) -> Self {
        Self {
            kind,
            container,
            period: spec.period,
            initial_delay: spec.initial_delay.as_secs(),
            success_threshold: spec.success_threshold,
            failure_threshold: spec.failure_threshold,
            incarnation: None,
            result: None,
            on_hold: false,
            last: None,
            run: 0,
        }
    }

    /// What the results cache says about a container.
    pub fn verdict_on(&self, incarnation: Incarnation) -> Option<Verdict> {
        self.result.filter(|result| result.incarnation == incarnation).map(|result| result.verdict)
    }

    /// The part of `doProbe` before the probe, in its order (§2).
    pub fn look(&mut self, seen: &Seen) -> (Look, Option<Update>) {
        if seen.pod_is_over {
            return (Look::Leave, None);
        }
        let Some(incarnation) = seen.incarnation else { return (Look::Keep, None) };
        let mut update = None;
        if self.incarnation != Some(incarnation) {
            // §2: a new container resets the verdict and the hold. Not the run of equal results (§2.3).
            self.incarnation = Some(incarnation);
            self.on_hold = false;
            self.result = None;
            update = self.set(incarnation, self.initial());
        }
        if self.on_hold {
            return (Look::Keep, update);
        }
        let Some(running_for) = seen.running_for else {
            let look = if seen.stays_down { Look::Leave } else { Look::Keep };
            return (look, self.set(incarnation, Verdict::Failure).or(update));
        };
        if seen.was_deleting && self.kind != ProbeKind::Readiness {
            return (Look::Leave, self.set(incarnation, Verdict::Success).or(update));
        }
        if running_for < self.initial_delay {
            return (Look::Keep, update);
        }
        // §2: once started the startup worker idles, and until then the other two do.
        let idles = seen.started == (self.kind == ProbeKind::Startup);
        (if idles { Look::Keep } else { Look::Probe }, update)
    }

    /// The part of `doProbe` after the probe. `None` is a probe that errored: thrown away (§2.2).
    pub fn judge(&mut self, result: Option<Verdict>) -> Option<Update> {
        let result = result?;
        let incarnation = self.incarnation?;
        if self.last == Some(result) {
            self.run += 1;
        } else {
            self.last = Some(result);
            self.run = 1;
        }
        let threshold = if result == Verdict::Success { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold {
            return None;
        }
        let update = self.set(incarnation, result);
        if self.kind == ProbeKind::Startup || self.kind == ProbeKind::Liveness && result == Verdict::Failure {
            // §2: the container is about to go, or has started for good; either way this worker has said its word.
            self.on_hold = true;
            self.run = 0;
        }
        update
    }

    const fn initial(&self) -> Verdict {
        match self.kind {
            ProbeKind::Startup => Verdict::Unknown,
            ProbeKind::Readiness => Verdict::Failure,
            ProbeKind::Liveness => Verdict::Success,
        }
    }

    /// Updates go out only when the cached value changes (§2).
    fn set(&mut self, incarnation: Incarnation, verdict: Verdict) -> Option<Update> {
        let update = Update { incarnation, verdict };
        (self.result.replace(update) != Some(update)).then_some(update)
    }
}

/// The ticker and the mailbox of one worker: when it looks next (§2.1).
///
/// A Go ticker holds one tick, and the manual trigger's channel one trigger. A worker in the middle of a
/// probe takes them afterwards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beat {
    /// Ticks of an older generation are of a ticker that was reset.
    pub generation: u32,
    pub next: Time,
    pub is_probing: bool,
    pub has_tick: bool,
    pub has_trigger: bool,
    pub has_left: bool,
}

#[cfg(test)]
mod tests {
    //! Mirrors of the kubelet's own `prober/worker_test.go` (§12).

    use super::*;
    use crate::lab::kubelet::spec::Handler;

    const FIRST: Incarnation = Incarnation(1);
    const SECOND: Incarnation = Incarnation(2);

    fn spec() -> ProbeSpec {
        ProbeSpec {
            handler: Handler::Exec { command: Vec::new() },
            initial_delay: Duration::ZERO,
            timeout: Duration::from_secs(1),
            period: Duration::from_secs(10),
            success_threshold: 1,
            failure_threshold: 3,
            grace: None,
        }
    }

    fn worker(kind: ProbeKind, change: impl FnOnce(&mut ProbeSpec)) -> Worker {
        let mut spec = spec();
        change(&mut spec);
        Worker::new(0, kind, &spec)
    }

    fn running(incarnation: Incarnation, started: bool) -> Seen {
        Seen { incarnation: Some(incarnation), running_for: Some(100), started, ..Seen::default() }
    }

    /// One `doProbe` whose probe, if made, ends so.
    fn step(worker: &mut Worker, seen: &Seen, result: Verdict) -> bool {
        let (look, _) = worker.look(seen);
        if look == Look::Probe {
            worker.judge(Some(result));
        }
        look != Look::Leave
    }

    fn steps(worker: &mut Worker, seen: &Seen, result: Verdict, times: u32) {
        for _ in 0..times {
            assert!(step(worker, seen, result));
        }
    }

    #[test]
    fn test_initial_delay() {
        for kind in ProbeKind::ALL {
            let mut worker = worker(kind, |spec| spec.initial_delay = Duration::from_secs(10));
            let started = kind != ProbeKind::Startup;
            let before = Seen { running_for: Some(9), ..running(FIRST, started) };
            steps(&mut worker, &before, Verdict::Success, 1);
            let initial = worker.initial();
            assert_eq!(worker.verdict_on(FIRST), Some(initial), "during the delay");
            let after = Seen { running_for: Some(10), ..before };
            steps(&mut worker, &after, Verdict::Success, 1);
            assert_eq!(worker.verdict_on(FIRST), Some(Verdict::Success), "after the delay");
        }
    }

    #[test]
    fn test_failure_threshold() {
        let mut worker = worker(ProbeKind::Readiness, |_| ());
        let seen = running(FIRST, true);
        for _ in 0..2 {
            steps(&mut worker, &seen, Verdict::Success, 2);
            assert_eq!(worker.verdict_on(FIRST), Some(Verdict::Success));
            steps(&mut worker, &seen, Verdict::Failure, 2);
            assert_eq!(worker.verdict_on(FIRST), Some(Verdict::Success), "two failures are not three");
            steps(&mut worker, &seen, Verdict::Failure, 3);
            assert_eq!(worker.verdict_on(FIRST), Some(Verdict::Failure));
        }
    }

    #[test]
    fn test_success_threshold() {
        let mut worker = worker(ProbeKind::Readiness, |spec| spec.success_threshold = 3);
        let seen = running(FIRST, true);
        for _ in 0..2 {
            steps(&mut worker, &seen, Verdict::Failure, 3);
            assert_eq!(worker.verdict_on(FIRST), Some(Verdict::Failure));
            steps(&mut worker, &seen, Verdict::Success, 2);
            assert_eq!(worker.verdict_on(FIRST), Some(Verdict::Failure), "two successes are not three");
            steps(&mut worker, &seen, Verdict::Success, 1);
            assert_eq!(worker.verdict_on(FIRST), Some(Verdict::Success));
        }
    }

    #[test]
    fn test_startup_probe_thresholds() {
        let mut slow = worker(ProbeKind::Startup, |_| ());
        let seen = running(FIRST, false);
        steps(&mut slow, &seen, Verdict::Failure, 2);
        assert_eq!(slow.verdict_on(FIRST), Some(Verdict::Unknown));
        steps(&mut slow, &seen, Verdict::Failure, 1);
        assert_eq!(slow.verdict_on(FIRST), Some(Verdict::Failure));
        let mut quick = worker(ProbeKind::Startup, |_| ());
        steps(&mut quick, &seen, Verdict::Success, 1);
        assert_eq!(quick.verdict_on(FIRST), Some(Verdict::Success));
    }

    #[test]
    fn test_cleanup_and_leaving() {
        for kind in ProbeKind::ALL {
            let over = Seen { pod_is_over: true, ..running(FIRST, true) };
            assert!(!step(&mut worker(kind, |_| ()), &over, Verdict::Success));
            let none = Seen::default();
            assert!(step(&mut worker(kind, |_| ()), &none, Verdict::Success), "no container yet");
            let down = Seen { incarnation: Some(FIRST), ..Seen::default() };
            let mut waits = worker(kind, |_| ());
            assert!(step(&mut waits, &down, Verdict::Success), "it will be restarted");
            assert_eq!(waits.verdict_on(FIRST), Some(Verdict::Failure));
            let for_good = Seen { stays_down: true, ..down };
            assert!(!step(&mut worker(kind, |_| ()), &for_good, Verdict::Success));
        }
    }

    #[test]
    fn test_on_hold_on_liveness_or_startup_check_failure() {
        for (kind, started) in [(ProbeKind::Liveness, true), (ProbeKind::Startup, false)] {
            let mut worker = worker(kind, |spec| spec.failure_threshold = 1);
            let seen = running(FIRST, started);
            steps(&mut worker, &seen, Verdict::Failure, 1);
            assert!(worker.on_hold);
            steps(&mut worker, &seen, Verdict::Success, 1);
            assert_eq!(worker.verdict_on(FIRST), Some(Verdict::Failure), "on hold nothing is probed");
            steps(&mut worker, &running(SECOND, started), Verdict::Success, 1);
            assert_eq!(worker.verdict_on(SECOND), Some(Verdict::Success));
        }
        let mut readiness = worker(ProbeKind::Readiness, |spec| spec.failure_threshold = 1);
        steps(&mut readiness, &running(FIRST, true), Verdict::Failure, 1);
        assert!(!readiness.on_hold);
    }

    #[test]
    fn test_result_run_on_liveness_check_failure() {
        let mut worker = worker(ProbeKind::Liveness, |_| ());
        let seen = running(FIRST, true);
        steps(&mut worker, &seen, Verdict::Success, 1);
        assert_eq!(worker.run, 1);
        steps(&mut worker, &seen, Verdict::Failure, 2);
        assert_eq!(worker.run, 2, "below the threshold the run counts");
        steps(&mut worker, &seen, Verdict::Failure, 1);
        assert_eq!(worker.run, 0, "the verdict begins a new run");
    }

    #[test]
    fn test_result_run_on_startup_check_failure() {
        let mut worker = worker(ProbeKind::Startup, |_| ());
        let seen = running(FIRST, false);
        steps(&mut worker, &seen, Verdict::Failure, 2);
        assert_eq!(worker.run, 2);
        steps(&mut worker, &seen, Verdict::Failure, 1);
        assert_eq!(worker.run, 0);
    }

    #[test]
    fn test_liveness_and_startup_probe_disabled_by_started() {
        let mut liveness = worker(ProbeKind::Liveness, |spec| spec.failure_threshold = 1);
        steps(&mut liveness, &running(FIRST, false), Verdict::Failure, 1);
        assert_eq!(liveness.verdict_on(FIRST), Some(Verdict::Success), "not started: not probed");
        steps(&mut liveness, &running(FIRST, true), Verdict::Failure, 1);
        assert_eq!(liveness.verdict_on(FIRST), Some(Verdict::Failure));
        let mut startup = worker(ProbeKind::Startup, |_| ());
        steps(&mut startup, &running(FIRST, false), Verdict::Success, 1);
        steps(&mut startup, &running(FIRST, true), Verdict::Failure, 3);
        assert_eq!(startup.verdict_on(FIRST), Some(Verdict::Success), "started: not probed again");
    }

    #[test]
    fn a_run_of_failures_survives_a_crash_of_the_container() {
        // §2.3, issue #53530.
        let mut worker = worker(ProbeKind::Liveness, |_| ());
        steps(&mut worker, &running(FIRST, true), Verdict::Failure, 2);
        steps(&mut worker, &running(SECOND, true), Verdict::Failure, 1);
        assert_eq!(worker.verdict_on(SECOND), Some(Verdict::Failure));
    }

    #[test]
    fn a_probe_that_errored_counts_neither_way() {
        let mut worker = worker(ProbeKind::Liveness, |spec| spec.failure_threshold = 1);
        assert_eq!(worker.look(&running(FIRST, true)).0, Look::Probe);
        assert_eq!(worker.judge(None), None);
        assert_eq!(worker.run, 0);
    }

    #[test]
    fn a_worker_made_during_deletion_leaves_unless_it_is_readiness() {
        for kind in ProbeKind::ALL {
            let seen = Seen { was_deleting: true, ..running(FIRST, kind != ProbeKind::Startup) };
            let stays = step(&mut worker(kind, |_| ()), &seen, Verdict::Success);
            assert_eq!(stays, kind == ProbeKind::Readiness);
        }
    }
}
