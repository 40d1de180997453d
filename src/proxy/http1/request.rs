//! A request's head: read once, checked, and written as the model server gets it.

use std::io::Write;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use httparse::Status;

use super::FIELDS_MAX;
use super::chunked::Chunked;
use super::fields::{Connection, Copier, Field, has_token, length, starts};
use super::framing::Body;
use crate::limits;
use crate::proxy::access::About;
use crate::proxy::headers::Client;
use crate::proxy::refusal::Reason;

/// What must be known of a request once its head has been rewritten.
#[derive(Debug)]
pub(super) struct Request {
    /// The head as the model server gets it, and what is there of the body.
    pub(super) out: Vec<u8>,
    /// Where in `out` the path is, without the query.
    path: Range<usize>,
    /// Where in `out` a host belongs that the client, of HTTP/1.0, did not name.
    host_at: Option<usize>,
    pub(super) is_head: bool,
    /// Doing it twice is doing it once (RFC 9110, 9.2.2).
    pub(super) is_safe: bool,
    pub(super) http10: bool,
    /// The client wants to go on after this one.
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// It came by another proxy, which says for whom.
    pub(super) was_forwarded: bool,
    /// The client waits with its body until it is asked for it.
    pub(super) expects: bool,
    /// What is still to come of the body.
    pub(super) body: Body,
    /// Bytes of content in `out`.
    pub(super) received: usize,
    /// For whoever must see the fields themselves.
    pub(super) seen: Option<Box<Seen>>,
}

/// A request as a probe hook is shown it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
}

/// How heads are to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// The client, if the model server is to be told of it.
    pub(super) forwarded: Option<Client>,
    /// Whether [`Request::seen`] is wanted.
    pub(super) show: bool,
}

impl Request {
    pub(super) fn path(&self) -> &str {
        std::str::from_utf8(&self.out[self.path.clone()]).unwrap_or_default()
    }

    /// What the access log may tell of it.
    pub(super) fn about(&self) -> About<'_> {
        let method = self.out.split(|byte| *byte == b' ').next().unwrap_or_default();
        let target = self.out[self.path.start..].split(|byte| *byte == b' ').next().unwrap_or_default();
        About {
            method: std::str::from_utf8(method).unwrap_or_default(),
            target: std::str::from_utf8(target).unwrap_or_default(),
            path: self.path(),
            protocol: if self.http10 { "HTTP/1.0" } else { "HTTP/1.1" },
            traceparent: self.field("traceparent"),
            request_id: self.field("x-request-id"),
        }
    }

    /// A field's value, as it was written: for the few who ask, and seldom.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let lines = self.out.split(|byte| *byte == b'\n').skip(1).map(<[u8]>::trim_ascii_end);
        let fields = lines.take_while(|line| !line.is_empty()).filter_map(|line| std::str::from_utf8(line).ok());
        let mut fields = fields.filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Gives an HTTP/1.0 client's request, which needs no host, that of the upstream: HTTP/1.1 insists.
    pub(super) fn add_missing_host(&mut self, address: SocketAddr) {
        if let Some(at) = self.host_at.take() {
            self.out.splice(at..at, format!("host: {address}\r\n").into_bytes());
        }
    }
}

/// What the fields of one head say.
#[derive(Default)]
struct Said<'a> {
    connection: Connection<'a>,
    hosts: Vec1<'a>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    h2c: bool,
    trailers: bool,
    expects: bool,
    forwarded_for: bool,
    forwarded_proto: bool,
    forwarded_host: bool,
}

/// The first of several, and how many there are.
#[derive(Default)]
struct Vec1<'a> {
    first: Option<&'a [u8]>,
    count: usize,
}

