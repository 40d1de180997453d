//! What `deploy/` looks at is what the binary really exports: the dashboard's panels, the alerts, the rollbacks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::Regex;
use serde_json::Value;

use super::model::Model;
use super::sidecar::Sidecar;
use super::wire;

const CHART: &str = "deploy/helm/probegate";
/// Labels that Prometheus adds by itself or from the pod, or a rule of ours does.
const ADDED: [&str; 7] = ["instance", "job", "namespace", "pod", "app_kubernetes_io_instance", "le", "alertname"];

/// What a page holds: for each series the labels that it has somewhere.
type Exported = BTreeMap<String, BTreeSet<String>>;

/// A page of a sidecar that has served a request, refused one and judged a golden case.
fn exported() -> Exported {
    let model = Model::start();
    let directory = tempfile::tempdir().unwrap();
    let cases = fs::read_to_string(Path::new(CHART).join("files/golden-digits.json")).unwrap();
    fs::write(directory.path().join("golden.json"), cases).unwrap();
    let config = directory.path().join("probegate.toml");
    let answers = "[checks.answers]\ngolden = { cases = \"golden.json\", min_accuracy = 0.8 }\ninterval = \"10s\"\n";
    let upstream = format!("[upstream]\naddress = \"{}\"\n", model.address());
    fs::write(&config, format!("{upstream}[ready]\nrequire = [\"answers\"]\n{answers}timeout = \"5s\"\n")).unwrap();
    let sidecar = Sidecar::start_on(&config, |command| command);
    sidecar.until("/ready", 200);
    assert_eq!(wire::get(sidecar.traffic(), "/digits/7").status, 200);
    let mut exported = read(&sidecar.probe("/metrics").body);
    for (name, labels) in exported_by_several() {
        exported.entry(name).or_default().extend(labels);
    }
    exported
}

/// What only a sidecar with several addresses exports.
fn exported_by_several() -> Exported {
    let models = [Model::start(), Model::start()];
    let addresses = models.each_ref().map(|model| format!("\"{}\"", model.address())).join(", ");
    let sidecar = Sidecar::start(&format!("[upstream]\naddresses = [{addresses}]\n"));
    sidecar.until("/ready", 200);
    read(&sidecar.probe("/metrics").body)
}

fn read(page: &str) -> Exported {
    let label = Regex::new(r#"([a-z_]+)="#).unwrap();
    let mut exported = Exported::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
        let found = label.captures_iter(labels).map(|found| found[1].to_owned());
        exported.entry(name.to_owned()).or_default().extend(found);
    }
    exported
}

/// The names that our recording rules make.
fn recorded() -> BTreeSet<String> {
    let rules = fs::read_to_string(Path::new(CHART).join("files/recording-rules.yaml")).unwrap();
    let record = Regex::new(r"record: (\S+)").unwrap();
    record.captures_iter(&rules).map(|found| found[1].to_owned()).collect()
}

