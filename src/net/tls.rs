//! The client side of TLS, on rustls and ring.
//!
//! Owns the making of a client's configuration from [`TlsClient`], the handshake, and the words for what goes
//! wrong in it. Files are read at each handshake, so that a rotated certificate takes effect by itself. It
//! keeps no session: a probe that resumes one would not see the certificate that a new client sees.

use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};

use super::connect::io_failure;
use super::trust::{AnyCertificate, Roots, is_authority_as_server};
use super::{Failure, Waiting};
use crate::config::TlsClient;

pub(super) static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

/// The compiled-in roots: the image has no others.
static ROOTS: LazyLock<Arc<RootCertStore>> =
    LazyLock::new(|| Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }));

/// Shakes hands with `host` over `stream`, whose address for people is `whom`. `alpn` is offered in order.
pub async fn handshake<S>(
    stream: S,
    tls: &TlsClient,
    host: &str,
    whom: &str,
    alpn: &[&[u8]],
    waiting: Waiting<'_>,
) -> Result<TlsStream<S>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = server_name(tls, host)?;
    let mut config = client_config(tls).await?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    waiting(format!("the TLS handshake of {whom}"));
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| failure(&error, whom))
}

/// The name that the certificate must carry and that is sent as SNI: `server_name` if it is set, else the host.
pub fn server_name(tls: &TlsClient, host: &str) -> Result<ServerName<'static>, Failure> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| Failure::local(format!("{name:?} is no name for a certificate")))
}

/// A client's configuration. The error says which file is missing or wrong, never what is in it.
pub async fn client_config(tls: &TlsClient) -> Result<ClientConfig, Failure> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::local(format!("TLS: {error}")))?;
    let builder = if tls.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(&PROVIDER)))
    } else {
        let (roots, given) = roots(tls.ca_file.as_deref()).await?;
        let verifier =
            Roots::new(roots, given, &PROVIDER).map_err(|error| Failure::local(format!("ca_file: {error}")))?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    };
    let mut config = match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => {
            let (chain, key) = client_certificate(cert, key).await?;
            let wrong = |error| Failure::local(format!("cert_file {} and its key: {error}", cert.display()));
            builder.with_client_auth_cert(chain, key).map_err(wrong)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(Failure::local("cert_file and key_file are only of use together")),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The roots, and those that were given as a file.
async fn roots(ca_file: Option<&Path>) -> Result<(Arc<RootCertStore>, Vec<CertificateDer<'static>>), Failure> {
    let Some(path) = ca_file else { return Ok((Arc::clone(&ROOTS), Vec::new())) };
    let mut roots = RootCertStore::empty();
    let given = certificates("ca_file", path).await?;
    let (added, _) = roots.add_parsable_certificates(given.iter().cloned());
    if added == 0 {
        return Err(Failure::local(format!("ca_file {} holds no usable certificate", path.display())));
    }
    Ok((Arc::new(roots), given))
}

async fn client_certificate(
    cert: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Failure> {
    let chain = certificates("cert_file", cert).await?;
    let pem = read("key_file", key).await?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| Failure::local(format!("key_file {} holds no private key in PEM", key.display())))?;
    Ok((chain, key))
}

async fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let pem = read(what, path).await?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Failure::local(format!("{what} {} holds no certificate in PEM", path.display()))),
    }
}

async fn read(what: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    tokio::fs::read(path)
        .await
        .map_err(|error| Failure::local(format!("cannot read {what} {}: {error}", path.display())))
}

/// What a failed handshake, or a TLS connection that broke later, means.
pub fn failure(error: &io::Error, whom: &str) -> Failure {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(error)) => Failure::answer(certificate_reason(error, whom)),
        Some(Error::InvalidMessage(_) | Error::InappropriateMessage { .. }) => {
            Failure::answer(format!("{whom} does not speak TLS"))
        }
        Some(Error::AlertReceived(alert)) => Failure::answer(alert_reason(*alert, whom)),
        Some(Error::NoCertificatesPresented) => Failure::answer(format!("{whom} shows no certificate")),
        Some(other) => Failure::answer(format!("TLS handshake with {whom} failed: {other}")),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Failure::unreachable(format!("{whom} closed the connection during the TLS handshake"))
        }
        None => io_failure(whom, error),
    }
}

