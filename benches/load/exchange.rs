//! One connection of the generator's and one exchange on it: send, read the whole answer, check it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::backend::grpc_message;
use crate::wire::{Body, Chunks, Line, malformed};
use crate::work::{
    ANSWER, FRAME_BYTES, GRPC_PATH, QUESTION, TENSOR_BYTES, TOKEN_MARK, Work, get, open_websocket, post,
};

/// A connect that takes longer has met a queue that is full, a handshake a proxy that hangs.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Digits of a token's stamp.
const STAMP_DIGITS: usize = 20;

pub(crate) enum Exchange {
    Grpc { sender: SendRequest<Full<Bytes>>, uri: http::Uri },
    Plain { line: Line, request: Rc<[u8]>, answer_bytes: usize },
    Websocket { line: Line, frame: [u8; 6 + FRAME_BYTES] },
}

impl Exchange {
    /// Connects and, where the protocol has one, shakes hands. Not for tokens, which are [`Stream`]s.
    pub(crate) async fn open(work: Work, to: SocketAddr, request: &Rc<[u8]>) -> io::Result<Self> {
        let stream = connect(to).await?;
        match work {
            Work::Grpc => in_time(grpc(stream, to)).await,
            Work::Websocket => in_time(websocket(stream)).await,
            Work::Json | Work::Tensor | Work::Tokens => {
                let answer_bytes = if work == Work::Tensor { TENSOR_BYTES } else { ANSWER.len() };
                Ok(Self::Plain { line: Line::new(stream), request: Rc::clone(request), answer_bytes })
            }
        }
    }

    /// There and back. After an error the connection is of no more use.
    pub(crate) async fn once(&mut self) -> io::Result<()> {
        match self {
            Self::Grpc { sender, uri } => call(sender, uri).await,
            Self::Plain { line, request, answer_bytes } => {
                line.send(request).await?;
                let head = line.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let length = line.skip_body(head.body).await?;
                if head.word != "200" {
                    return Err(io::Error::other(format!("status {}", head.word)));
                }
                if length != *answer_bytes {
                    return Err(io::Error::other(format!("{length} bytes of {answer_bytes}")));
                }
                if head.close { Err(io::Error::other("answered, but closes the connection")) } else { Ok(()) }
            }
            Self::Websocket { line, frame } => {
                line.send(frame).await?;
                let echo: [u8; 2 + FRAME_BYTES] = line.exactly().await?;
                if echo[2..] == frame[6..] { Ok(()) } else { Err(malformed("an echo")) }
            }
        }
    }
}

/// The bytes that [`Exchange::Plain`] sends each time.
pub(crate) fn request(work: Work) -> Rc<[u8]> {
    match work {
        Work::Tensor => post("/tensor", &vec![0x3f; TENSOR_BYTES]),
        _ => post("/predict", QUESTION),
    }
    .into()
}

pub(crate) async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = in_time(TcpStream::connect(to)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An error in place of waiting for ever.
pub(crate) async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(OPEN_TIMEOUT, work).await?
}

async fn grpc(stream: TcpStream, to: SocketAddr) -> io::Result<Exchange> {
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    sender.ready().await.map_err(io::Error::other)?;
    let uri = format!("http://{to}{GRPC_PATH}").parse().map_err(io::Error::other)?;
    Ok(Exchange::Grpc { sender, uri })
}

async fn call(sender: &mut SendRequest<Full<Bytes>>, uri: &http::Uri) -> io::Result<()> {
    let request = Request::post(uri.clone())
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(grpc_message(QUESTION)))
        .map_err(io::Error::other)?;
    sender.ready().await.map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let body = response.into_body().collect().await.map_err(io::Error::other)?;
    match body.trailers().and_then(|trailers| trailers.get("grpc-status")) {
        Some(status) if status == "0" => Ok(()),
        Some(status) => Err(io::Error::other(format!("grpc-status {status:?}"))),
        None => Err(io::Error::other("no grpc-status in the trailers")),
    }
}

async fn websocket(stream: TcpStream) -> io::Result<Exchange> {
    let mut line = Line::new(stream);
    line.send(&open_websocket("/echo")).await?;
    let head = line.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.word != "101" {
        return Err(io::Error::other(format!("status {} to the upgrade", head.word)));
    }
    let mut frame = [b'x'; 6 + FRAME_BYTES];
    frame[0] = 0x82;
    frame[1] = 0x80 | FRAME_BYTES as u8;
    // Masked with zero: the payload goes as it is.
    frame[2..6].fill(0);
    Ok(Exchange::Websocket { line, frame })
}

/// A token stream that is open.
pub(crate) struct Stream {
    line: Line,
    chunks: Option<Chunks>,
    stamps: Stamps,
}

impl Stream {
    pub(crate) async fn open(to: SocketAddr, path: &str) -> io::Result<Self> {
        let mut line = Line::new(connect(to).await?);
        line.send(&get(path)).await?;
        let head = in_time(line.head()).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if head.word != "200" {
            return Err(io::Error::other(format!("status {}", head.word)));
        }
        let chunks = (head.body == Body::Chunked).then(Chunks::default);
        Ok(Self { line, chunks, stamps: Stamps::default() })
    }

    /// Waits for the next bytes and calls `each` with every token's moment of sending in them.
    pub(crate) async fn next(&mut self, mut each: impl FnMut(u64)) -> io::Result<()> {
        let Self { line, chunks, stamps } = self;
        let bytes = line.more().await?;
        match chunks {
            Some(chunks) => {
                chunks.feed(bytes, |piece| stamps.feed(piece, &mut each))?;
                if chunks.done() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
            }
            None => {
                stamps.feed(bytes, each);
                Ok(())
            }
        }
    }
}

/// Finds the stamps in a stream that may be cut anywhere.
#[derive(Default)]
struct Stamps {
    matched: usize,
    digits: usize,
    value: u64,
}

impl Stamps {
    fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(u64)) {
        for &byte in bytes {
            if self.matched < TOKEN_MARK.len() {
                self.matched = if byte == TOKEN_MARK[self.matched] {
                    self.matched + 1
                } else {
                    usize::from(byte == TOKEN_MARK[0])
                };
            } else {
                self.value = self.value.wrapping_mul(10).wrapping_add(u64::from(byte.wrapping_sub(b'0')));
                self.digits += 1;
                if self.digits == STAMP_DIGITS {
                    each(self.value);
                    *self = Self::default();
                }
            }
        }
    }
}

/// Opens a slow token stream and holds it: what ten thousand of them cost in memory.
pub(crate) async fn hold(to: SocketAddr, path: &str) -> io::Result<Stream> {
    let mut stream = Stream::open(to, path).await?;
    let mut first = 0;
    while first == 0 {
        in_time(stream.next(|at| first = at)).await?;
    }
    Ok(stream)
}
