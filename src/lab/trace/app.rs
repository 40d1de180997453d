//! The app of the recordings: answers what it was told to, and notes what happens to it.

use std::time::Duration;

use serde_json::{Value, json};

use super::file::{Clock, Program};
use crate::engine::Time;
use crate::lab::kubelet::{Handler, Hook, KILLED, PodSpec, PodStatus, PortRef, ProbeKind, ProbeSpec, Reply, World};

/// From SIGTERM to the app's end: it has nothing to finish.
const EXIT_TAKES: Duration = Duration::from_millis(2);

/// The pod's containers, and the notebook.
pub(super) struct Apps<'a> {
    pod: &'a PodSpec,
    programs: &'a [Program],
    lives: Vec<Life>,
    last_status: Option<Value>,
    pub(super) deleted_at: Option<Time>,
    /// What was noted, with its time.
    pub(super) notes: Vec<(Time, &'static str, Value)>,
    /// Something that an EndpointSlice shows has changed.
    pub(super) endpoint_wanted: Option<Value>,
    pub(super) has_endpoint_change: bool,
    /// The first container's first start: time zero of a recording.
    pub(super) zero: Option<Time>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Life {
    first_start: Option<Time>,
    started: Option<Time>,
    is_running: bool,
}

impl<'a> Apps<'a> {
    pub(super) fn new(pod: &'a PodSpec, programs: &'a [Program]) -> Self {
        Self {
            pod,
            programs,
            lives: vec![Life::default(); pod.containers.len()],
            last_status: None,
            deleted_at: None,
            notes: Vec::new(),
            endpoint_wanted: None,
            has_endpoint_change: false,
            zero: None,
        }
    }

    fn note(&mut self, now: Time, container: usize, event: &str) {
        let name = &self.pod.containers[container].name;
        self.notes.push((now, "app", json!({ "container": name, "event": event })));
    }

    /// A request arrives at a port: noted by the app that listens there, if one does.
    fn request(&mut self, now: Time, port: &PortRef, path: &str) -> Reply {
        let PortRef::Number(port) = port else { return Reply::REFUSED };
        let Some(container) = self.listener(*port, now) else { return Reply::REFUSED };
        let (code, delay) = self.answer(container, path, now);
        let name = &self.pod.containers[container].name;
        let detail = json!({
            "container": name, "event": "probe", "path": path, "code": code, "delay": json_seconds(delay)
        });
        self.notes.push((now, "app", detail));
        Reply::http(code, delay)
    }

    fn listener(&self, port: u16, now: Time) -> Option<usize> {
        let container = self.pod.owner_of_port(port)?;
        let life = self.lives[container];
        let opens = life.started? + self.programs[container].listen_after.unwrap_or_default();
        (life.is_running && now >= opens).then_some(container)
    }

    fn answer(&self, container: usize, path: &str, now: Time) -> (u16, Duration) {
        let life = self.lives[container];
        let zero = match self.programs[container].clock {
            Clock::LastStart => life.started,
            Clock::FirstStart => life.first_start,
        };
        self.programs[container].answer(path, now.since(zero.unwrap_or(now)))
    }

    /// A command run in a container: `sleep N` and the app's own `N` last that long; an argument that is a
    /// path asks the app there what it would answer.
    fn exec(&self, container: usize, command: &[String], now: Time) -> Reply {
        let path = command.iter().skip(1).find(|word| word.starts_with('/') && is_a_path_of(self.programs, word));
        let (code, delay) = path.map_or((200, Duration::ZERO), |path| self.answer(container, path, now));
        let fails = command.first().is_some_and(|program| base_name(program) == "false");
        Reply::http(if fails { 500 } else { code }, delay + lasts(command).unwrap_or_default())
    }

    fn endpoint(&self, status: &PodStatus) -> Value {
        let is_terminating = self.deleted_at.is_some();
        if status.phase.is_over() || self.zero.is_none() {
            return Value::Null;
        }
        json!({
            "ready": status.is_ready && !is_terminating, "serving": status.is_ready, "terminating": is_terminating
        })
    }

    pub(super) fn deletion_asked(&mut self, now: Time) {
        self.deleted_at = Some(now);
        self.notes.push((now, "delete-asked", json!({})));
    }
}

/// A word is a path only if some app was told about it: a file name of the container is not.
fn is_a_path_of(programs: &[Program], word: &str) -> bool {
    programs.iter().any(|program| program.answers.iter().any(|answer| answer.path == word))
}

fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

fn is_own(command: &[String]) -> bool {
    command.first().is_some_and(|program| base_name(program) == "target")
}

/// How long a command takes: the number after `target` or `sleep`, in a shell's words too.
fn lasts(command: &[String]) -> Option<Duration> {
    let words: Vec<&str> = command.iter().flat_map(|word| word.split([' ', ';'])).collect();
    let at = words.iter().position(|word| matches!(base_name(word), "sleep" | "target"))?;
    let number: f64 = words.get(at + 1)?.trim_end_matches('s').parse().ok()?;
    Duration::try_from_secs_f64(number).ok()
}

/// Seconds as the recordings write them: whole numbers without a point.
pub(super) fn json_seconds(span: Duration) -> Value {
    if span.subsec_nanos() == 0 { json!(span.as_secs()) } else { json!(span.as_millis() as f64 / 1000.0) }
}

impl World for Apps<'_> {
    fn probe(&mut self, now: Time, container: usize, _kind: ProbeKind, probe: &ProbeSpec) -> Reply {
        match &probe.handler {
            Handler::Exec { command } => self.exec(container, command, now),
            Handler::Http { host: Some(_), .. } | Handler::Tcp { host: Some(_), .. } => Reply::REFUSED,
            Handler::Http { path, port, .. } => self.request(now, port, path),
            Handler::Tcp { port: PortRef::Number(port), .. } => match self.listener(*port, now) {
                Some(_) => Reply::http(200, Duration::ZERO),
                None => Reply::REFUSED,
            },
            // The app of the recordings speaks HTTP alone: a health check over gRPC gets no SERVING from it.
            Handler::Tcp { .. } | Handler::Grpc { .. } => Reply::REFUSED,
        }
    }

    fn started(&mut self, now: Time, container: usize) -> Option<(Duration, u8)> {
        let life = &mut self.lives[container];
        life.first_start.get_or_insert(now);
        life.started = Some(now);
        life.is_running = true;
        self.zero.get_or_insert(now);
        self.note(now, container, "start");
        self.programs[container].exit_after.map(|after| (after, 1))
    }

    fn terminate(&mut self, now: Time, container: usize) -> Option<Duration> {
        self.note(now, container, "term");
        (!self.programs[container].ignores_term).then_some(EXIT_TAKES)
    }

    fn exited(&mut self, now: Time, container: usize, code: u8) {
        self.lives[container].is_running = false;
        // A killed process writes no last line.
        if code != KILLED {
            self.note(now, container, "exit");
        }
    }

    fn hook_begins(&mut self, now: Time, container: usize, hook: &Hook) -> Option<Duration> {
        Some(match hook {
            Hook::Exec { command } => {
                if is_own(command) {
                    self.note(now, container, "prestop-begin");
                }
                lasts(command).unwrap_or_default()
            }
            Hook::Http { host: Some(_), .. } => Duration::ZERO,
            Hook::Http { path, port, .. } => self.request(now, port, path).after.unwrap_or_default(),
            Hook::Sleep(span) => *span,
        })
    }

    fn hook_ends(&mut self, now: Time, container: usize, hook: &Hook) {
        if matches!(hook, Hook::Exec { command } if is_own(command)) {
            self.note(now, container, "prestop-end");
        }
    }

    fn status(&mut self, now: Time, status: Option<&PodStatus>) {
        let (row, endpoint) = match status {
            None => (Value::Null, Value::Null),
            Some(status) => (pod_row(self.pod, status, self.deleted_at.is_some()), self.endpoint(status)),
        };
        if self.last_status.as_ref() != Some(&row) {
            self.last_status = Some(row.clone());
            self.notes.push((now, "pod", row));
        }
        if self.endpoint_wanted.as_ref() != Some(&endpoint) {
            self.endpoint_wanted = Some(endpoint);
            self.has_endpoint_change = true;
        }
    }
}

fn pod_row(pod: &PodSpec, status: &PodStatus, is_deleting: bool) -> Value {
    let containers: serde_json::Map<String, Value> = pod
        .containers
        .iter()
        .zip(&status.containers)
        .map(|(spec, c)| {
            let detail = json!({
                "ready": c.is_ready, "started": c.is_started, "restarts": c.restarts(), "state": c.state.as_str()
            });
            (spec.name.clone(), detail)
        })
        .collect();
    json!({
        "phase": status.phase.as_str(), "ready": status.is_ready, "deleting": is_deleting, "containers": containers
    })
}
