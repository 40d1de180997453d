//! `redis://[user:password@]host:port[/db]`, taken apart.

use std::fmt;

use crate::config::RedisCheck;
use crate::net::Failure;
use crate::secret::Secret;

const PORT: u16 = 6379;

/// Where a Redis is and who we are to it.
pub(super) struct Address {
    pub(super) host: String,
    /// `host:port`, for the connection and for people.
    pub(super) whom: String,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: u32,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("whom", &self.whom).finish_non_exhaustive()
    }
}

impl Address {
    /// Reads the secrets of a check and takes its URL apart. No message holds any part of the URL: a
    /// mistyped one has its password anywhere.
    pub(super) fn of(spec: &RedisCheck) -> Result<Self, Failure> {
        let resolved = spec.url.resolve().map_err(|error| Failure::local(format!("url: {error}")))?;
        let mut address = Self::parse(resolved.expose().trim())?;
        if let Some(user) = &spec.username {
            address.user = Some(user.clone());
        }
        if let Some(password) = &spec.password {
            let password = password.resolve().map_err(|error| Failure::local(format!("password: {error}")))?;
            address.password = Some(password);
        }
        Ok(address)
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |what: &str| Failure::local(format!("url: {what}, expected redis://host:port/database"));
        let url = url::Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        let tls = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            _ => return Err(wrong("another scheme")),
        };
        let host = match url.host_str() {
            Some(host) if !host.is_empty() => percent_decoded(host),
            _ => return Err(wrong("no host")),
        };
        let database = match url.path().trim_matches('/') {
            "" => 0,
            path => path.parse().map_err(|_| wrong("the path is no database number"))?,
        };
        let user = Some(percent_decoded(url.username())).filter(|user| !user.is_empty());
        let password = url.password().map(|password| Secret::new(percent_decoded(password)));
        let whom = format!("{host}:{}", url.port().unwrap_or(PORT));
        // Written in brackets in an address, without them in a certificate.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, whom, tls, user, password, database })
    }

    /// The same Redis cluster at another of its nodes.
    pub(super) fn moved_to(&self, node: &str) -> Self {
        let host = node.rsplit_once(':').map_or(node, |(host, _)| host);
        let host = if host.is_empty() { self.host.clone() } else { host.to_owned() };
        let port = node.rsplit_once(':').map_or("", |(_, port)| port);
        let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Self { host, whom: shown, tls: self.tls, user: self.user.clone(), password: self.password.clone(), database: 0 }
    }
}

/// `%40` as `@`. What is no escape stays as it is.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> String {
        let Address { whom, tls, user, password, database, .. } = Address::parse(text).expect("a URL");
        let password = password.map(|secret| secret.expose().to_owned());
        format!("{whom} {tls} {user:?} {password:?} {database}")
    }

    #[test]
    fn the_parts_of_a_url_and_their_defaults() {
        assert_eq!(parts("redis://cache"), "cache:6379 false None None 0");
        let full = parts("rediss://mo%64el:p%40ss%3A%2F@cache:7000/3");
        assert_eq!(full, "cache:7000 true Some(\"model\") Some(\"p@ss:/\") 3");
        assert_eq!(parts("redis://:pw@[::1]:7000/"), "[::1]:7000 false None Some(\"pw\") 0");
    }

    #[test]
    fn a_wrong_url_is_not_repeated_in_the_message() {
        for wrong in
            ["", "hunter2", "http://:hunter2@x", "redis://", "redis://:hunter2@h/x", "redis://:hunter2@h:99999"]
        {
            let failure = Address::parse(wrong).expect_err(wrong);
            assert!(failure.reason.starts_with("url: ") && !failure.reason.contains("hunter2"), "{}", failure.reason);
        }
        let address = Address::parse("redis://:hunter2@h").expect("right");
        assert_eq!(format!("{address:?}"), "Address { whom: \"h:6379\", .. }");
    }

    #[test]
    fn a_node_of_a_cluster_has_the_same_credentials() {
        let seed = Address::parse("redis://u:p@seed:1/0").expect("right");
        let node = seed.moved_to("10.0.0.7:7001");
        assert_eq!((node.whom.as_str(), node.user.as_deref()), ("10.0.0.7:7001", Some("u")));
        assert_eq!(seed.moved_to(":7002").whom, "seed:7002");
        assert_eq!(seed.moved_to("fd00::1:7003").whom, "[fd00::1]:7003");
    }
}
