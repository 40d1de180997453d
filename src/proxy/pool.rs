//! Idle connections to the model server, one pool per worker.
//!
//! Last in, first out: under falling load the rest ages and goes. Refuses connections that are closed, too
//! old, or still busy with something.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;

use super::body::Upload;
use crate::engine::Time;
use crate::limits;

/// The sending end of a connection to the model server.
pub(super) type Sender = SendRequest<Upload>;

/// Idle connections by address. A pod has few addresses: a list beats a map.
#[derive(Default)]
pub(super) struct Pool {
    idle: Vec<(SocketAddr, Vec<Idle>)>,
}

struct Idle {
    sender: Sender,
    since: Time,
}

impl Pool {
    /// The connection that was used last, if one is alive and younger than `max_idle`.
    pub(super) fn take(&mut self, address: SocketAddr, now: Time, max_idle: Duration) -> Option<Sender> {
        let (_, idle) = self.idle.iter_mut().find(|(at, _)| *at == address)?;
        while let Some(Idle { sender, since }) = idle.pop() {
            if now.since(since) >= max_idle {
                // The rest is older still.
                idle.clear();
                return None;
            }
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    /// Keeps a connection whose answer has been read to its end. One that is not at rest (an upload goes on, or
    /// the server said `close`) is dropped, and with it the connection.
    pub(super) fn put(&mut self, address: SocketAddr, sender: Sender, now: Time) {
        if !sender.is_ready() {
            return;
        }
        let entry = match self.idle.iter().position(|(at, _)| *at == address) {
            Some(index) => index,
            None => {
                self.idle.push((address, Vec::new()));
                self.idle.len() - 1
            }
        };
        let idle = &mut self.idle[entry].1;
        if idle.len() < limits::UPSTREAM_IDLE_MAX {
            idle.push(Idle { sender, since: now });
        }
    }

    /// Closes what is too old, dead, or no longer wanted, though no request comes.
    pub(super) fn sweep(&mut self, now: Time, max_idle: Duration, wanted: impl Fn(SocketAddr) -> bool) {
        self.idle.retain_mut(|(address, idle)| {
            let keep = wanted(*address);
            idle.retain(|one| keep && now.since(one.since) < max_idle && !one.sender.is_closed());
            !idle.is_empty()
        });
    }
}
