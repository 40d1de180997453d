//! Every shipped experiment keeps what it promises, and the pages of text show what it prints.
//!
//! `PROBEGATE_WRITE_PAGES=1 cargo test --lib lab::shipped` writes the figures into the pages instead.

use std::path::PathBuf;

use super::*;
use crate::lab::report::{self, Report};
use crate::lab::scenario::Scenario;

/// As many as `lab run` takes by itself.
const SEEDS: u64 = 5;
/// What the command prints stands between these two lines.
const BEGINS: &str = "<!-- probegate lab run ";
const ENDS: &str = "<!-- end -->";

/// Runs the experiments of one group, and compares its page with what they print.
fn holds(index: usize) {
    let group = &GROUPS[index];
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(group.page);
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", group.page));
    let mut renewed = page.clone();
    for shipped in group.scenarios {
        let scenario = Scenario::parse(shipped.text, &read).unwrap_or_else(|error| panic!("{}: {error}", shipped.name));
        assert!(!scenario.expectations.is_empty(), "{} expects nothing", shipped.name);
        assert!(!scenario.question.is_empty() && !scenario.prediction.is_empty(), "{}", shipped.name);
        let report = report::experiment(&scenario, 1, SEEDS, &mut |_| ());
        for expected in &report.expectations {
            assert!(expected.holds, "{}: {} (seen {:?})", shipped.name, expected.line, expected.seen);
        }
        renewed = with_figures(&renewed, shipped.name, &report);
    }
    if std::env::var_os("PROBEGATE_WRITE_PAGES").is_some() {
        std::fs::write(&path, renewed).unwrap();
        return;
    }
    for (shown, printed) in page.lines().zip(renewed.lines()) {
        assert_eq!(shown, printed, "{}: see the head of {}", group.page, file!());
    }
    assert_eq!(page.lines().count(), renewed.lines().count(), "{}", group.page);
}

/// The page with what the command prints in place of what it shows.
fn with_figures(page: &str, name: &str, report: &Report) -> String {
    let begins = format!("{BEGINS}{name} --markdown ");
    let (before, rest) = page.split_once(&begins).unwrap_or_else(|| panic!("no page shows `{begins}`"));
    let (columns, rest) = rest.split_once(" -->\n").unwrap();
    let (_, after) = rest.split_once(ENDS).unwrap_or_else(|| panic!("{name}: no {ENDS}"));
    let printed = report.markdown(&report::columns(columns).unwrap());
    format!("{before}{begins}{columns} -->\n\n{printed}\n{ENDS}{after}")
}

#[test]
fn exercise_5() {
    holds(0);
}

#[test]
fn a_bad_release() {
    holds(1);
}

#[test]
fn cascading_failure() {
    holds(2);
}

#[test]
fn crash_loop_back_off() {
    holds(3);
}

#[test]
fn a_shared_dependency() {
    holds(4);
}

#[test]
fn incidents() {
    holds(5);
}

#[test]
fn busy_and_slow() {
    holds(6);
}

#[test]
fn the_sidecar_and_the_end_of_a_pod() {
    holds(7);
}

#[test]
fn every_group_has_its_test_and_every_name_is_there_once() {
    assert_eq!(GROUPS.len(), 8, "a new group wants a test above");
    let mut names: Vec<&str> = all().map(|shipped| shipped.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all().count());
}

#[test]
fn every_scenario_file_of_the_folder_is_shipped() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/lab");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(Shipped::find(&name).is_some(), "{name} is in no group");
        }
    }
}
