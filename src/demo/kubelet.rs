//! Plays the kubelet for the demo: starts the model server as a process of its own, and starts it again when
//! it ends.
//!
//! A process of its own, because a crash must not take the sidecar along. Its thread lives as long as the demo
//! does: the kernel ties a child's death signal to the *thread* that started it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::engine::Time;

/// A model server that is asked to stop and does not is killed after this: Ctrl-C takes at most two seconds.
const STOP_MAX: Duration = Duration::from_millis(1000);

/// How long a crashed model server stays down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    /// Each crash doubles the wait, up to this.
    pub(super) max: Duration,
    /// A run that lasted this long counts as good, and the next wait is the first again.
    pub(super) good_run: Duration,
}

impl Backoff {
    /// Impatient: the kubelet itself waits 10 s, doubled up to 5 min, and forgives after 10 min.
    pub(super) const DEMO: Self =
        Self { first: Duration::from_secs(1), max: Duration::from_secs(10), good_run: Duration::from_secs(60) };

    fn after(self, previous: Option<Duration>, lasted: Duration) -> Duration {
        match previous {
            Some(wait) if lasted < self.good_run => (wait * 2).min(self.max),
            _ => self.first,
        }
    }
}

/// The running model server and whoever restarts it. Dropping it ends both, too, but does not wait.
#[derive(Debug)]
pub(super) struct Kubelet {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Kubelet {
    /// Starts the model server with this command line (program first) and keeps it running. `say` is told
    /// what happens, in words for a person.
    pub(super) fn start(
        command: Vec<String>,
        backoff: Backoff,
        say: impl Fn(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("kubelet".to_owned())
            .spawn(move || runtime.block_on(keep_running(&command, backoff, &say, stopped)))?;
        Ok(Self { stop, thread })
    }

    /// Ends the model server and waits until it has gone, at most a second or so.
    pub(super) fn stop(self) {
        // It fails only when the thread has ended already, and then there is nothing to stop.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

async fn keep_running(command: &[String], backoff: Backoff, say: &impl Fn(&str), mut stopped: oneshot::Receiver<()>) {
    let clock = Clock::start();
    let mut wait = None;
    loop {
        let started = clock.now();
        let end = match spawn(command) {
            Ok(mut child) => {
                let pid = child.id();
                tokio::select! {
                    status = child.wait() => status.map_or_else(|error| error.to_string(), |status| how(status, pid)),
                    _ = &mut stopped => return end(child).await,
                }
            }
            Err(error) => format!("cannot be started: {error}"),
        };
        let pause = next_wait(backoff, &mut wait, clock.now(), started);
        say(&format!("model server {end}; started again in {}", humantime::format_duration(pause)));
        tokio::select! {
            () = tokio::time::sleep(pause) => say("starting the model server"),
            _ = &mut stopped => return,
        }
    }
}

fn next_wait(backoff: Backoff, wait: &mut Option<Duration>, now: Time, started: Time) -> Duration {
    *wait.insert(backoff.after(*wait, now - started))
}

fn spawn(command: &[String]) -> io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // Its own group: Ctrl-C at the terminal is for the sidecar, which drains first.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

fn how(status: ExitStatus, pid: Option<u32>) -> String {
    let who = pid.map_or_else(String::new, |pid| format!("(pid {pid}) "));
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("{who}exited with code {code}"),
        (None, Some(signal)) => format!("{who}was killed by signal {signal}"),
        (None, None) => format!("{who}ended: {status}"),
    }
}

/// SIGTERM, a moment of patience, SIGKILL.
async fn end(mut child: Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Not waited for yet, so the pid is still this child's; an error means that it has just ended.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(STOP_MAX, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rustix::process::test_kill_process;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);
    const QUICK: Backoff =
        Backoff { first: Duration::from_millis(1), max: Duration::from_millis(4), good_run: Duration::from_secs(60) };

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_crashed_server_is_started_again_and_the_crash_is_told() {
        let (sender, said) = mpsc::channel();
        let say = move |line: &str| drop(sender.send(line.to_owned()));
        let kubelet = Kubelet::start(shell("exit 3"), QUICK, say).unwrap();
        let first = said.recv_timeout(DEADLINE).unwrap();
        assert!(first.ends_with("exited with code 3; started again in 1ms"), "{first}");
        assert_eq!(said.recv_timeout(DEADLINE).unwrap(), "starting the model server");
        let second = said.recv_timeout(DEADLINE).unwrap();
        assert!(second.ends_with("exited with code 3; started again in 2ms"), "{second}");
        kubelet.stop();
    }

    #[test]
    fn a_server_that_was_killed_is_told_by_its_signal() {
        let (sender, said) = mpsc::channel();
        let say = move |line: &str| drop(sender.send(line.to_owned()));
        let kubelet = Kubelet::start(shell("kill -9 $$"), QUICK, say).unwrap();
        let line = said.recv_timeout(DEADLINE).unwrap();
        assert!(line.contains("was killed by signal 9"), "{line}");
        kubelet.stop();
    }

    #[test]
    fn a_program_that_is_not_there_is_tried_again() {
        let (sender, said) = mpsc::channel();
        let say = move |line: &str| drop(sender.send(line.to_owned()));
        let kubelet = Kubelet::start(vec!["/nowhere/at/all".to_owned()], QUICK, say).unwrap();
        let line = said.recv_timeout(DEADLINE).unwrap();
        assert!(line.starts_with("model server cannot be started: No such file"), "{line}");
        kubelet.stop();
    }

    #[test]
    fn stopping_leaves_no_orphan_even_of_a_server_that_ignores_sigterm() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script =
            format!("trap '' TERM; echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 0.1; done", file.display());
        let kubelet = Kubelet::start(shell(&script), QUICK, |_| {}).unwrap();
        let mut pid = None;
        wait_for(|| {
            pid = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
            pid.is_some()
        });
        let pid = Pid::from_raw(pid.unwrap()).unwrap();
        kubelet.stop();
        assert!(test_kill_process(pid).is_err(), "{pid:?} is still there");
    }

    #[expect(clippy::disallowed_methods, reason = "a real process cannot be awaited in paused time")]
    fn wait_for(mut holds: impl FnMut() -> bool) {
        let clock = Clock::start();
        while !holds() {
            assert!(clock.now() < Time::ZERO + DEADLINE, "waited {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_good_run_is_forgiven() {
        let seconds = Duration::from_secs;
        let backoff = Backoff::DEMO;
        assert_eq!(backoff.after(None, seconds(1)), seconds(1));
        assert_eq!(backoff.after(Some(seconds(8)), seconds(1)), seconds(10));
        assert_eq!(backoff.after(Some(seconds(8)), seconds(61)), seconds(1));
    }
}
