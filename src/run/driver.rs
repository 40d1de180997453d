//! The engine's driver: the one loop through which everything reaches the engine and comes out of it.
//!
//! Owns the engine, the attempts in flight and the moment of publishing. It decides nothing: what it is told
//! goes in, what comes out is carried out. Nothing in the loop waits for anything but the next event.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use super::around::Standing;
use super::attempts::{Attempts, Ended};
use super::hang::Hang;
use super::record::Recorder;
use super::recording::Recording;
use super::reload::{Asker, Look, Reloading, Source};
use super::throttle::Throttling;
use super::upstream::Resolved;
use super::watchdog::Pulse;
use crate::clock::Clock;
use crate::control::{Call, Command, Refusal};
use crate::engine::{
    BackendId, Changed, CheckId, CheckState, DrainPhase, Ends, Engine, Input, Origins, Output, Plan, Sign, Snapshot,
    Time, Traffic, Transition,
};
use crate::limits;
use crate::publish::Published;

/// One attempt, as a future that ends by its deadline.
pub(super) type Attempting = Pin<Box<dyn Future<Output = crate::engine::Outcome> + Send>>;

/// What the driver reaches outside the engine.
pub(super) trait World {
    /// One attempt, begun when polled, ended by `timeout`.
    fn attempt(&self, check: CheckId, timeout: Duration) -> Attempting;
    /// Tells the traffic plane what is published.
    fn apply(&self, snapshot: &Snapshot);
    /// Requests in flight in the traffic plane.
    fn in_flight(&self) -> u64;
    /// What the traffic plane has counted, for the engine to judge by. Those that come from now on share the model
    /// server with `left_over` more than are in flight.
    fn traffic(&self, left_over: u64) -> Traffic;
    /// How requests to each upstream address ended, in the order of the plan's backends.
    fn ends(&self) -> Vec<Ends>;
    /// The same by who asked.
    fn origins(&self) -> Origins;
    /// Leaves a report of a hang, before anybody acts on it.
    fn report_hang(&self, hang: &Hang<'_>);
    /// Notes a pushed heartbeat; the error is for whoever pushed.
    fn heartbeat(&self, check: &str, status: &str) -> Result<CheckId, Refusal>;
    /// Brings a new configuration to life: collectors first, so that the engine's next attempt is theirs.
    /// Returns the plan, and the settings that differ but wait for a restart. The error refuses all of it.
    fn adopt(&mut self, new: Resolved) -> Result<(Arc<Plan>, Vec<&'static str>), String>;
}

/// The driver's ears.
pub(super) struct Lines {
    pub(super) control: Receiver<Call>,
    /// From the traffic plane.
    pub(super) signs: Receiver<(BackendId, Sign)>,
    /// Names of checks whose evidence waits (a datagram on the notify socket).
    pub(super) pokes: Receiver<String>,
    /// `SIGHUP`.
    pub(super) hangup: Receiver<()>,
    /// Closes when the process ends.
    pub(super) stop: oneshot::Receiver<()>,
}

/// The parts that a driver is made of.
pub(super) struct Parts<W> {
    pub(super) clock: Clock,
    pub(super) engine: Engine,
    pub(super) world: W,
    pub(super) published: Arc<Published>,
    pub(super) recorder: Recorder,
    /// What happens to the engine, where it is kept.
    pub(super) recording: Option<Recording>,
    pub(super) pulse: Pulse,
    pub(super) throttling: Throttling,
    pub(super) source: Option<Source>,
    pub(super) standing: Arc<Standing>,
    pub(super) lines: Lines,
}

pub(super) struct Driver<W> {
    clock: Clock,
    engine: Engine,
    world: W,
    published: Arc<Published>,
    recorder: Recorder,
    recording: Option<Recording>,
    pulse: Pulse,
    throttling: Throttling,
    throttle_due: Time,
    traffic_due: Time,
    reloading: Reloading,
    standing: Arc<Standing>,
    attempts: Attempts,
    /// Told by the engine, not yet to people: that happens with the snapshot which shows them.
    transitions: Vec<Transition>,
    /// Names of the checks that let traffic in: they are not kept waiting.
    doors: HashSet<String>,
    shown: Shown,
}

/// What was last published.
struct Shown {
    revision: u64,
    at: Time,
    draining: bool,
    done: bool,
    /// A gate has turned or an upstream has moved since.
    urgent: bool,
}

/// What woke the loop.
enum Event {
    Ended(Ended),
    Called(Call),
    Signed(BackendId, Sign),
    Poked(String),
    HungUp,
    Looked(Look, Vec<Asker>),
    Due,
    Stop,
}

impl<W: World> Driver<W> {
    pub(super) fn new(parts: Parts<W>) -> (Self, Lines) {
        let now = parts.clock.now();
        let driver = Self {
            clock: parts.clock,
            doors: doors(parts.engine.plan()),
            engine: parts.engine,
            world: parts.world,
            published: parts.published,
            recorder: parts.recorder,
            recording: parts.recording,
            pulse: parts.pulse,
            throttling: parts.throttling,
            throttle_due: now,
            traffic_due: now,
            reloading: Reloading::new(parts.source, now),
            standing: parts.standing,
            attempts: Attempts::default(),
            transitions: Vec::new(),
            shown: Shown { revision: 0, at: now, draining: false, done: false, urgent: true },
        };
        driver.recorder.reloaded(true);
        (driver, parts.lines)
    }

    /// Drives until `lines.stop` closes. Attempts in flight are dropped then.
    pub(super) async fn run(mut self, mut lines: Lines) {
        loop {
            self.pulse.beat();
            self.carry_out();
            self.publish_if_due();
            match self.next_event(&mut lines).await {
                Event::Stop => break,
                event => self.handle(event),
            }
        }
        self.publish();
    }

    async fn next_event(&mut self, lines: &mut Lines) -> Event {
        let wake = self.clock.instant(self.wake());
        tokio::select! {
            // In this order: an end that is told late is worse than a result that is.
            biased;
            _ = &mut lines.stop => Event::Stop,
            Some(call) = lines.control.recv() => Event::Called(call),
            Some(()) = lines.hangup.recv() => Event::HungUp,
            Some((backend, sign)) = lines.signs.recv() => Event::Signed(backend, sign),
            ended = self.attempts.ended() => Event::Ended(ended),
            Some(check) = lines.pokes.recv() => Event::Poked(check),
            (look, askers) = self.reloading.looked() => Event::Looked(look, askers),
            () = tokio::time::sleep_until(wake) => Event::Due,
        }
    }

    /// When to turn the loop at the latest.
    fn wake(&self) -> Time {
        let now = self.clock.now();
        let tick = now + if self.is_draining() { limits::DRAIN_SAMPLE } else { limits::ENGINE_TICK };
        let publish = (self.engine.revision() != self.shown.revision).then(|| self.shown.at + limits::PUBLISH_INTERVAL);
        let traffic = (self.engine.wants_traffic() || self.engine.wants_ends()).then_some(self.traffic_due);
        [self.engine.poll_timeout(), self.reloading.due(), publish, traffic].into_iter().flatten().fold(tick, Time::min)
    }

    fn handle(&mut self, event: Event) {
        let now = self.clock.now();
        match event {
            Event::Ended(ended) => {
                self.take(ended, now);
                // Results that came together are judged together: one snapshot for all of them.
                while let Some(ended) = self.attempts.try_ended() {
                    self.carry_out();
                    self.take(ended, now);
                }
            }
            Event::Called(call) => self.obey(call, now),
            Event::Signed(backend, sign) => self.feed(now, Input::Sign { backend, sign }),
            Event::Poked(check) => {
                if let Some(check) = self.engine.plan().check_named(&check) {
                    self.feed(now, Input::RunNow { check });
                }
            }
            Event::HungUp => self.reloading.ask(now, None),
            Event::Looked(look, askers) => self.looked(look, askers, now),
            Event::Due | Event::Stop => {}
        }
        self.tick(now);
    }

    /// Whatever happens by time alone.
    fn tick(&mut self, now: Time) {
        self.tell_time(now);
        if self.throttle_due <= now {
            self.throttle_due = now + limits::THROTTLE_SAMPLE;
            if let Some(on) = self.throttling.sample(now) {
                self.carry_out();
                self.feed(now, Input::Throttled { on });
            }
        }
        if self.traffic_due <= now {
            self.traffic_due = now + limits::TRAFFIC_SAMPLE;
            if self.engine.wants_ends() {
                self.carry_out();
                let ends = self.world.ends();
                self.feed(now, Input::Ends(ends));
            }
            if self.engine.wants_origins() {
                self.carry_out();
                let origins = self.world.origins();
                if self.engine.origins() != Some(&origins) {
                    self.feed(now, Input::Origins(Box::new(origins)));
                }
            }
            if self.engine.wants_traffic() {
                self.carry_out();
                let traffic = self.world.traffic(self.engine.left_over());
                self.feed(now, Input::Traffic(traffic));
                self.recorder.stalled(self.engine.stalled_for());
            }
        }
        if self.is_draining() {
            self.carry_out();
            let requests = self.world.in_flight();
            self.feed(now, Input::InFlight { requests });
        }
        self.reloading.step(now);
    }

    fn feed(&mut self, now: Time, input: Input) {
        if let Some(recording) = &mut self.recording {
            recording.input(now, &input);
        }
        self.engine.handle_input(now, input);
    }

    fn tell_time(&mut self, now: Time) {
        if let Some(recording) = &mut self.recording {
            recording.timeout(now);
        }
        self.engine.handle_timeout(now);
    }

    fn take(&mut self, ended: Ended, now: Time) {
        self.recorder.attempt(ended.check, &ended.outcome, now);
        let Ended { check, attempt, outcome } = ended;
        self.feed(now, Input::Result { check, attempt, outcome });
    }

    /// Does what the engine asks for.
    fn carry_out(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Start { check, attempt, deadline } => {
                    // The configured time, which the reason of a timeout tells; the moments since the engine
                    // spoke are far within the engine's own slack past its deadline.
                    let configured = self.engine.plan().checks.get(check.index()).map(|check| check.timeout);
                    let timeout = configured.unwrap_or_else(|| deadline.since(self.clock.now()));
                    self.attempts.start(check, attempt, self.world.attempt(check, timeout));
                }
                Output::Cancel { attempt, .. } => self.attempts.cancel(attempt),
                Output::Transition(transition) => {
                    if let Some(recording) = &mut self.recording {
                        recording.told(&transition);
                    }
                    self.report_if_hang(&transition);
                    self.shown.urgent |= match &transition.what {
                        Changed::Check(name) => self.doors.contains(name),
                        _ => true,
                    };
                    if transition.what == Changed::Drain {
                        self.shown.draining = true;
                        self.shown.done |= transition.to == DrainPhase::Done.as_str();
                    }
                    self.transitions.push(transition);
                }
            }
        }
    }

