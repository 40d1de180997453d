//! `tls`: the server shakes hands with a certificate that holds, and will hold for long enough.

use std::time::{Duration, UNIX_EPOCH};

use x509_parser::prelude::{FromDer, X509Certificate};

use super::Scene;
use crate::config::TlsCheck;
use crate::engine::{Fault, Outcome, Sign};
use crate::net::connect::{connect, split_host_port};
use crate::net::tls::{day, handshake, span};
use crate::net::{Failure, Waiting};

const DAY: u64 = 86_400;

pub(super) async fn attempt(spec: &TlsCheck, scene: &Scene) -> Outcome {
    let waiting: Waiting<'_> = &|what| scene.waiting_for(what);
    match leaf_dates(spec, waiting).await {
        Ok(dates) => {
            scene.saw(Sign::Answered);
            let now = scene.clock.wall(scene.clock.now()).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            match dates.judge(&spec.address, now, spec.min_valid) {
                Ok(remark) => scene.pass().remark(remark),
                Err(reason) => scene.fail(Fault::Answer, reason),
            }
        }
        Err(failure) => scene.failed(failure),
    }
}

/// From when to when a certificate is valid, in Unix seconds.
#[derive(Clone, Copy, Debug)]
struct Dates {
    not_before: u64,
    not_after: u64,
}

async fn leaf_dates(spec: &TlsCheck, waiting: Waiting<'_>) -> Result<Dates, Failure> {
    let address = &spec.address;
    let stream = connect(address, waiting).await?;
    let host = split_host_port(address).map_or(address.as_str(), |(host, _)| host);
    let stream = handshake(stream, &spec.tls, host, address, &[], waiting).await?;
    let (_, connection) = stream.get_ref();
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(|| Failure::answer(format!("{address} shows no certificate")))?;
    let (_, certificate) = X509Certificate::from_der(leaf)
        .map_err(|_| Failure::answer(format!("the certificate of {address} cannot be read")))?;
    let unix = |at: i64| u64::try_from(at).unwrap_or_default();
    let validity = certificate.validity();
    Ok(Dates { not_before: unix(validity.not_before.timestamp()), not_after: unix(validity.not_after.timestamp()) })
}

impl Dates {
    /// Also without verification of the chain: `insecure_skip_verify` does not make an old certificate young.
    fn judge(self, address: &str, now: u64, min_valid: Duration) -> Result<String, String> {
        if now < self.not_before {
            return Err(format!("certificate of {address} is not valid before {}", day(self.not_before)));
        }
        let Some(left) = self.not_after.checked_sub(now) else {
            let ago = span(now - self.not_after);
            return Err(format!("certificate of {address} expired {ago} ago ({})", day(self.not_after)));
        };
        let expires = format!("expires in {} ({})", span(left), day(self.not_after));
        if left >= min_valid.as_secs() {
            return Ok(expires);
        }
        let wanted = if left >= DAY && min_valid.as_secs().is_multiple_of(DAY) {
            (min_valid.as_secs() / DAY).to_string()
        } else {
            span(min_valid.as_secs())
        };
        Err(format!("certificate of {address} {expires}, expected at least {wanted}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::tests::run;
    use crate::config::{Kind, TlsClient};
    use crate::engine::Verdict;
    use crate::net::peer::{self, Authority, Then, raw};

    const WEEK: Duration = Duration::from_secs(7 * DAY);

    /// Checks a server whose certificate is for `name` and valid for days `from..to` of now.
    async fn checked(name: &str, from: i64, to: i64, skip: bool) -> Outcome {
        let (ca, now) = (Authority::new(), peer::unix_now());
        let identity = ca.issue(name, now + from * peer::DAY, now + to * peer::DAY + 60);
        let address = peer::tls(identity, &[], |stream| async move { drop(stream) }).await;
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, &ca.pem).unwrap();
        let tls = TlsClient { ca_file: Some(ca_file), insecure_skip_verify: skip, ..TlsClient::default() };
        let address = address.replace("127.0.0.1", "localhost");
        let mut outcome = run(Kind::Tls(TlsCheck { address: address.clone(), min_valid: WEEK, tls })).await;
        outcome.reason = outcome.reason.replace(&address, "PEER");
        outcome
    }

    #[tokio::test]
    async fn a_certificate_with_time_left_passes_and_says_how_much() {
        let outcome = checked("localhost", -1, 30, false).await;
        assert_eq!(outcome.verdict, Verdict::Pass, "{}", outcome.reason);
        assert!(outcome.reason.starts_with("expires in 30 days (20"), "{}", outcome.reason);
        assert_eq!(outcome.sign, Some(Sign::Answered));
    }

    #[tokio::test]
    async fn a_certificate_that_ends_too_soon_fails_before_it_does() {
        let outcome = checked("localhost", -1, 5, false).await;
        assert_eq!(outcome.verdict, Verdict::Fail(Fault::Answer));
        assert!(outcome.reason.starts_with("certificate of PEER expires in 5 days (20"), "{}", outcome.reason);
        assert!(outcome.reason.ends_with("), expected at least 7"), "{}", outcome.reason);
    }

    #[tokio::test]
    async fn an_expired_certificate_fails_with_and_without_verification() {
        for skip in [false, true] {
            let outcome = checked("localhost", -9, -3, skip).await;
            assert_eq!(outcome.verdict, Verdict::Fail(Fault::Answer));
            assert!(outcome.reason.starts_with("certificate of PEER expired "), "{}", outcome.reason);
            assert!(outcome.reason.contains(" 2 days ago (20"), "{}", outcome.reason);
        }
    }

    #[tokio::test]
    async fn a_certificate_of_tomorrow_and_one_of_another_are_named() {
        let early = checked("localhost", 1, 30, false).await;
        assert!(early.reason.starts_with("certificate of PEER is not valid before 20"), "{}", early.reason);
        let other = checked("other.example", -1, 30, false).await;
        assert_eq!(other.reason, "certificate of PEER is for other.example, not localhost");
        assert_eq!(other.sign, Some(Sign::Answered));
    }

    #[tokio::test]
    async fn plaintext_silence_and_nobody_are_told_apart() {
        let check = |address: &str| {
            run(Kind::Tls(TlsCheck { address: address.to_owned(), min_valid: WEEK, tls: TlsClient::default() }))
        };
        let plain = raw("HTTP/1.1 400 Bad Request\r\n\r\n", Then::Close).await;
        let outcome = check(&plain.address).await;
        assert_eq!(outcome.reason, format!("{} does not speak TLS", plain.address));
        let mut silent = raw("", Then::Hold).await;
        let outcome = check(&silent.address).await;
        assert_eq!(outcome.verdict, Verdict::Fail(Fault::Timeout));
        assert!(outcome.reason.ends_with(&format!("waiting for the TLS handshake of {}", silent.address)));
        silent.left().await;
        let closed = format!("127.0.0.1:{}", peer::closed_port().await);
        assert_eq!(check(&closed).await.sign, Some(Sign::Refused));
    }
}
