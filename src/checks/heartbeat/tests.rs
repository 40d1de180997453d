use std::fs::File;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};

use super::super::trial::Trial;
use super::*;
use crate::clock::Clock;
use crate::config::{CheckSpec, Kind};
use crate::engine::Verdict;
use crate::limits::{HEARTBEAT_STATUS_BYTES_MAX, NOTIFY_DATAGRAM_BYTES_MAX};

const SILENCE: Duration = Duration::from_secs(30);

fn check(name: &str, source: HeartbeatSource) -> CheckSpec {
    CheckSpec { name: name.into(), kind: Kind::Heartbeat(HeartbeatCheck { source, max_silence: SILENCE }) }
}

fn board(checks: &[CheckSpec], now: Time) -> Board {
    let board = Board::default();
    board.expect(checks, now);
    board
}

/// What `judge` says `after` the origin of engine time.
async fn at(after: Duration, judge: impl Fn(&Scene) -> Outcome) -> Outcome {
    let trial = Trial::starting(after);
    trial.attempt(async |scene| judge(scene)).await
}

fn hear(board: &Board, text: &str, secs: u64) -> Vec<String> {
    board.hear(&Message::parse(text.as_bytes()), Time::from_secs(secs))
}

#[tokio::test]
async fn a_file_beats_by_its_modification_time() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("beat");
    let shown = path.display().to_string();
    let trial = Trial::new();
    let ask = || trial.attempt(async |scene| file(&path, SILENCE, scene).await);

    assert_eq!(ask().await.reason, format!("{shown} does not exist"));
    let beat = File::create(&path).expect("a file");
    assert_eq!(ask().await.verdict, Verdict::Pass);

    let now = trial.clock.wall_now();
    beat.set_modified(now - Duration::from_secs(3600)).expect("a time");
    let old = ask().await;
    assert_eq!(old.verdict, Verdict::Fail(Fault::Local));
    assert!(old.reason.starts_with(&format!("no heartbeat for 1h: {shown} was last written at 2")), "{}", old.reason);

    beat.set_modified(now + Duration::from_secs(10)).expect("a time");
    assert_eq!(ask().await.verdict, Verdict::Pass);
    beat.set_modified(now + Duration::from_secs(7200)).expect("a time");
    assert!(ask().await.reason.ends_with("in the future: the clocks disagree"));

    let folder_as_file = trial.attempt(async |scene| file(folder.path(), SILENCE, scene).await).await;
    assert!(folder_as_file.reason.ends_with("is a directory, expected a file"));
}

#[tokio::test]
async fn a_pushed_beat_is_unknown_then_fresh_then_silent() {
    let board = board(&[check("worker", HeartbeatSource::Push)], Time::ZERO);
    let ask = |secs| at(Duration::from_secs(secs), |scene| pushed(board.pushed("worker"), SILENCE, scene));

    assert_eq!(ask(29).await.verdict, Verdict::Unknown);
    let never = ask(31).await;
    assert_eq!((never.verdict, never.reason.as_str()), (Verdict::Fail(Fault::Local), "no heartbeat yet, after 31s"));
    board.beat("worker", "epoch 3\u{1b}[2J\n", Time::from_secs(40)).expect("expected");
    let fresh = ask(60).await;
    assert_eq!((fresh.verdict, fresh.reason.as_str()), (Verdict::Pass, "status \"epoch 3[2J\""));
    let silent = ask(71).await.reason;
    assert!(
        silent.starts_with("no heartbeat for 31s (last at ") && silent.ends_with("Z, status \"epoch 3[2J\")"),
        "{silent}"
    );
}

#[test]
fn a_beat_that_nobody_expects_is_told_what_is_expected() {
    let board = board(&[check("b", HeartbeatSource::Push), check("a", HeartbeatSource::Push)], Time::ZERO);
    let refused = board.beat("wroker", "", Time::ZERO).expect_err("not expected");
    assert_eq!(refused.to_string(), "no pushed heartbeat is named \"wroker\"; expected: a, b");
    board.expect(&[check("a", HeartbeatSource::Notify)], Time::ZERO);
    let refused = board.beat("a", "", Time::ZERO).expect_err("not by push");
    assert_eq!(refused.to_string(), "no pushed heartbeat is named \"a\"");
}

#[test]
fn a_reload_keeps_the_beats_of_the_checks_that_stay() {
    let board = board(&[check("a", HeartbeatSource::Push), check("b", HeartbeatSource::Push)], Time::ZERO);
    board.beat("a", "", Time::from_secs(5)).expect("expected");
    board.expect(&[check("a", HeartbeatSource::Push), check("c", HeartbeatSource::Push)], Time::from_secs(9));
    assert_eq!(board.pushed("a").and_then(|beat| beat.last), Some(Time::from_secs(5)));
    assert!(board.pushed("b").is_none());
    assert_eq!(board.pushed("c").map(|beat| beat.expected_since), Some(Time::from_secs(9)));
    // A beat that comes late does not turn the clock back.
    board.beat("a", "", Time::from_secs(4)).expect("expected");
    assert_eq!(board.pushed("a").and_then(|beat| beat.last), Some(Time::from_secs(5)));
}

