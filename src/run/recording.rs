//! What happens to the engine, on disk: a trace that replays to the same verdicts.
//!
//! Owns one file, begun anew at each start, of bounded size, written by a thread of its own so that a hung disk
//! hangs nobody. A trace with a hole would replay to something else: where one would begin, it ends for good and
//! says so. It holds no request, no answer and no secret, only counts, times and the reasons that people read.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

use crate::engine::{Event, Input, Plan, Time, Told, Trace, Transition};
use crate::limits;

/// The engine's end.
#[derive(Debug)]
pub(super) struct Recording {
    /// The writer lives for as long as this does, ended or not: a thread of ours that goes is a death.
    lines: SyncSender<String>,
    left: usize,
    ended: bool,
}

/// The other end, to be run on its own thread.
#[derive(Debug)]
pub(super) struct Scribe {
    path: PathBuf,
    lines: Receiver<String>,
}

impl Recording {
    /// A trace of an engine that was begun at `started` with `seed` and `plan`. Touches no file yet.
    pub(super) fn begin(path: &Path, seed: u64, started: Time, plan: &Plan) -> (Self, Scribe) {
        let (sender, lines) = sync_channel(limits::TRACE_QUEUE);
        let mut this = Self { lines: sender, left: limits::TRACE_BYTES_MAX, ended: false };
        this.push(Trace::new(seed, started, plan).to_text());
        (this, Scribe { path: path.to_owned(), lines })
    }

    /// The engine is about to be given this.
    pub(super) fn input(&mut self, at: Time, input: &Input) {
        if !self.ended {
            self.push(Event::Input(input.clone()).to_line(at));
        }
    }

    /// The engine is about to be told the time.
    pub(super) fn timeout(&mut self, at: Time) {
        if !self.ended {
            self.push(Event::Timeout.to_line(at));
        }
    }

    /// The engine has told people this.
    pub(super) fn told(&mut self, transition: &Transition) {
        if !self.ended {
            self.push(Told::from(transition).to_line());
        }
    }

    fn push(&mut self, line: String) {
        let why = match self.left.checked_sub(line.len()) {
            None => "it is as long as it may be",
            Some(left) => {
                self.left = left;
                if self.lines.try_send(line).is_ok() {
                    return;
                }
                "its disk is too slow, or gone"
            }
        };
        tracing::warn!("the trace ends here: {why}");
        self.ended = true;
    }
}

impl Scribe {
    /// Writes until the other end is gone. A file that cannot be written is told once, and the rest is let go.
    pub(super) fn run(self) {
        if let Err(error) = self.write() {
            tracing::warn!("the trace ends here: cannot write {}: {error}", self.path.display());
            while self.lines.recv().is_ok() {}
        }
    }

