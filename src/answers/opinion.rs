//! What a caller is told about a gate or one of its members, after leaving out what the caller excludes.
//!
//! It owns `?exclude`: an excluded member counts as up, and the gate is composed again from the engine's own
//! reasons. It refuses to judge: which check is at fault is what the engine said.

use std::collections::HashSet;

use crate::engine::{
    Cause, CheckId, CheckState, CheckView, Gate, GateView, InstancePhase, Level, Member, OnStale, Plan, Snapshot,
    Status, Verdict, Why,
};

/// A gate as one caller sees it.
pub(super) struct Opinion<'a> {
    pub snapshot: &'a Snapshot,
    pub gate: Gate,
    pub status: Status,
    /// Every check that speaks, in the file's order; or the one that was asked about.
    pub lines: Vec<Line<'a>>,
    /// Reasons that are about no check: draining, disabled, starting.
    pub others: Vec<Other<'a>>,
    /// Names in `exclude` that are no member.
    pub unmatched: Vec<String>,
    /// One check or group was asked about, not the gate.
    pub single: bool,
}

/// One check's part.
pub(super) struct Line<'a> {
    pub check: &'a CheckView,
    pub part: Part,
}

/// A reason of the gate itself.
pub(super) struct Other<'a> {
    pub why: &'a Why,
    /// False: told, but the gate passes all the same (a condemnation that is withheld).
    pub fails: bool,
}

/// What a check does to the gate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    /// Not up, and the gate only warns.
    Degrades,
    Excluded,
    Fails,
    /// Not up, and the gate does not mind (a group that is up without it; no verdict yet, for `/health`).
    Idle,
    Ok,
}

impl<'a> Opinion<'a> {
    /// The gate without the members named in `exclude`.
    pub(super) fn of_gate(snapshot: &'a Snapshot, gate: Gate, exclude: &[String]) -> Self {
        let view = snapshot.gate(gate);
        let excluded = Excluded::new(snapshot, exclude);
        let at_fault = Faults::new(snapshot, gate);
        let heard = heard(snapshot, gate, &excluded, &at_fault);
        let members = view.members.iter().filter_map(|member| {
            let check = snapshot.checks.get(member.check.index())?;
            Some(Line { check, part: part(check, member.check, &excluded, &heard) })
        });
        let mut lines: Vec<_> = members.collect();
        let any_excluded = lines.iter().any(|line| line.part == Part::Excluded);
        let others = others(view, any_excluded);
        let status = if any_excluded { recompose(snapshot, gate, &excluded, &at_fault, &others) } else { view.status };
        if status.passes() {
            // A gate that passes is failed by nobody: what is held back or waited for is told as such.
            lines.iter_mut().filter(|line| line.part == Part::Fails).for_each(|line| line.part = Part::Degrades);
        }
        let unmatched = exclude.iter().filter(|name| !excluded.matched.contains(name.as_str())).cloned().collect();
        Self { snapshot, gate, status, lines, others, unmatched, single: false }
    }

    /// The gate's own reasons, the deciding one first, without those about checks that are left out.
    pub(super) fn reasons(&self) -> impl Iterator<Item = &'a Why> {
        let excluded = |id: CheckId| {
            let name = self.snapshot.checks.get(id.index()).map(|check| &check.name);
            self.lines.iter().any(|line| line.part == Part::Excluded && Some(&line.check.name) == name)
        };
        self.snapshot.gate(self.gate).why.iter().filter(move |why| match why.cause {
            Cause::Check(id) | Cause::Degraded(id) | Cause::Withdrawn(id) => !excluded(id),
            _ => true,
        })
    }

    /// One check or group, whether or not the gate asks it; `None` if there is no such name.
    pub(super) fn of_member(snapshot: &'a Snapshot, gate: Gate, name: &str) -> Option<Self> {
        let (status, checks) = if let Some(at) = snapshot.checks.iter().position(|check| check.name == name) {
            (check_status(snapshot, gate, at), vec![at])
        } else {
            let at = snapshot.groups.iter().position(|group| group.name == name)?;
            let status = match (snapshot.groups[at].level, gate) {
                (Level::Up, _) | (Level::Unknown, Gate::Health) => Status::Pass,
                (Level::Down | Level::Unknown, _) => Status::Fail,
            };
            let mut checks = Vec::new();
            collect(&snapshot.plan, Member::Group(crate::engine::GroupId(u32::try_from(at).ok()?)), &mut checks);
            (status, checks)
        };
        let lines = checks
            .into_iter()
            .filter_map(|at| {
                let check: &CheckView = snapshot.checks.get(at)?;
                let part = match (check.state, status) {
                    (CheckState::Up, _) => Part::Ok,
                    (_, Status::Fail) => Part::Fails,
                    (_, Status::Warn) => Part::Degrades,
                    (_, Status::Pass) => Part::Idle,
                };
                Some(Line { check, part })
            })
            .collect();
        Some(Self { snapshot, gate, status, lines, others: Vec::new(), unmatched: Vec::new(), single: true })
    }
}

