//! What a message loses and gains on its way through.
//!
//! Hop-by-hop fields end here, `Host` stays, `TE: trailers` stays (gRPC dies without it), no `Via`.
//! Refuses a request whose target or host is ambiguous.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};
use hyper::ext::Protocol;

use super::refusal::Reason;
use super::websocket::{self, Accept};
use crate::limits;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Who sent a request, as the model server is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Client {
    pub(super) ip: IpAddr,
    /// Whether it came over TLS.
    pub(super) https: bool,
}

/// How the model server is spoken to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hop {
    Http1,
    Http2,
}

/// The tunnel that a request asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tunnel {
    /// `Upgrade` and `101` from end to end.
    Upgrade,
    /// The client's extended CONNECT (RFC 8441) is an `Upgrade` to the model server.
    ConnectToUpgrade,
    /// Extended CONNECT from end to end.
    Connect,
    /// The client's `Upgrade` to WebSocket is an extended CONNECT to the model server.
    UpgradeToConnect(Accept),
}

/// Brings a client's request into the form in which the upstream gets it, and says which tunnel it asks for.
pub(super) fn prepare_request<B>(
    request: &mut Request<B>,
    from: Client,
    forwarded: bool,
    hop: Hop,
) -> Result<Option<Tunnel>, Reason> {
    check_target(request)?;
    let tunnel = match hop {
        Hop::Http1 => aim_http1(request, from, forwarded)?,
        Hop::Http2 => aim_http2(request, from, forwarded)?,
    };
    // hyper sends the `100 Continue` itself when the upstream first asks for the body.
    request.headers_mut().remove(header::EXPECT);
    Ok(tunnel)
}

fn aim_http1<B>(request: &mut Request<B>, from: Client, forwarded: bool) -> Result<Option<Tunnel>, Reason> {
    let over_http2 = request.version() == Version::HTTP_2;
    normalise_target(request)?;
    check_host(request)?;
    let upgrade = if over_http2 { take_connect(request) } else { take_upgrade(request) };
    strip_hop_by_hop(request.headers_mut());
    if over_http2 {
        join_cookies(request.headers_mut());
    }
    if forwarded {
        let host = request.headers().get(header::HOST).cloned();
        add_forwarded(request.headers_mut(), from, host);
    }
    *request.version_mut() = Version::HTTP_11;
    let Some(protocol) = upgrade else { return Ok(None) };
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers_mut().insert(header::UPGRADE, protocol);
    Ok(Some(if over_http2 { Tunnel::ConnectToUpgrade } else { Tunnel::Upgrade }))
}

fn aim_http2<B>(request: &mut Request<B>, from: Client, forwarded: bool) -> Result<Option<Tunnel>, Reason> {
    let accept = upgrade_to_connect(request);
    if !is_whole(request.uri()) {
        normalise_target(request)?;
        check_host(request)?;
        host_to_authority(request)?;
    }
    speak_plainly(request)?;
    // The authority says it (RFC 9113, 8.3.1).
    request.headers_mut().remove(header::HOST);
    strip_hop_by_hop(request.headers_mut());
    if forwarded {
        let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        add_forwarded(request.headers_mut(), from, host);
    }
    *request.version_mut() = Version::HTTP_2;
    Ok(match accept {
        Some(accept) => Some(Tunnel::UpgradeToConnect(accept)),
        None => (request.method() == Method::CONNECT).then_some(Tunnel::Connect),
    })
}

/// HTTP/1.1's way to ask for WebSocket becomes that of RFC 8441. Any other upgrade is not taken up, as a server may
/// do (RFC 9110, 7.8).
fn upgrade_to_connect<B>(request: &mut Request<B>) -> Option<Accept> {
    let protocol = take_upgrade(request)?;
    let asked = request.method() == Method::GET && has_token(&protocol, "websocket");
    let key = request.headers_mut().remove(header::SEC_WEBSOCKET_KEY).filter(|_| asked)?;
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    Some(Accept::of(&key))
}

/// The scheme is that of our own connection, which has no TLS: some servers insist. `X-Forwarded-Proto` has the
/// client's.
fn speak_plainly<B>(request: &mut Request<B>) -> Result<(), Reason> {
    if request.uri().scheme() != Some(&Scheme::HTTPS) {
        return Ok(());
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Reason::BadRequest)?;
    Ok(())
}