    fn write(&self) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&self.path)?);
        loop {
            match self.lines.recv_timeout(limits::TRACE_FLUSH) {
                Ok(line) => file.write_all(line.as_bytes())?,
                Err(RecvTimeoutError::Timeout) => file.flush()?,
                Err(RecvTimeoutError::Disconnected) => return file.flush(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Overrides;
    use crate::engine::{Changed, Output, Traffic};

    #[test]
    fn what_was_recorded_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let (mut recording, scribe) = Recording::begin(&path, 7, Time::from_secs(3), &Plan::default());
        recording.input(Time::from_secs(4), &Input::Drain);
        recording.timeout(Time::from_secs(5));
        drop(recording);
        scribe.run();
        let trace = Trace::from_text(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((trace.seed, trace.started), (7, Time::from_secs(3)));
        let events = vec![(Time::from_secs(4), Event::Input(Input::Drain)), (Time::from_secs(5), Event::Timeout)];
        assert_eq!(trace.events, events);
    }

    /// A file of a recorded run of a real server.
    fn recorded(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hangs").join(name);
        std::fs::read_to_string(path).unwrap()
    }

    /// What `tests/model-servers/hang/prove.py` runs, without its report; `more` is of the one check.
    fn plan(more: &str) -> std::sync::Arc<Plan> {
        let text = format!(
            "[upstream]\naddress = \"127.0.0.1:8000\"\n[health]\nrequire = [\"progress\"]\n\
             [checks.progress]\nprogress = {{ stall_after = \"5s\"{more} }}\n\
             [checks.upstream]\ntcp = \"upstream\"\non_timeout = \"unknown\"\n"
        );
        crate::config::from_str(Path::new("probegate.toml"), &text, &Overrides::default()).unwrap().engine
    }

    /// When `progress` went down in a recorded run of a real FastAPI server behind the sidecar, replayed; and the
    /// last sample before it.
    fn found(name: &str, counted: bool) -> Option<(Time, Traffic)> {
        let mut trace = Trace::from_text(&recorded(name)).unwrap();
        go_on(&mut trace);
        let plan = plan(if counted { ", counter = \"predictions_total\"" } else { "" });
        assert_eq!(trace.plan.checks, plan.checks.iter().map(|check| check.name.clone()).collect::<Vec<_>>());
        let is_down = |output: &Output| match output {
            Output::Transition(turn) => turn.what == Changed::Check("progress".to_owned()) && turn.to == "down",
            _ => false,
        };
        let at = trace.replay(&[plan]).into_iter().find(|(_, output)| is_down(output))?.0;
        let samples = trace.events.iter().take_while(|(then, _)| *then <= at).filter_map(|(_, event)| match event {
            Event::Input(Input::Traffic(sample)) => Some(*sample),
            _ => None,
        });
        Some((at, samples.last().unwrap()))
    }

    /// The sidecar was killed as soon as it had found the hang, and the last quarter of a second went with it: the
    /// last sample goes on.
    fn go_on(trace: &mut Trace) {
        let sample = |event: &(Time, Event)| match event {
            (at, Event::Input(Input::Traffic(sample))) => Some((*at, *sample)),
            _ => None,
        };
        let (from, last) = trace.events.iter().rev().find_map(sample).unwrap();
        let end = trace.events.last().unwrap().0;
        for turn in 1..=8 {
            let at = end.max(from + limits::TRAFFIC_SAMPLE * turn);
            trace.events.push((at, Event::Input(Input::Traffic(Traffic { last_beat: Some(at), ..last }))));
        }
    }

    #[test]
    fn every_recorded_hang_of_a_real_server_is_found_in_its_stall_time() {
        let silently = ["stopped", "deadlocked", "blocked", "first-chunk"].map(|name| (name.to_owned(), false));
        let counted = ["stopped", "deadlocked", "blocked"].map(|name| (format!("{name}-counted"), true));
        for (name, counted) in silently.into_iter().chain(counted) {
            let (at, sample) = found(&format!("{name}.trace"), counted).unwrap_or_else(|| panic!("{name}: not found"));
            let silent = at.since(sample.last_byte.max(sample.oldest_begun).unwrap());
            let due = Duration::from_millis(4900)..=Duration::from_millis(6000);
            assert!(due.contains(&silent), "{name}: found after {silent:?}");
        }
    }

    #[test]
    fn a_recorded_overload_and_a_pause_shorter_than_a_stall_replay_to_no_verdict() {
        for name in ["overload", "let-go"] {
            assert_eq!(found(&format!("{name}.trace"), false), None);
            assert_eq!(found(&format!("{name}-counted.trace"), true), None);
        }
    }

    #[test]
    fn a_recorded_server_that_was_stopped_in_its_backlog_is_found_after_the_bound() {
        let (at, sample) = found("overload-stopped.trace", false).expect("found");
        let silent = at.since(sample.last_byte.unwrap());
        assert!(Duration::from_secs(60) < silent && silent < limits::ABANDONED_WORK_MAX + Duration::from_secs(6));
    }

    /// A recording of a real server and what its own file makes of it, which is what was recorded.
    fn replayed(name: &str) -> (Trace, Vec<Told>) {
        let trace = Trace::from_text(&recorded(&format!("{name}.trace"))).unwrap();
        let file = recorded(&format!("{name}.toml"));
        let plan = crate::config::from_str(Path::new(name), &file, &Overrides::default()).unwrap().engine;
        let told = trace.replay(&[plan]).into_iter().filter_map(|(_, output)| match output {
            Output::Transition(turn) => Some(Told::from(&turn)),
            _ => None,
        });
        let told: Vec<Told> = told.collect();
        assert_eq!(told, trace.told);
        (trace, told)
    }

    /// When `name` turned to `to`, after `since`.
    fn turned(told: &[Told], name: &str, to: &str, since: Time) -> Option<Time> {
        told.iter().find(|turn| since < turn.at && turn.name == name && turn.to == to).map(|turn| turn.at)
    }

    #[test]
    fn a_recorded_triton_whose_stub_was_stopped_is_out_of_rotation_in_five_seconds_and_back_by_itself() {
        let (trace, told) = replayed("triton-stub");
        let failed = trace.events.iter().find_map(|(at, event)| match event {
            Event::Input(Input::Traffic(sample)) if sample.failed > 0 => Some(*at),
            _ => None,
        });
        let failed = failed.expect("an inference that failed");
        let out = turned(&told, "ready", "fail", failed).expect("out of rotation");
        assert!(out.since(failed) < Duration::from_secs(5), "{:?} after the first failure", out.since(failed));
        assert!(turned(&told, "ready", "pass", out).is_some());
        assert!(told.iter().all(|turn| turn.name != "health"), "nobody was to be restarted for that");
    }

    #[test]
    fn a_recorded_vllm_whose_engine_was_stopped_in_mid_stream_is_found_by_its_silence_and_its_counter() {
        let (trace, told) = replayed("vllm");
        let found: Vec<&Told> = told.iter().filter(|turn| turn.name == "health" && turn.to == "fail").collect();
        // Let go a second before the verdict, there was none.
        let [found] = found[..] else { panic!("{found:?}") };
        assert!(found.reason.contains("vllm:iteration_tokens_total_count frozen at"), "{}", found.reason);
        let bytes = trace.events.iter().filter_map(|(at, event)| match event {
            Event::Input(Input::Traffic(sample)) if *at <= found.at => sample.last_byte,
            _ => None,
        });
        let silent = found.at.since(bytes.max().expect("a stream"));
        assert!((Duration::from_secs(5)..=Duration::from_secs(6)).contains(&silent), "{silent:?}");
        assert!(turned(&told, "health", "pass", found.at).is_some(), "let go, it went on");
    }

    #[test]
    fn a_trace_that_is_full_ends_without_a_hole() {
        let (mut recording, scribe) = Recording::begin(Path::new("/nowhere"), 7, Time::ZERO, &Plan::default());
        recording.left = 15;
        recording.timeout(Time::ZERO + Duration::from_nanos(1));
        recording.timeout(Time::ZERO + Duration::from_nanos(2));
        recording.timeout(Time::ZERO);
        assert_eq!(scribe.lines.try_iter().skip(1).collect::<String>(), "1\ttimeout\n");
        assert!(recording.ended);
    }

    #[test]
    fn a_disk_that_does_not_keep_up_ends_it_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trace");
        let (mut recording, scribe) = Recording::begin(&file, 7, Time::ZERO, &Plan::default());
        for _ in 0..=limits::TRACE_QUEUE {
            recording.timeout(Time::ZERO);
        }
        assert!(recording.ended);
        drop(recording);
        scribe.run();
    }
}
