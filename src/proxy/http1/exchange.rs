//! One request on one connection to the model server, and its answer back: both directions at once, in one task.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::client::{Ask, Client, Wire};
use super::framing::Body;
use super::request::Request;
use super::response::{self, Answer, Asked, Passing, Response};
use crate::proxy::access;
use crate::proxy::forward::Ticket;
use crate::proxy::refusal::Reason;
use crate::proxy::tally::{Turn, Verdict};

/// A request on its way.
pub(super) struct Exchange<'a, S> {
    pub(super) client: &'a mut Client<S>,
    pub(super) request: &'a mut Request,
    pub(super) ticket: &'a mut Ticket,
    pub(super) asked: Asked,
    pub(super) link: &'a mut TcpStream,
    /// The connection has carried a request before, and may have died since.
    pub(super) reused: bool,
    /// The request's turn at this upstream, until it answers.
    pub(super) turn: &'a mut Option<Turn>,
    /// How long the server may take for its first byte.
    pub(super) patience: Option<Pin<Box<Sleep>>>,
    upload: Upload,
    download: Download,
}

/// What has gone up.
#[derive(Debug, Default)]
struct Upload {
    /// Bytes of the request's buffer that were written.
    written: usize,
    /// Anything was written.
    begun: bool,
    /// The server takes no more.
    refused: bool,
    told_to_continue: bool,
}

/// What has come down.
#[derive(Debug)]
enum Download {
    /// Of the head, this much.
    Head(Vec<u8>),
    Body(Response),
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Whole. What it says of both connections is in the answer.
    Whole(Response),
    /// The server switched: a tunnel from here on, these bytes of the server's first.
    Switched(Vec<u8>),
    /// The kept connection was dead. Nothing has happened: the request may go by another.
    Dead,
    /// No head came.
    Failed(Reason),
    /// After its head the answer broke off. The client cannot be told but by the same.
    Broken,
    /// The client left, or ran out of time.
    Gone,
}

/// What one step achieved.
type Step = Result<bool, Ended>;

