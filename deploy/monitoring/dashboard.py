#!/usr/bin/env python3
"""Writes the Grafana dashboard: dashboard.py > dashboard.json. A test compares the two.

The dashboard is JSON of which most is layout; this is the part that a person should review.
"""
import json

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECT = 'namespace=~"$namespace",job=~"$job"'
# A release: where pods are found by annotations all have one job, else the job says it by itself.
RELEASE = ["job", "app_kubernetes_io_instance"]
WIDTH = 24

# Title, unit, width, and pairs of (expression, legend), where %s selects and %r is a release. One row of the dashboard a list.
ROWS = [
    ("Verdicts", [
        ("Ready pods", "percentunit", 4, "stat", [("probegate:ready:ratio{%s}", "%r")]),
        ("Gates", "none", 12, "state-timeline", [("probegate_gate_status{%s}", "{{instance}} {{gate}}")]),
        ("Checks that are not up", "none", 8, "table", [("probegate_check_up{%s} == 0", "{{instance}} {{check}} ({{type}})")]),
    ]),
    ("Traffic", [
        ("Requests by status", "reqps", 8, "timeseries", [("probegate:requests:rate5m{%s}", "%r {{code}}")]),
        ("Latency", "s", 8, "timeseries", [
            ("probegate:request_duration_seconds:p50_5m{%s}", "%r p50"),
            ("probegate:request_duration_seconds:p99_5m{%s}", "%r p99"),
            ("probegate:time_to_first_byte_seconds:p99_5m{%s}", "%r first byte p99"),
        ]),
        ("In flight, queued, held", "none", 8, "timeseries", [
            ("sum by (%r) (probegate_in_flight{%s})", "%r in flight"),
            ("sum by (%r) (probegate_queued{%s})", "%r queued"),
            ("sum by (%r) (probegate_held{%s})", "%r held"),
        ]),
        ("Errors", "percentunit", 8, "timeseries", [("probegate:errors:ratio5m{%s}", "%r")]),
        ("Refused, by reason", "reqps", 8, "timeseries", [("sum by (%r, reason) (rate(probegate_shed_total{%s}[5m]))", "%r {{reason}}")]),
        ("Client connections", "none", 8, "timeseries", [("sum by (instance) (probegate_connections{%s})", "{{instance}}")]),
    ]),
    ("Model", [
        ("The model server in one word", "none", 16, "state-timeline", [("probegate_model_state{%s} == 1", "{{instance}} {{state}}")]),
        ("Abandoned work may keep it silent for", "s", 8, "timeseries", [
            ("clamp_min(probegate_busy_until_timestamp_seconds{%s} - time(), 0)", "{{instance}}")]),
        ("Accuracy on labelled examples", "percentunit", 8, "timeseries", [("model_accuracy{%s}", "{{instance}}")]),
        ("Latency as the model server shows it", "ms", 8, "timeseries", [("model_latency_ms{%s}", "{{instance}}")]),
        ("Degraded", "none", 4, "timeseries", [("model_degraded{%s}", "{{instance}}")]),
        ("Answers by status", "reqps", 4, "timeseries", [("sum by (code) (rate(model_requests_total{%s}[5m]))", "{{code}}")]),
    ]),
    ("Evidence", [
        ("Work pending without progress", "s", 8, "timeseries", [("probegate_stall_seconds{%s}", "{{instance}}")]),
        ("Time that checks take, p99", "s", 8, "timeseries", [
            ("histogram_quantile(0.99, sum by (check, le) (rate(probegate_check_duration_seconds_bucket{%s}[5m])))", "{{check}}")]),
        ("Checks by result", "ops", 8, "timeseries", [
            ('sum by (check, result) (rate(probegate_check_results_total{%s,result!="pass"}[5m]))', "{{check}} {{result}}")]),
        ("Since the last pass", "s", 8, "timeseries", [("time() - probegate_check_last_success_timestamp_seconds{%s}", "{{instance}} {{check}}")]),
        ("Model servers that may get traffic", "none", 8, "timeseries", [("probegate_upstream_up{%s}", "{{instance}} {{address}}")]),
        ("Addresses put out of rotation by requests", "none", 8, "timeseries", [
            ("sum by (instance, address, reason) (increase(probegate_upstream_ejections_total{%s}[5m]))", "{{instance}} {{address}}: {{reason}}")]),
        ("Gates that turned", "none", 8, "timeseries", [
            ("sum by (%r, gate, to) (increase(probegate_gate_transitions_total{%s}[5m]))", "%r {{gate}} to {{to}}")]),
    ]),
    ("The sidecar itself", [
        ("Time to answer a probe, p99", "s", 8, "timeseries", [
            ("histogram_quantile(0.99, sum by (gate, le) (rate(probegate_probe_duration_seconds_bucket{%s}[5m])))", "{{gate}}")]),
        ("Probe answers that are not 200", "ops", 8, "timeseries", [
            ('sum by (instance, gate) (rate(probegate_probe_requests_total{%s,code!="200"}[5m]))', "{{instance}} {{gate}}")]),
        ("Restarts held back, doubt, drain, reload", "none", 8, "timeseries", [
            ("probegate_restart_withheld{%s}", "{{instance}} withheld: {{cause}}"),
            ("probegate_doubt{%s}", "{{instance}} doubts itself"),
            ("probegate_draining{%s}", "{{instance}} draining"),
            ("probegate_drain_cut_off{%s}", "{{instance}} drain cut off"),
            ("probegate_config_last_reload_successful{%s}", "{{instance}} configuration is the file's"),
        ]),
        ("Versions", "none", 8, "table", [("count by (version) (probegate_build_info{%s})", "{{version}}")]),
        ("The model server's own metrics", "none", 8, "timeseries", [
            ("probegate_upstream_metrics_up{%s}", "{{instance}} merged"),
            ("probegate_upstream_metrics_fetch_seconds{%s}", "{{instance}} fetched in"),
        ]),
    ]),
]


