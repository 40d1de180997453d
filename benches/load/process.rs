//! Processes of a run: started pinned, watched through `/proc`, ended by their id when their owner is dropped.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock::{self, nanos};
use crate::machine::{self, Core, TICKS_PER_SECOND};

/// After SIGTERM, until SIGKILL.
const END_GRACE: Duration = Duration::from_secs(2);
const PAGE_BYTES: u64 = 4096;

/// A child, and whatever it starts. Gone when this is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` on one core, its output in `log`.
    pub(crate) fn start(mut command: Command, core: Core, log: &Path) -> io::Result<Self> {
        let file = File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = spawn_pinned(command, core)?;
        Ok(Self { child })
    }

    /// Starts this very binary in another mode, and reads the address that it prints first.
    pub(crate) fn start_own(mode: &str, core: Core) -> io::Result<(Self, SocketAddr)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--mode").arg(mode).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Self { child: spawn_pinned(command, core)? };
        let mut first = String::new();
        if let Some(output) = process.child.stdout.take() {
            BufReader::new(output).read_line(&mut first)?;
        }
        let address = first.trim().parse().map_err(|_| io::Error::other(format!("the {mode} did not start")))?;
        Ok((process, address))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit, if it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// User and system time of it and its descendants so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.tree().into_iter().filter_map(cpu_ticks).sum::<f64>() / TICKS_PER_SECOND
    }

    /// Resident bytes of it and its descendants; shared pages count in each.
    pub(crate) fn rss_bytes(&self) -> u64 {
        self.tree().into_iter().filter_map(rss_pages).sum::<u64>() * PAGE_BYTES
    }

    /// It and its descendants.
    pub(crate) fn tree(&self) -> Vec<u32> {
        let mut tree = vec![self.pid()];
        let mut at = 0;
        while let Some(pid) = tree.get(at).copied() {
            at += 1;
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            tree.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        tree
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let tree = self.tree();
        signal(&tree[..1], Signal::TERM);
        let deadline = clock::now() + nanos(END_GRACE);
        while self.ended().is_none() && clock::now() < deadline {
            pause(Duration::from_millis(5));
        }
        if self.ended().is_none() {
            // The children first: without their parent they would be somebody else's.
            signal(&tree[1..], Signal::KILL);
            signal(&tree[..1], Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| i32::try_from(*pid).ok().and_then(Pid::from_raw)) {
        // Gone already is what was wanted.
        let _ = kill_process(pid, signal);
    }
}

/// A short pause of a thread that has no runtime, as a drop has none.
fn pause(duration: Duration) {
    std::thread::park_timeout(duration);
}

/// A process inherits the affinity of the thread that starts it, so one thread is pinned and starts it.
fn spawn_pinned(mut command: Command, core: Core) -> io::Result<Child> {
    let starter = std::thread::spawn(move || {
        machine::pin(core)?;
        command.spawn()
    });
    starter.join().map_err(|_| io::Error::other("the starter panicked"))?
}

fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses: what counts begins after the last one.
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// utime and stime: fields 14 and 15, of which the first after the name is 3.
fn cpu_ticks(pid: u32) -> Option<f64> {
    let fields = stat_fields(pid)?;
    Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
}

/// Field 24.
fn rss_pages(pid: u32) -> Option<u64> {
    stat_fields(pid)?.get(21)?.parse().ok()
}

/// This process's own CPU seconds so far.
pub(crate) fn own_cpu_seconds() -> f64 {
    cpu_ticks(std::process::id()).unwrap_or(0.0) / TICKS_PER_SECOND
}

/// A port that was free a moment ago, for a program that cannot choose one and say so.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
