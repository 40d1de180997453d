//! Envoy: one worker, no access log, circuit breakers out of the way. It offers a kubelet two answers: a direct
//! response from the worker, and `/ready` of the admin listener, which has the main thread to itself.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::process::Process;

use super::{Place, ProbeTarget, Standing, find, free_address};

/// Where `scripts/setup bench` puts it: the wheel's program, without the wheel's launcher.
const INSTALLED: &str = "target/load/tools/envoy";

pub(super) fn binary() -> Result<PathBuf, String> {
    let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(INSTALLED);
    if installed.is_file() { Ok(installed) } else { find("envoy") }
}

pub(super) fn start(place: &Place<'_>) -> io::Result<Standing> {
    let (traffic, probes, admin) = (free_address()?, free_address()?, free_address()?);
    let text = configuration(traffic, probes, admin, place.backend);
    let file = place.write("envoy.yaml", &text)?;
    let mut command = Command::new(binary().map_err(io::Error::other)?);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c"]).arg(&file);
    let process = Process::start(command, place.core, &place.folder.join("envoy.log"))?;
    let probes = vec![
        ProbeTarget { label: "envoy, in the worker", address: probes, path: "/health", headers: "" },
        ProbeTarget { label: "envoy, admin thread", address: admin, path: "/ready", headers: "" },
    ];
    Ok(Standing { process: Some(process), traffic, grpc: traffic, probes })
}

fn configuration(traffic: SocketAddr, probes: SocketAddr, admin: SocketAddr, backend: SocketAddr) -> String {
    let (traffic, probes, admin, backend) = (socket(traffic), socket(probes), socket(admin), socket(backend));
    format!(
        r#"admin: {{ address: {admin} }}
static_resources:
  listeners:
  - name: traffic
    address: {traffic}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: traffic
          codec_type: AUTO
          generate_request_id: false
          upgrade_configs: [{{ upgrade_type: websocket }}]
          route_config:
            virtual_hosts:
            - name: model
              domains: ["*"]
              routes:
              - match: {{ prefix: "/", grpc: {{}} }}
                route: {{ cluster: model-h2, timeout: 0s }}
              - match: {{ prefix: "/" }}
                route: {{ cluster: model, timeout: 0s }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true }}
  - name: probes
    address: {probes}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: probes
          generate_request_id: false
          route_config:
            virtual_hosts:
            - name: probes
              domains: ["*"]
              routes: [{{ match: {{ prefix: "/" }}, direct_response: {{ status: 200, body: {{ inline_string: '{{"status":"pass"}}' }} }} }}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: model
    connect_timeout: 5s
    circuit_breakers: {{ thresholds: [{{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }}] }}
    load_assignment: {{ cluster_name: model, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {backend} }} }}] }}] }}
  - name: model-h2
    connect_timeout: 5s
    circuit_breakers: {{ thresholds: [{{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }}] }}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment: {{ cluster_name: model-h2, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {backend} }} }}] }}] }}
"#
    )
}

fn socket(address: SocketAddr) -> String {
    format!("{{ socket_address: {{ address: {}, port_value: {} }} }}", address.ip(), address.port())
}
