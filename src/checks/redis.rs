//! `redis`: is it there, does it let us in, is what the model needs in it.
//!
//! Owns one fresh connection for the time of one attempt, over a socket that we opened ourselves: dropping
//! the attempt closes it. It writes nothing, reads at most the length of the expected value, and never shows
//! the password.

mod address;
mod session;

use std::collections::HashMap;

use redis::{Value, cmd};

use self::address::Address;
use self::session::{Session, Stop, open};
use super::Scene;
use super::bytes_text::size;
use crate::config::{RedisCheck, RedisRole};
use crate::engine::Outcome;
use crate::net::Failure;

/// Of a value that is not the expected one, so many characters are shown.
const VALUE_SHOWN: usize = 64;

pub(super) async fn attempt(spec: &RedisCheck, scene: &Scene) -> Outcome {
    match look(spec, scene).await {
        Ok(()) => Outcome::pass(scene.elapsed()),
        Err(failure) => Outcome::fail(failure.fault, failure.reason, scene.elapsed()),
    }
}

/// What a Redis says of its memory, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RedisMemory {
    pub(super) used: u64,
    /// `maxmemory`, if it has one.
    pub(super) max: Option<u64>,
}

/// Asks for the memory alone.
pub(super) async fn memory(spec: &RedisCheck, scene: &Scene) -> Result<RedisMemory, Failure> {
    let address = Address::of(spec)?;
    let (mut session, driver) = open(&address, &spec.tls, scene).await?;
    let talk = async {
        enter(&mut session).await?;
        info_memory(&mut session).await
    };
    unredirected(beside(driver, talk).await)
}

async fn look(spec: &RedisCheck, scene: &Scene) -> Result<(), Failure> {
    let address = Address::of(spec)?;
    let (mut session, driver) = open(&address, &spec.tls, scene).await?;
    let talk = async {
        enter(&mut session).await?;
        ping(&mut session).await?;
        if let Some(role) = spec.role {
            has_role(&mut session, role).await?;
        }
        if spec.cluster {
            cluster_is_ok(&mut session).await?;
        }
        if let Some(max) = spec.max_memory {
            let used = info_memory(&mut session).await?.used;
            if used > max.0 {
                let reason = format!("used_memory is {}, expected at most {}", size(used), size(max.0));
                return Err(Failure::answer(reason).into());
            }
        }
        // Last: it may lead to another node.
        holds_key(&mut session, spec).await
    };
    match beside(driver, talk).await {
        Err(Stop::Moved(node)) => look_for_key(&address.moved_to(&node), spec, scene).await,
        other => unredirected(other),
    }
}

/// Asks the node that has the key's slot. One redirection is a cluster; two are a cluster that moves.
async fn look_for_key(address: &Address, spec: &RedisCheck, scene: &Scene) -> Result<(), Failure> {
    let (mut session, driver) = open(address, &spec.tls, scene).await?;
    let talk = async {
        enter(&mut session).await?;
        holds_key(&mut session, spec).await
    };
    unredirected(beside(driver, talk).await)
}

/// Runs a conversation while its connection is driven; both end with it.
async fn beside<T>(driver: impl Future<Output = ()>, talk: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    let driven = async {
        driver.await;
        // The conversation hears of the end from its own question.
        std::future::pending().await
    };
    tokio::select! {
        biased;
        said = talk => said,
        never = driven => never,
    }
}

fn unredirected<T>(said: Result<T, Stop>) -> Result<T, Failure> {
    said.map_err(|stop| match stop {
        Stop::Failed(failure) => failure,
        Stop::Moved(node) => Failure::answer(format!("the key has moved to {node}")),
    })
}

async fn enter(session: &mut Session<'_>) -> Result<(), Stop> {
    let address = session.address();
    let (user, password, database) = (address.user.clone(), address.password.clone(), address.database);
    if let Some(password) = password {
        let mut auth = cmd("AUTH");
        if let Some(user) = user {
            auth.arg(user);
        }
        auth.arg(password.expose());
        let _: Value = session.ask("the answer to AUTH", &auth).await?;
    }
    if database > 0 {
        let _: Value = session.ask("the answer to SELECT", cmd("SELECT").arg(database)).await?;
    }
    Ok(())
}

