use std::process::{Child, Command, Stdio};

use super::super::proc::fixture::{Machine, Process};
use super::super::trial::Trial;
use super::*;
use crate::config::Bytes;
use crate::engine::Verdict;

const OWN: u32 = 90;

fn spec(select: ProcessSelect) -> ProcessCheck {
    ProcessCheck { select, min_count: 1, max_rss: None, max_threads: None, cpu_moves: false }
}

fn matching(text: &str) -> ProcessSelect {
    ProcessSelect::Match(text.into())
}

fn reason_on(machine: &Machine, spec: &ProcessCheck) -> (Verdict, String) {
    let proc = machine.proc();
    match select_processes(&proc, OWN, &spec.select) {
        Ok(found) => {
            let outcome = judge(spec, &found, &measure(&proc, &found, false), Duration::ZERO);
            (outcome.verdict, outcome.reason)
        }
        Err(Unselected::Gone(reason)) => (Verdict::Fail(Fault::Local), reason),
        Err(Unselected::Unseen(reason)) => (Verdict::Unknown, reason),
    }
}

fn pids(machine: &Machine, select: &ProcessSelect) -> Vec<u32> {
    select_processes(&machine.proc(), OWN, select)
        .map_or_else(|_| Vec::new(), |found| found.iter().map(|s| s.pid).collect())
}

#[test]
fn it_is_found_by_name_by_base_name_and_by_a_part_of_the_command_line_oldest_first() {
    let machine = Machine::new();
    machine.process(&Process { started: 900, ..Process::new(10, "python", "/usr/bin/python -m recommender") });
    machine.process(&Process {
        started: 100,
        ..Process::new(11, "tensorflow_mode", "/opt/tensorflow_model_server --port=1")
    });
    machine.process(&Process { started: 200, ..Process::new(12, "sh", "sh -c recommender") });
    assert_eq!(pids(&machine, &matching("recommender")), [12, 10]);
    assert_eq!(pids(&machine, &matching("python")), [10]);
    assert_eq!(pids(&machine, &matching("tensorflow_model_server")), [11]);
    assert_eq!(reason_on(&machine, &spec(matching("triton"))).1, "no process matches \"triton\"");
}

#[test]
fn the_sidecar_sees_neither_itself_nor_its_kin_nor_the_kernel() {
    let machine = Machine::new();
    machine.process(&Process::new(OWN, "probegate", "probegate run -c recommender.toml"));
    machine.process(&Process::new(91, "probegate", "probegate check -c recommender.toml"));
    machine.process(&Process { parent: OWN, ..Process::new(92, "sh", "sh /check.sh recommender") });
    machine.process(&Process { parent: 92, group: 92, ..Process::new(93, "curl", "curl recommender") });
    machine.write("94/stat", "94 (recommender) S 2 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0\n");
    let (verdict, reason) = reason_on(&machine, &spec(matching("recommender")));
    assert_eq!(verdict, Verdict::Unknown, "what cannot be seen is no evidence of death");
    assert_eq!(
        reason,
        "no process matches \"recommender\": this container sees only its own (the pod needs shareProcessNamespace)"
    );
}

#[test]
fn states_say_what_they_are() {
    let machine = Machine::new();
    for (state, passes, said) in [
        ('R', true, ""),
        ('S', true, ""),
        ('D', true, "process 47 (python) is in uninterruptible sleep"),
        ('T', false, "process 47 (python) is stopped (SIGSTOP)"),
        ('t', false, "process 47 (python) is stopped by a debugger"),
        ('Z', false, "process 47 (python) is a zombie: it has ended, and its parent 1 has not noticed"),
    ] {
        machine.process(&Process { state, ..Process::new(47, "python", "") });
        let (verdict, reason) = reason_on(&machine, &spec(matching("python")));
        assert_eq!((verdict == Verdict::Pass, reason.as_str()), (passes, said), "{state}");
    }
}

#[test]
fn counts_memory_and_threads_have_limits() {
    let machine = Machine::new();
    machine.process(&Process::new(10, "worker", "worker"));
    machine.process(&Process::new(11, "worker", "worker"));
    let base = spec(matching("worker"));
    let page = rustix::param::page_size() as u64;
    let exactly = ProcessCheck { min_count: 2, max_rss: Some(Bytes(512 * page)), max_threads: Some(8), ..base.clone() };
    assert_eq!(reason_on(&machine, &exactly), (Verdict::Pass, String::new()));
    let more = ProcessCheck { min_count: 3, ..base.clone() };
    assert_eq!(reason_on(&machine, &more).1, "2 processes found, expected at least 3");
    let fatter = ProcessCheck { max_rss: Some(Bytes(511 * page)), ..base.clone() };
    assert!(reason_on(&machine, &fatter).1.starts_with("resident memory is 2 MiB, expected at most"), "{page}");
    let busier = ProcessCheck { max_threads: Some(7), ..base };
    assert_eq!(reason_on(&machine, &busier).1, "8 threads, expected at most 7");
}

