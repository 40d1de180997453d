//! How the requests to one upstream address ended, as the traffic plane counts it.

use super::time::Time;

/// What became of the requests to one upstream address until now. Sampled a few times a second.
///
/// What says nothing about the server is in none of these numbers: a client's own error, a client that left,
/// an answer that says "busy" (429, 503 with `Retry-After`, gRPC `RESOURCE_EXHAUSTED`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ends {
    /// Requests that ended well, ever.
    pub succeeded: u64,
    /// Requests that ended by the server's failure, ever.
    pub failed: u64,
    /// Failures since the last request that ended well.
    pub row: u64,
    /// How the last failure looked.
    pub failure: Option<Failure>,
    /// Requests on trial that ended well, ever.
    pub trials_succeeded: u64,
    /// Requests on trial that the server failed, ever.
    pub trials_failed: u64,
    /// Requests on trial whose client left before the answer began, ever.
    pub trials_unanswered: u64,
    /// A request on trial is in flight.
    pub trying: bool,
    /// Requests in flight there, tunnels left out.
    pub pending: u64,
    /// When the server there last sent anything that counts.
    pub last_byte: Option<Time>,
}

/// How a request's failure looked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The answer broke off.
    Aborted,
    /// A gRPC status.
    Grpc(u16),
    /// What came was not HTTP.
    Invalid,
    Refused,
    Reset,
    /// An HTTP status.
    Status(u16),
    /// No connection, or no first byte, in time.
    Timeout,
    Unreachable,
}

/// Codes of the failures without a number of their own; statuses and gRPC statuses follow on.
const PLAIN: [Failure; 6] =
    [Failure::Aborted, Failure::Invalid, Failure::Refused, Failure::Reset, Failure::Timeout, Failure::Unreachable];
const STATUS: u32 = 0x1_0000;
const GRPC: u32 = 0x2_0000;

impl Failure {
    /// As one number that is never 0: for an atomic, and for a recording.
    pub fn code(self) -> u32 {
        match self {
            Self::Status(status) => STATUS | u32::from(status),
            Self::Grpc(status) => GRPC | u32::from(status),
            plain => (1..).zip(PLAIN).find(|(_, one)| *one == plain).map_or(0, |(code, _)| code),
        }
    }

    /// The failure of a code; none for 0 and for what is no code.
    pub fn of_code(code: u32) -> Option<Self> {
        // The lower half.
        let number = (code & 0xffff) as u16;
        match code & !0xffff {
            STATUS => Some(Self::Status(number)),
            GRPC => Some(Self::Grpc(number)),
            0 => PLAIN.get(usize::from(number).checked_sub(1)?).copied(),
            _ => None,
        }
    }

    /// For a person: "status 500".
    pub fn words(self) -> String {
        match self {
            Self::Aborted => "the answer broke off".to_owned(),
            Self::Grpc(status) => format!("gRPC status {status}{}", grpc_name(status)),
            Self::Invalid => "the answer was not HTTP".to_owned(),
            Self::Refused => "connection refused".to_owned(),
            Self::Reset => "connection reset".to_owned(),
            Self::Status(status) => format!("status {status}"),
            Self::Timeout => "no answer in time".to_owned(),
            Self::Unreachable => "no way there".to_owned(),
        }
    }
}

/// The names of those that count as failures.
const fn grpc_name(status: u16) -> &'static str {
    match status {
        2 => " (UNKNOWN)",
        4 => " (DEADLINE_EXCEEDED)",
        13 => " (INTERNAL)",
        14 => " (UNAVAILABLE)",
        15 => " (DATA_LOSS)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_comes_back_from_its_code_and_nothing_else_does() {
        let numbered = [Failure::Status(0), Failure::Status(500), Failure::Grpc(14), Failure::Grpc(u16::MAX)];
        for failure in PLAIN.into_iter().chain(numbered) {
            assert_ne!(failure.code(), 0);
            assert_eq!(Failure::of_code(failure.code()), Some(failure));
        }
        for code in [0, 7, 0x3_0000, u32::MAX] {
            assert_eq!(Failure::of_code(code), None, "{code}");
        }
    }
}