    /// A `progress` check has gone down: the evidence is written down while it is still there. Forced down by
    /// hand, it has none, and the last real hang stays the last.
    fn report_if_hang(&self, transition: &Transition) {
        let Changed::Check(name) = &transition.what else { return };
        let Some(check) = self.engine.plan().check_named(name).filter(|_| transition.to == CheckState::Down.as_str())
        else {
            return;
        };
        let is_judged = self.engine.plan().checks[check.index()].progress().is_some();
        if !is_judged || self.engine.is_forced(check) {
            return;
        }
        self.world.report_hang(&Hang {
            at: transition.at,
            check,
            name,
            reason: &transition.reason,
            readings: &self.engine.counter_readings(check),
            traffic: self.engine.traffic(),
        });
    }

    const fn is_draining(&self) -> bool {
        self.shown.draining && !self.shown.done
    }

    fn publish_if_due(&mut self) {
        let changed = self.engine.revision() != self.shown.revision;
        if changed && (self.shown.urgent || self.shown.at + limits::PUBLISH_INTERVAL <= self.clock.now()) {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let snapshot = self.engine.snapshot();
        self.world.apply(&snapshot);
        self.recorder.published(&snapshot);
        for transition in self.transitions.drain(..) {
            self.recorder.transition(&transition, &snapshot);
        }
        self.shown.revision = snapshot.revision;
        self.shown.at = self.clock.now();
        self.shown.urgent = false;
        self.published.store(snapshot);
    }

    // Words from people.

    fn obey(&mut self, call: Call, now: Time) {
        let Call { command, reply } = call;
        let answer = match command {
            Command::Reload => return self.reloading.ask(now, Some(reply)),
            Command::Drain => {
                self.feed(now, Input::Drain);
                Ok("draining".to_owned())
            }
            Command::SetReady(enabled) => {
                self.feed(now, Input::SetReady { enabled });
                Ok(if enabled { "the checks decide again" } else { "out of rotation by hand" }.to_owned())
            }
            Command::Override { check, forced, ttl } => self.known(&check).map(|id| {
                self.feed(now, Input::Override { check: id, forced, ttl });
                match forced {
                    Some(forced) => {
                        format!("{check} is {} for {}", forced.as_str(), humantime::format_duration(ttl))
                    }
                    None => format!("{check} speaks for itself again"),
                }
            }),
            Command::Heartbeat { check, status } => self.world.heartbeat(&check, &status).map(|id| {
                self.feed(now, Input::RunNow { check: id });
                "noted".to_owned()
            }),
        };
        // Whoever asks next must find it so: the answer follows the snapshot.
        self.carry_out();
        self.publish();
        let _ = reply.send(answer);
    }

    fn known(&self, name: &str) -> Result<CheckId, Refusal> {
        self.engine.plan().check_named(name).ok_or_else(|| Refusal::NotFound(format!("no check is named \"{name}\"")))
    }

    // Reload.

    fn looked(&mut self, look: Look, askers: Vec<Asker>, now: Time) {
        let answer = match look {
            Look::Unchanged => Ok("the file has not changed".to_owned()),
            Look::Loaded(new) => self.adopt(*new, now),
            Look::Refused(problems) => {
                self.refuse(&problems);
                Err(problems)
            }
        };
        for asker in askers {
            let _ = asker.send(answer.clone().map_err(Refusal::Invalid));
        }
    }

    fn adopt(&mut self, new: Resolved, now: Time) -> Result<String, String> {
        let (plan, needs_restart) = self.world.adopt(new).inspect_err(|problem| self.refuse(problem))?;
        self.recorder.adopt(&plan);
        self.doors = doors(&plan);
        let checks = plan.checks.len();
        self.feed(now, Input::Reload { plan });
        self.carry_out();
        self.recorder.reloaded(true);
        self.standing.accepted(needs_restart.clone());
        self.publish();
        self.recorder.show_checks(&self.published.load());
        if needs_restart.is_empty() {
            tracing::info!(checks, "the configuration is reloaded");
            Ok(format!("reloaded: {checks} checks"))
        } else {
            let waiting = needs_restart.join(", ");
            tracing::warn!(checks, "the configuration is reloaded, but changes to {waiting} need a restart");
            Ok(format!("reloaded: {checks} checks; changes to {waiting} need a restart"))
        }
    }

    fn refuse(&self, problems: &str) {
        self.recorder.reloaded(false);
        tracing::error!("the changed configuration is refused, the old one stays:");
        for line in problems.lines() {
            tracing::error!("  {line}");
        }
        self.standing.refused(problems);
    }
}

/// The checks that open or close an upstream.
fn doors(plan: &Plan) -> HashSet<String> {
    plan.backends.iter().filter_map(|backend| plan.checks.get(backend.check.index())).map(|c| c.name.clone()).collect()
}

#[cfg(test)]
mod tests;
