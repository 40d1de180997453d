//! One check's kind: exactly one, as a table or as the one text that says it.

mod http;
mod judged;
mod measured;
mod saturation;
mod stores;

use std::path::PathBuf;

use regex::Regex;

use super::super::fault::{At, Fault, Faults, KeyPath, join, show_text};
use super::super::plan::*;
use super::super::raw::*;
use super::text::{self, Url};
use super::{Scene, server};
use crate::engine::{BackendId, Subject};
use crate::limits;

/// A kind that can run.
pub(super) struct Lowered {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    pub(super) target: String,
    pub(super) subject: Subject,
}

/// What a kind may refer to, and where it was typed.
struct Ground<'a> {
    here: KeyPath,
    backend: BackendId,
    scene: &'a Scene,
    faults: &'a mut Faults,
}

const HTTP: [(&str, u16); 2] = [("http", 80), ("https", 443)];
const REDIS: [(&str, u16); 2] = [("redis", 6379), ("rediss", 6379)];
const POSTGRES: [(&str, u16); 2] = [("postgres", 5432), ("postgresql", 5432)];

pub(super) fn lower(
    raw: &RawCheck,
    here: &KeyPath,
    backend: BackendId,
    scene: &Scene,
    faults: &mut Faults,
) -> Option<Lowered> {
    let typed = [
        ("dns", raw.dns.is_some()),
        ("disk", raw.disk.is_some()),
        ("exec", raw.exec.is_some()),
        ("golden", raw.golden.is_some()),
        ("grpc", raw.grpc.is_some()),
        ("heartbeat", raw.heartbeat.is_some()),
        ("http", raw.http.is_some()),
        ("memory", raw.memory.is_some()),
        ("metric", raw.metric.is_some()),
        ("outcomes", raw.outcomes.is_some()),
        ("postgres", raw.postgres.is_some()),
        ("process", raw.process.is_some()),
        ("progress", raw.progress.is_some()),
        ("redis", raw.redis.is_some()),
        ("saturation", raw.saturation.is_some()),
        ("tcp", raw.tcp.is_some()),
        ("tls", raw.tls.is_some()),
    ];
    let names: Vec<&'static str> = typed.iter().filter(|(_, typed)| *typed).map(|(name, _)| *name).collect();
    let [name] = names.as_slice() else {
        match names.as_slice() {
            [_, second, ..] => {
                let message = format!("two kinds in one check: {}", names.join(" and "));
                faults.push(Fault::key(join(here, second), message).expected("exactly one"));
            }
            // A misspelt kind has been reported as an unknown key.
            _ if faults.0.iter().any(|fault| hides_kind(fault, here)) => {}
            _ => {
                let fault = Fault::key(here.clone(), "a check without a kind");
                faults.push(fault.expected(format!("one of {}", KINDS.join(", "))));
            }
        }
        return None;
    };
    let mut ground = Ground { here: join(here, name), backend, scene, faults };
    let (kind, target, subject) = ground.kind(raw)?;
    Some(Lowered { kind, name, target, subject })
}

/// Whether a fault in the check is about what may have been meant as its kind.
fn hides_kind(fault: &Fault, here: &KeyPath) -> bool {
    let key = fault.path.strip_prefix(here.as_slice()).and_then(<[String]>::first);
    key.is_some_and(|key| fault.at == At::Key || KINDS.contains(&key.as_str()))
}

type Parts = (Kind, String, Subject);

