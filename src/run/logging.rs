//! The log: lines for people on a terminal, JSON for machines, on standard error.
//!
//! Owns the subscriber, the two forms and a thread that does the writing, for whoever reads standard error
//! may stop reading, and no promise of the sidecar may wait for that. It refuses to grow: lines beyond the
//! queue are dropped, and their number is told.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, reload};

use crate::clock::Clock;
use crate::config::{Log, LogFormat};
use crate::limits;

/// Events of this target are transitions, and have columns of their own in the text form.
pub(super) const TRANSITION: &str = "probegate::transition";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("log.level \"{level}\" is not a filter such as \"info\" or \"probegate=debug\": {reason}")]
    Level { level: String, reason: String },
    /// The thread that writes it cannot be started.
    #[error("cannot start the log's thread: {0}")]
    Thread(#[from] io::Error),
}

/// The running log. Dropping it writes what waits, for a bounded time.
#[derive(Debug)]
pub struct Logging {
    outlet: Outlet,
    filter: reload::Handle<Targets, Registry>,
}

impl Logging {
    /// Starts the process' log. A second call in one process (a test's) keeps the first one's.
    pub fn start(log: &Log, clock: Clock) -> Result<Self, LogError> {
        let (filter, handle) = reload::Layer::new(filter(&log.level)?);
        let outlet = Outlet::start()?;
        let terminal = io::stderr().is_terminal();
        let layer = match log.format {
            LogFormat::Json => json(clock, outlet.clone()),
            LogFormat::Auto if !terminal => json(clock, outlet.clone()),
            LogFormat::Auto | LogFormat::Text => {
                let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
                text(clock, colour, outlet.clone())
            }
        };
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(filter).with(layer));
        Ok(Self { outlet, filter: handle })
    }

    /// Changes the level while running.
    pub(super) fn set_level(&self, level: &str) -> Result<(), LogError> {
        // The only other failure is a subscriber that is gone, and with it the log.
        let _ = self.filter.reload(filter(level)?);
        Ok(())
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.outlet.flush();
    }
}

/// By target and level. A filter by the fields of spans would bring an engine for regular expressions along, and we
/// open no spans.
fn filter(level: &str) -> Result<Targets, LogError> {
    let reason = |error: ParseError| LogError::Level { level: level.to_owned(), reason: error.to_string() };
    level.parse().map_err(reason)
}

type Form =
    Box<dyn Layer<tracing_subscriber::layer::Layered<reload::Layer<Targets, Registry>, Registry>> + Send + Sync>;

fn json(clock: Clock, outlet: Outlet) -> Form {
    Box::new(
        tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_timer(Timer(clock))
            .with_writer(outlet),
    )
}

fn text(clock: Clock, colour: bool, outlet: Outlet) -> Form {
    Box::new(tracing_subscriber::fmt::layer().event_format(Text { clock, colour }).with_writer(outlet))
}

struct Timer(Clock);

impl FormatTime for Timer {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        w.write_str(&self.0.rfc3339(self.0.now()))
    }
}

// The text form.

struct Text {
    clock: Clock,
    colour: bool,
}

/// An event taken apart.
#[derive(Debug, Default)]
struct Parts {
    message: String,
    subject: String,
    to: String,
    /// ` key=value` each.
    others: String,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value.to_owned());
    }
}

impl Parts {
    fn take(&mut self, name: &str, value: String) {
        match name {
            "message" => self.message = value,
            "subject" => self.subject = value,
            "to" => self.to = value,
            // Said by the columns or the message already; whole only in JSON.
            "kind" | "from" | "reason" | "failures" | "failing_since" | "traffic" | "probes" | "admin" => {}
            _ => {
                self.others.push(' ');
                self.others.push_str(name);
                self.others.push('=');
                self.others.push_str(&value);
            }
        }
    }
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut w: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let time = self.clock.time_of_day(self.clock.now());
        let line = if event.metadata().target() == TRANSITION {
            self.transition(&time, &parts)
        } else {
            self.plain(&time, *event.metadata().level(), &parts)
        };
        writeln!(w, "{}", one_line(&line))
    }
}

impl Text {
    fn transition(&self, time: &str, parts: &Parts) -> String {
        let colour = match parts.to.as_str() {
            "pass" | "up" | "started" | "enabled" | "sure" => "32",
            "fail" | "down" | "gone" => "31",
            "warn" | "stale" | "disabled" | "doubt" => "33",
            _ => "36",
        };
        let to = self.paint(colour, &format!("{:<11}", parts.to));
        let subject = self.paint("1", &format!("{:<10}", parts.subject));
        format!("{}  {subject} {to} {}", self.paint("2", time), parts.message).trim_end().to_owned()
    }

