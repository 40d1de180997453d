//! The judgement as everybody reads it: one pointer, swapped by the driver, loaded by listeners and workers.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::engine::Snapshot;

/// The latest [`Snapshot`]. Loading never waits; waiting for a change is for those who stream it.
#[derive(Debug)]
pub struct Published {
    current: ArcSwap<Snapshot>,
    changed: watch::Sender<u64>,
}

impl Published {
    pub fn new(first: Snapshot) -> Arc<Self> {
        let (changed, _) = watch::channel(first.revision);
        Arc::new(Self { current: ArcSwap::from_pointee(first), changed })
    }

    /// The latest snapshot: a pointer load, for the time of one answer.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The latest snapshot, kept.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Swaps in a newer one and wakes those who wait. Only the driver calls it.
    pub fn store(&self, next: Snapshot) {
        let revision = next.revision;
        self.current.store(Arc::new(next));
        self.changed.send_replace(revision);
    }

    /// A receiver that is told the revision of each new snapshot (a slow one sees only the latest).
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
