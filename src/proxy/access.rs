//! The access log: one JSON line for a request, on its way out of the worker before it is written.
//!
//! A worker notes what a request is in a record that it uses again for the next one, so that a request which
//! gets no line costs no allocation. A record that becomes a line goes through a bounded queue to a thread that
//! formats and writes; where that thread is too slow, lines are dropped and counted. It refuses to show any
//! header but the trace's and the request's own ids, and the query unless that is asked for.

use std::cell::RefCell;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use http::{Request, Version};
use serde::Serialize;

use super::refusal::Reason;
use super::worker::Worker;
use crate::clock::Clock;
use crate::config::AccessLog;
use crate::engine::Time;
use crate::limits;

/// What is known of a request.
#[derive(Debug, Default)]
pub struct Entry {
    sampled: bool,
    began: Time,
    method: String,
    path: String,
    protocol: &'static str,
    route: Option<Arc<str>>,
    trace_id: String,
    request_id: String,
    upstream: Option<SocketAddr>,
    bytes_in: u64,
    bytes_out: u64,
    /// The model server's, once it is there.
    status: u16,
    reason: Option<Reason>,
    first_byte: Option<Duration>,
    took: Duration,
}

/// Where workers put lines.
pub type AccessLines = SyncSender<Box<Entry>>;

/// The thread's end of the queue.
#[derive(Debug)]
pub struct AccessWriter {
    lines: Receiver<Box<Entry>>,
    clock: Clock,
}

/// A queue from the workers to a thread that is to run [`AccessWriter::run`].
pub fn access_log(clock: Clock) -> (AccessLines, AccessWriter) {
    let (lines, taken) = sync_channel(limits::ACCESS_LOG_QUEUE);
    (lines, AccessWriter { lines: taken, clock })
}

impl AccessWriter {
    /// Writes until the last worker is gone. An error is not told: there is nowhere to tell it.
    pub fn run(self, mut to: impl Write) {
        let mut batch = Vec::new();
        while let Ok(entry) = self.lines.recv() {
            self.format(&entry, &mut batch);
            while batch.len() < limits::TRAFFIC_BUFFER_BYTES_MAX
                && let Ok(entry) = self.lines.try_recv()
            {
                self.format(&entry, &mut batch);
            }
            let _ = to.write_all(&batch).and_then(|()| to.flush());
            batch.clear();
        }
    }

    fn format(&self, entry: &Entry, to: &mut Vec<u8>) {
        let line = Line {
            time: self.clock.rfc3339(entry.began),
            method: &entry.method,
            path: &entry.path,
            status: if entry.status == 0 { entry.reason.map_or(0, Reason::status) } else { entry.status },
            reason: entry.reason.map(Reason::as_str),
            bytes_in: entry.bytes_in,
            bytes_out: entry.bytes_out,
            ttfb_ms: entry.first_byte.map(milliseconds),
            duration_ms: milliseconds(entry.took),
            upstream: entry.upstream,
            route: entry.route.as_deref(),
            protocol: entry.protocol,
            trace_id: said(&entry.trace_id),
            request_id: said(&entry.request_id),
        };
        // Texts and numbers: nothing of it can fail.
        if serde_json::to_writer(&mut *to, &line).is_ok() {
            to.push(b'\n');
        }
    }
}

/// The line's form. A field that is not known is left out.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    method: &'a str,
    path: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttfb_ms: Option<f64>,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

/// To the microsecond.
fn milliseconds(span: Duration) -> f64 {
    span.as_micros() as f64 / 1000.0
}

fn said(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// A worker's records: those in use, and those to be used again.
#[derive(Debug, Default)]
pub(super) struct Records {
    all: Vec<Record>,
    free: Vec<usize>,
    /// Of a line, so many thousandths are due.
    due: u32,
}

#[derive(Debug, Default)]
struct Record {
    /// Tells this use of the record from the one before.
    turn: u64,
    entry: Box<Entry>,
}

/// Where a request's record is. Worth nothing once the request has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    place: usize,
    turn: u64,
}

