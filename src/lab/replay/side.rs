//! Two stories of the same gates side by side.

use std::time::Duration;

use serde::Serialize;

use crate::engine::{Gate as EngineGate, Time, Told};

/// One turn of a gate, in one story or in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub gate: &'static str,
    pub recorded: Option<Side>,
    pub design: Option<Side>,
}

/// One story's turn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Seconds from the start of the recording.
    pub at: f64,
    pub from: String,
    pub to: String,
    pub reason: String,
}

/// What a gate came to, in one story.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Gate {
    /// How often it began to fail, its first state not counted.
    pub failures: u64,
    /// Seconds for which it failed, its first state counted.
    pub failing_seconds: f64,
}

impl Gate {
    /// Of one gate in one story that lasts for `span` from `started`.
    pub fn of(told: &[Told], gate: EngineGate, started: Time, span: Duration) -> Self {
        let mut all = Self::default();
        let mut since = started;
        // A gate that has not been judged fails, but for the one that restarts what may only be slow to start.
        let mut fails = gate != EngineGate::Health;
        for turn in turns(told, gate) {
            if fails {
                all.failing_seconds += turn.at.since(since).as_secs_f64();
            }
            (fails, since) = (turn.to == "fail", turn.at);
            all.failures += u64::from(fails);
        }
        if fails {
            all.failing_seconds += (started + span).since(since).as_secs_f64();
        }
        all
    }
}

fn turns(told: &[Told], gate: EngineGate) -> impl Iterator<Item = &Told> {
    told.iter().filter(move |told| told.about == "gate" && told.name == gate.as_str())
}

/// The turns of all gates by time. Turns to the same state share a row where no other turn of the gate lies between.
pub fn rows(recorded: &[Told], design: &[Told], started: Time) -> Vec<Row> {
    let mut rows: Vec<Row> =
        EngineGate::ALL.iter().flat_map(|gate| of_gate(recorded, design, *gate, started)).collect();
    let at = |row: &Row| row.recorded.iter().chain(&row.design).map(|side| side.at).fold(f64::INFINITY, f64::min);
    rows.sort_by(|one, other| at(one).total_cmp(&at(other)));
    rows
}

fn of_gate(recorded: &[Told], design: &[Told], gate: EngineGate, started: Time) -> Vec<Row> {
    let side = |told: &Told| Side {
        at: told.at.since(started).as_secs_f64(),
        from: told.from.clone(),
        to: told.to.clone(),
        reason: told.reason.clone(),
    };
    let [mut left, mut right] =
        [recorded, design].map(|told| turns(told, gate).map(side).collect::<Vec<_>>().into_iter().peekable());
    let name = gate.as_str();
    let mut rows = Vec::new();
    loop {
        match (left.peek(), right.peek()) {
            (None, None) => return rows,
            (Some(_), None) => rows.push(Row { gate: name, recorded: left.next(), design: None }),
            (None, Some(_)) => rows.push(Row { gate: name, recorded: None, design: right.next() }),
            (Some(one), Some(other)) if one.to == other.to => {
                rows.push(Row { gate: name, recorded: left.next(), design: right.next() });
            }
            (Some(one), Some(other)) if one.at <= other.at => {
                rows.push(Row { gate: name, recorded: left.next(), design: None });
            }
            _ => rows.push(Row { gate: name, recorded: None, design: right.next() }),
        }
    }
}
