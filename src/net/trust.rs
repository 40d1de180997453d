//! Which server certificates are accepted.
//!
//! Owns the two verifiers: the one that asks the roots, and the one that asks nobody. It refuses to read files: the
//! roots are given.

use std::sync::{Arc, LazyLock};

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

type Provider = LazyLock<Arc<CryptoProvider>>;

/// Accepts what the roots have signed, and a root itself that was given by hand: one `openssl req -x509` makes a
/// certificate that says of itself that it is an authority, and people serve it and name it as `ca_file`.
#[derive(Debug)]
pub(super) struct Roots {
    chains: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl Roots {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        given: Vec<CertificateDer<'static>>,
        provider: &Provider,
    ) -> Result<Self, VerifierBuilderError> {
        let chains = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build()?;
        Ok(Self { chains, given })
    }
}

/// Whether a certificate was refused for being an authority's own. The library wraps this one in a type that only
/// its debug text names.
pub(super) fn is_authority_as_server(error: &CertificateError) -> bool {
    format!("{error:?}").contains("CaUsedAsEndEntity")
}

/// The dates, as the library would judge them.
fn verify_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let unix = |at: i64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(at).unwrap_or(0)));
    let not_before = unix(certificate.validity().not_before.timestamp());
    let not_after = unix(certificate.validity().not_after.timestamp());
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before });
    }
    if not_after < now {
        return Err(CertificateError::ExpiredContext { time: now, not_after });
    }
    Ok(())
}

impl ServerCertVerifier for Roots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // It is the root itself, so there is no signature left to verify; its dates and its names are.
            Err(Error::InvalidCertificate(error))
                if is_authority_as_server(&error) && self.given.contains(end_entity) =>
            {
                verify_dates(end_entity, now)?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Accepts any certificate, for `insecure_skip_verify`; the handshake's own signatures are still checked.
#[derive(Debug)]
pub(super) struct AnyCertificate(pub(super) &'static Provider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_rustls::rustls::pki_types::pem::PemObject;

    use super::super::peer::Authority;
    use super::super::tls::PROVIDER;
    use super::*;

    /// What a client says of an authority's own certificate when it knows `known`.
    fn judged(served: &Authority, known: &Authority, name: &'static str, unix: u64) -> Result<(), CertificateError> {
        let der = |ca: &Authority| CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(der(known)).unwrap();
        let verifier = Roots::new(Arc::new(roots), vec![der(known)], &PROVIDER).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(unix));
        let name = ServerName::try_from(name).unwrap();
        match verifier.verify_server_cert(&der(served), &[], &name, &[], now) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn an_authoritys_own_certificate_serves_only_those_who_were_given_it_in_its_time_and_under_its_name() {
        const NOW: u64 = 1_796_000_000;
        let (ca, other) = (Authority::new(), Authority::new());
        assert_eq!(judged(&ca, &ca, "localhost", NOW), Ok(()));
        assert!(judged(&ca, &other, "localhost", NOW).is_err_and(|error| is_authority_as_server(&error)));
        let elsewhere = judged(&ca, &ca, "other.example", NOW);
        assert!(matches!(elsewhere, Err(CertificateError::NotValidForNameContext { .. })), "{elsewhere:?}");
        let late = judged(&ca, &ca, "localhost", 137_000_000_000);
        assert!(matches!(late, Err(CertificateError::ExpiredContext { .. })), "{late:?}");
        let early = judged(&ca, &ca, "localhost", 1);
        assert!(matches!(early, Err(CertificateError::NotValidYetContext { .. })), "{early:?}");
    }
}