impl<'a, S: Wire> Exchange<'a, S> {
    pub(super) fn new(
        client: &'a mut Client<S>,
        request: &'a mut Request,
        ticket: &'a mut Ticket,
        asked: Asked,
        (link, reused): (&'a mut TcpStream, bool),
        turn: &'a mut Option<Turn>,
        patience: Option<Pin<Box<Sleep>>>,
    ) -> Self {
        let upload = Upload::default();
        let download = Download::Head(Vec::new());
        Self { client, request, ticket, asked, link, reused, turn, patience, upload, download }
    }

    /// Drives it as far as it goes.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if !self.ticket.conn.poll_alive(cx) {
            return Poll::Ready(Ended::Gone);
        }
        loop {
            match self.step(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(ended) => return Poll::Ready(ended),
            }
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Step {
        let up = self.upload(cx)?;
        let down = self.download(cx)?;
        if !up && !down {
            self.watch(cx)?;
        }
        Ok(up || down)
    }

    // Up.

    fn upload(&mut self, cx: &mut Context<'_>) -> Step {
        if self.upload.refused {
            return Ok(false);
        }
        if self.upload.written < self.request.out.len() {
            return self.write(cx);
        }
        if self.request.body.is_over() {
            return Ok(false);
        }
        if self.request.expects && !std::mem::replace(&mut self.upload.told_to_continue, true) {
            self.client.ask_for_body();
        }
        let conn = &self.ticket.conn;
        let count = match self.client.poll_body(cx, &conn.worker.scratch) {
            Poll::Ready(Ok(count)) if count > 0 => count,
            Poll::Ready(_) => return Err(Ended::Gone),
            Poll::Pending => {
                conn.awaits_body();
                return Ok(false);
            }
        };
        conn.got_body();
        let input = conn.worker.scratch.input();
        let mut received = 0;
        let read = self.request.body.read(&input[..count], |data| received += data.len());
        let Ok(used) = read else { return Err(self.malformed()) };
        conn.worker.counters().received(received);
        access::received(&conn.worker, self.ticket.record(), received);
        self.client.hold(&input[used..count]);
        self.request.out.clear();
        self.upload.written = 0;
        match Pin::new(&mut *self.link).poll_write(cx, &input[..used]) {
            Poll::Ready(Ok(written)) => self.request.out.extend_from_slice(&input[written..used]),
            Poll::Ready(Err(_)) => self.upload.refused = true,
            Poll::Pending => self.request.out.extend_from_slice(&input[..used]),
        }
        Ok(true)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Step {
        match Pin::new(&mut *self.link).poll_write(cx, &self.request.out[self.upload.written..]) {
            Poll::Ready(Ok(count)) => {
                self.upload.begun = true;
                self.upload.written += count;
                Ok(true)
            }
            // It may have answered before it closed.
            Poll::Ready(Err(_)) => {
                self.upload.refused = true;
                self.ticket.conn.got_body();
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }

    /// The client's body is none. Before the answer's head it can be told.
    fn malformed(&self) -> Ended {
        match self.download {
            Download::Head(_) => Ended::Failed(Reason::BadRequest),
            Download::Body(_) => Ended::Gone,
        }
    }

    // Down.

    fn download(&mut self, cx: &mut Context<'_>) -> Step {
        if self.client.owes() {
            match self.client.poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Ended::Gone),
                Poll::Pending => return Ok(false),
            }
        }
        let read = {
            let mut input = self.ticket.conn.worker.scratch.input();
            let mut buffer = ReadBuf::new(&mut input);
            match Pin::new(&mut *self.link).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => Ok(buffer.filled().len()),
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => return Ok(false),
            }
        };
        match &mut self.download {
            Download::Head(_) => self.head(cx, read),
            Download::Body(_) => self.body(cx, read),
        }
    }

    fn head(&mut self, cx: &mut Context<'_>, read: io::Result<usize>) -> Step {
        let Download::Head(held) = &mut self.download else { return Ok(true) };
        let count = match read {
            Ok(count) if count > 0 => count,
            Ok(_) | Err(_) if held.is_empty() => return Err(self.died()),
            Ok(_) | Err(_) => return Err(Ended::Failed(Reason::UpstreamReset)),
        };
        let conn = std::rc::Rc::clone(&self.ticket.conn);
        let input = conn.worker.scratch.input();
        if held.is_empty() {
            return self.read_head(cx, &input[..count]);
        }
        let mut held = std::mem::take(held);
        held.extend_from_slice(&input[..count]);
        drop(input);
        self.read_head(cx, &held)
    }

    fn read_head(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Step {
        let mut rest = input;
        let keep_alive = self.asked.keep_alive && !self.ticket.conn.is_leaving();
        let asked = Asked { keep_alive, ..self.asked };
        loop {
            let read = response::read(rest, self.client.out(), asked);
            let Ok(read) = read else { return Err(Ended::Failed(Reason::UpstreamInvalid)) };
            match read {
                None => {
                    self.download = Download::Head(rest.to_vec());
                    return Ok(true);
                }
                Some((Answer::Interim, length)) => rest = &rest[length..],
                Some((Answer::Final(response), length)) => {
                    self.patience = None;
                    self.ticket.taken(self.turn.take());
                    let verdict = Verdict::of_head(response.status, response.retry_after);
                    self.ticket.answered(response.status, verdict, &response.substance);
                    if response.status == 101 {
                        return Err(Ended::Switched(rest[length..].to_vec()));
                    }
                    self.download = Download::Body(response);
                    return self.pass(cx, &rest[length..]);
                }
            }
        }
    }

    /// The connection ended before a byte of the answer.
    fn died(&self) -> Ended {
        let untouched = self.reused && !self.upload.begun;
        // What has been sent of a body is not there any more.
        let again = self.reused && self.request.is_safe && !self.asked.upgrade && self.request.body.is_over();
        if untouched || (again && self.request.received == 0) {
            Ended::Dead
        } else {
            Ended::Failed(Reason::UpstreamReset)
        }
    }

    fn body(&mut self, cx: &mut Context<'_>, read: io::Result<usize>) -> Step {
        match (read, &self.download) {
            (Ok(count), _) if count > 0 => {
                let conn = std::rc::Rc::clone(&self.ticket.conn);
                let input = conn.worker.scratch.input();
                self.pass(cx, &input[..count])
            }
            (Ok(_), Download::Body(Response { body: Body::UntilClose, .. })) => Err(self.whole()),
            _ => Err(Ended::Broken),
        }
    }

    /// Hands bytes of the answer on. With the head still to be written, both go together.
    fn pass(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Step {
        let Download::Body(response) = &mut self.download else { return Ok(true) };
        let (mut bytes, mut substance) = (0, false);
        let mut contents = Vec::new();
        let passing = response.passing;
        let read = response.body.read(input, |data| {
            bytes += data.len();
            substance |= response.substance.has(data);
            if passing == Passing::Unchunk {
                contents.extend_from_slice(data);
            }
        });
        let Ok(used) = read else { return Err(Ended::Broken) };
        let is_over = response.body.is_over();
        response.reusable &= used == input.len();
        // The end of chunks is the server's word, too.
        substance |= is_over && matches!(response.body, Body::Chunked(_));
        if used > 0 {
            self.ticket.passed(bytes, substance);
        }
        let passed = match passing {
            // With the head, or with the end: what is counted is counted before the client has all of it.
            Passing::AsIs if is_over || self.client.owes() => {
                self.client.out().extend_from_slice(&input[..used]);
                Ok(())
            }
            Passing::AsIs => self.client.pass(cx, &input[..used]),
            Passing::Unchunk => {
                self.client.out().extend_from_slice(&contents);
                Ok(())
            }
            Passing::Chunk => {
                chunk(self.client.out(), &input[..used]);
                Ok(())
            }
        };
        if passed.is_err() {
            return Err(Ended::Gone);
        }
        if is_over { Err(self.whole()) } else { Ok(true) }
    }

    fn whole(&mut self) -> Ended {
        let Download::Body(mut response) = std::mem::replace(&mut self.download, Download::Head(Vec::new())) else {
            return Ended::Broken;
        };
        if response.passing == Passing::Chunk {
            self.client.out().extend_from_slice(b"0\r\n\r\n");
        }
        // What is left of the request nobody wants any more.
        let sent = self.request.body.is_over() && self.upload.written == self.request.out.len();
        response.reusable &= sent && !self.upload.refused;
        response.keep_alive &= self.request.body.is_over() && !self.client.is_closed();
        Ended::Whole(response)
    }

    // Meanwhile.

    /// Nothing moves: is anybody still there, and is there still time?
    fn watch(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(cx).is_ready()
        {
            return Err(Ended::Failed(Reason::FirstByteTimeout));
        }
        // While a body comes, its end tells.
        if !self.request.body.is_over() && !self.upload.refused {
            return Ok(());
        }
        let ask = match &self.download {
            Download::Head(_) if self.asked.http10 => Ask::Wait,
            Download::Head(_) => Ask::Interim,
            Download::Body(response) if response.body.left().is_some() => Ask::Wait,
            Download::Body(_) => Ask::Nothing,
        };
        let gone = self.client.poll_gone(cx, &self.ticket.conn.worker.scratch, ask);
        if gone.is_ready() { Err(Ended::Gone) } else { Ok(()) }
    }
}

fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}
