//! What a report tells of a small world: causes, reasons, time lines and tables.

use super::*;
use crate::lab::fixture;

/// Two pods on one API that is away for two minutes; readiness asks for it in one design alone.
fn report(seeds: u64) -> Report {
    let text = r#"
title = "t"
question = "what now?"
duration = "8m"
pods = 2
expect = ["asks: pods_lost = 2", "does-not: failed = 0"]
[server]
load = "5s"
concurrency = 4
queue = 16
service_time = "20ms"
asks = [{ dependency = "api", timeout = "50ms" }]
[clients]
rate = 10.0
from = "30s"
timeout = "1s"
[dependencies.api]
latency = "5ms"
[[faults]]
at = "2m"
for = "2m"
dependency = "api"
is = "silent"
[[faults]]
at = "6m"
pod = 1
server = "hang"
"#;
    let ready = fixture::probe("readiness", "/ready", 5, 2);
    let asks = "says = \"readiness asks the API\"\nendpoints = { \"/ready\" = [\"api\"] }";
    let designs =
        fixture::design("asks", asks, &ready) + &fixture::design("does-not", "says = \"nobody asks for anything\"", "");
    let scenario = fixture::scenario(&(text.to_owned() + &designs));
    experiment(&scenario, 1, seeds, &mut |_| ())
}

#[test]
fn a_row_says_why_in_the_words_of_whoever_decided() {
    let report = report(2);
    let asks = &report.designs[0];
    let all_lost = "all 2 pods were out at one time: /ready says that api does not answer";
    assert!(asks.why.iter().any(|why| why.starts_with(all_lost)), "{:?}", asks.why);
    assert_eq!(asks.causes[0].cause, "no_endpoint");
    let does_not = &report.designs[1];
    assert!(does_not.why.iter().any(|why| why.contains("2 of 2 server faults over all seeds went unnoticed")));
    assert_eq!(asks.metric(Metric::WantedRestarts), Interval::default(), "there is no liveness probe");
}

#[test]
fn requests_by_minute_add_up_to_all_requests_and_the_faults_are_on_the_time_line() {
    let report = report(1);
    for design in &report.designs {
        let ok: u64 = design.minutes[0].by_minute.iter().sum();
        let bad: u64 = design.minutes[1..].iter().flat_map(|outcome| &outcome.by_minute).sum();
        assert_eq!(design.minutes[0].cause, "ok");
        assert!(ok > 1000);
        assert_eq!(bad, design.causes.iter().map(|cause| cause.requests).sum::<u64>());
        assert_eq!(bad as f64, design.metric(Metric::Failed).median);
    }
    let events: Vec<(f64, Option<f64>, &str)> =
        report.events.iter().map(|event| (event.at, event.until, event.text.as_str())).collect();
    assert_eq!(events, [(120.0, Some(240.0), "api is silent"), (360.0, None, "server of pod 1 hangs")]);
}

#[test]
fn the_terminal_shows_the_marks_above_the_pods_and_what_was_expected() {
    let text = report(1).text(3, 120);
    assert!(text.contains("asked:     what now?"), "{text}");
    assert!(text.contains("  a  2:00 to 4:00  api is silent\n  b  6:00  server of pod 1 hangs\n"), "{text}");
    let marks = text.lines().find(|line| line.contains("a---")).unwrap();
    let lane = text.lines().find(|line| line.starts_with("pod 0")).unwrap();
    assert_eq!(marks.find('a'), Some(8 + 18), "a quarter of 72 columns: {marks}");
    assert_eq!(lane.chars().count(), 8 + 72, "it fits 80 columns");
    assert!(text.contains("MISSED  does-not: failed = 0"), "{text}");
    assert!(text.contains("holds   asks: pods_lost = 2"), "{text}");
}

#[test]
fn a_narrow_terminal_loses_nothing_and_no_line_is_wider_than_it() {
    let report = report(2);
    let words = |width: usize| -> Vec<String> {
        let text = report.text(100, width);
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        text.split_whitespace().map(str::to_owned).collect()
    };
    let (narrow, wide) = (words(80), words(400));
    for word in &wide {
        assert!(narrow.contains(word), "{word}");
    }
    let blocks = report.text(0, 80).lines().filter(|line| line.starts_with("design ")).count();
    assert!(blocks > 1, "each block of columns names the designs");
    assert_eq!(report.text(0, 400).lines().filter(|line| line.starts_with("design ")).count(), 1);
}

#[test]
fn a_markdown_table_has_the_columns_that_were_asked_for() {
    let report = report(1);
    let columns = columns("pods_lost, noticed,causes").unwrap();
    let table = report.markdown(&columns);
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("Asked: what now?"));
    assert_eq!(lines.next(), Some(""));
    assert_eq!(lines.next(), Some("| design | pods lost | noticed | not well |"));
    assert_eq!(lines.next(), Some("|---|---|---|---|"));
    assert!(lines.next().is_some_and(|row| row.starts_with("| asks | 2 | ")), "{table}");
    assert!(table.contains("| does-not | 0 | never | timeout "), "{table}");
    assert!(super::columns("pods").unwrap_err().contains("\"pods\" is no column"));
}

#[test]
fn json_holds_every_metric_by_its_name() {
    let json = serde_json::to_value(report(1)).unwrap();
    let design = &json["designs"][0];
    for metric in Metric::ALL {
        assert!(!design[metric.as_str()].is_null() || metric == Metric::DetectionSeconds, "{}", metric.as_str());
    }
    assert_eq!(design["pods_lost"]["median"], 2.0);
    assert_eq!(json["events"][0]["text"], "api is silent");
    assert!(design["decisions"][0]["reason"].as_str().unwrap().contains("api does not answer"));
}
