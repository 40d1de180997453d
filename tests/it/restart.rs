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

#[test]
fn the_whole_report_of_a_hang_survives_the_sidecars_own_restart_and_status_shows_it() {
    let model = Model::start();
    let directory = tempfile::tempdir().unwrap();
    let ring = directory.path().join("ring.jsonl");
    let config = format!(
        "[upstream]\naddress = \"{}\"\n[health]\nrequire = [\"progress\"]\n[report]\nring = {:?}\n\
         [checks.progress]\nprogress = {{ stall_after = \"1s\" }}\n",
        model.address(),
        ring.display().to_string()
    );
    let mut first = Sidecar::start(&config);
    first.until("/ready", 200);
    let digit = super::wire::get(model.address(), "/digits/0").body;
    assert_eq!(super::wire::post(model.address(), "/hang", "").status, 200);
    let mut client = super::wire::Line::open(first.traffic()).unwrap();
    let length = digit.len();
    client.send(&format!("POST /predict HTTP/1.1\r\nHost: model\r\nContent-Length: {length}\r\n\r\n{digit}")).unwrap();
    first.until("/health", 503);
    let told = super::until::until("the report is there", || {
        Some(first.report()["hang"].clone()).filter(serde_json::Value::is_object)
    });
    assert_eq!((&told["check"], &told["before_restart"]), (&"progress".into(), &false.into()), "{told}");
    super::until::until("the ring holds it", || {
        std::fs::read_to_string(&ring).ok().filter(|text| text.contains("\"hang\":"))
    });
    first.signal("KILL");
    first.ended();

    let second = Sidecar::start(&config);
    let kept = second.report()["hang"].clone();
    assert_eq!((&kept["hang"], &kept["at"]), (&told["hang"], &told["at"]));
    assert_eq!(kept["before_restart"], true);
    let shown = super::sidecar::probegate_says(&["status", "--admin", &second.admin().to_string()]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for part in ["Last hang", "found by progress", "before the restart", "request: ", "nothing heard"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
}