/// How one check by itself stands before a gate, by the gate's own rules.
fn check_status(snapshot: &Snapshot, gate: Gate, at: usize) -> Status {
    let check = &snapshot.checks[at];
    match (check.state, gate) {
        (CheckState::Up, _) | (CheckState::Pending | CheckState::Stale | CheckState::Skipped, Gate::Health) => {
            Status::Pass
        }
        (CheckState::Stale, _) => match snapshot.plan.checks.get(at).map_or(OnStale::Fail, |plan| plan.on_stale) {
            OnStale::Degrade => Status::Warn,
            OnStale::Hold if check.last.as_ref().is_some_and(|last| last.verdict == Verdict::Pass) => Status::Pass,
            OnStale::Fail | OnStale::Hold => Status::Fail,
        },
        _ => Status::Fail,
    }
}

/// The checks that do not stand before a gate. Taken from their states, for the gate's own list of reasons
/// ends somewhere; what the engine waived is in that list.
#[derive(Default)]
struct Faults {
    fails: HashSet<CheckId>,
    degrades: HashSet<CheckId>,
}

impl Faults {
    fn new(snapshot: &Snapshot, gate: Gate) -> Self {
        let view = snapshot.gate(gate);
        let mut faults = Self::default();
        if gate == Gate::Startup && snapshot.instance.phase == InstancePhase::Started {
            return faults;
        }
        for member in &view.members {
            match check_status(snapshot, gate, member.check.index()) {
                Status::Fail if member.required => faults.fails.insert(member.check),
                Status::Fail | Status::Warn => faults.degrades.insert(member.check),
                Status::Pass => continue,
            };
        }
        for why in &view.why {
            if let Cause::Degraded(id) | Cause::Withdrawn(id) = why.cause
                && faults.fails.remove(&id)
            {
                faults.degrades.insert(id);
            }
        }
        faults
    }
}

/// The names that a caller leaves out, resolved.
struct Excluded<'a> {
    checks: HashSet<&'a str>,
    groups: HashSet<&'a str>,
    matched: HashSet<&'a str>,
}

impl<'a> Excluded<'a> {
    fn new(snapshot: &'a Snapshot, exclude: &[String]) -> Self {
        let mut excluded = Self { checks: HashSet::new(), groups: HashSet::new(), matched: HashSet::new() };
        if exclude.is_empty() {
            return excluded;
        }
        let wanted: HashSet<&str> = exclude.iter().map(String::as_str).collect();
        excluded.checks =
            snapshot.checks.iter().map(|c| c.name.as_str()).filter(|name| wanted.contains(name)).collect();
        excluded.groups =
            snapshot.groups.iter().map(|g| g.name.as_str()).filter(|name| wanted.contains(name)).collect();
        excluded.matched = excluded.checks.union(&excluded.groups).copied().collect();
        // A group that is left out takes its checks with it.
        for (at, group) in snapshot.groups.iter().enumerate() {
            if excluded.groups.contains(group.name.as_str())
                && let Ok(id) = u32::try_from(at)
            {
                let mut inside = Vec::new();
                collect(&snapshot.plan, Member::Group(crate::engine::GroupId(id)), &mut inside);
                excluded.checks.extend(inside.iter().filter_map(|at| Some(snapshot.checks.get(*at)?.name.as_str())));
            }
        }
        excluded
    }
}

/// Indices of the checks under a member, each once, in the order of the file.
fn collect(plan: &Plan, member: Member, into: &mut Vec<usize>) {
    match member {
        Member::Check(id) if !into.contains(&id.index()) => into.push(id.index()),
        Member::Check(_) => {}
        Member::Group(id) => {
            for member in plan.groups.get(id.index()).map_or(&[][..], |group| &group.of) {
                collect(plan, *member, into);
            }
        }
    }
}

fn part(check: &CheckView, id: CheckId, excluded: &Excluded<'_>, heard: &Faults) -> Part {
    if excluded.checks.contains(check.name.as_str()) {
        Part::Excluded
    } else if heard.fails.contains(&id) {
        Part::Fails
    } else if heard.degrades.contains(&id) {
        Part::Degrades
    } else if check.state == CheckState::Up {
        Part::Ok
    } else {
        Part::Idle
    }
}