    fn plain(&self, time: &str, level: Level, parts: &Parts) -> String {
        let level = match level {
            Level::ERROR => self.paint("31", "error: "),
            Level::WARN => self.paint("33", "warning: "),
            Level::INFO => String::new(),
            Level::DEBUG => self.paint("2", "debug: "),
            Level::TRACE => self.paint("2", "trace: "),
        };
        format!("{}  {level}{}{}", self.paint("2", time), parts.message, parts.others)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// What came from outside may hold line breaks and escape codes; a log line holds neither (the codes that we
/// paint with apart).
fn one_line(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\x1b' { ' ' } else { c }).collect()
}

// The writing thread.

enum Item {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// Where formatted lines go: a queue that never makes the caller wait.
#[derive(Clone, Debug)]
struct Outlet {
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Outlet {
    fn start() -> io::Result<Self> {
        let (queue, items) = sync_channel(limits::LOG_QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || drain(&items, &lost, &mut io::stderr()))?;
        Ok(Self { queue, dropped })
    }

    fn flush(&self) {
        let (done, written) = sync_channel(1);
        // A full queue has a reader that does not read: there is nobody to wait for.
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _ = written.recv_timeout(limits::LOG_FLUSH);
        }
    }
}

/// Writes until the last sender is gone. An error is not told: there is nowhere to tell it.
fn drain(items: &Receiver<Item>, lost: &AtomicU64, to: &mut dyn Write) {
    while let Ok(item) = items.recv() {
        match item {
            Item::Line(line) => {
                let _ = to.write_all(&line);
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _ = writeln!(to, "({lost} log lines were dropped: standard error is read too slowly)");
                }
            }
            Item::Flush(done) => {
                let _ = to.flush();
                let _ = done.send(());
            }
        }
    }
}

impl Write for Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.queue.try_send(Item::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Outlet {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(form: impl Fn(Outlet) -> Form, log: impl FnOnce()) -> String {
        let (queue, items) = sync_channel(16);
        let outlet = Outlet { queue, dropped: Arc::default() };
        let (everything, _handle) = reload::Layer::new(Targets::new().with_default(Level::TRACE));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(everything).with(form(outlet)), log);
        let mut text = Vec::new();
        while let Ok(Item::Line(line)) = items.try_recv() {
            text.extend(line);
        }
        String::from_utf8(text).unwrap()
    }

    /// Without the time of day, which is ten characters and the only thing that changes.
    fn lines(text: &str) -> Vec<&str> {
        text.lines().map(|line| &line[9..]).collect()
    }

    #[test]
    fn a_transition_has_its_columns_and_its_reason() {
        let text = logged(
            |outlet| text(Clock::start(), false, outlet),
            || {
                let reason = "redis is down: connection refused by 127.0.0.1:6379 (3 times)";
                let (subject, to) = ("ready", "fail");
                tracing::warn!(target: TRANSITION, kind = "gate", subject, from = "pass", to, "{reason}");
                tracing::info!(target: TRANSITION, kind = "check", subject = "redis", from = "down", to = "up", "");
            },
        );
        assert_eq!(
            lines(&text),
            [
                "  ready      fail        redis is down: connection refused by 127.0.0.1:6379 (3 times)",
                "  redis      up",
            ]
        );
    }

    #[test]
    fn other_events_show_their_fields_and_their_level_if_it_matters() {
        let text = logged(
            |outlet| text(Clock::start(), false, outlet),
            || {
                tracing::info!(traffic = %"127.0.0.1:1", "listening traffic=127.0.0.1:1");
                tracing::info!(checks = 3, "reloaded");
                tracing::warn!("the file\nis odd");
            },
        );
        assert_eq!(
            lines(&text),
            ["  listening traffic=127.0.0.1:1", "  reloaded checks=3", "  warning: the file is odd"]
        );
    }

    #[test]
    fn json_lines_are_flat_and_whole() {
        let text = logged(
            |outlet| json(Clock::start(), outlet),
            || tracing::warn!(target: TRANSITION, subject = "ready", to = "fail", failures = 3, "redis is down"),
        );
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "redis is down");
        assert_eq!((line["subject"].as_str(), line["failures"].as_i64()), (Some("ready"), Some(3)));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_no_time() {
        let (queue, items) = sync_channel(2);
        let mut outlet = Outlet { queue, dropped: Arc::default() };
        for _ in 0..5 {
            outlet.write_all(b"line\n").unwrap();
        }
        let lost = Arc::clone(&outlet.dropped);
        drop(outlet);
        let mut written = Vec::new();
        drain(&items, &lost, &mut written);
        let written = String::from_utf8(written).unwrap();
        assert!(written.contains("(3 log lines were dropped"), "{written}");
    }

    #[test]
    fn a_level_that_is_none_is_refused_with_an_example() {
        let error = filter("probegate=loud").unwrap_err().to_string();
        assert!(error.contains("\"probegate=loud\"") && error.contains("info"), "{error}");
    }
}
