//! The part of a pod spec that the kubelet acts on, as typed (`camelCase`, JSON or TOML) and as validated.
//!
//! Fields that change nothing here (resources, volumes, environment) are ignored; a value that the API
//! server would refuse is an error, with the same defaults filled in (§1 of the kubelet notes).

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

/// A pod as the kubelet gets it. Init containers come first, in their order, then the regular ones.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSpec {
    pub containers: Vec<ContainerSpec>,
    pub restart: RestartPolicy,
    /// `terminationGracePeriodSeconds`, 30 s by default.
    pub grace: Duration,
    /// Names conditions that nobody sets here: such a pod never becomes ready.
    pub has_readiness_gates: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    pub name: String,
    pub role: Role,
    pub ports: Vec<ContainerPort>,
    /// In the order of [`ProbeKind::ALL`].
    pub probes: [Option<ProbeSpec>; 3],
    pub post_start: Option<Hook>,
    pub pre_stop: Option<Hook>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ContainerPort {
    pub name: Option<String>,
    pub number: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: a native sidecar.
    Sidecar,
    Regular,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RestartPolicy {
    #[default]
    Always,
    Never,
    OnFailure,
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProbeSpec {
    pub handler: Handler,
    pub initial_delay: Duration,
    pub timeout: Duration,
    pub period: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
    /// Replaces the pod's grace when this probe kills.
    pub grace: Option<Duration>,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq)]
pub enum Handler {
    Exec { command: Vec<String> },
    Grpc { port: u16, service: String },
    Http { path: String, port: PortRef, host: Option<String> },
    Tcp { port: PortRef, host: Option<String> },
}

/// What a lifecycle hook does.
#[derive(Clone, Debug, PartialEq)]
pub enum Hook {
    Exec { command: Vec<String> },
    Http { path: String, port: PortRef, host: Option<String> },
    Sleep(Duration),
}

/// A port by number, or by a name of the container that carries the probe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PortRef {
    Number(u16),
    /// The name is not among the container's ports: every such probe is an error and is thrown away (§3).
    Unknown(String),
}

impl ProbeKind {
    pub const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        }
    }
}

impl PodSpec {
    /// The index of a container.
    pub fn container_named(&self, name: &str) -> Option<usize> {
        self.containers.iter().position(|container| container.name == name)
    }

    /// The container that declares a port: who answers there.
    pub fn owner_of_port(&self, port: u16) -> Option<usize> {
        self.containers.iter().position(|container| container.ports.iter().any(|p| p.number == port))
    }
}

impl ContainerSpec {
    pub fn probe(&self, kind: ProbeKind) -> Option<&ProbeSpec> {
        self.probes[kind as usize].as_ref()
    }
}

