//! The programs that carry the same work, each with one worker on the same core, and how each is configured.
//!
//! A contender is what is found installed; what is not found is named and left out. Each configuration is the one
//! its own documentation gives for a fast reverse proxy: kept upstream connections, no access log, no buffering to
//! disk, streams passed on at once. All of them are written beside the results.

mod envoy;
mod haproxy;
mod nginx;
mod probegate;
mod queue_proxy;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::clock::{self, nanos};
use crate::exchange::{self, Exchange};
use crate::machine::Core;
use crate::process::{Process, free_port};
use crate::work::Work;

/// From start to the first good answer through it.
const START_TIMEOUT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(25);

#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// The backend itself: what the generator and the backend cost without a proxy
    Direct,
    /// Probegate with 20 checks at 1 s, metrics and limits
    Probegate,
    /// nginx, one worker, 1024 kept upstream connections
    Nginx,
    /// nginx, one worker, 64 kept upstream connections: what a default-minded file costs at many connections
    Nginx64,
    /// HAProxy, one thread
    Haproxy,
    /// Envoy, one worker
    Envoy,
    /// Knative's queue-proxy, one core, its default metrics on
    QueueProxy,
}

impl Contender {
    pub(crate) const ALL: [Self; 7] =
        [Self::Direct, Self::Probegate, Self::Nginx, Self::Nginx64, Self::Haproxy, Self::Envoy, Self::QueueProxy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Probegate => "probegate",
            Self::Nginx => "nginx",
            Self::Nginx64 => "nginx64",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::QueueProxy => "queue-proxy",
        }
    }

    /// Whether a cell of the table is worth its time.
    pub(crate) fn enters(self, work: Work, connections: usize) -> bool {
        match self {
            // Below its 64 kept connections it is nginx.
            Self::Nginx64 => work == Work::Json && connections > 64,
            _ => true,
        }
    }

    /// Why it cannot run here, or none.
    pub(crate) fn missing(self) -> Option<String> {
        match self {
            Self::Direct => None,
            Self::Probegate => probegate::binary().err(),
            Self::Nginx | Self::Nginx64 => find("nginx").err(),
            Self::Haproxy => find("haproxy").err(),
            Self::Envoy => envoy::binary().err(),
            Self::QueueProxy => queue_proxy::binary().err(),
        }
    }

    /// What its own `--version` says, in a line.
    pub(crate) fn version(self) -> Option<String> {
        let (program, flag) = match self {
            Self::Direct => return None,
            Self::QueueProxy => return queue_proxy::version(),
            Self::Probegate => (probegate::binary().ok()?, "--version"),
            Self::Nginx | Self::Nginx64 => (find("nginx").ok()?, "-v"),
            Self::Haproxy => (find("haproxy").ok()?, "-v"),
            Self::Envoy => (envoy::binary().ok()?, "--version"),
        };
        let output = Command::new(program).arg(flag).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        Some(match self {
            // Its path, `version:` and a commit, then what people call its version.
            Self::Envoy => format!("Envoy {}", line.split('/').rev().nth(3).unwrap_or(line)),
            Self::Nginx | Self::Nginx64 => line.replace("nginx version: ", ""),
            _ => line.split(" - ").next().unwrap_or(line).to_owned(),
        })
    }

    /// Starts it in front of `backend` and waits until it answers.
    pub(crate) async fn start(self, place: &Place<'_>) -> Result<Standing, String> {
        let mut standing = match self {
            Self::Direct => Ok(Standing::direct(place.backend)),
            Self::Probegate => probegate::start(place),
            Self::Nginx => nginx::start(place, 1024),
            Self::Nginx64 => nginx::start(place, 64),
            Self::Haproxy => haproxy::start(place),
            Self::Envoy => envoy::start(place),
            Self::QueueProxy => queue_proxy::start(place),
        }
        .map_err(|error| format!("{} did not start: {error}", self.name()))?;
        standing
            .answers()
            .await
            .map_err(|error| format!("{} {error}; its log is in {}", self.name(), place.folder.display()))?;
        Ok(standing)
    }
}

/// Where a contender runs.
pub(crate) struct Place<'a> {
    /// For its configuration and its log.
    pub(crate) folder: &'a Path,
    pub(crate) core: Core,
    pub(crate) backend: SocketAddr,
    /// Connections that its descriptors allow.
    pub(crate) connections_max: u64,
}

impl Place<'_> {
    fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

/// A contender that runs.
pub(crate) struct Standing {
    /// None for the backend itself.
    pub(crate) process: Option<Process>,
    pub(crate) traffic: SocketAddr,
    /// Where it takes gRPC: a port of its own, unless it tells the protocols apart.
    pub(crate) grpc: SocketAddr,
    /// What it offers a kubelet: its own answer, without asking the backend.
    pub(crate) probes: Vec<ProbeTarget>,
}

#[derive(Clone, Debug)]
pub(crate) struct ProbeTarget {
    pub(crate) label: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) path: &'static str,
    /// Header lines beside the kubelet's own, each with its line end.
    pub(crate) headers: &'static str,
}

impl Standing {
    fn direct(backend: SocketAddr) -> Self {
        Self { process: None, traffic: backend, grpc: backend, probes: Vec::new() }
    }

    pub(crate) fn takes(&self, work: Work) -> SocketAddr {
        if work == Work::Grpc { self.grpc } else { self.traffic }
    }

    /// One request through it that ends well.
    pub(crate) async fn carries(&self, work: Work) -> Result<(), String> {
        let attempt = async {
            if work == Work::Tokens {
                return exchange::hold(self.traffic, "/tokens").await.map(drop);
            }
            Exchange::open(work, self.takes(work), &exchange::request(work)).await?.once().await
        };
        match tokio::time::timeout(Duration::from_secs(5), attempt).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in 5 s".into()),
        }
    }

    async fn answers(&mut self) -> Result<(), String> {
        let deadline = clock::now() + nanos(START_TIMEOUT);
        let request: Rc<[u8]> = exchange::request(Work::Json);
        loop {
            let attempt = async { Exchange::open(Work::Json, self.traffic, &request).await?.once().await };
            let error = match tokio::time::timeout(Duration::from_secs(1), attempt).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in 1 s".into(),
            };
            if let Some(status) = self.process.as_mut().and_then(Process::ended) {
                return Err(format!("ended at once: {status}"));
            }
            if clock::now() > deadline {
                return Err(format!("did not answer in {} s: {error}", START_TIMEOUT.as_secs()));
            }
            tokio::time::sleep(START_POLL).await;
        }
    }
}

/// A loopback address that was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
}

/// A program on `PATH`, or in the folders where Debian keeps daemons.
fn find(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{name} is not installed; `scripts/setup bench` installs it"))
}
