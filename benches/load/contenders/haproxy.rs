//! HAProxy: one thread, connections to the backend kept and shared. `monitor-uri` is what it offers a kubelet.

use std::io;
use std::process::Command;

use crate::process::Process;

use super::{Place, ProbeTarget, Standing, find, free_address};

pub(super) fn start(place: &Place<'_>) -> io::Result<Standing> {
    let (traffic, grpc, probes) = (free_address()?, free_address()?, free_address()?);
    let (backend, connections) = (place.backend, place.connections_max);
    let text = format!(
        "global
  nbthread 1
  maxconn {connections}
  tune.pool-low-fd-ratio 100
  tune.pool-high-fd-ratio 100
defaults
  mode http
  backlog 4096
  timeout connect 5s
  timeout client 75s
  timeout server 300s
  timeout tunnel 300s
  http-reuse always
  option http-no-delay
frontend traffic
  bind {traffic}
  default_backend model
frontend grpc
  bind {grpc} proto h2
  default_backend model-h2
frontend probes
  bind {probes}
  monitor-uri /health
backend model
  server model {backend} pool-max-conn -1
backend model-h2
  server model {backend} proto h2 pool-max-conn -1
"
    );
    let file = place.write("haproxy.cfg", &text)?;
    let mut command = Command::new(find("haproxy").map_err(io::Error::other)?);
    command.arg("-db").arg("-f").arg(&file);
    let process = Process::start(command, place.core, &place.folder.join("haproxy.log"))?;
    let probes = vec![ProbeTarget { label: "haproxy, monitor-uri", address: probes, path: "/health", headers: "" }];
    Ok(Standing { process: Some(process), traffic, grpc, probes })
}
