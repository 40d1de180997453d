//! A recorded run: every input with its time, as text that replays to identical output.
//!
//! One line an event: nanoseconds, a word, fields, separated by tabs. Texts are escaped, so a line is a
//! line. No secrets are in it, for none are in inputs. Of a reload the new plan's imprint is recorded; the plan is
//! not, so a replay brings its own plans, in order: the same ones, or those of another design. What the engine told
//! people stands beside the events, to be held against a replay.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::ends::{Ends, Failure};
use super::evidence::{Fault, Outcome, Sign, Verdict};
use super::imprint::{Imprint, fingerprint_of};
use super::origins::Origins;
use super::plan::{BackendId, CheckId, Plan};
use super::snapshot::Forced;
use super::time::Time;
use super::traffic::{Answers, Reading, Threads, Traffic};
use super::{Attempt, Engine, Input, Output, Transition};

/// The first line of a recording.
const HEADER: &str = "probegate-trace 1";

/// What happened to an engine.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly every event is an input, and most of those are samples")]
pub enum Event {
    Input(Input),
    /// `handle_timeout` was called.
    Timeout,
    /// A new plan was taken; the replay brings it. None where the recording does not tell what it was about.
    Reload(Option<Box<Imprint>>),
}

/// A recording: the seed, what the plan was about (so that another plan can be told apart), the events.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    pub seed: u64,
    pub started: Time,
    /// Of the plan that it begins with.
    pub plan: Imprint,
    pub events: Vec<(Time, Event)>,
    /// The transitions that the engine put out; empty in a recording that does not tell.
    pub told: Vec<Told>,
}

/// A transition as it was recorded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told {
    pub at: Time,
    /// `gate`, `check`, `instance`, `upstream`, `drain`, `doubt`, `hand`.
    pub about: String,
    /// Of the gate, the check, the instance or the upstream; otherwise empty.
    pub name: String,
    pub from: String,
    pub to: String,
    pub reason: String,
}

impl From<&Transition> for Told {
    fn from(transition: &Transition) -> Self {
        let [from, to] = [transition.from, transition.to].map(str::to_owned);
        let (about, name) = (transition.what.kind().to_owned(), transition.what.name());
        Self { at: transition.at, about, name, from, to, reason: transition.reason.clone() }
    }
}

impl Told {
    /// One line with its line break, to be appended to a recording as things happen.
    pub fn to_line(&self) -> String {
        let words = [&self.about, &self.name, &self.from, &self.to, &self.reason].map(|word| escape(word));
        format!("{}\ttold\t{}\n", self.at.as_nanos(), words.join("\t"))
    }
}

/// Why a text is no trace: which line, and what is wrong with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TraceError {
    /// Counted from 1.
    pub line: usize,
    pub problem: String,
}

impl std::fmt::Display for TraceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for TraceError {}

impl Trace {
    pub fn new(seed: u64, started: Time, plan: &Plan) -> Self {
        Self { seed, started, plan: Imprint::of(plan), events: Vec::new(), told: Vec::new() }
    }

    /// Runs the recording through a new engine: what it put out, and when. `plans` holds the first plan and
    /// then one for each reload; with fewer, the later reloads are left out.
    pub fn replay(&self, plans: &[Arc<Plan>]) -> Vec<(Time, Output)> {
        let Some((first, rest)) = plans.split_first() else { return Vec::new() };
        let mut engine = Engine::new(self.started, Arc::clone(first), self.seed);
        let mut reloads = rest.iter();
        let mut all = Vec::new();
        let mut drain = |at: Time, engine: &mut Engine| {
            while let Some(output) = engine.poll_output() {
                all.push((at, output));
            }
        };
        drain(self.started, &mut engine);
        for (at, event) in &self.events {
            match event {
                Event::Timeout => engine.handle_timeout(*at),
                Event::Input(input) => engine.handle_input(*at, input.clone()),
                Event::Reload(_) => {
                    if let Some(plan) = reloads.next() {
                        engine.handle_input(*at, Input::Reload { plan: Arc::clone(plan) });
                    }
                }
            }
            drain(*at, &mut engine);
        }
        all
    }

