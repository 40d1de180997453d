//! `heartbeat`: the model server says that it is alive, and silence is the evidence.
//!
//! Beats come from a file's modification time, from `PUT /heartbeats/NAME`, or as systemd's notification
//! datagrams on [`NotifySocket`]. This module owns the [`Board`] of last beats. It refuses to measure
//! silence itself between attempts: an attempt compares the last beat with now, nothing else does.

mod board;
mod notify;

use std::path::Path;
use std::time::{Duration, SystemTime};

pub use self::board::{Board, Unexpected};
pub use self::notify::{Message, NotifySocket};

use self::board::{Beat, Life};
use super::Scene;
use crate::config::{HeartbeatCheck, HeartbeatSource};
use crate::engine::{Fault, Outcome, Time};

pub(super) async fn attempt(name: &str, spec: &HeartbeatCheck, board: &Board, scene: &Scene) -> Outcome {
    match &spec.source {
        HeartbeatSource::File(path) => file(path, spec.max_silence, scene).await,
        HeartbeatSource::Push => pushed(board.pushed(name), spec.max_silence, scene),
        HeartbeatSource::Notify => notified(&board.notified(), spec.max_silence, scene),
    }
}

async fn file(path: &Path, max_silence: Duration, scene: &Scene) -> Outcome {
    let shown = path.display().to_string();
    let path = path.to_owned();
    let read = move || {
        let metadata = std::fs::metadata(path)?;
        Ok((metadata.is_dir(), metadata.modified()?))
    };
    let read: std::io::Result<(bool, SystemTime)> =
        match scene.blocking(&format!("the modification time of {shown}"), read).await {
            Ok(read) => read,
            Err(outcome) => return outcome,
        };
    let fail = |reason| Outcome::fail(Fault::Local, reason, scene.elapsed());
    let modified = match read {
        Ok((false, modified)) => modified,
        Ok((true, _)) => return fail(format!("{shown} is a directory, expected a file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return fail(format!("{shown} does not exist")),
        Err(error) => return fail(format!("cannot read {shown}: {error}")),
    };
    let now = scene.clock.wall_now();
    match now.duration_since(modified) {
        Ok(age) if age > max_silence => {
            let last = humantime::format_rfc3339_seconds(modified);
            fail(format!("no heartbeat for {}: {shown} was last written at {last}", whole(age)))
        }
        Ok(_) => Outcome::pass(scene.elapsed()),
        // Two clocks on one volume may differ a little, and a beat from the future still is one.
        Err(ahead) if ahead.duration() <= max_silence => Outcome::pass(scene.elapsed()),
        Err(ahead) => {
            fail(format!("{shown} was written {} in the future: the clocks disagree", whole(ahead.duration())))
        }
    }
}

fn pushed(beat: Option<Beat>, max_silence: Duration, scene: &Scene) -> Outcome {
    let Some(beat) = beat else {
        return Outcome::unknown("this heartbeat is not expected", scene.elapsed());
    };
    let now = scene.clock.now();
    let Some(last) = beat.last else {
        let waited = now.since(beat.expected_since);
        return if waited > max_silence {
            Outcome::fail(Fault::Local, format!("no heartbeat yet, after {}", whole(waited)), scene.elapsed())
        } else {
            Outcome::unknown("no heartbeat yet", scene.elapsed())
        };
    };
    silence(last, last + max_silence, &beat.status, scene)
}

fn notified(life: &Life, max_silence: Duration, scene: &Scene) -> Outcome {
    let status = said(&life.status);
    let fail = |reason| Outcome::fail(Fault::Answer, reason, scene.elapsed());
    if life.stopping {
        return fail(format!("the server said STOPPING=1{}", parenthesised(&status)));
    }
    if life.triggered {
        return fail(format!("the server said WATCHDOG=trigger{}", parenthesised(&status)));
    }
    match life.last_beat {
        Some(last) if life.ready => {
            let patience = (last + max_silence).max(life.extended_until.unwrap_or(last));
            silence(last, patience, &life.status, scene)
        }
        _ => Outcome::unknown(format!("no READY=1 yet{}", parenthesised(&status)), scene.elapsed()),
    }
}

/// Judges the time since `last`, which may last until `patience`.
fn silence(last: Time, patience: Time, status: &str, scene: &Scene) -> Outcome {
    let now = scene.clock.now();
    let status = said(status);
    if now <= patience {
        return Outcome::pass(scene.elapsed()).remark(status);
    }
    let at = scene.clock.time_of_day(last);
    let status = if status.is_empty() { status } else { format!(", {status}") };
    let reason = format!("no heartbeat for {} (last at {at}{status})", whole(now.since(last)));
    Outcome::fail(Fault::Local, reason, scene.elapsed())
}

fn said(status: &str) -> String {
    if status.is_empty() { String::new() } else { format!("status \"{status}\"") }
}

fn parenthesised(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

/// A duration to the second, or to the millisecond when it is shorter.
fn whole(duration: Duration) -> humantime::FormattedDuration {
    let seconds = Duration::from_secs(duration.as_secs());
    let millis = Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    humantime::format_duration(if seconds.is_zero() { millis } else { seconds })
}

#[cfg(test)]
mod tests;
