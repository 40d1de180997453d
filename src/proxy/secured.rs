//! TLS on the way in: the handshake, before a byte of HTTP is read.
//!
//! It happens in the connection's own task, under the deadline of a first request's head, so that a client that
//! is slow at it holds up nobody. It refuses plain HTTP in words that its sender understands.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use super::connection::{Conn, unless_expired};
use super::refusal::Reason;
use crate::limits;

/// What is said to a client for whom there is no place, before any handshake: a fatal `internal_error`.
pub(super) const NO_ROOM: &[u8] = &[21, 3, 3, 0, 2, 2, 80];

const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nx-probegate-reason: tls_required\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 34\r\n\r\nthis port speaks HTTPS, not HTTP.\n";

/// Shakes hands. `None`: the connection is over.
pub(super) async fn handshake(
    conn: &Rc<Conn>,
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
) -> Option<TlsStream<TcpStream>> {
    let mut first = [0];
    let peeked = unless_expired(conn, pin!(stream.peek(&mut first))).await?;
    if peeked.ok()? == 1 && first[0].is_ascii_alphabetic() {
        conn.worker.counters().refuse(Reason::TlsRequired);
        // Whoever does not take these bytes is closed without them when the connection expires.
        let _ = unless_expired(conn, pin!(say(&mut stream, PLAIN))).await;
        return None;
    }
    let shaken = unless_expired(conn, pin!(TlsAcceptor::from(config).accept(stream))).await;
    let shaken = shaken.and_then(Result::ok);
    conn.worker.counters().shook_hands(shaken.is_some());
    shaken
}

/// Says it, and reads what comes until the client has closed: to close first, with bytes unread, would reset the
/// connection and may take our words from it.
async fn say(stream: &mut TcpStream, words: &[u8]) -> io::Result<()> {
    stream.write_all(words).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    for _ in 0..limits::HEAD_BYTES_MAX / rest.len() {
        if stream.read(&mut rest).await? == 0 {
            break;
        }
    }
    Ok(())
}
