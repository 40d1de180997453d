//! What can run, at the edges: how clients are shaken hands with, and what is written down of them.

use std::path::PathBuf;
use std::time::Duration;

/// Server side of TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsServer {
    /// PEM chain and key.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// PEM roots of the certificates that clients must show; none: they need not show any.
    pub client_ca_file: Option<PathBuf>,
    pub min_version: TlsVersion,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TlsVersion {
    #[default]
    V1_2,
    V1_3,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    /// A `tracing` filter, as in `info` or `probegate=debug`.
    pub level: String,
    /// Which requests get a line of their own; none: no request does.
    pub access: Option<AccessLog>,
}

/// Which requests get a line in the access log. Those that failed always do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AccessLog {
    /// The share that does, in thousandths.
    pub sample_permille: u32,
    /// One that took so long does.
    pub slow: Option<Duration>,
    /// Show the query.
    pub query: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    Json,
    Text,
}
