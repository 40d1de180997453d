//! What a configuration names, fetched when it comes to life: upstream addresses, certificates.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::config::Config;
use crate::net::tls_server::{self, Identity};

/// A configuration with its upstream addresses resolved and its certificates read. Made where blocking is allowed.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) config: Config,
    /// In the order of `config.upstream.backends`.
    pub(super) backends: Vec<SocketAddr>,
    /// Where `config.tls` is set.
    pub(super) identity: Option<Identity>,
}

impl Resolved {
    /// Blocks on the system's resolver for names, and on files. The error is for a person.
    pub(super) fn new(config: Config) -> Result<Self, String> {
        let backends = config.upstream.backends.iter().map(|backend| resolve(&backend.address));
        let backends = backends.collect::<Result<Vec<_>, _>>()?;
        let identity = config.tls.as_ref().map(tls_server::load).transpose()?;
        Ok(Self { config, backends, identity })
    }
}

/// IPv4 first: model servers listen there, and `localhost` is both.
fn resolve(address: &str) -> Result<SocketAddr, String> {
    let unresolvable = |why: String| format!("upstream.address: cannot resolve {address}: {why}");
    let found: Vec<SocketAddr> = address.to_socket_addrs().map_err(|error| unresolvable(error.to_string()))?.collect();
    let first = found.iter().find(|found| found.is_ipv4()).or_else(|| found.first());
    first.copied().ok_or_else(|| unresolvable("it has no address".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_ipv4_and_an_address_is_itself() {
        assert_eq!(resolve("localhost:80"), Ok(SocketAddr::from(([127, 0, 0, 1], 80))));
        assert_eq!(resolve("[::1]:80"), Ok("[::1]:80".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        let error = resolve("127.0.0.1").unwrap_err();
        assert!(error.starts_with("upstream.address: cannot resolve 127.0.0.1: "), "{error}");
    }
}
