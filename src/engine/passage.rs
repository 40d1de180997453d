//! Whether requests may pass: the judgement, brought down to one word.
//!
//! The one rule that the proxy in the pod and the proxy of a simulated pod both go by.

use super::snapshot::{Cause, DrainPhase, InstancePhase, Snapshot, Status};

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Passage {
    Open = 0,
    NotReady = 1,
    Draining = 2,
    /// Not ready because the model server starts or is gone: worth waiting for.
    Loading = 3,
    /// One request at a time, for it decides the way back.
    Trial = 4,
    /// Refused, for the model server has more than it can do.
    Saturated = 5,
}

impl Passage {
    pub fn of(snapshot: &Snapshot) -> Self {
        if snapshot.drain.phase >= DrainPhase::Finishing {
            return Self::Draining;
        }
        // While endpoints propagate the gate fails only so that nobody new is sent: whoever comes is served.
        let propagating = snapshot.drain.phase == DrainPhase::Propagating;
        let ready = &snapshot.ready;
        let only_draining = propagating && ready.why.iter().all(|why| !blocks(&why.cause));
        if ready.status != Status::Fail || only_draining {
            return match (snapshot.trial, snapshot.shedding) {
                (true, _) => Self::Trial,
                (false, true) => Self::Saturated,
                (false, false) => Self::Open,
            };
        }
        let starting = snapshot.instance.phase != InstancePhase::Started;
        let hopeless = ready.why.iter().any(|why| matches!(why.cause, Cause::Disabled | Cause::StartupBudget));
        if starting && !hopeless { Self::Loading } else { Self::NotReady }
    }
}

/// Whether a reason speaks against serving, and not only against being sent more.
const fn blocks(cause: &Cause) -> bool {
    !matches!(cause, Cause::Draining | Cause::Degraded(_) | Cause::Withdrawn(_))
}
