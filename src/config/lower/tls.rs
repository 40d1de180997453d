//! `[tls]`: what the traffic listener shows to its clients.
//!
//! Names files and refuses to open them: a Secret may be mounted after the file was written.

use std::path::PathBuf;

use super::server::file;
use crate::config::fault::{Fault, Faults, path};
use crate::config::plan::{TlsServer, TlsVersion};
use crate::config::raw::{RawTlsServer, RawTlsVersion};

pub(super) fn tls(raw: &RawTlsServer, faults: &mut Faults) -> Option<TlsServer> {
    let cert_file = needed(raw.cert_file.as_deref(), "cert_file", faults);
    let key_file = needed(raw.key_file.as_deref(), "key_file", faults);
    let client_ca_file = file(raw.client_ca_file.as_deref(), path(["tls", "client_ca_file"]), faults);
    let min_version = match raw.min_version {
        Some(RawTlsVersion::V1_3) => TlsVersion::V1_3,
        Some(RawTlsVersion::V1_2) | None => TlsVersion::V1_2,
    };
    Some(TlsServer { cert_file: cert_file?, key_file: key_file?, client_ca_file, min_version })
}

fn needed(typed: Option<&str>, key: &str, faults: &mut Faults) -> Option<PathBuf> {
    if typed.is_none() && !faults.below(&path(["tls", key])) {
        let fault = Fault::key(path(["tls"]), format!("`{key}` is missing"));
        faults.push(fault.expected("`cert_file` and `key_file`, as in \"/etc/tls/tls.crt\" and \"/etc/tls/tls.key\""));
    }
    file(typed, path(["tls", key]), faults)
}
