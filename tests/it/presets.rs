//! Every preset through a whole life of its server: the real engine and the real checks against a stand-in that answers
//! byte for byte as the server is documented to, in virtual time.
//!
//! The runtime's clock stands still but for the steps that the test takes, so that a startup budget of half an hour
//! costs a second. What the traffic plane would have counted, the test tells the engine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Toml};
use probegate::checks::Collectors;
use probegate::clock::Clock;
use probegate::config::{self, Config, Overrides, PRESETS};
use probegate::engine::{Attempt, Cause, CheckId, CheckState, Engine, Input, Outcome, Output, Snapshot, Time, Traffic};
use serde::Deserialize;
use tokio::task::{AbortHandle, JoinSet};

use super::stand_in::{Script, StandIn};

/// A step of virtual time, and the pace at which the traffic plane tells what it has counted.
const STEP: Duration = Duration::from_millis(250);

/// A server's life, as its file tells it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    preset: String,
    #[serde(default)]
    models: Vec<String>,
    /// More configuration, right behind `[upstream]`. `{side}` is the second port.
    #[serde(default)]
    config: String,
    answers: std::collections::BTreeMap<String, String>,
    states: std::collections::BTreeMap<String, std::collections::BTreeMap<String, String>>,
    life: Vec<Phase>,
}

/// One phase of it and what Probegate has to say meanwhile.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Phase {
    state: String,
    #[serde(default)]
    traffic: Load,
    #[serde(rename = "for")]
    length: String,
    /// The answers of `/startup`, `/ready` and `/health` once it has seen what there is to see; 0 is either.
    answers: [u16; 3],
    /// By then they must be so, and stay so. Default 30s.
    within: Option<String>,
    /// Before that they must not be so.
    not_before: Option<String>,
    /// The check that a gate names as its reason at the end.
    decides: Option<String>,
    /// A check that is down at the end, whatever the gates make of it.
    down: Option<String>,
}

/// What the proxy sees.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Load {
    #[default]
    None,
    /// Requests come and go.
    Moving,
    /// Requests are pending, and nothing comes.
    Hung,
    /// Every request ends at once, with a 500.
    Failing,
}

fn span(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/servers")
}

fn read(name: &str) -> Server {
    let file = folder().join(format!("{name}.toml"));
    Figment::from(Toml::file_exact(&file)).extract().unwrap_or_else(|error| panic!("{error}"))
}

/// What a server answers, for whoever wants to run it.
pub(crate) fn script(name: &str) -> Script {
    let server = read(name);
    Script { answers: server.answers, states: server.states }
}

/// The sidecar's judging half: engine and checks, stepped by hand.
struct Judge {
    clock: Clock,
    engine: Engine,
    collectors: Arc<Collectors>,
    running: JoinSet<(CheckId, Attempt, Outcome)>,
    handles: HashMap<Attempt, AbortHandle>,
    traffic: Traffic,
}

impl Judge {
    fn new(config: &Config) -> Self {
        let clock = Clock::start();
        Self {
            clock,
            engine: Engine::new(clock.now(), Arc::clone(&config.engine), 7),
            collectors: Collectors::new(config, clock, None),
            running: JoinSet::new(),
            handles: HashMap::new(),
            traffic: Traffic::default(),
        }
    }

    /// One step: what is due, what the traffic plane tells, every attempt that can end.
    async fn step(&mut self, server: &StandIn, load: Load, since: Time) {
        let now = self.clock.now();
        self.engine.handle_timeout(now);
        self.load(server, load, now, since);
        self.engine.handle_input(now, Input::Traffic(self.traffic));
        self.attend(server).await;
        // A deadline must not be met together with the one that is a tenth after it.
        let longest = if self.running.is_empty() { STEP } else { STEP / 5 };
        let due = self.engine.poll_timeout().map_or(longest, |due| due.since(now));
        let step = due.clamp(Duration::from_millis(1), longest);
        tokio::time::advance(step).await;
    }

