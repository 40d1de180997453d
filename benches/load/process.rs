//! Processes of a run: started pinned, watched through `/proc`, ended by their id when their owner is dropped.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock::{self, nanos};
use crate::cpu::{CpuTime, stat_fields};
use crate::machine::{self, Core};

/// For the kernel to take a killed process apart.
const END_GRACE: Duration = Duration::from_secs(2);
const PAGE_BYTES: u64 = 4096;

/// A child, and whatever it starts. Gone when this is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` on one core and in a session of its own, its output in `log`.
    pub(crate) fn start(command: Command, core: Core, log: &Path) -> io::Result<Self> {
        let file = File::create(log)?;
        let mut command = in_its_own_session(&command);
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

    /// User and system time of it and its descendants so far.
    pub(crate) fn cpu(&self) -> CpuTime {
        CpuTime::of(&self.tree())
    }

    /// Resident bytes of it and its descendants; shared pages count in each.
    pub(crate) fn rss_bytes(&self) -> u64 {
        self.tree().into_iter().filter_map(rss_pages).sum::<u64>() * PAGE_BYTES
    }

    /// Of the resident bytes, those that are no file's.
    pub(crate) fn anonymous_bytes(&self) -> u64 {
        self.tree().into_iter().filter_map(anonymous_kib).sum::<u64>() * 1024
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
    /// At once: how a contender says goodbye is nobody's question here, and asking would take its time.
    fn drop(&mut self) {
        let tree = self.tree();
        // The parent first, or it might start a child anew.
        kill(&tree[..1]);
        kill(&tree[1..]);
        let _ = self.child.wait();
        // Whoever adopted the children may take its time over them; what matters is that they run no more.
        let deadline = clock::now() + nanos(END_GRACE);
        while tree[1..].iter().any(|pid| runs(*pid)) && clock::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// Not gone, and not a zombie either.
fn runs(pid: u32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

fn kill(pids: &[u32]) {
    for pid in pids.iter().filter_map(|pid| i32::try_from(*pid).ok().and_then(Pid::from_raw)) {
        // Gone already is what was wanted.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The kernel may share the CPU by sessions before it looks at threads. In one with the generator, a contender on its own
/// core would weigh against everything else there as little as its threads do against the generator's on the other.
fn in_its_own_session(command: &Command) -> Command {
    let mut wrapped = Command::new("setsid");
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

/// A process inherits the affinity of the thread that starts it, so one thread is pinned and starts it.
fn spawn_pinned(mut command: Command, core: Core) -> io::Result<Child> {
    let starter = std::thread::spawn(move || {
        machine::pin(core)?;
        command.spawn()
    });
    starter.join().map_err(|_| io::Error::other("the starter panicked"))?
}

fn anonymous_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// Field 24.
fn rss_pages(pid: u32) -> Option<u64> {
    stat_fields(pid)?.get(21)?.parse().ok()
}

/// A port that was free a moment ago, for a program that cannot choose one and say so.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