/// Reads a head at the beginning of `input` and writes it, as the model server gets it, to `out`. `None`: it is
/// not whole yet. Otherwise its length in `input`, too.
///
/// # Errors
/// Too large, or wrong in a way that no upstream should see.
pub(super) fn read(input: &[u8], mut out: Vec<u8>, rules: Rules) -> Result<Option<(Request, usize)>, Reason> {
    let mut room = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let head = match parsed.parse_with_uninit_headers(input, &mut room) {
        Ok(Status::Complete(length)) if length <= limits::HEAD_BYTES_MAX => &input[..length],
        Ok(Status::Complete(_)) => return Err(too_large(input)),
        Ok(Status::Partial) if input.len() < limits::HEAD_BYTES_MAX => return Ok(None),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(too_large(input)),
        Err(_) => return Err(Reason::BadRequest),
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Reason::BadRequest);
    };
    let fields: &[httparse::Header<'_>] = parsed.headers;
    let starts = starts(head, fields).ok_or(Reason::BadRequest)?;
    let http10 = version == 0;
    let mut said = Said::default();
    fields.iter().try_for_each(|field| said.take(field))?;
    if said.chunked && (said.length.is_some() || http10) {
        return Err(Reason::BadRequest);
    }
    let target = Target::read(method, target)?;
    let host = said.host(&target, http10)?;
    let upgrade = !http10 && said.upgrade && said.connection.upgrade && !said.h2c;

    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    let path = out.len()..out.len() + target.path_len();
    out.extend_from_slice(target.text().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut copier = Copier::new(head, starts.of(0));
    for (index, field) in fields.iter().enumerate() {
        let kind = Field::of(field.name);
        let stays = match kind {
            Field::Other | Field::ContentType | Field::ContentLength | Field::RetryAfter => {
                !said.connection.names(field.name)
            }
            Field::Upgrade => upgrade,
            Field::Host => target.authority.is_none(),
            Field::ForwardedFor => rules.forwarded.is_none() && !said.connection.names(field.name),
            Field::ForwardedHost | Field::ForwardedProto => !said.connection.names(field.name),
            Field::Connection | Field::Expect | Field::HopByHop | Field::Te | Field::TransferEncoding => false,
        };
        if !stays {
            copier.skip(starts.of(index), starts.of(index + 1), &mut out);
        }
    }
    copier.finish(starts.of(fields.len()), &mut out);
    if let Some(authority) = &target.authority {
        add(&mut out, "host", authority.as_bytes());
    }
    let host_at = host.is_none().then_some(out.len());
    if said.chunked {
        add(&mut out, "transfer-encoding", b"chunked");
    }
    if said.trailers {
        add(&mut out, "te", b"trailers");
    }
    if upgrade {
        add(&mut out, "connection", b"upgrade");
    }
    if let Some(forwarded) = rules.forwarded {
        add_forwarded(&mut out, forwarded, fields, &said, host);
    }
    out.extend_from_slice(b"\r\n");
    let seen = if rules.show { Some(Box::new(Seen::of(method, target.text(), fields)?)) } else { None };
    let request = Request {
        out,
        path,
        host_at,
        is_head: method == "HEAD",
        is_safe: matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE"),
        http10,
        keep_alive: if http10 { said.connection.keep_alive } else { !said.connection.close },
        upgrade,
        was_forwarded: said.forwarded_for,
        expects: said.expects && !http10,
        body: if said.chunked { Body::Chunked(Chunked::default()) } else { Body::Length(said.length.unwrap_or(0)) },
        received: 0,
        seen,
    };
    Ok(Some((request, head.len())))
}

/// What is too long: the first line, or all of it.
fn too_large(input: &[u8]) -> Reason {
    let line = input.iter().take(limits::HEAD_BYTES_MAX).position(|byte| *byte == b'\n');
    if line.is_none_or(|length| limits::URI_BYTES_MAX < length) { Reason::UriTooLong } else { Reason::HeadTooLarge }
}

fn add(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn add_forwarded(
    out: &mut Vec<u8>,
    from: Client,
    fields: &[httparse::Header<'_>],
    said: &Said<'_>,
    host: Option<&[u8]>,
) {
    out.extend_from_slice(b"x-forwarded-for: ");
    let before = fields.iter().filter(|field| Field::of(field.name) == Field::ForwardedFor && !field.value.is_empty());
    for field in before.filter(|field| !said.connection.names(field.name)) {
        out.extend_from_slice(field.value);
        out.extend_from_slice(b", ");
    }
    // Writing to memory does not fail.
    let _ = write!(out, "{}\r\n", from.ip.to_canonical());
    // A proxy before us saw the client's own words: they stay.
    if !said.forwarded_proto {
        add(out, "x-forwarded-proto", if from.https { b"https" } else { b"http" });
    }
    if let Some(host) = host.filter(|_| !said.forwarded_host) {
        add(out, "x-forwarded-host", host);
    }
}

impl<'a> Said<'a> {
    fn take(&mut self, field: &httparse::Header<'a>) -> Result<(), Reason> {
        let value = field.value;
        match Field::of(field.name) {
            Field::Connection => self.connection.read(value),
            Field::ContentLength => {
                // Twice is once too often, even where both agree.
                let length = length(value).filter(|_| self.length.is_none());
                self.length = Some(length.ok_or(Reason::BadRequest)?);
            }
            Field::TransferEncoding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Reason::BadRequest);
                }
                self.chunked = true;
            }
            Field::Host => {
                self.hosts.first.get_or_insert(value);
                self.hosts.count += 1;
            }
            Field::Expect => self.expects |= value.eq_ignore_ascii_case(b"100-continue"),
            Field::Te => self.trailers |= has_token(value, "trailers"),
            Field::Upgrade => {
                self.upgrade = true;
                // h2c by upgrade is dead (RFC 9113, 3.1): such a client is served over HTTP/1.1.
                self.h2c |= has_token(value, "h2c");
            }
            Field::ForwardedFor => self.forwarded_for = true,
            Field::ForwardedHost => self.forwarded_host = true,
            Field::ForwardedProto => self.forwarded_proto = true,
            Field::ContentType | Field::HopByHop | Field::Other | Field::RetryAfter => {}
        }
        Ok(())
    }

    /// Exactly one host, but for HTTP/1.0, which knows none. An absolute target brings its own.
    fn host<'s>(&'s self, target: &'s Target<'_>, http10: bool) -> Result<Option<&'s [u8]>, Reason> {
        if let Some(authority) = &target.authority {
            return Ok(Some(authority.as_bytes()));
        }
        match (self.hosts.first, self.hosts.count) {
            (Some(host), 1) => Ok(Some(host)),
            (None, _) if http10 => Ok(None),
            _ => Err(Reason::BadRequest),
        }
    }
}