/// As typed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RawPod {
    containers: Vec<RawContainer>,
    init_containers: Vec<RawContainer>,
    restart_policy: Option<String>,
    termination_grace_period_seconds: Option<u32>,
    readiness_gates: Vec<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawContainer {
    name: String,
    ports: Vec<RawPort>,
    restart_policy: Option<String>,
    startup_probe: Option<RawProbe>,
    readiness_probe: Option<RawProbe>,
    liveness_probe: Option<RawProbe>,
    lifecycle: RawLifecycle,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPort {
    container_port: u16,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawLifecycle {
    post_start: Option<RawHandler>,
    pre_stop: Option<RawHandler>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawHandler {
    exec: Option<RawExec>,
    grpc: Option<RawGrpc>,
    http_get: Option<RawHttp>,
    sleep: Option<RawSleep>,
    tcp_socket: Option<RawTcp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawProbe {
    #[serde(flatten)]
    handler: RawHandler,
    initial_delay_seconds: u32,
    timeout_seconds: u32,
    period_seconds: u32,
    success_threshold: u32,
    failure_threshold: u32,
    termination_grace_period_seconds: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawExec {
    command: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct RawGrpc {
    port: u16,
    #[serde(default)]
    service: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct RawHttp {
    #[serde(default)]
    path: Option<String>,
    port: RawPortRef,
    #[serde(default)]
    host: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct RawTcp {
    port: RawPortRef,
    #[serde(default)]
    host: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct RawSleep {
    seconds: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum RawPortRef {
    Number(u16),
    Name(String),
}

impl RawPod {
    /// What the API server would accept of it.
    ///
    /// # Errors
    /// Names the container and the field that it would refuse.
    pub fn validate(&self) -> Result<PodSpec, String> {
        if self.containers.is_empty() {
            return Err("spec.containers: at least one is required".to_owned());
        }
        let inits = self.init_containers.iter().map(|raw| (raw, raw.init_role()));
        let regular = self.containers.iter().map(|raw| (raw, Ok(Role::Regular)));
        let mut containers = Vec::new();
        let mut names = BTreeSet::new();
        for (raw, role) in inits.chain(regular) {
            if raw.name.is_empty() || !names.insert(raw.name.as_str()) {
                return Err(format!("container {:?}: a name of its own is required", raw.name));
            }
            let container = role.and_then(|role| raw.validate(role));
            containers.push(container.map_err(|problem| format!("container {}: {problem}", raw.name))?);
        }
        let restart = match self.restart_policy.as_deref() {
            None | Some("Always") => RestartPolicy::Always,
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some(other) => return Err(format!("restartPolicy: {other:?} is none of Always, OnFailure, Never")),
        };
        let grace = seconds(self.termination_grace_period_seconds.unwrap_or(30));
        Ok(PodSpec { containers, restart, grace, has_readiness_gates: !self.readiness_gates.is_empty() })
    }
}

impl RawContainer {
    fn init_role(&self) -> Result<Role, String> {
        match self.restart_policy.as_deref() {
            None => Ok(Role::Init),
            Some("Always") => Ok(Role::Sidecar),
            Some(other) => Err(format!("restartPolicy: {other:?} is not Always")),
        }
    }

    fn validate(&self, role: Role) -> Result<ContainerSpec, String> {
        let ports: Vec<ContainerPort> =
            self.ports.iter().map(|p| ContainerPort { name: p.name.clone(), number: p.container_port }).collect();
        let raw = [&self.startup_probe, &self.readiness_probe, &self.liveness_probe];
        let hooks = [&self.lifecycle.post_start, &self.lifecycle.pre_stop];
        if role == Role::Init && (raw.iter().any(|p| p.is_some()) || hooks.iter().any(|h| h.is_some())) {
            return Err("probes and lifecycle are for init containers with restartPolicy: Always only".to_owned());
        }
        let mut probes = [None, None, None];
        for kind in ProbeKind::ALL {
            if let Some(probe) = raw[kind as usize] {
                let valid = probe.validate(kind, &ports);
                probes[kind as usize] = Some(valid.map_err(|problem| format!("{}Probe: {problem}", kind.as_str()))?);
            }
        }
        let [post_start, pre_stop] = hooks.map(|hook| hook.as_ref().map(|raw| raw.hook(&ports)).transpose());
        Ok(ContainerSpec {
            name: self.name.clone(),
            role,
            probes,
            post_start: post_start.map_err(|problem| format!("postStart: {problem}"))?,
            pre_stop: pre_stop.map_err(|problem| format!("preStop: {problem}"))?,
            ports,
        })
    }
}

impl RawProbe {
    fn validate(&self, kind: ProbeKind, ports: &[ContainerPort]) -> Result<ProbeSpec, String> {
        // §1: a zero means the default.
        let or = |value: u32, default: u32| seconds(if value == 0 { default } else { value });
        let threshold = |value: u32, default: u32| if value == 0 { default } else { value };
        let success_threshold = threshold(self.success_threshold, 1);
        if kind != ProbeKind::Readiness && success_threshold != 1 {
            return Err("successThreshold: must be 1".to_owned());
        }
        let grace = self.termination_grace_period_seconds;
        if grace == Some(0) || grace.is_some() && kind == ProbeKind::Readiness {
            return Err("terminationGracePeriodSeconds: must be above 0, and is not for readiness".to_owned());
        }
        Ok(ProbeSpec {
            handler: self.handler.probe(ports)?,
            initial_delay: seconds(self.initial_delay_seconds),
            timeout: or(self.timeout_seconds, 1),
            period: or(self.period_seconds, 10),
            success_threshold,
            failure_threshold: threshold(self.failure_threshold, 3),
            grace: grace.map(seconds),
        })
    }
}

impl RawHandler {
    fn count(&self) -> usize {
        let given = [self.exec.is_some(), self.grpc.is_some(), self.http_get.is_some(), self.tcp_socket.is_some()];
        given.into_iter().chain([self.sleep.is_some()]).filter(|is_given| *is_given).count()
    }

    fn probe(&self, ports: &[ContainerPort]) -> Result<Handler, String> {
        if self.count() != 1 || self.sleep.is_some() {
            return Err("exactly one of exec, grpc, httpGet and tcpSocket is required".to_owned());
        }
        if let Some(exec) = &self.exec {
            return Ok(Handler::Exec { command: exec.command.clone() });
        }
        if let Some(grpc) = &self.grpc {
            return Ok(Handler::Grpc { port: grpc.port, service: grpc.service.clone().unwrap_or_default() });
        }
        if let Some(tcp) = &self.tcp_socket {
            return Ok(Handler::Tcp { port: tcp.port.resolve(ports), host: tcp.host.clone() });
        }
        let http = self.http_get.as_ref().ok_or("a handler is required")?;
        Ok(Handler::Http { path: http.path(), port: http.port.resolve(ports), host: http.host.clone() })
    }

    fn hook(&self, ports: &[ContainerPort]) -> Result<Hook, String> {
        if self.count() != 1 {
            return Err("exactly one of exec, httpGet and sleep is required".to_owned());
        }
        match (&self.exec, &self.http_get, &self.sleep) {
            (Some(exec), _, _) => Ok(Hook::Exec { command: exec.command.clone() }),
            (_, Some(http), _) => {
                Ok(Hook::Http { path: http.path(), port: http.port.resolve(ports), host: http.host.clone() })
            }
            (_, _, Some(sleep)) => Ok(Hook::Sleep(seconds(sleep.seconds))),
            _ => Err("exec, httpGet or sleep is required".to_owned()),
        }
    }
}

/// Seconds are 32 bits wide in the API.
fn seconds(value: u32) -> Duration {
    Duration::from_secs(value.into())
}

impl RawHttp {
    fn path(&self) -> String {
        self.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned())
    }
}

impl RawPortRef {
    /// §3: a name is looked up in the ports of the container that carries the probe.
    fn resolve(&self, ports: &[ContainerPort]) -> PortRef {
        match self {
            Self::Number(number) => PortRef::Number(*number),
            Self::Name(name) => {
                let declared = ports.iter().find(|port| port.name.as_ref() == Some(name)).map(|port| port.number);
                let number = declared.or_else(|| name.parse().ok());
                number.map_or_else(|| PortRef::Unknown(name.clone()), PortRef::Number)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: serde_json::Value) -> Result<PodSpec, String> {
        serde_json::from_value::<RawPod>(value).map_err(|e| e.to_string())?.validate()
    }

    #[test]
    fn an_empty_probe_gets_the_defaults_of_the_api_server() {
        let pod = parse(json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"port": 80}}}]})).unwrap();
        let probe = pod.containers[0].probe(ProbeKind::Liveness).unwrap();
        assert_eq!((probe.period, probe.timeout), (Duration::from_secs(10), Duration::from_secs(1)));
        assert_eq!((probe.success_threshold, probe.failure_threshold), (1, 3));
        let http = Handler::Http { path: "/".to_owned(), port: PortRef::Number(80), host: None };
        assert_eq!(probe.handler, http);
        assert_eq!(pod.grace, Duration::from_secs(30));
    }

    #[test]
    fn a_port_name_counts_only_in_the_container_that_carries_the_probe() {
        let pod = parse(json!({
            "containers": [
                {"name": "app", "ports": [{"containerPort": 80, "name": "web"}],
                 "readinessProbe": {"httpGet": {"port": "web"}}, "livenessProbe": {"tcpSocket": {"port": "side"}}},
                {"name": "side", "ports": [{"containerPort": 90, "name": "side"}]}]}))
        .unwrap();
        let app = &pod.containers[0];
        let port = |kind| match &app.probe(kind).unwrap().handler {
            Handler::Http { port, .. } | Handler::Tcp { port, .. } => port.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(port(ProbeKind::Readiness), PortRef::Number(80));
        assert_eq!(port(ProbeKind::Liveness), PortRef::Unknown("side".to_owned()));
        assert_eq!(pod.owner_of_port(90), Some(1));
    }

    #[test]
    fn what_the_api_server_refuses_is_refused() {
        let with = |probe: serde_json::Value| json!({"containers": [{"name": "a", "livenessProbe": probe}]});
        let refused = [
            with(json!({"httpGet": {"port": 1}, "successThreshold": 2})),
            with(json!({"httpGet": {"port": 1}, "terminationGracePeriodSeconds": 0})),
            with(json!({"httpGet": {"port": 1}, "tcpSocket": {"port": 1}})),
            with(json!({})),
            json!({"containers": [{"name": "a", "readinessProbe":
                {"httpGet": {"port": 1}, "terminationGracePeriodSeconds": 5}}]}),
            json!({"containers": []}),
            json!({"containers": [{"name": "a"}, {"name": "a"}]}),
            json!({"containers": [{"name": "a"}], "restartPolicy": "Sometimes"}),
            json!({"containers": [{"name": "a"}], "initContainers":
                [{"name": "b", "livenessProbe": {"httpGet": {"port": 1}}}]}),
            json!({"containers": [{"name": "a"}], "initContainers": [{"name": "b", "restartPolicy": "Never"}]}),
            json!({"containers": [{"name": "a", "lifecycle": {"preStop": {"tcpSocket": {"port": 1}}}}]}),
        ];
        for value in refused {
            assert!(parse(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn init_containers_come_first_and_sidecars_are_told_apart() {
        let pod = parse(json!({"containers": [{"name": "app"}],
            "initContainers": [{"name": "setup"}, {"name": "side", "restartPolicy": "Always",
                "lifecycle": {"preStop": {"sleep": {"seconds": 4}}}}]}))
        .unwrap();
        let roles: Vec<Role> = pod.containers.iter().map(|container| container.role).collect();
        assert_eq!(roles, [Role::Init, Role::Sidecar, Role::Regular]);
        assert_eq!(pod.containers[1].pre_stop, Some(Hook::Sleep(Duration::from_secs(4))));
    }
}
