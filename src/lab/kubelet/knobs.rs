//! How long things take that the kubelet, the runtime and the API server do not promise, and the periods
//! that they do. Defaults are upstream's, or what was seen on a real node (§13 and its recordings).

use std::time::Duration;

use super::backoff::BackoffKnobs;
use crate::lab::rng::Rng;

/// A span drawn anew each time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spread {
    pub low: Duration,
    pub high: Duration,
}

impl Spread {
    pub const fn millis(low: u64, high: u64) -> Self {
        Self { low: Duration::from_millis(low), high: Duration::from_millis(high) }
    }

    pub fn draw(&self, rng: &mut Rng) -> Duration {
        rng.between(self.low, self.high)
    }
}

/// When a sync that failed is tried again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Requeue {
    /// After 10 s x [1, 1.5), whatever it waits for.
    #[default]
    Fixed,
    /// When the back-off ends, clamped to a minute, x [1, 1.5) (§4.1, later releases).
    Expiry,
}

/// The kubelet of one node.
#[derive(Clone, Debug)]
pub struct Knobs {
    pub backoff: BackoffKnobs,
    pub requeue: Requeue,
    /// From the end of one PLEG relist to the start of the next, 1 s (§4.1).
    pub relist: Duration,
    /// What a relist itself takes.
    pub relist_takes: Spread,
    /// Time until a sync without work, 60 s x [1, 1.5) (§4.1).
    pub resync: Duration,
    /// Time until a failed sync is tried again, 10 s x [1, 1.5) (§4.1).
    pub retry: Duration,
    /// The queue of syncs that are due is looked at so often, 1 s (§4.1).
    pub poll: Duration,
    /// From a pod's first sync to its first container's creation: volumes, sandbox, network.
    pub sandbox: Spread,
    /// Creating and starting a container.
    pub start: Spread,
    /// One start in so many thousand takes `slow_start` instead: the runtime was busy.
    pub slow_start_permille: u32,
    pub slow_start: Spread,
    /// From the kubelet's request to the first instruction of an exec in the container.
    pub exec: Spread,
    /// From a container's end to the runtime's word that it is gone.
    pub reap: Spread,
    /// What a sync takes besides starting and killing.
    pub sync: Spread,
    /// From a probe's verdict to the pod worker, through the sync loop.
    pub verdict: Spread,
    /// From a deletion at the API server to the pod worker.
    pub deletion: Spread,
    /// From the kubelet's status to the API server's (§5).
    pub status: Spread,
    /// From the API server's pod to its EndpointSlice (§5).
    pub endpoints: Spread,
    /// A probe's way on the wire, there and back.
    pub wire: Spread,
    /// How often in a thousand the readiness trigger of a plain container start finds the new status
    /// already in place (§2.4).
    pub trigger_hits_permille: u32,
    /// The floor of any grace, 2 s (§1).
    pub grace_min: Duration,
    /// Where in its second the node's clock stands when this world begins: start times are cut to whole
    /// seconds (§2.1).
    pub second_began: Duration,
    /// Sidecars keep their liveness and startup workers during termination (§6.2, until fixed upstream).
    pub sidecars_stay_judged: bool,
}

impl Default for Knobs {
    /// A quiet node.
    fn default() -> Self {
        Self {
            backoff: BackoffKnobs::default(),
            requeue: Requeue::Fixed,
            relist: Duration::from_secs(1),
            relist_takes: Spread::millis(5, 30),
            resync: Duration::from_secs(60),
            retry: Duration::from_secs(10),
            poll: Duration::from_secs(1),
            sandbox: Spread::millis(700, 1900),
            start: Spread::millis(70, 300),
            slow_start_permille: 30,
            slow_start: Spread::millis(300, 900),
            exec: Spread::millis(20, 60),
            reap: Spread::millis(20, 120),
            sync: Spread::millis(3, 12),
            verdict: Spread::millis(2, 12),
            deletion: Spread::millis(10, 80),
            status: Spread::millis(5, 50),
            endpoints: Spread::millis(10, 100),
            wire: Spread::millis(1, 4),
            trigger_hits_permille: 960,
            grace_min: Duration::from_secs(2),
            second_began: Duration::ZERO,
            sidecars_stay_judged: true,
        }
    }
}
