//! What the tests' scenario texts have in common: a design with its pod, and how such a text is read.
//!
//! Worlds, faults and probes are the tests' own: they are what a test is about.

use super::scenario::Scenario;

/// Of a text that names no other file.
pub(super) fn scenario(text: &str) -> Scenario {
    Scenario::parse(text, &|_| Err("none".to_owned())).unwrap()
}

/// A design without a sidecar: more keys of its own, and more of its pod's one container.
pub(super) fn design(name: &str, keys: &str, container: &str) -> String {
    format!("[[designs]]\nname = \"{name}\"\n{keys}\n{}", model(container))
}

/// The model's container, after the other keys of its design.
pub(super) fn model(container: &str) -> String {
    format!("[[designs.pod.containers]]\nname = \"model\"\nports = [{{ containerPort = 80 }}]\n{container}\n")
}

/// A probe of the model's own port: its key, its path, its period in seconds and after how many failures it acts.
pub(super) fn probe(kind: &str, path: &str, period: u32, failures: u32) -> String {
    format!(
        "{kind}Probe = {{ httpGet = {{ path = \"{path}\", port = 80 }}, \
         periodSeconds = {period}, failureThreshold = {failures} }}\n"
    )
}
