//! The binary under test as a process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use super::until::until;
use super::wire::{self, Reply};

/// The binary with a clean environment.
pub(crate) fn probegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_probegate"));
    command.stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

/// Runs a command of the binary to its end.
pub(crate) fn probegate_says(arguments: &[&str]) -> Output {
    probegate().args(arguments).output().expect("the binary runs")
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("kill runs");
    assert!(sent.success(), "cannot send SIG{name}");
}

/// A running `probegate run` on free ports. Killed when dropped.
pub(crate) struct Sidecar {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    addresses: [SocketAddr; 3],
    /// The directory of its configuration, if it is our own.
    _directory: Option<tempfile::TempDir>,
    config: PathBuf,
}

impl Sidecar {
    /// Starts it on this configuration and waits until it listens.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, |command| command)
    }

    /// The same, with more arguments or environment.
    pub(crate) fn start_with(config: &str, more: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("probegate.toml");
        fs::write(&path, config).expect("a configuration file");
        let mut sidecar = Self::start_on(&path, more);
        sidecar._directory = Some(directory);
        sidecar
    }

    /// Starts it as a member of a cgroup from its first step on.
    pub(crate) fn start_in(group: &Path, config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("probegate.toml");
        fs::write(&path, config).expect("a configuration file");
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#]).arg(group);
        command.arg(env!("CARGO_BIN_EXE_probegate")).stdin(Stdio::null());
        let mut sidecar = Self::launch(command, &path, |command| command);
        sidecar._directory = Some(directory);
        sidecar
    }

    /// Starts it on a file of the test's own.
    pub(crate) fn start_on(config: &Path, more: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        Self::launch(probegate(), config, more)
    }

    fn launch(mut command: Command, config: &Path, more: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        command.arg("run").arg("-c").arg(config).args(["--log-format", "json"]);
        for listener in ["traffic", "probes", "admin"] {
            command.args([&format!("--listen-{listener}"), "127.0.0.1:0"]);
        }
        let mut child = more(&mut command).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stderr = child.stderr.take().expect("a pipe");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("no panic").push(line);
            }
        });
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = config.to_owned();
        // From here on a panic drops the guard, which ends the process.
        let mut sidecar = Self { child, log, addresses: [any; 3], _directory: None, config };
        sidecar.addresses = until("the sidecar listens", || {
            if let Ok(Some(status)) = sidecar.child.try_wait() {
                panic!("ended with {status}:\n{}", sidecar.log_text());
            }
            let line = sidecar.log_lines().into_iter().find(|line| line["traffic"].is_string())?;
            Some(["traffic", "probes", "admin"].map(|key| line[key].as_str().expect(key).parse().expect("an address")))
        });
        sidecar
    }

    pub(crate) const fn traffic(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) const fn probes(&self) -> SocketAddr {
        self.addresses[1]
    }

    pub(crate) const fn admin(&self) -> SocketAddr {
        self.addresses[2]
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// A probe's answer.
    pub(crate) fn probe(&self, path: &str) -> Reply {
        wire::get(self.probes(), path)
    }

    /// Waits for a probe to answer so; its last answer.
    pub(crate) fn until(&self, path: &str, status: u16) -> Reply {
        until(&format!("{path} answers {status}; the log:\n{}", self.log_text()), || {
            Some(self.probe(path)).filter(|reply| reply.status == status)
        })
    }

    pub(crate) fn report(&self) -> serde_json::Value {
        wire::get(self.admin(), "/api/report").json()
    }

    /// One check of the report.
    pub(crate) fn check(&self, name: &str) -> serde_json::Value {
        let report = self.report();
        let checks = report["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}")).clone()
    }

    /// Every line of its log that is JSON.
    pub(crate) fn log_lines(&self) -> Vec<serde_json::Value> {
        self.log.lock().expect("no panic").iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub(crate) fn log_text(&self) -> String {
        self.log.lock().expect("no panic").join("\n")
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the sidecar ends", || child.try_wait().expect("a child"))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
