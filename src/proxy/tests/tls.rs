//! TLS on the traffic listener: the handshake, what ALPN chooses, and who is turned away.

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::config::{TlsServer, TlsVersion};
use crate::net::tls_server;

/// An authority, and a directory with what it has signed for the server.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, directory: tempfile::tempdir().unwrap() }
    }

    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    /// What a server shows; `ask`: and wants to be shown.
    fn server(&self, name: &str, ask: bool) -> Arc<ServerConfig> {
        let at = |name: &str| self.directory.path().join(name);
        let (cert, key) = self.sign(name);
        std::fs::write(at("tls.crt"), cert).unwrap();
        std::fs::write(at("tls.key"), key).unwrap();
        std::fs::write(at("ca.crt"), self.issuer.pem()).unwrap();
        let files = TlsServer {
            cert_file: at("tls.crt"),
            key_file: at("tls.key"),
            client_ca_file: ask.then(|| at("ca.crt")),
            min_version: TlsVersion::V1_2,
        };
        tls_server::load(&files).unwrap().config
    }

    /// A client that trusts it, and shows a certificate of it if it is to.
    fn client(&self, alpn: &[&[u8]], shows: bool) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.issuer.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if shows {
            let (cert, key) = self.sign("client");
            let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

fn secured(tls: Arc<ServerConfig>) -> Setting {
    let mut setting = Setting { tls: Some(tls), ..Setting::default() };
    setting.traffic.forwarded_headers = true;
    setting
}

async fn connect(plane: &Plane, with: &TlsConnector, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(plane.address).await?;
    within(with.connect(ServerName::try_from(name.to_owned()).unwrap(), stream)).await
}

async fn read_until(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        let mut buffer = [0; 1024];
        let count = within(stream.read(&mut buffer)).await.unwrap();
        assert_ne!(count, 0, "closed before {end:?}: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn http1_over_tls_is_served_kept_and_said_to_be_https() {
    let (authority, model) = (Authority::new(), Model::start().await);
    let plane = Plane::start(&[model.address], secured(authority.server("model", false)));
    let mut client = connect(&plane, &authority.client(&[b"http/1.1"], false), "model").await.unwrap();
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    client.write_all(get("/one").as_bytes()).await.unwrap();
    let mut server = model.accept().await;
    let head = server.head().await;
    assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
    server.send(ok("one")).await;
    read_until(&mut client, "one").await;
    client.write_all(get("/two").as_bytes()).await.unwrap();
    server.head().await;
    server.send(ok("two")).await;
    read_until(&mut client, "two").await;
}

#[tokio::test]
async fn an_upgrade_over_tls_is_a_tunnel() {
    let (authority, model) = (Authority::new(), Model::start().await);
    let plane = Plane::start(&[model.address], secured(authority.server("model", false)));
    let mut client = connect(&plane, &authority.client(&[], false), "model").await.unwrap();
    let asked = "GET /ws HTTP/1.1\r\nhost: m\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(asked.as_bytes()).await.unwrap();
    let mut server = model.accept().await;
    server.head().await;
    server.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello").await;
    read_until(&mut client, "hello").await;
    client.write_all(b"there").await.unwrap();
    assert_eq!(server.exactly(5).await, b"there");
}

#[tokio::test]
async fn alpn_chooses_http2_and_our_own_hop_is_plain() {
    let (authority, model) = (Authority::new(), Model::start().await);
    let setting = Setting { protocol: UpstreamProtocol::Http1, ..secured(authority.server("model", false)) };
    let plane = Plane::start(&[model.address], setting);
    let stream = connect(&plane, &authority.client(&[b"h2", b"http/1.1"], false), "model").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let asked = http::Request::get("https://model/v1").body(Empty::<Bytes>::new()).unwrap();
    let server = async {
        let mut server = model.accept().await;
        let head = server.head().await;
        assert!(head.contains("x-forwarded-proto: https\r\n") && head.contains("host: model\r\n"), "{head}");
        server.send(ok("served")).await;
    };
    let (answer, ()) = tokio::join!(within(sender.send_request(asked)), server);
    let body = within(answer.unwrap().into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, "served");
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_whoever_comes_and_open_connections_go_on() {
    let (authority, model) = (Authority::new(), Model::start().await);
    let plane = Plane::start(&[model.address], secured(authority.server("old", false)));
    let with = authority.client(&[], false);
    let mut before = connect(&plane, &with, "old").await.unwrap();
    plane.shared.serve_tls(Some(authority.server("new", false)));
    connect(&plane, &with, "new").await.unwrap();
    assert!(connect(&plane, &with, "old").await.is_err(), "the old one is shown still");
    before.write_all(get("/").as_bytes()).await.unwrap();
    let mut server = model.accept().await;
    server.head().await;
    server.send(ok("kept")).await;
    read_until(&mut before, "kept").await;
}

#[tokio::test]
async fn clients_must_show_a_certificate_where_it_is_asked_for() {
    let (authority, model) = (Authority::new(), Model::start().await);
    let plane = Plane::start(&[model.address], secured(authority.server("model", true)));
    // In TLS 1.3 the client hears of it with its first read.
    if let Ok(mut stranger) = connect(&plane, &authority.client(&[], false), "model").await {
        let _ = stranger.write_all(get("/").as_bytes()).await;
        assert!(!matches!(within(stranger.read(&mut [0; 64])).await, Ok(1..)));
    }
    let mut known = connect(&plane, &authority.client(&[], true), "model").await.unwrap();
    known.write_all(get("/").as_bytes()).await.unwrap();
    let mut server = model.accept().await;
    server.head().await;
    server.send(ok("welcome")).await;
    read_until(&mut known, "welcome").await;
}

#[tokio::test]
async fn plain_http_is_told_that_it_is_not_spoken_here() {
    let authority = Authority::new();
    let plane = Plane::start(&[SocketAddr::from(([127, 0, 0, 1], 1))], secured(authority.server("model", false)));
    let mut client = plane.client().await;
    client.send(get("/")).await;
    let answer = client.closed().await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("x-probegate-reason: tls_required\r\n"), "{answer}");
    let length: usize = answer.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), length);
    assert_eq!(plane.counters().refused(Reason::TlsRequired), 1);
}

#[tokio::test]
async fn whoever_stops_within_the_handshake_is_closed_in_time_and_holds_up_nobody() {
    let (authority, model) = (Authority::new(), Model::start().await);
    let mut setting = secured(authority.server("model", false));
    setting.traffic.client_idle = Duration::from_millis(600);
    let plane = Plane::start(&[model.address], setting);
    let (mut silent, mut half, mut nonsense) = (plane.client().await, plane.client().await, plane.client().await);
    half.send([22, 3, 1, 2, 0]).await;
    nonsense.send([22, 3, 1, 0, 4, 9, 9, 9, 9]).await;
    connect(&plane, &authority.client(&[], false), "model").await.unwrap();
    nonsense.closed().await;
    silent.closed().await;
    half.closed().await;
    plane.until("none is open", |c| c.connections() == 0).await;
}

#[tokio::test]
async fn a_connection_beyond_the_cap_gets_an_alert_and_not_plain_text() {
    let authority = Authority::new();
    let mut setting = secured(authority.server("model", false));
    setting.traffic.max_connections = 1;
    let plane = Plane::start(&[SocketAddr::from(([127, 0, 0, 1], 1))], setting);
    let _first = connect(&plane, &authority.client(&[], false), "model").await.unwrap();
    let error = connect(&plane, &authority.client(&[], false), "model").await.unwrap_err().to_string();
    assert!(error.contains("InternalError"), "{error}");
}
