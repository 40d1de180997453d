//! The simulation of one trace file: one pod, one node, one seed.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::app::Apps;
use super::file::TraceFile;
use crate::engine::Time;
use crate::lab::kubelet::{Event, Io, Knobs, Pod, Spread};
use crate::lab::queue::Queue;
use crate::lab::rng::{Rng, stratum};

/// `[seconds since the first container of the pod started, kind, detail]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row(pub f64, pub &'static str, pub Value);

#[derive(Clone, Copy, Debug)]
enum Happening {
    Pod(Event),
    /// A relist that began when noted ends.
    Relist(Time),
    /// Somebody runs `kubectl delete`.
    DeleteAsked,
    /// The API server has set the deletion timestamp.
    Delete,
    /// An EndpointSlice is written.
    Endpoint,
}

/// A watch began with the first of twenty pods and ended for all at once, so against a pod's own first start
/// it was up to this much shorter or longer.
const WATCH_SLACK_MICROS: u64 = 2_000_000;
/// A pod that never starts a container is watched for so long at most.
const WAIT_FOR_START: Duration = Duration::from_secs(60);

/// Simulates the pod. Equal seeds give equal rows.
pub fn run(file: &TraceFile, seed: u64) -> Vec<Row> {
    let mut rng = Rng::new(seed);
    let knobs = node(seed, &mut rng);
    let mut apps = Apps::new(&file.pod, &file.programs);
    let mut queue = Queue::new();
    let mut agenda = Vec::new();
    let mut pod = Pod::new(Arc::new(file.pod.clone()), Arc::new(knobs.clone()), rng.fork(1));
    let mut node_rng = rng.fork(2);

    // The node has been up for long; the pod comes at any point of its relist.
    let admitted = Time::from_secs(3600) + rng.between(Duration::ZERO, knobs.relist);
    queue.push(Time::from_secs(3600) + knobs.relist_takes.low, Happening::Relist(Time::from_secs(3600)));
    let mut is_admitted = false;
    let slack = Duration::from_micros(stratum(seed, 2, 2 * WATCH_SLACK_MICROS));
    let mut end = admitted + WAIT_FOR_START;
    let mut last_endpoint = Value::Null;
    loop {
        if !is_admitted && queue.next_at().is_none_or(|next| next >= admitted) {
            is_admitted = true;
            pod.admit(admitted, &mut Io { agenda: &mut agenda, world: &mut apps });
        } else {
            let Some((now, happening)) = queue.pop(end) else { break };
            let mut io = Io { agenda: &mut agenda, world: &mut apps };
            match happening {
                Happening::Pod(event) => pod.handle(now, event, &mut io),
                Happening::Relist(began) => {
                    if is_admitted {
                        pod.relisted(now, began, &mut io);
                    }
                    let begins = now + knobs.relist;
                    queue.push(begins + knobs.relist_takes.draw(&mut node_rng), Happening::Relist(begins));
                }
                Happening::DeleteAsked => {
                    apps.deletion_asked(now);
                    queue.push(now + CLIENT.draw(&mut node_rng), Happening::Delete);
                }
                Happening::Delete => {
                    pod.delete(now, file.pod.grace, &mut io);
                    let status = pod.status().clone();
                    crate::lab::kubelet::World::status(&mut apps, now, Some(&status));
                }
                Happening::Endpoint => {
                    let endpoint = apps.endpoint_wanted.clone().unwrap_or(Value::Null);
                    if endpoint != last_endpoint {
                        last_endpoint = endpoint.clone();
                        apps.notes.push((now, "endpoint", endpoint));
                    }
                }
            }
            if std::mem::take(&mut apps.has_endpoint_change) {
                queue.push(now + knobs.endpoints.draw(&mut node_rng), Happening::Endpoint);
            }
        }
        let was_waiting = end == admitted + WAIT_FOR_START;
        if let Some(zero) = apps.zero.filter(|_| was_waiting) {
            end = zero + (file.observed_for + slack).saturating_sub(Duration::from_micros(WATCH_SLACK_MICROS));
            if let Some(after) = file.delete_at {
                queue.push(zero + after, Happening::DeleteAsked);
            }
        }
        for (at, event) in agenda.drain(..) {
            queue.push(at, Happening::Pod(event));
        }
    }
    rows(&apps)
}

/// From the client's request to the API server's deletion timestamp: a command line tool starts up first.
const CLIENT: Spread = Spread::millis(150, 500);

/// The recordings were made on a quiet node and on a busy one, with twenty pods starting at once on either:
/// how busy it is, is drawn once a run.
fn node(seed: u64, rng: &mut Rng) -> Knobs {
    let busy = stratum(seed, 0, 1001);
    // Where between a quiet node's fastest and slowest this pod's sandbox falls; and so its probes' phase.
    let sandbox = stratum(seed, 1, 1000);
    let upto = |quiet: u64, loaded: u64| quiet + (loaded - quiet) * busy / 1000;
    Knobs {
        sandbox: Spread::millis(upto(900, 2800) + sandbox, upto(900, 2800) + sandbox + 5),
        start: Spread::millis(80, upto(280, 500)),
        slow_start_permille: u32::try_from(upto(30, 200)).unwrap_or(u32::MAX),
        slow_start: Spread::millis(300, upto(500, 1000)),
        relist_takes: Spread::millis(5, upto(30, 250)),
        second_began: rng.between(Duration::ZERO, Duration::from_secs(1)),
        ..Knobs::default()
    }
}

/// Times are to the hundredth, as recorded; what came before the first start is at its negative time.
fn rows(apps: &Apps<'_>) -> Vec<Row> {
    let zero = apps.zero.unwrap_or(Time::ZERO).as_nanos();
    let seconds = |at: Time| {
        let nanos = i128::from(at.as_nanos()) - i128::from(zero);
        // Hundredths of a scenario are far below 2^53.
        (nanos / 10_000_000) as f64 / 100.0
    };
    let mut notes: Vec<_> = apps.notes.iter().collect();
    // A note may have been made ahead of its time (a postStart hook's begin).
    notes.sort_by_key(|(at, _, _)| *at);
    notes.into_iter().map(|(at, kind, detail)| Row(seconds(*at), kind, detail.clone())).collect()
}
