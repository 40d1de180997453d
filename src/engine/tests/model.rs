//! The model server in one word, through its life.

use super::stall::{Scene, bare, server};
use super::*;

fn word(world: &mut World) -> &'static str {
    world.engine.snapshot().model.state.as_str()
}

#[test]
fn it_is_loading_then_ready_then_stalled_then_ready_again() {
    let mut plan = server(bare());
    plan.startup.require = plan.ready.require.clone();
    let mut fresh = World::new(plan.clone());
    assert_eq!(word(&mut fresh), "loading");
    let mut scene = Scene::new(plan);
    assert_eq!(word(&mut scene.world), "ready");
    assert_eq!(scene.world.engine.snapshot().model.reason, "");
    scene.begin();
    scene.run(30.0);
    let model = scene.world.engine.snapshot().model;
    assert_eq!(model.state, ModelState::Stalled);
    assert!(model.reason.starts_with("stalled: no byte"), "{}", model.reason);
    scene.end();
    scene.run(1.0);
    assert_eq!(word(&mut scene.world), "ready");
}

#[test]
fn what_waits_what_is_shed_and_what_is_left_over_make_it_saturated_and_fail_no_gate() {
    let mut scene = Scene::new(server(bare()));
    scene.traffic.queued = 5;
    scene.run(0.5);
    assert_eq!(word(&mut scene.world), "ready", "a moment's queue is nothing");
    scene.run(2.0);
    let snapshot = scene.world.engine.snapshot();
    assert_eq!(snapshot.model.state, ModelState::Saturated);
    assert_eq!(snapshot.model.reason, "requests wait for a place");
    assert_eq!((snapshot.ready.status, snapshot.health.status), (Status::Pass, Status::Pass));
    scene.traffic.queued = 0;
    scene.traffic.shed = 3;
    scene.run(0.5);
    assert_eq!(scene.world.engine.snapshot().model.reason, "requests are shed");
    scene.run(2.0);
    assert_eq!(word(&mut scene.world), "ready");
    scene.begin();
    scene.traffic.pace = Some(secs(1));
    scene.traffic.abandoned = 4;
    scene.traffic.abandoned_wait = secs(8);
    scene.traffic.abandoned_sharing = 16;
    scene.run(0.5);
    let model = scene.world.engine.snapshot().model;
    assert_eq!(model.reason, "work may be left over from 4 requests that clients gave up on");
    assert!(model.busy_until.is_some_and(|until| scene.world.now + secs(11) < until));
}

#[test]
fn a_member_that_only_degrades_makes_it_degraded_and_a_refusal_makes_it_dead() {
    let mut plan = server(bare());
    plan.ready.require = plan.startup.require.clone();
    plan.ready.degrade = one(0);
    let name = plan.checks[0].name.clone();
    let mut scene = Scene::new(plan);
    scene.world.script(&name, failing(Fault::Answer));
    scene.run(60.0);
    let model = scene.world.engine.snapshot().model;
    assert_eq!(model.state, ModelState::Degraded);
    assert!(model.reason.starts_with(&format!("{name} is down")), "{}", model.reason);
    let gone = Box::new(|_: Time| Outcome::fail(Fault::Refused, "connection refused", ms(1)).sign(Sign::Refused));
    scene.world.script(&name, gone);
    scene.run(60.0);
    assert_eq!(word(&mut scene.world), "dead");
}