    /// As text, header included.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\nseed\t{}\nstarted\t{}\n", self.seed, self.started.as_nanos());
        if let Some(fingerprint) = self.plan.fingerprint {
            let _ = writeln!(text, "plan\t{fingerprint:016x}");
        }
        for (index, name) in self.plan.checks.iter().enumerate() {
            let kind = self.plan.kinds.get(index).map_or_else(String::new, |kind| format!("\t{}", escape(kind)));
            let _ = writeln!(text, "check\t{}{kind}", escape(name));
        }
        for address in &self.plan.backends {
            let _ = writeln!(text, "backend\t{}", escape(address));
        }
        for (at, event) in &self.events {
            text.push_str(&event.to_line(*at));
        }
        for told in &self.told {
            text.push_str(&told.to_line());
        }
        text
    }

    /// Reads a recording back.
    pub fn from_text(text: &str) -> Result<Self, TraceError> {
        let mut lines = text.lines().enumerate();
        if lines.next().map(|(_, line)| line) != Some(HEADER) {
            return Err(TraceError { line: 1, problem: format!("expected `{HEADER}`") });
        }
        let plan = Imprint::default();
        let mut trace = Self { seed: 0, started: Time::ZERO, plan, events: Vec::new(), told: Vec::new() };
        for (index, line) in lines {
            let fields: Vec<&str> = line.split('\t').collect();
            trace.take_line(&fields).map_err(|problem| TraceError { line: index + 1, problem })?;
        }
        Ok(trace)
    }

    fn take_line(&mut self, fields: &[&str]) -> Result<(), String> {
        match fields {
            ["seed", seed] => self.seed = number(seed)?,
            ["started", at] => self.started = Time::from_nanos(number(at)?),
            ["plan", fingerprint] => self.plan.fingerprint = Some(fingerprint_of(fingerprint)?),
            ["check", name] => self.plan.checks.push(unescape(name)?),
            ["check", name, kind] => {
                self.plan.checks.push(unescape(name)?);
                self.plan.kinds.push(unescape(kind)?);
            }
            ["backend", address] => self.plan.backends.push(unescape(address)?),
            [at, "told", about, name, from, to, reason] => self.told.push(Told {
                at: Time::from_nanos(number(at)?),
                about: unescape(about)?,
                name: unescape(name)?,
                from: unescape(from)?,
                to: unescape(to)?,
                reason: unescape(reason)?,
            }),
            [at, rest @ ..] => self.events.push((Time::from_nanos(number(at)?), Event::from_fields(rest)?)),
            [] => return Err("an empty line".to_owned()),
        }
        Ok(())
    }
}

impl Event {
    /// One line with its line break, to be appended to a recording as things happen.
    pub fn to_line(&self, at: Time) -> String {
        let mut line = at.as_nanos().to_string();
        let mut field = |text: &str| {
            line.push('\t');
            line.push_str(text);
        };
        match self {
            Self::Timeout => field("timeout"),
            Self::Reload(imprint) => {
                field("reload");
                imprint.iter().flat_map(|imprint| imprint.words()).for_each(|word| field(&word));
            }
            Self::Input(Input::Reload { plan }) => {
                field("reload");
                Imprint::of(plan).words().iter().for_each(|word| field(word));
            }
            Self::Input(Input::Result { check, attempt, outcome }) => {
                field("result");
                field(&check.0.to_string());
                field(&attempt.0.to_string());
                field(verdict_word(outcome.verdict));
                field(&outcome.latency.as_nanos().to_string());
                field(&outcome.sign.map_or_else(|| "-".to_owned(), sign_words));
                field(&outcome.reading.map_or_else(|| "-".to_owned(), reading_words));
                field(&escape(&outcome.reason));
            }
            Self::Input(Input::Sign { backend, sign }) => {
                field("sign");
                field(&backend.0.to_string());
                field(&sign_words(*sign));
            }
            Self::Input(Input::RunNow { check }) => {
                field("run-now");
                field(&check.0.to_string());
            }
            Self::Input(Input::Override { check, forced, ttl }) => {
                field("override");
                field(&check.0.to_string());
                field(forced.map_or("-", Forced::as_str));
                field(&ttl.as_nanos().to_string());
            }
            Self::Input(Input::SetReady { enabled }) => field(if *enabled { "enable" } else { "disable" }),
            Self::Input(Input::Drain) => field("drain"),
            Self::Input(Input::InFlight { requests }) => {
                field("in-flight");
                field(&requests.to_string());
            }
            Self::Input(Input::Traffic(sample)) => {
                field("traffic");
                traffic_words(sample).iter().for_each(|word| field(word));
            }
            Self::Input(Input::Ends(samples)) => {
                field("ends");
                samples.iter().for_each(|ends| field(&ends_words(ends)));
            }
            Self::Input(Input::Origins(sample)) => {
                field("origins");
                origins_words(sample).for_each(|word| field(&word));
            }
            Self::Input(Input::Throttled { on }) => field(if *on { "throttled" } else { "unthrottled" }),
        }
        line.push('\n');
        line
    }

