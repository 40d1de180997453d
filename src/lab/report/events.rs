//! What happens to the world of an experiment, in words, for time lines.

use std::time::Duration;

use serde::Serialize;

use super::text::clock;
use crate::lab::scenario::{Action, ActionKind, Fault, FaultKind, Illness, Scenario, ServerFault, SidecarFault};

/// A fault or an action of the scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Seconds from the beginning.
    pub at: f64,
    /// When it is over, if it lasts.
    pub until: Option<f64>,
    pub text: String,
}

/// Events that differ in nothing but their time.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::lab) struct Kind<'a> {
    pub(in crate::lab) letter: char,
    pub(in crate::lab) text: &'a str,
    /// From and until when, in seconds.
    pub(in crate::lab) spans: Vec<(f64, Option<f64>)>,
}

/// By their first occurrence, lettered from `a`; there are no more kinds than letters.
pub(in crate::lab) fn kinds(events: &[Event]) -> Vec<Kind<'_>> {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for event in events {
        let span = (event.at, event.until);
        if let Some(kind) = kinds.iter_mut().find(|kind| kind.text == event.text) {
            kind.spans.push(span);
        } else if let Some(letter) = ('a'..='z').nth(kinds.len()) {
            kinds.push(Kind { letter, text: &event.text, spans: vec![span] });
        }
    }
    kinds
}

impl Kind<'_> {
    /// "5:00 to 10:00", "3:00 and 5 times more".
    pub(in crate::lab) fn when(&self) -> String {
        let Some((at, until)) = self.spans.first() else { return String::new() };
        let until = until.map_or_else(String::new, |until| format!(" to {}", clock(until)));
        let more = self.spans.len() - 1;
        let more = if more > 0 { format!(", and {more} times more") } else { String::new() };
        format!("{}{until}{more}", clock(*at))
    }
}

/// In the order of time.
pub(super) fn of(scenario: &Scenario) -> Vec<Event> {
    let mut all: Vec<Event> = scenario.faults.iter().map(|fault| of_fault(fault, scenario)).collect();
    all.extend(scenario.actions.iter().map(|action| of_action(action, scenario)));
    all.sort_by(|one, other| one.at.total_cmp(&other.at));
    all
}

fn of_fault(fault: &Fault, scenario: &Scenario) -> Event {
    let plain = |span: &Duration| humantime::format_duration(*span).to_string();
    let text = match &fault.what {
        FaultKind::Dependency { dependency, how, only } => {
            let name = &scenario.dependencies[*dependency].name;
            let whom = match only.as_slice() {
                [] => String::new(),
                pods => format!(" for pod {}", pods.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
            };
            let how = match how {
                Illness::Down => "is down".to_owned(),
                Illness::Flapping(every) => format!("flaps every {}", plain(every)),
                Illness::Silent => "is silent".to_owned(),
                Illness::Slow(latency) => format!("answers after {}", plain(latency)),
            };
            format!("{name} {how}{whom}")
        }
        FaultKind::Server { pod, how } => {
            let how = match how {
                ServerFault::CounterFrozen => "counter stands still".to_owned(),
                ServerFault::Crash => "crashes".to_owned(),
                ServerFault::CrashLoop(after) => format!("crashes, and {} after each start", plain(after)),
                ServerFault::Garbage => "answers garbage".to_owned(),
                ServerFault::Hang => "hangs".to_owned(),
                ServerFault::Leak(after) => format!("leaks, out of memory {} after each start", plain(after)),
                ServerFault::MetricsLost => "loses its metrics page".to_owned(),
                ServerFault::Slow(times) => format!("is {} times slower", f64::from(*times) / 1000.0),
            };
            format!("server of pod {pod} {how}")
        }
        FaultKind::Sidecar { pod, how } => {
            let how = match how {
                SidecarFault::Crash => "crashes".to_owned(),
                SidecarFault::CrashLoop(after) => format!("crashes, and {} after each start", plain(after)),
                SidecarFault::Hang => "hangs".to_owned(),
                SidecarFault::Oom(after) => format!("runs out of memory {} after each start", plain(after)),
                SidecarFault::Slow(latency) => format!("takes {} more", plain(latency)),
            };
            format!("sidecar of pod {pod} {how}")
        }
    };
    let until = (fault.until > fault.at).then_some(fault.until);
    event(fault.at, until, text)
}

fn of_action(action: &Action, scenario: &Scenario) -> Event {
    let text = match action.what {
        ActionKind::Delete { pod } => format!("pod {pod} is deleted"),
        ActionKind::Drain { node } => format!("node {node} is drained"),
        ActionKind::Lose { node } => format!("node {node} is lost"),
        ActionKind::Rollout { version } => format!("rollout of {}", scenario.versions[version].name),
        ActionKind::Scale { pods } => format!("scaled to {pods}"),
        ActionKind::Undo => "rollout undo".to_owned(),
    };
    event(action.at, action.until, text)
}

fn event(at: Duration, until: Option<Duration>, text: String) -> Event {
    Event { at: at.as_secs_f64(), until: until.map(|until| until.as_secs_f64()), text }
}
