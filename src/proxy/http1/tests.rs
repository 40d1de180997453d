//! Heads and bodies as bytes: what passes, what is refused, and that cuts in the stream change nothing.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::chunked::Chunked;
use super::framing::Body;
use super::request::{self, Request, Rules};
use super::response::{self, Answer, Asked, Passing, Response};
use crate::limits;
use crate::proxy::headers::Client;
use crate::proxy::refusal::Reason;

const PLAIN: Rules = Rules { forwarded: None, show: false };
const CLIENT: Asked = Asked { is_head: false, http10: false, keep_alive: true, upgrade: false };

fn read(head: &str) -> Result<Request, Reason> {
    Ok(request::read(head.as_bytes(), Vec::new(), PLAIN)?.expect("a whole head").0)
}

fn written(head: &str, rules: Rules) -> String {
    let (request, length) = request::read(head.as_bytes(), Vec::new(), rules).unwrap().unwrap();
    assert_eq!(length, head.len());
    String::from_utf8(request.out).unwrap()
}

#[test]
fn what_is_for_one_hop_ends_here_and_the_rest_passes_byte_for_byte() {
    let out = written(
        "POST /v1/x?a=%20b HTTP/1.1\r\nHost: Model.svc\r\nX-Kept:  as it is \r\nConnection: close, X-Gone, te\r\n\
         Keep-Alive: timeout=5\r\nx-gone: 1\r\nTE: trailers, deflate\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n\
         Expect: 100-continue\r\nContent-Length: 5\r\nX-Last: \r\n\r\n",
        PLAIN,
    );
    assert_eq!(
        out,
        "POST /v1/x?a=%20b HTTP/1.1\r\nHost: Model.svc\r\nX-Kept:  as it is \r\nContent-Length: 5\r\nX-Last: \r\n\
         te: trailers\r\n\r\n"
    );
}

#[test]
fn the_client_is_named_where_that_is_wanted() {
    let rules =
        Rules { forwarded: Some(Client { ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)), https: false }), show: false };
    assert_eq!(
        written("GET / HTTP/1.1\r\nhost: m\r\n\r\n", rules),
        "GET / HTTP/1.1\r\nhost: m\r\nx-forwarded-for: 10.0.0.9\r\nx-forwarded-proto: http\r\nx-forwarded-host: m\r\n\r\n"
    );
    let before = "GET / HTTP/1.1\r\nhost: m\r\nx-forwarded-for: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n\
                  x-forwarded-proto: https\r\nx-forwarded-host: o\r\n\r\n";
    assert_eq!(
        written(before, rules),
        "GET / HTTP/1.1\r\nhost: m\r\nx-forwarded-proto: https\r\nx-forwarded-host: o\r\n\
         x-forwarded-for: 1.1.1.1, 2.2.2.2, 10.0.0.9\r\n\r\n"
    );
    assert_eq!(written(before, PLAIN), before);
}

#[test]
fn an_absolute_target_becomes_a_path_and_its_host_wins() {
    let out = written("GET http://user@svc:80?x=1 HTTP/1.1\r\nhost: other\r\nhost: third\r\na: b\r\n\r\n", PLAIN);
    assert_eq!(out, "GET /?x=1 HTTP/1.1\r\na: b\r\nhost: svc:80\r\n\r\n");
}

#[test]
fn a_client_of_http_1_0_needs_no_host_and_keeps_its_connection_only_if_it_says_so() {
    let mut request = read("GET /a HTTP/1.0\r\nx: 1\r\n\r\n").unwrap();
    assert!(request.http10 && !request.keep_alive);
    request.add_missing_host("127.0.0.1:9".parse().unwrap());
    request.add_missing_host("127.0.0.1:10".parse().unwrap());
    assert_eq!(request.out, b"GET /a HTTP/1.1\r\nx: 1\r\nhost: 127.0.0.1:9\r\n\r\n");
    assert!(read("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n").unwrap().keep_alive);
    assert!(!read("GET / HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n").unwrap().keep_alive);
}

