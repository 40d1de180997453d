//! What follows a `101`: bytes both ways until either side is done.
//!
//! The tunnel counts as a request in flight and as an open connection of its worker until it ends.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::task::spawn_local;

use super::connection::Open;
use super::forward::Ticket;
use super::refusal::Reason;

/// Joins client and upstream once both have switched.
pub(super) fn tunnel(ticket: Ticket, client: OnUpgrade, upstream: OnUpgrade) {
    let open = Open::new(&ticket.conn.worker);
    spawn_local(async move {
        // Counted as open until here, so that a finishing worker waits for it.
        let _open = open;
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else {
            ticket.fail(Reason::UpstreamAborted);
            return;
        };
        // How a tunnel ends is its protocol's business: a reset is an end like any other.
        let (sent, received) =
            copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await.unwrap_or_default();
        tracing::trace!(sent, received, "tunnel ended");
        ticket.finish_tunnel();
    });
}
