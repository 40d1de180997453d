//! `postgres`: does it let us in, and does a query say yes.
//!
//! Owns one fresh connection for the time of one attempt, over a socket that we opened ourselves: dropping
//! the attempt closes it. The query goes by the simple protocol, which poolers pass on. At most 1 MiB of
//! answer is read. The password is never shown.
//!
//! `sslmode=require` or the check's `tls` table means TLS with the certificate verified by that table
//! (`verify-ca` and `verify-full` are the same here); every other mode means plain text.

mod tls;

use std::error::Error as _;
use std::io;
use std::str::FromStr;

use tokio::net::UnixStream;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, SimpleQueryMessage};

use self::tls::Handshake;
use super::Scene;
use super::bounded::Bounded;
use crate::config::PostgresCheck;
use crate::engine::Outcome;
use crate::limits::CHECK_BODY_BYTES_MAX;
use crate::net::Failure;
use crate::net::connect::{connect, io_failure};

const PORT: u16 = 5432;

pub(super) async fn attempt(spec: &PostgresCheck, scene: &Scene) -> Outcome {
    match look(spec, scene).await {
        Ok(remark) => Outcome::pass(scene.elapsed()).remark(remark),
        Err(failure) => Outcome::fail(failure.fault, failure.reason, scene.elapsed()),
    }
}

/// Where one server is.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Place {
    /// For people: `host:port`, or the path of the socket.
    whom: String,
    /// For its certificate.
    host: String,
    unix: bool,
}

