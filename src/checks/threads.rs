//! What the threads of the model server's processes are at: evidence of a hang, and each of them for its report.

use super::proc::{Proc, Stat, ThreadStat};
use super::process;
use crate::config::ProcessSelect;
use crate::engine::Threads;

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
    let shown = |pid: u32, ThreadStat { thread, name, state }| {
        let (name, waits_in) = (name.escape_debug().to_string(), proc.waits_in(pid, thread));
        ThreadState { process: pid, thread, name, state, waits_in }
    };
    some_of_each(&proc, &found).into_iter().map(|(pid, thread)| shown(pid, thread)).collect()
}

/// Threads of each of the processes: one of many must not hide the others.
fn some_of_each(proc: &Proc, found: &[Stat]) -> Vec<(u32, ThreadStat)> {
    let mut threads = Vec::new();
    for (at, stat) in found.iter().enumerate().take(THREADS_MAX) {
        // What one leaves goes to those after it.
        let share = (THREADS_MAX - threads.len()) / (found.len() - at).min(THREADS_MAX - at);
        threads.extend(proc.threads(stat.pid, share).into_iter().map(|thread| (stat.pid, thread)));
    }
    threads
}

/// A look at the threads of some processes. One that is ready to run may have woken at this very moment, for the
/// question of another check maybe: only a second look tells whether it gets to sleep in between.
#[derive(Debug)]
pub(super) struct Look {
    threads: Threads,
    /// Those that were ready: process, thread, how often it had gone to sleep until then.
    ready: Vec<(u32, u32, u64)>,
}

impl Look {
    /// Blocks on `/proc`.
    pub(super) fn at(proc: &Proc, found: &[Stat]) -> Self {
        let mut look = Self { threads: Threads::default(), ready: Vec::new() };
        for (pid, thread) in some_of_each(proc, found) {
            look.threads.all += 1;
            match thread.state {
                'R' => {
                    let slept = proc.thread_state(pid, thread.thread).filter(|(state, _)| *state == 'R');
                    look.ready.extend(slept.map(|(_, slept)| (pid, thread.thread, slept)));
                }
                'D' => look.threads.uninterruptible += 1,
                'T' | 't' => look.threads.stopped += 1,
                'Z' | 'X' => look.threads.ended += 1,
                _ => {}
            }
        }
        look
    }

    pub(super) const fn wants_another(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Looks again at those that were ready. Blocks on `/proc`.
    pub(super) fn again(self, proc: &Proc) -> Threads {
        let still = |&(pid, thread, slept): &(u32, u32, u64)| proc.thread_state(pid, thread) == Some(('R', slept));
        // At most THREADS_MAX.
        Threads { ready: self.ready.iter().filter(|ready| still(ready)).count() as u32, ..self.threads }
    }

    /// What one look alone can tell.
    pub(super) const fn threads(&self) -> Threads {
        self.threads
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::super::proc::fixture::{Machine, Process};
    use super::*;

    /// A machine with one process of one thread for each letter.
    fn threads(states: &str) -> Machine {
        let machine = Machine::new();
        machine.process(&Process::new(7, "python", "python serve.py"));
        for (at, state) in states.chars().enumerate() {
            set(&machine, at, state, 40);
        }
        machine
    }

    fn set(machine: &Machine, at: usize, state: char, slept: u64) {
        let thread = 70 + at;
        let stat = format!("{thread} (python) {state} 1 7 1 0 -1 0 1 0 0 0 10 0 0 0 20 0 1 0 500 1000000 250\n");
        machine.write(&format!("7/task/{thread}/stat"), &stat);
        let switches = format!("voluntary_ctxt_switches:\t{slept}\nnonvoluntary_ctxt_switches:\t9\n");
        let status = format!("Name:\tpython\nState:\t{state} (in words)\n{switches}");
        machine.write(&format!("7/task/{thread}/status"), &status);
    }

    fn look(machine: &Machine) -> Look {
        Look::at(&machine.proc(), &[machine.proc().stat(7).expect("a process")])
    }

    #[test]
    fn each_state_is_counted_and_no_second_look_is_wanted_where_none_is_ready() {
        let look = look(&threads("SSDTtSIZ"));
        assert!(!look.wants_another());
        assert_eq!(look.threads(), Threads { all: 8, ready: 0, uninterruptible: 1, stopped: 2, ended: 1 });
    }

    #[test]
    fn a_process_of_many_threads_hides_no_other() {
        let machine = threads(&"S".repeat(THREADS_MAX + 9));
        machine.process(&Process::new(8, "python", "python engine.py"));
        machine.write("8/task/8/stat", "8 (python) T 1 8 1 0 -1 0 1 0 0 0 10 0 0 0 20 0 1 0 500 1000000 250\n");
        let found = [7, 8].map(|pid| machine.proc().stat(pid).expect("a process"));
        let seen = Look::at(&machine.proc(), &found).threads();
        assert_eq!((seen.all as usize, seen.stopped), (THREADS_MAX / 2 + 1, 1));
        let [many, few] = &found;
        let seen = Look::at(&machine.proc(), &[few.clone(), many.clone()]).threads();
        assert_eq!((seen.all as usize, seen.stopped), (THREADS_MAX, 1), "what the first leaves is the second's");
    }

    #[test]
    fn ready_are_those_that_did_not_sleep_between_two_looks() {
        let machine = threads("RRRRS");
        let first = look(&machine);
        assert!(first.wants_another());
        assert_eq!(first.threads().ready, 0, "one look does not tell");
        // The second has slept and woken, the third sleeps, the fourth is gone, the last has only now become ready.
        set(&machine, 1, 'R', 41);
        set(&machine, 2, 'S', 41);
        std::fs::remove_dir_all(machine.path().join("7/task/73")).unwrap();
        set(&machine, 4, 'R', 40);
        assert_eq!(first.again(&machine.proc()), Threads { all: 5, ready: 1, ..Threads::default() });
    }

    #[test]
    fn where_the_kernel_does_not_count_sleeps_nothing_is_said_to_be_ready() {
        let machine = threads("R");
        machine.write("7/task/70/status", "Name:\tpython\nState:\tR (running)\n");
        assert!(!look(&machine).wants_another());
    }

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
