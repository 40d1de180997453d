//! nginx: one worker, kept upstream connections, buffers large enough that nothing goes to disk.
//!
//! gRPC has a port of its own: nginx of this age does not tell h2c from HTTP/1.1 on one. The probe port is a server
//! that answers by itself, in the same worker; nginx has no other thread to answer from.

use std::io;
use std::process::Command;

use crate::process::Process;

use super::{Place, ProbeTarget, Standing, find, free_address};

pub(super) fn start(place: &Place<'_>, keepalive: usize) -> io::Result<Standing> {
    let (traffic, grpc, probes) = (free_address()?, free_address()?, free_address()?);
    let folder = place.folder.display();
    let (backend, descriptors) = (place.backend, place.connections_max * 2);
    let text = format!(
        r#"daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error.log warn;
events {{ worker_connections {descriptors}; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_requests 1000000000;
  keepalive_timeout 75s;
  client_body_buffer_size 128k;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream model {{ server {backend}; keepalive {keepalive}; keepalive_requests 1000000000; }}
  upstream model-h2 {{ server {backend}; keepalive {keepalive}; keepalive_requests 1000000000; }}
  server {{
    listen {traffic} backlog=4096;
    location / {{
      proxy_pass http://model;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Upgrade $http_upgrade;
      proxy_buffers 16 8k;
      proxy_max_temp_file_size 0;
    }}
    location ~ tokens$ {{
      proxy_pass http://model;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Connection '';
      proxy_buffering off;
    }}
  }}
  server {{
    listen {grpc} http2 backlog=4096;
    http2_max_requests 1000000000;
    location / {{ grpc_pass grpc://model-h2; }}
  }}
  server {{
    listen {probes} backlog=4096;
    location = /health {{ return 200 '{{"status":"pass"}}'; }}
  }}
}}
"#
    );
    let file = place.write("nginx.conf", &text)?;
    let mut command = Command::new(find("nginx").map_err(io::Error::other)?);
    // Its compiled-in log opens before the file is read; `-e` keeps it in our folder.
    command.arg("-p").arg(place.folder).arg("-c").arg(&file).arg("-e").arg(place.folder.join("nginx.error.log"));
    let process = Process::start(command, place.core, &place.folder.join("nginx.log"))?;
    let probes = vec![ProbeTarget { label: "nginx, in the worker", address: probes, path: "/health", headers: "" }];
    Ok(Standing { process: Some(process), traffic, grpc, probes })
}