    fn load(&mut self, server: &StandIn, load: Load, now: Time, since: Time) {
        let traffic = &mut self.traffic;
        traffic.last_beat = Some(now);
        traffic.in_flight = if load == Load::None { 0 } else { 4 };
        let begun = if load == Load::Hung { since } else { now };
        (traffic.oldest_begun, traffic.quietest_since) = (Some(begun), Some(begun));
        match load {
            Load::None => (traffic.oldest_begun, traffic.quietest_since) = (None, None),
            Load::Moving => {
                traffic.last_byte = Some(now);
                traffic.succeeded += 1;
                server.work_off(1);
            }
            Load::Hung => {}
            Load::Failing => {
                traffic.last_byte = Some(now);
                traffic.failed += 1;
            }
        }
    }

    /// Starts and ends attempts until each that is left waits for a server that keeps silent.
    async fn attend(&mut self, server: &StandIn) {
        let mut held = server.held();
        let mut idle = 0;
        loop {
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Start { check, attempt, .. } => {
                        let timeout = self.engine.plan().checks[check.index()].timeout;
                        let trying = self.collectors.attempt(check, timeout);
                        let handle = self.running.spawn(async move { (check, attempt, trying.await) });
                        self.handles.insert(attempt, handle);
                    }
                    Output::Cancel { attempt, .. } => {
                        if let Some(handle) = self.handles.remove(&attempt) {
                            handle.abort();
                        }
                    }
                    Output::Transition(_) => {}
                }
            }
            if self.running.is_empty() {
                return;
            }
            let ended = if self.running.len() <= *held.borrow_and_update() {
                idle += 1;
                if idle > 30 {
                    return;
                }
                tokio::task::yield_now().await;
                self.running.try_join_next()
            } else {
                tokio::select! {
                    ended = self.running.join_next() => ended,
                    _ = held.changed() => None,
                }
            };
            // An attempt that was cancelled ends without an outcome.
            if let Some(Ok((check, attempt, outcome))) = ended {
                self.handles.remove(&attempt);
                self.engine.handle_input(self.clock.now(), Input::Result { check, attempt, outcome });
            }
        }
    }
}

/// Lives one phase and holds the answers against what the file expects.
async fn live(judge: &mut Judge, server: &mut StandIn, phase: &Phase, at: &str) {
    server.become_state(&phase.state);
    server.settle().await;
    let began = judge.clock.now();
    let end = began + span(&phase.length);
    let within = began + phase.within.as_deref().map_or(Duration::from_secs(30), span);
    let not_before = began + phase.not_before.as_deref().map_or(Duration::ZERO, span);
    while judge.clock.now() < end {
        judge.step(server, phase.traffic, began).await;
        let now = judge.clock.now();
        let snapshot = judge.engine.snapshot();
        let fits = answers(&snapshot).iter().zip(phase.answers).all(|(is, wanted)| wanted == 0 || *is == wanted);
        let after = now.since(began);
        assert!(fits || now <= within, "{at}, after {after:?}: not {:?}\n{}", phase.answers, told(&snapshot));
        assert!(!fits || not_before <= now, "{at}: already after {after:?}\n{}", told(&snapshot));
    }
    let snapshot = judge.engine.snapshot();
    if let Some(name) = &phase.decides {
        let gates = [&snapshot.startup, &snapshot.ready, &snapshot.health];
        let mut causes = gates.iter().flat_map(|gate| &gate.why);
        let named = causes.any(|why| match why.cause {
            Cause::Check(check) | Cause::Degraded(check) => snapshot.check(check).name == *name,
            _ => false,
        });
        assert!(named, "{at}: {name} does not decide\n{}", told(&snapshot));
    }
    if let Some(name) = &phase.down {
        let check = snapshot.check_named(name).unwrap_or_else(|| panic!("{at}: no check is called {name}"));
        assert_eq!(check.state, CheckState::Down, "{at}: {name}\n{}", told(&snapshot));
    }
}