/// Whether a target can be sent over HTTP/2 as it came.
fn is_whole(uri: &Uri) -> bool {
    uri.scheme().is_some() && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
}

/// HTTP/1's path and host become the one target that HTTP/2 wants. Without a host it stays a path.
fn host_to_authority<B>(request: &mut Request<B>) -> Result<(), Reason> {
    let Some(host) = request.headers_mut().remove(header::HOST) else { return Ok(()) };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| Reason::BadRequest)?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Reason::BadRequest)?;
    Ok(())
}

/// Gives an HTTP/1.0 client's request, which needs no host, that of the upstream: HTTP/1.1 and HTTP/2 insist.
pub(super) fn add_missing_host<B>(request: &mut Request<B>, hop: Hop, address: SocketAddr) {
    if request.uri().authority().is_some() || request.headers().contains_key(header::HOST) {
        return;
    }
    if let Ok(host) = HeaderValue::from_str(&address.to_string()) {
        request.headers_mut().insert(header::HOST, host);
        if hop == Hop::Http2 {
            // An address is a valid authority.
            let _ = host_to_authority(request);
        }
    }
}

/// Takes the upstream's hop-by-hop fields off its answer.
pub(super) fn prepare_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
}

/// Takes them off an answer that opens a tunnel: a `101`'s upgrade fields are the point of it, HTTP/2 has none.
pub(super) fn prepare_switch(headers: &mut HeaderMap, tunnel: Tunnel) {
    let protocol = headers.remove(header::UPGRADE);
    strip_hop_by_hop(headers);
    let protocol = match tunnel {
        Tunnel::ConnectToUpgrade | Tunnel::Connect => {
            headers.remove(header::SEC_WEBSOCKET_ACCEPT);
            return;
        }
        Tunnel::Upgrade => protocol,
        Tunnel::UpgradeToConnect(accept) => {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.value());
            Some(HeaderValue::from_static("websocket"))
        }
    };
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
    }
}

fn check_target<B>(request: &Request<B>) -> Result<(), Reason> {
    let (method, uri) = (request.method(), request.uri());
    if method == Method::CONNECT && request.extensions().get::<Protocol>().is_none() {
        return Err(Reason::ConnectUnsupported);
    }
    let path = uri.path_and_query().map_or(0, |target| target.as_str().len());
    if path > limits::URI_BYTES_MAX {
        return Err(Reason::UriTooLong);
    }
    // `host:port` alone is CONNECT's form, `*` that of OPTIONS.
    let authority_form = uri.scheme().is_none() && uri.authority().is_some();
    if authority_form || (uri.path() == "*" && method != Method::OPTIONS) {
        return Err(Reason::BadRequest);
    }
    Ok(())
}

/// Absolute form becomes origin form, and its authority the host (RFC 9112, 3.2.2).
fn normalise_target<B>(request: &mut Request<B>) -> Result<(), Reason> {
    let Some(authority) = request.uri().authority() else { return Ok(()) };
    // Anything before an `@` names a user, not a host.
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let host = HeaderValue::from_str(host).map_err(|_| Reason::BadRequest)?;
    let target = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    request.headers_mut().insert(header::HOST, host);
    *request.uri_mut() = Uri::from(target);
    Ok(())
}

/// Exactly one host, but for HTTP/1.0, which knows none.
fn check_host<B>(request: &Request<B>) -> Result<(), Reason> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => Ok(()),
        (None, _) if request.version() == Version::HTTP_10 => Ok(()),
        _ => Err(Reason::BadRequest),
    }
}

/// The protocol that the client wants to switch to, if it properly asks.
fn take_upgrade<B>(request: &mut Request<B>) -> Option<HeaderValue> {
    if request.version() != Version::HTTP_11 || !request.headers().contains_key(header::UPGRADE) {
        return None;
    }
    let protocol = request.headers_mut().remove(header::UPGRADE)?;
    let asked = request.headers().get_all(header::CONNECTION).iter().any(|value| has_token(value, "upgrade"));
    // h2c by upgrade is dead (RFC 9113, 3.1): such a client is served over HTTP/1.1.
    (asked && !has_token(&protocol, "h2c")).then_some(protocol)
}