#[test]
fn whatever_two_readers_could_read_in_two_ways_is_refused() {
    for (why, fields) in [
        ("a length beside chunks", "content-length: 4\r\ntransfer-encoding: chunked\r\n"),
        ("chunks beside a length", "transfer-encoding: chunked\r\ncontent-length: 4\r\n"),
        ("the same length twice", "content-length: 4\r\ncontent-length: 4\r\n"),
        ("two lengths", "content-length: 4\r\ncontent-length: 5\r\n"),
        ("two lengths in one field", "content-length: 4, 4\r\n"),
        ("a length with a sign", "content-length: +5\r\n"),
        ("a negative length", "content-length: -5\r\n"),
        ("a hexadecimal length", "content-length: 0x5\r\n"),
        ("a length with a space in it", "content-length: 1 5\r\n"),
        ("a length beyond 64 bits", "content-length: 18446744073709551616\r\n"),
        ("a length that is empty", "content-length:\r\n"),
        ("a coding that is not the last", "transfer-encoding: chunked, identity\r\n"),
        ("a coding before the last", "transfer-encoding: gzip, chunked\r\n"),
        ("identity", "transfer-encoding: identity\r\n"),
        ("a coding in two fields", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        ("a coding with a tail", "transfer-encoding: chunked;q=1\r\n"),
        ("a coding with a control byte", "transfer-encoding: \x0bchunked\r\n"),
        ("a folded line", "x: a\r\n b\r\n"),
        ("a space before the colon", "content-length : 5\r\n"),
        ("a field without a colon", "chunked\r\n"),
        ("a bare LF", "x: a\ny: b\r\n"),
        ("a bare CR", "x: a\ry: b\r\n"),
        ("a NUL", "x: a\0b\r\n"),
        ("a second host", "host: n\r\n"),
    ] {
        let head = format!("POST / HTTP/1.1\r\nhost: m\r\n{fields}\r\n");
        assert_eq!(read(&head).err(), Some(Reason::BadRequest), "{why}");
    }
    for line in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nhost: m\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: m\n\r\n",
        "GET / HTTP/1.1\r\nhost: m\r\n\n",
        "GET / HTTP/2.0\r\nhost: m\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: m\r\n\r\n",
        "GET /#part HTTP/1.1\r\nhost: m\r\n\r\n",
        "GET * HTTP/1.1\r\nhost: m\r\n\r\n",
        "GET m:80 HTTP/1.1\r\nhost: m\r\n\r\n",
        "GET path HTTP/1.1\r\nhost: m\r\n\r\n",
        "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        "G@T / HTTP/1.1\r\nhost: m\r\n\r\n",
        "\x16\x03\x01\r\n\r\n",
    ] {
        assert_eq!(read(line).err(), Some(Reason::BadRequest), "{line:?}");
    }
    assert_eq!(read("CONNECT m:1 HTTP/1.1\r\nhost: m\r\n\r\n").err(), Some(Reason::ConnectUnsupported));
}

#[test]
fn what_is_too_long_is_told_apart_before_it_is_whole() {
    let line = "a".repeat(limits::HEAD_BYTES_MAX);
    let unfinished = |head: String| request::read(head.as_bytes(), Vec::new(), PLAIN).err();
    assert_eq!(unfinished(format!("GET /{line}")), Some(Reason::UriTooLong));
    assert_eq!(unfinished(format!("GET / HTTP/1.1\r\nx: {line}")), Some(Reason::HeadTooLarge));
    assert_eq!(unfinished("GET / HTTP/1.1\r\nx: a".to_owned()), None);
    let fields: String = (0..=super::FIELDS_MAX).map(|i| format!("x-{i}: 1\r\n")).collect();
    assert_eq!(unfinished(format!("GET / HTTP/1.1\r\n{fields}\r\n")), Some(Reason::HeadTooLarge));
}

#[test]
fn chunks_are_read_strictly() {
    for body in [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b;c=\"d\"\r\nhello\r\n0\r\n\r\n",
        "00005 \r\nhello\r\n000\r\nx-sum: 7\r\nempty:\r\n\r\n",
        "A\r\n0123456789\r\n0;last\r\n\r\n",
    ] {
        let mut chunks = Chunked::default();
        let more = format!("{body}GET /");
        assert_eq!(chunks.read(more.as_bytes(), |_| ()), Ok(body.len()), "{body:?}");
        assert!(chunks.is_over(), "{body:?}");
    }
    let long = format!("1;{}\r\n", "x".repeat(20_000));
    let many = format!("0\r\nx: {}\r\n", "x".repeat(20_000));
    for body in [
        "\r\n",
        "g\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        " 1\r\n",
        "1\n",
        "1\rx",
        "1;a\nb",
        "1;\0",
        "5\r\nhelloX",
        "5\r\nhello\n",
        "5\r\nhello\rX",
        "1000000000000000\r\n",
        "0\r\nx\r\n",
        "0\r\n x: 1\r\n",
        "0\r\n: 1\r\n",
        "0\r\nx: a\nb",
        "0\r\n\n",
        &long,
        &many,
    ] {
        assert!(Chunked::default().read(body.as_bytes(), |_| ()).is_err(), "{body:?}");
    }
}

/// An answer's head as the client gets it, and what is known of it.
fn answered(head: &str, asked: Asked) -> (String, Response) {
    let mut out = Vec::new();
    let (answer, length) = response::read(head.as_bytes(), &mut out, asked).unwrap().unwrap();
    assert_eq!(length, head.len());
    let Answer::Final(response) = answer else { panic!("not final") };
    (String::from_utf8(out).unwrap(), response)
}

