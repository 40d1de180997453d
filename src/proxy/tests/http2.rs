//! HTTP/2 on either side, HTTP/1 on the other, and clients that abuse it.

use http::header::HOST;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: u8 = 7;

type Client = http2::SendRequest<Full<Bytes>>;

async fn client(plane: &Plane) -> Client {
    let stream = TcpStream::connect(plane.address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: &str, path: &str, body: &'static str) -> Request<Full<Bytes>> {
    let uri = format!("http://model{path}");
    Request::builder().method(method).uri(uri).body(Full::from(body)).unwrap()
}

/// What an HTTP/2 model server heard: it answers everything with `served`.
async fn model_over_http2() -> (SocketAddr, UnboundedReceiver<(http::request::Parts, Bytes)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heard) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let tell = tell.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    tell.send((head, body)).unwrap();
                    Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::from("served")))
                }
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, heard)
}

async fn text(body: Incoming) -> String {
    String::from_utf8(within(body.collect()).await.unwrap().to_bytes().to_vec()).unwrap()
}

fn over(protocol: UpstreamProtocol) -> Setting {
    Setting { protocol, ..Setting::default() }
}

/// A frame: its type, flags, stream and payload.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET http://m/` in HPACK.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'm'];

/// Reads frames until one of this type comes; its payload. `None`: the connection ended before.
async fn frame_of(wire: &mut Wire, kind: u8) -> Option<Vec<u8>> {
    loop {
        while wire.read.len() < 9 {
            if wire.more_or_end().await == 0 {
                return None;
            }
        }
        let head: Vec<u8> = wire.exactly(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = wire.exactly(length).await;
        if head[3] == kind {
            return Some(payload);
        }
    }
}

#[tokio::test]
async fn http2_in_is_http1_out_where_the_server_speaks_that() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], over(UpstreamProtocol::Http1));
    let mut client = client(&plane).await;
    let mut asked = request("POST", "/v1?a=b", "hello");
    asked.headers_mut().append("cookie", "a=1".parse().unwrap());
    asked.headers_mut().append("cookie", "b=2".parse().unwrap());
    let answer = client.send_request(asked);
    let server = async {
        let mut server = model.accept().await;
        let head = server.head().await;
        assert!(head.starts_with("POST /v1?a=b HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: model\r\n") && head.contains("content-length: 5\r\n"), "{head}");
        assert!(head.contains("cookie: a=1; b=2\r\n"), "{head}");
        assert_eq!(server.exactly(5).await, b"hello");
        server
            .send("HTTP/1.1 200 OK\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n")
            .await;
        server
    };
    let (answer, _server) = tokio::join!(within(answer), server);
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    assert!(!answer.headers().contains_key("x-hop"));
    let body = within(answer.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "7");
    assert_eq!(body.to_bytes(), "hi");
    plane.until("over", |c| c.in_flight() == 0 && c.forwarded(200) == 1).await;
}

