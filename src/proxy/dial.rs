//! New connections to the model server, over either protocol.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{interval, timeout};

use super::body::Upload;
use super::channels::Channel;
use super::pool::Sender;
use super::refusal::Reason;
use super::upstreams::Picked;
use super::worker::Worker;
use crate::limits;

/// Runs hyper's own tasks where the connection lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here;

impl<F> Executor<F> for Here
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}

/// A new HTTP/1.1 connection, for one request after the other.
pub(super) async fn http1(worker: &Worker, to: &Picked, within: Duration) -> Result<Sender, Reason> {
    let stream = connect(worker, to, within).await?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits::TRAFFIC_BUFFER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Reason::UpstreamUnreachable)?;
    // Ends with its sender, or when the model server closes; whoever waits on it is told by hyper.
    spawn_local(connection.with_upgrades());
    Ok(sender)
}

/// A shared HTTP/2 connection with room, dialled if there is none. `true`: it is new.
pub(super) async fn http2(worker: &Worker, to: &Picked, within: Duration) -> Result<(Rc<Channel>, bool), Reason> {
    let slot = worker.channels.borrow_mut().slot(to.address);
    let _turn = slot.turn().await;
    if let Some(channel) = slot.live().or_else(|| slot.least()) {
        return Ok((channel, false));
    }
    let stream = connect(worker, to, within).await?;
    let (sender, connection) = http2::Builder::new(Here)
        .initial_stream_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_UPSTREAM_WINDOW_BYTES)
        .max_send_buf_size(limits::TRAFFIC_BUFFER_BYTES_MAX)
        .max_header_list_size(limits::HEAD_BYTES_MAX as u32)
        // Nothing is sent before the model server has said how much it takes.
        .initial_max_send_streams(0)
        .handshake::<_, Upload>(TokioIo::new(stream))
        .await
        .map_err(|_| Reason::UpstreamUnreachable)?;
    let connection = Rc::new(RefCell::new(Some(connection)));
    let driven = Rc::clone(&connection);
    spawn_local(poll_fn(move |cx| {
        let mut connection = driven.borrow_mut();
        let ended = connection.as_mut().is_none_or(|connection| Pin::new(connection).poll(cx).is_ready());
        if !ended {
            return Poll::Pending;
        }
        *connection = None;
        Poll::Ready(())
    }));
    let channel = slot.install(sender, connection, worker.now());
    let _ = timeout(limits::H2_SETTINGS_WAIT, said_how_many(&channel)).await;
    Ok((channel, true))
}

/// Until the model server's settings are there, which is the first that it says. One that hangs never does: the
/// caller sends regardless, so that the request counts as one that is not answered.
async fn said_how_many(channel: &Channel) {
    let mut look = interval(limits::H2_SETTINGS_WAIT / 100);
    while channel.streams_max() == 0 && !channel.is_closed() {
        look.tick().await;
    }
}

/// A new connection, whatever is to be spoken on it.
pub(super) async fn connect(worker: &Worker, to: &Picked, within: Duration) -> Result<TcpStream, Reason> {
    let stream = match timeout(within, TcpStream::connect(to.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            worker.sign_refused(to.id);
            return Err(Reason::UpstreamRefused);
        }
        Ok(Err(_)) => return Err(Reason::UpstreamUnreachable),
        Err(_elapsed) => return Err(Reason::UpstreamConnectTimeout),
    };
    // A small request must not wait for an acknowledgement. Failing is harmless.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
