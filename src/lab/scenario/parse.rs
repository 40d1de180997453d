//! From a file's text to a scenario: every name resolved, every number in range.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Toml};

use super::raw::{RawAutoscaler, RawClients, RawDesign, RawScenario, RawServer, RawUse, RawVersion, Span};
use super::{
    CacheSpec, ClientSpec, DependencySpec, Design, Endpoint, Expectation, Fault, Scenario, ServerSpec, Sidecar, Signal,
    StreamSpec, Surge, Terms, Use, Version, WhenFull,
};
use crate::config;
use crate::lab::kubelet::{PodSpec, Role};

/// Most pods of one scenario, and the longest: what a second of computing is good for, tenfold.
pub(super) const PODS_MAX: usize = 1000;
pub(super) const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
const CONNECTIONS_MAX: u32 = 100_000;
const RETRIES_MAX: u32 = 10;
/// One request in twelve days: rarer ones are none.
const RATE_MIN: f64 = 1e-6;
const RATE_MAX: f64 = 100_000.0;

/// Why a scenario cannot be run. The message names the place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ScenarioError(pub String);

impl Scenario {
    /// Reads a scenario. `read` gives the text of a file that it names.
    ///
    /// # Errors
    /// Names the key and what is wrong with it.
    pub fn parse(text: &str, read: &dyn Fn(&str) -> Result<String, String>) -> Result<Self, ScenarioError> {
        let raw: RawScenario =
            Figment::from(Toml::string(text)).extract().map_err(|error| ScenarioError(error.to_string()))?;
        raw.validate(read).map_err(ScenarioError)
    }
}

impl RawScenario {
    fn validate(self, read: &dyn Fn(&str) -> Result<String, String>) -> Result<Scenario, String> {
        if self.pods == 0 || self.pods > PODS_MAX {
            return Err(format!("pods: {} is not in 1..={PODS_MAX}", self.pods));
        }
        if self.duration.0 > DURATION_MAX || self.duration.0 < Duration::from_secs(1) {
            return Err("duration: not between a second and a day".to_owned());
        }
        if self.designs.is_empty() {
            return Err("designs: at least one is needed".to_owned());
        }
        let dependencies: Vec<DependencySpec> = self
            .dependencies
            .iter()
            .map(|(name, raw)| DependencySpec { name: name.clone(), latency: raw.latency.0 })
            .collect();
        let names = Names(&dependencies);
        let faults: Result<Vec<Fault>, String> = (self.faults.iter().enumerate())
            .map(|(index, raw)| raw.validate(&names, self.pods).map_err(|why| format!("faults[{index}]: {why}")))
            .collect();
        let designs: Result<Vec<Design>, String> = (self.designs.iter())
            .map(|raw| raw.validate(&names, read).map_err(|why| format!("design {}: {why}", raw.name)))
            .collect();
        let designs = designs?;
        let expectations: Result<Vec<Expectation>, String> = (self.expect.iter())
            .map(|line| {
                let expectation = Expectation::parse(line).map_err(|why| format!("expect {line:?}: {why}"))?;
                match designs.iter().any(|design| design.name == expectation.design) {
                    true => Ok(expectation),
                    false => Err(format!("expect {line:?}: no design is called {:?}", expectation.design)),
                }
            })
            .collect();
        let versions = versions(&self.server, &self.versions, &names)?;
        let deployment = self.deployment.validate(self.pods).map_err(|why| format!("deployment.{why}"))?;
        let actions: Result<_, String> = (self.actions.iter().enumerate())
            .map(|(index, raw)| {
                let action = raw.validate(&versions, self.pods, deployment.nodes);
                action.map_err(|why| format!("actions[{index}]: {why}"))
            })
            .collect();
        let autoscaler = self.autoscaler.as_ref().map(RawAutoscaler::validate).transpose();
        let autoscaler = autoscaler.map_err(|why| format!("autoscaler.{why}"))?;
        let clients = self.clients.validate().map_err(|why| format!("clients.{why}"))?;
        Ok(Scenario {
            title: self.title,
            question: self.question,
            prediction: self.prediction,
            duration: self.duration.0,
            pods: self.pods,
            versions,
            deployment,
            autoscaler,
            actions: actions?,
            clients,
            faults: faults?,
            designs,
            expectations: expectations?,
            dependencies,
        })
    }
}

pub(super) struct Names<'a>(&'a [DependencySpec]);

