//! The autoscaler at work: surges that it meets, servers that come too late, metrics that are away.

use super::*;

/// Two pods, each good for about 40 requests a second, and whatever scales them.
fn scaled(rest: &str, surge: &str) -> Scenario {
    let text = format!(
        r#"
title = "t"
duration = "20m"
pods = 2
[server]
load = "20s"
concurrency = 4
queue = 32
service_time = "100ms"
finishes = true
[clients]
rate = 30.0
from = "30s"
timeout = "5s"
surges = [{surge}]
{rest}
{design}"#,
        design = stays_a_while()
    );
    fixture::scenario(&text)
}

const SURGE: &str = r#"{ at = "3m", for = "5m", times = 4.0 }"#;
const BY_CPU: &str = "[autoscaler]\nmin = 2\nmax = 8\nutilisation = 60\n";

#[test]
fn a_surge_makes_more_pods_and_five_minutes_after_its_end_they_go() {
    let without = score(&scaled("", SURGE));
    let with = score(&scaled(BY_CPU, SURGE));
    assert_eq!((without.scalings, without.pods_made), (0, 0));
    assert!((4..=8).contains(&with.pods_most), "{} pods", with.pods_most);
    assert!(with.failed() * 2 < without.failed(), "{} {}", with.failed(), without.failed());
    let notes: Vec<&Note> = with.notes.iter().filter(|note| note.text.starts_with("the autoscaler")).collect();
    let (first, last) = (notes.first().unwrap(), notes.last().unwrap());
    assert!((180.0..240.0).contains(&first.at), "{first:?}");
    assert!((780.0..900.0).contains(&last.at) && last.text.contains("wants 2 "), "{last:?}");
}

#[test]
fn a_load_within_the_tolerance_moves_nothing() {
    // 30 requests a second of 100 ms: three of eight workers are busy.
    let score = score(&scaled("[autoscaler]\nmin = 1\nmax = 8\nutilisation = 38\ntolerance = 0.4\n", ""));
    assert_eq!((score.scalings, score.failed()), (0, 0));
}

#[test]
fn a_pod_that_hangs_with_its_requests_is_load_by_what_is_in_flight_and_none_by_its_cpu_time() {
    let hang = "[[faults]]\nat = \"2m 57s\"\npod = 0\nserver = \"hang\"\n";
    let by_cpu = score(&scaled(&format!("[autoscaler]\nmin = 2\nmax = 8\nutilisation = 80\n{hang}"), ""));
    let by_work = score(&scaled(&format!("[autoscaler]\nmin = 2\nmax = 8\nin_flight = 6.0\n{hang}"), ""));
    assert_eq!(by_cpu.scalings, 0);
    assert!(by_work.pods_most > 2, "{} pods", by_work.pods_most);
}

#[test]
fn the_bounds_hold_from_the_first_look_on_and_a_hand_that_leaves_them_is_taken_back() {
    let by_hand = "[autoscaler]\nmin = 3\nmax = 4\nutilisation = 60\n[[actions]]\nat = \"5m\"\nscale = 10\n";
    let score = score(&scaled(by_hand, ""));
    assert_eq!(score.pods_most, 10);
    let wants: Vec<&str> = score.notes.iter().map(|note| note.text.as_str()).collect();
    assert!(wants.contains(&"the autoscaler wants 3 pods instead of 2"), "{wants:?}");
    assert!(wants.contains(&"the autoscaler wants 4 pods instead of 10"), "{wants:?}");
}
