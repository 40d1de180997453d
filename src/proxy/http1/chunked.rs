//! The chunked coding (RFC 9112, 7.1), read strictly and passed on as it came.
//!
//! A line ends in CR LF; sizes, extensions and trailers are bounded. Where lenient readers differ, requests are
//! smuggled.

/// Bytes of all extensions of a body.
const EXTENSIONS_MAX: u32 = 16 * 1024;
/// Bytes of all trailers of a body.
const TRAILERS_MAX: u32 = 16 * 1024;
/// Hexadecimal digits of a size: more than 2^60 bytes are none.
const DIGITS_MAX: u8 = 15;

/// The bytes are not what they should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Malformed;

/// Where in a chunked body its reader is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chunked {
    at: At,
    digits: u8,
    /// Of the present chunk.
    left: u64,
    extensions: u32,
    trailers: u32,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum At {
    #[default]
    Size,
    /// White space after the size: tolerated, as others do.
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The first byte of a trailer, or of the blank line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Over,
}

impl Chunked {
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.at, At::Over)
    }

    /// Reads on, tells `data` the contents piece by piece, and returns how many bytes belong to this body.
    pub(super) fn read(&mut self, input: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() && self.at != At::Over {
            if self.at == At::Data {
                let rest = input.len() - at;
                let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest);
                data(&input[at..at + count]);
                at += count;
                self.left -= count as u64;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            self.at = self.step(input[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        Ok(match (self.at, byte) {
            (At::Size, _) if byte.is_ascii_hexdigit() => {
                self.digits += 1;
                if DIGITS_MAX < self.digits {
                    return Err(Malformed);
                }
                // A hexadecimal digit, as the guard says.
                self.left = self.left * 16 + u64::from(char::from(byte).to_digit(16).unwrap_or_default());
                At::Size
            }
            (At::Size, _) if self.digits == 0 => return Err(Malformed),
            (At::Size | At::Blank, b' ' | b'\t') => self.counted(At::Blank)?,
            (At::Size | At::Blank, b';') => At::Extension,
            (At::Size | At::Blank | At::Extension, b'\r') => At::SizeLf,
            (At::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.counted(At::Extension)?,
            (At::SizeLf, b'\n') => {
                self.digits = 0;
                if self.left == 0 { At::Trailer } else { At::Data }
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size,
            (At::Trailer, b'\r') => At::EndLf,
            (At::EndLf, b'\n') => At::Over,
            (At::Trailer | At::TrailerName, _) if is_token(byte) => self.trailer(At::TrailerName)?,
            (At::TrailerName, b':') => At::TrailerValue,
            (At::TrailerValue, b'\r') => At::TrailerLf,
            (At::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => self.trailer(At::TrailerValue)?,
            (At::TrailerLf, b'\n') => At::Trailer,
            _ => return Err(Malformed),
        })
    }

    fn counted(&mut self, at: At) -> Result<At, Malformed> {
        self.extensions += 1;
        if EXTENSIONS_MAX < self.extensions { Err(Malformed) } else { Ok(at) }
    }

    fn trailer(&mut self, at: At) -> Result<At, Malformed> {
        self.trailers += 1;
        if TRAILERS_MAX < self.trailers { Err(Malformed) } else { Ok(at) }
    }
}

/// RFC 9110, 5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}
