//! How fast it may follow: the figures of upstream's cases for rules, events and stabilisation.

use super::*;
use crate::lab::autoscaler::behaviour::{limited, stabilized};

/// A number and the seconds of its period; none if the number is 0.
type Within = (usize, u64);
const NONE: Within = (0, 0);

fn rules(pods: Within, percent: Within) -> Rules {
    let policy = |by, every| Policy { by, every: Duration::from_secs(every) };
    let pods = (pods.0 > 0).then(|| policy(Step::Pods(pods.0), pods.1));
    let percent = (percent.0 > 0).then(|| policy(Step::Percent(percent.0), percent.1));
    Rules { window: Duration::ZERO, select: Select::Max, policies: pods.into_iter().chain(percent).collect() }
}

/// Evenly over two minutes, the oldest first.
fn evenly(changes: &[usize]) -> Vec<(usize, u64)> {
    let span = 120.0 / changes.len() as f64;
    let ago = |at: usize| (120.0 - span * (at as f64 + 0.5)) as u64;
    changes.iter().enumerate().map(|(at, by)| (*by, ago(at))).collect()
}

fn changes(added: &[usize], taken: &[usize]) -> Vec<Change> {
    let at = |ago| Time::from_nanos(NOW.as_nanos() - ago * 1_000_000_000);
    let up = evenly(added).into_iter().map(|(by, ago)| Change { at: at(ago), from: 0, to: by });
    let down = evenly(taken).into_iter().map(|(by, ago)| Change { at: at(ago), from: by, to: 0 });
    up.chain(down).collect()
}

fn up(bounds: (usize, usize), rules: Rules, steps: (usize, usize), changes: &[Change]) -> usize {
    let spec = Spec { min: bounds.0, max: bounds.1, up: rules, ..Spec::default() };
    limited(NOW, &spec, steps.0, steps.1, changes)
}

fn down(bounds: (usize, usize), rules: Rules, steps: (usize, usize), changes: &[Change]) -> usize {
    let spec = Spec { min: bounds.0, max: bounds.1, down: rules, ..Spec::default() };
    limited(NOW, &spec, steps.0, steps.1, changes)
}

const WIDE: (usize, usize) = (1, 1000);

#[test]
fn test_scaling_with_rules_by_default() {
    let Spec { up: usual_up, down: usual_down, .. } = Spec::default();
    assert_eq!(up((3, 8), usual_up.clone(), (5, 7), &[]), 7);
    assert_eq!(down((2, 8), usual_down.clone(), (3, 1), &[]), 2);
    assert_eq!(down((0, 10), usual_down.clone(), (1, 0), &[]), 0);
    assert_eq!(up((1, 10), usual_up.clone(), (20, 1000), &[]), 10);
    assert_eq!(up((100, 150), usual_up.clone(), (100, 1000), &[]), 150);
    assert_eq!(up(WIDE, usual_up, (10, 50), &[]), 20);
    assert_eq!(down(WIDE, usual_down, (10, 5), &changes(&[], &[1, 5, 9])), 5);
}

#[test]
fn test_scaling_with_rules_upwards() {
    let cases = [
        ((1, 2000), NONE, (1, 60), (3, 1000), 4),
        (WIDE, (100, 60), (100, 60), (10, 500), 110),
        (WIDE, (2, 60), (100, 60), (10, 500), 20),
        (WIDE, (100, 60), NONE, (10, 50), 50),
        (WIDE, (10_000, 60), NONE, (10, 50), 50),
        (WIDE, (30, 60), NONE, (10, 50), 40),
        (WIDE, NONE, (200, 60), (10, 50), 30),
    ];
    for (bounds, pods, percent, steps, expected) in cases {
        assert_eq!(up(bounds, rules(pods, percent), steps, &[]), expected, "{pods:?} {percent:?} {steps:?}");
    }
}

#[test]
fn test_scaling_with_rules_upwards_after_changes() {
    let some = changes(&[1, 5, 9], &[]);
    assert_eq!(up((1, 200), rules((300, 60), NONE), (100, 500), &some), 200);
    assert_eq!(up((1, 200), rules(NONE, (10_000, 60)), (100, 500), &some), 200);
    assert_eq!(up(WIDE, rules((5, 120), NONE), (100, 500), &some), 100, "not below what there is");
    assert_eq!(up(WIDE, rules((150, 120), NONE), (100, 500), &some), 235);
    assert_eq!(up(WIDE, rules(NONE, (200, 120)), (100, 500), &some), 255);
    assert_eq!(up(WIDE, rules(NONE, (300, 300)), (6, 24), &changes(&[4], &[2])), 16);
    let more = changes(&[8, 12, 9, 11], &[]);
    for (pods, percent) in [((1000, 60), NONE), ((1000, 120), (100, 60)), ((1000, 30), (100, 60))] {
        assert_eq!(up(WIDE, rules(pods, percent), (100, 200), &more), 200);
    }
}