/// The gate's own reasons. With a member left out, whether it has started is what the other members say.
fn others(view: &GateView, any_excluded: bool) -> Vec<Other<'_>> {
    let gate = view.gate;
    // A `/health` that passes is failed by nothing: what would fail it is held back.
    let may_fail = gate != Gate::Health || !view.status.passes();
    view.why
        .iter()
        .filter(|why| !matches!(why.cause, Cause::Check(_) | Cause::Degraded(_) | Cause::Withdrawn(_)))
        .filter(|why| {
            !(any_excluded && gate == Gate::Startup && matches!(why.cause, Cause::Starting | Cause::StartupBudget))
        })
        .map(|why| Other { why, fails: may_fail && fails(gate, &why.cause) })
        .collect()
}

/// Whether a reason that is about no check fails this gate, by contract §4.
fn fails(gate: Gate, cause: &Cause) -> bool {
    match cause {
        Cause::Draining | Cause::Disabled => gate == Gate::Ready,
        Cause::Starting | Cause::Gone => gate != Gate::Health,
        Cause::StartupBudget => true,
        _ => false,
    }
}

/// What a gate asks: the members that it requires, and those that only degrade it.
fn asked(plan: &Plan, gate: Gate) -> (&[Member], &[Member]) {
    match gate {
        Gate::Startup => (&plan.startup.require, &[]),
        Gate::Ready => (&plan.ready.require, &plan.ready.degrade),
        Gate::Health => (&plan.health.require, &[]),
    }
}

/// The faults that reach the gate: through groups only where the group does not stand without the check.
fn heard(snapshot: &Snapshot, gate: Gate, excluded: &Excluded<'_>, faults: &Faults) -> Faults {
    let (require, degrade) = asked(&snapshot.plan, gate);
    let mut heard = Faults::default();
    for member in require {
        reach(snapshot, *member, excluded, &faults.fails, &mut heard.fails);
        reach(snapshot, *member, excluded, &faults.degrades, &mut heard.degrades);
    }
    for member in degrade {
        reach(snapshot, *member, excluded, &faults.fails, &mut heard.degrades);
        reach(snapshot, *member, excluded, &faults.degrades, &mut heard.degrades);
    }
    heard
}

fn reach(
    snapshot: &Snapshot,
    member: Member,
    excluded: &Excluded<'_>,
    faults: &HashSet<CheckId>,
    heard: &mut HashSet<CheckId>,
) {
    if stands(snapshot, member, excluded, faults) {
        return;
    }
    match member {
        Member::Check(id) => {
            heard.insert(id);
        }
        Member::Group(id) => {
            for member in snapshot.plan.groups.get(id.index()).map_or(&[][..], |group| &group.of) {
                reach(snapshot, *member, excluded, faults, heard);
            }
        }
    }
}

fn recompose(
    snapshot: &Snapshot,
    gate: Gate,
    excluded: &Excluded<'_>,
    faults: &Faults,
    others: &[Other<'_>],
) -> Status {
    let (require, degrade) = asked(&snapshot.plan, gate);
    // `/health` may pass although a member is down.
    let held_back = gate == Gate::Health && snapshot.health.status.passes();
    let fine = |faults: &HashSet<CheckId>, member: &Member| stands(snapshot, *member, excluded, faults);
    let failed = others.iter().any(|other| other.fails)
        || (!held_back && !require.iter().all(|member| fine(&faults.fails, member)));
    if failed {
        return Status::Fail;
    }
    let mut all_fine = require.iter().chain(degrade).all(|member| fine(&faults.degrades, member));
    all_fine &= degrade.iter().all(|member| fine(&faults.fails, member));
    if all_fine && (others.is_empty() || snapshot.gate(gate).status == Status::Pass) {
        Status::Pass
    } else {
        Status::Warn
    }
}

/// Whether a member stands with the excluded ones counted as up.
fn stands(snapshot: &Snapshot, member: Member, excluded: &Excluded<'_>, faults: &HashSet<CheckId>) -> bool {
    match member {
        Member::Check(id) => !faults.contains(&id) || excluded.checks.contains(snapshot.check(id).name.as_str()),
        Member::Group(id) => snapshot.plan.groups.get(id.index()).is_none_or(|group| {
            let standing = group.of.iter().filter(|member| stands(snapshot, **member, excluded, faults)).count();
            excluded.groups.contains(group.name.as_str()) || group.min as usize <= standing
        }),
    }
}
