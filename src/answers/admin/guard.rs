//! Who may come in: a token where one is configured, and no web page but our own.
//!
//! A browser on the same machine can reach loopback for any page it shows. `Host` must therefore be an
//! address (a name could be rebound to us), and what changes something must not come from elsewhere.

use http::header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, StatusCode, Uri};

use super::{Reply, Way, refusal};
use crate::secret::SecretSource;

/// Lets a request in, or says why not.
pub(super) fn admit<B>(request: &Request<B>, way: Way, token: Option<&SecretSource>) -> Result<(), Box<Reply>> {
    let headers = request.headers();
    if let Some(source) = token {
        let expected = source.resolve().ok().filter(|secret| !secret.expose().is_empty());
        let Some(expected) = expected else {
            return Err(Box::new(refusal(StatusCode::UNAUTHORIZED, "the admin token cannot be read")));
        };
        if !shown(headers).is_some_and(|shown| same(shown.as_bytes(), expected.expose().as_bytes())) {
            return Err(Box::new(unauthorized()));
        }
    } else if way == Way::Tcp && !host_is_address(request) {
        return Err(Box::new(refusal(StatusCode::FORBIDDEN, "the Host must be an address or localhost")));
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && is_foreign(headers) {
        return Err(Box::new(refusal(StatusCode::FORBIDDEN, "requests from other sites are refused")));
    }
    Ok(())
}

fn unauthorized() -> Reply {
    let mut response = refusal(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN");
    let headers = response.headers_mut();
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"probegate\""));
    // Browsers ask for a password; the token is it.
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"probegate\""));
    response
}

/// The token that a caller shows: `Bearer TOKEN`, or `Basic` with the token as the password.
fn shown(headers: &HeaderMap) -> Option<String> {
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(base64(value.trim())?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// Decodes standard base64, padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let mut bits = 0_u32;
    let mut count = 0;
    for byte in text.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if 8 <= count {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(out)
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    let longest = a.len().max(b.len());
    let differing = (0..longest).fold(a.len() ^ b.len(), |differing, at| {
        let byte = |of: &[u8]| of.get(at).copied().unwrap_or_default();
        differing | usize::from(byte(a) ^ byte(b))
    });
    std::hint::black_box(differing) == 0
}

fn host_is_address<B>(request: &Request<B>) -> bool {
    let authority = match request.headers().get(HOST) {
        Some(host) => host.to_str().ok().and_then(|host| host.parse::<http::uri::Authority>().ok()),
        // HTTP/1.0 without one: no browser speaks that.
        None => return request.uri().host().is_none_or(is_address),
    };
    authority.is_some_and(|authority| is_address(authority.host()))
}

fn is_address(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

/// Whether a browser says that another site's page makes the request.
fn is_foreign(headers: &HeaderMap) -> bool {
    let cross = headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    let other = headers.get(ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        origin.as_ref().and_then(|origin| origin.authority()).map(|authority| authority.as_str()) != host
    });
    cross || other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_means_equal_in_every_byte_and_length() {
        assert!(same(b"token", b"token"));
        for other in [&b""[..], b"toke", b"token\0", b"Token", b"tokem"] {
            assert!(!same(b"token", other) && !same(other, b"token"), "{other:?}");
        }
    }

    #[test]
    fn base64_reads_what_browsers_write() {
        assert_eq!(base64("dXNlcjp0b2tlbg==").as_deref(), Some(&b"user:token"[..]));
        assert_eq!(base64("OnQ").as_deref(), Some(&b":t"[..]));
        assert_eq!(base64("not base64!"), None);
    }

    #[test]
    fn a_host_is_an_address_or_localhost() {
        for (host, fine) in [
            ("127.0.0.1:9091", true),
            ("[::1]:9091", true),
            ("localhost:8001", true),
            ("10.1.2.3", true),
            ("evil.example:9091", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            let request = Request::builder().header(HOST, host).body(()).unwrap();
            assert_eq!(host_is_address(&request), fine, "{host}");
        }
    }
}
