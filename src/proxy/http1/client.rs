//! The client's end: reads requests, holds what cannot go on yet, notices when nobody is there any more.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderName};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

use super::request::{self, Request, Rules};
use super::scratch::Scratch;
use crate::limits;
use crate::proxy::connection::Conn;
use crate::proxy::refusal::Reason;

/// What a client that is still owed an answer may send ahead.
const AHEAD_BYTES_MAX: usize = limits::TRAFFIC_BUFFER_BYTES_MAX;
/// How long a client may go on sending what nobody will read, so that it sees why.
const LINGER: Duration = Duration::from_secs(2);
/// How soon, and then how often, it is looked whether a client that sends no more has left.
const RESET_LOOK_FIRST: Duration = Duration::from_millis(1);
const RESET_LOOK: Duration = Duration::from_millis(100);

/// A stream that requests come by.
pub(in crate::proxy) trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// The connection under it.
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// One client connection.
pub(super) struct Client<S> {
    stream: S,
    /// Read and not yet understood: part of a head, or what was sent ahead.
    held: Vec<u8>,
    /// `held` has not been looked at since it grew.
    fresh: bool,
    /// Written and not yet taken, from `taken` on.
    pending: Vec<u8>,
    taken: usize,
    end: End,
}

/// What is known of the client's end of the connection.
enum End {
    Open,
    /// It will send no more. It may have left, or wait for its answer still: a reset would tell.
    Closed(Pin<Box<dyn Future<Output = ()>>>),
}

impl<S: Wire> Client<S> {
    /// `first`: bytes that were read already.
    pub(super) fn new(stream: S, first: Vec<u8>) -> Self {
        Self { stream, fresh: !first.is_empty(), held: first, pending: Vec::new(), taken: 0, end: End::Open }
    }

