//! Whose answers count: beside work a short question's says nothing of the model server, good or bad.

use crate::engine::{
    CheckId, CheckPlan, Ends, Engine, Input, Member, Origins, OutcomesPlan, Plan, Subject, Traffic, TrafficRule,
};
use crate::limits::{ASIDE_MAX, OUTCOMES_PAUSE, OUTCOMES_WORK_MEMORY};

use super::*;

const WELL: &str = "200 OK";
const FAILED: &str = "500 Internal Server Error";

/// A client and the model server behind the plane, one request after the other.
struct Scene {
    plane: Plane,
    client: Wire,
    server: Wire,
}

impl Scene {
    /// With two addresses, so that ends are counted for each; the second is closed.
    async fn start() -> Self {
        let model = Model::start().await;
        let plane = Plane::start(&[model.address, SocketAddr::from(([127, 0, 0, 1], 1))], Setting::default());
        plane.judge(|snapshot| snapshot.backends = only(BackendState::Up));
        let mut client = plane.client().await;
        client.send(get("/first")).await;
        let mut server = model.accept().await;
        server.head().await;
        server.send("HTTP/1.1 404 Not Found\r\ncontent-length: 1\r\n\r\nx").await;
        client.until("x").await;
        Self { plane, client, server }
    }

    /// One request by `caller`, answered so after `after`.
    async fn ask(&mut self, method: &str, caller: u64, answer: &str, after: Duration) {
        let head = format!("{method} /v2 HTTP/1.1\r\nhost: model\r\nx-forwarded-for: 192.0.2.{caller}\r\n");
        self.client.send(format!("{head}content-length: 0\r\n\r\n")).await;
        self.server.head().await;
        tokio::time::sleep(after).await;
        self.server.send(format!("HTTP/1.1 {answer}\r\ncontent-length: 1\r\n\r\nx")).await;
        self.client.until("x").await;
        self.plane.until("it has ended", |counters| counters.in_flight() == 0).await;
    }

    async fn get(&mut self, answer: &str) {
        self.ask("GET", 9, answer, Duration::ZERO).await;
    }

    async fn post(&mut self, answer: &str) {
        self.ask("POST", 1, answer, Duration::ZERO).await;
    }

    /// Good and bad ends as `outcomes` is told of them, by origin, and of the one address.
    fn ends(&self) -> [(u64, u64); 3] {
        let counters = self.plane.counters();
        let callers = &counters.origins().shares[..Origins::CALLERS];
        let by_caller = callers.iter().fold((0, 0), |sum, share| (sum.0 + share.0, sum.1 + share.1));
        let (traffic, address) = (counters.traffic(), self.address());
        [(traffic.succeeded, traffic.failed), by_caller, (address.succeeded, address.failed)]
    }

    fn address(&self) -> Ends {
        self.plane.shared.setup.load().upstreams.ends()[0]
    }
}

/// The first address in this state, the second closed.
fn only(state: BackendState) -> Arc<[BackendView]> {
    [backend(0, state), backend(1, BackendState::Down)].into()
}

#[tokio::test]
async fn beside_work_short_questions_count_as_nothing_and_without_it_they_are_the_work() {
    let mut scene = Scene::start().await;
    scene.get(WELL).await;
    scene.get(FAILED).await;
    assert_eq!(scene.ends(), [(1, 1); 3], "nobody asks for anything else");
    scene.post(FAILED).await;
    assert_eq!(scene.ends(), [(1, 2); 3]);
    for method in ["GET", "OPTIONS"] {
        scene.ask(method, 9, WELL, Duration::ZERO).await;
        scene.ask(method, 9, FAILED, Duration::ZERO).await;
    }
    assert_eq!(scene.ends(), [(1, 2); 3], "its front gives both");
    assert_eq!(scene.address().row, 2, "and breaks no row");
    scene.ask("GET", 9, WELL, ASIDE_MAX + Duration::from_millis(100)).await;
    assert_eq!(scene.ends(), [(2, 2); 3], "no front takes that long");
}

#[tokio::test]
async fn a_question_on_trial_gives_the_place_back_and_decides_nothing() {
    let mut scene = Scene::start().await;
    scene.post(FAILED).await;
    scene.plane.judge(|snapshot| {
        snapshot.trial = true;
        snapshot.backends = only(BackendState::Probation);
    });
    scene.get(WELL).await;
    let Ends { trials_succeeded, trials_failed, trials_unanswered, trying, .. } = scene.address();
    assert_eq!((trials_succeeded, trials_failed, trials_unanswered, trying), (0, 0, 0, false));
    assert_eq!(scene.ends(), [(0, 1); 3]);
    scene.post(WELL).await;
    assert_eq!(scene.address().trials_succeeded, 1);
    assert_eq!(scene.ends(), [(1, 1); 3]);
}