    fn from_fields(fields: &[&str]) -> Result<Self, String> {
        let input = match fields {
            ["timeout"] => return Ok(Self::Timeout),
            ["reload"] => return Ok(Self::Reload(None)),
            ["reload", words @ ..] => return Ok(Self::Reload(Some(Box::new(Imprint::from_words(words)?)))),
            ["result", check, attempt, verdict, latency, sign, reading, reason] => Input::Result {
                check: CheckId(number(check)?),
                attempt: Attempt(number(attempt)?),
                outcome: Outcome {
                    verdict: verdict_of(verdict)?,
                    reason: unescape(reason)?,
                    latency: Duration::from_nanos(number(latency)?),
                    sign: if *sign == "-" { None } else { Some(sign_of(sign)?) },
                    reading: if *reading == "-" { None } else { Some(reading_of(reading)?) },
                },
            },
            ["sign", backend, sign] => Input::Sign { backend: BackendId(number(backend)?), sign: sign_of(sign)? },
            ["run-now", check] => Input::RunNow { check: CheckId(number(check)?) },
            ["override", check, forced, ttl] => Input::Override {
                check: CheckId(number(check)?),
                forced: match *forced {
                    "-" => None,
                    "up" => Some(Forced::Up),
                    "down" => Some(Forced::Down),
                    other => return Err(format!("expected up, down or -, found `{other}`")),
                },
                ttl: Duration::from_nanos(number(ttl)?),
            },
            ["enable"] => Input::SetReady { enabled: true },
            ["disable"] => Input::SetReady { enabled: false },
            ["drain"] => Input::Drain,
            ["in-flight", requests] => Input::InFlight { requests: number(requests)? },
            ["traffic", words @ ..] => Input::Traffic(traffic_of(words)?),
            ["ends", words @ ..] => Input::Ends(words.iter().map(|words| ends_of(words)).collect::<Result<_, _>>()?),
            ["origins", words @ ..] => Input::Origins(Box::new(origins_of(words)?)),
            ["throttled"] => Input::Throttled { on: true },
            ["unthrottled"] => Input::Throttled { on: false },
            other => return Err(format!("no such event: `{}`", other.join(" "))),
        };
        Ok(Self::Input(input))
    }
}

const FAULTS: [Fault; 5] = [Fault::Answer, Fault::Local, Fault::Refused, Fault::Timeout, Fault::Unreachable];

const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Unknown => "unknown",
        Verdict::Fail(fault) => fault.as_str(),
    }
}

fn verdict_of(word: &str) -> Result<Verdict, String> {
    match word {
        "pass" => Ok(Verdict::Pass),
        "unknown" => Ok(Verdict::Unknown),
        _ => FAULTS
            .into_iter()
            .find(|fault| fault.as_str() == word)
            .map(Verdict::Fail)
            .ok_or_else(|| format!("no such verdict: `{word}`")),
    }
}

fn sign_words(sign: Sign) -> String {
    match sign {
        Sign::Answered => "answered".to_owned(),
        Sign::Refused => "refused".to_owned(),
        Sign::CounterReset => "counter-reset".to_owned(),
        Sign::StartedAt { unix_ms } => format!("started-at {unix_ms}"),
        Sign::Process { pid, started } => format!("process {pid} {started}"),
    }
}

