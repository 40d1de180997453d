//! `/metrics`: ours and the model server's on one page.

use super::model::Model;
use super::sidecar::Sidecar;
use super::wire;

/// Every name that is always there, as it stands on the text page.
const NAMES: [&str; 22] = [
    "probegate_gate_status{gate=\"ready\"}",
    "probegate_gate_transitions_total{",
    "probegate_check_up{",
    "probegate_check_duration_seconds_bucket{",
    "probegate_check_results_total{",
    "probegate_check_last_success_timestamp_seconds{",
    "probegate_probe_requests_total{",
    "probegate_probe_duration_seconds_bucket{",
    "probegate_requests_total{",
    "probegate_request_duration_seconds_bucket{",
    "probegate_time_to_first_byte_seconds_bucket{",
    "probegate_in_flight ",
    "probegate_queued ",
    "probegate_held ",
    "probegate_shed_total{",
    "probegate_upstream_up{",
    "probegate_stall_seconds ",
    "probegate_draining ",
    "probegate_config_last_reload_successful ",
    "probegate_build_info{",
    "probegate_model_state{state=\"ready\"}",
    "probegate_busy_until_timestamp_seconds ",
];

#[test]
fn one_page_has_every_name_of_ours_and_the_model_servers_own() {
    let model = Model::start();
    let sidecar = Sidecar::start(&format!("[upstream]\naddress = \"{}\"\n", model.address()));
    sidecar.until("/ready", 200);
    let image = format!("{{\"pixels\":[{}]}}", vec!["0"; 64].join(","));
    let predicted = wire::post(sidecar.traffic(), "/predict", &image);
    assert_eq!(predicted.status, 200, "{predicted:?}");
    let page = sidecar.probe("/metrics");
    assert_eq!(page.status, 200);
    for name in NAMES {
        assert!(page.body.lines().any(|line| line.starts_with(name)), "{name} is missing:\n{}", page.body);
    }
    for name in ["model_requests_total", "model_latency_ms", "model_accuracy", "model_degraded"] {
        let types = page.body.lines().filter(|line| line.starts_with(&format!("# TYPE {name} "))).count();
        assert_eq!(types, 1, "{name} is there once:\n{}", page.body);
    }
    let own = wire::get(model.address(), "/metrics").body;
    let start = own.lines().find(|line| line.starts_with("process_start_time_seconds ")).unwrap();
    assert!(page.body.lines().any(|line| line == start), "{start} is missing:\n{}", page.body);
    let open = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let open = wire::ask(sidecar.probes(), "GET", "/metrics", open, "").unwrap();
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text"), "{open:?}");
    assert!(open.body.ends_with("# EOF\n") && open.body.matches("# EOF").count() == 1);
}

#[test]
fn a_model_server_that_is_gone_costs_its_own_part_and_nothing_of_ours() {
    let model = Model::absent();
    let sidecar = Sidecar::start(&format!("[upstream]\naddress = \"{}\"\n", model.address()));
    let page = sidecar.probe("/metrics");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("probegate_gate_status{gate=\"ready\"} 0"), "{}", page.body);
}