    /// The stream, and what was read from it and not used.
    pub(super) fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.held)
    }

    // Requests.

    /// The next request's head, with what is there of its body. `None`: no request will come.
    pub(super) fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        conn: &Conn,
        rules: Rules,
    ) -> Poll<Option<Result<Request, Reason>>> {
        let scratch = &conn.worker.scratch;
        loop {
            if !conn.poll_alive(cx) || (self.held.is_empty() && conn.worker.connections.is_finishing()) {
                return Poll::Ready(None);
            }
            if std::mem::take(&mut self.fresh) {
                let held = std::mem::take(&mut self.held);
                if let Some(read) = self.understand(&held, scratch, rules) {
                    return Poll::Ready(Some(read));
                }
                self.held = held;
            }
            let Ok(count) = ready!(self.poll_read(cx, scratch)) else { return Poll::Ready(None) };
            let input = &scratch.input()[..count];
            if count == 0 {
                // Whoever breaks off within a head is told nothing: nobody listens.
                return Poll::Ready(None);
            }
            if self.held.is_empty() {
                match self.understand(input, scratch, rules) {
                    Some(read) => return Poll::Ready(Some(read)),
                    None => self.held.extend_from_slice(input),
                }
            } else {
                self.held.extend_from_slice(input);
                self.fresh = input.contains(&b'\n') || limits::HEAD_BYTES_MAX <= self.held.len();
            }
        }
    }

    /// Reads the head that `input` begins with. What lies behind the request is held for the next.
    fn understand(&mut self, input: &[u8], scratch: &Scratch, rules: Rules) -> Option<Result<Request, Reason>> {
        let (mut request, length) = match request::read(input, scratch.buffer(), rules) {
            Ok(read) => read?,
            Err(reason) => return Some(Err(reason)),
        };
        let body = &input[length..];
        let mut received = 0;
        let Ok(count) = request.body.read(body, |data| received += data.len()) else {
            return Some(Err(Reason::BadRequest));
        };
        request.received = received;
        request.out.extend_from_slice(&body[..count]);
        self.hold(&body[count..]);
        Some(Ok(request))
    }

    /// Keeps what was read for later.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.held.extend_from_slice(bytes);
            self.fresh = true;
        }
    }

    /// Reads more of a body: into the worker's buffer, from what is held first.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> Poll<io::Result<usize>> {
        if self.held.is_empty() {
            return self.poll_read(cx, scratch);
        }
        let mut input = scratch.input();
        let count = self.held.len().min(input.len());
        input[..count].copy_from_slice(&self.held[..count]);
        self.held.drain(..count);
        self.release();
        Poll::Ready(Ok(count))
    }

    fn release(&mut self) {
        if self.held.is_empty() {
            self.held = Vec::new();
            self.fresh = false;
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> Poll<io::Result<usize>> {
        let mut input = scratch.input();
        let mut buffer = ReadBuf::new(&mut input);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    // Whether somebody is there.

    /// Ready once the client has left. What it sends meanwhile is held. `ask`: it may be asked, by an interim
    /// answer, whether it still listens though it sends no more; a client that left resets the connection then.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>, scratch: &Scratch, ask: Ask) -> Poll<()> {
        loop {
            if let End::Closed(reset) = &mut self.end {
                return reset.as_mut().poll(cx);
            }
            if AHEAD_BYTES_MAX <= self.held.len() {
                return Poll::Pending;
            }
            match ready!(self.poll_read(cx, scratch)) {
                Ok(0) => match ask {
                    Ask::Nothing => return Poll::Ready(()),
                    Ask::Wait | Ask::Interim => {
                        if ask == Ask::Interim {
                            self.pending.extend_from_slice(CONTINUE);
                            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                                return Poll::Ready(());
                            }
                        }
                        let Some(reset) = reset_of(self.stream.tcp()) else { return Poll::Ready(()) };
                        self.end = End::Closed(reset);
                    }
                },
                Ok(count) => {
                    let input = scratch.input();
                    self.hold(&input[..count]);
                }
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// It will send no other request.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.end, End::Closed(_))
    }

    // Answers.

    /// Where an answer's head is written.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Tells the client that its body is wanted.
    pub(super) fn ask_for_body(&mut self) {
        self.pending.extend_from_slice(CONTINUE);
    }

    /// Hands bytes on, after all that came before; what is not taken is kept.
    pub(super) fn pass(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while self.pending.is_empty() && !rest.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, rest)? {
                Poll::Ready(count) => rest = &rest[count..],
                Poll::Pending => break,
            }
        }
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    /// Ready once everything has been taken.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(poll_write_all(cx, &mut self.stream, &self.pending, &mut self.taken))?;
        self.taken = 0;
        self.pending.clear();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Whether bytes wait to be taken.
    pub(super) const fn owes(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Lends a buffer for the time of an exchange, and takes it back.
    pub(super) fn lend(&mut self, scratch: &Scratch) {
        if self.pending.capacity() == 0 {
            self.pending = scratch.buffer();
        }
    }

    /// The opposite of [`Client::lend`], once nothing is owed.
    pub(super) fn give_back(&mut self, scratch: &Scratch) {
        if self.pending.is_empty() {
            scratch.put(std::mem::take(&mut self.pending));
        }
    }

    /// Writes an answer of our own.
    pub(super) fn respond(&mut self, response: &Response<Bytes>, asked: Asked) {
        let out = &mut self.pending;
        let status = response.status();
        out.extend_from_slice(if asked.http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
        out.extend_from_slice(status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\n");
        let mut add = |name: &HeaderName, value: &[u8]| {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        };
        for (name, value) in response.headers() {
            add(name, value.as_bytes());
        }
        if !response.headers().contains_key(CONTENT_LENGTH) {
            add(&CONTENT_LENGTH, response.body().len().to_string().as_bytes());
        }
        match (asked.keep_alive, asked.http10) {
            (false, _) => out.extend_from_slice(b"connection: close\r\n"),
            (true, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, false) => {}
        }
        out.extend_from_slice(b"\r\n");
        if !asked.is_head {
            out.extend_from_slice(response.body());
        }
    }

    /// Ends the connection. `unread`: the client may still be sending, and is given time to see its answer first,
    /// which a reset would destroy.
    pub(super) async fn close(mut self, scratch: &Scratch, unread: bool) {
        if self.stream.shutdown().await.is_ok() && unread {
            let drained = std::future::poll_fn(|cx| {
                while let Ok(1..) = ready!(self.poll_read(cx, scratch)) {}
                Poll::Ready(())
            });
            let _ = timeout(LINGER, drained).await;
        }
    }
}

/// Writes `bytes` from `taken` on. Ready once all have been taken.
pub(in crate::proxy) fn poll_write_all<W: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    to: &mut W,
    bytes: &[u8],
    taken: &mut usize,
) -> Poll<io::Result<()>> {
    while *taken < bytes.len() {
        let count = ready!(Pin::new(&mut *to).poll_write(cx, &bytes[*taken..]))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        *taken += count;
    }
    Poll::Ready(Ok(()))
}

/// What an answer must fit.
pub(super) use super::response::Asked;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a client that sends no more is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ask {
    /// It counts as gone: a stream's reader that closes does not want the rest.
    Nothing,
    /// Its answer is on the way and will tell.
    Wait,
    /// Whether it listens.
    Interim,
}

/// Ready soon after the connection was reset. Its readable end has said its last word, so that the runtime has
/// nothing to wake anybody for: it is looked at now and then.
fn reset_of(stream: &TcpStream) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    let twin = SockRef::from(stream).try_clone().ok()?;
    Some(Box::pin(async move {
        let mut pause = RESET_LOOK_FIRST;
        while let Ok(None) = twin.take_error() {
            sleep(pause).await;
            pause = (2 * pause).min(RESET_LOOK);
        }
    }))
}
