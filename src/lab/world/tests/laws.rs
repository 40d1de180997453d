//! Each law's checker is given a history that breaks it, and says so: a law that nothing can break is not looked at.

use super::*;

/// A world that has served for two minutes.
fn under_way(scenario: &Scenario) -> World<'_> {
    let mut world = World::new(scenario, &scenario.designs[0], 3);
    world.run();
    assert_eq!(world.score.broken, None);
    assert!(world.score.is_conserved());
    world
}

fn quiet() -> Scenario {
    scenario("", &readiness(), PATHS)
}

#[test]
fn an_event_of_an_earlier_time_is_named() {
    let scenario = quiet();
    let mut world = under_way(&scenario);
    world.happen(ZERO, Happening::Surge);
    assert_eq!(world.score.broken, Some("time went back"));
}

#[test]
fn an_arrival_of_an_earlier_time_is_named() {
    let scenario = quiet();
    let mut world = under_way(&scenario);
    world.next_arrival = ZERO;
    world.arrive();
    assert_eq!(world.score.broken, Some("time went back"));
}

#[test]
fn an_endpoint_that_outlives_its_pod_is_named() {
    let scenario = quiet();
    let mut world = under_way(&scenario);
    assert!(world.slots[0].is_endpoint);
    // Nobody tells the slice.
    world.slots[0].inner.is_gone = true;
    world.paint(world.end);
    assert_eq!(world.score.broken, Some("an endpoint of a pod that does not exist"));
}

#[test]
fn what_ends_on_a_lost_node_keeps_its_endpoint_until_the_control_plane_notices() {
    let scenario = scenario("[[actions]]\nat = \"2m\"\nlose_node = 0\n", &readiness(), PATHS);
    let mut world = under_way(&scenario);
    let lost = world.slots.iter().position(|slot| world.nodes[slot.node].is_cut()).unwrap();
    world.slots[lost].is_endpoint = true;
    world.slots[lost].inner.is_gone = true;
    world.paint(world.end);
    assert_eq!(world.score.broken, None);
}

/// A request that is sent at the end of a world, once more.
fn sent(world: &mut World<'_>) -> Request {
    world.score.requests += 1;
    let number = world.ledger.sent();
    Request { sent: world.end, attempt: 0, connection: None, is_stream: false, is_trial: false, number }
}

#[test]
fn a_request_that_ends_twice_is_named() {
    let scenario = quiet();
    let mut world = under_way(&scenario);
    let request = sent(&mut world);
    world.attempt_ended(world.end, request, End::Ok);
    assert_eq!(world.score.broken, None);
    world.attempt_ended(world.end, request, End::Ok);
    assert_eq!(world.score.broken, Some("a request ended twice"));
    assert!(!world.score.is_conserved(), "one end more than requests");
}

#[test]
fn a_request_that_never_ends_is_named() {
    let scenario = quiet();
    let mut world = under_way(&scenario);
    sent(&mut world);
    world.finish();
    assert_eq!(world.score.broken, Some("a request never ended"));
    assert!(!world.score.is_conserved(), "one request more than ends");
}

#[test]
fn one_that_ends_twice_does_not_hide_one_that_never_ends() {
    let scenario = quiet();
    let mut world = under_way(&scenario);
    let (twice, _never) = (sent(&mut world), sent(&mut world));
    world.attempt_ended(world.end, twice, End::Ok);
    world.attempt_ended(world.end, twice, End::Ok);
    assert!(world.score.is_conserved(), "the counts agree");
    assert_eq!(world.score.broken, Some("a request ended twice"));
    world.score.broken = None;
    world.finish();
    assert_eq!(world.score.broken, Some("a request never ended"));
}
