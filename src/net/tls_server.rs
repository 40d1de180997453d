//! The server side of TLS, on rustls and ring: what the traffic listener shows to its clients.
//!
//! Owns the making of a server's configuration from the files of [`TlsServer`], and the noticing that they have
//! changed: by their content, for a mounted Secret changes by the swap of a link. It refuses a pair that does not
//! belong together, and shows no byte of a key, whatever is wrong with it. Blocks on files: call it where that is
//! allowed.

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::Ticketer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error, RootCertStore, ServerConfig, SupportedProtocolVersion};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tls::PROVIDER;
use crate::config::{TlsServer, TlsVersion};
use crate::limits;

/// How often a set of files is read until two readings agree.
const READINGS: usize = 5;

/// What a server shows, ready to shake hands with.
#[derive(Clone)]
pub struct Identity {
    pub config: Arc<ServerConfig>,
    /// When the certificate expires, in seconds since the Unix epoch.
    pub not_after: i64,
    /// Of which content it was made.
    pub seen: Seen,
}

/// A hash of what the files held, or of the reason why they could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen(u64);

/// What the files hold at one moment.
#[derive(Hash, Eq, PartialEq)]
struct Contents {
    cert: Result<Vec<u8>, String>,
    key: Result<Vec<u8>, String>,
    client_ca: Option<Result<Vec<u8>, String>>,
}

/// Makes an identity of the files.
///
/// # Errors
/// The first thing that is wrong with them, by key and file, for a person.
pub fn load(files: &TlsServer) -> Result<Identity, String> {
    let contents = Contents::read(files);
    let seen = contents.seen();
    contents.identity(files, seen)
}

/// What became of the files since `seen`; `None` if nothing did.
pub fn look(files: &TlsServer, seen: Seen) -> Option<(Seen, Result<Identity, String>)> {
    let contents = Contents::read(files);
    let now = contents.seen();
    (now != seen).then(|| (now, contents.identity(files, now)))
}

impl Contents {
    /// The certificate of one version and the key of the next are no pair: a swap that happens between two files is
    /// waited out by reading again.
    fn read(files: &TlsServer) -> Self {
        let mut last = Self::read_once(files);
        for _ in 1..READINGS {
            let next = Self::read_once(files);
            if next == last {
                break;
            }
            last = next;
        }
        last
    }

    fn read_once(files: &TlsServer) -> Self {
        Self {
            cert: read("cert_file", &files.cert_file),
            key: read("key_file", &files.key_file),
            client_ca: files.client_ca_file.as_deref().map(|path| read("client_ca_file", path)),
        }
    }

    fn seen(&self) -> Seen {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        Seen(hasher.finish())
    }

    fn identity(self, files: &TlsServer, seen: Seen) -> Result<Identity, String> {
        let chain = certificates("cert_file", &files.cert_file, &self.cert?)?;
        let not_after = expiry(&chain).ok_or_else(|| wrong("cert_file", &files.cert_file, "it is no X.509"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key?)
            .map_err(|_| wrong("key_file", &files.key_file, "it holds no private key in PEM"))?;
        let versions: &[&SupportedProtocolVersion] = match files.min_version {
            TlsVersion::V1_2 => &[&TLS13, &TLS12],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let tls = |error: Error| format!("tls: {error}");
        let builder = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER));
        let builder = builder.with_protocol_versions(versions).map_err(tls)?;
        let builder = match (self.client_ca, &files.client_ca_file) {
            (Some(pem), Some(path)) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates("client_ca_file", path, &pem?)?);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER)).build();
                let verifier = verifier.map_err(|error| wrong("client_ca_file", path, &error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            Error::InconsistentKeys(_) => "tls.cert_file and tls.key_file do not belong together".to_owned(),
            other => wrong("cert_file", &files.cert_file, &other.to_string()),
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A returning client is known by what it brings: nothing is kept for it here, on whichever worker it lands.
        config.ticketer = Ticketer::new().map_err(tls)?;
        Ok(Identity { config: Arc::new(config), not_after, seen })
    }
}