#[tokio::test]
async fn no_answer_to_a_question_is_a_failure_beside_work_too() {
    let mut scene = Scene::start().await;
    scene.post(WELL).await;
    scene.client.send("GET / HTTP/1.1\r\nhost: model\r\n\r\n").await;
    scene.server.head().await;
    scene.server.send("no answer at all\r\n\r\n").await;
    scene.client.until("502").await;
    scene.plane.until("it has ended", |counters| counters.in_flight() == 0).await;
    assert_eq!(scene.ends(), [(1, 1); 3]);
}

#[test]
fn work_is_remembered_over_all_workers_and_not_for_ever() {
    let counters = Counters::new(2, Clock::start());
    let came = Time::from_secs(1000);
    let tells = |begun: Time, took| {
        let flight = counters.worker(0).begin(begun, Duration::ZERO);
        counters.worker(0).flights().asks(flight);
        let tells = counters.tells(0, flight, begun + took);
        counters.worker(0).end(flight, begun + took);
        tells
    };
    let short = Duration::from_millis(999);
    assert!(tells(came, short), "there was no work yet");
    counters.worker(1).flights().work_comes(came);
    assert!(!tells(came, short) && tells(came, ASIDE_MAX));
    assert!(!tells(came + (OUTCOMES_WORK_MEMORY - Duration::from_secs(1)), short));
    assert!(tells(came + OUTCOMES_WORK_MEMORY, short));
}

/// `outcomes` as the preset of Triton has it, required by readiness.
fn judge() -> Engine {
    let rule = OutcomesPlan { min_requests: 5, consecutive_failures: 3, ..OutcomesPlan::default() };
    let outcomes = CheckPlan {
        rule: Some(TrafficRule::Outcomes(rule)),
        subject: Subject::Server,
        ..CheckPlan::new("outcomes", "outcomes")
    };
    let mut plan = Plan { checks: vec![outcomes], ..Plan::default() };
    plan.ready.require = vec![Member::Check(CheckId(0))];
    Engine::new(Time::ZERO, Arc::new(plan), 1)
}

/// Tells the engine at this second what the plane has counted of ends; whether it lets trials in, or nothing.
fn told(engine: &mut Engine, second: u64, scene: &Scene) -> (bool, bool) {
    let now = Time::from_secs(second);
    let Traffic { succeeded, failed, .. } = scene.plane.counters().traffic();
    engine.handle_timeout(now);
    engine.handle_input(now, Input::Origins(Box::new(scene.plane.counters().origins())));
    engine.handle_input(now, Input::Traffic(Traffic { succeeded, failed, ..Traffic::default() }));
    while engine.poll_output().is_some() {}
    let snapshot = engine.snapshot();
    (snapshot.trial, snapshot.ready.status == Status::Fail)
}

/// How long it takes from `second` on until a trial may pass.
fn paused(engine: &mut Engine, second: &mut u64, scene: &Scene) -> Duration {
    let since = *second;
    while told(engine, *second, scene) != (true, false) {
        *second += 1;
        assert!(*second < since + 100, "no trial");
    }
    Duration::from_secs(*second - since)
}

#[tokio::test]
async fn failing_work_beside_good_polls_is_found_and_a_poll_does_not_end_the_trial() {
    let (mut scene, mut engine) = (Scene::start().await, judge());
    assert_eq!(told(&mut engine, 1, &scene), (false, false));
    let mut second = 1;
    while !told(&mut engine, second, &scene).1 {
        assert!(second < 10, "not found: {:?}", scene.ends());
        second += 1;
        scene.ask("POST", second % 3, FAILED, Duration::ZERO).await;
        scene.get(WELL).await;
    }
    assert_eq!(paused(&mut engine, &mut second, &scene), OUTCOMES_PAUSE);
    for _ in 0..5 {
        scene.get(WELL).await;
        second += 1;
        assert_eq!(told(&mut engine, second, &scene), (true, false), "only work decides");
    }
    scene.post(FAILED).await;
    second += 1;
    assert_eq!(told(&mut engine, second, &scene), (false, true));
    assert_eq!(paused(&mut engine, &mut second, &scene), 2 * OUTCOMES_PAUSE, "the pause has grown");
    scene.post(WELL).await;
    assert_eq!(told(&mut engine, second + 1, &scene), (false, false));
}