impl Ground<'_> {
    fn kind(&mut self, raw: &RawCheck) -> Option<Parts> {
        if let Some(kind) = &raw.dns {
            return self.dns(kind);
        }
        if let Some(kind) = &raw.disk {
            return self.disk(kind);
        }
        if let Some(kind) = &raw.exec {
            return self.exec(kind);
        }
        if let Some(kind) = &raw.golden {
            return self.golden(kind);
        }
        if let Some(kind) = &raw.grpc {
            return self.grpc(kind);
        }
        if let Some(kind) = &raw.heartbeat {
            return self.heartbeat(kind);
        }
        if let Some(kind) = &raw.http {
            return self.http(kind);
        }
        if let Some(kind) = &raw.memory {
            return self.memory(kind);
        }
        if let Some(kind) = &raw.metric {
            return self.metric(kind);
        }
        if let Some(kind) = &raw.outcomes {
            return self.outcomes(kind);
        }
        if let Some(kind) = &raw.postgres {
            return self.postgres(kind);
        }
        if let Some(kind) = &raw.process {
            return self.process(kind);
        }
        if let Some(kind) = &raw.progress {
            return self.progress(kind);
        }
        if let Some(kind) = &raw.redis {
            let (check, target, subject) = self.redis(kind)?;
            return Some((Kind::Redis(check), target, subject));
        }
        if let Some(kind) = &raw.saturation {
            return self.saturation(kind);
        }
        if let Some(kind) = &raw.tcp {
            return self.tcp(kind);
        }
        self.tls(raw.tls.as_ref()?)
    }

    fn at(&self, key: &str) -> KeyPath {
        join(&self.here, key)
    }

    fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// A key that must be there and not empty; the error says what it is.
    fn needed<'t>(&mut self, text: Option<&'t str>, key: &str, expected: &str) -> Option<&'t str> {
        match text.map(str::trim) {
            Some(text) if !text.is_empty() => Some(text),
            Some(_) => {
                let place =
                    if self.here.last().is_some_and(|last| last == key) { self.here.clone() } else { self.at(key) };
                self.fault(Fault::value(place, "an empty text").expected(expected));
                None
            }
            None => {
                if !self.faults.below(&self.here) {
                    let fault = Fault::key(self.here.clone(), format!("`{key}` is missing"));
                    self.fault(fault.expected(expected));
                }
                None
            }
        }
    }

    fn count(&mut self, number: Option<i64>, key: &str, default: u64) -> u64 {
        match number.map(u64::try_from) {
            Some(Ok(number)) if number > 0 => number,
            Some(_) => {
                let found = number.unwrap_or_default();
                self.fault(Fault::value(self.at(key), format!("found {found}")).expected("at least 1"));
                default
            }
            None => default,
        }
    }

    fn regex(&mut self, text: Option<&str>, key: &str) -> Option<Regex> {
        let text = text?;
        match Regex::new(text) {
            Ok(regex) => Some(regex),
            Err(error) => {
                let last = error.to_string();
                let why = last.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                let fault = Fault::value(self.at(key), format!("no regular expression: {why}"));
                self.fault(fault.expected(r#"one such as "ok|ready""#));
                None
            }
        }
    }

    fn client(&mut self, raw: Option<&RawTlsClient>) -> TlsClient {
        let Some(raw) = raw else { return TlsClient::default() };
        let here = self.at("tls");
        let mut file = |text: &Option<String>, key: &str| server::file(text.as_deref(), join(&here, key), self.faults);
        let client = TlsClient {
            ca_file: file(&raw.ca_file, "ca_file"),
            cert_file: file(&raw.cert_file, "cert_file"),
            key_file: file(&raw.key_file, "key_file"),
            server_name: raw.server_name.clone(),
            insecure_skip_verify: raw.insecure_skip_verify,
        };
        if raw.cert_file.is_some() != raw.key_file.is_some() {
            let fault = Fault::key(here, "a client certificate needs both `cert_file` and `key_file`");
            self.fault(fault);
        }
        client
    }

    /// Settings of TLS beside a URL that does without it: whoever typed them believes that the line is safe.
    fn refuse_unused_tls(&mut self, tls: Option<&RawTlsClient>, url: Option<&str>, plain: &str, secure: &str) {
        let unused = url.is_some_and(|url| url.starts_with('/') || url.starts_with(&format!("{plain}://")));
        if tls.is_some() && unused {
            let fault = Fault::key(self.at("tls"), format!("means nothing with {plain}://"));
            self.fault(fault.expected(format!("{secure}:// in the URL")));
        }
    }

    /// `host:port`, or the upstream's.
    fn address(&mut self, text: Option<&str>, key: &str) -> Option<(String, Subject)> {
        let text = self.needed(text, key, r#"an address such as "redis:6379", or "upstream""#)?;
        if text == "upstream" {
            let address = self.scene.addresses.get(self.backend.index())?;
            return Some((address.clone(), Subject::Backend(self.backend)));
        }
        let place = if self.here.last().is_some_and(|last| last == key) { self.here.clone() } else { self.at(key) };
        let parts = text::address(text, &place, self.faults)?;
        Some((text.to_owned(), text::subject(Some(&parts), self.scene)))
    }

    fn dns(&mut self, raw: &TextOr<RawDns>) -> Option<Parts> {
        let default = RawDns::default();
        let (name, table) = match raw {
            TextOr::Text(name) => (Some(name.as_str()), &default),
            TextOr::Other(table) => (table.name.as_deref(), table),
        };
        let name = self.needed(name, "name", r#"a name such as "redis.prod.svc""#)?.to_owned();
        let contains = match table.contains.as_deref().map(str::parse) {
            Some(Ok(ip)) => Some(ip),
            Some(Err(_)) => {
                let found = show_text(table.contains.as_deref().unwrap_or_default());
                self.fault(Fault::value(self.at("contains"), format!("found {found}")).expected("an IP address"));
                None
            }
            None => None,
        };
        let min_addresses = self.count(table.min_addresses, "min_addresses", 1) as usize;
        Some((Kind::Dns(DnsCheck { name: name.clone(), min_addresses, contains }), name, Subject::Remote))
    }

    fn disk(&mut self, raw: &TextOr<RawDisk>) -> Option<Parts> {
        let default = RawDisk::default();
        let (path, table) = match raw {
            TextOr::Text(path) => (Some(path.as_str()), &default),
            TextOr::Other(table) => (table.path.as_deref(), table),
        };
        let path = self.needed(path, "path", r#"a path such as "/models""#)?.to_owned();
        let asked = table.min_free.is_some() || table.min_free_inodes.is_some() || table.writable;
        let floor = (!asked).then_some(DiskAmount::Percent(limits::DISK_FREE_PERCENT));
        let check = DiskCheck {
            path: PathBuf::from(&path),
            min_free: table.min_free.as_ref().map(|amount| amount.0).or(floor),
            min_free_inodes_percent: table.min_free_inodes.as_ref().map(|share| share.0),
            writable: table.writable,
        };
        Some((Kind::Disk(check), path, Subject::Local))
    }

    fn exec(&mut self, raw: &TextOr<RawExecOr>) -> Option<Parts> {
        let split = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let (command, table, place) = match raw {
            TextOr::Text(text) => (split(text), None, self.here.clone()),
            TextOr::Other(RawExecOr::List(list)) => (list.clone(), None, self.here.clone()),
            TextOr::Other(RawExecOr::Table(table)) => {
                let command = match &table.command {
                    Some(TextOr::Text(text)) => split(text),
                    Some(TextOr::Other(list)) => list.clone(),
                    None => Vec::new(),
                };
                (command, Some(table), self.at("command"))
            }
        };
        if command.first().is_none_or(|program| program.is_empty()) {
            if !self.faults.below(&self.here) {
                self.fault(Fault::value(place, "no program").expected(r#"one such as ["/bin/check", "--fast"]"#));
            }
            return None;
        }
        command.iter().for_each(|argument| text::refuse_secret_argument(argument, &place, self.faults));
        let mut env = Vec::new();
        for (name, typed) in table.map(|table| &table.env).into_iter().flatten() {
            let here = join(&self.at("env"), name);
            if let Some(source) = text::value(name, typed, &here, self.faults) {
                env.push((name.clone(), source));
            }
        }
        let cwd = table.and_then(|table| server::file(table.cwd.as_deref(), self.at("cwd"), self.faults));
        let target = command[0].clone();
        Some((Kind::Exec(ExecCheck { command, env, cwd }), target, Subject::Local))
    }

    fn grpc(&mut self, raw: &TextOr<RawGrpc>) -> Option<Parts> {
        let default = RawGrpc::default();
        let (address, key, table) = match raw {
            TextOr::Text(address) => (Some(address.as_str()), "grpc", &default),
            TextOr::Other(table) => (table.address.as_deref(), "address", table),
        };
        let (address, subject) = self.address(address, key)?;
        let tls = table.tls.as_ref().map(|tls| self.client(Some(tls)));
        let service = table.service.clone().unwrap_or_default();
        Some((Kind::Grpc(GrpcCheck { address: address.clone(), service, tls }), address, subject))
    }

    fn tcp(&mut self, raw: &TextOr<RawTcp>) -> Option<Parts> {
        let (address, key) = match raw {
            TextOr::Text(address) => (Some(address.as_str()), "tcp"),
            TextOr::Other(table) => (table.address.as_deref(), "address"),
        };
        let (address, subject) = self.address(address, key)?;
        Some((Kind::Tcp(TcpCheck { address: address.clone() }), address, subject))
    }

    fn tls(&mut self, raw: &TextOr<RawTls>) -> Option<Parts> {
        let default = RawTls::default();
        let (address, key, table) = match raw {
            TextOr::Text(address) => (Some(address.as_str()), "tls", &default),
            TextOr::Other(table) => (table.address.as_deref(), "address", table),
        };
        let (address, subject) = self.address(address, key)?;
        let client = RawTlsClient {
            ca_file: table.ca_file.clone(),
            cert_file: table.cert_file.clone(),
            key_file: table.key_file.clone(),
            server_name: table.server_name.clone(),
            insecure_skip_verify: table.insecure_skip_verify,
        };
        let min_valid = table.min_valid.as_ref().map_or(limits::TLS_VALID, |span| span.0);
        let tls = self.client(Some(&client));
        Some((Kind::Tls(TlsCheck { address: address.clone(), min_valid, tls }), address, subject))
    }

    fn heartbeat(&mut self, raw: &TextOr<RawHeartbeat>) -> Option<Parts> {
        let default = RawHeartbeat::default();
        let expected = r#"exactly one of `file`, `push = true` and `notify` (a socket's path)"#;
        let (source, table) = match raw {
            TextOr::Text(text) if text == "push" => (Some((HeartbeatSource::Push, "push".to_owned())), &default),
            TextOr::Text(text) if text.contains('/') => {
                (Some((HeartbeatSource::File(PathBuf::from(text)), text.clone())), &default)
            }
            TextOr::Text(_) => (None, &default),
            TextOr::Other(table) => {
                let source = match (&table.file, table.push, &table.notify) {
                    (Some(file), None | Some(false), None) if !file.is_empty() => {
                        Some((HeartbeatSource::File(PathBuf::from(file)), file.clone()))
                    }
                    (None, Some(true), None) => Some((HeartbeatSource::Push, "push".to_owned())),
                    (None, None | Some(false), Some(socket)) if socket.starts_with('/') => {
                        Some((HeartbeatSource::Notify, socket.clone()))
                    }
                    _ => None,
                };
                (source, table)
            }
        };
        let Some((source, target)) = source else {
            if !self.faults.below(&self.here) {
                self.fault(Fault::key(self.here.clone(), "where does the beat come from?").expected(expected));
            }
            return None;
        };
        let max_silence = match &table.max_silence {
            Some(span) => server::positive(span, self.at("max_silence"), self.faults)?,
            None => limits::HEARTBEAT_SILENCE,
        };
        Some((Kind::Heartbeat(HeartbeatCheck { source, max_silence }), target, Subject::Local))
    }

    fn url(&mut self, url: Option<&str>, file: Option<&str>, schemes: &[(&str, u16)]) -> Option<(Url, Subject)> {
        let url = text::url(url, file, &self.here, schemes, self.faults)?;
        let subject = text::subject(url.host_port.as_ref(), self.scene);
        Some((url, subject))
    }
}