#[test]
fn an_answer_ends_where_it_says_and_connections_are_kept_where_they_may_be() {
    let (out, with_length) = answered("HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 3\r\nKeep-Alive: x\r\n\r\n", CLIENT);
    assert_eq!(out, "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 3\r\n\r\n");
    assert!(with_length.reusable && with_length.keep_alive && with_length.passing == Passing::AsIs);
    let (out, closing) = answered("HTTP/1.0 200\r\n\r\n", CLIENT);
    assert_eq!(out, "HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n");
    assert!(!closing.reusable && closing.keep_alive && closing.passing == Passing::Chunk);
    let old = Asked { http10: true, ..CLIENT };
    let (out, chunked) = answered("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", old);
    assert_eq!(out, "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n");
    assert!(chunked.reusable && !chunked.keep_alive && chunked.passing == Passing::Unchunk);
    let (out, both) = answered("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", CLIENT);
    assert_eq!(out, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    assert!(!both.reusable && matches!(both.body, Body::Chunked(_)));
    let (_, head) = answered("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", Asked { is_head: true, ..CLIENT });
    assert!(head.body.is_over());
    let (out, bare) = answered("HTTP/1.1 204 No\na: b\nconnection: a, close\n\n", CLIENT);
    assert_eq!(out, "HTTP/1.1 204 No\r\n\r\n");
    assert!(bare.body.is_over() && !bare.reusable);
}

#[test]
fn an_answer_that_is_none_is_refused() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
    ] {
        assert!(response::read(head.as_bytes(), &mut Vec::new(), CLIENT).is_err(), "{head:?}");
    }
}

#[test]
fn what_comes_before_the_answer_passes_but_for_what_was_said_already() {
    for (status, passes) in [("100 Continue", false), ("103 Early Hints", true)] {
        let head = format!("HTTP/1.1 {status}\r\nlink: x\r\n\r\n");
        let mut out = Vec::new();
        let (answer, _) = response::read(head.as_bytes(), &mut out, CLIENT).unwrap().unwrap();
        assert!(matches!(answer, Answer::Interim));
        assert_eq!(String::from_utf8(out).unwrap(), if passes { head } else { String::new() });
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = request::read(&bytes, Vec::new(), PLAIN);
        let _ = response::read(&bytes, &mut Vec::new(), CLIENT);
        let _ = Chunked::default().read(&bytes, |_| ());
    }

    /// What passes is one request to the strictest reader too: ours, reading what it wrote.
    #[test]
    fn what_was_written_reads_the_same_again(
        fields in proptest::collection::vec(
            prop_oneof![
                Just("content-length: 3"), Just("content-length: 03"), Just("transfer-encoding: chunked"),
                Just("Transfer-Encoding:chunked "), Just("connection: content-length"), Just("connection: transfer-encoding, host"),
                Just("connection: close"), Just("te: trailers"), Just("x: y"), Just("expect: 100-continue"),
                Just("x-forwarded-for: 1.2.3.4"), Just("upgrade: websocket"), Just("connection: upgrade"), Just("\tx: folded"),
            ],
            0..6,
        )
    ) {
        let head = format!("POST /p HTTP/1.1\r\nhost: m\r\n{}\r\n", fields.iter().map(|f| format!("{f}\r\n")).collect::<String>());
        let Ok(first) = read(&head) else { return Ok(()) };
        let text = String::from_utf8(first.out.clone()).unwrap();
        let second = read(&text).unwrap();
        prop_assert_eq!(format!("{:?}", first.body), format!("{:?}", second.body), "{}", text);
        prop_assert_eq!(first.out, second.out);
    }

    #[test]
    fn cuts_in_a_chunked_body_change_nothing(
        sizes in proptest::collection::vec(1_usize..40, 0..6),
        trailer in any::<bool>(),
        cuts in proptest::collection::vec(1_usize..9, 1..200),
    ) {
        let mut body = String::new();
        for size in &sizes {
            body += &format!("{size:x};e\r\n{}\r\n", "d".repeat(*size));
        }
        body += if trailer { "0\r\nx: y\r\n\r\n" } else { "0\r\n\r\n" };
        let (mut chunks, mut rest, mut data) = (Chunked::default(), body.as_bytes(), 0);
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            prop_assert_eq!(chunks.read(now, |piece| data += piece.len()), Ok(now.len()));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(chunks.is_over());
        prop_assert_eq!(data, sizes.iter().sum::<usize>());
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_is_the_same_head() {
    let head = b"POST /a HTTP/1.1\r\nhost: m\r\ncontent-length: 2\r\n\r\n";
    for end in 0..head.len() {
        assert!(request::read(&head[..end], Vec::new(), PLAIN).unwrap().is_none(), "{end}");
    }
    assert!(request::read(head, Vec::new(), PLAIN).unwrap().is_some());
}