#[test]
fn test_scaling_with_rules_downwards() {
    let cases = [
        ((3, 2000), (20, 60), NONE, (1000, 3), 980),
        (WIDE, (20, 60), (1, 60), (100, 2), 80),
        (WIDE, (2, 60), (1, 60), (100, 2), 98),
        (WIDE, (100, 60), NONE, (10, 0), 1),
        ((5, 1000), NONE, (100, 60), (10, 2), 5),
        (WIDE, (5, 60), NONE, (10, 2), 5),
        (WIDE, NONE, (50, 60), (10, 5), 5),
    ];
    for (bounds, pods, percent, steps, expected) in cases {
        assert_eq!(down(bounds, rules(pods, percent), steps, &[]), expected, "{pods:?} {percent:?} {steps:?}");
    }
}

#[test]
fn test_scaling_with_rules_downwards_after_changes() {
    let some = changes(&[], &[1, 5, 9]);
    assert_eq!(down(WIDE, rules((115, 120), NONE), (100, 0), &some), 1);
    assert_eq!(down((5, 1000), rules((130, 120), NONE), (100, 0), &some), 5);
    assert_eq!(down((5, 1000), rules(NONE, (100, 120)), (100, 2), &some), 5);
    assert_eq!(down(WIDE, rules((5, 120), NONE), (100, 2), &some), 100, "not above what there is");
    assert_eq!(down(WIDE, rules(NONE, (50, 120)), (100, 0), &changes(&[], &[2, 4, 6])), 56);
    assert_eq!(down(WIDE, rules(NONE, (50, 180)), (10, 1), &changes(&[2], &[4])), 6);
    let tens = changes(&[], &[10, 10, 10]);
    assert_eq!(down(WIDE, rules(NONE, (10, 120)), (100, 0), &tens), 100);
    assert_eq!(down(WIDE, rules(NONE, (1000, 120)), (10, 5), &tens), 5);
    let more = changes(&[], &[8, 12, 9, 11]);
    for (pods, percent) in [((1000, 60), NONE), ((1000, 120), (100, 60)), ((1000, 30), (100, 60))] {
        assert_eq!(down(WIDE, rules(pods, percent), (100, 5), &more), 5);
    }
}

#[test]
fn test_normalize_desired_replicas() {
    let three = |earlier: &[(usize, u64)]| {
        let at = |minutes: u64| Time::from_nanos(NOW.as_nanos() - minutes * 60_000_000_000);
        let earlier: Vec<_> = earlier.iter().map(|(proposal, minutes)| (at(*minutes), *proposal)).collect();
        stabilized(NOW, &Spec::default(), 10, 3, &earlier)
    };
    assert_eq!(three(&[]), 3);
    assert_eq!(three(&[(4, 2), (5, 1)]), 5);
    assert_eq!(three(&[(1, 2), (2, 1)]), 3);
    assert_eq!(three(&[(10, 10), (9, 9)]), 3, "too old");
    assert_eq!(three(&[(10, 10), (4, 1), (5, 2), (9, 9)]), 5);
}

/// What is proposed, how many minutes ago.
type Earlier<'a> = &'a [(usize, u64)];

/// Windows up and down in seconds, the present number and the proposal; what upstream makes of them.
fn normalized(windows: (u64, u64), steps: (usize, usize), earlier: Earlier<'_>) -> usize {
    let rules = |window| Rules { window: Duration::from_secs(window), select: Select::Max, policies: Vec::new() };
    let spec = Spec { up: rules(windows.0), down: rules(windows.1), ..Spec::default() };
    let at = |minutes: u64| Time::from_nanos(NOW.as_nanos() - minutes * 60_000_000_000);
    let earlier: Vec<_> = earlier.iter().map(|(proposal, minutes)| (at(*minutes), *proposal)).collect();
    stabilized(NOW, &spec, steps.0, steps.1, &earlier)
}

#[test]
fn test_normalize_desired_replicas_with_behavior() {
    let cases: [(_, _, Earlier<'_>, _); 11] = [
        ((0, 0), (100, 5), &[], 5),
        ((0, 180), (100, 3), &[(4, 2), (5, 1)], 5),
        ((300, 0), (1, 7), &[(4, 2), (5, 1)], 4),
        ((300, 0), (100, 3), &[(1, 2), (2, 1)], 3),
        ((0, 300), (1, 3), &[(4, 2), (5, 1)], 3),
        ((0, 0), (100, 3), &[(10, 10), (9, 9)], 3),
        ((0, 0), (1, 100), &[(10, 10), (9, 9)], 100),
        ((0, 180), (100, 3), &[(10, 10), (4, 1), (5, 2), (9, 9)], 5),
        ((300, 0), (1, 100), &[(10, 100), (6, 1), (5, 2), (9, 3)], 5),
        ((300, 300), (2, 1), &[(2, 100), (3, 3)], 2),
        ((300, 300), (2, 3), &[(2, 100), (1, 3)], 2),
    ];
    for (windows, steps, earlier, expected) in cases {
        assert_eq!(normalized(windows, steps, earlier), expected, "{windows:?} {steps:?} {earlier:?}");
    }
}

#[test]
fn a_proposal_as_old_as_the_window_no_longer_counts() {
    assert_eq!(normalized((0, 120), (100, 3), &[(9, 2), (5, 1)]), 5);
    assert_eq!(normalized((0, 121), (100, 3), &[(9, 2), (5, 1)]), 9);
}