fn sign_of(words: &str) -> Result<Sign, String> {
    match words.split(' ').collect::<Vec<_>>()[..] {
        ["answered"] => Ok(Sign::Answered),
        ["refused"] => Ok(Sign::Refused),
        ["counter-reset"] => Ok(Sign::CounterReset),
        ["started-at", unix_ms] => Ok(Sign::StartedAt { unix_ms: number(unix_ms)? }),
        ["process", pid, started] => Ok(Sign::Process { pid: number(pid)?, started: number(started)? }),
        _ => Err(format!("no such sign: `{words}`")),
    }
}

/// An optional part of a line.
fn optional<T>(part: Option<T>, word: impl Fn(T) -> String) -> String {
    part.map_or_else(|| "-".to_owned(), word)
}

fn optional_of<T>(word: &str, part: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if word == "-" { Ok(None) } else { part(word).map(Some) }
}

fn span_word(span: Duration) -> String {
    span.as_nanos().to_string()
}

fn span_of(word: &str) -> Result<Duration, String> {
    number(word).map(Duration::from_nanos)
}

fn time_word(at: Time) -> String {
    at.as_nanos().to_string()
}

fn time_of(word: &str) -> Result<Time, String> {
    number(word).map(Time::from_nanos)
}

fn reading_words(reading: Reading) -> String {
    // A float in its shortest exact form reads back as itself.
    let value = optional(reading.value, |value| value.to_string());
    let threads = optional(reading.threads, |threads| {
        let Threads { all, ready, uninterruptible, stopped, ended } = threads;
        format!("{all}/{ready}/{uninterruptible}/{stopped}/{ended}")
    });
    let answers =
        optional(reading.answers, |answers| format!("{}/{}/{}", answers.right, answers.asked, reading.examples));
    let [age, cpu] = [span_word(reading.age), optional(reading.cpu, span_word)];
    format!("{value} {age} {cpu} {threads} {answers}")
}

fn reading_of(words: &str) -> Result<Reading, String> {
    let wrong = || format!("no such reading: `{words}`");
    // Recordings of earlier versions tell neither threads nor answers.
    let ([value, age, cpu], [threads, answers]) = match words.split(' ').collect::<Vec<_>>()[..] {
        [value, age, cpu] => ([value, age, cpu], ["-"; 2]),
        [value, age, cpu, threads, answers] => ([value, age, cpu], [threads, answers]),
        _ => return Err(wrong()),
    };
    let counts = |word: &str| word.split('/').map(number).collect::<Result<Vec<u32>, String>>();
    let threads = optional_of(threads, |word| match counts(word)?[..] {
        [all, ready, uninterruptible, stopped, ended] => Ok(Threads { all, ready, uninterruptible, stopped, ended }),
        _ => Err(wrong()),
    })?;
    let answers = optional_of(answers, |word| match word.split('/').collect::<Vec<_>>()[..] {
        [right, asked, examples] => {
            Ok((Answers { right: number(right)?, asked: number(asked)? }, number::<u64>(examples)?))
        }
        _ => Err(wrong()),
    })?;
    let (answers, examples) = answers.unzip();
    let (value, cpu) = (optional_of(value, number)?, optional_of(cpu, span_of)?);
    Ok(Reading { value, age: span_of(age)?, cpu, threads, answers, examples: examples.unwrap_or_default() })
}

fn traffic_words(sample: &Traffic) -> [String; 18] {
    [
        sample.in_flight.to_string(),
        optional(sample.oldest_begun, time_word),
        optional(sample.quietest_since, time_word),
        optional(sample.last_byte, time_word),
        sample.abandoned.to_string(),
        span_word(sample.abandoned_wait),
        sample.abandoned_sharing.to_string(),
        optional(sample.lent_until, time_word),
        optional(sample.pace, span_word),
        span_word(sample.patience),
        sample.queued.to_string(),
        sample.shed.to_string(),
        sample.succeeded.to_string(),
        sample.failed.to_string(),
        optional(sample.last_beat, time_word),
        optional(sample.queue_since, time_word),
        optional(sample.work_begun, time_word),
        optional(sample.work_byte, time_word),
    ]
}

