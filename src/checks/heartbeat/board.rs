//! The last beat of every heartbeat that somebody sends to us.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::notify::Message;
use crate::config::{CheckSpec, HeartbeatSource, Kind};
use crate::engine::Time;
use crate::limits::{HEARTBEAT_EXTENSION_MAX, HEARTBEAT_STATUS_BYTES_MAX};

/// A beat that changes nothing wakes its check at most this often: a server may send thousands a second.
const POKE_INTERVAL: Duration = Duration::from_secs(1);

/// The last beat of each heartbeat check. It outlives a reload: a beat belongs to the server, not to the file.
#[derive(Debug, Default)]
pub struct Board(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pushed: BTreeMap<String, Beat>,
    /// The checks that listen to the notification socket; they all hear the same server.
    listeners: Vec<String>,
    life: Life,
    last_poke: Option<Time>,
}

/// What is known of one pushed heartbeat.
#[derive(Clone, Debug)]
pub(super) struct Beat {
    pub(super) expected_since: Time,
    pub(super) last: Option<Time>,
    pub(super) status: String,
}

/// What the server has said of itself by datagram.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) ready: bool,
    pub(super) stopping: bool,
    pub(super) triggered: bool,
    pub(super) last_beat: Option<Time>,
    pub(super) extended_until: Option<Time>,
    pub(super) status: String,
}

/// A heartbeat that no check waits for. The message is for who sent it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no pushed heartbeat is named \"{name}\"{}", known(.expected))]
pub struct Unexpected {
    /// As it was sent.
    pub name: String,
    /// The names that would have been accepted.
    pub expected: Vec<String>,
}

fn known(expected: &[String]) -> String {
    if expected.is_empty() { String::new() } else { format!("; expected: {}", expected.join(", ")) }
}

impl Board {
    /// Tells which heartbeats are expected from now on. Beats of those that stay are kept.
    pub fn expect(&self, checks: &[CheckSpec], now: Time) {
        let named = |wanted: HeartbeatSource| {
            checks.iter().filter_map(move |check| match &check.kind {
                Kind::Heartbeat(spec) if spec.source == wanted => Some(check.name.clone()),
                _ => None,
            })
        };
        let mut state = self.state();
        let mut before = std::mem::take(&mut state.pushed);
        for name in named(HeartbeatSource::Push) {
            let fresh = || Beat { expected_since: now, last: None, status: String::new() };
            let beat = before.remove(&name).unwrap_or_else(fresh);
            state.pushed.insert(name, beat);
        }
        state.listeners = named(HeartbeatSource::Notify).collect();
    }

    /// Notes a pushed beat and its status text, of which control characters and whatever is past
    /// [`HEARTBEAT_STATUS_BYTES_MAX`] are dropped. The check of that name is worth running now.
    ///
    /// # Errors
    /// No `heartbeat` check of that name takes pushed beats.
    pub fn beat(&self, check: &str, status: &str, now: Time) -> Result<(), Unexpected> {
        let mut state = self.state();
        if let Some(beat) = state.pushed.get_mut(check) {
            beat.last = beat.last.max(Some(now));
            beat.status = fit(status);
            return Ok(());
        }
        let name = fit(check);
        Err(Unexpected { name, expected: state.pushed.keys().cloned().collect() })
    }

    /// Notes what a datagram said. Returns the checks that are worth running now: all that listen when the
    /// message changes what they would say, else none more often than once a second.
    pub fn hear(&self, message: &Message, now: Time) -> Vec<String> {
        let mut state = self.state();
        let turned = state.life.hear(message, now);
        let rested = state.last_poke.is_none_or(|last| now.since(last) >= POKE_INTERVAL);
        if turned || (message.is_beat() && rested) {
            state.last_poke = Some(now);
            return state.listeners.clone();
        }
        Vec::new()
    }

    pub(super) fn pushed(&self, name: &str) -> Option<Beat> {
        self.state().pushed.get(name).cloned()
    }

    pub(super) fn notified(&self) -> Life {
        self.state().life.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    /// Whether it turned: ready, stopping or triggered differ from before.
    fn hear(&mut self, message: &Message, now: Time) -> bool {
        let before = (self.ready, self.stopping, self.triggered);
        if message.ready {
            // A server that is ready after it was stopping is a new one, and so is its watchdog.
            *self = Self { ready: true, status: std::mem::take(&mut self.status), ..Self::default() };
        }
        if message.is_beat() {
            self.last_beat = Some(now);
            self.extended_until = None;
        }
        if let Some(extension) = message.extend {
            self.extended_until = Some(now + extension.min(HEARTBEAT_EXTENSION_MAX));
        }
        if let Some(status) = &message.status {
            self.status = fit(status);
        }
        // Last: a message that says both is about the end.
        self.triggered |= message.trigger;
        self.stopping |= message.stopping;
        before != (self.ready, self.stopping, self.triggered)
    }
}

/// A status fit for a line on a terminal.
fn fit(status: &str) -> String {
    let mut fitted = String::new();
    for c in status.trim().chars().filter(|c| !c.is_control()) {
        if fitted.len() + c.len_utf8() > HEARTBEAT_STATUS_BYTES_MAX {
            break;
        }
        fitted.push(c);
    }
    fitted
}