/// The protocol of an extended CONNECT, which becomes the `GET` that HTTP/1.1 asks for an upgrade with.
fn take_connect<B>(request: &mut Request<B>) -> Option<HeaderValue> {
    let protocol = request.extensions_mut().remove::<Protocol>()?;
    let protocol = HeaderValue::from_str(protocol.as_str()).ok()?;
    *request.method_mut() = Method::GET;
    // RFC 8441 has no key; HTTP/1.1 wants one that differs from call to call.
    if protocol == "websocket" && !request.headers().contains_key(header::SEC_WEBSOCKET_KEY) {
        request.headers_mut().insert(header::SEC_WEBSOCKET_KEY, websocket::key());
    }
    Some(protocol)
}

/// HTTP/2 may send cookies in several fields, HTTP/1.1 must not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(header::COOKIE).iter();
    if all.next().is_none() || all.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, whole);
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip_named_by_connection(headers);
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    strip_te(headers);
}

/// Fields that a `Connection` field names are for this hop only (RFC 9110, 7.6.1).
fn strip_named_by_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let values: Vec<HeaderValue> = headers.get_all(header::CONNECTION).iter().cloned().collect();
    headers.remove(header::CONNECTION);
    for token in values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')) {
        // Naming these would let a client take the body's framing, the host or gRPC's trailers away.
        if let Ok(name) = HeaderName::from_bytes(token.trim().as_bytes())
            && name != header::CONTENT_LENGTH
            && name != header::HOST
            && name != header::TE
        {
            headers.remove(name);
        }
    }
}

/// Of `TE` only `trailers` may pass.
fn strip_te(headers: &mut HeaderMap) {
    if !headers.contains_key(header::TE) {
        return;
    }
    let trailers = headers.get_all(header::TE).iter().any(|value| has_token(value, "trailers"));
    headers.remove(header::TE);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().is_ok_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
}

