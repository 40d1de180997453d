//! What collectors report: one attempt, one outcome.

use std::time::Duration;

use super::traffic::Reading;

/// The end of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// For a person, without secrets: "connection refused by 127.0.0.1:6379". On a pass, a remark or nothing.
    pub reason: String,
    /// Of the attempt, as the collector measured it.
    pub latency: Duration,
    /// What the attempt learned about the model server's identity, if it looked at it.
    pub sign: Option<Sign>,
    /// What a `progress` or `golden` check read; none for others, and where nothing could be read.
    pub reading: Option<Reading>,
}

/// What one attempt says.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    Pass,
    Fail(Fault),
    /// No evidence either way (a scrape failed, so the threshold on it says nothing).
    Unknown,
}

/// The class of a failure: enough to tell "nobody listens" from "busy" from "wrong".
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Fault {
    /// It answered, and the answer was not the expected one.
    Answer,
    /// A limit on this machine was exceeded, or something here is missing (a file, a process).
    Local,
    /// The connection was refused: nobody listens.
    Refused,
    /// No answer by the deadline.
    Timeout,
    /// No way to it: unresolvable, unreachable, reset before a word.
    Unreachable,
}

impl Fault {
    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Local => "local",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A sign of which model server instance this is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Sign {
    /// It answered something, good or bad: somebody is there.
    Answered,
    /// The connection was refused: nobody is there.
    Refused,
    /// The process that serves, and when it started in clock ticks after boot.
    Process { pid: u32, started: u64 },
    /// It says when it started (`process_start_time_seconds`), in milliseconds of Unix time.
    StartedAt { unix_ms: u64 },
    /// A counter of its went backwards.
    CounterReset,
}

impl Outcome {
    pub fn pass(latency: Duration) -> Self {
        Self { verdict: Verdict::Pass, reason: String::new(), latency, sign: None, reading: None }
    }

    pub fn fail(fault: Fault, reason: impl Into<String>, latency: Duration) -> Self {
        Self { verdict: Verdict::Fail(fault), reason: reason.into(), latency, sign: None, reading: None }
    }

    pub fn unknown(reason: impl Into<String>, latency: Duration) -> Self {
        Self { verdict: Verdict::Unknown, reason: reason.into(), latency, sign: None, reading: None }
    }

    /// Adds a remark for people.
    #[must_use]
    pub fn remark(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Adds what was read.
    #[must_use]
    pub const fn reading(mut self, reading: Reading) -> Self {
        self.reading = Some(reading);
        self
    }

    /// Adds what was learned about the model server's identity.
    #[must_use]
    pub const fn sign(mut self, sign: Sign) -> Self {
        self.sign = Some(sign);
        self
    }
}

impl Verdict {
    /// The metric label of `probegate_check_results_total{result}`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(Fault::Timeout) => "timeout",
            Self::Fail(_) => "fail",
            Self::Unknown => "unknown",
        }
    }
}