#[test]
fn a_pid_file_may_be_missing_empty_garbage_gone_or_stale() {
    let machine = Machine::new();
    let path = machine.path().join("server.pid");
    let check = spec(ProcessSelect::PidFile(path.clone()));
    let shown = path.display();
    assert_eq!(reason_on(&machine, &check).1, format!("pid file {shown} does not exist"));
    for (text, said) in [("", "\"\""), ("0\n", "\"0\""), ("-1", "\"-1\""), ("p\u{1b}[2J", "\"p\\u{1b}[2J\"")] {
        machine.write("server.pid", text);
        assert_eq!(reason_on(&machine, &check).1, format!("pid file {shown} holds no pid, found {said}"));
    }
    machine.write("server.pid", "4711\n");
    assert_eq!(reason_on(&machine, &check).1, format!("process 4711 of pid file {shown} is gone"));
    machine.process(&Process::new(4711, "python", "python"));
    assert_eq!(reason_on(&machine, &check), (Verdict::Pass, String::new()));
    // The machine booted in 2023: ten years of ticks later is after the file was written.
    let ticks = 10 * 365 * 86_400 * rustix::param::clock_ticks_per_second();
    machine.process(&Process { started: ticks, ..Process::new(4711, "bash", "bash") });
    let said = format!("stale pid file {shown}: process 4711 (bash) started after it was written");
    assert_eq!(reason_on(&machine, &check).1, said);
    let directory = spec(ProcessSelect::PidFile(machine.path().to_owned()));
    assert!(reason_on(&machine, &directory).1.contains("is a directory"));
}

#[test]
fn a_cgroup_gives_its_processes() {
    let machine = Machine::new();
    machine.process(&Process::new(20, "python", "python"));
    let check = spec(ProcessSelect::Cgroup(machine.path().join("group")));
    assert!(reason_on(&machine, &check).1.ends_with("cgroup.procs: No such file or directory (os error 2)"));
    machine.write("group/cgroup.procs", "20\n21\n");
    assert_eq!(reason_on(&machine, &check), (Verdict::Pass, String::new()));
    machine.write("group/cgroup.procs", "0\n0\n");
    assert!(reason_on(&machine, &check).1.ends_with("(the pod needs shareProcessNamespace)"));
    machine.write("group/cgroup.procs", "");
    assert!(reason_on(&machine, &check).1.starts_with("no process in "));
}

#[test]
fn frozen_cpu_time_fails_and_a_new_process_starts_a_new_series() {
    let main = Machine::new();
    main.process(&Process::new(30, "python", "python"));
    let main = main.proc().stat(30).expect("a process");
    let at = |secs, ticks, nanos| CpuReading { at: Time::from_secs(secs), main: (30, 530), ticks, nanos };
    let pass = || Outcome::pass(Duration::ZERO);
    let first = at(1, 10, 10);
    assert_eq!(judge_cpu(pass(), None, &first, &main).verdict, Verdict::Pass);
    assert_eq!(judge_cpu(pass(), Some(&first), &at(6, 10, 11), &main).verdict, Verdict::Pass);
    let frozen = judge_cpu(pass(), Some(&first), &at(6, 10, 10), &main);
    assert_eq!(frozen.reason, "the CPU time of process 30 (python) has not moved for 5s");
    let another = CpuReading { main: (31, 900), ..at(6, 10, 10) };
    assert_eq!(judge_cpu(pass(), Some(&first), &another, &main).verdict, Verdict::Pass);
}

/// A child that is killed and reaped whatever happens.
struct Sleeper(Child);

impl Sleeper {
    fn named(seconds: &str) -> Self {
        let child = Command::new("sleep").arg(seconds).stdin(Stdio::null()).spawn().expect("sleep runs");
        Self(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_real_process_is_found_signed_stopped_and_gone() {
    let trial = Trial::new();
    let sleeper = Sleeper::named("4242.4711");
    let pid = sleeper.0.id();
    let check = spec(matching("4242.4711"));
    let ask = || trial.attempt(async |scene| attempt(&check, &trial.memory, scene).await);

    let there = ask().await;
    assert_eq!(there.verdict, Verdict::Pass, "{}", there.reason);
    assert!(matches!(there.sign, Some(Sign::Process { pid: p, started }) if p == pid && started > 0), "{there:?}");

    let raw = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::kill_process(raw, rustix::process::Signal::STOP).expect("it is ours");
    let mut stopped = ask().await;
    for _ in 0..1000 {
        if stopped.verdict != Verdict::Pass {
            break;
        }
        tokio::task::yield_now().await;
        stopped = ask().await;
    }
    assert_eq!(stopped.reason, format!("process {pid} (sleep) is stopped (SIGSTOP)"));

    drop(sleeper);
    assert_eq!(ask().await.reason, "no process matches \"4242.4711\"");
}

#[tokio::test]
async fn the_cpu_time_of_a_real_sleeper_stands_still() {
    let trial = Trial::new();
    let sleeper = Sleeper::named("4242.4712");
    let check = ProcessCheck { cpu_moves: true, ..spec(matching("4242.4712")) };
    let ask = || trial.attempt(async |scene| attempt(&check, &trial.memory, scene).await);
    let mut last = ask().await;
    // Its first instants may still use some CPU.
    for _ in 0..1000 {
        if last.verdict != Verdict::Pass {
            break;
        }
        last = ask().await;
    }
    let pid = sleeper.0.id();
    assert!(last.reason.starts_with(&format!("the CPU time of process {pid} (sleep) has not moved for ")), "{last:?}");
}
