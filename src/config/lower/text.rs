//! Texts that lead somewhere or may hold a secret: addresses, URLs, values of headers.
//!
//! An inline secret is a fault whose message never repeats it.

use std::net::IpAddr;

use super::super::fault::{Fault, Faults, KeyPath, join, show_text};
use super::super::raw::{RawFile, TextOr};
use super::super::units;
use super::Scene;
use super::server;
use crate::engine::{BackendId, Subject};
use crate::secret::{SecretSource, Template};

const INSTEAD: &str = "`${NAME}` from the environment, or a `*_file` key";

/// A URL that was typed, or the file that holds it.
pub(super) struct Url {
    pub(super) source: SecretSource,
    /// For messages. No secrets.
    pub(super) target: String,
    pub(super) host_port: Option<(String, u16)>,
}

/// Checks `host:port`.
pub(super) fn address(text: &str, here: &KeyPath, faults: &mut Faults) -> Option<(String, u16)> {
    match units::host_port(text) {
        Some((host, port)) => Some((host.to_owned(), port)),
        None => {
            let fault = Fault::value(here.clone(), format!("found {}", show_text(text)));
            faults.push(fault.expected(r#"an address such as "redis:6379""#));
            None
        }
    }
}

/// Whom a target is about.
pub(super) fn subject(host_port: Option<&(String, u16)>, scene: &Scene) -> Subject {
    let Some((host, port)) = host_port else { return Subject::Remote };
    for (index, address) in scene.addresses.iter().enumerate() {
        if let Some((other, other_port)) = units::host_port(address)
            && other_port == *port
            && canonical(other) == canonical(host)
        {
            return Subject::Backend(BackendId(index as u32));
        }
    }
    let loopback = canonical(host).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if loopback { Subject::Local } else { Subject::Remote }
}

fn canonical(host: &str) -> String {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    if host == "localhost" { "127.0.0.1".to_owned() } else { host }
}

/// A URL of one of these schemes; the first has this default port.
pub(super) fn url(
    typed: Option<&str>,
    file: Option<&str>,
    here: &KeyPath,
    schemes: &[(&str, u16)],
    faults: &mut Faults,
) -> Option<Url> {
    let key = if here.last().is_some_and(|key| key == "url") { here.clone() } else { join(here, "url") };
    let place = |text: bool| if text { here.clone() } else { key.clone() };
    match (typed, file) {
        (Some(_), Some(_)) => {
            faults.push(Fault::key(join(here, "url_file"), "beside `url`").expected("one of the two"));
            None
        }
        (None, None) => {
            if !faults.below(here) {
                let fault = Fault::key(here.clone(), "`url` is missing");
                faults.push(fault.expected(example(schemes)));
            }
            None
        }
        (None, Some(file)) => {
            let file = server::file(Some(file), join(here, "url_file"), faults)?;
            let source = SecretSource::File(file.clone());
            // Whom it is about matters only to self-doubt; a file that comes later counts as remote.
            let host_port = source.resolve().ok().and_then(|secret| host_port(secret.expose().trim(), schemes));
            Some(Url { source, target: format!("the URL in {}", file.display()), host_port })
        }
        (Some(text), None) => {
            // A string kind has its text at the kind itself.
            let place = place(false);
            typed_url(text, &place, schemes, faults)
        }
    }
}

/// A URL typed at `place` itself.
pub(super) fn typed_url(text: &str, place: &KeyPath, schemes: &[(&str, u16)], faults: &mut Faults) -> Option<Url> {
    if has_inline_password(text) {
        faults.push(Fault::value(place.clone(), "a password in the URL").expected(INSTEAD).secret());
        return None;
    }
    let source = SecretSource::Template(Template::new(text));
    if text.starts_with("${") {
        let host_port = source.resolve().ok().and_then(|secret| host_port(secret.expose(), schemes));
        return Some(Url { source, target: text.to_owned(), host_port });
    }
    let plain = blank(text);
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    let parsed = url::Url::parse(&plain).ok().filter(|url| url.host_str().is_some_and(|host| !host.is_empty()));
    let Some(parsed) = parsed.filter(|_| schemes.iter().any(|(known, _)| *known == scheme)) else {
        let fault = Fault::value(place.clone(), format!("found {}", show_text(text))).expected(example(schemes));
        faults.push(fault.near(scheme, schemes.iter().map(|(known, _)| *known)));
        return None;
    };
    if text.contains(|c: char| c.is_control()) || parsed.port() == Some(0) {
        faults.push(Fault::value(place.clone(), format!("found {}", show_text(text))).expected(example(schemes)));
        return None;
    }
    Some(Url { source, target: target(text), host_port: host_port(&plain, schemes) })
}

fn example(schemes: &[(&str, u16)]) -> String {
    let words: Vec<String> = schemes.iter().map(|(scheme, _)| format!("{scheme}://HOST")).collect();
    format!("a URL such as {}", words.join(" or "))
}

/// Without user, query and fragment.
fn target(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let authority_end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..authority_end].rsplit('@').next().unwrap_or_default();
    if scheme.starts_with("http") { format!("{scheme}://{host}{}", &rest[authority_end..]) } else { host.to_owned() }
}

fn host_port(text: &str, schemes: &[(&str, u16)]) -> Option<(String, u16)> {
    let url = url::Url::parse(text).ok()?;
    let default = schemes.iter().find(|(scheme, _)| *scheme == url.scheme()).map(|(_, port)| *port)?;
    Some((url.host_str()?.to_owned(), url.port().unwrap_or(default)))
}

/// `${NAME}` replaced by a 1: good in a host, a port, a path.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let Some(end) = rest[at..].find('}') else { break };
        out.push_str(&rest[..at]);
        out.push('1');
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    out
}

