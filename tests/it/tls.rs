//! TLS on the traffic listener, seen by curl and openssl, with certificates that are swapped under it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::clients::{curl, says, websocket_client, websocket_server};
use super::model::Model;
use super::sidecar::Sidecar;
use super::until::until;

/// A Secret as the kubelet mounts it, signed by an authority of its own.
struct Mounted {
    directory: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    versions: u32,
}

impl Mounted {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut this = Self { directory: tempfile::tempdir().unwrap(), issuer, versions: 0 };
        fs::write(this.at("ca.crt"), this.issuer.pem()).unwrap();
        this.swap("first");
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), this.at(name)).unwrap();
        }
        this
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn ca(&self) -> String {
        self.at("ca.crt").display().to_string()
    }

    fn sign(&self, subject: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, subject);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn swap(&mut self, subject: &str) {
        let (cert, key) = self.sign(subject);
        self.swap_to(&cert, &key);
    }

    fn swap_to(&mut self, cert: &str, key: &str) {
        self.versions += 1;
        let version = format!("..version-{}", self.versions);
        fs::create_dir(self.at(&version)).unwrap();
        fs::write(self.at(&version).join("tls.crt"), cert).unwrap();
        fs::write(self.at(&version).join("tls.key"), key).unwrap();
        symlink(Path::new(&version), self.at("..data_tmp")).unwrap();
        fs::rename(self.at("..data_tmp"), self.at("..data")).unwrap();
    }

    /// The table, with whatever else it is to say.
    fn table(&self, more: &str) -> String {
        let (cert, key) = (self.at("tls.crt"), self.at("tls.key"));
        format!("[tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\n{more}", cert.display(), key.display())
    }
}

fn fronted(settings: &str) -> (Model, Sidecar) {
    let model = Model::start();
    let sidecar =
        Sidecar::start(&format!("[upstream]\naddress = \"{}\"\nprotocol = \"http1\"\n{settings}", model.address()));
    sidecar.until("/ready", 200);
    (model, sidecar)
}

/// What openssl says of a handshake, whether it came about or not.
fn s_client(sidecar: &Sidecar, arguments: &[&str]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &sidecar.traffic().to_string()]).args(arguments);
    let output = openssl.stdin(Stdio::null()).output().expect("openssl runs");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn metric(sidecar: &Sidecar, line: &str) -> bool {
    sidecar.probe("/metrics").body.lines().any(|known| known == line)
}

#[test]
fn curl_and_openssl_are_served_over_tls_and_plain_http_is_told_so() {
    let mounted = Mounted::new();
    let (_model, sidecar) = fronted(&mounted.table("min_version = \"1.3\"\n"));
    let url = format!("https://localhost:{}/health", sidecar.traffic().port());
    for (version, said) in [("--http1.1", "200 1.1"), ("--http2", "200 2")] {
        let text = says(curl().args([version, "--cacert", &mounted.ca(), "--ipv4", &url]));
        assert!(text.ends_with(said), "{version}: {text}");
    }
    let ca = mounted.ca();
    let modern = s_client(&sidecar, &["-CAfile", &ca, "-alpn", "h2,http/1.1"]);
    assert!(modern.contains("ALPN protocol: h2") && modern.contains("Verify return code: 0 (ok)"), "{modern}");
    assert!(modern.contains("TLSv1.3"), "{modern}");
    let old = s_client(&sidecar, &["-CAfile", &ca, "-tls1_2"]);
    assert!(old.contains("alert protocol version"), "{old}");
    let plain = says(curl().arg(format!("http://{}/health", sidecar.traffic())));
    assert!(plain.contains("HTTPS") && plain.ends_with("400 1.1"), "{plain}");
    assert!(metric(&sidecar, "probegate_tls_last_reload_successful 1"));
}

#[test]
fn a_swapped_certificate_is_taken_over_and_a_bad_one_is_refused_and_visible() {
    let mut mounted = Mounted::new();
    let (_model, sidecar) = fronted(&mounted.table(""));
    let shown = |subject: &str| {
        let text = s_client(&sidecar, &[]);
        text.contains(&format!("CN = {subject}")).then_some(()).ok_or(text)
    };
    shown("first").unwrap();
    mounted.swap("second");
    until("the second is shown", || shown("second").ok());
    let (cert, _) = mounted.sign("third");
    let (_, key) = mounted.sign("other");
    mounted.swap_to(&cert, &key);
    until("the refusal is visible", || metric(&sidecar, "probegate_tls_last_reload_successful 0").then_some(()));
    shown("second").unwrap();
    let log = sidecar.log_text();
    assert!(log.contains("do not belong together") && !log.contains("PRIVATE KEY"), "{log}");
    assert_eq!(sidecar.probe("/ready").status, 200);
    mounted.swap("fourth");
    until("the fourth is shown", || shown("fourth").ok());
    assert!(metric(&sidecar, "probegate_tls_last_reload_successful 1"));
}

#[test]
fn clients_show_certificates_where_the_file_asks_for_them() {
    let mounted = Mounted::new();
    let (_model, sidecar) = fronted(&mounted.table(&format!("client_ca_file = \"{}\"\n", mounted.ca())));
    let url = format!("https://localhost:{}/health", sidecar.traffic().port());
    let stranger = curl().args(["--cacert", &mounted.ca(), "--ipv4", &url]).output().expect("curl runs");
    assert!(!stranger.status.success());
    let (cert, key) = mounted.sign("client");
    fs::write(mounted.at("client.crt"), cert).unwrap();
    fs::write(mounted.at("client.key"), key).unwrap();
    let (cert, key) = (mounted.at("client.crt"), mounted.at("client.key"));
    let known =
        says(curl().args(["--cacert", &mounted.ca(), "--ipv4", &url]).arg("--cert").arg(cert).arg("--key").arg(key));
    assert!(known.ends_with("200 2"), "{known}");
    assert!(metric(&sidecar, "probegate_tls_handshakes_total{result=\"failed\"} 1"), "the stranger is counted");
}

#[test]
fn a_websocket_library_talks_over_tls() {
    let mounted = Mounted::new();
    let (_server, sidecar) = websocket_server(&mounted.table(""));
    let url = format!("wss://localhost:{}/", sidecar.traffic().port());
    assert_eq!(says(websocket_client().args([&url, &mounted.ca()])).trim(), "talked");
}

#[test]
fn a_pair_that_is_missing_refuses_the_start_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("probegate.toml");
    let missing = directory.path().join("tls.crt");
    let text = format!(
        "[upstream]\naddress = \"127.0.0.1:1\"\n[tls]\ncert_file = \"{0}\"\nkey_file = \"{0}\"\n",
        missing.display()
    );
    fs::write(&path, text).unwrap();
    let mut command = super::sidecar::probegate();
    let output = command.args(["run", "-c"]).arg(&path).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("tls.cert_file") && said.contains("tls.crt"), "{said}");
}
