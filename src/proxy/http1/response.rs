//! An answer's head: read once and written as the client gets it.

use std::mem::MaybeUninit;

use httparse::Status;

use super::FIELDS_MAX;
use super::chunked::{Chunked, Malformed};
use super::fields::{Connection, Copier, Field, length, starts};
use super::framing::Body;
use crate::limits;
use crate::proxy::substance::Substance;

/// What must be known of an answer once its head has been rewritten.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    /// What is still to come of the body.
    pub(super) body: Body,
    pub(super) substance: Substance,
    /// It names a time to come back.
    pub(super) retry_after: bool,
    /// How the client gets the body.
    pub(super) passing: Passing,
    /// The model server's connection may carry another request.
    pub(super) reusable: bool,
    /// The client's connection may, too.
    pub(super) keep_alive: bool,
}

/// How a body's framing is brought to the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Passing {
    /// As it came.
    AsIs,
    /// It ends with the server's connection, but shall not end with the client's: in chunks.
    Chunk,
    /// A client of HTTP/1.0 knows no chunks: their contents, and a close.
    Unchunk,
}

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) is_head: bool,
    pub(super) http10: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

/// What came.
#[derive(Debug)]
pub(super) enum Answer {
    /// Its head; with `101` the connection is the tunnel's from here on.
    Final(Response),
    /// Something before it (RFC 9110, 15.2), passed on where the client may understand it.
    Interim,
}

/// Reads a head at the beginning of `input` and adds it, as the client gets it, to `out`. `None`: it is not whole
/// yet. Otherwise its length in `input`, too.
pub(super) fn read(input: &[u8], out: &mut Vec<u8>, asked: Asked) -> Result<Option<(Answer, usize)>, Malformed> {
    let mut room = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(false);
    let head = match config.parse_response_with_uninit_headers(&mut parsed, input, &mut room) {
        Ok(Status::Complete(length)) => &input[..length],
        Ok(Status::Partial) if input.len() < limits::HEAD_BYTES_MAX => return Ok(None),
        Ok(Status::Partial) | Err(_) => return Err(Malformed),
    };
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else { return Err(Malformed) };
    let fields: &[httparse::Header<'_>] = parsed.headers;
    let said = Said::of(fields)?;
    let switches = status == 101;
    if status < 200 && !switches {
        // The client was told to go on by us already.
        if !asked.http10 && status != 100 {
            write(out, head, &parsed, asked, &said, |kind| kind == Field::Other);
            out.extend_from_slice(b"\r\n");
        }
        return Ok(Some((Answer::Interim, head.len())));
    }
    if switches && !asked.upgrade {
        return Err(Malformed);
    }
    let is_empty = asked.is_head || switches || matches!(status, 204 | 304);
    let body = match (is_empty, said.chunked, said.length) {
        (true, ..) => Body::NONE,
        (_, true, _) => Body::Chunked(Chunked::default()),
        (_, false, Some(length)) => Body::Length(length),
        (_, false, None) => Body::UntilClose,
    };
    let passing = match (&body, asked.http10) {
        (Body::UntilClose, false) => Passing::Chunk,
        (Body::Chunked(_), true) => Passing::Unchunk,
        _ => Passing::AsIs,
    };
    let ends_with_close = asked.http10 && matches!(body, Body::UntilClose | Body::Chunked(_));
    let keep_alive = asked.keep_alive && !ends_with_close && !switches;
    let persists = if version == 0 { said.connection.keep_alive } else { !said.connection.close };
    // A length beside chunks is void (RFC 9112, 6.3), and whoever sends both is not to be trusted with another.
    let two_ends = said.chunked && said.length.is_some();
    let reusable = persists && !switches && !two_ends && !matches!(body, Body::UntilClose);
    write(out, head, &parsed, asked, &said, |kind| match kind {
        Field::ContentLength => !said.chunked,
        Field::Upgrade => switches,
        Field::Connection | Field::HopByHop | Field::Te | Field::TransferEncoding => false,
        _ => true,
    });
    if !asked.http10 && matches!(body, Body::Chunked(_) | Body::UntilClose) {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if switches {
        out.extend_from_slice(b"connection: upgrade\r\n");
    } else if !keep_alive {
        out.extend_from_slice(b"connection: close\r\n");
    } else if asked.http10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    let substance = Substance::of_type(said.content_type.unwrap_or_default());
    let response = Response { status, body, substance, retry_after: said.retry_after, passing, reusable, keep_alive };
    Ok(Some((Answer::Final(response), head.len())))
}

/// The status line, and the fields that stay.
fn write(
    out: &mut Vec<u8>,
    head: &[u8],
    parsed: &httparse::Response<'_, '_>,
    asked: Asked,
    said: &Said<'_>,
    stays: impl Fn(Field) -> bool,
) {
    out.extend_from_slice(if asked.http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    let status = parsed.code.unwrap_or_default();
    out.extend(status.to_string().bytes());
    out.push(b' ');
    out.extend_from_slice(parsed.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let fields: &[httparse::Header<'_>] = parsed.headers;
    let keeps = |field: &httparse::Header<'_>| stays(Field::of(field.name)) && !said.connection.names(field.name);
    let Some(starts) = starts(head, fields) else {
        // Lines that end in a bare LF are written anew.
        for field in fields.iter().filter(|field| keeps(field)) {
            out.extend_from_slice(field.name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(field.value);
            out.extend_from_slice(b"\r\n");
        }
        return;
    };
    let mut copier = Copier::new(head, starts.of(0));
    for (index, _) in fields.iter().enumerate().filter(|(_, field)| !keeps(field)) {
        copier.skip(starts.of(index), starts.of(index + 1), out);
    }
    copier.finish(starts.of(fields.len()), out);
}

/// What the fields of one head say.
#[derive(Default)]
struct Said<'a> {
    connection: Connection<'a>,
    length: Option<u64>,
    chunked: bool,
    content_type: Option<&'a [u8]>,
    retry_after: bool,
}

impl<'a> Said<'a> {
    fn of(fields: &[httparse::Header<'a>]) -> Result<Self, Malformed> {
        let mut said = Self::default();
        for field in fields {
            match Field::of(field.name) {
                Field::Connection => said.connection.read(field.value),
                Field::ContentLength => {
                    let length = length(field.value).ok_or(Malformed)?;
                    if said.length.is_some_and(|other| other != length) {
                        return Err(Malformed);
                    }
                    said.length = Some(length);
                }
                Field::TransferEncoding if said.chunked || !field.value.eq_ignore_ascii_case(b"chunked") => {
                    return Err(Malformed);
                }
                Field::TransferEncoding => said.chunked = true,
                Field::ContentType => said.content_type = Some(field.value),
                Field::RetryAfter => said.retry_after = true,
                _ => {}
            }
        }
        Ok(said)
    }
}