impl Records {
    fn begin(&mut self, sample_permille: u32) -> (Key, &mut Entry) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.all.push(Record::default());
            self.all.len() - 1
        });
        self.due += sample_permille;
        let sampled = 1000 <= self.due;
        if sampled {
            self.due -= 1000;
        }
        let record = &mut self.all[place];
        record.turn += 1;
        record.entry.sampled = sampled;
        (Key { place, turn: record.turn }, &mut record.entry)
    }

    fn entry(&mut self, key: Key) -> Option<&mut Entry> {
        let record = self.all.get_mut(key.place).filter(|record| record.turn == key.turn)?;
        Some(&mut record.entry)
    }

    /// The request has ended: its entry, if it is to become a line.
    fn end(&mut self, key: Key, wanted: impl Fn(&Entry) -> bool) -> Option<Box<Entry>> {
        let record = self.all.get_mut(key.place).filter(|record| record.turn == key.turn)?;
        // Whoever still holds the key finds nothing.
        record.turn += 1;
        self.free.push(key.place);
        if wanted(&record.entry) {
            return Some(std::mem::take(&mut record.entry));
        }
        record.entry.forget();
        None
    }
}

impl Entry {
    /// As new, but for the room of its texts.
    fn forget(&mut self) {
        let Self { method, path, trace_id, request_id, .. } = std::mem::take(self);
        *self = Self { method, path, trace_id, request_id, ..Self::default() };
        for text in [&mut self.method, &mut self.path, &mut self.trace_id, &mut self.request_id] {
            text.clear();
        }
    }

    fn describe(&mut self, about: &About<'_>, query: bool) {
        self.method.push_str(about.method);
        self.path.push_str(clip(if query { about.target } else { about.path }, limits::ACCESS_LOG_PATH_BYTES_MAX));
        self.protocol = about.protocol;
        self.trace_id.push_str(about.traceparent.and_then(trace_id).unwrap_or_default());
        self.request_id.push_str(clip(about.request_id.unwrap_or_default(), limits::ACCESS_LOG_ID_BYTES_MAX));
    }
}

fn clip(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// What a line may tell of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub(super) method: &'a str,
    /// Path and query.
    pub(super) target: &'a str,
    pub(super) path: &'a str,
    pub(super) protocol: &'static str,
    pub(super) traceparent: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
}

