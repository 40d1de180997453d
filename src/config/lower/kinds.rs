//! One check's kind: exactly one, as a table or as the one text that says it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::{HeaderName, Method};
use regex::Regex;
use serde_json::Value;

use super::super::fault::{At, Fault, Faults, KeyPath, join, show_text};
use super::super::plan::*;
use super::super::raw::*;
use super::super::units;
use super::text::{self, Url};
use super::{Scene, server};
use crate::engine::{BackendId, Subject};
use crate::limits;
use crate::secret::SecretSource;

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
        ("grpc", raw.grpc.is_some()),
        ("heartbeat", raw.heartbeat.is_some()),
        ("http", raw.http.is_some()),
        ("memory", raw.memory.is_some()),
        ("metric", raw.metric.is_some()),
        ("postgres", raw.postgres.is_some()),
        ("process", raw.process.is_some()),
        ("redis", raw.redis.is_some()),
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
        if let Some(kind) = &raw.postgres {
            return self.postgres(kind);
        }
        if let Some(kind) = &raw.process {
            return self.process(kind);
        }
        if let Some(kind) = &raw.redis {
            let (check, target, subject) = self.redis(kind)?;
            return Some((Kind::Redis(check), target, subject));
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

    fn http(&mut self, raw: &TextOr<RawHttp>) -> Option<Parts> {
        let default = RawHttp::default();
        let table = match raw {
            TextOr::Text(_) => &default,
            TextOr::Other(table) => table,
        };
        let (url, place) = match raw {
            TextOr::Text(url) => (Some(url.as_str()), self.here.clone()),
            TextOr::Other(table) => (table.url.as_deref(), self.at("url")),
        };
        let headers = self.headers(&table.headers);
        let json = self.json(&table.json);
        let matches = self.regex(table.matches.as_deref(), "matches");
        let not_matches = self.regex(table.not_matches.as_deref(), "not_matches");
        let tls = self.client(table.tls.as_ref());
        let method = self.method(table);
        let (url, subject) = match url {
            Some(path) if path.starts_with('/') && table.url_file.is_none() => {
                let address = self.scene.addresses.get(self.backend.index())?;
                let whole = format!("http://{address}{path}");
                let url = text::typed_url(&whole, &place, &HTTP, self.faults)?;
                (url, Subject::Backend(self.backend))
            }
            Some(text) if table.url_file.is_none() => {
                let url = text::typed_url(text, &place, &HTTP, self.faults)?;
                let subject = text::subject(url.host_port.as_ref(), self.scene);
                (url, subject)
            }
            text => self.url(text, table.url_file.as_deref(), &HTTP)?,
        };
        let check = HttpCheck {
            method,
            url: url.source,
            headers,
            body: table.body.clone(),
            status: table
                .status
                .as_ref()
                .map_or_else(|| vec![StatusRange { from: 200, to: 299 }], |status| status.0.clone()),
            json,
            matches,
            not_matches,
            tls,
        };
        Some((Kind::Http(Box::new(check)), url.target, subject))
    }

    fn method(&mut self, table: &RawHttp) -> Method {
        let text = table.method.as_deref().unwrap_or("GET");
        let known = ["GET", "HEAD", "POST", "PUT", "OPTIONS"];
        match known.iter().find(|name| **name == text.to_ascii_uppercase()) {
            Some(name) => Method::from_bytes(name.as_bytes()).unwrap_or(Method::GET),
            None => {
                let fault = Fault::value(self.at("method"), format!("found {}", show_text(text)));
                self.fault(fault.expected(super::super::shape::one_of(&known)).near(text, known));
                Method::GET
            }
        }
    }

    fn headers(&mut self, typed: &BTreeMap<String, TextOr<RawFile>>) -> Vec<(HeaderName, SecretSource)> {
        let mut headers = Vec::new();
        for (name, value) in typed {
            let here = join(&self.at("headers"), name);
            let Ok(header) = name.parse::<HeaderName>() else {
                self.fault(Fault::key(here, format!("{} is no header name", show_text(name))));
                continue;
            };
            if let TextOr::Text(text) = value
                && text.contains(|c: char| c.is_control() && c != '\t')
            {
                self.fault(Fault::value(here, "a control character in a header").secret());
                continue;
            }
            if let Some(source) = text::value(name, value, &here, self.faults) {
                headers.push((header, source));
            }
        }
        headers
    }

    fn json(&mut self, typed: &BTreeMap<String, Value>) -> Vec<JsonPredicate> {
        let mut predicates = Vec::new();
        for (pointer, value) in typed {
            let here = join(&self.at("json"), pointer);
            if !(pointer.is_empty() || pointer.starts_with('/')) {
                let fault = Fault::key(here, format!("{} is no JSON pointer", show_text(pointer)));
                self.fault(fault.expected(format!(
                    "one that begins with `/`, as in \"/{}\"",
                    pointer.trim_start_matches(['$', '.'])
                )));
                continue;
            }
            match json_test(value) {
                Some(test) => predicates.push(JsonPredicate { pointer: pointer.clone(), test }),
                None => {
                    let fault = Fault::value(here, "no predicate");
                    self.fault(
                        fault.expected("a value, or exactly one of `equals`, `contains`, `any`, `non_empty = true`"),
                    );
                }
            }
        }
        predicates
    }

    fn url(&mut self, url: Option<&str>, file: Option<&str>, schemes: &[(&str, u16)]) -> Option<(Url, Subject)> {
        let url = text::url(url, file, &self.here, schemes, self.faults)?;
        let subject = text::subject(url.host_port.as_ref(), self.scene);
        Some((url, subject))
    }

    fn redis(&mut self, raw: &TextOr<RawRedis>) -> Option<(RedisCheck, String, Subject)> {
        let default = RawRedis::default();
        let table = match raw {
            TextOr::Text(_) => &default,
            TextOr::Other(table) => table,
        };
        let password =
            text::password(table.password.as_deref(), table.password_file.as_deref(), &self.here, self.faults);
        let tls = self.client(table.tls.as_ref());
        if table.equals.is_some() && table.key.is_none() {
            self.fault(Fault::key(self.at("equals"), "`equals` without `key`").expected("the key that holds it"));
        }
        if table.key.as_deref() == Some("") {
            self.fault(Fault::value(self.at("key"), "an empty text").expected("a key's name"));
        }
        let (url, subject) = match raw {
            TextOr::Text(text) => {
                let url = text::typed_url(text, &self.here, &REDIS, self.faults)?;
                let subject = text::subject(url.host_port.as_ref(), self.scene);
                (url, subject)
            }
            TextOr::Other(table) => self.url(table.url.as_deref(), table.url_file.as_deref(), &REDIS)?,
        };
        let check = RedisCheck {
            url: url.source,
            username: table.username.clone(),
            password,
            key: table.key.clone(),
            key_equals: table.equals.clone(),
            cluster: table.cluster,
            role: table.role.map(|role| match role {
                RawRedisRole::Master => RedisRole::Master,
                RawRedisRole::Replica => RedisRole::Replica,
            }),
            max_memory: table.max_memory.as_ref().map(|size| size.0),
            tls,
        };
        Some((check, url.target, subject))
    }

    fn postgres(&mut self, raw: &TextOr<RawPostgres>) -> Option<Parts> {
        let default = RawPostgres::default();
        let table = match raw {
            TextOr::Text(_) => &default,
            TextOr::Other(table) => table,
        };
        let password =
            text::password(table.password.as_deref(), table.password_file.as_deref(), &self.here, self.faults);
        let tls = self.client(table.tls.as_ref());
        let (url, subject) = match raw {
            TextOr::Text(text) => {
                let url = text::typed_url(text, &self.here, &POSTGRES, self.faults)?;
                let subject = text::subject(url.host_port.as_ref(), self.scene);
                (url, subject)
            }
            TextOr::Other(table) => self.url(table.url.as_deref(), table.url_file.as_deref(), &POSTGRES)?,
        };
        let query = table.query.clone().unwrap_or_else(|| "SELECT 1".to_owned());
        if query.trim().is_empty() {
            self.fault(Fault::value(self.at("query"), "an empty text").expected("a query that returns a row"));
        }
        Some((Kind::Postgres(PostgresCheck { url: url.source, password, query, tls }), url.target, subject))
    }

    fn select(
        &mut self,
        matching: Option<&String>,
        pid_file: Option<&String>,
        cgroup: Option<&String>,
    ) -> Option<(ProcessSelect, String)> {
        match (matching, pid_file, cgroup) {
            (Some(name), None, None) if !name.trim().is_empty() => {
                Some((ProcessSelect::Match(name.clone()), name.clone()))
            }
            (None, Some(file), None) if !file.is_empty() => {
                Some((ProcessSelect::PidFile(PathBuf::from(file)), file.clone()))
            }
            (None, None, Some(directory)) if !directory.is_empty() => {
                Some((ProcessSelect::Cgroup(PathBuf::from(directory)), directory.clone()))
            }
            _ => {
                if !self.faults.below(&self.here) {
                    let fault = Fault::key(self.here.clone(), "which process?");
                    self.fault(fault.expected("exactly one of `match`, `pid_file` and `cgroup`"));
                }
                None
            }
        }
    }

    fn process(&mut self, raw: &TextOr<RawProcess>) -> Option<Parts> {
        let default = RawProcess::default();
        let (table, matching) = match raw {
            TextOr::Text(name) => (&default, Some(name)),
            TextOr::Other(table) => (table, table.matching.as_ref()),
        };
        let (select, target) = self.select(matching, table.pid_file.as_ref(), table.cgroup.as_ref())?;
        let min_count = self.count(table.min_count, "min_count", 1) as usize;
        let max_threads = table.max_threads.map(|threads| self.count(Some(threads), "max_threads", 1));
        let max_rss = table.max_rss.as_ref().map(|size| size.0);
        let check = ProcessCheck { select, min_count, max_rss, max_threads, cpu_moves: table.cpu_moves };
        Some((Kind::Process(check), target, Subject::Server))
    }

    fn memory(&mut self, raw: &TextOr<RawMemory>) -> Option<Parts> {
        let mut default = RawMemory::default();
        let table = match raw {
            TextOr::Text(text) => {
                match units::amount(text) {
                    Some(amount) => default.max = Some(Limit(amount)),
                    None => {
                        let fault = Fault::value(self.here.clone(), format!("found {}", show_text(text)));
                        self.fault(fault.expected(units::AMOUNT));
                        return None;
                    }
                }
                &default
            }
            TextOr::Other(table) => table,
        };
        let of = table.of.unwrap_or_default();
        self.refuse_foreign_keys(table, of);
        let (of, target, subject) = match of {
            RawMemoryOf::Cgroup => {
                let path = server::file(table.path.as_deref(), self.at("path"), self.faults);
                let target = path.as_ref().map_or_else(|| "cgroup".to_owned(), |path| path.display().to_string());
                (MemoryOf::Cgroup { path }, target, Subject::Local)
            }
            RawMemoryOf::Process => {
                let (select, target) =
                    self.select(table.matching.as_ref(), table.pid_file.as_ref(), table.cgroup.as_ref())?;
                let count = match table.count {
                    Some(RawProcessMemory::Pss) => ProcessMemory::Pss,
                    Some(RawProcessMemory::Rss) | None => ProcessMemory::Rss,
                };
                (MemoryOf::Process { select, count }, target, Subject::Local)
            }
            RawMemoryOf::Redis => {
                let Some(redis) = &table.redis else {
                    self.needed(None, "redis", r#"a URL such as "redis://cache:6379""#)?;
                    return None;
                };
                self.here.push("redis".to_owned());
                let lowered = self.redis(redis);
                self.here.pop();
                let (check, target, subject) = lowered?;
                (MemoryOf::Redis(Box::new(check)), target, subject)
            }
            RawMemoryOf::Metric => {
                let name = self.needed(table.metric.as_deref(), "metric", r#"a gauge such as "cache_bytes""#)?;
                let selector = self.selector(name, "metric")?;
                let (page, subject) = self.page(table.page.as_deref())?;
                (MemoryOf::Metric { page, selector }, name.to_owned(), subject)
            }
        };
        let Some(max) = &table.max else {
            self.needed(None, "max", units::AMOUNT)?;
            return None;
        };
        Some((Kind::Memory(MemoryCheck { of, max: max.0 }), target, subject))
    }

    /// Keys that mean nothing to this reading are a misunderstanding.
    fn refuse_foreign_keys(&mut self, table: &RawMemory, of: RawMemoryOf) {
        let typed = [
            ("path", table.path.is_some(), RawMemoryOf::Cgroup),
            ("match", table.matching.is_some(), RawMemoryOf::Process),
            ("pid_file", table.pid_file.is_some(), RawMemoryOf::Process),
            ("cgroup", table.cgroup.is_some(), RawMemoryOf::Process),
            ("count", table.count.is_some(), RawMemoryOf::Process),
            ("redis", table.redis.is_some(), RawMemoryOf::Redis),
            ("metric", table.metric.is_some(), RawMemoryOf::Metric),
            ("page", table.page.is_some(), RawMemoryOf::Metric),
        ];
        for (key, typed, owner) in typed {
            if typed && owner != of {
                let word = |of: RawMemoryOf| format!("{of:?}").to_ascii_lowercase();
                let message = format!("means nothing with of = {:?}", word(of));
                self.fault(Fault::key(self.at(key), message).expected(format!("of = {:?}", word(owner))));
            }
        }
    }

    fn metric(&mut self, raw: &TextOr<RawMetric>) -> Option<Parts> {
        let default = RawMetric::default();
        let (name, key, table) = match raw {
            TextOr::Text(name) => (Some(name.as_str()), "metric", &default),
            TextOr::Other(table) => (table.name.as_deref(), "name", table),
        };
        let name = self.needed(name, key, r#"a metric such as "queue_size{model=\"m\"}""#)?;
        let selector = self.selector(name, key)?;
        let (page, subject) = self.page(table.page.as_deref())?;
        let bounded = table.min.is_some() || table.max.is_some() || table.equals.is_some();
        if let (Some(min), Some(max)) = (table.min, table.max)
            && min > max
        {
            self.fault(Fault::value(self.at("min"), format!("min {min} is above max {max}")));
        }
        if table.rate && !bounded {
            self.fault(Fault::key(self.at("rate"), "a rate without a bound").expected("`min`, `max` or `equals`"));
        }
        let absent = match table.absent {
            Some(RawAbsent::Fail) => Absent::Fail,
            Some(RawAbsent::Pass) => Absent::Pass,
            Some(RawAbsent::Required) => Absent::Required,
            Some(RawAbsent::Unknown) => Absent::Unknown,
            None if bounded => Absent::Unknown,
            None => Absent::Fail,
        };
        let check = MetricCheck {
            page,
            selector,
            combine: match table.combine {
                Some(RawCombine::Max) => Combine::Max,
                Some(RawCombine::Min) => Combine::Min,
                Some(RawCombine::Sum) | None => Combine::Sum,
            },
            rate: table.rate,
            min: table.min,
            max: table.max,
            equals: table.equals,
            absent,
        };
        Some((Kind::Metric(check), name.to_owned(), subject))
    }

    fn selector(&mut self, text: &str, key: &str) -> Option<MetricSelector> {
        match MetricSelector::parse(text) {
            Ok(selector) => Some(selector),
            Err(why) => {
                let place = if self.here.last().is_some_and(|last| last == key)
                    && key == "metric"
                    && !self.faults.below(&self.at(key))
                {
                    self.here.clone()
                } else {
                    self.at(key)
                };
                let fault = Fault::value(place, format!("found {}: {why}", show_text(text)));
                self.fault(fault.expected(r#"a metric such as requests_total{endpoint="/predict"}"#));
                None
            }
        }
    }

    /// The page a metric is on. The upstream's own is the model server's word.
    fn page(&mut self, typed: Option<&str>) -> Option<(MetricsPage, Subject)> {
        match typed {
            Some(text) => {
                let first = self.scene.addresses.first().map(String::as_str);
                let page = server::page(text, first, &self.at("page"), self.faults)?;
                let host = page.uri.host().unwrap_or_default().to_owned();
                let subject = match text::subject(Some(&(host, page.uri.port_u16().unwrap_or(80))), self.scene) {
                    Subject::Backend(_) => Subject::Server,
                    other => other,
                };
                Some((page, subject))
            }
            None => match &self.scene.metrics {
                Some(page) => Some((page.clone(), Subject::Server)),
                None => {
                    if !self.scene.addresses.is_empty() {
                        let fault = Fault::key(self.here.clone(), "no metrics page: `upstream.metrics` is false");
                        self.fault(fault.expected("a `page` of its own"));
                    }
                    None
                }
            },
        }
    }
}

/// A predicate as typed: a table with exactly one test, or the value that is expected.
fn json_test(value: &Value) -> Option<JsonTest> {
    let Value::Object(table) = value else { return Some(JsonTest::Equals(value.clone())) };
    let mut entries = table.iter();
    let (key, value) = entries.next()?;
    if entries.next().is_some() {
        return None;
    }
    match (key.as_str(), value) {
        ("any", value) => Some(JsonTest::Any(value.clone())),
        ("contains", value) => Some(JsonTest::Contains(value.clone())),
        ("equals", value) => Some(JsonTest::Equals(value.clone())),
        ("non_empty", Value::Bool(true)) => Some(JsonTest::NonEmpty),
        _ => None,
    }
}