fn add_forwarded(headers: &mut HeaderMap, from: Client, host: Option<HeaderValue>) {
    let mut chain =
        headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(", ");
    if !chain.is_empty() {
        chain.push_str(", ");
    }
    chain.push_str(&from.ip.to_canonical().to_string());
    if let Ok(value) = HeaderValue::from_str(&chain) {
        headers.insert(X_FORWARDED_FOR, value);
    }
    // A proxy before us saw the client's own words: they stay.
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if from.https { "https" } else { "http" }));
    }
    if !headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = host
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Client = Client { ip: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)), https: false };

    fn request(uri: &str, fields: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::builder().uri(uri).body(()).unwrap();
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    fn names(request: &Request<()>) -> Vec<String> {
        let mut names: Vec<String> = request.headers().keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_for_one_hop_only_ends_here() {
        let mut request = request(
            "/x",
            &[
                ("host", "m"),
                ("connection", "keep-alive, X-Secret"),
                ("connection", "x-other"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("proxy-authorization", "Basic eA=="),
                ("transfer-encoding", "chunked"),
                ("x-secret", "1"),
                ("x-other", "1"),
                ("x-kept", "1"),
            ],
        );
        assert_eq!(prepare_request(&mut request, FROM, false, Hop::Http1), Ok(None));
        assert_eq!(names(&request), ["host", "x-kept"]);
    }

    #[test]
    fn te_trailers_passes_and_nothing_else_of_te() {
        let mut with = request("/", &[("host", "m"), ("connection", "te"), ("te", "deflate, trailers")]);
        prepare_request(&mut with, FROM, false, Hop::Http1).unwrap();
        assert_eq!(with.headers()["te"], "trailers");
        let mut without = request("/", &[("host", "m"), ("te", "deflate")]);
        prepare_request(&mut without, FROM, false, Hop::Http1).unwrap();
        assert!(!without.headers().contains_key("te"));
    }

    #[test]
    fn connection_cannot_take_the_framing_or_the_host_away() {
        let mut request =
            request("/", &[("host", "m"), ("content-length", "3"), ("connection", "content-length, host")]);
        prepare_request(&mut request, FROM, false, Hop::Http1).unwrap();
        assert_eq!(names(&request), ["content-length", "host"]);
    }

    #[test]
    fn an_upgrade_passes_when_properly_asked_for() {
        let mut asked = request("/", &[("host", "m"), ("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(prepare_request(&mut asked, FROM, false, Hop::Http1), Ok(Some(Tunnel::Upgrade)));
        assert_eq!(asked.headers()["connection"], "upgrade");
        assert_eq!(asked.headers()["upgrade"], "websocket");
        let mut unasked = request("/", &[("host", "m"), ("upgrade", "websocket")]);
        assert_eq!(prepare_request(&mut unasked, FROM, false, Hop::Http1), Ok(None));
        assert!(!unasked.headers().contains_key("upgrade"));
        let mut h2c = request("/", &[("host", "m"), ("connection", "upgrade, http2-settings"), ("upgrade", "h2c")]);
        assert_eq!(prepare_request(&mut h2c, FROM, false, Hop::Http1), Ok(None));
    }

    #[test]
    fn an_absolute_target_becomes_a_path_and_its_authority_the_host() {
        let mut request = request("http://user@model:8080/v1?a=b", &[("host", "lie")]);
        prepare_request(&mut request, FROM, false, Hop::Http1).unwrap();
        assert_eq!(request.uri(), "/v1?a=b");
        assert_eq!(request.headers()["host"], "model:8080");
    }

    #[test]
    fn a_missing_or_doubled_host_is_refused() {
        assert_eq!(prepare_request(&mut request("/", &[]), FROM, false, Hop::Http1), Err(Reason::BadRequest));
        let mut twice = request("/", &[("host", "a"), ("host", "b")]);
        assert_eq!(prepare_request(&mut twice, FROM, false, Hop::Http1), Err(Reason::BadRequest));
        let mut old = request("/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(prepare_request(&mut old, FROM, false, Hop::Http1), Ok(None));
        assert_eq!(old.version(), Version::HTTP_11);
    }

    #[test]
    fn a_uri_is_taken_up_to_the_limit_and_not_one_byte_longer() {
        let at = format!("/{}", "a".repeat(limits::URI_BYTES_MAX - 1));
        assert_eq!(prepare_request(&mut request(&at, &[("host", "m")]), FROM, false, Hop::Http1), Ok(None));
        let above = format!("{at}a");
        assert_eq!(
            prepare_request(&mut request(&above, &[("host", "m")]), FROM, false, Hop::Http1),
            Err(Reason::UriTooLong)
        );
    }

    #[test]
    fn connect_and_a_misplaced_asterisk_are_refused() {
        let mut connect = request("m:80", &[("host", "m")]);
        *connect.method_mut() = Method::CONNECT;
        assert_eq!(prepare_request(&mut connect, FROM, false, Hop::Http1), Err(Reason::ConnectUnsupported));
        assert_eq!(
            prepare_request(&mut request("*", &[("host", "m")]), FROM, false, Hop::Http1),
            Err(Reason::BadRequest)
        );
        let mut options = request("*", &[("host", "m")]);
        *options.method_mut() = Method::OPTIONS;
        assert_eq!(prepare_request(&mut options, FROM, false, Hop::Http1), Ok(None));
    }

    #[test]
    fn forwarded_fields_are_added_to_what_is_there() {
        let mut request =
            request("/", &[("host", "m"), ("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")]);
        prepare_request(&mut request, FROM, true, Hop::Http1).unwrap();
        assert_eq!(request.headers()["x-forwarded-for"], "1.1.1.1, 10.0.0.9");
        assert_eq!(request.headers()["x-forwarded-proto"], "https");
        assert_eq!(request.headers()["x-forwarded-host"], "m");
    }

    #[test]
    fn whoever_came_over_tls_is_said_to_have_and_our_own_hop_is_plain() {
        let mut h1 = request("/", &[("host", "m")]);
        prepare_request(&mut h1, Client { https: true, ..FROM }, true, Hop::Http1).unwrap();
        assert_eq!(h1.headers()["x-forwarded-proto"], "https");
        let mut h2 = request("https://m/v1?a=b", &[]);
        *h2.version_mut() = Version::HTTP_2;
        prepare_request(&mut h2, Client { https: true, ..FROM }, true, Hop::Http2).unwrap();
        assert_eq!(h2.uri(), "http://m/v1?a=b");
        assert_eq!(h2.headers()["x-forwarded-proto"], "https");
    }
}
