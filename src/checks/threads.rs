//! What the threads of the model server's processes do, for the report of a hang.

use super::proc::{Proc, ThreadStat};
use super::process;
use crate::config::ProcessSelect;

/// Threads that are looked at; a server with more is not made clearer by them.
const THREADS_MAX: usize = 512;

/// One thread at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ThreadState {
    pub process: u32,
    pub thread: u32,
    pub name: String,
    /// The kernel's letter: `R` running, `S` sleeping, `D` in the kernel, `T` stopped, `Z` ended.
    pub state: char,
    /// The kernel function it sleeps in, where that may be read; else empty.
    pub waits_in: String,
}

/// The threads of the selected processes; empty where none may be seen. Blocks on `/proc`.
pub fn threads_of(select: &ProcessSelect) -> Vec<ThreadState> {
    let proc = Proc::here();
    let Ok(found) = process::select_processes(&proc, std::process::id(), select) else { return Vec::new() };
    let of = |pid: u32| {
        proc.threads(pid).into_iter().map(move |ThreadStat { thread, name, state, waits_in }| ThreadState {
            process: pid,
            thread,
            name: name.escape_debug().to_string(),
            state,
            waits_in,
        })
    };
    found.iter().flat_map(|stat| of(stat.pid)).take(THREADS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_sleeping_child_shows_its_thread() {
        let mut child = Command::new("sleep").arg("117.31").stdout(Stdio::null()).spawn().unwrap();
        let threads = threads_of(&ProcessSelect::Match("117.31".to_owned()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            threads.iter().any(|thread| thread.process == child.id() && thread.thread == child.id()),
            "{threads:?}"
        );
    }
}
