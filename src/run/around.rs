//! What the report tells besides the judgement: traffic, the file on disk, the time before this process.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::hang::Kept;
use super::watchdog::Watch;
use crate::answers::SelfCheck;
use crate::answers::report::{Change, Configuration, HangReport, Surroundings, Traffic};
use crate::proxy::{Counters, Reason};

/// How the configuration file fares. Written by the driver, read by whoever makes a report.
#[derive(Debug)]
pub(super) struct Standing {
    source: String,
    now: ArcSwap<State>,
}

#[derive(Debug, Default)]
struct State {
    problem: Option<String>,
    needs_restart: Vec<&'static str>,
}

impl Standing {
    pub(super) fn new(source: String) -> Arc<Self> {
        Arc::new(Self { source, now: ArcSwap::default() })
    }

    /// The file on disk is what runs, but for settings that wait for a restart.
    pub(super) fn accepted(&self, needs_restart: Vec<&'static str>) {
        self.now.store(Arc::new(State { problem: None, needs_restart }));
    }

    /// The file on disk was refused.
    pub(super) fn refused(&self, problem: &str) {
        let needs_restart = self.now.load().needs_restart.clone();
        self.now.store(Arc::new(State { problem: Some(problem.to_owned()), needs_restart }));
    }
}

/// The sidecar around its engine.
pub(super) struct Around {
    pub(super) counters: Arc<Counters>,
    pub(super) watch: Arc<Watch>,
    pub(super) standing: Arc<Standing>,
    /// Transitions that an earlier run left in the ring.
    pub(super) earlier: Vec<Change>,
    pub(super) hangs: Arc<Kept>,
}

impl Surroundings for Around {
    fn traffic(&self) -> Traffic {
        let counters = &self.counters;
        let forwarded = |codes: std::ops::Range<u16>| codes.map(|code| counters.forwarded(code)).sum::<u64>();
        let ended = |how: fn(Reason) -> bool| -> u64 {
            Reason::ALL.into_iter().filter(|reason| how(*reason)).map(|reason| counters.refused(reason)).sum()
        };
        Traffic {
            in_flight: counters.in_flight(),
            requests: forwarded(100..600) + ended(|_| true),
            failed: forwarded(500..600) + ended(is_upstream_fault),
            refused: ended(|reason| !is_upstream_fault(reason) && reason != Reason::ClientGone),
        }
    }

    fn configuration(&self) -> Configuration {
        let state = self.standing.now.load();
        Configuration {
            source: self.standing.source.clone(),
            last_reload_successful: state.problem.is_none(),
            problem: state.problem.clone(),
            needs_restart: state.needs_restart.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    fn stuck(&self) -> Option<String> {
        self.watch.verdict().err()
    }

    fn earlier(&self) -> Vec<Change> {
        self.earlier.clone()
    }

    fn hang(&self) -> Option<HangReport> {
        self.hangs.last()
    }
}

/// The model server did not answer, or not whole.
const fn is_upstream_fault(reason: Reason) -> bool {
    use Reason::{
        FirstByteTimeout, UpstreamAborted, UpstreamConnectTimeout, UpstreamInvalid, UpstreamRefused, UpstreamReset,
        UpstreamUnreachable,
    };
    matches!(
        reason,
        FirstByteTimeout
            | UpstreamAborted
            | UpstreamConnectTimeout
            | UpstreamInvalid
            | UpstreamRefused
            | UpstreamReset
            | UpstreamUnreachable
    )
}
