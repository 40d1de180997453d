//! Words from people and scripts to the engine: the admin listener speaks, the driver listens.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::engine::Forced;

/// One request to the running sidecar. The reply says what was done, or why not, in words for a person.
#[derive(Debug)]
pub enum Command {
    /// Begin the drain. A second one is a no-op that answers the same.
    Drain,
    /// Take the pod out of rotation by hand (`false`), or give the say back to the checks (`true`).
    SetReady(bool),
    /// Force a check's state until `ttl` has passed; `None` ends the override now.
    Override { check: String, forced: Option<Forced>, ttl: Duration },
    /// Read the configuration again, now.
    Reload,
    /// A pushed heartbeat for a `heartbeat` check; the body is its status text.
    Heartbeat { check: String, status: String },
}

/// Why a command was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No check of that name, or not of the kind that the command needs. The text names the nearest.
    #[error("{0}")]
    NotFound(String),
    /// The command itself is wrong (a TTL of nothing, a configuration with problems).
    #[error("{0}")]
    Invalid(String),
    /// The engine has ended; the process is about to.
    #[error("the engine has stopped")]
    Stopped,
}

/// A command on its way, with the place for its reply.
#[derive(Debug)]
pub struct Call {
    pub command: Command,
    pub reply: oneshot::Sender<Result<String, Refusal>>,
}

/// The speaking end, cloned freely over threads.
#[derive(Clone, Debug)]
pub struct Control(mpsc::Sender<Call>);

impl Control {
    /// A bounded line to the driver: 64 calls wait at most, later callers wait for a place.
    pub fn channel() -> (Self, mpsc::Receiver<Call>) {
        let (sender, receiver) = mpsc::channel(64);
        (Self(sender), receiver)
    }

    /// Says a command and waits for the answer.
    pub async fn call(&self, command: Command) -> Result<String, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Call { command, reply }).await.map_err(|_| Refusal::Stopped)?;
        answer.await.map_err(|_| Refusal::Stopped)?
    }
}
