//! Where a body ends.

use super::chunked::{Chunked, Malformed};

/// What is still to come of a body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// So many bytes; 0: it is over.
    Length(u64),
    Chunked(Chunked),
    /// As long as the connection is open. Answers only.
    UntilClose,
}

impl Body {
    pub(super) const NONE: Self = Self::Length(0);

    pub(super) const fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_over(),
            Self::UntilClose => false,
        }
    }

    /// Reads on, tells `data` the contents piece by piece, and returns how many bytes belong to this body.
    pub(super) fn read(&mut self, input: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        match self {
            Self::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= count as u64;
                if count > 0 {
                    data(&input[..count]);
                }
                Ok(count)
            }
            Self::Chunked(chunked) => chunked.read(input, data),
            Self::UntilClose => {
                data(input);
                Ok(input.len())
            }
        }
    }

    /// How many bytes are still to come, where that is known.
    pub(super) const fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }
}