/// Metrics of ours that an expression names, each with the labels it selects by.
fn named(expression: &str) -> Vec<(String, Vec<String>)> {
    let name = Regex::new(r"\b((?:probegate|model)[_:][a-z0-9_:]+)(?:\{([^}]*)\})?").unwrap();
    let label = Regex::new(r#"([a-z_]+)\s*(?:=~|!~|!=|=)\s*""#).unwrap();
    let labels = |text: &str| label.captures_iter(text).map(|found| found[1].to_owned()).collect();
    name.captures_iter(expression).map(|c| (c[1].to_owned(), c.get(2).map_or(vec![], |m| labels(m.as_str())))).collect()
}

/// Labels that an expression sums up by.
fn grouped(expression: &str) -> BTreeSet<String> {
    let by = Regex::new(r"\b(?:by|without|ignoring|on) \(([^)]*)\)").unwrap();
    by.captures_iter(expression)
        .flat_map(|c| c[1].split(',').map(|l| l.trim().to_owned()).collect::<Vec<_>>())
        .collect()
}

fn assert_answered(what: &str, expression: &str, exported: &Exported, recorded: &BTreeSet<String>) {
    let names = named(expression);
    assert!(!names.is_empty(), "{what} asks for none of our metrics: {expression}");
    let mut known: BTreeSet<String> = ADDED.iter().map(|label| (*label).to_owned()).collect();
    for (name, _) in &names {
        match exported.get(name) {
            Some(labels) => known.extend(labels.iter().cloned()),
            None => assert!(recorded.contains(name), "{what} asks for {name}, which nobody exports: {expression}"),
        }
    }
    // What is recorded keeps the labels that its own rule names, which this test reads as well.
    if names.iter().any(|(name, _)| recorded.contains(name)) {
        known.extend(["code", "reason"].map(str::to_owned));
    }
    for label in names.iter().flat_map(|(_, labels)| labels).chain(&grouped(expression)) {
        assert!(known.contains(label), "{what} asks for the label {label}, which no series has: {expression}");
    }
}

/// Every `"expr"` of a dashboard, with its panel's title.
fn panels(dashboard: &Value) -> Vec<(String, Vec<String>)> {
    let all = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    all.map(|panel| {
        let targets = panel["targets"].as_array().unwrap();
        let expressions = targets.iter().map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
        (panel["title"].as_str().unwrap().to_owned(), expressions)
    })
    .collect()
}

/// The expressions of a rule file: what follows `expr:`, folded lines included.
fn rules(file: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(CHART).join("files").join(file)).unwrap();
    let mut found: Vec<String> = Vec::new();
    let mut folded = None;
    for line in text.lines() {
        let depth = line.len() - line.trim_start().len();
        match line.trim_start().strip_prefix("expr:").map(str::trim) {
            Some(">-") => {
                folded = Some(depth);
                found.push(String::new());
            }
            Some(whole) => found.push(whole.to_owned()),
            None if folded.is_some_and(|outer| depth > outer) => {
                let last = found.last_mut().unwrap();
                last.push(' ');
                last.push_str(line.trim());
            }
            None => folded = None,
        }
    }
    found
}

#[test]
fn every_panel_and_every_rule_asks_for_metrics_that_the_binary_exports() {
    let (exported, recorded) = (exported(), recorded());
    let dashboard = fs::read_to_string(Path::new(CHART).join("files/dashboard.json")).unwrap();
    let panels = panels(&serde_json::from_str(&dashboard).unwrap());
    assert!(panels.len() >= 20, "{}", panels.len());
    for (title, expressions) in &panels {
        assert!(!expressions.is_empty(), "the panel {title} shows nothing");
        for expression in expressions {
            assert_answered(&format!("the panel {title:?}"), expression, &exported, &recorded);
        }
    }
    for file in ["alert-rules.yaml", "recording-rules.yaml"] {
        let rules = rules(file);
        assert!(rules.len() >= 7, "{file}: {rules:?}");
        for expression in &rules {
            assert_answered(file, expression, &exported, &recorded);
        }
    }
    for file in ["argo-rollouts.yaml", "flagger.yaml"] {
        let text = fs::read_to_string(Path::new("deploy/rollback").join(file)).unwrap();
        let names = named(&text).into_iter().filter(|(_, labels)| !labels.is_empty());
        for (name, _) in names {
            assert!(exported.contains_key(&name), "{file} asks for {name}, which nobody exports");
        }
    }
}

#[test]
fn an_expression_that_asks_for_what_is_not_there_is_noticed() {
    let exported = read("probegate_in_flight 1\nprobegate_requests_total{code=\"200\",reason=\"upstream\"} 2\n");
    let wrong = ["probegate_inflight", "probegate_in_flight{code=\"200\"}", "sum by (check) (probegate_in_flight)"];
    for expression in wrong {
        let said = std::panic::catch_unwind(|| assert_answered("a", expression, &exported, &BTreeSet::new()));
        assert!(said.is_err(), "{expression}");
    }
    assert_answered(
        "a",
        "sum by (job, code) (probegate_requests_total{reason!=\"upstream\"})",
        &exported,
        &BTreeSet::new(),
    );
}
