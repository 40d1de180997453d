//! Spring Boot Actuator's shape, for dashboards that read nothing else: `UP`, `DOWN`, `OUT_OF_SERVICE`, `UNKNOWN`.
//!
//! A gate that only warns is `UP`, as Actuator has no word for it; the component that is not well says so.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::super::opinion::{Line, Part};
use super::kube::cause_name;
use super::{TAIL_BYTES, Telling, by_interest, reason};
use crate::engine::{Cause, CheckState};
use crate::limits::PROBE_BODY_BYTES_MAX;

pub(super) fn body(telling: &Telling<'_>) -> Bytes {
    let opinion = telling.opinion;
    let by_hand = opinion.others.iter().any(|other| matches!(other.why.cause, Cause::Draining | Cause::Disabled));
    let status = match (opinion.status.passes(), by_hand) {
        (true, _) => "UP",
        (false, true) => "OUT_OF_SERVICE",
        (false, false) => "DOWN",
    };
    let mut components = Map::new();
    let mut used = 128;
    for other in &opinion.others {
        let state = match (&other.why.cause, other.fails) {
            (Cause::Draining | Cause::Disabled, _) => "OUT_OF_SERVICE",
            (_, true) => "DOWN",
            (_, false) => "UNKNOWN",
        };
        let text = if telling.details { super::one_line(&other.why.text) } else { "withheld".to_owned() };
        let component = component(state, [("reason", text), ("since", telling.clock.rfc3339(other.why.since))]);
        used += component.to_string().len() + 24;
        components.insert(cause_name(&other.why.cause).into(), component);
    }
    let mut left_out = 0;
    for line in by_interest(&opinion.lines) {
        let component = check(line, telling);
        let size = component.to_string().len() + line.check.name.len() + 4;
        if 0 < left_out || PROBE_BODY_BYTES_MAX - TAIL_BYTES < used + size {
            left_out += 1;
            continue;
        }
        used += size;
        components.insert(line.check.name.clone(), component);
    }
    let mut top = Map::new();
    top.insert("status".into(), status.into());
    top.insert("components".into(), Value::Object(components));
    if 0 < left_out {
        let note = format!("{left_out} more components; the admin listener's /api/report has them all");
        top.insert("details".into(), Value::Object(Map::from_iter([("truncated".to_owned(), note.into())])));
    }
    Value::Object(top).to_string().into()
}

fn check(line: &Line<'_>, telling: &Telling<'_>) -> Value {
    let check = line.check;
    let state = match (line.part, check.state) {
        (Part::Excluded | Part::Ok, _) => "UP",
        (_, CheckState::Down) => "DOWN",
        _ => "UNKNOWN",
    };
    let mut details = vec![("kind", check.kind.to_owned()), ("since", telling.clock.rfc3339(check.since))];
    if check.state != CheckState::Up {
        let text = if telling.details { reason(check, telling.clock) } else { "withheld".to_owned() };
        details.push(("reason", text));
    }
    if telling.details && !check.target.is_empty() {
        details.push(("target", super::one_line(&check.target)));
    }
    component(state, details)
}

fn component(status: &str, details: impl IntoIterator<Item = (&'static str, String)>) -> Value {
    let details = details.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    Value::Object(Map::from_iter([
        ("status".to_owned(), status.into()),
        ("details".to_owned(), Value::Object(details)),
    ]))
}
