//! As much HTTP/1.1 as a generator and a fixed backend need, by hand, so that the load core spends its time on
//! load: heads, bodies by length and by chunk. It refuses what it does not know instead of guessing.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Neither side of the bench sends a longer head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A head of the bench's fits in one such read, and ten thousand connections hold one each.
const HEAD_READ_BYTES: usize = 512;
const BODY_READ_BYTES: usize = 64 * 1024;

/// How a message's body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Body {
    Chunked,
    Length(usize),
    /// Neither header: none in a request, until the end of the connection in a response.
    Unsaid,
}

/// What is read of a head.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Head {
    pub(crate) body: Body,
    /// The peer will close after this message.
    pub(crate) close: bool,
    /// The first line's second word: a path, or a status.
    pub(crate) word: String,
}

/// One side of a connection with what was read ahead.
pub(crate) struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The unread part of `buffer`.
    from: usize,
}

impl Line {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::with_capacity(512), from: 0 }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next head, or none if the peer closed between messages.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        let mut looked = 0;
        loop {
            let unread = &self.buffer[self.from..];
            if let Some(end) = end_of_head(unread, looked) {
                let head = parse_head(&unread[..end])?;
                self.from += end;
                return Ok(Some(head));
            }
            if unread.len() > HEAD_BYTES_MAX {
                return Err(malformed("a head over 16 KiB"));
            }
            looked = unread.len().saturating_sub(3);
            if self.fill(HEAD_READ_BYTES).await? == 0 {
                return if self.from == self.buffer.len() { Ok(None) } else { Err(cut_off()) };
            }
        }
    }

    /// Reads past `length` bytes of body.
    pub(crate) async fn skip(&mut self, mut length: usize) -> io::Result<()> {
        loop {
            let here = (self.buffer.len() - self.from).min(length);
            self.from += here;
            length -= here;
            if length == 0 {
                return Ok(());
            }
            if self.fill(length.min(BODY_READ_BYTES)).await? == 0 {
                return Err(cut_off());
            }
        }
    }

    /// Reads past a whole body; its length in bytes.
    pub(crate) async fn skip_body(&mut self, body: Body) -> io::Result<usize> {
        match body {
            Body::Length(length) => self.skip(length).await.map(|()| length),
            Body::Unsaid => Ok(0),
            Body::Chunked => {
                let mut chunks = Chunks::default();
                let mut length = 0;
                loop {
                    let used = chunks.feed(&self.buffer[self.from..], |piece| length += piece.len())?;
                    self.from += used;
                    if chunks.done() {
                        return Ok(length);
                    }
                    if self.fill(BODY_READ_BYTES).await? == 0 {
                        return Err(cut_off());
                    }
                }
            }
        }
    }

    /// More bytes of a body that has no end, at least one; an end of the connection is an error.
    pub(crate) async fn more(&mut self) -> io::Result<&[u8]> {
        if self.from == self.buffer.len() && self.fill(HEAD_READ_BYTES).await? == 0 {
            return Err(cut_off());
        }
        let from = std::mem::replace(&mut self.from, self.buffer.len());
        Ok(&self.buffer[from..])
    }

    /// Exactly `N` bytes.
    pub(crate) async fn exactly<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        loop {
            if let Some(bytes) = self.buffer[self.from..].first_chunk::<N>() {
                let bytes = *bytes;
                self.from += N;
                return Ok(bytes);
            }
            if self.fill(HEAD_READ_BYTES).await? == 0 {
                return Err(cut_off());
            }
        }
    }

    /// Reads what there is, into room for at least `room` bytes; 0 at the end. What was consumed makes way first.
    async fn fill(&mut self, room: usize) -> io::Result<usize> {
        if self.from == self.buffer.len() {
            self.buffer.clear();
            self.from = 0;
        } else if self.from > BODY_READ_BYTES {
            self.buffer.drain(..self.from);
            self.from = 0;
        }
        self.buffer.reserve(room);
        self.stream.read_buf(&mut self.buffer).await
    }
}

/// Undoes the chunked coding, piece by piece, wherever the network cut it.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: ChunkState,
    /// Of the chunk at hand: the size as read so far, then what is left of it.
    left: usize,
}

#[derive(Debug, Default, Eq, PartialEq)]
enum ChunkState {
    #[default]
    Size,
    Data,
    /// The line end after a chunk's data.
    DataEnd,
    /// After the last chunk, at a line's start; the flag says that the line has something in it.
    Trailer {
        filled: bool,
    },
    Done,
}

impl Chunks {
    /// Takes bytes off the wire, hands body bytes to `each`, returns how many it took (all, unless done).
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut at = 0;
        while at < bytes.len() && !self.done() {
            match &mut self.state {
                ChunkState::Data => {
                    let here = self.left.min(bytes.len() - at);
                    each(&bytes[at..at + here]);
                    at += here;
                    self.left -= here;
                    if self.left == 0 {
                        self.state = ChunkState::DataEnd;
                    }
                    continue;
                }
                ChunkState::Size => match bytes[at] {
                    b'\n' if self.left == 0 => self.state = ChunkState::Trailer { filled: false },
                    b'\n' => self.state = ChunkState::Data,
                    b'\r' => {}
                    digit => {
                        let digit = char::from(digit).to_digit(16).ok_or_else(|| malformed("a chunk size"))?;
                        self.left = self.left * 16 + digit as usize;
                    }
                },
                ChunkState::DataEnd => match bytes[at] {
                    b'\n' => self.state = ChunkState::Size,
                    b'\r' => {}
                    _ => return Err(malformed("a chunk's end")),
                },
                ChunkState::Trailer { filled } => match bytes[at] {
                    b'\n' if *filled => *filled = false,
                    b'\n' => self.state = ChunkState::Done,
                    b'\r' => {}
                    _ => *filled = true,
                },
                ChunkState::Done => {}
            }
            at += 1;
        }
        Ok(at)
    }

    pub(crate) fn done(&self) -> bool {
        self.state == ChunkState::Done
    }
}

/// Where the head's empty line ends, if it is there; nothing ends before `looked`.
fn end_of_head(bytes: &[u8], looked: usize) -> Option<usize> {
    bytes[looked..].windows(4).position(|window| window == b"\r\n\r\n").map(|at| looked + at + 4)
}

fn parse_head(bytes: &[u8]) -> io::Result<Head> {
    let text = str::from_utf8(bytes).map_err(|_| malformed("a head that is no text"))?;
    let mut lines = text.split("\r\n");
    let word = lines.next().and_then(|first| first.split(' ').nth(1)).ok_or_else(|| malformed("a first line"))?;
    let mut head = Head { body: Body::Unsaid, close: false, word: word.to_owned() };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("a header line"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.body = Body::Length(value.parse().map_err(|_| malformed("a content-length"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.body = Body::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            head.close = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(head)
}

pub(crate) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed: {what}"))
}

fn cut_off() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