fn answers(snapshot: &Snapshot) -> [u16; 3] {
    [&snapshot.startup, &snapshot.ready, &snapshot.health].map(|gate| if gate.status.passes() { 200 } else { 503 })
}

/// A judgement for whoever reads a failed test.
fn told(snapshot: &Snapshot) -> String {
    let mut text = format!("{:?} {:?}\n", answers(snapshot), snapshot.instance);
    for gate in [&snapshot.startup, &snapshot.ready, &snapshot.health] {
        text += &format!("  {:?}: {:?}\n", gate.gate, gate.why.iter().map(|why| &why.text).collect::<Vec<_>>());
    }
    for check in snapshot.checks.iter() {
        let last = check.last.as_ref().map(|last| &last.reason);
        text += &format!("  {}: {:?} {} (last: {last:?})\n", check.name, check.state, check.reason);
    }
    text
}

fn whole_life(name: &str) {
    let server = read(name);
    assert_eq!(server.preset, name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        // While a blocking task runs, time moves by our steps alone. Should a test wait for ever, this ends, and
        // time with it: every deadline passes, and the test fails rather than hangs.
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let guard = tokio::task::spawn_blocking(move || finished.recv_timeout(Duration::from_secs(240)));
        let mut stand_in = StandIn::new(Script { answers: server.answers, states: server.states });
        let [main, side] = stand_in.addresses.map(|address| address.to_string());
        let text = format!(
            "[upstream]\naddress = \"{main}\"\npreset = \"{name}\"\nmodels = {:?}\n{}",
            server.models,
            server.config.replace("{side}", &side)
        );
        let config =
            config::from_str(Path::new(name), &text, &Overrides::default()).unwrap_or_else(|p| panic!("{text}\n{p}"));
        let mut judge = Judge::new(&config);
        for (index, phase) in server.life.iter().enumerate() {
            let at = format!("{name}, phase {} ({}, {:?})", index + 1, phase.state, phase.traffic);
            live(&mut judge, &mut stand_in, phase, &at).await;
        }
        drop(finish);
        let _ = guard.await;
    });
}

/// One test a preset, so that they run side by side and a failure has its name.
macro_rules! lives {
    ($($test:ident = $name:literal),* $(,)?) => {
        /// The presets that have a test here.
        const TESTED: &[&str] = &[$($name),*];
        $(
            #[test]
            fn $test() {
                whole_life($name);
            }
        )*
    };
}

lives! {
    bentoml_lives_as_its_preset_says = "bentoml",
    fastapi_lives_as_its_preset_says = "fastapi",
    flask_lives_as_its_preset_says = "flask",
    any_server_lives_as_the_generic_preset_says = "generic",
    kserve_v1_lives_as_its_preset_says = "kserve-v1",
    llamacpp_lives_as_its_preset_says = "llamacpp",
    localai_lives_as_its_preset_says = "localai",
    mlflow_lives_as_its_preset_says = "mlflow",
    mlserver_lives_as_its_preset_says = "mlserver",
    nim_lives_as_its_preset_says = "nim",
    an_open_inference_server_lives_as_its_preset_says = "oip-v2",
    ollama_lives_as_its_preset_says = "ollama",
    ray_serve_lives_as_its_preset_says = "ray-serve",
    seldon_v2_lives_as_its_preset_says = "seldon-v2",
    sglang_lives_as_its_preset_says = "sglang",
    tei_lives_as_its_preset_says = "tei",
    tensorflow_serving_lives_as_its_preset_says = "tensorflow-serving",
    tgi_lives_as_its_preset_says = "tgi",
    torchserve_lives_as_its_preset_says = "torchserve",
    triton_lives_as_its_preset_says = "triton",
    vllm_lives_as_its_preset_says = "vllm",
}

#[test]
fn every_preset_has_a_life_to_be_tested_by() {
    let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    let mut tested = TESTED.to_vec();
    tested.sort_unstable();
    assert_eq!(tested, names);
}