fn traffic_of(words: &[&str]) -> Result<Traffic, String> {
    // Recordings of earlier versions do not tell the last one, or the last three.
    let (words, [queue_since, work_begun, work_byte]) = match words {
        [words @ .., since, begun, byte] if words.len() == 15 => {
            (words, [optional_of(since, time_of)?, optional_of(begun, time_of)?, optional_of(byte, time_of)?])
        }
        [words @ .., since] if words.len() == 15 => (words, [optional_of(since, time_of)?, None, None]),
        words => (words, [None; 3]),
    };
    let &[
        in_flight,
        oldest,
        quietest,
        last_byte,
        abandoned,
        wait,
        sharing,
        lent,
        pace,
        patience,
        queued,
        shed,
        succeeded,
        failed,
        beat,
    ] = words
    else {
        return Err(format!("no such sample: `{}`", words.join(" ")));
    };
    Ok(Traffic {
        in_flight: number(in_flight)?,
        oldest_begun: optional_of(oldest, time_of)?,
        quietest_since: optional_of(quietest, time_of)?,
        last_byte: optional_of(last_byte, time_of)?,
        abandoned: number(abandoned)?,
        abandoned_wait: span_of(wait)?,
        abandoned_sharing: number(sharing)?,
        lent_until: optional_of(lent, time_of)?,
        pace: optional_of(pace, span_of)?,
        patience: span_of(patience)?,
        queued: number(queued)?,
        shed: number(shed)?,
        succeeded: number(succeeded)?,
        failed: number(failed)?,
        last_beat: optional_of(beat, time_of)?,
        queue_since,
        work_begun,
        work_byte,
    })
}

fn ends_words(ends: &Ends) -> String {
    // 0 for none.
    let last_byte = ends.last_byte.map_or(0, Time::as_nanos);
    let counts = [
        ends.succeeded,
        ends.failed,
        ends.row,
        ends.failure.map_or(0, |failure| failure.code().into()),
        ends.trials_succeeded,
        ends.trials_failed,
        ends.trials_unanswered,
        ends.trying.into(),
        ends.pending,
        last_byte,
    ];
    counts.map(|count| count.to_string()).join(" ")
}

fn ends_of(words: &str) -> Result<Ends, String> {
    let counts = words.split(' ').map(number::<u64>).collect::<Result<Vec<_>, _>>()?;
    // A recording of an earlier version does not tell the last two.
    let (counts, pending, byte) = match &counts[..] {
        [counts @ .., pending, byte] if counts.len() == 8 => (counts, *pending, *byte),
        counts => (counts, 0, 0),
    };
    let &[succeeded, failed, row, failure, trials_succeeded, trials_failed, trials_unanswered, trying] = counts else {
        return Err(format!("no such ends: `{words}`"));
    };
    let failure = u32::try_from(failure).map(Failure::of_code).map_err(|_| format!("no such failure: {failure}"))?;
    let trying = trying == 1;
    let last_byte = (byte > 0).then(|| Time::from_nanos(byte));
    Ok(Ends {
        succeeded,
        failed,
        row,
        failure,
        trials_succeeded,
        trials_failed,
        trials_unanswered,
        trying,
        pending,
        last_byte,
    })
}

/// Those with something in them: share, good, bad.
fn origins_words(origins: &Origins) -> impl Iterator<Item = String> {
    let told = origins.shares.iter().enumerate().filter(|(_, share)| **share != (0, 0));
    told.map(|(share, (good, bad))| format!("{share} {good} {bad}"))
}

fn origins_of(words: &[&str]) -> Result<Origins, String> {
    let mut origins = Origins::default();
    for word in words {
        let wrong = || format!("no such origin: `{word}`");
        let &[share, good, bad] = &word.split(' ').map(number::<u64>).collect::<Result<Vec<_>, _>>()?[..] else {
            return Err(wrong());
        };
        let place = usize::try_from(share).ok().and_then(|share| origins.shares.get_mut(share));
        *place.ok_or_else(wrong)? = (good, bad);
    }
    Ok(origins)
}

pub(super) fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("expected a number, found `{text}`"))
}

pub(super) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

pub(super) fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('\\') => '\\',
            Some('t') => '\t',
            Some('n') => '\n',
            Some('r') => '\r',
            other => return Err(format!("no such escape: `\\{}`", other.map_or(String::new(), String::from))),
        });
    }
    Ok(out)
}
