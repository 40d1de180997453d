//! Health routes that are late because they wait with the users, and those of a server that has gone silent.

use super::stall::{STALL_AFTER, Scene, bare, server};
use super::*;

/// Its own route decides readiness, `progress` liveness.
fn scene() -> Scene {
    let mut plan = server(bare());
    plan.checks[0].on_timeout = OnTimeout::UnknownWhileMoving;
    Scene::new(plan)
}

/// For so long, an answer every second while the route waits: the next request begins as the last one ends.
fn overload(scene: &mut Scene, seconds: u64) {
    for _ in 0..seconds {
        scene.begin();
        scene.run(1.0);
        scene.end();
        scene.traffic.pace = Some(ms(500));
        scene.begin();
    }
}

#[test]
fn a_route_that_waits_with_the_users_flips_nothing_however_long_the_overload() {
    let mut scene = scene();
    scene.world.script("model", failing(Fault::Timeout));
    overload(&mut scene, 300);
    assert_eq!(scene.world.statuses(), [Status::Pass; 3]);
    let why = scene.world.engine.snapshot().check_named("model").unwrap().reason.clone();
    assert!(why.starts_with("late, and no news while the model server moves"), "{why}");
    assert_eq!(scene.world.turns(Gate::Ready, Status::Fail), []);
}

#[test]
fn a_route_of_a_server_that_has_gone_silent_takes_it_out_long_before_it_is_condemned() {
    let mut scene = scene();
    overload(&mut scene, 60);
    scene.world.script("model", failing(Fault::Timeout));
    let silent = scene.traffic.last_byte.unwrap();
    scene.run(40.0);
    let out = scene.world.turns(Gate::Ready, Status::Fail)[0];
    assert!(silent + secs(15) <= out && out < silent + STALL_AFTER, "silent since {silent}, out at {out}");
    let condemned = scene.world.turns(Gate::Health, Status::Fail)[0];
    assert!(condemned <= silent + STALL_AFTER + secs(1), "silent since {silent}, condemned at {condemned}");
}

#[test]
fn one_long_answer_is_waited_for_and_what_was_late_behind_it_is_forgiven() {
    let mut scene = scene();
    scene.world.script("model", failing(Fault::Timeout));
    for _ in 0..6 {
        scene.begin();
        scene.run(14.0);
        scene.end();
        // Nothing is pending for a moment, and the route answers again.
        scene.world.script("model", passing());
        scene.run(6.0);
        scene.world.script("model", failing(Fault::Timeout));
    }
    assert_eq!(scene.world.turns(Gate::Ready, Status::Fail), []);
}

#[test]
fn with_nothing_pending_a_late_route_counts_at_once() {
    let mut scene = scene();
    overload(&mut scene, 5);
    scene.end();
    scene.world.script("model", failing(Fault::Timeout));
    let since = scene.world.now;
    scene.run(20.0);
    let out = scene.world.turns(Gate::Ready, Status::Fail)[0];
    assert!(out <= since + secs(17), "late since {since}, out at {out}");
}

#[test]
fn a_wrong_answer_or_a_refusal_is_news_in_any_overload() {
    for fault in [Fault::Answer, Fault::Refused] {
        let mut scene = scene();
        scene.world.script("model", failing(fault));
        overload(&mut scene, 20);
        assert_eq!(scene.world.status(Gate::Ready), Status::Fail, "{fault:?}");
    }
}
