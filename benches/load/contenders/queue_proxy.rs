//! Knative's queue-proxy as a cluster runs it: no concurrency limit, request metrics for Prometheus on (its default).
//!
//! It is configured by its environment, has fixed ports beside the two that can be chosen, and answers the kubelet
//! on its traffic port, told by headers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Process;

use super::{Place, ProbeTarget, Standing, find, free_address};

/// Where `scripts/setup bench` puts it, followed by its version.
const INSTALLED: &str = "target/load/tools";
const NAME: &str = "queue-proxy-";

pub(super) fn binary() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(INSTALLED);
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NAME));
    let installed =
        fs::read_dir(folder).ok().and_then(|entries| entries.filter_map(|e| Some(e.ok()?.path())).find(named));
    installed.map_or_else(|| find("queue-proxy"), Ok)
}

/// It cannot say it itself: its file is named after it.
pub(super) fn version() -> Option<String> {
    let file = binary().ok()?;
    Some(file.file_name()?.to_string_lossy().replacen(NAME, "Knative queue-proxy ", 1))
}

pub(super) fn start(place: &Place<'_>) -> io::Result<Standing> {
    let traffic = free_address()?;
    let settings = settings(traffic.port(), place.backend.port());
    let text: String = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    place.write("queue-proxy.env", &text)?;
    let mut command = Command::new(binary().map_err(io::Error::other)?);
    command.env_clear().envs(settings);
    let process = Process::start(command, place.core, &place.folder.join("queue-proxy.log"))?;
    let probes = vec![ProbeTarget {
        label: "queue-proxy, in its server",
        address: traffic,
        path: "/",
        headers: "k-network-probe: queue\r\n",
    }];
    Ok(Standing { process: Some(process), traffic, grpc: traffic, probes })
}

fn settings(traffic: u16, backend: u16) -> Vec<(&'static str, String)> {
    let fixed = [
        ("CONTAINER_CONCURRENCY", "0"),
        ("REVISION_TIMEOUT_SECONDS", "600"),
        ("SERVING_REQUEST_METRICS_BACKEND", "prometheus"),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", "warn"),
        ("SERVING_NAMESPACE", "bench"),
        ("SERVING_SERVICE", "model"),
        ("SERVING_CONFIGURATION", "model"),
        ("SERVING_REVISION", "model-00001"),
        ("SERVING_POD", "model-0"),
        ("SERVING_POD_IP", "127.0.0.1"),
        ("QUEUE_SERVING_TLS_PORT", "8112"),
        ("METRICS_DOMAIN", "knative.dev/serving"),
    ];
    let mut all: Vec<(&str, String)> = fixed.map(|(name, value)| (name, value.to_owned())).into();
    all.push(("QUEUE_SERVING_PORT", traffic.to_string()));
    all.push(("USER_PORT", backend.to_string()));
    all
}
