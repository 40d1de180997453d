//! Readers of `/proc`: what a process is, what it uses, whether it is still the same one.
//!
//! Every reader takes the root to read under, so that a directory of files is a machine to a test. A process
//! may vanish between any two reads: that is `None`, never an error. Names may hold spaces, parentheses and
//! line breaks. The reads may block (`cmdline` and `smaps_rollup` take the process's memory lock), so callers
//! are on a [lane](super::lane).

use std::io;
use std::path::PathBuf;

/// Set in a process's flags when it is a thread of the kernel.
const PF_KTHREAD: u64 = 0x0020_0000;
/// Of a command line, at most this much is looked at: some are megabytes.
const CMDLINE_BYTES_MAX: usize = 64 * 1024;

/// A `/proc`.
#[derive(Clone, Debug)]
pub(super) struct Proc {
    root: PathBuf,
}

/// The parts of `/proc/PID/stat` that checks look at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    /// The command's name, cut by the kernel to 15 bytes.
    pub(super) name: String,
    /// One letter: `R`, `S`, `D`, `Z`, `T`, `t`, `I`, `X`.
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) group: u32,
    /// User and system time, in clock ticks.
    pub(super) cpu_ticks: u64,
    pub(super) threads: u64,
    /// In clock ticks after boot.
    pub(super) started: u64,
    pub(super) kernel: bool,
}

/// Why memory could not be read.
#[derive(Debug)]
pub(super) enum MemoryRead {
    /// The process is no more.
    Gone,
    Failed(io::Error),
}

impl Proc {
    /// The `/proc` of this container.
    pub(super) fn here() -> Self {
        Self::at("/proc")
    }

    pub(super) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Every process that is visible here.
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids: Vec<u32> =
            std::fs::read_dir(&self.root)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        Ok(pids)
    }

    /// What a process is; `None` if there is none of that number.
    pub(super) fn stat(&self, pid: u32) -> Option<Stat> {
        let bytes = std::fs::read(self.file(pid, "stat")).ok()?;
        parse_stat(&String::from_utf8_lossy(&bytes))
    }

    /// The arguments; empty for a zombie, for a kernel thread and for a process that has vanished.
    pub(super) fn arguments(&self, pid: u32) -> Vec<String> {
        use std::io::Read;
        let mut bytes = Vec::new();
        let Ok(file) = std::fs::File::open(self.file(pid, "cmdline")) else { return Vec::new() };
        if file.take(CMDLINE_BYTES_MAX as u64).read_to_end(&mut bytes).is_err() {
            return Vec::new();
        }
        let text = String::from_utf8_lossy(&bytes);
        text.trim_end_matches('\0').split('\0').filter(|_| !bytes.is_empty()).map(str::to_owned).collect()
    }

    /// Resident bytes.
    pub(super) fn rss(&self, pid: u32) -> Result<u64, MemoryRead> {
        let text = self.read_memory(pid, "statm")?;
        let pages: Option<u64> = text.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok());
        pages.map(|pages| pages.saturating_mul(rustix::param::page_size() as u64)).ok_or(MemoryRead::Gone)
    }

    /// Resident bytes, each shared page divided among those who share it.
    pub(super) fn pss(&self, pid: u32) -> Result<u64, MemoryRead> {
        let text = self.read_memory(pid, "smaps_rollup")?;
        let kib = text.lines().find_map(|line| line.strip_prefix("Pss:")).and_then(kib_field);
        // A zombie has an empty one: it holds no memory.
        Ok(kib.unwrap_or(0).saturating_mul(1024))
    }

    /// Nanoseconds that the threads of a process were on a CPU, where the kernel counts them. Threads that
    /// have ended no longer count: compare for a change, not for growth.
    pub(super) fn thread_nanos(&self, pid: u32) -> u64 {
        let Ok(threads) = std::fs::read_dir(self.file(pid, "task")) else { return 0 };
        threads
            .filter_map(|thread| {
                let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
                text.split_ascii_whitespace().next()?.parse::<u64>().ok()
            })
            .fold(0, u64::wrapping_add)
    }

    /// The threads of a process, oldest first, at most so many.
    pub(super) fn threads(&self, pid: u32, max: usize) -> Vec<ThreadStat> {
        let Ok(entries) = std::fs::read_dir(self.file(pid, "task")) else { return Vec::new() };
        let read = |path: PathBuf| {
            let stat = parse_stat(&String::from_utf8_lossy(&std::fs::read(path.join("stat")).ok()?))?;
            Some(ThreadStat { thread: stat.pid, name: stat.name, state: stat.state })
        };
        let mut threads: Vec<ThreadStat> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter_map(read).take(max).collect();
        threads.sort_by_key(|thread| thread.thread);
        threads
    }

    /// The kernel function that a thread sleeps in; empty where it runs, or where the reader may not know.
    pub(super) fn waits_in(&self, pid: u32, thread: u32) -> String {
        std::fs::read_to_string(self.thread_file(pid, thread, "wchan"))
            .unwrap_or_default()
            .trim()
            .trim_matches('0')
            .to_owned()
    }

    /// What a thread is at (`R`, `S`, `D`, `T`, `t`, `Z`), and how often it has gone to sleep by itself until now.
    pub(super) fn thread_state(&self, pid: u32, thread: u32) -> Option<(char, u64)> {
        let status = std::fs::read(self.thread_file(pid, thread, "status")).ok()?;
        let text = String::from_utf8_lossy(&status);
        let field = |name| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
        Some((field("State:")?.chars().next()?, field("voluntary_ctxt_switches:")?.parse().ok()?))
    }

    /// Memory of the machine, in bytes.
    pub(super) fn memory_total(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.root.join("meminfo")).ok()?;
        let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).and_then(kib_field)?;
        Some(kib.saturating_mul(1024))
    }

    /// When the machine booted, in seconds of Unix time.
    pub(super) fn boot_unix_seconds(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.root.join("stat")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    }

    /// A file of the process that reads it.
    pub(super) fn read_own(&self, name: &str) -> io::Result<String> {
        std::fs::read_to_string(self.root.join("self").join(name))
    }

    fn read_memory(&self, pid: u32, name: &str) -> Result<String, MemoryRead> {
        std::fs::read_to_string(self.file(pid, name)).map_err(|error| {
            let gone = error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
            if gone { MemoryRead::Gone } else { MemoryRead::Failed(error) }
        })
    }

    fn file(&self, pid: u32, name: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(name)
    }

    fn thread_file(&self, pid: u32, thread: u32, name: &str) -> PathBuf {
        self.file(pid, "task").join(thread.to_string()).join(name)
    }
}

