//! This very program under callgrind, and the count that it says at the end.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Command, Stdio};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Work;

/// How callgrind's last word begins.
const COLLECTED: &str = "Collected : ";

/// Instructions for one turn.
pub(crate) fn per_turn(work: Work) -> io::Result<u64> {
    one_core()?;
    let (few, many) = work.turns();
    let (less, more) = (collected(work, few)?, collected(work, many)?);
    let turns = u64::from(many - few);
    match more.checked_sub(less) {
        Some(difference) if difference >= turns => Ok((difference + turns / 2) / turns),
        _ => Err(io::Error::other(format!(
            "{}: {less} instructions in {few} turns and {more} in {many}: was {} renamed or inlined?",
            work.name(),
            work.function().unwrap_or("the work")
        ))),
    }
}

/// With one core a thread that is woken waits until the waker sleeps: the order of things, and with it the count, is
/// the same every time. Children inherit it.
fn one_core() -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let Some(first) = (0..CpuSet::MAX_CPU).find(|core| allowed.is_set(*core)) else { return Ok(()) };
    let mut one = CpuSet::new();
    one.set(first);
    Ok(sched_setaffinity(None, &one)?)
}

fn collected(work: Work, turns: u32) -> io::Result<u64> {
    let mut log = tempfile::tempfile()?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    if let Some(function) = work.function() {
        command.arg(format!("--toggle-collect={function}"));
    }
    command.arg(std::env::current_exe()?).args(["work", work.name(), &turns.to_string()]);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.try_clone()?).status()?;
    let text = read_back(&mut log)?;
    let count = text.lines().find_map(|line| line.split_once(COLLECTED)?.1.trim().parse().ok());
    match count {
        Some(count) if status.success() => Ok(count),
        _ => Err(io::Error::other(format!("valgrind: {status}\n{text}"))),
    }
}

fn read_back(log: &mut File) -> io::Result<String> {
    let mut text = String::new();
    log.rewind()?;
    log.read_to_string(&mut text)?;
    Ok(text)
}
