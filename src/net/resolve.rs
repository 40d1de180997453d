//! Names to addresses, through the system's resolver.
//!
//! Owns the one place that calls it. `getaddrinfo` cannot be cancelled: a lookup that nobody waits for any
//! more still holds a thread until the resolver gives up, which takes half a minute with a dead name server.
//! So lookups are shared by name: at most one thread is held for each name, however many attempts ask.
//! It caches nothing: how long an address holds is for the resolver to say.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Failure;

/// What a lookup came to; `None` while it is under way.
type Answer = Option<Result<Vec<IpAddr>, Failure>>;

static UNDER_WAY: LazyLock<Mutex<HashMap<String, watch::Receiver<Answer>>>> = LazyLock::new(Mutex::default);

/// The addresses of a host in the resolver's order, without doubles. IP addresses and `localhost` need no resolver.
pub async fn resolve(host: &str) -> Result<Vec<IpAddr>, Failure> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let mut answer = join_or_start(host);
    let found = answer.wait_for(Option::is_some).await;
    match found.ok().and_then(|found| found.clone()) {
        Some(result) => result,
        None => Err(Failure::local(format!("the lookup of {host} was abandoned"))),
    }
}

fn under_way() -> MutexGuard<'static, HashMap<String, watch::Receiver<Answer>>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join_or_start(host: &str) -> watch::Receiver<Answer> {
    let mut under_way = under_way();
    // A sender that is gone without an answer belonged to a runtime that was shut down: start anew.
    if let Some(answer) = under_way.get(host).filter(|answer| answer.has_changed().is_ok()) {
        return answer.clone();
    }
    let (sender, receiver) = watch::channel(None);
    under_way.insert(host.to_owned(), receiver.clone());
    let host = host.to_owned();
    tokio::task::spawn_blocking(move || {
        let found = lookup(&host);
        self::under_way().remove(&host);
        sender.send_replace(Some(found));
    });
    receiver
}

fn lookup(host: &str) -> Result<Vec<IpAddr>, Failure> {
    let found = (host, 0).to_socket_addrs().map_err(|error| failure(host, &error))?;
    let mut addresses = Vec::new();
    for address in found.map(|socket| socket.ip()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(Failure::unreachable(format!("{host} has no address"))) } else { Ok(addresses) }
}

/// The standard library keeps only the resolver's words, so the words are what can be told apart.
fn failure(host: &str, error: &io::Error) -> Failure {
    let words = error.to_string();
    let words = words.strip_prefix("failed to lookup address information: ").unwrap_or(&words);
    let cause = match words {
        "Name or service not known" | "Name does not resolve" => "no such name",
        "No address associated with hostname" | "Name has no usable address" => "the name has no address",
        "Temporary failure in name resolution" | "Try again" => "the name server does not answer",
        other => other,
    };
    Failure::unreachable(format!("cannot resolve {host}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_and_localhost_need_no_resolver() {
        assert_eq!(resolve("192.0.2.7").await, Ok(vec!["192.0.2.7".parse().unwrap()]));
        assert_eq!(resolve("::1").await, Ok(vec!["::1".parse().unwrap()]));
        assert_eq!(resolve("LOCALHOST").await.unwrap()[0], IpAddr::from(Ipv4Addr::LOCALHOST));
        assert!(under_way().is_empty() || !under_way().contains_key("LOCALHOST"));
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_resolved_is_named_in_the_reason() {
        let failure = resolve("no-such-host.invalid").await.unwrap_err();
        assert!(failure.reason.starts_with("cannot resolve no-such-host.invalid: "), "{failure}");
        assert!(!failure.reason.contains("lookup address information"), "{failure}");
        assert!(!under_way().contains_key("no-such-host.invalid"));
    }

    #[tokio::test]
    async fn a_lookup_that_is_under_way_is_joined_and_one_that_was_abandoned_is_not() {
        let (sender, receiver) = watch::channel(None);
        under_way().insert("shared.invalid".to_owned(), receiver);
        let joined = tokio::spawn(resolve("shared.invalid"));
        tokio::task::yield_now().await;
        sender.send_replace(Some(Ok(vec![Ipv4Addr::LOCALHOST.into()])));
        assert_eq!(joined.await.unwrap().unwrap(), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        drop(sender);
        assert!(resolve("shared.invalid").await.is_err(), "a real lookup took its place");
    }

    #[test]
    fn the_resolvers_words_become_causes() {
        let said = |words: &str| {
            failure("h", &io::Error::other(format!("failed to lookup address information: {words}"))).reason
        };
        assert_eq!(said("Name or service not known"), "cannot resolve h: no such name");
        assert_eq!(said("Temporary failure in name resolution"), "cannot resolve h: the name server does not answer");
        assert_eq!(said("Something new"), "cannot resolve h: Something new");
    }
}