#[tokio::test]
async fn notifications_tell_a_life() {
    let board = board(&[check("n", HeartbeatSource::Notify)], Time::ZERO);
    let ask = |secs| at(Duration::from_secs(secs), |scene| notified(&board.notified(), SILENCE, scene));

    assert_eq!(ask(1).await.reason, "no READY=1 yet");
    hear(&board, "STATUS=loading shard 3", 100);
    hear(&board, "WATCHDOG=1", 101);
    let loading = ask(500).await;
    assert_eq!(
        (loading.verdict, loading.reason.as_str()),
        (Verdict::Unknown, "no READY=1 yet (status \"loading shard 3\")")
    );

    assert_eq!(hear(&board, "READY=1\nSTATUS=serving", 600), ["n"]);
    assert_eq!(ask(629).await.verdict, Verdict::Pass);
    assert!(ask(631).await.reason.starts_with("no heartbeat for 31s (last at "));
    hear(&board, "WATCHDOG=1", 640);
    assert_eq!(ask(669).await.verdict, Verdict::Pass);

    hear(&board, "EXTEND_TIMEOUT_USEC=60000000", 650);
    assert_eq!(ask(709).await.verdict, Verdict::Pass);
    assert!(ask(711).await.reason.starts_with("no heartbeat for 1m 11s"));

    hear(&board, "WATCHDOG=trigger", 720);
    let broken = ask(720).await;
    assert_eq!(broken.verdict, Verdict::Fail(Fault::Answer));
    assert_eq!(broken.reason, "the server said WATCHDOG=trigger (status \"serving\")");
    hear(&board, "STOPPING=1\nSTATUS=", 721);
    assert_eq!(ask(721).await.reason, "the server said STOPPING=1");
    hear(&board, "WATCHDOG=1", 722);
    assert_eq!(ask(722).await.reason, "the server said STOPPING=1");
    hear(&board, "READY=1", 730);
    assert_eq!(ask(731).await.verdict, Verdict::Pass);
}

#[test]
fn a_flood_of_beats_wakes_the_check_once_a_second_and_a_turn_at_once() {
    let board = board(&[check("n", HeartbeatSource::Notify)], Time::ZERO);
    let mut woken = 0;
    for millis in 0..3000 {
        woken += board.hear(&Message::parse(b"WATCHDOG=1"), Time::from_millis(millis)).len();
    }
    assert_eq!(woken, 3);
    assert_eq!(board.hear(&Message::parse(b"STOPPING=1"), Time::from_millis(2999)), ["n"]);
    assert!(board.hear(&Message::parse(b"MAINPID=7\nFOO=bar\n\xff\0=="), Time::from_secs(9)).is_empty());
}

#[test]
fn an_endless_extension_and_an_endless_status_are_cut() {
    let board = board(&[check("n", HeartbeatSource::Notify)], Time::ZERO);
    hear(&board, &format!("READY=1\nEXTEND_TIMEOUT_USEC={}\nSTATUS={}", u64::MAX, "é".repeat(2000)), 1);
    let life = board.notified();
    assert_eq!(life.extended_until, Some(Time::from_secs(1) + crate::limits::HEARTBEAT_EXTENSION_MAX));
    assert_eq!(life.status.len(), HEARTBEAT_STATUS_BYTES_MAX);
    assert_eq!(Message::parse(b"EXTEND_TIMEOUT_USEC=-1\nREADY=2\nWATCHDOG=").extend, None);
}

#[tokio::test]
async fn the_socket_hears_a_server_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("notify.sock");
    let clock = Clock::start();
    let board = board(&[check("n", HeartbeatSource::Notify)], clock.now());
    let socket = NotifySocket::bind(&path).expect("bound");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o666);

    let server = StdDatagram::unbound().expect("a socket");
    server.send_to(&[b'x'; NOTIFY_DATAGRAM_BYTES_MAX + 1], &path).expect("sent");
    server.send_to(b"STATUS=loading", &path).expect("sent");
    server.send_to(b"", &path).expect("sent");
    let mut longest = b"READY=1\nX=".to_vec();
    longest.resize(NOTIFY_DATAGRAM_BYTES_MAX, b'x');
    server.send_to(&longest, &path).expect("sent");
    let names = tokio::time::timeout(Duration::from_secs(5), socket.recv(&board, &clock)).await;
    assert_eq!(names.expect("in time").expect("heard"), ["n"]);
    assert!(board.notified().ready);
    assert_eq!(board.notified().status, "loading");

    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn only_a_stale_socket_is_replaced() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("notify.sock");
    // As a killed process leaves it: the file without a listener.
    drop(StdDatagram::bind(&path).expect("bound"));
    assert!(path.exists());
    let first = NotifySocket::bind(&path).expect("the stale one is replaced");
    let second = NotifySocket::bind(&path).expect_err("the first one lives");
    assert!(second.to_string().ends_with("is in use: another process listens on it"), "{second}");
    // Replaced under our feet: not ours to remove.
    std::fs::remove_file(&path).expect("there");
    std::fs::write(&path, "precious").expect("a file");
    drop(first);
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    let third = NotifySocket::bind(&path).expect_err("not a socket");
    assert!(third.to_string().ends_with("exists and is not a socket"), "{third}");
    assert!(NotifySocket::bind(&folder.path().join("missing/notify.sock")).is_err());
    assert!(NotifySocket::bind(&folder.path().join("x".repeat(200))).is_err());
}

#[tokio::test]
async fn an_abstract_name_needs_no_volume() {
    let name = format!("@probegate-test-{}", std::process::id());
    let clock = Clock::start();
    let board = board(&[check("n", HeartbeatSource::Notify)], clock.now());
    let socket = NotifySocket::bind(Path::new(&name)).expect("bound");
    let address = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).expect("a name");
    StdDatagram::unbound().expect("a socket").send_to_addr(b"READY=1", &address).expect("sent");
    let names = tokio::time::timeout(Duration::from_secs(5), socket.recv(&board, &clock)).await;
    assert_eq!(names.expect("in time").expect("heard"), ["n"]);
}