impl Names<'_> {
    pub(super) fn dependency(&self, name: &str) -> Result<usize, String> {
        let found = self.0.iter().position(|dependency| dependency.name == name);
        found.ok_or_else(|| format!("no dependency is called {name:?}"))
    }

    fn signal(&self, name: &str) -> Result<Signal, String> {
        Ok(match name {
            "cache" => Signal::Cache,
            "listening" => Signal::Listening,
            "memory" => Signal::Memory,
            "model" => Signal::Model,
            "process" => Signal::Process,
            "work" => Signal::Work,
            other => {
                Signal::Dependency(self.dependency(other).map_err(|why| {
                    format!("{why}, and it is none of cache, listening, memory, model, process, work")
                })?)
            }
        })
    }
}

impl RawServer {
    fn validate(&self, names: &Names<'_>) -> Result<ServerSpec, String> {
        if self.concurrency == 0 || self.concurrency > 4096 || self.queue > 1_000_000 {
            return Err("server: concurrency is not in 1..=4096, or queue above a million".to_owned());
        }
        let to_use = |is_required: bool| {
            move |raw: &RawUse| -> Result<Use, String> {
                Ok(Use { dependency: names.dependency(&raw.dependency)?, is_required, timeout: raw.timeout.0 })
            }
        };
        let uses: Result<Vec<Use>, String> =
            self.requires.iter().map(to_use(true)).chain(self.asks.iter().map(to_use(false))).collect();
        let cache = match &self.cache {
            None => None,
            Some(raw) => Some(CacheSpec {
                limit_bytes: raw.limit_mib.saturating_mul(1 << 20),
                per_request_bytes: raw.per_request_kib.saturating_mul(1 << 10),
                when_full: match raw.when_full.as_str() {
                    "evict" => WhenFull::Evict,
                    "oom" => WhenFull::Oom,
                    other => return Err(format!("server.cache.when_full: {other:?} is neither evict nor oom")),
                },
            }),
        };
        let loads_from = self.loads_from.as_deref().map(|name| names.dependency(name)).transpose();
        Ok(ServerSpec {
            load: self.load.0,
            loads_from: loads_from.map_err(|why| format!("server.loads_from: {why}"))?,
            concurrency: self.concurrency,
            queue: self.queue,
            service_time: self.service_time.0,
            uses: uses.map_err(|why| format!("server: {why}"))?,
            cache,
            finishes: self.finishes,
            page_hangs: self.page_hangs,
            front_answers: self.front_answers,
            is_garbage: self.garbage,
            never_ready: self.never_ready,
            crash_after: self.crash_after.map(|Span(after)| after),
        })
    }
}

/// What the scenario begins with is the version "v1"; the others differ from it.
fn versions(first: &RawServer, more: &BTreeMap<String, RawVersion>, names: &Names<'_>) -> Result<Vec<Version>, String> {
    let mut versions = vec![Version { name: "v1".to_owned(), server: first.validate(names)? }];
    for (name, raw) in more {
        if name == "v1" {
            return Err("versions.v1: that is what [server] describes".to_owned());
        }
        let server = raw.over(first).validate(names).map_err(|why| format!("versions.{name}: {why}"))?;
        versions.push(Version { name: name.clone(), server });
    }
    Ok(versions)
}

impl RawVersion {
    fn over(&self, first: &RawServer) -> RawServer {
        RawServer {
            load: self.load.unwrap_or(first.load),
            concurrency: self.concurrency.unwrap_or(first.concurrency),
            queue: self.queue.unwrap_or(first.queue),
            service_time: self.service_time.unwrap_or(first.service_time),
            finishes: self.finishes.unwrap_or(first.finishes),
            page_hangs: self.page_hangs.unwrap_or(first.page_hangs),
            front_answers: self.front_answers.unwrap_or(first.front_answers),
            garbage: self.garbage,
            never_ready: self.never_ready,
            crash_after: self.crash_after,
            ..first.clone()
        }
    }
}

