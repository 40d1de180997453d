//! What is varied: fields of a probe in the manifest, keys of a check in the Probegate file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Toml};
use serde::{Deserialize, Serialize};

use crate::config::{self, Overrides};
use crate::engine::{CheckPlan, FailureRule, Plan};
use crate::lab::kubelet::{PodSpec, ProbeKind, ProbeSpec};
use crate::lab::scenario::Design;

const VALUES_MAX: usize = 64;

/// The part of a scenario that says where a design's checks are written.
#[derive(Deserialize)]
struct Named {
    designs: Vec<NamedDesign>,
}

#[derive(Deserialize)]
struct NamedDesign {
    name: String,
    probegate: Option<String>,
}

/// One key and the values that it takes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Axis {
    pub key: String,
    pub values: Vec<String>,
}

/// The Probegate file of a design: its name and its text; none where there is no sidecar.
#[derive(Clone, Debug, Default)]
pub struct Source(pub Option<(String, String)>);

impl Axis {
    /// `KEY=V1,V2`.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (key, values) = text.split_once('=').ok_or_else(|| format!("{text:?}: expected KEY=V1,V2"))?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        if key.trim().is_empty() || values.iter().any(String::is_empty) || VALUES_MAX < values.len() {
            return Err(format!("{text:?}: expected KEY=V1,V2 with 1 to {VALUES_MAX} values"));
        }
        let mut seen = values.clone();
        seen.sort();
        seen.dedup();
        if seen.len() < values.len() {
            return Err(format!("{text:?}: a value stands there twice"));
        }
        Ok(Self { key: key.trim().to_owned(), values })
    }

    fn new(key: &str, values: &[&str]) -> Self {
        Self { key: key.to_owned(), values: values.iter().map(|value| (*value).to_owned()).collect() }
    }

    /// The grid that is worth a look for a design when nobody says which: how fast readiness looks, how patient
    /// liveness is, and how patient the sidecar's checks are.
    pub fn usual(design: &Design) -> Vec<Self> {
        let has = |kind: ProbeKind| design.pod.containers.iter().any(|container| container.probe(kind).is_some());
        let mut axes = Vec::new();
        if has(ProbeKind::Readiness) {
            axes.push(Self::new("readinessProbe.periodSeconds", &["1", "2", "5", "10"]));
            if design.sidecar.is_none() {
                axes.push(Self::new("readinessProbe.failureThreshold", &["1", "2", "3"]));
            }
        }
        if has(ProbeKind::Liveness) {
            axes.push(Self::new("livenessProbe.failureThreshold", &["1", "3", "6"]));
            if design.sidecar.is_none() {
                axes.push(Self::new("livenessProbe.periodSeconds", &["5", "10"]));
            }
        }
        if design.sidecar.is_some() {
            axes.push(Self::new("checks.*.failure_threshold", &["1", "2", "3", "5"]));
        }
        axes
    }
}

impl Source {
    /// The file that a design names in the text of its scenario.
    ///
    /// # Errors
    /// The scenario's text cannot be read, or the file it names.
    pub fn of(scenario: &str, design: &str, read: &dyn Fn(&str) -> Result<String, String>) -> Result<Self, String> {
        let named: Named = Figment::from(Toml::string(scenario)).extract().map_err(|error| error.to_string())?;
        let named = named.designs.into_iter().find(|named| named.name == design).and_then(|named| named.probegate);
        named
            .map(|file| read(&file).map(|text| (file.clone(), text)).map_err(|why| format!("{file}: {why}")))
            .transpose()
            .map(Self)
    }
}

