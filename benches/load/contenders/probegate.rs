//! Probegate with everything on: 20 checks at 1 s of the kinds that pods have, metrics of the model server merged,
//! limits set, one traffic worker. The checks ask the backend, as they would ask a model server.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use crate::process::Process;

use super::{Place, ProbeTarget, Standing, free_address};

/// Names the Probegate to measure; by default it is the one of this build.
const BINARY: &str = "PROBEGATE_LOAD_BINARY";

/// The release binary that cargo built for this bench, unless another is named.
pub(super) fn binary() -> Result<PathBuf, String> {
    let path = std::env::var_os(BINARY).map_or_else(|| env!("CARGO_BIN_EXE_probegate").into(), PathBuf::from);
    if path.is_file() { Ok(path) } else { Err(format!("no binary at {}", path.display())) }
}

pub(super) fn start(place: &Place<'_>) -> io::Result<Standing> {
    let (traffic, probes, admin) = (free_address()?, free_address()?, free_address()?);
    let (backend, connections) = (place.backend, place.connections_max);
    let mut text = format!(
        r#"[upstream]
address = "{backend}"
metrics = "/metrics"

[listen]
traffic = "{traffic}"
probes = "{probes}"
admin = "{admin}"

[traffic]
workers = 1
max_in_flight = {connections}
max_connections = {connections}
first_byte_timeout = "60s"
client_idle = "75s"

[drain]
propagation = "0s"
max = "1s"

[log]
format = "json"
level = "info"

[ready]
require = ["upstream", "answers-0"]
degrade = ["memory", "disk", "queue", "sidecar"]
"#
    );
    for at in 0..10 {
        let check = format!("http = {{ url = \"http://{backend}/health\", json = {{ \"/status\" = \"ok\" }} }}");
        add(&mut text, &format!("answers-{at}"), &check);
    }
    for at in 0..4 {
        add(&mut text, &format!("port-{at}"), &format!("tcp = \"{backend}\""));
    }
    add(&mut text, "memory", "memory = \"95%\"");
    add(&mut text, "disk", "disk = { path = \"/\", min_free = \"1%\" }");
    add(&mut text, "queue", "metric = { name = \"backend_queue\", max = 50 }");
    add(&mut text, "sidecar", "process = \"probegate\"");
    // With `upstream` and `alive` from the preset these are twenty.
    text.push_str("\n[checks.upstream]\ninterval = \"1s\"\ntimeout = \"500ms\"\n\n[checks.alive]\ninterval = \"1s\"\ntimeout = \"500ms\"\n");
    let file = place.write("probegate.toml", &text)?;
    let mut command = Command::new(binary().map_err(io::Error::other)?);
    // It would be taken for a key of the configuration.
    command.env_remove(BINARY);
    command.arg("run").arg("-c").arg(&file);
    let process = Process::start(command, place.core, &place.folder.join("probegate.log"))?;
    let probes = vec![ProbeTarget { label: "probegate, probe thread", address: probes, path: "/health", headers: "" }];
    Ok(Standing { process: Some(process), traffic, grpc: traffic, probes })
}

fn add(text: &mut String, name: &str, kind: &str) {
    // Writing to a string does not fail.
    let _ = write!(text, "\n[checks.{name}]\n{kind}\ninterval = \"1s\"\ntimeout = \"500ms\"\n");
}