#[tokio::test]
async fn http1_in_is_http2_out_where_the_server_speaks_that() {
    let (address, mut heard) = model_over_http2().await;
    let plane = Plane::start(&[address], over(UpstreamProtocol::H2c));
    let mut client = plane.client().await;
    client
        .send("POST /v1?a=b HTTP/1.1\r\nhost: model:80\r\nconnection: x-hop\r\nx-hop: 1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        .await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(client.exactly(6).await, b"served");
    let (head, body) = heard.recv().await.unwrap();
    assert_eq!((head.uri.to_string(), head.version), ("http://model:80/v1?a=b".to_owned(), Version::HTTP_2));
    assert!(!head.headers.contains_key(HOST) && !head.headers.contains_key("x-hop"), "{head:?}");
    assert_eq!(body, "hello");
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert!(client.closed().await.ends_with("served"));
    assert_eq!(heard.recv().await.unwrap().0.uri.authority().unwrap().as_str(), address.to_string());
}

#[tokio::test]
async fn a_client_is_forwarded_as_it_came_unless_told_otherwise() {
    let (address, mut heard) = model_over_http2().await;
    let plane = Plane::start(&[address], Setting::default());
    let answer = within(client(&plane).await.send_request(request("GET", "/", ""))).await.unwrap();
    assert_eq!(text(answer.into_body()).await, "served");
    assert_eq!(heard.recv().await.unwrap().0.version, Version::HTTP_2);
}

#[tokio::test]
async fn the_preface_may_come_byte_by_byte() {
    let (address, _heard) = model_over_http2().await;
    let plane = Plane::start(&[address], Setting::default());
    let mut wire = plane.client().await;
    for byte in PREFACE {
        wire.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    wire.send(SETTINGS).await;
    wire.send(frame(1, 5, 1, GET)).await;
    // DATA
    assert_eq!(frame_of(&mut wire, 0).await.unwrap(), b"served");
}

#[tokio::test]
async fn whoever_stops_within_the_preface_is_closed_in_time() {
    let model = Model::start().await;
    let mut setting = Setting::default();
    setting.traffic.client_idle = Duration::from_millis(400);
    let plane = Plane::start(&[model.address], setting);
    for begun in [&b""[..], b"P", &PREFACE[..23]] {
        let mut wire = plane.client().await;
        wire.send(begun).await;
        assert_eq!(wire.closed().await, "");
    }
    // After it, with a farewell.
    let mut wire = plane.client().await;
    wire.send([PREFACE, &SETTINGS[..]].concat()).await;
    assert!(frame_of(&mut wire, GOAWAY).await.is_some());
    plane.until("gone", |c| c.connections() == 0).await;
}

#[tokio::test]
async fn a_flood_of_resets_ends_its_connection() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], over(UpstreamProtocol::Http1));
    let mut wire = plane.client().await;
    let mut flood = [PREFACE, &SETTINGS[..]].concat();
    for turn in 0..2000 {
        flood.extend(frame(1, 5, 2 * turn + 1, GET));
        // RST_STREAM, CANCEL
        flood.extend(frame(3, 0, 2 * turn + 1, &[0, 0, 0, 8]));
    }
    let _ = wire.stream.write_all(&flood).await;
    let said = frame_of(&mut wire, GOAWAY).await;
    // ENHANCE_YOUR_CALM, if the close did not overtake it.
    assert!(said.is_none_or(|said| said[4..8] == [0, 0, 0, 11]), "another reason");
    plane.until("gone", |c| c.connections() == 0 && c.in_flight() == 0).await;
    // Nobody else suffers.
    let mut other = plane.client().await;
    other.send(get("/")).await;
    let mut server = model.accept().await;
    server.head().await;
    server.send(ok("x")).await;
    other.until("x").await;
}

#[tokio::test]
async fn a_head_above_the_limit_gets_431_and_a_long_uri_414() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = client(&plane).await;
    let mut large = request("GET", "/", "");
    large.headers_mut().insert("x", "a".repeat(crate::limits::HEAD_BYTES_MAX).parse().unwrap());
    assert_eq!(within(client.send_request(large)).await.unwrap().status(), 431);
    let long = request("GET", &format!("/{}", "a".repeat(crate::limits::URI_BYTES_MAX)), "");
    assert_eq!(within(client.send_request(long)).await.unwrap().status(), 414);
}

#[tokio::test]
async fn a_server_that_speaks_no_http2_is_said_to_be_at_fault() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = client(&plane).await;
    let server = async {
        let mut server = model.accept().await;
        server.until("SM\r\n\r\n").await;
        server.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        server
    };
    let (answer, _server) = tokio::join!(within(client.send_request(request("GET", "/", ""))), server);
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(answer.headers().contains_key(REASON_HEADER), "{answer:?}");
}

#[tokio::test]
async fn a_stream_that_the_server_resets_is_not_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plane = Plane::start(&[listener.local_addr().unwrap()], Setting::default());
    let mut client = client(&plane).await;
    let server = async {
        let mut server = Wire::new(within(listener.accept()).await.unwrap().0);
        server.exactly(PREFACE.len()).await;
        server.send(SETTINGS).await;
        // Three requests are three streams, and each is reset once.
        for stream in [1, 3, 5] {
            // HEADERS
            frame_of(&mut server, 1).await.unwrap();
            // RST_STREAM, INTERNAL_ERROR
            server.send(frame(3, 0, stream, &[0, 0, 0, 2])).await;
        }
        server
    };
    let asking = async {
        for _ in 0..3 {
            assert_eq!(within(client.send_request(request("GET", "/", ""))).await.unwrap().status(), 502);
        }
    };
    let (mut server, ()) = tokio::join!(server, asking);
    let more = tokio::time::timeout(Duration::from_millis(50), frame_of(&mut server, 1)).await;
    assert!(more.is_err(), "a request was sent again");
}