impl<'a> About<'a> {
    pub(super) fn of<B>(request: &'a Request<B>) -> Self {
        let field = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        Self {
            method: request.method().as_str(),
            target: request.uri().path_and_query().map_or_else(|| request.uri().path(), |target| target.as_str()),
            path: request.uri().path(),
            protocol: match request.version() {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            traceparent: field("traceparent"),
            request_id: field("x-request-id"),
        }
    }
}

/// The trace that a `traceparent` names (W3C Trace Context, 3.2).
fn trace_id(parent: &str) -> Option<&str> {
    let id = parent.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// A request that may get a line. Dropped, the request has ended, and if nothing was said of it, its client left.
pub(super) struct Recording {
    worker: Rc<Worker>,
    key: Key,
    whole: bool,
}

impl Recording {
    /// Begins a record, if the access log is on.
    pub(super) fn begin<'a>(worker: &Rc<Worker>, about: impl FnOnce() -> About<'a>) -> Option<Self> {
        let shared = &worker.shared;
        shared.wiring.access.as_ref()?;
        let setup = shared.setup.load();
        let AccessLog { sample_permille, query, .. } = setup.access?;
        let mut records = worker.records.borrow_mut();
        let (key, entry) = records.begin(sample_permille);
        entry.began = worker.now();
        let about = about();
        entry.describe(&about, query);
        entry.route = setup.rules.of(about.path).1.map(|route| Arc::clone(&route.path));
        Some(Self { worker: Rc::clone(worker), key, whole: false })
    }

    /// For those who see a part of the request pass.
    pub(super) const fn key(&self) -> Key {
        self.key
    }

    /// The model server's head came.
    pub(super) fn answered(&self, status: u16) {
        let now = self.worker.now();
        self.note(|entry| {
            entry.status = status;
            entry.first_byte = Some(now.since(entry.began));
        });
    }

    /// A part of the answer passed.
    pub(super) fn sent(&self, bytes: usize) {
        sent(&self.worker, Some(self.key), bytes);
    }

    /// It ended whole.
    pub(super) fn finish(mut self) {
        self.whole = true;
    }

    /// It ended for this reason.
    pub(super) fn fail(mut self, reason: Reason) {
        self.whole = true;
        self.note(|entry| entry.reason = Some(reason));
    }

    fn note(&self, change: impl FnOnce(&mut Entry)) {
        note(&self.worker.records, Some(self.key), change);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let (now, whole) = (self.worker.now(), self.whole);
        self.note(|entry| {
            entry.took = now.since(entry.began);
            if !whole {
                entry.reason = Some(Reason::ClientGone);
            }
        });
        let shared = &self.worker.shared;
        let settings = shared.setup.load().access;
        let wanted = |entry: &Entry| {
            let slow = settings.and_then(|settings| settings.slow).is_some_and(|slow| slow <= entry.took);
            settings.is_some() && (entry.sampled || slow || entry.reason.is_some() || 500 <= entry.status)
        };
        let Some(entry) = self.worker.records.borrow_mut().end(self.key, wanted) else { return };
        let taken = shared.wiring.access.as_ref().is_some_and(|lines| lines.try_send(entry).is_ok());
        self.worker.counters().logged(taken);
    }
}

/// A part of a request's body passed.
pub(super) fn received(worker: &Worker, key: Option<Key>, bytes: usize) {
    note(&worker.records, key, |entry| entry.bytes_in += bytes as u64);
}

/// A part of its answer passed.
pub(super) fn sent(worker: &Worker, key: Option<Key>, bytes: usize) {
    note(&worker.records, key, |entry| entry.bytes_out += bytes as u64);
}

/// It is sent to this address.
pub(super) fn sent_to(worker: &Worker, key: Option<Key>, address: SocketAddr) {
    note(&worker.records, key, |entry| entry.upstream = Some(address));
}

fn note(records: &RefCell<Records>, key: Option<Key>, change: impl FnOnce(&mut Entry)) {
    if let Some(key) = key
        && let Some(entry) = records.borrow_mut().entry(key)
    {
        change(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(records: &mut Records, permille: u32, name: &str) -> Key {
        let (key, entry) = records.begin(permille);
        entry.method.push_str(name);
        key
    }

    #[test]
    fn samples_are_spread_evenly() {
        let mut records = Records::default();
        let mut sampled = Vec::new();
        for turn in 0..1000 {
            let key = noted(&mut records, 10, "GET");
            if records.end(key, |entry| entry.sampled).is_some() {
                sampled.push(turn);
            }
        }
        assert_eq!(sampled.len(), 10);
        assert!(sampled.windows(2).all(|pair| pair[1] - pair[0] == 100), "{sampled:?}");
        let key = noted(&mut records, 1000, "GET");
        assert!(records.end(key, |entry| entry.sampled).is_some());
    }

    #[test]
    fn a_record_is_used_again_without_what_it_held_and_old_keys_open_nothing() {
        let mut records = Records::default();
        let first = noted(&mut records, 0, "POST");
        records.entry(first).unwrap().bytes_in = 7;
        assert!(records.end(first, |_| false).is_none());
        let second = noted(&mut records, 0, "GET");
        assert_eq!((first.place, records.all.len()), (second.place, 1));
        assert!(records.entry(first).is_none(), "an upload that outlives its request counts nowhere");
        assert!(records.end(first, |_| true).is_none());
        let entry = records.end(second, |_| true).unwrap();
        assert_eq!((entry.method.as_str(), entry.bytes_in), ("GET", 0));
        assert!(records.end(second, |_| true).is_none());
    }

    #[test]
    fn only_what_is_known_is_shown_and_no_query() {
        let request = Request::builder()
            .uri("http://model/v1/predict?token=SECRET")
            .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .header("x-request-id", "a\"b")
            .header("authorization", "SECRET")
            .body(())
            .unwrap();
        let clock = Clock::start();
        let (lines, writer) = access_log(clock);
        let mut entry = Entry { began: clock.now(), status: 200, bytes_in: 3, ..Entry::default() };
        entry.describe(&About::of(&request), false);
        lines.send(Box::new(entry)).unwrap();
        let mut refused = Entry { reason: Some(Reason::QueueFull), route: Some("/v1".into()), ..Entry::default() };
        refused.describe(&About::of(&request), true);
        lines.send(Box::new(refused)).unwrap();
        drop(lines);
        let mut written = Vec::new();
        writer.run(&mut written);
        let text = String::from_utf8(written).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["path"], "/v1/predict");
        assert_eq!((lines[0]["status"].as_u64(), lines[0]["bytes_in"].as_u64()), (Some(200), Some(3)));
        assert_eq!(lines[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(lines[0]["request_id"], "a\"b");
        assert!(lines[0].get("reason").is_none() && lines[0].get("route").is_none(), "{}", lines[0]);
        assert_eq!(lines[1]["path"], "/v1/predict?token=SECRET", "asked for");
        assert_eq!((lines[1]["status"].as_u64(), lines[1]["reason"].as_str()), (Some(503), Some("queue_full")));
        assert_eq!(text.matches("SECRET").count(), 1);
    }

    #[test]
    fn a_trace_that_is_none_is_not_shown() {
        for odd in ["", "00", "00-xyz-1-01", "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01"] {
            assert_eq!(trace_id(odd), None, "{odd}");
        }
    }
}
