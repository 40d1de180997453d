use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::mpsc::{self, Sender};
use tokio::task::LocalSet;
use tokio::time::{advance, sleep};

use super::*;
use crate::control::Control;
use crate::engine::{
    CheckPlan, Fault, Forced, Gate, Member, Origins, Outcome, ProgressPlan, Status, Subject, TrafficRule, Verdict,
};
use crate::telemetry::Telemetry;

/// A world whose checks do what the test says.
#[derive(Default)]
struct Stage {
    /// By check: what its next attempts come to; none hangs for ever.
    outcomes: RefCell<Vec<Option<Outcome>>>,
    in_flight: Cell<u64>,
    applied: Cell<u32>,
    attempts: Cell<u32>,
    panics: Cell<bool>,
    traffic: Cell<Traffic>,
    /// Why, of each that was reported.
    hangs: RefCell<Vec<String>>,
}

struct Actors(Rc<Stage>);

impl World for Actors {
    fn attempt(&self, check: CheckId, timeout: Duration) -> Attempting {
        self.0.attempts.set(self.0.attempts.get() + 1);
        let outcome = self.0.outcomes.borrow().get(check.index()).cloned().flatten();
        let panics = self.0.panics.get();
        Box::pin(async move {
            assert!(!panics, "on purpose");
            match outcome {
                Some(outcome) => outcome,
                None => {
                    sleep(timeout).await;
                    Outcome::fail(Fault::Timeout, "timeout", timeout)
                }
            }
        })
    }

    fn apply(&self, _: &Snapshot) {
        self.0.applied.set(self.0.applied.get() + 1);
    }

    fn ends(&self) -> Vec<Ends> {
        Vec::new()
    }

    fn origins(&self) -> Origins {
        Origins::default()
    }

    fn traffic(&self, _left_over: u64) -> Traffic {
        self.0.traffic.get()
    }

    fn report_hang(&self, hang: &Hang<'_>) {
        self.0.hangs.borrow_mut().push(hang.reason.to_owned());
    }

    fn in_flight(&self) -> u64 {
        self.0.in_flight.get()
    }

    fn heartbeat(&self, check: &str, _: &str) -> Result<CheckId, Refusal> {
        if check == "c0" { Ok(CheckId(0)) } else { Err(Refusal::NotFound("no such heartbeat".to_owned())) }
    }

    fn adopt(&mut self, _: Resolved) -> Result<(Arc<Plan>, Vec<&'static str>), String> {
        Err("not in this play".to_owned())
    }
}

struct Play {
    stage: Rc<Stage>,
    control: Control,
    published: Arc<Published>,
    telemetry: Arc<Telemetry>,
    pokes: Sender<String>,
    _stop: oneshot::Sender<()>,
}

const INTERVAL: Duration = Duration::from_secs(2);

fn plan(checks: usize) -> Plan {
    let check = |at: usize| {
        let mut check = CheckPlan::new(format!("c{at}"), "tcp");
        (check.interval, check.fast_interval, check.down_interval) = (INTERVAL, INTERVAL, INTERVAL);
        check
    };
    let mut plan = Plan { checks: (0..checks).map(check).collect(), ..Plan::default() };
    plan.ready.require = vec![Member::Check(CheckId(0))];
    plan
}

/// A driver at work on the local set that the test runs on.
fn play(plan: Plan) -> Play {
    let clock = Clock::start();
    let stage = Rc::new(Stage::default());
    *stage.outcomes.borrow_mut() = vec![Some(Outcome::pass(Duration::ZERO)); plan.checks.len()];
    let plan = Arc::new(plan);
    let mut engine = Engine::new(clock.now(), Arc::clone(&plan), 1);
    let published = Published::new(engine.snapshot());
    let telemetry = Arc::new(Telemetry::new());
    let (control, calls) = Control::channel();
    let (_, signs) = mpsc::channel(1);
    let (pokes, poked) = mpsc::channel(1);
    let (_, hangup) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel();
    let parts = Parts {
        recording: None,
        clock,
        engine,
        world: Actors(Rc::clone(&stage)),
        published: Arc::clone(&published),
        recorder: Recorder::new(clock, Arc::clone(&telemetry), None, &plan),
        pulse: Pulse::default(),
        throttling: Throttling::of(None),
        source: None,
        standing: Standing::new("test".to_owned()),
        lines: Lines { control: calls, signs, pokes: poked, hangup, stop: stopped },
    };
    let (driver, lines) = Driver::new(parts);
    tokio::task::spawn_local(driver.run(lines));
    Play { stage, control, published, telemetry, pokes, _stop: stop }
}

