//! Idle connections to the model server, one pool per worker.
//!
//! Last in, first out: under falling load the rest ages and goes. Refuses connections that are closed, too
//! old, or still busy with something.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::net::TcpStream;

use super::body::Upload;
use crate::engine::Time;
use crate::limits;

/// The sending end of a connection to the model server, where hyper drives it.
pub(super) type Sender = SendRequest<Upload>;

/// What can be kept for another request.
pub(super) trait Keep {
    /// Whether it is at rest and may carry one now.
    fn is_ready(&self) -> bool;
    /// Whether it never will again.
    fn is_dead(&self) -> bool;
}

impl Keep for Sender {
    fn is_ready(&self) -> bool {
        Self::is_ready(self)
    }

    fn is_dead(&self) -> bool {
        self.is_closed()
    }
}

/// At rest a server has nothing to say. Asking costs no system call while the kernel has reported nothing.
impl Keep for TcpStream {
    fn is_ready(&self) -> bool {
        !self.is_dead()
    }

    fn is_dead(&self) -> bool {
        !matches!(self.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Idle connections by address. A pod has few addresses: a list beats a map.
pub(super) struct Pool<K> {
    idle: Vec<(SocketAddr, Vec<Idle<K>>)>,
}

struct Idle<K> {
    kept: K,
    since: Time,
}

impl<K> Default for Pool<K> {
    fn default() -> Self {
        Self { idle: Vec::new() }
    }
}

impl<K: Keep> Pool<K> {
    /// The connection that was used last, if one is alive and younger than `max_idle`.
    pub(super) fn take(&mut self, address: SocketAddr, now: Time, max_idle: Duration) -> Option<K> {
        let (_, idle) = self.idle.iter_mut().find(|(at, _)| *at == address)?;
        while let Some(Idle { kept, since }) = idle.pop() {
            if now.since(since) >= max_idle {
                // The rest is older still.
                idle.clear();
                return None;
            }
            if kept.is_ready() {
                return Some(kept);
            }
        }
        None
    }

    /// Keeps a connection whose answer has been read to its end. One that is not at rest (an upload goes on, or
    /// the server said `close`) is dropped, and with it the connection.
    pub(super) fn put(&mut self, address: SocketAddr, kept: K, now: Time) {
        if !kept.is_ready() {
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
            idle.push(Idle { kept, since: now });
        }
    }

    /// Closes what is too old, dead, or no longer wanted, though no request comes.
    pub(super) fn sweep(&mut self, now: Time, max_idle: Duration, wanted: impl Fn(SocketAddr) -> bool) {
        self.idle.retain_mut(|(address, idle)| {
            let keep = wanted(*address);
            idle.retain(|one| keep && now.since(one.since) < max_idle && !one.kept.is_dead());
            !idle.is_empty()
        });
    }
}
