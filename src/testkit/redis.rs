//! A private Redis server.

#![allow(dead_code, reason = "each test crate that includes this file uses a part of it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// From the start of the server to its first answer.
const START_MAX: Duration = Duration::from_secs(20);

/// A running server. Killed when dropped, also by a panic.
pub(crate) struct Redis {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    /// Dropped last: the server's working directory.
    directory: tempfile::TempDir,
}

impl Redis {
    /// A server with nothing in it and no password.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with more arguments, as in `["--requirepass", "secret"]`.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        // Another process may take the free port first: another one, then.
        for _ in 0..5 {
            let port = free_port();
            if let Some(child) = spawn(port, &arguments, directory.path()) {
                return Self { child, port, arguments, directory };
            }
        }
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        panic!("redis-server did not start on five free ports; arguments: {arguments:?}; {log}");
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs commands on one connection and returns the last answer as it came, without its last line break.
    /// Each command is its words. Panics if the server does not answer within five seconds.
    pub(crate) fn ask(&self, commands: &[&[&str]]) -> String {
        ask(self.port, commands).expect("redis-server answers")
    }

    /// Stops the process where it is: it keeps its sockets and answers nothing.
    pub(crate) fn pause(&self) {
        signal(self.child.id(), "STOP");
    }

    /// Ends [`Redis::pause`].
    pub(crate) fn resume(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Kills it; its port refuses from then on.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port after [`Redis::kill`], with whatever it saved.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.arguments, self.directory.path()).expect("redis-server starts again");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn spawn(port: u16, arguments: &[String], directory: &std::path::Path) -> Option<Child> {
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(directory)
        .arg("--logfile")
        .arg(directory.join("log"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => panic!("cannot run redis-server ({error}): install the package redis-server"),
    };
    if until_it_answers(port, &mut child) {
        return Some(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

#[expect(clippy::disallowed_methods, reason = "a process outside gives no other sign of being ready")]
fn until_it_answers(port: u16, child: &mut Child) -> bool {
    let start = Instant::now();
    while start.elapsed() < START_MAX {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return false;
        }
        // Any answer will do, "NOAUTH" and "LOADING" among them.
        if ask(port, &[&["PING"]]).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn ask(port: u16, commands: &[&[&str]]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answer = String::new();
    for words in commands {
        let mut request = format!("*{}\r\n", words.len());
        for word in *words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes())?;
        let mut chunk = [0; 16 * 1024];
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer = String::from_utf8_lossy(&chunk[..count]).trim_end().to_owned();
    }
    Ok(answer)
}

fn signal(pid: u32, name: &str) {
    let done = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(done.is_ok_and(|status| status.success()), "kill -{name} {pid} failed");
}
