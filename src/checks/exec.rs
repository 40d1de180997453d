//! `exec`: a program's exit code as evidence.
//!
//! Owns the child and its whole process group for the time of one attempt: whatever the child started and
//! left in its group dies with it, by SIGKILL, at the exit of the child, at the deadline and when the attempt
//! is dropped. No shell, no input. A grandchild that makes a session of its own escapes; a program that does
//! that is a daemon and no check.

mod tail;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, waitpgid};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use self::tail::Tail;
use super::Scene;
use crate::config::ExecCheck;
use crate::engine::{Fault, Outcome};
use crate::secret::Secret;

/// After the group is dead its pipes are at their end, unless an escaped grandchild holds them.
const LAST_OUTPUT: Duration = Duration::from_millis(100);
/// Secrets shorter than this are not looked for in output: they would blank half of it.
const REDACT_BYTES_MIN: usize = 4;

/// Groups that were killed and may hold members that became our children (when we are PID 1 of the
/// container): reaped at the next attempt, for a killed process is not dead at once.
static KILLED_GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

pub(super) async fn attempt(spec: &ExecCheck, scene: &Scene) -> Outcome {
    reap_killed_groups();
    let (mut command, secrets) = match prepare(spec) {
        Ok(prepared) => prepared,
        Err(reason) => return Outcome::fail(Fault::Local, reason, scene.elapsed()),
    };
    scene.waiting_for(format!("{} to exit", program(spec)));
    let output = match run(&mut command).await {
        Ok(output) => output,
        Err(error) => return Outcome::fail(Fault::Local, cannot_run(spec, &error), scene.elapsed()),
    };
    let latency = scene.elapsed();
    let passed = output.status.success();
    let last_line = redact(output.last_line(passed), &secrets);
    if passed {
        return Outcome::pass(latency).remark(last_line);
    }
    let mut reason = how_it_ended(output.status);
    if !last_line.is_empty() {
        reason = format!("{reason}: {last_line}");
    }
    Outcome::fail(Fault::Answer, reason, latency)
}

fn prepare(spec: &ExecCheck) -> Result<(Command, Vec<Secret>), String> {
    let [program, arguments @ ..] = spec.command.as_slice() else {
        return Err("no command".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    let mut secrets = Vec::with_capacity(spec.env.len());
    for (name, source) in &spec.env {
        let secret = source.resolve().map_err(|error| format!("variable {name}: {error}"))?;
        if secret.expose().contains('\0') {
            return Err(format!("variable {name}: its value holds a NUL byte"));
        }
        command.env(name, secret.expose());
        secrets.push(secret);
    }
    Ok((command, secrets))
}

struct Output {
    status: ExitStatus,
    stdout: Tail,
    stderr: Tail,
}

impl Output {
    /// The last line of what a program says when it is well, or when it is not; of the other if it said
    /// nothing there. (What came last on both pipes together cannot be known.)
    fn last_line(&self, passed: bool) -> String {
        let (first, second) = if passed { (&self.stdout, &self.stderr) } else { (&self.stderr, &self.stdout) };
        let line = first.last_line();
        if line.is_empty() { second.last_line() } else { line }
    }
}

async fn run(command: &mut Command) -> io::Result<Output> {
    let mut child = command.spawn()?;
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let pid = pid.ok_or_else(|| io::Error::other("the child has no pid"))?;
    forget_killed_group(pid);
    // Declared after the child, so dropped before it: the group is killed while the child is not yet reaped
    // and its number cannot be somebody else's.
    let mut group = Group { id: pid, killed: false };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out_tail, mut err_tail) = (Tail::default(), Tail::default());
    {
        let reading = async { tokio::join!(drain(stdout, &mut out_tail), drain(stderr, &mut err_tail)) };
        tokio::pin!(reading);
        let all_read = {
            let exited = exited(&mut child, pid);
            tokio::pin!(exited);
            tokio::select! {
                done = &mut exited => {
                    done?;
                    false
                }
                _ = &mut reading => {
                    exited.await?;
                    true
                }
            }
        };
        group.kill();
        if !all_read {
            // Not an error: what was read until then is what there is to say.
            let _ = tokio::time::timeout(LAST_OUTPUT, &mut reading).await;
        }
    }
    let status = child.wait().await?;
    group.leader_is_reaped();
    reap_killed_groups();
    Ok(Output { status, stdout: out_tail, stderr: err_tail })
}

/// Waits for the exit of a child without reaping it: until then its number is its own. A kernel without
/// process descriptors leaves no way but to reap it.
#[expect(deprecated, reason = "unsound only for types that lie about their descriptor; this one owns it")]
async fn exited(child: &mut Child, pid: Pid) -> io::Result<()> {
    match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(descriptor) => AsyncFd::new(descriptor)?.readable().await?.retain_ready(),
        Err(_) => drop(child.wait().await?),
    }
    Ok(())
}