/// Whether a URL or a connection string holds a literal password.
fn has_inline_password(text: &str) -> bool {
    let word = text.find("://").map(|at| &text[at + 3..]);
    let user = word.and_then(|rest| {
        // A slash that should have been escaped may be a part of a password.
        let authority = rest.split(['?', '#']).next().unwrap_or(rest);
        authority.rfind('@').map(|at| &authority[..at])
    });
    let in_user = user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| has_literal_part(password));
    let lower = text.to_ascii_lowercase();
    let in_query = ["password=", "passwd=", "pwd=", "token=", "secret=", "api_key=", "apikey="].iter().any(|key| {
        lower.match_indices(key).any(|(at, _)| {
            let value = &text[at + key.len()..];
            has_literal_part(value.split(['&', ' ']).next().unwrap_or_default())
        })
    });
    in_user || in_query
}

/// A part of a password is typed, whatever else comes from the environment.
fn has_literal_part(text: &str) -> bool {
    let (mut rest, mut literal) = (text, text.contains("$${"));
    while let Some((before, (_, after))) = rest.split_once("${").and_then(|(b, tail)| Some((b, tail.split_once('}')?)))
    {
        literal |= before.contains(|c: char| c.is_alphanumeric());
        rest = after;
    }
    literal || rest.contains(|c: char| !c.is_whitespace())
}

/// Nothing in it comes from the environment.
fn is_literal(text: &str) -> bool {
    let refers = text.contains("${") && !text.contains("$${") && text.contains('}');
    !text.is_empty() && !refers
}

/// A password: `${NAME}`, or a file's.
pub(super) fn password(
    typed: Option<&str>,
    file: Option<&str>,
    here: &KeyPath,
    faults: &mut Faults,
) -> Option<SecretSource> {
    match (typed, file) {
        (Some(_), Some(_)) => {
            faults.push(Fault::key(join(here, "password_file"), "beside `password`").expected("one of the two"));
            None
        }
        (Some(text), None) if has_literal_part(text) || text.is_empty() => {
            let fault = Fault::value(join(here, "password"), "a password in the file");
            faults.push(fault.expected("`password_file`, or `${NAME}` from the environment").secret());
            None
        }
        (Some(text), None) => Some(SecretSource::Template(Template::new(text))),
        (None, file) => server::file(file, join(here, "password_file"), faults).map(SecretSource::File),
    }
}

/// A value under a name that may be a secret's: a header's, a variable's.
pub(super) fn value(name: &str, typed: &TextOr<RawFile>, here: &KeyPath, faults: &mut Faults) -> Option<SecretSource> {
    match typed {
        TextOr::Other(file) => server::file(Some(&file.file), join(here, "file"), faults).map(SecretSource::File),
        TextOr::Text(text) if (is_secret_name(name) && is_literal(text)) || has_inline_password(text) => {
            let fault = Fault::value(here.clone(), "a secret in the file");
            faults.push(fault.expected("`${NAME}` from the environment, or `{ file = \"...\" }`").secret());
            None
        }
        TextOr::Text(text) => Some(SecretSource::Template(Template::new(text))),
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = ["authorization", "cookie", "token", "secret", "password", "passwd", "api-key", "api_key", "apikey"];
    words.iter().any(|word| name.contains(word))
}

/// Arguments are seen by everyone who may list processes.
pub(super) fn refuse_secret_argument(text: &str, here: &KeyPath, faults: &mut Faults) {
    if has_inline_password(text) {
        let fault = Fault::value(here.clone(), "a password among the arguments");
        faults.push(fault.expected("a variable in `env`, as `${NAME}` or `{ file = \"...\" }`").secret());
    }
}