fn wrong(key: &str, path: &Path, why: &str) -> String {
    format!("tls.{key} {}: {why}", path.display())
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| wrong(key, path, &error.to_string());
    let file = File::open(path).map_err(cannot)?;
    // A pipe or a device might make us wait for ever.
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(wrong(key, path, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limits::TLS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if limits::TLS_FILE_BYTES_MAX < bytes.len() as u64 {
        return Err(wrong(key, path, "it is longer than 1 MiB"));
    }
    Ok(bytes)
}

fn certificates(key: &str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(wrong(key, path, "it holds no certificate in PEM")),
    }
}

fn expiry(chain: &[CertificateDer<'_>]) -> Option<i64> {
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    Some(leaf.validity().not_after.timestamp())
}

/// Nothing of the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    /// A directory with a pair in it, and the files as they would be configured.
    fn mounted() -> (tempfile::TempDir, TlsServer) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let files = TlsServer {
            cert_file: at("tls.crt"),
            key_file: at("tls.key"),
            client_ca_file: None,
            min_version: TlsVersion::V1_2,
        };
        write(&files, &pair("model"));
        (directory, files)
    }

    fn write(files: &TlsServer, (cert, key): &(String, String)) {
        fs::write(&files.cert_file, cert).unwrap();
        fs::write(&files.key_file, key).unwrap();
    }

    #[test]
    fn a_pair_loads_and_says_when_it_ends() {
        let (_directory, files) = mounted();
        let identity = load(&files).unwrap();
        assert!(identity.not_after > 1_700_000_000);
        assert_eq!(identity.config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert!(look(&files, identity.seen).is_none(), "nothing has changed");
    }

    #[test]
    fn a_swapped_link_is_a_change_and_a_bad_pair_comes_once() {
        let (directory, files) = mounted();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        for version in [&one, &two] {
            fs::create_dir(version).unwrap();
            let (cert, key) = pair("model");
            fs::write(version.join("tls.crt"), cert).unwrap();
            fs::write(version.join("tls.key"), key).unwrap();
        }
        let data = directory.path().join("..data");
        symlink(&one, &data).unwrap();
        let files = TlsServer { cert_file: data.join("tls.crt"), key_file: data.join("tls.key"), ..files };
        let first = load(&files).unwrap();
        let next = directory.path().join("..next");
        symlink(&two, &next).unwrap();
        fs::rename(&next, &data).unwrap();
        let (seen, second) = look(&files, first.seen).unwrap();
        assert!(second.is_ok());
        fs::remove_file(&data).unwrap();
        let (seen, gone) = look(&files, seen).unwrap();
        assert!(gone.unwrap_err().starts_with("tls.cert_file "));
        assert!(look(&files, seen).is_none(), "told once");
    }

    #[test]
    fn what_is_wrong_is_named_and_no_byte_of_a_key_is_shown() {
        let (_directory, files) = mounted();
        let (cert, key) = pair("other");
        fs::write(&files.key_file, &key).unwrap();
        assert_eq!(load(&files).unwrap_err(), "tls.cert_file and tls.key_file do not belong together");
        fs::write(&files.key_file, "SECRET").unwrap();
        let error = load(&files).unwrap_err();
        assert!(error.contains("tls.key_file") && error.contains("no private key") && !error.contains("SECRET"));
        fs::write(&files.key_file, &key).unwrap();
        fs::write(&files.cert_file, &key).unwrap();
        assert!(load(&files).unwrap_err().contains("no certificate in PEM"));
        fs::write(&files.cert_file, vec![b'-'; 1024 * 1024 + 1]).unwrap();
        assert!(load(&files).unwrap_err().contains("longer than 1 MiB"));
        fs::write(&files.cert_file, cert).unwrap();
        let identity = load(&files).unwrap();
        assert!(!format!("{identity:?}").contains("PRIVATE"));
        let missing = TlsServer { client_ca_file: Some("/dev/null".into()), ..files };
        assert!(load(&missing).unwrap_err().contains("no regular file"));
    }

    #[test]
    fn clients_are_asked_for_a_certificate_of_the_authorities_that_are_given() {
        let (directory, files) = mounted();
        let authorities = directory.path().join("ca.crt");
        fs::write(&authorities, pair("authority").0).unwrap();
        let files = TlsServer { client_ca_file: Some(authorities.clone()), min_version: TlsVersion::V1_3, ..files };
        assert!(load(&files).is_ok());
        fs::write(&authorities, "").unwrap();
        assert!(load(&files).unwrap_err().starts_with("tls.client_ca_file "));
    }
}
