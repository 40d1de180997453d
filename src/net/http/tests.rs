//! The client against servers that answer, misbehave, or say nothing.

use std::time::Duration;

use super::*;
use crate::engine::Fault;
use crate::net::peer::{self, Then, raw, respond};

const MAX: usize = 1000;

fn at(address: &str) -> Target {
    Target::Tcp { address: address.to_owned(), tls: None }
}

fn get(uri: &str) -> Request<Bytes> {
    Request::get(uri).body(Bytes::new()).unwrap()
}

async fn reason(words: impl Into<Bytes>, then: Then) -> Failure {
    let peer = raw(words, then).await;
    let failure = peer::soon(fetch(&at(&peer.address), get("/"), MAX)).await.unwrap_err();
    Failure { reason: failure.reason.replace(&peer.address, "PEER"), ..failure }
}

#[tokio::test]
async fn a_real_server_is_asked_and_its_answer_read() {
    let address = peer::http(|request| {
        let seen = |name: http::HeaderName| format!("{:?}", request.headers().get(name));
        respond(203, format!("{} {} {}", request.uri(), seen(HOST), seen(USER_AGENT)))
    })
    .await;
    let answer = fetch(&at(&address), get(&format!("http://{address}/a?b=c")), MAX).await.unwrap();
    assert_eq!(answer.status(), 203);
    assert_eq!(answer.body(), &format!("/a?b=c Some(\"{address}\") Some(\"{AGENT}\")"));
}

#[tokio::test]
async fn the_request_closes_its_connection_and_carries_the_urls_credentials_but_not_in_host() {
    let mut peer = raw("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Then::Close).await;
    let uri = format!("http://us%40er:p%3Aw@{}/x", peer.address);
    fetch(&at(&peer.address), get(&uri), MAX).await.unwrap();
    let heard = peer.heard().await;
    assert!(heard.starts_with("GET /x HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains(&format!("host: {}\r\n", peer.address)), "{heard}");
    assert!(heard.contains("connection: close\r\n"), "{heard}");
    assert!(heard.contains(&format!("authorization: Basic {}\r\n", base64(b"us@er:p:w"))), "{heard}");
    assert!(!heard.contains("accept-encoding"), "{heard}");
}

#[test]
fn base64_is_that_of_the_rfc() {
    for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
        assert_eq!(base64(plain.as_bytes()), coded);
    }
}

#[tokio::test]
async fn a_unix_socket_is_asked_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        peer::serve(stream, |_| respond(200, "here")).await;
    });
    let answer = fetch(&Target::Unix(path), get("/api/report"), MAX).await.unwrap();
    assert_eq!(answer.body(), "here");
    let gone = fetch(&Target::Unix(dir.path().join("none")), get("/"), MAX).await.unwrap_err();
    assert_eq!(gone.fault, Fault::Refused);
}

#[tokio::test]
async fn a_body_is_read_up_to_the_limit_and_refused_one_byte_beyond() {
    let address = peer::http(|request| respond(200, vec![b'x'; request.uri().path()[1..].parse().unwrap()])).await;
    assert_eq!(fetch(&at(&address), get("/1000"), MAX).await.unwrap().body().len(), 1000);
    let failure = fetch(&at(&address), get("/1001"), MAX).await.unwrap_err();
    assert_eq!(failure, Failure::answer(format!("the answer of {address} is larger than 1000 bytes")));
}

#[tokio::test]
async fn an_endless_body_is_cut_off_and_its_sender_sees_the_connection_close() {
    let mut peer = raw("HTTP/1.1 200 OK\r\n\r\n and more and more and more", Then::Repeat).await;
    let failure = fetch(&at(&peer.address), get("/"), MAX).await.unwrap_err();
    assert!(failure.reason.ends_with("is larger than 1000 bytes"), "{failure}");
    peer.left().await;
}

#[tokio::test]
async fn endless_headers_are_cut_off() {
    let mut peer = raw(format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(100_000)), Then::Repeat).await;
    let failure = fetch(&at(&peer.address), get("/"), MAX).await.unwrap_err();
    assert_eq!(failure, Failure::answer(format!("the response head of {} is too large", peer.address)));
    peer.left().await;
}

#[tokio::test]
async fn every_way_to_break_off_has_its_own_words() {
    let half = reason("HTTP/1.1 20", Then::Close).await;
    assert_eq!(half, Failure::unreachable("connection closed by PEER without an answer"));
    assert_eq!(reason("", Then::Reset).await, Failure::unreachable("connection reset by PEER"));
    let ssh = reason("SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n", Then::Close).await;
    assert_eq!(ssh, Failure::answer("PEER does not speak HTTP/1.1"));
    let short = reason("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", Then::Close).await;
    assert_eq!(short, Failure::answer("connection closed by PEER in the middle of the answer"));
    let chunk = reason("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n", Then::Close).await;
    assert!(chunk.fault == Fault::Answer && chunk.reason.starts_with("the body of PEER is garbled: "), "{chunk}");
    let torn = reason("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", Then::Reset).await;
    assert!(torn.reason.ends_with("by PEER in the middle of the answer"), "{torn}");
}

#[tokio::test]
async fn a_dropped_question_closes_its_socket() {
    let mut peer = raw("", Then::Hold).await;
    let target = at(&peer.address);
    let asked = tokio::time::timeout(Duration::from_millis(50), fetch(&target, get("/slow"), MAX)).await;
    assert!(asked.is_err(), "the peer says nothing");
    peer.left().await;
}