def panel(number, x, y, spec):
    title, unit, width, kind, queries = spec
    targets = [
        {"datasource": SOURCE, "expr": expression.replace("%s", SELECT).replace("%r", ", ".join(RELEASE)),
         "legendFormat": legend.replace("%r", " ".join(f"{{{{{label}}}}}" for label in RELEASE)), "refId": chr(65 + at),
         "instant": kind == "table", "range": kind != "table"}
        for at, (expression, legend) in enumerate(queries)
    ]
    field = {"unit": unit, "min": 0}
    if kind == "state-timeline":
        # A gate has three values; a word is a row of its own, there while it holds.
        gates = {"0": ("fail", "red"), "0.5": ("warn", "yellow"), "1": ("pass", "green")}
        steps = {"1": ("so", "blue")} if "{{state}}" in queries[0][1] else gates
        options = {value: {"text": text, "color": colour, "index": at} for at, (value, (text, colour)) in enumerate(steps.items())}
        field["mappings"] = [{"type": "value", "options": options}]
    if unit == "percentunit":
        field["max"] = 1
    return {"id": number, "type": kind, "title": title, "datasource": SOURCE, "targets": targets,
            "gridPos": {"x": x, "y": y, "w": width, "h": 8}, "fieldConfig": {"defaults": field, "overrides": []}}


def panels():
    made, y = [], 0
    for title, specs in ROWS:
        made.append({"id": len(made) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                     "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        x, y = 0, y + 1
        for spec in specs:
            if x + spec[2] > WIDTH:
                x, y = 0, y + 8
            made.append(panel(len(made) + 1, x, y, spec))
            x += spec[2]
        y += 8
    return made


def variable(name, query):
    return {"name": name, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name}, "refresh": 2,
            "includeAll": True, "allValue": ".*", "multi": True, "current": {"text": "All", "value": "$__all"}}


source = {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}}
variables = [source, variable("namespace", "label_values(probegate_build_info, namespace)"), variable("job", "label_values(probegate_build_info, job)")]
print(json.dumps({
    "title": "Probegate", "uid": "probegate", "tags": ["probegate", "model-serving"], "schemaVersion": 39, "version": 1,
    "editable": True, "timezone": "browser", "refresh": "30s", "time": {"from": "now-1h", "to": "now"},
    "templating": {"list": variables}, "panels": panels(),
}, indent=1))