/// A connection from the proxy, greeted, with its first request answered.
async fn accept_and_answer(listener: &TcpListener) -> Wire {
    let mut server = Wire::new(within(listener.accept()).await.unwrap().0);
    server.exactly(PREFACE.len()).await;
    server.send(SETTINGS).await;
    frame_of(&mut server, 1).await.unwrap();
    // HEADERS, END_STREAM and END_HEADERS: 200.
    server.send(frame(1, 5, 1, &[0x88])).await;
    server
}

#[tokio::test]
async fn a_safe_request_is_sent_again_where_the_shared_connection_died_and_no_other() {
    for (method, body, expected) in [("GET", "", 200), ("POST", "x", 502)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plane = Plane::start(&[listener.local_addr().unwrap()], Setting::default());
        let mut client = client(&plane).await;
        let server = async {
            let mut first = accept_and_answer(&listener).await;
            frame_of(&mut first, 1).await.unwrap();
            drop(first);
            if expected == 200 { Some(accept_and_answer(&listener).await) } else { None }
        };
        let asking = async {
            assert_eq!(within(client.send_request(request("GET", "/", ""))).await.unwrap().status(), 200);
            within(client.send_request(request(method, "/", body))).await.unwrap().status()
        };
        let (_server, status) = tokio::join!(server, asking);
        assert_eq!(status, expected, "{method}");
    }
}

#[tokio::test]
async fn an_upload_that_is_cancelled_never_looks_whole() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], over(UpstreamProtocol::Http1));
    let mut wire = plane.client().await;
    // POST http://m/, then half a body, then CANCEL.
    let post = [0x83, 0x86, 0x84, 0x41, 1, b'm'];
    wire.send([PREFACE, &SETTINGS[..], &frame(1, 4, 1, &post), &frame(0, 0, 1, b"half")].concat()).await;
    let mut server = model.accept().await;
    server.until("half\r\n").await;
    wire.send(frame(3, 0, 1, &[0, 0, 0, 8])).await;
    assert_eq!(server.closed().await, "", "an end was made up");
    plane.until("counted", |c| c.refused(Reason::ClientGone) == 1 && c.in_flight() == 0).await;
}

#[tokio::test]
async fn an_answer_that_is_cancelled_within_its_length_never_looks_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plane = Plane::start(&[listener.local_addr().unwrap()], over(UpstreamProtocol::H2c));
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let mut server = Wire::new(within(listener.accept()).await.unwrap().0);
    server.exactly(PREFACE.len()).await;
    server.send(SETTINGS).await;
    frame_of(&mut server, 1).await.unwrap();
    // 200 with `content-length: 9`, four bytes, then CANCEL.
    server.send(frame(1, 4, 1, &[0x88, 0x5c, 1, b'9'])).await;
    server.send(frame(0, 0, 1, b"half")).await;
    client.until("half").await;
    server.send(frame(3, 0, 1, &[0, 0, 0, 8])).await;
    assert_eq!(client.closed().await, "");
    plane.until("counted", |c| c.refused(Reason::UpstreamAborted) == 1 && c.in_flight() == 0).await;
}

