//! `process`: is it there, is it running, does it move.
//!
//! Owns the choice of processes (shared with `memory`) and what their states mean. It refuses to see the
//! sidecar itself: not its own process, not another `probegate` command, not the children of its `exec`
//! checks, all of which may carry the very name that is looked for in their arguments.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::bytes_text::size;
use super::proc::{Proc, Stat};
use super::{Memory, Scene};
use crate::config::{ProcessCheck, ProcessSelect};
use crate::engine::{Fault, Outcome, Sign, Time};

/// A process that writes its own pid file has started before the file was written; by this much it may seem
/// to have started later, for the boot time is in whole seconds and moves with the wall clock.
const PID_FILE_SLACK: Duration = Duration::from_secs(5);
/// Pid files hold a number and a line break.
const PID_FILE_BYTES_MAX: u64 = 4096;

/// CPU time of the selected processes at one attempt.
#[derive(Clone, Debug)]
pub(super) struct CpuReading {
    at: Time,
    /// Of the main process: another one starts a new series.
    main: (u32, u64),
    ticks: u64,
    nanos: u64,
}

/// Why no process was selected; for a person.
#[derive(Debug)]
pub(super) enum Unselected {
    /// It is not there.
    Gone(String),
    /// Processes of other containers cannot be seen from here at all, so their absence says nothing.
    Unseen(String),
}

impl From<String> for Unselected {
    fn from(reason: String) -> Self {
        Self::Gone(reason)
    }
}

impl From<Unselected> for String {
    fn from(unselected: Unselected) -> Self {
        match unselected {
            Unselected::Gone(reason) | Unselected::Unseen(reason) => reason,
        }
    }
}

pub(super) async fn attempt(spec: &ProcessCheck, memory: &Mutex<Memory>, scene: &Scene) -> Outcome {
    let (select, cpu_moves) = (spec.select.clone(), spec.cpu_moves);
    let read = move || {
        let proc = Proc::here();
        let found = select_processes(&proc, std::process::id(), &select)?;
        Ok((measure(&proc, &found, cpu_moves), found))
    };
    let read: Result<(Measured, Vec<Stat>), Unselected> = match scene.blocking("/proc to be read", read).await {
        Ok(read) => read,
        Err(outcome) => return outcome,
    };
    let (measured, found) = match read {
        Ok(read) => read,
        Err(Unselected::Gone(reason)) => return Outcome::fail(Fault::Local, reason, scene.elapsed()),
        Err(Unselected::Unseen(reason)) => return Outcome::unknown(reason, scene.elapsed()),
    };
    let mut outcome = judge(spec, &found, &measured, scene.elapsed());
    if let Some(main) = main_of(&found) {
        if let Some(nanos) = measured.nanos.filter(|_| spec.cpu_moves) {
            let reading = CpuReading {
                at: scene.clock.now(),
                main: (main.pid, main.started),
                ticks: found.iter().map(|stat| stat.cpu_ticks).fold(0, u64::wrapping_add),
                nanos,
            };
            let before = memory.lock().unwrap_or_else(PoisonError::into_inner).cpu.replace(reading.clone());
            outcome = judge_cpu(outcome, before.as_ref(), &reading, main);
        }
        outcome = outcome.sign(Sign::Process { pid: main.pid, started: main.started });
    }
    outcome
}

/// The processes that `select` names, oldest first. At least one.
pub(super) fn select_processes(proc: &Proc, own_pid: u32, select: &ProcessSelect) -> Result<Vec<Stat>, Unselected> {
    let mut found = match select {
        ProcessSelect::Match(text) => by_match(proc, own_pid, text)?,
        ProcessSelect::PidFile(path) => vec![by_pid_file(proc, path)?],
        ProcessSelect::Cgroup(path) => by_cgroup(proc, path)?,
    };
    found.sort_by_key(|stat| (stat.started, stat.pid));
    Ok(found)
}

fn by_match(proc: &Proc, own_pid: u32, text: &str) -> Result<Vec<Stat>, Unselected> {
    let pids = proc.pids().map_err(|error| format!("cannot read /proc: {error}"))?;
    let all: Vec<Stat> =
        pids.iter().filter_map(|&pid| proc.stat(pid)).filter(|stat| !stat.kernel && stat.state != 'X').collect();
    let own_name = all.iter().find(|stat| stat.pid == own_pid).map(|stat| stat.name.clone());
    // Each child of an `exec` check leads a process group of its own.
    let exec_groups: HashSet<u32> =
        all.iter().filter(|stat| stat.parent == own_pid && stat.group == stat.pid).map(|stat| stat.group).collect();
    let others: Vec<Stat> = all
        .into_iter()
        .filter(|stat| stat.pid != own_pid && !exec_groups.contains(&stat.group))
        .filter(|stat| own_name.as_deref() != Some(stat.name.as_str()))
        .collect();
    let visible = others.len();
    let found: Vec<Stat> = others.into_iter().filter(|stat| matches(proc, stat, text)).collect();
    match (found.is_empty(), visible) {
        (false, _) => Ok(found),
        (true, 0) => Err(Unselected::Unseen(format!(
            "no process matches \"{text}\": this container sees only its own (the pod needs shareProcessNamespace)"
        ))),
        (true, _) => Err(format!("no process matches \"{text}\"").into()),
    }
}

fn matches(proc: &Proc, stat: &Stat, text: &str) -> bool {
    // The kernel cuts names to 15 bytes, and a zombie has nothing else.
    let cut = text.as_bytes().get(..15).unwrap_or(text.as_bytes());
    if stat.name.as_bytes() == cut {
        return true;
    }
    let arguments = proc.arguments(stat.pid);
    let base = arguments.first().and_then(|program| Path::new(program).file_name()?.to_str());
    base == Some(text) || arguments.join(" ").contains(text)
}

