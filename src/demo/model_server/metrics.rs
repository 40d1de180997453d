//! What the server counts, and its page in the Prometheus text format 0.0.4.
//!
//! Written out by hand: the classic format with a plain `# TYPE model_requests_total counter` is what most
//! Python model servers send, and so what the sidecar must merge.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use super::server::Server;
use crate::engine::Time;

/// The mean latency covers so many seconds.
const WINDOW_SECONDS: u64 = 60;

/// Counters of inference requests.
#[derive(Debug, Default)]
pub(super) struct Meters {
    requests: RefCell<BTreeMap<u16, u64>>,
    predictions: Cell<u64>,
    tokens: Cell<u64>,
    latency: RefCell<BTreeMap<u64, Second>>,
}

/// The requests that ended within one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    count: u64,
    total: Duration,
}

impl Meters {
    /// An inference request has been answered.
    pub(super) fn answered(&self, code: u16, now: Time, took: Duration) {
        *self.requests.borrow_mut().entry(code).or_default() += 1;
        let mut latency = self.latency.borrow_mut();
        let second = latency.entry(seconds(now)).or_default();
        second.count += 1;
        second.total += took;
        *latency = latency.split_off(&seconds(now).saturating_sub(WINDOW_SECONDS));
    }

    /// So many images have been read: the progress of the engine.
    pub(super) fn predicted(&self, images: usize) {
        self.predictions.set(self.predictions.get() + images as u64);
    }

    /// One token of a stream has been sent.
    pub(super) fn token(&self) {
        self.tokens.set(self.tokens.get() + 1);
    }

    /// Milliseconds, over the last minute; 0 when nothing happened.
    fn mean_latency_ms(&self, now: Time) -> f64 {
        let latency = self.latency.borrow();
        let recent = latency.range(seconds(now).saturating_sub(WINDOW_SECONDS)..);
        let (count, total) =
            recent.fold((0, Duration::ZERO), |(n, sum), (_, second)| (n + second.count, sum + second.total));
        if count == 0 { 0.0 } else { total.as_secs_f64() * 1000.0 / count as f64 }
    }
}

fn seconds(time: Time) -> u64 {
    time.as_nanos() / 1_000_000_000
}

/// The page.
pub(super) fn page(server: &Server) -> String {
    let mut out = String::with_capacity(2048);
    // Writing to a String cannot fail.
    let _ = write_page(&mut out, server);
    out
}

fn write_page(out: &mut String, server: &Server) -> fmt::Result {
    let meters = &server.meters;
    if let Some(accuracy) = server.accuracy() {
        gauge(out, "model_accuracy", "Share of the labelled test set that is read right.", accuracy)?;
    }
    let degraded = f64::from(u8::from(server.degraded()));
    gauge(out, "model_degraded", "1 while the measured accuracy is below 0.8.", degraded)?;
    let mean = meters.mean_latency_ms(server.clock.now());
    gauge(out, "model_latency_ms", "Mean latency of inference requests over the last minute.", mean)?;
    gauge(out, "model_workers_busy", "Workers at an inference now.", server.working() as f64)?;
    gauge(out, "model_queue_depth", "Requests that wait for a worker.", server.waiting() as f64)?;
    let started = server.clock.unix_seconds(Time::ZERO);
    gauge(out, "process_start_time_seconds", "Start of the process, seconds since the Unix epoch.", started)?;
    counter(out, "model_predictions_total", "Images read.", meters.predictions.get())?;
    counter(out, "model_tokens_total", "Tokens streamed.", meters.tokens.get())?;
    heading(out, "model_requests_total", "Inference requests by status code.", "counter")?;
    for (code, count) in meters.requests.borrow().iter() {
        writeln!(out, "model_requests_total{{code=\"{code}\"}} {count}")?;
    }
    heading(out, "model_info", "The release that serves.", "gauge")?;
    writeln!(out, "model_info{{model=\"digits\",version=\"{}\"}} 1", server.options.release.name())
}

fn heading(out: &mut String, name: &str, help: &str, kind: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn gauge(out: &mut String, name: &str, help: &str, value: f64) -> fmt::Result {
    heading(out, name, help, "gauge")?;
    writeln!(out, "{name} {value}")
}

fn counter(out: &mut String, name: &str, help: &str, value: u64) -> fmt::Result {
    heading(out, name, help, "counter")?;
    writeln!(out, "{name} {value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_latency_forgets_what_is_older_than_a_minute() {
        let meters = Meters::default();
        meters.answered(200, Time::from_secs(10), Duration::from_millis(500));
        assert!((meters.mean_latency_ms(Time::from_secs(20)) - 500.0).abs() < 1e-9);
        meters.answered(200, Time::from_secs(60), Duration::from_millis(100));
        assert!((meters.mean_latency_ms(Time::from_secs(65)) - 300.0).abs() < 1e-9);
        assert!((meters.mean_latency_ms(Time::from_secs(90)) - 100.0).abs() < 1e-9);
        assert!(meters.mean_latency_ms(Time::from_secs(1000)).abs() < 1e-9);
    }
}
