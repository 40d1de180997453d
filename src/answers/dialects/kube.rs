//! kube-apiserver's `?verbose` page, to the letter where it has letters:
//! `[+]name ok`, `[-]name failed: reason`, `[+]name excluded: ok`, `readyz check failed`.
//!
//! What kube-apiserver has no words for gets a `[~]`: not well, and the gate passes all the same.

use std::fmt::Write as _;

use bytes::Bytes;

use super::super::opinion::{Line, Opinion, Part};
use super::{TAIL_BYTES, Telling, by_interest, one_line, reason};
use crate::engine::{Cause, CheckState, Gate};
use crate::limits::PROBE_BODY_BYTES_MAX;

pub(super) fn body(telling: &Telling<'_>) -> Bytes {
    let opinion = telling.opinion;
    let room = PROBE_BODY_BYTES_MAX - TAIL_BYTES;
    let mut page = String::with_capacity(1024);
    for other in &opinion.others {
        let (mark, word) = if other.fails { ("[-]", "failed") } else { ("[~]", "withheld") };
        let name = cause_name(&other.why.cause);
        let since = telling.clock.time_of_day(other.why.since);
        let text = if telling.details { one_line(&other.why.text) } else { "reason withheld".to_owned() };
        let _ = writeln!(page, "{mark}{name} {word}: {text}, since {since}");
    }
    let lines: Vec<_> = opinion.lines.iter().map(|l| line(l, opinion, telling)).collect();
    if page.len() + lines.iter().map(String::len).sum::<usize>() <= room {
        page.extend(lines);
    } else {
        let mut told = 0;
        for line in by_interest(&opinion.lines).map(|l| line(l, opinion, telling)) {
            if room < page.len() + line.len() {
                break;
            }
            page.push_str(&line);
            told += 1;
        }
        let _ = writeln!(page, "... and {} more checks", opinion.lines.len() - told);
    }
    if !opinion.unmatched.is_empty() {
        let mut names: Vec<_> = opinion.unmatched.iter().map(|name| format!("{:?}", one_line(name))).collect();
        let all = names.len();
        while 1 < names.len() && TAIL_BYTES - 160 < names.iter().map(|name| name.len() + 1).sum() {
            names.pop();
        }
        let more = if names.len() < all { format!(" and {} more", all - names.len()) } else { String::new() };
        let list = names.join(",");
        let list = &list[..list.floor_char_boundary(TAIL_BYTES - 160)];
        let _ = writeln!(page, "warn: some health checks cannot be excluded: no matches for {list}{more}");
    }
    let verdict = if opinion.status.passes() { "passed" } else { "failed" };
    let _ = writeln!(page, "{} check {verdict}", opinion.gate.kube_name());
    page.into()
}

fn line(line: &Line<'_>, opinion: &Opinion<'_>, telling: &Telling<'_>) -> String {
    let check = line.check;
    let name = &check.name;
    let why = || if telling.details { reason(check, telling.clock) } else { "reason withheld".to_owned() };
    match line.part {
        Part::Excluded => format!("[+]{name} excluded: ok\n"),
        Part::Fails => format!("[-]{name} failed: {}\n", why()),
        Part::Degrades => format!("[~]{name} degraded: {}\n", why()),
        Part::Ok => format!("[+]{name} ok\n"),
        // No verdict does not fail `/health`; the state is told so that nobody takes it for a pass.
        Part::Idle if opinion.gate == Gate::Health && check.state != CheckState::Down => {
            format!("[+]{name} ok: {}\n", check.state.as_str())
        }
        Part::Idle => format!("[~]{name} {}: {}\n", check.state.as_str(), why()),
    }
}

/// What a reason that is about no check is called.
pub(super) const fn cause_name(cause: &Cause) -> &'static str {
    match cause {
        Cause::Check(_) | Cause::Degraded(_) | Cause::Withdrawn(_) => "check",
        Cause::Starting => "starting",
        Cause::StartupBudget => "startup-budget",
        Cause::Gone => "model-server",
        Cause::Draining => "draining",
        Cause::Disabled => "disabled",
        Cause::RestartBudget => "restart-budget",
        Cause::Doubt => "self-doubt",
    }
}
