//! The fields of a head: which ones the proxy must know, and how the others are copied.

/// A field that means something to a proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Field {
    Connection,
    ContentLength,
    ContentType,
    Expect,
    Host,
    /// For this hop only, and of no use to us.
    HopByHop,
    RetryAfter,
    Te,
    TransferEncoding,
    Upgrade,
    ForwardedFor,
    ForwardedHost,
    ForwardedProto,
    Other,
}

impl Field {
    pub(super) fn of(name: &str) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // Most names fall out by their length.
        match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::HopByHop,
            11 if is("retry-after") => Self::RetryAfter,
            12 if is("content-type") => Self::ContentType,
            14 if is("content-length") => Self::ContentLength,
            15 if is("x-forwarded-for") => Self::ForwardedFor,
            16 if is("x-forwarded-host") => Self::ForwardedHost,
            16 if is("proxy-connection") => Self::HopByHop,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is("x-forwarded-proto") => Self::ForwardedProto,
            18 if is("proxy-authenticate") => Self::HopByHop,
            19 if is("proxy-authorization") => Self::HopByHop,
            _ => Self::Other,
        }
    }
}

/// The parts of a comma-separated value.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

pub(super) fn has_token(value: &[u8], token: &str) -> bool {
    tokens(value).any(|part| part.eq_ignore_ascii_case(token.as_bytes()))
}

/// What the `Connection` fields of a message say.
#[derive(Debug, Default)]
pub(super) struct Connection<'a> {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Fields that are for this hop only (RFC 9110, 7.6.1).
    named: Vec<&'a [u8]>,
}

impl<'a> Connection<'a> {
    pub(super) fn read(&mut self, value: &'a [u8]) {
        for token in tokens(value) {
            let is = |known: &str| token.eq_ignore_ascii_case(known.as_bytes());
            if is("close") {
                self.close = true;
            } else if is("keep-alive") {
                self.keep_alive = true;
            } else if is("upgrade") {
                self.upgrade = true;
            } else if !is("te") && !is("host") && !is("content-length") {
                // Naming those would let a client take the framing, the host or gRPC's trailers away.
                self.named.push(token);
            }
        }
    }

    pub(super) fn names(&self, field: &str) -> bool {
        self.named.iter().any(|name| field.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// A body's length, from a `Content-Length`: digits and nothing else.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Where a part of `whole` begins in it.
pub(super) fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
}

/// Copies the fields of a head that stay, neighbours together.
pub(super) struct Copier<'a> {
    head: &'a [u8],
    /// From here on nothing has been copied or left out.
    from: usize,
}

impl<'a> Copier<'a> {
    /// `from`: where the first field begins.
    pub(super) const fn new(head: &'a [u8], from: usize) -> Self {
        Self { head, from }
    }

    /// Leaves the field out that begins at `at` and ends where the next one begins.
    pub(super) fn skip(&mut self, at: usize, next: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head[self.from..at]);
        self.from = next;
    }

    /// Copies the rest, up to the blank line.
    pub(super) fn finish(self, end: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head[self.from..end]);
    }
}

/// Where each field begins, the blank line last; none if a line ends in a bare LF, which others may read in
/// another way.
pub(super) fn starts(head: &[u8], fields: &[httparse::Header<'_>]) -> Option<Starts> {
    let mut starts = Starts { at: [0; super::FIELDS_MAX + 1] };
    for (at, field) in starts.at.iter_mut().zip(fields) {
        *at = u32::try_from(offset(head, field.name.as_bytes())).ok()?;
    }
    starts.at[fields.len()] = u32::try_from(head.len().checked_sub(2)?).ok()?;
    let ends_well = |at: &u32| head.get((*at as usize).wrapping_sub(2)..*at as usize) == Some(b"\r\n");
    (starts.at[..=fields.len()].iter().all(ends_well) && head.ends_with(b"\r\n")).then_some(starts)
}

/// See [`starts`].
pub(super) struct Starts {
    at: [u32; super::FIELDS_MAX + 1],
}

impl Starts {
    /// Where field `index` begins; with the number of fields, where they end.
    pub(super) const fn of(&self, index: usize) -> usize {
        self.at[index] as usize
    }
}
