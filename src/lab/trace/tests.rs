//! The simulator beside a real kubelet, and stories whose end the kubelet's own tests fix (§12).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

mod recordings;
mod stories;

/// A container, an event (with the path of a probe), and when it happened.
type Times = BTreeMap<(String, String), Vec<f64>>;

fn times<'a>(rows: impl Iterator<Item = (f64, &'a Value)>) -> Times {
    let mut times = Times::new();
    for (at, detail) in rows {
        let word = |key: &str| detail[key].as_str().unwrap_or_default().to_owned();
        let event = if detail["path"].is_string() { word("path") } else { word("event") };
        times.entry((word("container"), event)).or_default().push(at);
    }
    times
}

fn simulated(file: &TraceFile, seed: u64) -> Times {
    let rows = run(file, seed);
    times(rows.iter().filter(|row| row.1 == "app").map(|row| (row.0, &row.2)))
}

fn of<'a>(times: &'a Times, container: &str, event: &str) -> &'a [f64] {
    times.get(&(container.to_owned(), event.to_owned())).map_or(&[], Vec::as_slice)
}
