//! The tables that are not about checks: upstream, listeners, traffic, drain, log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Uri};

use super::super::fault::{Fault, Faults, KeyPath, join, path, show_text};
use super::super::plan::{
    AccessLog, AdminAddress, Algorithm, Backend, Details, Listen, Log, LogFormat, MetricsPage, Queue, Route,
    ShowDetails, Traffic, Upstream, UpstreamProtocol,
};
use super::super::raw::{
    FlagOr, RawAccess, RawAccessLog, RawAlgorithm, RawConfig, RawDetails, RawDrain, RawLog, RawLogFormat, RawProtocol,
    RawQueue, RawRoute, RawShow, RawTraffic, RawUpstream, Span, TextOr,
};
use super::super::units;
use crate::engine::DrainPlan;
use crate::limits;
use crate::secret::SecretSource;

pub(super) const HOST_PORT: &str = r#"an address such as "127.0.0.1:8501""#;
const WEIGHT_MAX: i64 = 256;

pub(super) fn upstream(raw: &RawUpstream, faults: &mut Faults) -> Option<Upstream> {
    let backends = backends(raw, faults);
    let models = raw.models.iter().filter(|model| !model.is_empty()).cloned().collect();
    for (index, model) in raw.models.iter().enumerate() {
        if raw.models[..index].contains(model) && !model.is_empty() {
            let here = join(&path(["upstream", "models"]), &index.to_string());
            faults.push(Fault::value(here, format!("{} is named twice", show_text(model))));
        }
    }
    let first = backends.first().map(|backend| backend.address.clone());
    let here = path(["upstream", "metrics"]);
    let metrics = match &raw.metrics {
        Some(TextOr::Other(false)) => None,
        Some(TextOr::Other(true)) | None => page("/metrics", first.as_deref(), &here, faults),
        Some(TextOr::Text(text)) => page(text, first.as_deref(), &here, faults),
    };
    if backends.is_empty() {
        return None;
    }
    Some(Upstream {
        backends,
        algorithm: match raw.algorithm {
            Some(RawAlgorithm::Random) => Algorithm::Random,
            Some(RawAlgorithm::Hash) => Algorithm::Hash,
            Some(RawAlgorithm::Consistent) => Algorithm::Consistent,
            Some(RawAlgorithm::RoundRobin) => Algorithm::RoundRobin,
            Some(RawAlgorithm::LeastLoaded) | None => Algorithm::LeastLoaded,
        },
        protocol: match raw.protocol {
            Some(RawProtocol::Http1) => UpstreamProtocol::Http1,
            Some(RawProtocol::H2c) => UpstreamProtocol::H2c,
            Some(RawProtocol::Auto) | None => UpstreamProtocol::Auto,
        },
        preset: raw.preset.clone(),
        models,
        metrics,
    })
}

fn backends(raw: &RawUpstream, faults: &mut Faults) -> Vec<Backend> {
    let mut typed: Vec<(KeyPath, String, i64, KeyPath)> = Vec::new();
    match (&raw.address, &raw.addresses) {
        (Some(_), Some(_)) => {
            faults.push(Fault::key(path(["upstream", "addresses"]), "beside `address`").expected("one of the two"));
        }
        (Some(address), None) => {
            let here = path(["upstream", "address"]);
            typed.push((here.clone(), address.clone(), 1, here));
        }
        (None, Some(list)) => {
            let here = path(["upstream", "addresses"]);
            if list.is_empty() {
                faults.push(Fault::value(here.clone(), "an empty list").expected("at least one address"));
            }
            for (index, one) in list.iter().enumerate() {
                let place = join(&here, &index.to_string());
                match one {
                    TextOr::Text(address) => typed.push((place.clone(), address.clone(), 1, place)),
                    TextOr::Other(one) => {
                        let weight = one.weight.unwrap_or(1);
                        typed.push((join(&place, "address"), one.address.clone(), weight, join(&place, "weight")));
                    }
                }
            }
        }
        (None, None) => {
            if !faults.below(&path(["upstream"])) {
                let fault = Fault::key(path(["upstream", "address"]), "missing: where is the model server?");
                faults.push(fault.expected(HOST_PORT));
            }
        }
    }
    let mut backends: Vec<Backend> = Vec::new();
    for (place, address, weight, weight_place) in typed {
        if units::host_port(&address).is_none() {
            if !(address.is_empty() && faults.below(&place)) {
                faults.push(Fault::value(place, format!("found {}", show_text(&address))).expected(HOST_PORT));
            }
        } else if backends.iter().any(|backend| backend.address == address) {
            faults.push(Fault::value(place, format!("{} is named twice", show_text(&address))));
        } else if !(1..=WEIGHT_MAX).contains(&weight) {
            faults.push(Fault::value(weight_place, format!("found {weight}")).expected("1 to 256"));
        } else {
            // Between 1 and 256.
            backends.push(Backend { address, weight: weight as usize });
        }
    }
    backends
}