impl Play {
    fn set(&self, outcome: Option<Outcome>) {
        self.stage.outcomes.borrow_mut().fill(outcome);
    }

    fn ready(&self) -> Status {
        self.published.load().gate(Gate::Ready).status
    }

    /// Lets virtual time run until something holds.
    async fn until(&self, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Duration {
        let started = tokio::time::Instant::now();
        while !holds(&self.published.load()) {
            assert!(started.elapsed() < Duration::from_secs(600), "never: {what}");
            sleep(Duration::from_millis(10)).await;
        }
        started.elapsed()
    }

    async fn until_ready(&self, status: Status) -> Duration {
        self.until("ready", |snapshot| snapshot.gate(Gate::Ready).status == status).await
    }
}

fn refused() -> Option<Outcome> {
    Some(Outcome::fail(Fault::Refused, "connection refused by test", Duration::ZERO))
}

#[tokio::test(start_paused = true)]
async fn a_gate_turns_at_its_threshold_not_before_and_heals() {
    LocalSet::new()
        .run_until(async {
            let play = play(plan(1));
            play.until_ready(Status::Pass).await;
            play.set(refused());
            let took = play.until_ready(Status::Fail).await;
            assert!(INTERVAL * 2 <= took && took <= INTERVAL * 4, "{took:?}");
            play.set(Some(Outcome::pass(Duration::ZERO)));
            play.until_ready(Status::Pass).await;
            let page = play.telemetry.encode().unwrap();
            assert!(page.contains(r#"probegate_check_results_total{check="c0",result="fail"} 3"#), "{page}");
            assert!(page.contains(r#"probegate_gate_transitions_total{gate="ready",to="fail"} 1"#), "{page}");
            assert!(page.contains(r#"probegate_check_up{check="c0",type="tcp"} 1"#), "{page}");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_attempt_is_a_timeout_and_a_panicking_one_no_evidence() {
    LocalSet::new()
        .run_until(async {
            let play = play(plan(1));
            play.until_ready(Status::Pass).await;
            play.set(None);
            play.until_ready(Status::Fail).await;
            play.stage.panics.set(true);
            let last = |snapshot: &Snapshot| snapshot.checks[0].last.as_ref().map(|last| last.verdict);
            play.until("unknown", |snapshot| last(snapshot) == Some(Verdict::Unknown)).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn thousands_of_checks_are_published_at_most_twenty_times_a_second() {
    LocalSet::new()
        .run_until(async {
            let play = play(plan(2000));
            play.until_ready(Status::Pass).await;
            let (before, attempts) = (play.stage.applied.get(), play.stage.attempts.get());
            sleep(Duration::from_secs(10)).await;
            let published = play.stage.applied.get() - before;
            assert!(play.stage.attempts.get() - attempts > 5000);
            assert!(published <= 201, "{published}");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_when_the_last_request_does() {
    LocalSet::new()
        .run_until(async {
            let mut plan = plan(1);
            plan.drain.propagation = Duration::from_secs(1);
            plan.drain.max = Duration::from_secs(60);
            let play = play(plan);
            play.until_ready(Status::Pass).await;
            play.stage.in_flight.set(1);
            play.control.call(Command::Drain).await.unwrap();
            assert_eq!(play.ready(), Status::Fail, "the answer comes after the judgement");
            play.until("finishing", |snapshot| snapshot.drain.phase == DrainPhase::Finishing).await;
            sleep(Duration::from_secs(20)).await;
            assert_eq!(play.published.load().drain.phase, DrainPhase::Finishing);
            play.stage.in_flight.set(0);
            let took = play.until("done", |snapshot| snapshot.drain.phase == DrainPhase::Done).await;
            assert!(took < Duration::from_secs(1), "{took:?}");
            assert!(!play.published.load().drain.cut_off);
            assert!(play.telemetry.encode().unwrap().contains("probegate_drain_cut_off 0"));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_out_of_time_says_so_in_the_metrics() {
    LocalSet::new()
        .run_until(async {
            let mut plan = plan(1);
            (plan.drain.propagation, plan.drain.max) = (Duration::from_secs(1), Duration::from_secs(10));
            let play = play(plan);
            play.until_ready(Status::Pass).await;
            play.stage.in_flight.set(1);
            play.control.call(Command::Drain).await.unwrap();
            play.until("done", |snapshot| snapshot.drain.phase == DrainPhase::Done).await;
            assert!(play.telemetry.encode().unwrap().contains("probegate_drain_cut_off 1"));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_the_budget_holds_back_is_a_metric() {
    LocalSet::new()
        .run_until(async {
            let mut plan = plan(1);
            plan.health.require = vec![Member::Check(CheckId(0))];
            plan.health.restart_budget.count = 0;
            plan.checks[0].subject = Subject::Local;
            let play = play(plan);
            play.until_ready(Status::Pass).await;
            let withheld = r#"probegate_restart_withheld{cause="budget"} "#;
            assert!(play.telemetry.encode().unwrap().contains(&format!("{withheld}0")));
            play.set(refused());
            play.until_ready(Status::Fail).await;
            play.until("withheld", |snapshot| !snapshot.health.why.is_empty()).await;
            let page = play.telemetry.encode().unwrap();
            assert!(page.contains(&format!("{withheld}1")), "{page}");
            assert!(page.contains(r#"probegate_restart_withheld{cause="doubt"} 0"#), "{page}");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_command_is_answered_when_its_effect_is_published() {
    LocalSet::new()
        .run_until(async {
            let play = play(plan(1));
            play.until_ready(Status::Pass).await;
            play.control.call(Command::SetReady(false)).await.unwrap();
            assert_eq!(play.ready(), Status::Fail);
            play.control.call(Command::SetReady(true)).await.unwrap();
            assert_eq!(play.ready(), Status::Pass);
            let forced = |check: &str| Command::Override {
                check: check.to_owned(),
                forced: Some(Forced::Down),
                ttl: Duration::from_secs(60),
            };
            play.control.call(forced("c0")).await.unwrap();
            assert_eq!(play.ready(), Status::Fail);
            assert!(matches!(play.control.call(forced("c9")).await, Err(Refusal::NotFound(_))));
            advance(Duration::from_secs(61)).await;
            play.until_ready(Status::Pass).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_beat_runs_its_check_at_once() {
    LocalSet::new()
        .run_until(async {
            let play = play(plan(1));
            play.until_ready(Status::Pass).await;
            let attempts = play.stage.attempts.get();
            play.pokes.send("c0".to_owned()).await.unwrap();
            play.pokes.send("nobody".to_owned()).await.unwrap();
            sleep(Duration::from_millis(1)).await;
            assert_eq!(play.stage.attempts.get(), attempts + 1);
            let beat = |check: &str| Command::Heartbeat { check: check.to_owned(), status: String::new() };
            play.control.call(beat("c0")).await.unwrap();
            assert_eq!(play.stage.attempts.get(), attempts + 2);
            assert!(matches!(play.control.call(beat("c1")).await, Err(Refusal::NotFound(_))));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_hang_is_reported_and_a_state_forced_by_hand_is_none() {
    LocalSet::new()
        .run_until(async {
            let mut plan = plan(1);
            let rule =
                TrafficRule::Progress(ProgressPlan { stall_after: Duration::from_secs(20), ..Default::default() });
            plan.checks.push(CheckPlan { rule: Some(rule), ..CheckPlan::new("progress", "progress") });
            let play = play(plan);
            play.until_ready(Status::Pass).await;
            let force =
                |forced| Command::Override { check: "progress".to_owned(), forced, ttl: Duration::from_secs(60) };
            play.control.call(force(Some(Forced::Down))).await.unwrap();
            play.until("forced", |snapshot| snapshot.checks[1].state == CheckState::Down).await;
            play.control.call(force(None)).await.unwrap();
            play.until("let go", |snapshot| snapshot.checks[1].state == CheckState::Up).await;
            assert!(play.stage.hangs.borrow().is_empty(), "{:?}", play.stage.hangs.borrow());
            // What is hidden by hand is reported once it shows.
            play.control.call(force(Some(Forced::Up))).await.unwrap();
            let oldest_begun = Some(play.published.load().at);
            play.stage.traffic.set(Traffic { in_flight: 1, oldest_begun, ..Traffic::default() });
            sleep(Duration::from_secs(30)).await;
            assert!(play.stage.hangs.borrow().is_empty(), "{:?}", play.stage.hangs.borrow());
            play.control.call(force(None)).await.unwrap();
            play.until("hung", |snapshot| snapshot.checks[1].state == CheckState::Down).await;
            let hangs = play.stage.hangs.borrow().clone();
            assert!(matches!(hangs.as_slice(), [reason] if reason.contains("stalled")), "{hangs:?}");
        })
        .await;
}