impl RawClients {
    fn validate(&self) -> Result<ClientSpec, String> {
        if !(RATE_MIN..=RATE_MAX).contains(&self.rate) {
            return Err(format!("rate: {} is not between {RATE_MIN} and {RATE_MAX}", self.rate));
        }
        if self.retries > RETRIES_MAX {
            return Err(format!("retries: {} is above {RETRIES_MAX}", self.retries));
        }
        if self.connections > CONNECTIONS_MAX {
            return Err(format!("connections: {} is above {CONNECTIONS_MAX}", self.connections));
        }
        let permille = |key: &str, percent: f64| match (0.0..=100.0).contains(&percent) {
            true => Ok((percent * 10.0) as u32),
            false => Err(format!("{key}: {percent} is not between 0 and 100")),
        };
        let streams = match &self.streams {
            None => None,
            Some(raw) if raw.gap.0.is_zero() => return Err("streams.gap: must not be zero".to_owned()),
            Some(raw) => {
                let permille = permille("streams.percent", raw.percent)?;
                Some(StreamSpec { permille, lasts: raw.lasts.0, gap: raw.gap.0 })
            }
        };
        let surges: Result<_, String> = (self.surges.iter().enumerate())
            .map(|(index, raw)| raw.validate().map_err(|why| format!("surges[{index}].{why}")))
            .collect();
        let surges: Vec<Surge> = surges?;
        let least = surges.iter().fold(self.rate, |rate, surge| rate * surge.times.min(1.0));
        let most = surges.iter().fold(self.rate, |rate, surge| rate * surge.times.max(1.0));
        if most > RATE_MAX || least < RATE_MIN / 1000.0 {
            return Err(format!("surges: together {least} to {most} requests a second"));
        }
        Ok(ClientSpec {
            rate: self.rate,
            from: self.from.0,
            timeout: self.timeout.0,
            retries: self.retries,
            retry_after: self.retry_after.0,
            retry_budget_percent: self.retry_budget_percent,
            connections: self.connections,
            fresh_permille: permille("fresh_percent", self.fresh_percent)?,
            streams,
            surges,
        })
    }
}

impl RawDesign {
    fn validate(&self, names: &Names<'_>, read: &dyn Fn(&str) -> Result<String, String>) -> Result<Design, String> {
        let pod = self.pod.validate()?;
        let server = pod.container_named("model").filter(|index| pod.containers[*index].role == Role::Regular);
        let server = server.ok_or("pod: a regular container called \"model\" is needed")?;
        let signals = |path: &str, asks: &[String]| -> Result<Endpoint, String> {
            let asks: Result<Vec<Signal>, String> = asks.iter().map(|name| names.signal(name)).collect();
            Ok(Endpoint { path: path.to_owned(), asks: asks.map_err(|why| format!("endpoints.{path}: {why}"))? })
        };
        let endpoints: Result<Vec<Endpoint>, String> =
            self.endpoints.iter().map(|(path, asks)| signals(path, asks)).collect();
        let sidecar = self.probegate.as_deref().map(|file| self.sidecar(&pod, file, names, read)).transpose()?;
        Ok(Design {
            name: self.name.clone(),
            says: self.says.clone(),
            pod: Arc::new(pod),
            server,
            sidecar,
            endpoints: endpoints?,
        })
    }

    fn sidecar(
        &self,
        pod: &PodSpec,
        file: &str,
        names: &Names<'_>,
        read: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Sidecar, String> {
        let container = pod.container_named("probegate").ok_or("pod: a container called \"probegate\" is needed")?;
        let text = read(file).map_err(|why| format!("probegate: {file}: {why}"))?;
        let config = config::from_str(Path::new(file), &text, &config::Overrides::default())
            .map_err(|problems| format!("probegate: {problems}"))?;
        let mut checks = Vec::new();
        for check in &config.engine.checks {
            if check.rule.is_some() || check.accuracy.is_some() {
                checks.push(if check.rule.is_some() { Signal::Counter } else { Signal::Golden });
                continue;
            }
            let name = self.checks.get(&check.name).map_or(check.name.as_str(), String::as_str);
            checks.push(
                names.signal(name).map_err(|why| {
                    format!("checks.{}: what of this world does the check look at? {why}", check.name)
                })?,
            );
        }
        if let Some(unknown) = self.checks.keys().find(|name| config.engine.check_named(name).is_none()) {
            return Err(format!("checks.{unknown}: {file} has no such check"));
        }
        let traffic = &config.traffic;
        let terms = Terms {
            max_in_flight: traffic.max_in_flight,
            queue: traffic.queue.map(|queue| (queue.max, queue.timeout)),
            hold: traffic.hold,
            first_byte_timeout: traffic.first_byte_timeout,
        };
        Ok(Sidecar { container, plan: Arc::clone(&config.engine), checks, terms })
    }
}
