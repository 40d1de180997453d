//! One connection to one Redis, and what its errors mean.

use std::error::Error as _;
use std::io;
use std::sync::{Arc, LazyLock};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, RedisConnectionInfo, RedisError};

use super::address::Address;
use crate::checks::Scene;
use crate::checks::bounded::Bounded;
use crate::config::TlsClient;
use crate::limits::CHECK_BODY_BYTES_MAX;
use crate::net::connect::{connect, io_failure};
use crate::net::{Failure, tls};

/// No credentials and no client name: each command is ours, so that each answer has its reason.
static SILENT: LazyLock<RedisConnectionInfo> = LazyLock::new(|| RedisConnectionInfo::default().set_skip_set_lib_name());

/// Why a conversation ended early.
#[derive(Debug)]
pub(super) enum Stop {
    Failed(Failure),
    /// The key lives on this node of the cluster.
    Moved(String),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A connection whose bytes somebody else moves, see [`open`].
pub(super) struct Session<'a> {
    connection: MultiplexedConnection,
    address: &'a Address,
    scene: &'a Scene,
}

/// Connects, and nothing more: no word is sent. The second part moves the bytes and must be polled.
pub(super) async fn open<'a>(
    address: &'a Address,
    client: &TlsClient,
    scene: &'a Scene,
) -> Result<(Session<'a>, impl Future<Output = ()> + Send + 'static), Failure> {
    let waiting = |what: String| scene.waiting_for(what);
    let stream = connect(&address.whom, &waiting).await?;
    let stream = if address.tls {
        let stream = tls::handshake(stream, client, &address.host, &address.whom, &[], &waiting).await?;
        Bounded::new(stream, CHECK_BODY_BYTES_MAX)
    } else {
        Bounded::new(stream, CHECK_BODY_BYTES_MAX)
    };
    // The attempt has its own deadline.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let opened = MultiplexedConnection::new_with_config(&SILENT, stream, config).await;
    let (connection, driver) = opened.map_err(|error| failure(&error, address))?;
    Ok((Session { connection, address, scene }, driver))
}

impl Session<'_> {
    /// Sends a command and waits for its answer; `what` is what a timeout says that it waited for.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, what: &str, command: &Cmd) -> Result<T, Stop> {
        self.scene.waiting_for(format!("{what} from {}", self.address.whom));
        command.query_async(&mut self.connection).await.map_err(|error: RedisError| {
            match error.redirect_node().filter(|_| error.code() == Some("MOVED")) {
                Some((node, _)) => Stop::Moved(node.to_owned()),
                None => Stop::Failed(failure(&error, self.address)),
            }
        })
    }

    pub(super) const fn address(&self) -> &Address {
        self.address
    }
}

/// What an error of the client means, in the words of the operator.
fn failure(error: &RedisError, address: &Address) -> Failure {
    let whom = &address.whom;
    if let Some(code) = error.code() {
        return Failure::answer(refusal(code, error.detail().unwrap_or(""), address));
    }
    match error.kind() {
        ErrorKind::Io => match error.source().and_then(io_source) {
            Some(io::ErrorKind::FileTooLarge) => Failure::answer(format!("{whom} sends more than 1 MiB")),
            // The client's word for a connection that ended before the answer.
            None | Some(io::ErrorKind::BrokenPipe) => io_failure(whom, &io::ErrorKind::UnexpectedEof.into()),
            Some(kind) => io_failure(whom, &kind.into()),
        },
        ErrorKind::Parse => Failure::answer(format!("{whom} does not speak Redis")),
        _ => Failure::answer(format!("{whom} gave an unexpected answer")),
    }
}

/// The client wraps the error of the stream more than once.
fn io_source(source: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut source = Some(source);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        if let Some(error) = error.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>() {
            return error.downcast_ref::<io::Error>().map(io::Error::kind);
        }
        source = error.source();
    }
    None
}

/// An error reply. Redis repeats arguments in some of them, so the password is taken out again.
fn refusal(code: &str, detail: &str, address: &Address) -> String {
    let user = address.user.as_deref().unwrap_or("default");
    match code {
        "NOAUTH" => "AUTH needed".to_owned(),
        "WRONGPASS" => format!("wrong password for user {user}"),
        "ERR" if detail.starts_with("invalid password") => format!("wrong password for user {user}"),
        "ERR" if detail.contains("without any password configured") => {
            "a password is configured, and the server has none".to_owned()
        }
        "LOADING" => "loading the dataset (LOADING)".to_owned(),
        "ERR" => hidden(detail, address),
        code => hidden(&format!("{code} {detail}"), address).trim_end().to_owned(),
    }
}

fn hidden(text: &str, address: &Address) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match address.password.as_ref().map(crate::secret::Secret::expose) {
        Some(password) if !password.is_empty() => plain.replace(password, "[secret]"),
        _ => plain,
    }
}
