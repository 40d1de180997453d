//! `redis` and `postgres`: where, as whom, and what must be there.

use super::super::super::fault::Fault;
use super::super::super::plan::*;
use super::super::super::raw::*;
use super::super::text;
use super::{Ground, POSTGRES, Parts, REDIS};
use crate::engine::Subject;

impl Ground<'_> {
    pub(super) fn redis(&mut self, raw: &TextOr<RawRedis>) -> Option<(RedisCheck, String, Subject)> {
        let default = RawRedis::default();
        let table = match raw {
            TextOr::Text(_) => &default,
            TextOr::Other(table) => table,
        };
        let password =
            text::password(table.password.as_deref(), table.password_file.as_deref(), &self.here, self.faults);
        self.refuse_unused_tls(table.tls.as_ref(), table.url.as_deref(), "redis", "rediss");
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

    pub(super) fn postgres(&mut self, raw: &TextOr<RawPostgres>) -> Option<Parts> {
        let default = RawPostgres::default();
        let table = match raw {
            TextOr::Text(_) => &default,
            TextOr::Other(table) => table,
        };
        let password =
            text::password(table.password.as_deref(), table.password_file.as_deref(), &self.here, self.faults);
        let tls = table.tls.as_ref().map(|tls| self.client(Some(tls)));
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
}