async fn look(spec: &PostgresCheck, scene: &Scene) -> Result<String, Failure> {
    let config = read_config(spec)?;
    let mut last = None;
    for place in places(&config)? {
        match open(&place, scene).await {
            Ok(stream) => return ask(spec, &config, &place, stream, scene).await,
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.unwrap_or_else(|| Failure::local("url: no host")))
}

/// Reads the secrets. No message holds any part of the URL: a mistyped one has its password anywhere.
fn read_config(spec: &PostgresCheck) -> Result<Config, Failure> {
    let url = spec.url.resolve().map_err(|error| Failure::local(format!("url: {error}")))?;
    // We verify whenever there is TLS: the stricter modes are what `require` is here.
    let text = url.expose().trim().replace("sslmode=verify-full", "sslmode=require");
    let text = text.replace("sslmode=verify-ca", "sslmode=require");
    let wrong = "url: expected postgres://user@host:port/database or host=... user=... dbname=...";
    let mut config = Config::from_str(&text).map_err(|_| Failure::local(wrong))?;
    if let Some(password) = &spec.password {
        let password = password.resolve().map_err(|error| Failure::local(format!("password: {error}")))?;
        config.password(password.expose());
    }
    if config.get_user().is_none() {
        return Err(Failure::local("url: no user"));
    }
    let wanted = spec.tls.is_some() || config.get_ssl_mode() == SslMode::Require;
    config.ssl_mode(if wanted { SslMode::Require } else { SslMode::Disable });
    if config.get_application_name().is_none() {
        config.application_name("probegate");
    }
    Ok(config)
}

fn places(config: &Config) -> Result<Vec<Place>, Failure> {
    let ports = config.get_ports();
    let addresses = config.get_hostaddrs();
    let port = |at: usize| ports.get(at).or_else(|| ports.first()).copied().unwrap_or(PORT);
    let tcp = |host: &str, reached: &str, at: usize| {
        let whom =
            if reached.contains(':') { format!("[{reached}]:{}", port(at)) } else { format!("{reached}:{}", port(at)) };
        Place { whom, host: host.to_owned(), unix: false }
    };
    let mut places = Vec::new();
    for (at, host) in config.get_hosts().iter().enumerate() {
        places.push(match host {
            Host::Tcp(name) => {
                let reached = addresses.get(at).map_or_else(|| name.clone(), ToString::to_string);
                tcp(name, &reached, at)
            }
            Host::Unix(directory) => {
                let whom = directory.join(format!(".s.PGSQL.{}", port(at))).display().to_string();
                Place { whom, host: String::new(), unix: true }
            }
        });
    }
    if places.is_empty() {
        places.extend(addresses.iter().enumerate().map(|(at, ip)| tcp(&ip.to_string(), &ip.to_string(), at)));
    }
    if places.is_empty() { Err(Failure::local("url: no host")) } else { Ok(places) }
}

async fn open(place: &Place, scene: &Scene) -> Result<Bounded, Failure> {
    if place.unix {
        scene.waiting_for(format!("a connection to {}", place.whom));
        let stream = UnixStream::connect(&place.whom).await.map_err(|error| io_failure(&place.whom, &error))?;
        return Ok(Bounded::new(stream, CHECK_BODY_BYTES_MAX));
    }
    let stream = connect(&place.whom, &|what| scene.waiting_for(what)).await?;
    Ok(Bounded::new(stream, CHECK_BODY_BYTES_MAX))
}

async fn ask(
    spec: &PostgresCheck,
    config: &Config,
    place: &Place,
    stream: Bounded,
    scene: &Scene,
) -> Result<String, Failure> {
    let whom = &place.whom;
    scene.waiting_for(format!("{whom} to let {} in", config.get_user().unwrap_or("us")));
    let client = spec.tls.clone().unwrap_or_default();
    let handshake = Handshake { tls: &client, host: &place.host, whom };
    let opened = config.connect_raw(stream, handshake).await;
    let (client, connection) = opened.map_err(|error| failure(&error, whom))?;
    scene.waiting_for(format!("the answer to the query from {whom}"));
    let cancel = tls::CancelOnDrop::new(client.cancel_token(), place, spec);
    let said = tokio::select! {
        biased;
        said = client.simple_query(&spec.query) => said.map_err(|error| failure(&error, whom)),
        ended = connection => Err(match ended {
            Err(error) => failure(&error, whom),
            Ok(()) => io_failure(whom, &io::ErrorKind::UnexpectedEof.into()),
        }),
    };
    cancel.disarm();
    judge(&said?)
}

fn judge(said: &[SimpleQueryMessage]) -> Result<String, Failure> {
    let row = said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = row else { return Err(Failure::answer("query returned no row")) };
    if row.is_empty() {
        return Ok("the row has no column".to_owned());
    }
    match row.get(0) {
        // The simple protocol writes a boolean as one letter.
        Some("f" | "false") => Err(Failure::answer("query returned false")),
        Some(_) => Ok(String::new()),
        None => Ok("query returned null".to_owned()),
    }
}

/// What an error of the client means, in the words of the operator.
fn failure(error: &tokio_postgres::Error, whom: &str) -> Failure {
    if let Some(refused) = error.as_db_error() {
        let message = fit(refused.message());
        return Failure::answer(match refused.code() {
            code if *code == SqlState::TOO_MANY_CONNECTIONS => format!("too many connections: {message}"),
            code if *code == SqlState::QUERY_CANCELED => format!("the query was cancelled: {message}"),
            _ => message,
        });
    }
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(failure) = inner.downcast_ref::<Failure>() {
            return failure.clone();
        }
        if let Some(inner) = inner.downcast_ref::<io::Error>() {
            return match inner.kind() {
                io::ErrorKind::FileTooLarge => Failure::answer(format!("{whom} sends more than 1 MiB")),
                // The client reads the messages of a server; these are none.
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::Other => {
                    Failure::answer(format!("{whom} does not speak PostgreSQL"))
                }
                _ => io_failure(whom, inner),
            };
        }
        source = inner.source();
    }
    let because = |why: &str| error.source().is_some_and(|source| source.to_string() == why);
    if error.is_closed() {
        io_failure(whom, &io::ErrorKind::UnexpectedEof.into())
    } else if because("password missing") {
        Failure::answer(format!("{whom} wants a password, and none is configured"))
    } else if because("server does not support TLS") {
        Failure::answer(format!("{whom} does not offer TLS"))
    } else {
        Failure::answer(format!("{whom}: {}", fit(&error.to_string())))
    }
}

fn fit(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
