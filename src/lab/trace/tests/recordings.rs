//! Over sixty seeds the simulator's spread encloses both recordings of each scenario, and is no wider than
//! the rules of the kubelet make it.

use super::*;

/// How far beyond the spread a recorded start may lie, in seconds.
const BEYOND: f64 = 1.5;
const SEEDS: std::ops::Range<u64> = 0..60;

fn scenario(name: &str) -> TraceFile {
    let path = format!("{}/tests/data/kubelet-traces/{name}.json", env!("CARGO_MANIFEST_DIR"));
    TraceFile::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Checks a scenario. `widths` holds, by container, the widest that the spread of each of its starts may be.
fn holds(name: &str, widths: &[(&str, &[f64])]) {
    let mut file = scenario(name);
    let recordings = std::mem::take(&mut file.recordings);
    assert_eq!(recordings.len(), 2, "{name}");
    for (number, recording) in recordings.iter().enumerate() {
        // Each recording has its own time of deletion.
        file.delete_at = recording.delete_at.map(std::time::Duration::from_secs_f64);
        let runs: Vec<Times> = SEEDS.map(|seed| simulated(&file, seed)).collect();
        let seen = recording.trace.iter().filter(|row| row.1 == "app").map(|row| (row.0.unwrap(), &row.2));
        encloses(&format!("{name}, recording {number}"), &runs, &times(seen));
        for (container, widths) in widths {
            is_no_wider(name, &runs, container, widths);
        }
    }
}

fn encloses(what: &str, runs: &[Times], recorded: &Times) {
    let keys = runs.iter().flat_map(BTreeMap::keys).chain(recorded.keys());
    let keys: std::collections::BTreeSet<&(String, String)> = keys.collect();
    for key in keys {
        let count = |times: &Times| times.get(key).map_or(0, Vec::len);
        let low = runs.iter().map(count).min().unwrap();
        let high = runs.iter().map(count).max().unwrap();
        let seen = count(recorded);
        assert!((low..=high).contains(&seen), "{what}: {key:?} {seen} times, simulated {low} to {high} times");
        let is_start_or_end = matches!(key.1.as_str(), "start" | "term" | "prestop-begin" | "prestop-end");
        for (index, at) in recorded.get(key).into_iter().flatten().enumerate().filter(|_| is_start_or_end) {
            let (low, high) = spread(runs, key, index);
            assert!(
                low - BEYOND <= *at && *at <= high + BEYOND,
                "{what}: {key:?} number {index} at {at}, simulated {low} to {high}"
            );
        }
    }
}

fn spread(runs: &[Times], key: &(String, String), index: usize) -> (f64, f64) {
    let at = || runs.iter().filter_map(|run| run.get(key)?.get(index).copied());
    (at().fold(f64::INFINITY, f64::min), at().fold(f64::NEG_INFINITY, f64::max))
}

fn is_no_wider(name: &str, runs: &[Times], container: &str, widths: &[f64]) {
    let key = (container.to_owned(), "start".to_owned());
    for (index, widest) in widths.iter().enumerate() {
        let (low, high) = spread(runs, &key, index);
        assert!(high - low <= *widest, "{name}: start {index} of {container} anywhere from {low} to {high}");
    }
}

/// One start, no restart.
const ONE: &[f64] = &[0.0];

#[test]
fn a_liveness_blip_below_the_threshold_restarts_nothing() {
    holds("a-liveness-blip", &[("app", ONE)]);
}

#[test]
fn probe_kills_back_off_only_when_a_life_is_shorter_than_the_wait() {
    // Up to a period of phase and a start before the first wait; a retry of up to 16 s with it. The fifth
    // kill comes about as late as its wait is long, so it may or may not wait.
    holds("c-liveness-forever", &[("app", &[0.0, 3.5, 3.5, 3.5, 16.0])]);
}

#[test]
fn a_slow_start_is_waited_for_and_readiness_follows_at_once() {
    holds("d-startup-slow", &[("app", ONE)]);
}

#[test]
fn a_start_that_never_ends_is_killed_and_backed_off() {
    holds("e-startup-never", &[("app", &[0.0, 3.5, 4.5, 5.5, 16.0])]);
}

#[test]
fn readiness_that_flaps_is_probed_once_more_at_the_flip() {
    holds("f-readiness-flap", &[("app", ONE)]);
}

#[test]
fn a_crash_waits_from_its_end_and_for_the_next_look() {
    holds("h-self-crash", &[("app", &[0.0, 2.5, 8.0, 14.0, 28.0, 36.0])]);
}

#[test]
fn an_app_that_listens_late_is_ready_late() {
    holds("i-late-listener", &[("app", ONE)]);
}

#[test]
fn a_sidecars_verdict_restarts_the_app_alone() {
    holds("m-sidecar-judges-app", &[("side", ONE), ("app", &[3.0, 5.0, 7.0])]);
}

#[test]
fn a_sidecar_in_its_crash_loop_takes_the_app_down() {
    holds("n-sidecar-crashes", &[("side", &[0.0, 2.5, 10.0, 17.0]), ("app", &[3.0, 5.0])]);
}

#[test]
fn a_deleted_pod_runs_its_hook_first_and_readiness_to_the_end() {
    holds("q-delete", &[("app", ONE)]);
}

#[test]
fn both_hooks_of_a_guarded_pod_begin_together_and_the_sidecar_ends_last() {
    holds("s-delete-guarded", &[("side", ONE), ("app", &[3.0])]);
}

#[test]
fn every_recording_in_the_folder_has_its_test() {
    let folder = format!("{}/tests/data/kubelet-traces", env!("CARGO_MANIFEST_DIR"));
    let here = include_str!("recordings.rs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.trim_end_matches(".json");
        assert!(here.contains(&format!("holds(\"{stem}\"")), "{name}");
    }
}