/// The design with other numbers. The error says which key does not fit, or what the configuration refuses.
pub(super) fn varied(design: &Design, source: &Source, choice: &[(&Axis, &str)]) -> Result<Design, String> {
    let mut design = design.clone();
    let mut keys = BTreeMap::new();
    for (axis, value) in choice {
        let fits = match axis.key.split('.').collect::<Vec<_>>()[..] {
            ["checks", name, key] => check_key(&design, source, name, key, value, &mut keys),
            [probe, field] => set_probe(Arc::make_mut(&mut design.pod), None, probe, field, value),
            [container, probe, field] => {
                set_probe(Arc::make_mut(&mut design.pod), Some(container), probe, field, value)
            }
            _ => Err("expected checks.NAME.KEY or [CONTAINER.]readinessProbe.FIELD".to_owned()),
        };
        fits.map_err(|why| format!("{}={value}: {why}", axis.key))?;
    }
    if !keys.is_empty() {
        let (file, text) = source.0.as_ref().ok_or("the design has no Probegate file")?;
        let overrides = Overrides { environment: keys, ..Overrides::default() };
        let config = config::from_str(Path::new(file), text, &overrides).map_err(|problems| {
            problems
                .iter()
                .map(|problem| format!("{}: {}", problem.key(), problem.message()))
                .collect::<Vec<_>>()
                .join("; ")
        })?;
        let sidecar = design.sidecar.as_mut().ok_or("the design has no sidecar")?;
        if names(&config.engine) != names(&sidecar.plan) {
            return Err("the checks are no longer the same".to_owned());
        }
        sidecar.plan = config.engine;
    }
    Ok(design)
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.checks.iter().map(|check| check.name.as_str()).collect()
}

/// Notes what the environment of the sidecar would say. `*` is every check that its own attempts judge and that the
/// file itself configures; of thresholds, without those that a window judges (`failures = "3/5"`).
fn check_key(
    design: &Design,
    source: &Source,
    name: &str,
    key: &str,
    value: &str,
    keys: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    let (Some(sidecar), Some((file, text))) = (&design.sidecar, &source.0) else {
        return Err(format!("design {} has no sidecar, so no checks", design.name));
    };
    let is_meant = |check: &&CheckPlan| {
        let is_windowed = matches!(check.failure_rule, FailureRule::Window { .. }) && key == "failure_threshold";
        let is_own = check.rule.is_none() && check.accuracy.is_none() && !is_windowed;
        if name == "*" { is_own && text.contains(&format!("[checks.{}]", check.name)) } else { check.name == name }
    };
    let meant: Vec<&str> = sidecar.plan.checks.iter().filter(is_meant).map(|check| check.name.as_str()).collect();
    if meant.is_empty() {
        return Err(format!("{file} has no such check"));
    }
    for check in meant {
        keys.insert(format!("PROBEGATE_CHECKS__{check}__{key}"), value.to_owned());
    }
    Ok(())
}

fn set_probe(pod: &mut PodSpec, container: Option<&str>, probe: &str, field: &str, value: &str) -> Result<(), String> {
    let kind = ProbeKind::ALL.into_iter().find(|kind| probe.strip_suffix("Probe") == Some(kind.as_str()));
    let kind = kind.ok_or("expected readinessProbe, livenessProbe or startupProbe")?;
    let carries = |index: usize| pod.containers[index].probe(kind).is_some();
    let found = match container {
        Some(name) => pod.container_named(name).filter(|index| carries(*index)),
        // The model's own, for it is what the probe is about; else whoever carries one for it.
        None => pod
            .container_named("model")
            .filter(|index| carries(*index))
            .or_else(|| (0..pod.containers.len()).find(|index| carries(*index))),
    };
    let spec = found.and_then(|index| pod.containers[index].probes[kind as usize].as_mut());
    set_field(spec.ok_or("no container has such a probe")?, kind, field, value)
}

fn set_field(spec: &mut ProbeSpec, kind: ProbeKind, field: &str, value: &str) -> Result<(), String> {
    let number: u32 = value.parse().map_err(|_| "expected a whole number")?;
    let seconds = Duration::from_secs(u64::from(number));
    if number == 0 && field != "initialDelaySeconds" || 100_000 < number {
        return Err("out of range".to_owned());
    }
    match field {
        "failureThreshold" => spec.failure_threshold = number,
        "initialDelaySeconds" => spec.initial_delay = seconds,
        "periodSeconds" => spec.period = seconds,
        "successThreshold" if number == 1 || kind == ProbeKind::Readiness => spec.success_threshold = number,
        "successThreshold" => return Err("must be 1 for liveness and startup".to_owned()),
        "timeoutSeconds" => spec.timeout = seconds,
        _ => {
            return Err("expected failureThreshold, initialDelaySeconds, periodSeconds, successThreshold or \
                        timeoutSeconds"
                .to_owned());
        }
    }
    Ok(())
}
