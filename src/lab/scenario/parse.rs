//! From a file's text to a scenario: every name resolved, every number in range.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Toml};

use super::raw::{RawDesign, RawFault, RawScenario, RawServer, RawUse, Span};
use super::{
    CacheSpec, ClientSpec, DependencySpec, Design, Endpoint, Expectation, Fault, FaultKind, Illness, Scenario,
    ServerFault, ServerSpec, Sidecar, Signal, Use, WhenFull,
};
use crate::config;
use crate::lab::kubelet::{PodSpec, Role};

/// Most pods of one scenario, and the longest: what a second of computing is good for, tenfold.
const PODS_MAX: usize = 1000;
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
const RETRIES_MAX: u32 = 10;
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
        if !(self.clients.rate > 0.0 && self.clients.rate <= RATE_MAX) {
            return Err(format!("clients.rate: {} is not between 0 and {RATE_MAX}", self.clients.rate));
        }
        if self.clients.retries > RETRIES_MAX {
            return Err(format!("clients.retries: {} is above {RETRIES_MAX}", self.clients.retries));
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
        let server = self.server.validate(&names)?;
        let clients = ClientSpec {
            rate: self.clients.rate,
            from: self.clients.from.0,
            timeout: self.clients.timeout.0,
            retries: self.clients.retries,
            retry_after: self.clients.retry_after.0,
            retry_budget_percent: self.clients.retry_budget_percent,
        };
        Ok(Scenario {
            title: self.title,
            question: self.question,
            prediction: self.prediction,
            duration: self.duration.0,
            pods: self.pods,
            server,
            clients,
            faults: faults?,
            designs,
            expectations: expectations?,
            dependencies,
        })
    }
}

struct Names<'a>(&'a [DependencySpec]);

impl Names<'_> {
    fn dependency(&self, name: &str) -> Result<usize, String> {
        let found = self.0.iter().position(|dependency| dependency.name == name);
        found.ok_or_else(|| format!("no dependency is called {name:?}"))
    }

    fn signal(&self, name: &str) -> Result<Signal, String> {
        Ok(match name {
            "cache" => Signal::Cache,
            "listening" => Signal::Listening,
            "model" => Signal::Model,
            "process" => Signal::Process,
            "work" => Signal::Work,
            other => Signal::Dependency(
                self.dependency(other)
                    .map_err(|why| format!("{why}, and it is none of cache, listening, model, process, work"))?,
            ),
        })
    }
}

impl RawServer {
    fn validate(self, names: &Names<'_>) -> Result<ServerSpec, String> {
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
        })
    }
}

impl RawFault {
    fn validate(&self, names: &Names<'_>, pods: usize) -> Result<Fault, String> {
        let at = self.at.0;
        if at.max(self.lasts.map_or(Duration::ZERO, |Span(lasts)| lasts)) > DURATION_MAX {
            return Err("at, for: longer than a day".to_owned());
        }
        let until = at + self.lasts.map_or(Duration::ZERO, |Span(lasts)| lasts);
        if self.pod.is_some_and(|pod| pod >= pods) {
            return Err(format!("pod: there are only {pods}, counted from 0"));
        }
        let what = match (&self.dependency, &self.server) {
            (Some(name), None) => {
                let dependency = names.dependency(name)?;
                let how = match (self.is.as_deref(), self.latency) {
                    (Some("down"), None) => Illness::Down,
                    (Some("silent"), None) => Illness::Silent,
                    (Some("slow"), Some(Span(latency))) => Illness::Slow(latency),
                    _ => return Err("is: expected down, silent, or slow with a latency".to_owned()),
                };
                FaultKind::Dependency { dependency, how, only: self.pod }
            }
            (None, Some(server)) => {
                let pod = self.pod.ok_or("pod: which one?")?;
                let how = match (server.as_str(), self.times) {
                    ("crash", None) => ServerFault::Crash,
                    ("garbage", None) => ServerFault::Garbage,
                    ("hang", None) => ServerFault::Hang,
                    ("slow", Some(times)) if (1.0..=1000.0).contains(&times) => {
                        ServerFault::Slow((times * 1000.0) as u32)
                    }
                    _ => return Err("server: expected crash, garbage, hang, or slow with times = 1..1000".to_owned()),
                };
                FaultKind::Server { pod, how }
            }
            _ => return Err("either dependency or server is needed".to_owned()),
        };
        Ok(Fault { at, until, what })
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
            if check.rule.is_some() || check.kind == "golden" {
                checks.push(Signal::Traffic);
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
        Ok(Sidecar { container, plan: Arc::clone(&config.engine), checks })
    }
}