fn alert_reason(alert: AlertDescription, whom: &str) -> String {
    match alert {
        AlertDescription::CertificateRequired => format!("{whom} wants a client certificate"),
        AlertDescription::UnknownCA => format!("{whom} does not know the issuer of our client certificate"),
        AlertDescription::UnrecognisedName => format!("{whom} serves no certificate for that server name"),
        other => format!("{whom} refused the TLS handshake: {other:?}"),
    }
}

fn certificate_reason(error: &CertificateError, whom: &str) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => format!(
            "certificate of {whom} expired {} ago ({})",
            span(time.as_secs().saturating_sub(not_after.as_secs())),
            day(not_after.as_secs())
        ),
        CertificateError::Expired => format!("certificate of {whom} expired"),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("certificate of {whom} is not valid before {}", day(not_before.as_secs()))
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "certificate of {whom} is for {}, not {}",
            if presented.is_empty() { "no name at all".to_owned() } else { names(presented) },
            expected.to_str()
        ),
        CertificateError::UnknownIssuer => format!("unknown issuer of the certificate of {whom}"),
        other if is_authority_as_server(other) => {
            format!("certificate of {whom} is self-signed and not known here: to trust it, give it as `ca_file`")
        }
        other => format!("certificate of {whom} is not acceptable: {other}"),
    }
}

/// The first names out of the library's `DnsName("a.example")` and `IpAddress(192.0.2.1)`.
fn names(presented: &[String]) -> String {
    const SHOWN: usize = 3;
    let plain = |name: &String| {
        let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        inside.trim_matches('"').to_owned()
    };
    let shown: Vec<_> = presented.iter().take(SHOWN).map(plain).collect();
    let more = presented.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// A span of time in the largest unit that fits: `3 days`, `1 hour`.
pub fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// The UTC day of a Unix time, as in `2026-11-30`.
pub fn day(unix_seconds: u64) -> String {
    // Beyond the year 9999 the calendar of the formatter ends.
    let at: SystemTime = UNIX_EPOCH + Duration::from_secs(unix_seconds.min(253_402_300_799));
    humantime::format_rfc3339_seconds(at).to_string().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_days_are_for_people() {
        assert_eq!(span(59), "59 seconds");
        assert_eq!(span(3600), "1 hour");
        assert_eq!(span(3 * 86_400 + 5), "3 days");
        assert_eq!(day(1_796_000_000), "2026-11-30");
        assert_eq!(day(u64::MAX), "9999-12-31");
    }

    #[test]
    fn names_of_a_certificate_are_shown_plainly_and_in_part() {
        let names = |n: usize| names(&(0..n).map(|i| format!("DnsName(\"{i}.example\")")).collect::<Vec<_>>());
        assert_eq!(names(1), "0.example");
        assert_eq!(names(5), "0.example, 1.example, 2.example and 2 more");
    }

    #[tokio::test]
    async fn files_that_cannot_serve_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let junk = dir.path().join("junk.pem");
        std::fs::write(&junk, "no certificate").unwrap();
        let reason = async |tls: TlsClient| client_config(&tls).await.unwrap_err().reason;
        let missing = TlsClient { ca_file: Some(dir.path().join("none.pem")), ..TlsClient::default() };
        assert!(reason(missing).await.contains("cannot read ca_file"));
        let wrong = TlsClient { ca_file: Some(junk.clone()), ..TlsClient::default() };
        assert!(reason(wrong).await.ends_with("holds no certificate in PEM"));
        let half = TlsClient { cert_file: Some(junk), ..TlsClient::default() };
        assert_eq!(reason(half).await, "cert_file and key_file are only of use together");
    }
}
