//! A server that drops what its clients leave: nothing of it excuses silence.

use super::stall::*;
use super::*;

/// Four streams that move, a token each quarter of a second, and one client a second that stops reading one.
fn streams_for(scene: &mut Scene, secs: u32) {
    scene.traffic.pace = Some(ms(1000));
    scene.begin();
    scene.traffic.in_flight = 4;
    for _ in 0..secs {
        for _ in 0..4 {
            scene.run(0.25);
            scene.byte();
        }
        scene.gives_up(ms(100));
    }
}

#[test]
fn clients_that_stop_streams_delay_no_verdict_where_the_server_drops_what_they_leave() {
    for (rule, abandoned) in [
        (bare(), Abandoned::Dropped),
        (counted(), Abandoned::Dropped),
        (bare(), Abandoned::WorkedOff),
        (counted(), Abandoned::WorkedOff),
    ] {
        let mut scene = Scene::new(Plan { abandoned, ..server(rule) });
        let hung = scene.world.now + secs(120);
        scene.page(move |now| Some(now.min(hung).as_secs_f64() * 4.0));
        streams_for(&mut scene, 120);
        let since = scene.world.now;
        assert_eq!(scene.world.engine.left_over() > 0, abandoned == Abandoned::WorkedOff);
        // After the hang too: each for two seconds, less than such an answer may take.
        for _ in 0..400 {
            scene.run(1.0);
            scene.gives_up(secs(2));
        }
        if abandoned == Abandoned::Dropped {
            scene.assert_found_after(since);
        } else {
            let at = scene.condemned_at().expect("found");
            assert!(since + secs(200) < at, "{at}: it may have been at what was left");
        }
    }
}

#[test]
fn a_server_that_drops_what_is_left_is_found_though_every_client_gives_up_soon() {
    let mut scene = Scene::new(Plan { abandoned: Abandoned::Dropped, ..server(bare()) });
    streams_for(&mut scene, 120);
    let since = scene.world.now;
    for _ in 0..40 {
        scene.traffic.oldest_begun = Some(scene.world.now);
        scene.run(1.0);
        scene.gives_up(secs(8));
    }
    let at = scene.condemned_at().expect("found");
    assert!(at <= since + STALL_AFTER + secs(3), "{at}");
}

#[test]
fn a_long_answer_that_was_given_up_and_dropped_is_no_debt_of_the_next() {
    let mut scene = Scene::new(Plan { abandoned: Abandoned::Dropped, ..server(bare()) });
    scene.traffic.pace = Some(ms(500));
    scene.traffic.patience = secs(600);
    scene.begin();
    let begun = scene.world.now;
    scene.run(200.0);
    scene.gives_up(secs(200));
    scene.traffic.lent_until = Some(begun + secs(600));
    scene.traffic.patience = Duration::ZERO;
    scene.leave();
    scene.begin();
    let since = scene.world.now;
    scene.run(30.0);
    scene.assert_found_after(since);
}