#[tokio::test]
async fn a_draining_instance_says_farewell() {
    let (address, _heard) = model_over_http2().await;
    let plane = Plane::start(&[address], Setting::default());
    let mut wire = plane.client().await;
    wire.send([PREFACE, &SETTINGS[..], &frame(1, 5, 1, GET)].concat()).await;
    assert_eq!(frame_of(&mut wire, 0).await.unwrap(), b"served");
    plane.judge(|next| {
        next.drain.phase = DrainPhase::Propagating;
        not_ready(next, vec![Cause::Draining]);
    });
    wire.send(frame(1, 5, 3, GET)).await;
    assert!(frame_of(&mut wire, GOAWAY).await.is_some(), "while endpoints propagate, too");
    let mut wire = plane.client().await;
    plane.judge(|next| {
        next.drain.phase = DrainPhase::Finishing;
        not_ready(next, vec![Cause::Draining]);
    });
    wire.send([PREFACE, &SETTINGS[..], &frame(1, 5, 1, GET)].concat()).await;
    assert!(frame_of(&mut wire, GOAWAY).await.is_some());
    plane.until("counted", |c| c.refused(Reason::Draining) == 1).await;
}

#[tokio::test]
async fn websocket_over_http2_is_an_upgrade_to_the_server() {
    let model = Model::start().await;
    let plane = Plane::start(&[model.address], Setting::default());
    let mut client = client(&plane).await;
    let mut connect = request("CONNECT", "/ws", "");
    connect.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    connect.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    // The client may ask so only once it has seen the server's settings.
    plane.until("connected", |c| c.connections() == 1).await;
    let server = async {
        let mut server = model.accept().await;
        let head = server.head().await;
        assert!(head.starts_with("GET /ws HTTP/1.1\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
        assert!(head.contains("sec-websocket-key: ") && head.contains("==\r\n"), "{head}");
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-accept: x\r\n\r\n";
        server.send(switch).await;
        server
    };
    let (answer, mut server) = tokio::join!(within(client.send_request(connect)), server);
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("sec-websocket-accept"), "{answer:?}");
    let mut tunnel = TokioIo::new(within(hyper::upgrade::on(answer)).await.unwrap());
    tunnel.write_all(b"ping").await.unwrap();
    assert_eq!(server.exactly(4).await, b"ping");
    server.send("pong").await;
    let mut pong = [0; 4];
    within(tunnel.read_exact(&mut pong)).await.unwrap();
    assert_eq!(&pong, b"pong");
    drop(tunnel);
    server.closed().await;
    drop(server);
    plane.until("over", |c| c.in_flight() == 0).await;
}

/// A server that speaks HTTP/2 alone and echoes what comes through a tunnel to `/ws`; all else is `404`.
async fn websocket_over_http2_alone() -> (SocketAddr, UnboundedReceiver<http::request::Parts>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heard) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                let switched = hyper::upgrade::on(&mut request);
                let (head, _) = request.into_parts();
                let mut response = Response::new(Full::<Bytes>::default());
                if head.uri.path() == "/ws" {
                    tokio::spawn(async move {
                        let (mut from, mut to) = tokio::io::split(TokioIo::new(switched.await.unwrap()));
                        tokio::io::copy(&mut from, &mut to).await.unwrap();
                    });
                } else {
                    *response.status_mut() = http::StatusCode::NOT_FOUND;
                }
                tell.send(head).unwrap();
                async { Ok::<_, hyper::Error>(response) }
            });
            let mut serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            serving.enable_connect_protocol();
            tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, heard)
}

#[tokio::test]
async fn websocket_over_http1_is_an_extended_connect_to_a_server_of_http2() {
    let (address, mut heard) = websocket_over_http2_alone().await;
    let plane = Plane::start(&[address], over(UpstreamProtocol::H2c));
    let mut client = plane.client().await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.send(format!("GET /elsewhere HTTP/1.1\r\nhost: m\r\n{upgrade}")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 404 "), "no tunnel, and the connection goes on");
    heard.recv().await.unwrap();

    client.send(format!("GET /ws HTTP/1.1\r\nhost: m\r\n{upgrade}")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
    let asked = heard.recv().await.unwrap();
    assert_eq!((asked.method.as_str(), asked.uri.to_string().as_str()), ("CONNECT", "http://m/ws"));
    assert_eq!(asked.extensions.get::<hyper::ext::Protocol>().unwrap().as_str(), "websocket");
    assert!(!asked.headers.contains_key("sec-websocket-key") && asked.headers["sec-websocket-version"] == "13");

    client.send("ping").await;
    assert_eq!(client.exactly(4).await, b"ping");
    drop(client);
    plane.until("over", |c| c.in_flight() == 0).await;
}