/// One thread.
#[derive(Clone, Debug)]
pub(super) struct ThreadStat {
    pub(super) thread: u32,
    pub(super) name: String,
    pub(super) state: char,
}

/// `4711 (a ) b) S 1 4711 ...`: the name ends at the last parenthesis of the line.
fn parse_stat(text: &str) -> Option<Stat> {
    let (pid, rest) = text.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Numbered from 3 in proc(5): `state` is the first here.
    let number = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
    Some(Stat {
        pid: pid.parse().ok()?,
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
        parent: u32::try_from(number(4)?).ok()?,
        // Negative for a process without one.
        group: number(5).and_then(|group| u32::try_from(group).ok()).unwrap_or(0),
        cpu_ticks: number(14)?.saturating_add(number(15)?),
        threads: number(20)?,
        started: number(22)?,
        kernel: number(9)? & PF_KTHREAD != 0,
    })
}

/// `   1234 kB` as 1234.
fn kib_field(text: &str) -> Option<u64> {
    text.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// A machine made of files, for the tests of whoever reads `/proc`.
#[cfg(test)]
pub(super) mod fixture {
    use std::path::Path;

    use super::Proc;

    pub(in crate::checks) struct Machine(tempfile::TempDir);

    impl Machine {
        pub(in crate::checks) fn new() -> Self {
            let machine = Self(tempfile::tempdir().expect("a temporary directory"));
            machine.write("meminfo", "MemTotal:        4194304 kB\nMemFree: 1 kB\n");
            machine.write("stat", "cpu  1 2 3\nbtime 1700000000\nprocesses 9\n");
            machine
        }

        pub(in crate::checks) fn proc(&self) -> Proc {
            Proc::at(self.0.path())
        }

        pub(in crate::checks) fn path(&self) -> &Path {
            self.0.path()
        }

        pub(in crate::checks) fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().expect("under the root")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }

        pub(in crate::checks) fn process(&self, process: &Process<'_>) {
            let Process { pid, parent, group, name, state, ticks, threads, started, arguments, rss_pages } = *process;
            let stat = format!(
                "{pid} ({name}) {state} {parent} {group} 1 0 -1 4194560 1 0 0 0 {ticks} 0 0 0 20 0 {threads} 0 \
                 {started} 1000000 250 18446744073709551615\n"
            );
            self.write(&format!("{pid}/stat"), &stat);
            self.write(&format!("{pid}/cmdline"), &arguments.replace(' ', "\0"));
            self.write(&format!("{pid}/statm"), &format!("9999 {rss_pages} 10 1 0 1 0\n"));
        }
    }

    #[derive(Clone, Copy)]
    pub(in crate::checks) struct Process<'a> {
        pub(in crate::checks) pid: u32,
        pub(in crate::checks) parent: u32,
        pub(in crate::checks) group: u32,
        pub(in crate::checks) name: &'a str,
        pub(in crate::checks) state: char,
        pub(in crate::checks) ticks: u64,
        pub(in crate::checks) threads: u64,
        pub(in crate::checks) started: u64,
        pub(in crate::checks) arguments: &'a str,
        pub(in crate::checks) rss_pages: u64,
    }

    impl<'a> Process<'a> {
        pub(in crate::checks) fn new(pid: u32, name: &'a str, arguments: &'a str) -> Self {
            Self {
                pid,
                parent: 1,
                group: pid,
                name,
                state: 'S',
                ticks: 10,
                threads: 4,
                started: 500 + u64::from(pid),
                arguments,
                rss_pages: 256,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{Machine, Process};
    use super::*;

    #[test]
    fn a_name_may_hold_spaces_parentheses_and_line_breaks() {
        let machine = Machine::new();
        for name in ["python 3", "a) R 1 (b", "two\nlines", "()", ") ("] {
            machine.process(&Process { state: 'D', ..Process::new(42, name, "x") });
            let stat = machine.proc().stat(42).expect("a process");
            assert_eq!((stat.name.as_str(), stat.state, stat.parent, stat.started), (name, 'D', 1, 542));
        }
    }

    #[test]
    fn a_process_that_vanished_or_a_torn_file_is_nobody() {
        let machine = Machine::new();
        assert_eq!(machine.proc().stat(7), None);
        assert!(machine.proc().arguments(7).is_empty());
        assert!(matches!(machine.proc().rss(7), Err(MemoryRead::Gone)));
        assert!(matches!(machine.proc().pss(7), Err(MemoryRead::Gone)));
        for torn in ["", "7", "7 (x", "7 (x) ", "7 (x) S 1 7 1", "nonsense (x) S"] {
            machine.write("7/stat", torn);
            assert_eq!(machine.proc().stat(7), None, "{torn:?}");
        }
        machine.write("7/statm", "");
        assert!(matches!(machine.proc().rss(7), Err(MemoryRead::Gone)));
    }

    #[test]
    fn pss_is_read_from_the_rollup_and_a_zombie_holds_none() {
        let machine = Machine::new();
        machine.write("7/smaps_rollup", "55-7f [rollup]\nRss:     2048 kB\nPss:     1024 kB\nPss_Anon: 9 kB\n");
        assert_eq!(machine.proc().pss(7).expect("readable"), 1024 * 1024);
        machine.write("8/smaps_rollup", "");
        assert_eq!(machine.proc().pss(8).expect("readable"), 0);
    }

    #[test]
    fn this_machine_reads_for_real() {
        let own = std::process::id();
        let proc = Proc::here();
        assert!(proc.pids().expect("a /proc").contains(&own));
        let stat = proc.stat(own).expect("ourselves");
        assert!(stat.threads >= 1 && stat.started > 0 && !stat.kernel, "{stat:?}");
        assert!(proc.rss(own).expect("ours") > 1 << 20);
        assert!(proc.pss(own).expect("ours") > 1 << 16);
        assert!(proc.memory_total().expect("a machine with memory") > 1 << 24);
        assert!(proc.boot_unix_seconds().expect("booted once") > 1_500_000_000);
        assert!(proc.thread_nanos(own) > 0);
        assert!(!proc.arguments(own).is_empty());
    }
}
