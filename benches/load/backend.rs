//! The fixed model server behind every contender, a process of its own: answers at once, always the same, and as
//! cheaply as it can, because it shares the load core with the generator. HTTP/1.1 by hand, gRPC by hyper.
//!
//! It lives as long as its standard input stays open, so that it never outlives the bench.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, combinators::WithTrailers};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::clock;
use crate::wire::{Body, Line, malformed};
use crate::work::{ANSWER, FRAME_BYTES, GRPC_PATH, TENSOR_BYTES, TOKEN_INTERVAL_MS, WEBSOCKET_OPENED};

/// Ten thousand connections may come at once; the kernel caps it at `somaxconn`.
const BACKLOG: i32 = 16_384;
/// Of a request body, no more is ever sent.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// Serves until standard input ends; prints its address first.
pub(crate) fn run() -> io::Result<()> {
    serve_until_parent_ends(BACKLOG, |stream| async move {
        let _ = connection(stream).await;
    })
}

/// The prober's floor: accepts, reads a head, answers as a probe is answered, closes. Nothing is cheaper.
pub(crate) fn run_bare() -> io::Result<()> {
    serve_until_parent_ends(BACKLOG, |stream| async move {
        let mut line = Line::new(stream);
        if let Ok(Some(_)) = line.head().await {
            let _ = line
                .send(b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\nconnection: close\r\n\r\n{\"status\":\"pass\"}")
                .await;
        }
    })
}

fn serve_until_parent_ends<F>(backlog: i32, each: impl Fn(TcpStream) -> F + 'static) -> io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Reads block, so they have a thread: the end of the parent is the end of this process.
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
    LocalSet::new().block_on(&runtime, async move {
        let listener = listen(backlog)?;
        println!("{}", listener.local_addr()?);
        loop {
            // Out of descriptors: the next close makes room.
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            tokio::task::spawn_local(each(stream));
        }
    })
}

fn listen(backlog: i32) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(backlog)?;
    TcpListener::from_std(socket.into())
}

async fn connection(stream: TcpStream) -> io::Result<()> {
    let mut first = [0; 3];
    if stream.peek(&mut first).await? == 3 && &first == b"PRI" {
        return grpc(stream).await;
    }
    let answer = plain(ANSWER, "application/json");
    let mut tensor = None;
    let mut line = Line::new(stream);
    while let Some(head) = line.head().await? {
        match head.body {
            Body::Length(length) if length > REQUEST_BYTES_MAX => return Err(malformed("a body over 1 MiB")),
            body => line.skip_body(body).await?,
        };
        match head.word.as_str() {
            "/predict" => line.send(&answer).await?,
            "/tensor" => {
                let tensor = tensor.get_or_insert_with(|| plain(&vec![0x3f; TENSOR_BYTES], "application/octet-stream"));
                line.send(tensor).await?;
            }
            "/tokens" => return tokens(line, TOKEN_INTERVAL_MS).await,
            "/slow-tokens" => return tokens(line, 1_000).await,
            "/echo" => return echo(line).await,
            "/health" => line.send(&plain(b"{\"status\":\"ok\"}", "application/json")).await?,
            "/metrics" => line.send(&plain(METRICS, "text/plain; version=0.0.4")).await?,
            _ => line.send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?,
        }
        if head.close {
            break;
        }
    }
    Ok(())
}

const METRICS: &[u8] =
    b"# TYPE backend_requests counter\nbackend_requests_total 1\n# TYPE backend_queue gauge\nbackend_queue 0\n";

fn plain(body: &[u8], content_type: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Tokens until the reader goes, each stamped with the moment it was sent.
async fn tokens(mut line: Line, interval_ms: u64) -> io::Result<()> {
    line.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\ntransfer-encoding: chunked\r\n\r\n")
        .await?;
    let mut every = tokio::time::interval(Duration::from_millis(interval_ms));
    loop {
        every.tick().await;
        let event = format!("data: {{\"at\":{:020},\"token\":\"the\"}}\n\n", clock::now());
        line.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
    }
}

/// Sends every message back as it came. The generator masks with zero, so nothing needs unmasking.
async fn echo(mut line: Line) -> io::Result<()> {
    line.send(WEBSOCKET_OPENED).await?;
    let mut reply = [0; 2 + FRAME_BYTES];
    reply[0] = 0x82;
    reply[1] = FRAME_BYTES as u8;
    loop {
        let frame: [u8; 6 + FRAME_BYTES] = line.exactly().await?;
        if frame[0] != 0x82 || frame[1] != 0x80 | FRAME_BYTES as u8 {
            return Err(malformed("a WebSocket frame"));
        }
        reply[2..].copy_from_slice(&frame[6..]);
        line.send(&reply).await?;
    }
}

async fn grpc(stream: TcpStream) -> io::Result<()> {
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(10_000)
        .serve_connection(TokioIo::new(stream), service_fn(infer))
        .await
        .map_err(io::Error::other)
}

type Answer = WithTrailers<Full<Bytes>, std::future::Ready<Option<Result<HeaderMap, Infallible>>>>;

/// Reads the message, answers one of the same size and `grpc-status: 0`.
async fn infer(request: Request<Incoming>) -> Result<Response<Answer>, hyper::Error> {
    let known = request.uri().path() == GRPC_PATH;
    request.into_body().collect().await?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(if known { "0" } else { "12" }));
    let body = Full::new(grpc_message(ANSWER)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// A message with its five-byte prefix: not compressed, so long.
pub(crate) fn grpc_message(message: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(5 + message.len());
    bytes.push(0);
    bytes.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes.into()
}
