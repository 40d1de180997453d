//! The sidecar's own restart: what happened before it is not forgotten.

use super::model::Model;
use super::sidecar::Sidecar;

#[test]
fn transitions_survive_the_sidecars_own_restart_and_are_marked() {
    let model = Model::start();
    let directory = tempfile::tempdir().unwrap();
    let ring = directory.path().join("ring.jsonl");
    let config =
        format!("[upstream]\naddress = \"{}\"\n[report]\nring = {:?}\n", model.address(), ring.display().to_string());
    let mut first = Sidecar::start(&config);
    first.until("/ready", 200);
    // Killed, not asked: what is on disk must already be there.
    super::until::until("the ring is written", || {
        std::fs::read_to_string(&ring).ok().filter(|text| text.contains(r#""name":"ready""#))
    });
    first.signal("KILL");
    first.ended();
    let second = Sidecar::start(&config);
    second.until("/ready", 200);
    let history = second.report()["history"].as_array().unwrap().clone();
    let before: Vec<_> = history.iter().filter(|change| change["before_restart"] == true).collect();
    assert!(before.iter().any(|change| change["name"] == "ready" && change["to"] == "pass"), "{history:?}");
    assert!(history.iter().any(|change| change["before_restart"] == false), "{history:?}");
}

#[test]
fn a_ring_that_cannot_be_written_is_told_once_and_costs_nothing_else() {
    let model = Model::start();
    let config = format!("[upstream]\naddress = \"{}\"\n[report]\nring = \"/proc/no/ring\"\n", model.address());
    let sidecar = Sidecar::start(&config);
    sidecar.until("/ready", 200);
    let told = || sidecar.log_text().matches("transitions are not kept").count();
    super::until::until("it is told", || (told() == 1).then_some(()));
}
