//! A recording of the real sidecar before another configuration.

use serde_json::Value;

use super::model::Model;
use super::sidecar::{Sidecar, probegate_says};
use super::until::until;

fn config(model: &Model, failures: u32) -> String {
    format!(
        "[upstream]\naddress = \"{}\"\n[ready]\nrequire = [\"lid\"]\n[checks.lid]\nexec = [\"test\", \"-e\", \"{{}}\"]\n\
         interval = \"200ms\"\ntimeout = \"150ms\"\nfailure_threshold = {failures}\n",
        model.address()
    )
}

fn replay(recording: &str, config: &str, more: &[&str]) -> (Value, Option<i32>) {
    let output = probegate_says(&[&["lab", "replay", recording, "-c", config, "--json", "-"], more].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    });
    (json, output.status.code())
}

/// Name, to, reason of every gate's turn, as the running sidecar told them.
fn reported(history: &Value) -> Vec<[String; 3]> {
    let of = |change: &Value| ["name", "to", "reason"].map(|key| change[key].as_str().unwrap_or_default().to_owned());
    let all = history.as_array().expect("a history").iter();
    all.filter(|change| change["what"] == "gate").map(of).collect()
}

fn replayed(json: &Value, side: &str) -> Vec<[String; 3]> {
    let rows = json["transitions"].as_array().expect("transitions").iter();
    rows.filter(|row| !row[side].is_null())
        .map(|row| [&row["gate"], &row[side]["to"], &row[side]["reason"]].map(|text| text.as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn a_recording_replays_to_what_happened_and_shows_what_another_design_would_have_done() {
    let model = Model::start();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (recording, original, patient) = (path("recording"), path("original.toml"), path("patient.toml"));
    let lid = path("lid");
    std::fs::write(&lid, "").unwrap();
    let [first, second] = [3, 60].map(|failures| config(&model, failures).replace("{}", &lid));
    std::fs::write(&original, first).unwrap();
    std::fs::write(&patient, second + "[checks.cache]\ntcp = \"127.0.0.1:1\"\n").unwrap();

    let mut sidecar = Sidecar::start_on(original.as_ref(), |command| command.args(["--record", &recording]));
    sidecar.until("/ready", 200);
    std::fs::remove_file(&lid).unwrap();
    sidecar.until("/ready", 503);
    std::fs::write(&lid, "").unwrap();
    sidecar.until("/ready", 200);
    let told = reported(&sidecar.report()["history"]);
    until("the turn back is on disk", || {
        let text = std::fs::read_to_string(&recording).ok()?;
        (text.matches("told\tgate\tready").count() >= 3).then_some(())
    });
    sidecar.signal("KILL");
    sidecar.ended();

    let (same, code) = replay(&recording, &original, &[]);
    assert_eq!((&same["same_design"], &same["reproduces"], code), (&true.into(), &true.into(), Some(0)), "{same:#}");
    assert_eq!(replayed(&same, "recorded"), replayed(&same, "design"));
    let mut told_here = told.clone();
    let mut replayed_here = replayed(&same, "design");
    told_here.sort();
    replayed_here.sort();
    assert_eq!(told_here, replayed_here);
    assert!(same["transitions"].as_array().unwrap().iter().all(|row| row["recorded"] == row["design"]), "{same:#}");

    let (other, code) = replay(&recording, &patient, &["--against", &original]);
    assert_eq!((&other["same_design"], code), (&false.into(), Some(0)));
    assert_eq!(replayed(&other, "recorded"), replayed(&same, "recorded"));
    let failures = |side: &str| other["gates"][1][side]["failures"].clone();
    assert_eq!((failures("recorded"), failures("design")), (1.into(), 0.into()), "{other:#}");
    assert_eq!(other["without_evidence"][0]["check"], "cache");
    assert_eq!(other["without_evidence"][0]["state"], "pending");
}

#[test]
fn what_is_no_recording_is_refused_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recording");
    std::fs::write(&file, "probegate-trace 1\nseed\tnine\n").unwrap();
    let output = probegate_says(&["lab", "replay", file.to_str().unwrap(), "-c", "/nowhere.toml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("line 2") && said.contains("nine"), "{said}");
}
