//! Peers for tests: raw sockets that misbehave to order, a well-behaved HTTP server, and certificates.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, Issuer, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// What a raw peer does after its words.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Close,
    /// Stays silent until the client leaves.
    Hold,
    /// Says the same again and again until the client leaves.
    Repeat,
    Reset,
}

/// A raw peer on a port of its own.
pub(crate) struct Peer {
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    pub(crate) accepted: Arc<AtomicUsize>,
    /// What each client sent first.
    heard: mpsc::UnboundedReceiver<Vec<u8>>,
    /// Told when a client has closed its end.
    left: mpsc::UnboundedReceiver<()>,
}

impl Peer {
    /// What the next client said up to the end of a request head, or up to its leaving.
    pub(crate) async fn heard(&mut self) -> String {
        let heard = soon(self.heard.recv()).await.expect("the peer lives");
        String::from_utf8_lossy(&heard).into_owned()
    }

    /// Waits until a client has left: its socket is closed.
    pub(crate) async fn left(&mut self) {
        soon(self.left.recv()).await.expect("the peer lives");
    }
}

/// The deadline of every condition that a test waits for.
pub(crate) async fn soon<T>(condition: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), condition).await.expect("it happens within ten seconds")
}

/// A port on which nobody listens, and nobody will while the tests run: it is bound and stays so.
pub(crate) async fn closed_port() -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::mem::forget(socket);
    port
}

/// A peer that hears a request head, says `words` and then does as told.
pub(crate) async fn raw(words: impl Into<Bytes>, then: Then) -> Peer {
    let words = words.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let (hear, heard) = mpsc::unbounded_channel();
    let (leave, left) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let (words, hear, leave) = (words.clone(), hear.clone(), leave.clone());
            tokio::spawn(async move {
                play(stream, &words, then, &hear).await;
                let _ = leave.send(());
            });
        }
    });
    Peer { address, accepted, heard, left }
}

async fn play(mut stream: TcpStream, words: &[u8], then: Then, hear: &mpsc::UnboundedSender<Vec<u8>>) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => head.extend_from_slice(&buffer[..n]),
        }
        if !words.is_empty() && !head.starts_with(b"G") && !head.starts_with(b"P") {
            break;
        }
    }
    let _ = hear.send(head);
    match then {
        Then::Repeat => while stream.write_all(words).await.is_ok() {},
        Then::Reset => {
            let _ = stream.write_all(words).await;
            let _ = stream.set_zero_linger();
        }
        Then::Close => {
            let _ = stream.write_all(words).await;
        }
        Then::Hold => {
            let _ = stream.write_all(words).await;
            while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
        }
    }
}

/// A well-behaved HTTP server; its address.
pub(crate) async fn http<F>(answer: F) -> String
where
    F: Fn(Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer.clone()));
        }
    });
    address
}

pub(crate) async fn serve<S, F>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Fn(Request<Incoming>) -> Response<Full<Bytes>>,
{
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(request))));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// An answer with a status and a body.
pub(crate) fn respond(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

/// A certificate authority of the test's own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    key_der: Vec<u8>,
}

/// A server's certificate and key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        // Names as a server's: people serve such a certificate.
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = rcgen::IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let key_der = key.serialize_der();
        Self { issuer: Issuer::new(params, key), pem, key_der }
    }

    /// The authority's own certificate, served as people do who make one with a single command.
    pub(crate) fn itself(&self) -> Identity {
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        let key = PrivatePkcs8KeyDer::from(self.key_der.clone()).into();
        Identity { chain: vec![der], key, cert_pem: self.pem.clone(), key_pem: String::new() }
    }

    /// A certificate for `name`, valid between two Unix times.
    pub(crate) fn issue(&self, name: &str, from: i64, to: i64) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let at = |unix: i64| epoch + Duration::from_secs(unix.unsigned_abs());
        (params.not_before, params.not_after) = (at(from), at(to));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            chain: vec![cert.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

/// Unix time now, for certificates.
pub(crate) fn unix_now() -> i64 {
    let clock = crate::clock::Clock::start();
    clock.unix_seconds(clock.now()) as i64
}

pub(crate) const DAY: i64 = 86_400;

/// Accepts TLS with that identity, then hands the connection to `then`; the address.
pub(crate) async fn tls<F, Fut>(identity: Identity, alpn: &[&[u8]], then: F) -> String
where
    F: Fn(tokio_rustls::server::TlsStream<TcpStream>) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    mutual_tls(identity, None, alpn, then).await
}

/// As [`tls`]; clients must show a certificate of `clients`, if it is given.
pub(crate) async fn mutual_tls<F, Fut>(
    identity: Identity,
    clients: Option<&Authority>,
    alpn: &[&[u8]],
    then: F,
) -> String
where
    F: Fn(tokio_rustls::server::TlsStream<TcpStream>) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let provider = Arc::new(ring::default_provider());
    let verifier = clients.map_or_else(WebPkiClientVerifier::no_client_auth, |clients| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap()
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, then) = (acceptor.clone(), then.clone());
            tokio::spawn(async move {
                let accepted: io::Result<_> = acceptor.accept(stream).await;
                if let Ok(stream) = accepted {
                    then(stream).await;
                }
            });
        }
    });
    address
}