#[tokio::test]
async fn a_failure_never_shows_path_query_or_credentials() {
    let port = peer::closed_port().await;
    let uri = format!("http://user:hunter2@127.0.0.1:{port}/token-abc?key=def").parse().unwrap();
    let target = Target::of(&uri, &TlsClient::default()).unwrap();
    let failure = fetch(&target, Request::get(uri).body(Bytes::new()).unwrap(), MAX).await.unwrap_err();
    assert_eq!(failure.reason, format!("connection refused by 127.0.0.1:{port}"));
}

#[test]
fn the_target_of_a_url_has_the_schemes_port() {
    let of = |uri: &str| Target::of(&uri.parse().unwrap(), &TlsClient::default()).map(|t| t.address());
    assert_eq!(of("http://a/x").unwrap(), "a:80");
    assert_eq!(of("https://a").unwrap(), "a:443");
    assert_eq!(of("http://[::1]:8080/").unwrap(), "[::1]:8080");
    assert!(of("ftp://a").is_err() && of("/just/a/path").is_err());
}

#[tokio::test]
async fn https_checks_the_certificate_against_the_given_roots() {
    let (ca, now) = (peer::Authority::new(), peer::unix_now());
    let identity = ca.issue("localhost", now - peer::DAY, now + peer::DAY);
    let address = peer::tls(identity, &[b"http/1.1"], |stream| peer::serve(stream, |_| respond(200, "secure"))).await;
    let address = address.replace("127.0.0.1", "localhost");
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, &ca.pem).unwrap();

    let ask = async |tls: TlsClient| {
        fetch(&Target::Tcp { address: address.clone(), tls: Some(tls) }, get("/"), MAX).await.map(Response::into_body)
    };
    let trusted = TlsClient { ca_file: Some(ca_file), ..TlsClient::default() };
    assert_eq!(ask(trusted).await.unwrap(), "secure");
    let unknown = ask(TlsClient::default()).await.unwrap_err();
    assert_eq!(unknown, Failure::answer(format!("unknown issuer of the certificate of {address}")));
    assert_eq!(ask(TlsClient { insecure_skip_verify: true, ..TlsClient::default() }).await.unwrap(), "secure");
}

#[tokio::test]
async fn tls_towards_a_plaintext_port_is_told_apart_from_a_dead_one() {
    let address = peer::http(|_| respond(200, "")).await;
    let tls = || Some(TlsClient::default());
    let failure = fetch(&Target::Tcp { address: address.clone(), tls: tls() }, get("/"), MAX).await.unwrap_err();
    assert_eq!(failure, Failure::answer(format!("{address} does not speak TLS")));
    let silent = raw("x", Then::Close).await;
    let failure = fetch(&Target::Tcp { address: silent.address, tls: tls() }, get("/"), MAX).await.unwrap_err();
    assert!(matches!(failure.fault, Fault::Unreachable | Fault::Answer), "{failure}");
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_gets_it_and_its_absence_is_named() {
    let (ca, now) = (peer::Authority::new(), peer::unix_now());
    let valid = |name| ca.issue(name, now - peer::DAY, now + peer::DAY);
    let client = valid("client.example");
    let answer = |stream| peer::serve(stream, |_| respond(200, "welcome"));
    let address = peer::mutual_tls(valid("127.0.0.1"), Some(&ca), &[b"http/1.1"], answer).await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let with = TlsClient {
        ca_file: file("ca.pem", &ca.pem),
        cert_file: file("cert.pem", &client.cert_pem),
        key_file: file("key.pem", &client.key_pem),
        ..TlsClient::default()
    };
    let ask =
        async |tls: TlsClient| fetch(&Target::Tcp { address: address.clone(), tls: Some(tls) }, get("/"), MAX).await;
    assert_eq!(ask(with.clone()).await.unwrap().body(), "welcome");
    let without = ask(TlsClient { cert_file: None, key_file: None, ..with.clone() }).await.unwrap_err();
    assert_eq!(without, Failure::answer(format!("{address} wants a client certificate")));
    let swapped = TlsClient { key_file: with.cert_file.clone(), ..with };
    assert!(ask(swapped).await.unwrap_err().reason.ends_with("holds no private key in PEM"));
}

#[tokio::test]
async fn endless_interim_answers_do_not_outlast_the_deadline() {
    let mut peer = raw("HTTP/1.1 100 Continue\r\n\r\n".repeat(1000), Then::Repeat).await;
    let target = at(&peer.address);
    let asked = peer::soon(tokio::time::timeout(Duration::from_millis(100), fetch(&target, get("/"), MAX))).await;
    assert!(asked.is_err(), "no final answer ever came");
    peer.left().await;
}

#[tokio::test]
async fn an_authority_that_serves_its_own_certificate_is_trusted_by_those_who_name_it() {
    let ca = peer::Authority::new();
    let address = peer::tls(ca.itself(), &[], |stream| peer::serve(stream, |_| respond(200, "itself"))).await;
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, &ca.pem).unwrap();
    let ask = async |tls: TlsClient| {
        fetch(&Target::Tcp { address: address.clone(), tls: Some(tls) }, get("/"), MAX).await.map(Response::into_body)
    };
    assert_eq!(ask(TlsClient { ca_file: Some(ca_file), ..TlsClient::default() }).await.unwrap(), "itself");
    let stranger = ask(TlsClient::default()).await.unwrap_err();
    assert!(
        stranger.reason.starts_with(&format!("certificate of {address} is self-signed and not known")),
        "{stranger}"
    );
}
