//! A private PostgreSQL server: one cluster, one superuser `model` with the password `sesame`.

#![allow(dead_code, reason = "each test crate that includes this file uses a part of it")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// From the start of the server to its first connection, and from the word to stop to its end.
const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(10);

/// A running server. Stopped when dropped, also by a panic.
pub(crate) struct Postgres {
    child: Child,
    port: u16,
    /// Dropped last: the server's data.
    directory: tempfile::TempDir,
}

impl Postgres {
    /// A server that takes passwords (SCRAM) over TCP.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with more settings, as in `["max_connections=5"]`.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), settings)
    }

    /// A server that also speaks TLS, with this certificate and its key in PEM.
    pub(crate) fn start_tls(certificate: &str, key: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let setting = |name: &str, file: &str, text: &str| {
            let path = directory.path().join(file);
            fs::write(&path, text).expect("a file");
            // A key that others may read is refused.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
            format!("{name}={}", path.display())
        };
        let settings = [
            "ssl=on".to_owned(),
            setting("ssl_cert_file", "server.crt", certificate),
            setting("ssl_key_file", "server.key", key),
        ];
        Self::start_in(directory, &settings.each_ref().map(String::as_str))
    }

    fn start_in(directory: tempfile::TempDir, settings: &[&str]) -> Self {
        let data = directory.path().join("data");
        fs::write(directory.path().join("password"), "sesame\n").expect("a password file");
        give_away(directory.path());
        let done = as_postgres(directory.path(), "initdb")
            .args(["--no-sync", "--username=model", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
            .arg(format!("--pwfile={}", directory.path().join("password").display()))
            .arg("-D")
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
        // Another process may take the free port first: another one, then.
        for _ in 0..5 {
            let port = free_port();
            if let Some(child) = spawn(directory.path(), port, settings) {
                return Self { child, port, directory };
            }
        }
        let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        panic!("postgres did not start on five free ports: {log}");
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `postgres://model:sesame@127.0.0.1:port/postgres`.
    pub(crate) fn url(&self) -> String {
        format!("postgres://model:sesame@{}/postgres", self.address())
    }

    /// The directory of its Unix socket.
    pub(crate) fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// Stops the postmaster and every one of its children where they are.
    pub(crate) fn pause(&self) {
        self.signal_all("-STOP");
    }

    /// Ends [`Postgres::pause`].
    pub(crate) fn resume(&self) {
        self.signal_all("-CONT");
    }

    /// Stops it at once, without a clean shutdown; its port refuses from then on.
    pub(crate) fn kill(&mut self) {
        stop(&mut self.child);
    }

    fn signal_all(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let children = Command::new("pgrep").args(["-P", &pid]).output().map(|output| output.stdout);
        let mut pids = vec![pid];
        pids.extend(String::from_utf8_lossy(&children.unwrap_or_default()).lines().map(str::to_owned));
        // A child may have ended meanwhile.
        let _ = Command::new("kill").arg(signal).args(&pids).stderr(Stdio::null()).status();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.resume();
        self.kill();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A program of PostgreSQL, as the user `postgres` if we are root: it refuses to run as root.
fn as_postgres(directory: &Path, program: &str) -> Command {
    let program = binary(program);
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(directory).stdin(Stdio::null());
    command
}

/// Debian keeps the servers of all versions side by side, outside of `PATH`.
fn binary(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = versions
        .filter_map(|version| Some(version.ok()?.path().join("bin").join(program)))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    let in_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.exists())
    };
    found.pop().or_else(in_path).unwrap_or_else(|| panic!("cannot find {program}: install the package postgresql"))
}

/// Whoever runs a process owns its directory.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn give_away(directory: &Path) {
    if is_root() {
        let done = Command::new("chown").args(["-R", "postgres:postgres"]).arg(directory).status();
        assert!(done.is_ok_and(|status| status.success()), "no user postgres: install the package postgresql");
    }
}

fn spawn(directory: &Path, port: u16, settings: &[&str]) -> Option<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).expect("a log file");
    let mut command = as_postgres(directory, "postgres");
    command.arg("-D").arg(directory.join("data")).args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k"]);
    command.arg(directory).args(["-c", "fsync=off"]);
    for setting in settings {
        command.args(["-c", setting]);
    }
    let mut child = command.stdout(Stdio::null()).stderr(log).spawn().expect("postgres runs");
    if until_it_is_ready(directory, port, &mut child) {
        return Some(child);
    }
    stop(&mut child);
    None
}

/// The last line of `postmaster.pid` says when it takes connections.
#[expect(clippy::disallowed_methods, reason = "a process outside gives no other sign of being ready")]
fn until_it_is_ready(directory: &Path, port: u16, child: &mut Child) -> bool {
    let start = Instant::now();
    while start.elapsed() < START_MAX {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return false;
        }
        let state = fs::read_to_string(directory.join("data/postmaster.pid")).unwrap_or_default();
        if state.lines().last().is_some_and(|line| line.trim() == "ready") {
            return TcpStream::connect(("127.0.0.1", port)).is_ok();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// SIGQUIT takes the children along; SIGKILL would leave them to notice by themselves.
#[expect(clippy::disallowed_methods, reason = "there is no wait with a deadline")]
fn stop(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let _ = Command::new("kill").args(["-QUIT", &child.id().to_string()]).stderr(Stdio::null()).status();
    let start = Instant::now();
    while start.elapsed() < STOP_MAX {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}
