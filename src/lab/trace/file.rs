//! The trace file: a pod spec, what each container's app was told to do, and what was seen.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::lab::kubelet::{PodSpec, RawPod};

/// A scenario, ready to be simulated.
#[derive(Clone, Debug)]
pub struct TraceFile {
    pub name: String,
    pub pod: PodSpec,
    /// By container, in the pod's order.
    pub programs: Vec<Program>,
    /// From the first container's first start.
    pub delete_at: Option<Duration>,
    /// How long was watched.
    pub observed_for: Duration,
    pub recordings: Vec<Recording>,
}

/// What an app was told to do.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The first that matches decides; otherwise 200 at once.
    pub answers: Vec<Answer>,
    pub clock: Clock,
    /// Exits with 1 that long after each start.
    pub exit_after: Option<Duration>,
    /// Opens its port only then.
    pub listen_after: Option<Duration>,
    pub ignores_term: bool,
}

/// An answer other than 200.
#[derive(Clone, Debug)]
pub struct Answer {
    pub path: String,
    pub from: Duration,
    pub until: Option<Duration>,
    pub code: u16,
    pub delay: Duration,
}

/// What `from` and `until` count from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Clock {
    #[default]
    LastStart,
    FirstStart,
}

/// Rows as recorded on a real node.
#[derive(Clone, Debug, Deserialize)]
pub struct Recording {
    pub delete_at: Option<f64>,
    /// `[seconds, kind, detail]`.
    pub trace: Vec<(Option<f64>, String, serde_json::Value)>,
}

/// Why a trace file cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Not the JSON that is expected; says where.
    #[error("not a trace file: {0}")]
    Format(#[from] serde_json::Error),
    /// The API server would refuse the pod.
    #[error("pod: {0}")]
    Pod(String),
    /// A span that is negative, not finite, or longer than a day.
    #[error("{0}: not a number of seconds between 0 and a day")]
    Seconds(&'static str),
    /// An unknown clock.
    #[error("clock {0:?} is neither \"since this container's last start\" nor \"since its first start in the pod\"")]
    Clock(String),
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(default)]
    name: String,
    pod: RawPod,
    #[serde(default)]
    containers: BTreeMap<String, RawProgram>,
    #[serde(default)]
    delete_at: Option<f64>,
    #[serde(default = "default_observed")]
    observed_for: f64,
    #[serde(default)]
    recordings: Vec<Recording>,
}

const fn default_observed() -> f64 {
    217.0
}

#[derive(Deserialize)]
#[serde(default)]
struct RawProgram {
    answers: Vec<RawAnswer>,
    clock: String,
    exit_after: Option<f64>,
    listen_after: Option<f64>,
    ignores_term: bool,
}

impl Default for RawProgram {
    fn default() -> Self {
        let clock = LAST_START.to_owned();
        Self { answers: Vec::new(), clock, exit_after: None, listen_after: None, ignores_term: false }
    }
}

#[derive(Deserialize)]
struct RawAnswer {
    path: String,
    #[serde(default)]
    from: f64,
    #[serde(default)]
    until: Option<f64>,
    #[serde(default = "default_code")]
    code: u16,
    #[serde(default)]
    delay: f64,
}

const fn default_code() -> u16 {
    200
}

const LAST_START: &str = "since this container's last start";
const FIRST_START: &str = "since its first start in the pod";
const DAY_SECONDS: f64 = 86_400.0;

impl TraceFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// See [`TraceError`].
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut raw: RawFile = serde_json::from_str(text)?;
        let pod = raw.pod.validate().map_err(TraceError::Pod)?;
        let mut programs = Vec::new();
        for container in &pod.containers {
            programs.push(raw.containers.remove(&container.name).unwrap_or_default().validate()?);
        }
        // A file whose own field is empty may still have it in its first recording.
        let delete_at = raw.delete_at.or_else(|| raw.recordings.first().and_then(|recording| recording.delete_at));
        Ok(Self {
            name: raw.name,
            pod,
            programs,
            delete_at: optional("delete_at", delete_at)?,
            observed_for: seconds("observed_for", raw.observed_for)?,
            recordings: raw.recordings,
        })
    }
}

impl RawProgram {
    fn validate(self) -> Result<Program, TraceError> {
        let clock = match self.clock.as_str() {
            LAST_START => Clock::LastStart,
            FIRST_START => Clock::FirstStart,
            _ => return Err(TraceError::Clock(self.clock)),
        };
        let answers: Result<Vec<Answer>, TraceError> = self.answers.into_iter().map(RawAnswer::validate).collect();
        Ok(Program {
            answers: answers?,
            clock,
            exit_after: optional("exit_after", self.exit_after)?,
            listen_after: optional("listen_after", self.listen_after)?,
            ignores_term: self.ignores_term,
        })
    }
}

impl RawAnswer {
    fn validate(self) -> Result<Answer, TraceError> {
        Ok(Answer {
            path: self.path,
            from: seconds("from", self.from)?,
            until: optional("until", self.until)?,
            code: self.code,
            delay: seconds("delay", self.delay)?,
        })
    }
}

fn seconds(what: &'static str, value: f64) -> Result<Duration, TraceError> {
    if (0.0..=DAY_SECONDS).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(TraceError::Seconds(what))
    }
}

fn optional(what: &'static str, value: Option<f64>) -> Result<Option<Duration>, TraceError> {
    value.map(|value| seconds(what, value)).transpose()
}

impl Program {
    /// The answer to a path, `since` after the clock's zero: the code and its delay.
    pub fn answer(&self, path: &str, since: Duration) -> (u16, Duration) {
        let matches = |a: &&Answer| a.path == path && since >= a.from && a.until.is_none_or(|until| since < until);
        self.answers.iter().find(matches).map_or((200, Duration::ZERO), |answer| (answer.code, answer.delay))
    }
}