/// A request's target in the form that a server expects.
struct Target<'a> {
    origin: &'a str,
    /// An absolute target is brought into the form that a server expects, which its host is not part of.
    absolute: Option<String>,
    authority: Option<String>,
}

impl<'a> Target<'a> {
    fn read(method: &str, target: &'a str) -> Result<Self, Reason> {
        if method == "CONNECT" {
            return Err(Reason::ConnectUnsupported);
        }
        if limits::URI_BYTES_MAX < target.len() {
            return Err(Reason::UriTooLong);
        }
        // A fragment never leaves its client (RFC 9110, 4.2.5): two readers would take it in two ways.
        if target.contains('#') {
            return Err(Reason::BadRequest);
        }
        if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
            return Ok(Self { origin: target, absolute: None, authority: None });
        }
        let uri: Uri = target.parse().map_err(|_| Reason::BadRequest)?;
        let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else { return Err(Reason::BadRequest) };
        // Anything before an `@` names a user, not a host.
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let origin = uri.path_and_query().map_or("", |target| target.as_str());
        let slash = if origin.starts_with('/') { "" } else { "/" };
        Ok(Self { origin: "", absolute: Some(format!("{slash}{origin}")), authority: Some(host.to_owned()) })
    }

    fn text(&self) -> &str {
        self.absolute.as_deref().unwrap_or(self.origin)
    }

    fn path_len(&self) -> usize {
        self.text().find('?').unwrap_or_else(|| self.text().len())
    }
}

impl Seen {
    fn of(method: &str, target: &str, fields: &[httparse::Header<'_>]) -> Result<Self, Reason> {
        let mut headers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Reason::BadRequest)?;
            headers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| Reason::BadRequest)?);
        }
        Ok(Self {
            method: method.parse().map_err(|_| Reason::BadRequest)?,
            uri: target.parse().map_err(|_| Reason::BadRequest)?,
            headers,
        })
    }
}
