//! Silence over HTTP/2, frame by frame: three things that keep a stream or a connection open and are no progress (a
//! ping, an empty DATA frame, an SSE comment), on one stream of one connection, and that DATA with something in it
//! is. Each hang's report names the request. Several streams beside each other are not tried here.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::sidecar::Sidecar;
use super::until::{DEADLINE, until};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What the model server goes on sending after the first part of its answer: frame type, stream (0: the one that
/// asked), payload.
type Rest = (u8, &'static [u8]);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The next frame: its type and stream.
fn read_frame(from: &mut TcpStream) -> io::Result<(u8, u32)> {
    let mut head = [0; 9];
    from.read_exact(&mut head)?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    from.read_exact(&mut payload)?;
    Ok((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
}

/// A model server that answers the first part and then says `rest` ten times a second, for as long as it can.
fn model(kind: &'static str, first: &'static [u8], rest: Rest) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(client, kind, first, rest));
        }
    });
    address
}

#[expect(clippy::disallowed_methods, reason = "a peer that speaks at a pace, outside of any runtime")]
fn serve(mut client: TcpStream, kind: &str, first: &[u8], rest: Rest) -> io::Result<()> {
    client.read_exact(&mut [0; PREFACE.len()])?;
    client.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    let stream = loop {
        if let (HEADERS, stream) = read_frame(&mut client)? {
            break stream;
        }
    };
    // 200, and a literal `content-type`.
    let length = u8::try_from(kind.len()).expect("short");
    let head = [&[0x88, 0x0f, 0x10, length], kind.as_bytes()].concat();
    client.write_all(&frame(HEADERS, END_HEADERS, stream, &head))?;
    client.write_all(&frame(DATA, 0, stream, first))?;
    let (what, payload) = rest;
    loop {
        client.write_all(&frame(what, 0, if what == PING { 0 } else { stream }, payload))?;
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A client over HTTP/2 that has asked and got the first part of its answer.
fn ask(sidecar: &Sidecar) -> TcpStream {
    let mut client = TcpStream::connect(sidecar.traffic()).expect("it listens");
    client.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    // POST http://m/
    let head = [0x83, 0x86, 0x84, 0x41, 1, b'm'];
    let asked = frame(HEADERS, END_STREAM | END_HEADERS, 1, &head);
    client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &asked].concat()).expect("it reads");
    while read_frame(&mut client).expect("it answers").0 != DATA {}
    client
}

fn guarded(address: SocketAddr) -> Sidecar {
    let sidecar = Sidecar::start(&format!(
        "[upstream]\naddress = \"{address}\"\nprotocol = \"h2c\"\nmetrics = false\n[health]\nrequire = [\"progress\"]\n\
         [checks.progress]\nprogress = {{ stall_after = \"1s\" }}\n"
    ));
    sidecar.until("/ready", 200);
    sidecar
}

#[test]
fn neither_a_ping_nor_an_empty_frame_nor_a_comment_is_progress() {
    for (kind, first, rest) in [
        ("application/grpc", &b"\0\0\0\0\x02hi"[..], (PING, &[0; 8][..])),
        ("application/grpc", b"\0\0\0\0\x02hi", (DATA, b"")),
        ("text/event-stream", b"data: 1\n\n", (DATA, b": keep-alive\n\n")),
    ] {
        let sidecar = guarded(model(kind, first, rest));
        let _client = ask(&sidecar);
        sidecar.until("/health", 503);
        let why = sidecar.probe("/health?verbose").body;
        assert!(why.contains("stalled: no byte from the model server for 1"), "{kind}: {why}");
        let report = until("the report is there", || sidecar.report()["hang"]["hang"].as_str().map(str::to_owned));
        assert!(report.contains("request: ") && report.contains("old, last byte"), "{kind}: {report}");
    }
}

#[test]
fn a_stream_that_moves_is_no_hang_however_long_it_takes() {
    for (kind, part) in [("application/grpc", &b"\0\0\0\0\x02hi"[..]), ("text/event-stream", b"data: 1\n\n")] {
        let sidecar = guarded(model(kind, part, (DATA, part)));
        let mut client = ask(&sidecar);
        // Three times as many parts as fit into `stall_after`.
        let mut parts = 0;
        while parts < 30 {
            parts += u32::from(read_frame(&mut client).expect("it goes on").0 == DATA);
        }
        assert_eq!(sidecar.probe("/health").status, 200, "{kind}");
        assert_eq!(sidecar.check("progress")["state"], "up", "{kind}: {}", sidecar.report());
    }
}