/// Reads to the end, keeping the tail.
async fn drain(pipe: Option<impl AsyncRead + Unpin>, tail: &mut Tail) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = [0; 4096];
    // An error on a pipe of ours is its end.
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        tail.push(&chunk[..count]);
    }
}

/// A process group that dies when this is dropped, at the latest.
struct Group {
    id: Pid,
    killed: bool,
}

impl Group {
    /// Kills all of it. Only while its leader is not reaped: later the number may be another group's.
    fn kill(&mut self) {
        // ESRCH: nobody is left in it.
        let _ = kill_process_group(self.id, Signal::KILL);
        self.killed = true;
    }

    /// The rest of it may be reaped by whoever comes by.
    fn leader_is_reaped(self) {
        drop(self);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.killed {
            self.kill();
        }
        KILLED_GROUPS.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
    }
}

/// Reaps orphans of killed groups that have become our children. A leader is among them only when its
/// attempt was dropped; then the runtime wants no more of it than that it is gone.
fn reap_killed_groups() {
    let mut groups = KILLED_GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    groups.retain(|&group| {
        loop {
            match waitpgid(group, WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                // Killed, not dead yet.
                Ok(None) => return true,
                // None of ours is left.
                Err(_) => return false,
            }
        }
    });
}

/// A number that comes again as a new child is no longer the old group.
fn forget_killed_group(pid: Pid) {
    KILLED_GROUPS.lock().unwrap_or_else(PoisonError::into_inner).retain(|&group| group != pid);
}

fn program(spec: &ExecCheck) -> &str {
    spec.command.first().map_or("", String::as_str)
}

fn cannot_run(spec: &ExecCheck, error: &io::Error) -> String {
    let program = program(spec);
    if let Some(cwd) = spec.cwd.as_deref().filter(|cwd| !cwd.is_dir()) {
        return format!("cannot run {program}: no such working directory {}", cwd.display());
    }
    match error.kind() {
        // The kernel says the same of a script whose interpreter is missing.
        io::ErrorKind::NotFound if program.contains('/') && Path::new(program).exists() => {
            format!("cannot run {program}: its interpreter is missing")
        }
        io::ErrorKind::NotFound => format!("cannot run {program}: no such file"),
        io::ErrorKind::PermissionDenied => format!("cannot run {program}: permission denied"),
        _ => format!("cannot run {program}: {error}"),
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("killed by {name}"),
            None => format!("killed by signal {signal}"),
        },
        (None, None) => "ended without an exit code".to_owned(),
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    let signal = Signal::from_named_raw(signal)?;
    Some(match signal {
        Signal::ABORT => "SIGABRT",
        Signal::ALARM => "SIGALRM",
        Signal::BUS => "SIGBUS",
        Signal::FPE => "SIGFPE",
        Signal::HUP => "SIGHUP",
        Signal::ILL => "SIGILL",
        Signal::INT => "SIGINT",
        Signal::KILL => "SIGKILL",
        Signal::PIPE => "SIGPIPE",
        Signal::QUIT => "SIGQUIT",
        Signal::SEGV => "SIGSEGV",
        Signal::SYS => "SIGSYS",
        Signal::TERM => "SIGTERM",
        Signal::TRAP => "SIGTRAP",
        Signal::XCPU => "SIGXCPU",
        _ => return None,
    })
}

/// A program may print its own environment: what came from a secret does not go on from here.
fn redact(mut line: String, secrets: &[Secret]) -> String {
    for secret in secrets.iter().map(Secret::expose).filter(|secret| secret.len() >= REDACT_BYTES_MIN) {
        line = line.replace(secret, "[secret]");
    }
    line
}

#[cfg(test)]
mod tests;
