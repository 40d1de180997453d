//! The real binary from outside, in front of real peers: one module a promise.
//!
//! Redis and PostgreSQL must be installed (`scripts/setup test`); each test starts its own, on a free port, and ends
//! it. Nothing here measures time tightly: tests wait for conditions, with a deadline that means "broken".

mod answers;
mod cgroup;
mod clients;
mod commands;
mod doubt;
mod drain;
mod guarded;
mod lifecycle;
mod metrics;
mod model;
mod model_servers;
mod monitoring;
#[path = "../../src/testkit/postgres.rs"]
mod postgres_server;
mod presets;
mod redis;
#[path = "../../src/testkit/redis.rs"]
mod redis_server;
mod reload;
mod replay;
mod restart;
mod saturation;
mod secrets;
mod sidecar;
mod silence;
mod stand_in;
mod tls;
mod until;
mod upstreams;
mod wire;
mod witnesses;