async fn ping(session: &mut Session<'_>) -> Result<(), Stop> {
    let answer: Value = session.ask("PONG", &cmd("PING")).await?;
    match answer {
        Value::SimpleString(pong) if pong == "PONG" => Ok(()),
        _ => Err(Failure::answer(format!("{} did not answer PONG to PING", session.address().whom)).into()),
    }
}

async fn holds_key(session: &mut Session<'_>, spec: &RedisCheck) -> Result<(), Stop> {
    let Some(key) = &spec.key else { return Ok(()) };
    let found: u64 = session.ask(&format!("the key {key}"), cmd("EXISTS").arg(key)).await?;
    if found == 0 {
        return Err(Failure::answer(format!("key {key} does not exist")).into());
    }
    let Some(expected) = &spec.key_equals else { return Ok(()) };
    // One byte more than expected tells a longer value, whatever its length.
    let end = expected.len().max(4 * VALUE_SHOWN);
    let command = cmd("GETRANGE").arg(key).arg(0).arg(end).to_owned();
    let value: Vec<u8> = session.ask(&format!("the value of {key}"), &command).await?;
    if value == expected.as_bytes() {
        return Ok(());
    }
    let reason = format!("key {key} is {}, expected {}", shown(&String::from_utf8_lossy(&value)), shown(expected));
    Err(Failure::answer(reason).into())
}

fn shown(value: &str) -> String {
    let start: String = value.chars().take(VALUE_SHOWN).collect();
    let rest = if start.len() < value.len() { "..." } else { "" };
    format!("\"{}\"{rest}", start.escape_debug())
}

async fn has_role(session: &mut Session<'_>, expected: RedisRole) -> Result<(), Stop> {
    let answer: Vec<Value> = session.ask("the answer to ROLE", &cmd("ROLE")).await?;
    let text = |at: usize| match answer.get(at) {
        Some(Value::BulkString(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Some(Value::SimpleString(text)) => text.clone(),
        _ => String::new(),
    };
    let role = text(0);
    let reason = match (expected, role.as_str()) {
        (RedisRole::Master, "master") => return Ok(()),
        (RedisRole::Replica, "slave") => match text(3).as_str() {
            "connected" => return Ok(()),
            link => format!("the link to the master {} is \"{link}\", expected \"connected\"", text(1)),
        },
        (RedisRole::Master, "slave") => "it is a replica (READONLY), expected a master".to_owned(),
        (RedisRole::Replica, "master") => "it is a master, expected a replica".to_owned(),
        (_, other) => format!("its role is \"{}\"", other.escape_debug()),
    };
    Err(Failure::answer(reason).into())
}

async fn cluster_is_ok(session: &mut Session<'_>) -> Result<(), Stop> {
    let info: String = session.ask("the answer to CLUSTER INFO", cmd("CLUSTER").arg("INFO")).await?;
    match fields(&info).get("cluster_state") {
        Some(&"ok") => Ok(()),
        Some(state) => Err(Failure::answer(format!("cluster_state:{state}")).into()),
        None => Err(Failure::answer("CLUSTER INFO says no cluster_state").into()),
    }
}

async fn info_memory(session: &mut Session<'_>) -> Result<RedisMemory, Stop> {
    let info: String = session.ask("the answer to INFO memory", cmd("INFO").arg("memory")).await?;
    let fields = fields(&info);
    let number = |name| fields.get(name).and_then(|text| text.parse::<u64>().ok());
    match number("used_memory") {
        Some(used) => Ok(RedisMemory { used, max: number("maxmemory").filter(|max| *max > 0) }),
        None => Err(Failure::answer("INFO memory says no used_memory").into()),
    }
}

/// `name:value` lines.
fn fields(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.trim_end().split_once(':')).collect()
}

#[cfg(test)]
mod tests;