/// A metrics page: a path on the first address, or a URL.
pub(super) fn page(text: &str, first: Option<&str>, here: &KeyPath, faults: &mut Faults) -> Option<MetricsPage> {
    let whole = if text.starts_with('/') { format!("http://{}{text}", first?) } else { text.to_owned() };
    let uri: Option<Uri> = whole.parse().ok();
    let scheme = |uri: &Uri| uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
    match uri {
        Some(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            faults.push(Fault::value(here.clone(), "a user in the URL").expected("a URL without one").secret());
            None
        }
        Some(uri) if scheme(&uri) => Some(MetricsPage { uri }),
        _ => {
            let fault = Fault::value(here.clone(), format!("found {}", show_text(text)));
            faults.push(fault.expected(r#"a path such as "/metrics", an http:// URL, or false"#));
            None
        }
    }
}

pub(super) fn listen(raw: &RawConfig, faults: &mut Faults) -> Listen {
    let typed = &raw.listen;
    let traffic = socket(typed.traffic.as_deref(), limits::LISTEN_TRAFFIC, "traffic", faults);
    let probes = socket(typed.probes.as_deref(), limits::LISTEN_PROBES, "probes", faults);
    let admin = match typed.admin.as_deref() {
        Some(text) if text.starts_with('/') || text.starts_with("unix:") => {
            let file = text.strip_prefix("unix:").unwrap_or(text);
            if !file.starts_with('/') || file.len() < 2 {
                let fault = Fault::value(path(["listen", "admin"]), format!("found {}", show_text(text)));
                faults.push(fault.expected(r#"an absolute path, as in "unix:/run/probegate/admin.sock""#));
            }
            AdminAddress::Unix(PathBuf::from(file))
        }
        text => AdminAddress::Tcp(socket(text, limits::LISTEN_ADMIN, "admin", faults)),
    };
    let token = file(typed.admin_token_file.as_deref(), path(["listen", "admin_token_file"]), faults);
    if let AdminAddress::Tcp(address) = &admin
        && !address.ip().is_loopback()
        && token.is_none()
    {
        let fault = Fault::value(path(["listen", "admin"]), format!("{address} is open to others without a token"));
        faults.push(fault.expected("a loopback address, a Unix socket, or `admin_token_file` beside it"));
    }
    let mut taken: Vec<(&str, SocketAddr)> = vec![("traffic", traffic)];
    let admin_tcp = if let AdminAddress::Tcp(address) = &admin { Some(("admin", *address)) } else { None };
    for (name, address) in [("probes", probes)].into_iter().chain(admin_tcp) {
        let clash = taken.iter().find(|(_, other)| {
            let everywhere = other.ip().is_unspecified() || address.ip().is_unspecified();
            other.port() == address.port() && address.port() != 0 && (everywhere || other.ip() == address.ip())
        });
        if let Some((other, _)) = clash {
            let fault = Fault::value(path(["listen", name]), format!("port {} is `{other}`'s", address.port()));
            faults.push(fault.expected("a port of its own"));
        }
        taken.push((name, address));
    }
    Listen {
        traffic,
        probes,
        admin,
        admin_token: token.map(SecretSource::File),
        expose_probes: raw.traffic.expose_probes.unwrap_or(false),
    }
}

fn socket(typed: Option<&str>, default: &str, key: &str, faults: &mut Faults) -> SocketAddr {
    let stand_in = SocketAddr::from(([127, 0, 0, 1], 0));
    let text = typed.unwrap_or(default);
    // `:8080` means everywhere, as people write it; `localhost` is the one name that needs no resolver.
    let full = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.replacen("localhost:", "127.0.0.1:", 1),
    };
    match full.parse::<SocketAddr>() {
        Ok(address) => address,
        Err(_) => {
            let fault = Fault::value(path(["listen", key]), format!("found {}", show_text(text)));
            faults.push(fault.expected(r#"an IP address and a port such as "0.0.0.0:8080""#));
            stand_in
        }
    }
}

pub(super) fn details(raw: &RawDetails) -> Details {
    let show = match raw.show {
        Some(RawShow::Always) => ShowDetails::Always,
        Some(RawShow::Never) => ShowDetails::Never,
        Some(RawShow::Loopback) | None => ShowDetails::Loopback,
    };
    Details { show }
}

pub(super) fn traffic(raw: &RawTraffic, faults: &mut Faults) -> Traffic {
    let workers = count(raw.workers, 1024, || path(["traffic", "workers"]), faults);
    let max_in_flight = count(raw.max_in_flight, REQUESTS_MAX, || path(["traffic", "max_in_flight"]), faults);
    let max_connections = count(raw.max_connections, REQUESTS_MAX, || path(["traffic", "max_connections"]), faults);
    let mut traffic = Traffic {
        workers,
        max_in_flight,
        first_byte_timeout: raw
            .first_byte_timeout
            .as_ref()
            .and_then(|span| positive(span, path(["traffic", "first_byte_timeout"]), faults)),
        connect_timeout: positive_or(&raw.connect_timeout, limits::UPSTREAM_CONNECT, "connect_timeout", faults),
        upstream_idle: positive_or(&raw.upstream_idle, limits::UPSTREAM_IDLE, "upstream_idle", faults),
        client_idle: positive_or(&raw.client_idle, limits::IDLE_CONNECTION, "client_idle", faults),
        max_connections: max_connections.unwrap_or(limits::TRAFFIC_CONNECTIONS_MAX),
        forwarded_headers: raw.forwarded_headers.unwrap_or(true),
        queue: raw.queue.as_ref().and_then(|queue| self::queue(queue, &path(["traffic", "queue"]), faults)),
        hold: raw.hold.as_ref().map(|span| span.0).filter(|hold| !hold.is_zero()),
        priority_header: raw.priority_header.as_deref().and_then(|name| priority_header(name, faults)),
        routes: Vec::new(),
    };
    if traffic.queue.is_some() && max_in_flight.is_none() {
        let fault = Fault::value(path(["traffic", "queue"]), "found a queue and no limit to wait for".to_owned());
        faults.push(fault.expected("`max_in_flight` beside it"));
    }
    traffic.routes = raw.routes.iter().filter_map(|(at, raw)| route(at, raw, &traffic, faults)).collect();
    traffic.routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
    traffic
}

fn priority_header(name: &str, faults: &mut Faults) -> Option<HeaderName> {
    let header = HeaderName::from_bytes(name.as_bytes()).ok();
    if header.is_none() {
        let fault = Fault::value(path(["traffic", "priority_header"]), format!("found {}", show_text(name)));
        faults.push(fault.expected(r#"a header's name, as in "x-priority""#));
    }
    header
}

const REQUESTS_MAX: i64 = 1_000_000;

fn count(typed: Option<i64>, max: i64, here: impl Fn() -> KeyPath, faults: &mut Faults) -> Option<usize> {
    let number = typed?;
    if (1..=max).contains(&number) {
        // Within bounds that fit.
        return Some(number as usize);
    }
    faults.push(Fault::value(here(), format!("found {number}")).expected(format!("1 to {max}")));
    None
}

fn queue(raw: &RawQueue, here: &[String], faults: &mut Faults) -> Option<Queue> {
    let at = |key: &str| join(here, key);
    let timeout =
        raw.timeout.as_ref().map_or(Some(limits::QUEUE_TIMEOUT), |span| positive(span, at("timeout"), faults));
    let Some(max) = raw.max else {
        let fault = Fault::value(here.to_vec(), "found no `max`".to_owned());
        faults.push(fault.expected("how many may wait, as in `max = 64`"));
        return None;
    };
    Some(Queue {
        max: count(Some(max), REQUESTS_MAX, || at("max"), faults)?,
        max_bytes: raw.max_bytes.as_ref().map(|size| size.0.0),
        timeout: timeout?,
    })
}

fn route(at: &str, raw: &RawRoute, common: &Traffic, faults: &mut Faults) -> Option<Route> {
    let here = |key: &str| path(["traffic", "routes", at, key]);
    if !at.starts_with('/') || at.contains(['?', '#', ' ']) {
        let fault = Fault::value(path(["traffic", "routes", at]), format!("found {}", show_text(at)));
        faults.push(fault.expected(r#"a path such as "/v1/predict""#));
        return None;
    }
    let queue = match &raw.queue {
        Some(queue) => self::queue(queue, &here("queue"), faults),
        None => common.queue,
    };
    let first_byte_timeout = match &raw.first_byte_timeout {
        Some(span) => positive(span, here("first_byte_timeout"), faults),
        None => common.first_byte_timeout,
    };
    Some(Route {
        path: at.trim_end_matches('/').to_owned(),
        max_in_flight: count(raw.max_in_flight, REQUESTS_MAX, || here("max_in_flight"), faults),
        queue,
        hold: raw.hold.as_ref().map_or(common.hold, |span| Some(span.0).filter(|hold| !hold.is_zero())),
        first_byte_timeout,
        stall_after: raw.stall_after.as_ref().and_then(|span| positive(span, here("stall_after"), faults)),
    })
}

fn positive_or(span: &Option<Span>, default: Duration, key: &str, faults: &mut Faults) -> Duration {
    span.as_ref().and_then(|span| positive(span, path(["traffic", key]), faults)).unwrap_or(default)
}

pub(super) fn positive(span: &Span, here: KeyPath, faults: &mut Faults) -> Option<Duration> {
    if span.0.is_zero() {
        faults.push(Fault::value(here, "found 0").expected("more than nothing"));
        return None;
    }
    Some(span.0)
}

pub(super) fn drain(raw: &RawDrain, faults: &mut Faults) -> DrainPlan {
    let max = raw.max.as_ref().map_or(limits::DRAIN_MAX, |span| span.0);
    // Whoever wants a short drain wants some of it left for requests to finish.
    let propagation = raw.propagation.as_ref().map_or_else(|| limits::DRAIN_PROPAGATION.min(max / 2), |span| span.0);
    if max < propagation {
        let key = if raw.max.is_some() { "max" } else { "propagation" };
        let message = format!("max is {}, propagation {}", units::show(max), units::show(propagation));
        faults.push(Fault::value(path(["drain", key]), message).expected("max to be the longer one"));
    }
    DrainPlan { propagation, max }
}

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];

pub(super) fn log(raw: &RawLog, faults: &mut Faults) -> Log {
    let level = raw.level.clone().unwrap_or_else(|| "info".to_owned());
    if !is_filter(&level) {
        let fault = Fault::value(path(["log", "level"]), format!("found {}", show_text(&level)));
        faults.push(fault.expected(r#"a filter such as "info" or "probegate=debug""#).near(&level, LEVELS));
    }
    let format = match raw.format {
        Some(RawLogFormat::Json) => LogFormat::Json,
        Some(RawLogFormat::Text) => LogFormat::Text,
        Some(RawLogFormat::Auto) | None => LogFormat::Auto,
    };
    Log { format, level, access: raw.access.as_ref().and_then(|access| access_log(access, faults)) }
}

fn access_log(raw: &RawAccess, faults: &mut Faults) -> Option<AccessLog> {
    let everything = RawAccessLog::default();
    let table = match raw {
        FlagOr::Flag(false) => return None,
        FlagOr::Flag(true) => &everything,
        FlagOr::Table(table) => table,
    };
    let slow = table.slow.as_ref().and_then(|span| positive(span, path(["log", "access", "slow"]), faults));
    Some(AccessLog {
        sample_permille: table.sample.as_ref().map_or(1000, |share| share.0),
        slow,
        query: table.query.unwrap_or(false),
    })
}

/// A word alone must be a level: the library would take a misspelt one for a module's name, and log nothing.
fn is_filter(text: &str) -> bool {
    let is_level = |part: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part));
    text.split(',').map(str::trim).all(|part| part.contains('=') || is_level(part))
        && text.parse::<tracing_subscriber::filter::Targets>().is_ok()
}

/// A file's path: not empty. Relative paths are meant from where the sidecar runs.
pub(super) fn file(typed: Option<&str>, here: KeyPath, faults: &mut Faults) -> Option<PathBuf> {
    let text = typed?;
    if text.trim().is_empty() || text.contains('\0') {
        faults.push(Fault::value(here, format!("found {}", show_text(text))).expected("a path"));
        return None;
    }
    Some(PathBuf::from(text))
}
