//! Transitions and hang reports on disk: what was before the sidecar's own restart.
//!
//! Owns one file of JSON lines and the one before it, each of bounded size, written by a thread of its own so
//! that a hung disk hangs nobody. A line is one write, and a torn one is skipped when read. It promises
//! nothing: a full disk is told once, and the sidecar goes on without.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::answers::report::{Change, HangReport};
use crate::clock::Clock;
use crate::engine::Transition;
use crate::limits;

/// The writing end. The thread ends when the last of them is dropped, with everything written.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    clock: Clock,
    lines: SyncSender<String>,
}

/// The other end, to be run on its own thread.
#[derive(Debug)]
pub(super) struct Writer {
    lines: Receiver<String>,
    file: RingFile,
    failing: bool,
}

impl Ring {
    /// A ring over `path` and its writer. Touches no file yet.
    pub(super) fn open(path: PathBuf, clock: Clock) -> (Self, Writer) {
        let (sender, lines) = sync_channel(limits::RING_QUEUE);
        (Self { clock, lines: sender }, Writer { lines, file: RingFile::new(path), failing: false })
    }

    /// Keeps a transition. Never waits: with a disk this slow the line is lost.
    pub(super) fn push(&self, transition: &Transition) {
        self.push_line(&Change::of(transition, &self.clock));
    }

    /// Keeps a hang report, whole, in one line.
    pub(super) fn push_hang(&self, report: &HangReport) {
        self.push_line(report);
    }

    fn push_line(&self, entry: &impl serde::Serialize) {
        if let Ok(mut line) = serde_json::to_string(entry) {
            line.push('\n');
            let _ = self.lines.try_send(line);
        }
    }
}

impl Writer {
    /// Writes until the last [`Ring`] is gone.
    pub(super) fn run(mut self) {
        while let Ok(line) = self.lines.recv() {
            let written = self.file.append(line.as_bytes());
            match (self.failing, written) {
                (false, Err(error)) => {
                    let path = self.file.path.display();
                    tracing::warn!("transitions are not kept: cannot write {path}: {error}");
                    self.failing = true;
                }
                (true, Ok(())) => {
                    tracing::info!("transitions are kept again in {}", self.file.path.display());
                    self.failing = false;
                }
                (true, Err(_)) | (false, Ok(())) => {}
            }
        }
    }
}

/// What earlier runs left.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Earlier {
    /// Oldest first, at most as many as the engine keeps.
    pub(super) changes: Vec<Change>,
    /// The last one.
    pub(super) hang: Option<HangReport>,
}

/// Reads what earlier runs left. No file is no history; the error is for one that is there and cannot be read.
pub(super) fn read(path: &Path) -> io::Result<Earlier> {
    let mut earlier = Earlier::default();
    for file in [before(path), path.to_owned()] {
        let text = match read_end(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in text.lines() {
            if let Ok(change) = serde_json::from_str::<Change>(line) {
                earlier.changes.push(change.before_restart());
            } else if let Ok(report) = serde_json::from_str::<HangReport>(line) {
                earlier.hang = Some(HangReport { before_restart: true, ..report });
            }
        }
    }
    let surplus = earlier.changes.len().saturating_sub(limits::HISTORY_TRANSITIONS);
    earlier.changes.drain(..surplus);
    Ok(earlier)
}

/// At most the last two limits' worth of a file that somebody else may have blown up.
fn read_end(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(2 * limits::RING_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(2 * limits::RING_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where the file goes when it is full.
fn before(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

#[derive(Debug)]
struct RingFile {
    path: PathBuf,
    open: Option<(File, u64)>,
}

impl RingFile {
    const fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let done = self.try_append(line);
        if done.is_err() {
            // The next line starts over: the directory may have come back.
            self.open = None;
        }
        done
    }

    fn try_append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|&(_, size)| limits::RING_BYTES_MAX < size + line.len() as u64) {
            self.open = None;
            fs::rename(&self.path, before(&self.path))?;
        }
        let (file, size) = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(open(&self.path)?),
        };
        file.write_all(line)?;
        *size += line.len() as u64;
        Ok(())
    }
}

/// Opens for appending, on a line of its own: the last run may have died within one.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    if size == 0 {
        return Ok((file, 0));
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(size - 1))?;
    file.read_exact(&mut last)?;
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok((file, size + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Changed, Gate, Time};

    fn transition(number: u64) -> Transition {
        let reason = format!("transition {number}, with a \"quote\" and a line\nbreak");
        Transition { at: Time::from_secs(number), what: Changed::Gate(Gate::Ready), from: "pass", to: "fail", reason }
    }

    fn write(path: &Path, numbers: impl Iterator<Item = u64>) {
        let (ring, writer) = Ring::open(path.to_owned(), Clock::start());
        let thread = std::thread::spawn(move || writer.run());
        for number in numbers {
            // The queue is bounded on purpose; a test that wants every line waits for room.
            let entry = Change::of(&transition(number), &ring.clock);
            ring.lines.send(serde_json::to_string(&entry).unwrap() + "\n").unwrap();
        }
        drop(ring);
        thread.join().unwrap();
    }

    #[test]
    fn what_one_run_wrote_the_next_one_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring.jsonl");
        assert_eq!(read(&path).unwrap(), Earlier::default());
        write(&path, 0..3);
        write(&path, 3..5);
        let read = read(&path).unwrap().changes;
        assert_eq!(read.len(), 5);
        assert_eq!((read[4].what.as_str(), read[4].name.as_str()), ("gate", "ready"));
        assert_eq!(read[4].reason, transition(4).reason);
        assert!(read[4].before_restart);
    }

    #[test]
    fn the_last_hang_report_is_read_back_whole_among_transitions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring.jsonl");
        write(&path, 0..2);
        let report = |text: &str| HangReport {
            at: "2026-11-21T12:01:07.250Z".to_owned(),
            check: "progress".to_owned(),
            hang: text.to_owned(),
            before_restart: false,
        };
        let (ring, writer) = Ring::open(path.clone(), Clock::start());
        let long = "thread: 7/8 python is T, waits in do_signal_stop\n".repeat(200);
        ring.push_hang(&report("an earlier one"));
        ring.push_hang(&report(&long));
        drop(ring);
        writer.run();
        write(&path, 2..3);
        let read = read(&path).unwrap();
        assert_eq!(read.changes.len(), 3);
        assert_eq!(read.hang, Some(HangReport { before_restart: true, ..report(&long) }));
    }

    #[test]
    fn the_files_stay_bounded_and_the_newest_transitions_survive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring.jsonl");
        write(&path, 0..10_000);
        for file in [path.clone(), before(&path)] {
            assert!(fs::metadata(&file).unwrap().len() <= limits::RING_BYTES_MAX, "{}", file.display());
        }
        let read = read(&path).unwrap().changes;
        assert_eq!(read.len(), limits::HISTORY_TRANSITIONS);
        assert_eq!(read.last().unwrap().reason, transition(9_999).reason);
    }

    #[test]
    fn a_torn_line_and_garbage_are_skipped_and_do_not_spoil_the_next_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring.jsonl");
        fs::write(&path, b"\xff\xfe garbage\n{\"at\":\"2026-").unwrap();
        write(&path, 0..1);
        assert_eq!(read(&path).unwrap().changes.len(), 1);
    }

    #[test]
    fn a_ring_that_cannot_be_written_loses_lines_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gone/ring.jsonl");
        write(&path, 0..2);
        assert!(!path.exists());
        fs::create_dir(path.parent().unwrap()).unwrap();
        write(&path, 2..3);
        assert_eq!(read(&path).unwrap().changes.len(), 1);
    }
}