fn by_pid_file(proc: &Proc, path: &Path) -> Result<Stat, String> {
    let shown = path.display();
    let (text, written) = read_pid_file(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("pid file {shown} does not exist"),
        _ => format!("cannot read pid file {shown}: {error}"),
    })?;
    let word = text.split_ascii_whitespace().next().unwrap_or("");
    let pid: u32 = match word.parse() {
        Ok(pid) if pid > 0 => pid,
        _ => return Err(format!("pid file {shown} holds no pid, found \"{}\"", word.escape_debug())),
    };
    let Some(stat) = proc.stat(pid) else {
        return Err(format!("process {pid} of pid file {shown} is gone"));
    };
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    if let (Some(boot), Some(written)) = (proc.boot_unix_seconds(), written) {
        let started = UNIX_EPOCH + Duration::from_secs(boot.saturating_add(stat.started / ticks_per_second));
        if started.duration_since(written).is_ok_and(|later| later > PID_FILE_SLACK) {
            let Stat { name, .. } = &stat;
            return Err(format!("stale pid file {shown}: process {pid} ({name}) started after it was written"));
        }
    }
    Ok(stat)
}

fn read_pid_file(path: &Path) -> std::io::Result<(String, Option<SystemTime>)> {
    use std::io::Read;
    if fs::metadata(path)?.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    let file = fs::File::open(path)?;
    let written = file.metadata()?.modified().ok();
    let mut bytes = Vec::new();
    file.take(PID_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), written))
}

fn by_cgroup(proc: &Proc, path: &Path) -> Result<Vec<Stat>, Unselected> {
    let shown = path.display();
    let text = fs::read_to_string(path.join("cgroup.procs"))
        .map_err(|error| format!("cannot read {shown}/cgroup.procs: {error}"))?;
    let pids: Vec<u32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let found: Vec<Stat> = pids.iter().filter_map(|&pid| proc.stat(pid)).collect();
    match (found.is_empty(), pids.contains(&0)) {
        (false, _) => Ok(found),
        // The kernel writes 0 for a process outside this PID namespace.
        (true, true) => Err(Unselected::Unseen(format!(
            "the processes of {shown} are invisible here (the pod needs shareProcessNamespace)"
        ))),
        (true, false) => Err(format!("no process in {shown}").into()),
    }
}

/// What was read beyond the states.
#[derive(Debug, Default)]
struct Measured {
    rss: u64,
    nanos: Option<u64>,
}

fn measure(proc: &Proc, found: &[Stat], cpu_moves: bool) -> Measured {
    Measured {
        // A process that vanished meanwhile holds none.
        rss: found.iter().filter_map(|stat| proc.rss(stat.pid).ok()).fold(0, u64::saturating_add),
        nanos: cpu_moves.then(|| found.iter().map(|stat| proc.thread_nanos(stat.pid)).fold(0, u64::wrapping_add)),
    }
}

/// The main one: the oldest.
fn main_of(found: &[Stat]) -> Option<&Stat> {
    found.first()
}

fn judge(spec: &ProcessCheck, found: &[Stat], measured: &Measured, latency: Duration) -> Outcome {
    let fail = |reason| Outcome::fail(Fault::Local, reason, latency);
    if let Some(reason) = found.iter().find_map(bad_state) {
        return fail(reason);
    }
    if found.len() < spec.min_count {
        return fail(format!("{} found, expected at least {}", processes(found.len()), spec.min_count));
    }
    if let Some(max) = spec.max_rss.filter(|max| measured.rss > max.0) {
        return fail(format!("resident memory is {}, expected at most {}", size(measured.rss), size(max.0)));
    }
    let threads: u64 = found.iter().map(|stat| stat.threads).sum();
    if let Some(max) = spec.max_threads.filter(|max| threads > *max) {
        return fail(format!("{threads} threads, expected at most {max}"));
    }
    match found.iter().find(|stat| stat.state == 'D') {
        Some(stat) => Outcome::pass(latency).remark(format!("{} is in uninterruptible sleep", who(stat))),
        None => Outcome::pass(latency),
    }
}

fn judge_cpu(outcome: Outcome, before: Option<&CpuReading>, now: &CpuReading, main: &Stat) -> Outcome {
    let frozen = before
        .filter(|before| before.main == now.main && (before.ticks, before.nanos) == (now.ticks, now.nanos))
        .filter(|_| outcome.verdict == crate::engine::Verdict::Pass);
    let Some(before) = frozen else { return outcome };
    let since = Duration::from_millis(u64::try_from(now.at.since(before.at).as_millis()).unwrap_or(u64::MAX));
    let reason = format!("the CPU time of {} has not moved for {}", who(main), humantime::format_duration(since));
    Outcome::fail(Fault::Local, reason, outcome.latency)
}

fn bad_state(stat: &Stat) -> Option<String> {
    let who = who(stat);
    match stat.state {
        'Z' => Some(format!("{who} is a zombie: it has ended, and its parent {} has not noticed", stat.parent)),
        'T' => Some(format!("{who} is stopped (SIGSTOP)")),
        't' => Some(format!("{who} is stopped by a debugger")),
        _ => None,
    }
}

fn who(stat: &Stat) -> String {
    format!("process {} ({})", stat.pid, stat.name.escape_debug())
}

fn processes(count: usize) -> String {
    if count == 1 { "1 process".to_owned() } else { format!("{count} processes") }
}

#[cfg(test)]
mod tests;
