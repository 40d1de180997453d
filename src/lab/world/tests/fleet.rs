//! Rollouts, drains and lost nodes: how many pods there are, and what their users feel.

use super::*;

/// Three pods of a server that finishes what it has, ready by their own word.
fn fleet(rest: &str) -> Scenario {
    let text = format!(
        r#"
title = "t"
duration = "15m"
pods = 3
[server]
load = "5s"
concurrency = 8
queue = 16
service_time = "20ms"
finishes = true
[versions.bad]
garbage = true
[versions.stuck]
never_ready = true
[versions.good]
service_time = "10ms"
[clients]
rate = 60.0
from = "1m"
timeout = "2s"
{rest}
{design}"#,
        design = stays_a_while()
    );
    fixture::scenario(&text)
}

#[test]
fn a_rollout_replaces_every_pod_and_loses_nothing_where_the_old_ones_stay_long_enough() {
    let score = score(&fleet("[[actions]]\nat = \"3m\"\nrollout = \"good\"\n"));
    assert_eq!((score.pods_made, score.failed(), score.rollouts_failed), (3, 0, 0));
    assert!((10.0..120.0).contains(&score.rollout_seconds), "{}", score.rollout_seconds);
}

#[test]
fn a_version_that_never_gets_ready_stops_the_rollout_and_undo_brings_the_old_one_back() {
    let stuck = "[deployment]\nprogress_deadline = \"2m\"\nundo_at_deadline = true\n\
                 [[actions]]\nat = \"3m\"\nrollout = \"stuck\"\n";
    let score = score(&fleet(stuck));
    assert_eq!((score.rollouts_failed, score.failed()), (1, 0), "the old pods go on meanwhile");
    assert_eq!(score.pods_made, 1, "one pod of the new version was tried");
    assert!(score.rollout_seconds > 0.0, "the way back was completed");
}

#[test]
fn a_version_with_garbage_answers_gets_through_and_every_later_answer_is_wrong() {
    let score = score(&fleet("[[actions]]\nat = \"3m\"\nrollout = \"bad\"\n"));
    assert!(score.ended(End::Wrong) > 30_000, "{}", score.ended(End::Wrong));
}

#[test]
fn a_drain_takes_no_more_than_the_budget_allows() {
    let all = "[deployment]\nnodes = 2\nBUDGET\n[[actions]]\nat = \"3m\"\ndrain_node = 0\n";
    let free = score(&fleet(&all.replace("BUDGET", "")));
    let held = score(&fleet(&all.replace("BUDGET", "min_available = 2")));
    assert_eq!((free.evicted, held.evicted), (2, 2), "both pods of the node leave in the end");
    assert_eq!((free.pods_lost, held.pods_lost), (2, 1));
}

#[test]
fn pods_of_a_lost_node_leave_rotation_after_its_grace_and_are_made_again_after_the_toleration() {
    let score = score(&fleet("[[actions]]\nat = \"3m\"\nlose_node = 1\n"));
    assert_eq!((score.pods_made, score.pods_lost), (1, 1));
    // A third of 60 requests a second for the 50 s of the grace and a little more.
    assert!((900..1200).contains(&score.ended(End::Timeout)), "{}", score.ended(End::Timeout));
    assert!((300.0..330.0).contains(&score.out_of_rotation_seconds), "{}", score.out_of_rotation_seconds);
}

#[test]
fn a_node_that_comes_back_in_time_keeps_its_pods() {
    let score = score(&fleet("[[actions]]\nat = \"3m\"\nfor = \"2m\"\nlose_node = 1\n"));
    assert_eq!((score.pods_made, score.restarts), (0, 0));
    assert!((60.0..90.0).contains(&score.out_of_rotation_seconds), "{}", score.out_of_rotation_seconds);
}

#[test]
fn clients_that_keep_their_connections_stay_with_a_pod_out_of_rotation_and_its_end_costs_their_streams() {
    let kept = "connections = 30\nstreams = { percent = 20.0, lasts = \"60s\" }\n\
                [[actions]]\nat = \"5m\"\nrollout = \"good\"\n";
    let score = score(&fleet(kept));
    assert!(score.ended(End::Cut) > 0, "{} streams outlived the grace", score.ended(End::Cut));
}

#[test]
fn while_nobody_is_ready_those_that_serve_and_terminate_go_on_serving() {
    let alone = |sleeps: u32| {
        let mut scenario = fleet("[[actions]]\nat = \"3m\"\ndelete_pod = 0\n");
        scenario.pods = 1;
        let mut pod = scenario.designs[0].pod.as_ref().clone();
        pod.containers[0].pre_stop = Some(kubelet::Hook::Sleep(Duration::from_secs(sleeps.into())));
        scenario.designs[0].pod = Arc::new(pod);
        score(&scenario)
    };
    // The new pod takes about ten seconds: one that stays for 25 s bridges them, one that stays for 5 s does not.
    assert_eq!(alone(25).failed(), 0);
    let short = alone(5);
    assert!((60..1200).contains(&short.ended(End::NoEndpoint)), "{}", short.ended(End::NoEndpoint));
}
