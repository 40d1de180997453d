//! `application/health+json`: draft-inadarei-api-health-check-06.
//!
//! Checks are keyed by their name. Where the draft has no word (since when, what is next), `notes` tell it.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::opinion::{Line, Part};
use super::{TAIL_BYTES, Telling, by_interest, one_line, reason};
use crate::engine::{CheckState, Gate, GateView, ModelView};
use crate::limits::PROBE_BODY_BYTES_MAX;

pub(super) fn body(telling: &Telling<'_>) -> Bytes {
    let opinion = telling.opinion;
    let view = opinion.snapshot.gate(opinion.gate);
    let mut top = Map::new();
    top.insert("status".into(), opinion.status.as_str().into());
    top.insert("version".into(), "1".into());
    top.insert("releaseId".into(), env!("CARGO_PKG_VERSION").into());
    top.insert("serviceId".into(), "probegate".into());
    top.insert("description".into(), description(opinion.gate).into());
    if !opinion.single {
        let output: Vec<_> = opinion.reasons().take(3).map(|why| one_line(&why.text)).collect();
        if !output.is_empty() {
            let text = if telling.details { output.join("; ") } else { "withheld".to_owned() };
            top.insert("output".into(), text.into());
        }
        let mut notes = notes(view, telling);
        notes.push(model(&opinion.snapshot.model, telling));
        top.insert("notes".into(), notes.into());
    }
    let mut used = Value::Object(top.clone()).to_string().len();
    let mut checks = Map::new();
    let mut left_out = 0;
    for line in by_interest(&opinion.lines) {
        let entry = entry(line, telling);
        let size = entry.to_string().len() + line.check.name.len() + 8;
        if 0 < left_out || PROBE_BODY_BYTES_MAX - TAIL_BYTES < used + size {
            left_out += 1;
            continue;
        }
        used += size;
        checks.insert(line.check.name.clone(), Value::Array(vec![entry]));
    }
    top.insert("checks".into(), Value::Object(checks));
    if 0 < left_out {
        let note = format!("{left_out} more checks; the admin listener's /api/report has them all");
        match top.get_mut("notes") {
            Some(Value::Array(notes)) => notes.push(note.into()),
            _ => drop(top.insert("notes".into(), json!([note]))),
        }
    }
    Value::Object(top).to_string().into()
}

fn entry(line: &Line<'_>, telling: &Telling<'_>) -> Value {
    let check = line.check;
    let clock = telling.clock;
    let mut entry = Map::new();
    entry.insert("componentId".into(), check.name.as_str().into());
    entry.insert("componentType".into(), component_type(check.kind).into());
    entry.insert("status".into(), status(line.part).into());
    if let Some(last) = &check.last {
        entry.insert("observedValue".into(), millis(last.latency).into());
        entry.insert("observedUnit".into(), "ms".into());
        entry.insert("time".into(), clock.rfc3339(last.at).into());
    }
    if check.state != CheckState::Up {
        let text = if telling.details { reason(check, clock) } else { "withheld".to_owned() };
        entry.insert("output".into(), text.into());
    }
    let mut notes = vec![format!("{} since {}", check.state.as_str(), clock.rfc3339(check.since))];
    if let Some(next) = check.next_attempt {
        notes.push(format!("tried again at {}", clock.rfc3339(next)));
    }
    if let Some(forced) = check.forced {
        notes.push(format!("forced {} by hand until {}", forced.forced.as_str(), clock.rfc3339(forced.until)));
    }
    if line.part == Part::Excluded {
        notes.push("excluded by the caller".to_owned());
    }
    entry.insert("notes".into(), notes.into());
    if let (Some(runbook), true) = (&check.runbook, telling.details) {
        entry.insert("links".into(), json!({ "runbook": runbook }));
    }
    Value::Object(entry)
}

fn notes(view: &GateView, telling: &Telling<'_>) -> Vec<String> {
    let mut notes = vec![format!("{} since {}", view.status.as_str(), telling.clock.rfc3339(view.since))];
    if let Some(next) = &view.next
        && telling.details
    {
        let at = next.at.map_or_else(String::new, |at| format!(" at {}", telling.clock.rfc3339(at)));
        notes.push(format!("next: {}{at}", one_line(&next.text)));
    }
    notes
}

/// The model server in one word.
fn model(view: &ModelView, telling: &Telling<'_>) -> String {
    let reason = if telling.details && !view.reason.is_empty() {
        format!(": {}", one_line(&view.reason))
    } else {
        String::new()
    };
    format!("the model server is {} since {}{reason}", view.state.as_str(), telling.clock.rfc3339(view.since))
}

/// Milliseconds to the microsecond, as a JSON number.
fn millis(latency: std::time::Duration) -> f64 {
    (latency.as_secs_f64() * 1e6).round() / 1e3
}

const fn status(part: Part) -> &'static str {
    match part {
        Part::Fails => "fail",
        Part::Degrades | Part::Idle => "warn",
        Part::Excluded | Part::Ok => "pass",
    }
}

/// The draft's three words: what it is, seen from here.
fn component_type(kind: &str) -> &'static str {
    match kind {
        "redis" | "postgres" => "datastore",
        "disk" | "memory" | "process" => "system",
        _ => "component",
    }
}

const fn description(gate: Gate) -> &'static str {
    match gate {
        Gate::Startup => "startup of the model server",
        Gate::Ready => "readiness of the model server",
        Gate::Health => "liveness of the model server",
    }
}
