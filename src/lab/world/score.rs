//! What a design did to its users and its pods, in numbers.

use std::time::Duration;

use serde::Serialize;

use super::decisions::{self, Act, Decision};
use super::ends::End;
use crate::engine::Time;
use crate::lab::scenario::Metric;

/// Nobody in rotation at one moment and everybody at the next is worth a line; more lines help nobody.
const NOTES_MAX: usize = 400;

/// One run of one design.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    pub requests: u64,
    /// By [`End`].
    ends: [u64; End::ALL.len()],
    /// By minute in which the request was sent, by [`End`].
    #[serde(skip)]
    minutes: Vec<[u64; End::ALL.len()]>,
    pub restarts: u64,
    /// Times that the kubelet killed a server that stood still.
    pub wanted_restarts: u64,
    /// Times that it killed one that had nothing a restart would mend.
    pub unwanted_restarts: u64,
    pub crashes: u64,
    pub sidecar_restarts: u64,
    /// Pods made after the first ones.
    pub pods_made: u64,
    pub evicted: u64,
    /// Times that the autoscaler wanted another number of pods.
    pub scalings: u64,
    /// Most pods that were wanted at one time by an autoscaler or by hand; 0 if nobody scaled.
    pub pods_most: u64,
    pub rollouts_failed: u64,
    /// Of the longest rollout that came to its end.
    pub rollout_seconds: f64,
    /// The first invariant that did not hold; none in a world that works.
    pub broken: Option<&'static str>,
    #[serde(skip)]
    duration: Duration,
    pub pods_lost: u64,
    /// Pod-seconds out of rotation once every pod was in.
    pub out_of_rotation_seconds: f64,
    /// From each fault of a server to its pod leaving rotation or its process ending; `None`: never in this run.
    pub detections: Vec<Option<f64>>,
    pub events: u64,
    /// What happened, to whom, in words.
    pub notes: Vec<Note>,
    /// Of the first pod: seconds from each end of its server to the next start.
    pub waits: Vec<f64>,
    /// What decided about pods, and how often.
    pub decisions: Vec<Decision>,
    /// By pod, the state at each of [`Score::COLUMNS`] equal parts of the run.
    pub lanes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Note {
    pub at: f64,
    pub pod: usize,
    pub text: String,
}

impl Score {
    pub const COLUMNS: usize = 72;

    pub(super) fn new(duration: Duration) -> Self {
        let minutes = usize::try_from(duration.as_secs().div_ceil(60)).unwrap_or(0).max(1);
        Self {
            requests: 0,
            ends: [0; End::ALL.len()],
            minutes: vec![[0; End::ALL.len()]; minutes],
            restarts: 0,
            wanted_restarts: 0,
            unwanted_restarts: 0,
            crashes: 0,
            sidecar_restarts: 0,
            pods_made: 0,
            evicted: 0,
            scalings: 0,
            pods_most: 0,
            rollouts_failed: 0,
            rollout_seconds: 0.0,
            broken: None,
            duration,
            pods_lost: 0,
            out_of_rotation_seconds: 0.0,
            detections: Vec::new(),
            events: 0,
            notes: Vec::new(),
            waits: Vec::new(),
            decisions: Vec::new(),
            lanes: Vec::new(),
        }
    }

    /// A request is over for good. It counts in the minute in which it was sent.
    pub(super) fn request_ended(&mut self, sent_after: Duration, end: End) {
        self.ends[end as usize] += 1;
        let minute = usize::try_from(sent_after.as_secs() / 60).unwrap_or(usize::MAX);
        if let Some(ends) = self.minutes.get_mut(minute) {
            ends[end as usize] += 1;
        }
    }

    pub(super) fn note(&mut self, at: Duration, pod: usize, text: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(Note { at: at.as_millis() as f64 / 1000.0, pod, text });
        }
    }

    /// What concerns no single pod is told of the first.
    pub(super) fn note_all(&mut self, at: Duration, text: String) {
        self.note(at, 0, text);
    }

    /// A law of the world did not hold.
    pub(super) fn breaks(&mut self, law: &'static str) {
        self.broken.get_or_insert(law);
    }

    /// A lane for one more pod, empty until now.
    pub(super) fn new_lane(&mut self) {
        let painted = self.lanes.first().map_or(0, |lane| lane.len());
        self.lanes.push(" ".repeat(painted));
    }

    pub(super) fn rollout_ended(&mut self, took: Duration) {
        self.rollout_seconds = self.rollout_seconds.max(took.as_millis() as f64 / 1000.0);
    }

    /// What decided about a pod, in the words of whoever did.
    pub(super) fn decided(&mut self, act: Act, reason: &str) {
        decisions::tally(&mut self.decisions, act, reason);
    }

    /// By minute, how the requests sent in it ended, in the order of [`End::ALL`].
    pub fn minutes(&self) -> &[[u64; End::ALL.len()]] {
        &self.minutes
    }

    pub const fn ended(&self, end: End) -> u64 {
        self.ends[end as usize]
    }

    /// Requests that did not end well, wrong answers among them.
    pub fn failed(&self) -> u64 {
        self.ends.iter().sum::<u64>() - self.ended(End::Ok)
    }

    /// Per cent; 100 when nothing was asked.
    pub fn availability(&self) -> f64 {
        percent(self.ended(End::Ok), self.ends.iter().sum())
    }

    pub fn worst_minute(&self) -> f64 {
        let shares = self.minutes.iter().map(|ends| percent(ends[End::Ok as usize], ends.iter().sum()));
        shares.fold(100.0, f64::min)
    }

    pub fn metric(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Availability => self.availability(),
            Metric::Crashes => self.crashes as f64,
            Metric::Cut => self.ended(End::Cut) as f64,
            Metric::DetectionSeconds => self.detection_seconds(),
            Metric::Evicted => self.evicted as f64,
            Metric::Failed => self.failed() as f64,
            Metric::OutOfRotationSeconds => self.out_of_rotation_seconds,
            Metric::PodsMost => self.pods_most as f64,
            Metric::Scalings => self.scalings as f64,
            Metric::PodsLost => self.pods_lost as f64,
            Metric::Restarts => self.restarts as f64,
            Metric::RolloutsFailed => self.rollouts_failed as f64,
            Metric::RolloutSeconds => self.rollout_seconds,
            Metric::SidecarRestarts => self.sidecar_restarts as f64,
            Metric::WantedRestarts => self.wanted_restarts as f64,
            Metric::UnwantedRestarts => self.unwanted_restarts as f64,
            Metric::WorstMinute => self.worst_minute(),
            Metric::Wrong => self.ended(End::Wrong) as f64,
        }
    }

    fn detection_seconds(&self) -> f64 {
        let never = self.duration.as_secs_f64();
        self.detections.iter().map(|seen| seen.unwrap_or(never)).fold(0.0, f64::max)
    }

    /// Each request that was sent has ended exactly once.
    pub fn is_conserved(&self) -> bool {
        self.ends.iter().sum::<u64>() == self.requests
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 100.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// Counts pods out of rotation, and for how long.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    /// Since when all pods have been in at once for the first time.
    pub(super) began: Option<Time>,
    out: u64,
    changed: Time,
}

impl Rotation {
    pub(super) fn changed(&mut self, now: Time, out: u64, score: &mut Score) {
        if self.began.is_some() {
            score.out_of_rotation_seconds += now.since(self.changed).as_millis() as f64 * self.out as f64 / 1000.0;
            score.pods_lost = score.pods_lost.max(out);
        } else if out == 0 {
            self.began = Some(now);
        }
        self.changed = now;
        self.out = out;
    }
}
