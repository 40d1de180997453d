#!/usr/bin/env python3
"""An nginx configuration from an Ingress: a stand-in for a controller on a cluster that has none.

    kubectl get ingress NAME -o json | ingress.py --listen ADDRESS --to SERVICE=ADDRESS:PORT >nginx.conf

Takes host, Prefix and Exact paths, and the annotations limit-rps, proxy-body-size and proxy-read-timeout of ingress-nginx. No TLS.
"""
import argparse, json, sys

PREFIX = "nginx.ingress.kubernetes.io/"
BURST = 5                 # ingress-nginx's default multiplier


def location(path, notes, upstreams):
    service = path["backend"]["service"]["name"]
    words = {"Exact": f"= {path['path']}", "Prefix": path["path"]}[path["pathType"]]
    return f"""
        location {words} {{
            limit_req zone=clients burst={int(notes.get(PREFIX + 'limit-rps', 1000)) * BURST} nodelay;
            limit_req_status 503;
            proxy_pass http://{upstreams[service]};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Connection "";
            proxy_read_timeout {notes.get(PREFIX + 'proxy-read-timeout', 60)}s;
            proxy_next_upstream off;
        }}"""


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--listen", required=True)
    ask.add_argument("--to", action="append", default=[])
    options = ask.parse_args()
    ingress = json.load(sys.stdin)
    notes = ingress["metadata"].get("annotations", {})
    upstreams = dict(word.split("=", 1) for word in options.to)
    servers = "".join(
        f"""
    server {{
        listen {options.listen};
        server_name {rule['host']};
        client_max_body_size {notes.get(PREFIX + 'proxy-body-size', '1m')};{''.join(location(path, notes, upstreams) for path in rule['http']['paths'])}
    }}"""
        for rule in ingress["spec"]["rules"]
    )
    print(
        f"""daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_buffer_size 1m;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    limit_req_zone $binary_remote_addr zone=clients:1m rate={int(notes.get(PREFIX + 'limit-rps', 1000))}r/s;
    server {{ listen {options.listen} default_server; return 404; }}{servers}
}}"""
    )


if __name__ == "__main__":
    main()
