//! Mirrors of upstream's tests of the prober manager and of the HTTP prober (§12): what a sync makes of results, and
//! which codes succeed. The worker's own tests stand beside it, the end-to-end ones in the trace's stories.

use serde_json::{Value, json};

use super::*;

const FIRST: Incarnation = Incarnation(1);

/// A world in which nothing happens.
struct Still;

impl World for Still {
    fn probe(&mut self, _: Time, _: usize, _: ProbeKind, _: &ProbeSpec) -> Reply {
        Reply { after: None, answer: Answer::Failure }
    }

    fn started(&mut self, _: Time, _: usize) -> Option<(Duration, u8)> {
        None
    }

    fn terminate(&mut self, _: Time, _: usize) -> Option<Duration> {
        None
    }

    fn exited(&mut self, _: Time, _: usize, _: u8) {}

    fn hook_begins(&mut self, _: Time, _: usize, _: &Hook) -> Option<Duration> {
        None
    }

    fn hook_ends(&mut self, _: Time, _: usize, _: &Hook) {}

    fn status(&mut self, _: Time, _: Option<&PodStatus>) {}
}

/// Containers of a pod in which everything runs, each with results of its probes; and what a sync makes of them.
fn published(spec: Value, states: &[ContainerState], results: &[(usize, ProbeKind, Verdict)]) -> Vec<ContainerStatus> {
    let raw: RawPod = serde_json::from_value(spec).unwrap();
    let rng = crate::lab::rng::Rng::new(1);
    let mut pod = Pod::new(raw.validate().unwrap().into(), Knobs::default().into(), rng);
    pod.cached.copy_from_slice(states);
    for (container, kind, verdict) in results {
        let mut workers = pod.workers.iter_mut();
        let worker = workers.find(|worker| worker.container == *container && worker.kind == *kind).unwrap();
        let started = *kind != ProbeKind::Startup;
        let seen = Seen { incarnation: Some(FIRST), running_for: Some(100), started, ..Seen::default() };
        for _ in 0..3 {
            if worker.look(&seen).0 == Look::Probe {
                worker.judge(Some(*verdict));
            }
        }
    }
    let mut agenda = Vec::new();
    pod.publish(Time::from_secs(100), &mut Io { agenda: &mut agenda, world: &mut Still });
    pod.status.containers
}

fn probe() -> Value {
    json!({ "httpGet": { "path": "/", "port": 80 } })
}

const RUNNING: ContainerState = ContainerState::Running { incarnation: FIRST, since: Time::ZERO };

const fn ended(code: u8) -> ContainerState {
    ContainerState::Exited { incarnation: FIRST, at: Time::ZERO, code, is_waiting: false }
}

#[test]
fn test_update_pod_status() {
    let spec = json!({ "containers": [
        { "name": "unprobed" },
        { "name": "probed_ready", "readinessProbe": probe() },
        { "name": "probed_pending", "readinessProbe": probe() },
        { "name": "probed_unready", "readinessProbe": probe() },
        { "name": "not_started_readiness", "startupProbe": probe(), "readinessProbe": probe() },
        { "name": "started_readiness", "startupProbe": probe(), "readinessProbe": probe() },
        { "name": "started_no_readiness", "startupProbe": probe() },
        { "name": "terminated", "readinessProbe": probe() },
    ]});
    let states = [RUNNING, RUNNING, RUNNING, RUNNING, RUNNING, RUNNING, RUNNING, ended(1)];
    let results = [
        (1, ProbeKind::Readiness, Verdict::Success),
        (3, ProbeKind::Readiness, Verdict::Failure),
        (4, ProbeKind::Readiness, Verdict::Success),
        (5, ProbeKind::Startup, Verdict::Success),
        (5, ProbeKind::Readiness, Verdict::Success),
        (6, ProbeKind::Startup, Verdict::Success),
        (7, ProbeKind::Readiness, Verdict::Success),
    ];
    let status = published(spec, &states, &results);
    let ready: Vec<bool> = status.iter().map(|status| status.is_ready).collect();
    let started: Vec<bool> = status.iter().map(|status| status.is_started).collect();
    assert_eq!(ready, [true, true, false, false, false, true, true, false]);
    assert_eq!(started, [true, true, true, true, false, true, true, false]);
}

#[test]
fn test_update_pod_status_with_init_containers() {
    let spec = json!({
        "initContainers": [
            { "name": "ended_well" },
            { "name": "ended_badly" },
            { "name": "runs" },
            { "name": "waits" },
            { "name": "sidecar", "restartPolicy": "Always" },
            { "name": "sidecar_not_started", "restartPolicy": "Always", "startupProbe": probe() },
            { "name": "sidecar_unready", "restartPolicy": "Always", "readinessProbe": probe() },
        ],
        "containers": [{ "name": "main" }],
    });
    let states =
        [ended(0), ended(1), RUNNING, ContainerState::Absent, RUNNING, RUNNING, RUNNING, ContainerState::Absent];
    let status = published(spec, &states, &[(6, ProbeKind::Readiness, Verdict::Failure)]);
    let ready: Vec<bool> = status.iter().map(|status| status.is_ready).collect();
    let started: Vec<bool> = status.iter().map(|status| status.is_started).collect();
    assert_eq!([ready[0], ready[1], ready[3], ready[7]], [true, false, false, false]);
    assert_eq!([ready[4], ready[5], ready[6]], [true, false, false]);
    assert_eq!(started, [false, false, true, false, true, false, true, false]);
}

#[test]
fn test_update_readiness() {
    let spec = || json!({ "containers": [{ "name": "app", "readinessProbe": probe() }] });
    let after = |verdict| published(spec(), &[RUNNING], &[(0, ProbeKind::Readiness, verdict)])[0].is_ready;
    assert!(after(Verdict::Success) && !after(Verdict::Failure));
    // A result that belongs to another instance of the container counts for nothing.
    let second = ContainerState::Running { incarnation: Incarnation(2), since: Time::ZERO };
    let status = published(spec(), &[second], &[(0, ProbeKind::Readiness, Verdict::Success)]);
    assert!(!status[0].is_ready);
}

#[test]
fn test_http_probe_checker_takes_200_to_399_for_success() {
    let cases = [
        (100, Answer::Failure),
        (199, Answer::Failure),
        (200, Answer::Success),
        (204, Answer::Success),
        (302, Answer::Success),
        (399, Answer::Success),
        (400, Answer::Failure),
        (404, Answer::Failure),
        (500, Answer::Failure),
        (503, Answer::Failure),
    ];
    for (code, answer) in cases {
        assert_eq!(Reply::http(code, Duration::ZERO).answer, answer, "{code}");
    }
    assert_eq!(Reply::REFUSED.answer, Answer::Failure);
}
