//! Names to members, groups, gates; and no way round in a circle.

use super::super::fault::{Fault, Faults, KeyPath, join, path, show_text};
use super::super::raw::RawConfig;
use super::{GroupDraft, Names};
use crate::engine::{GroupPlan, HealthPlan, Member, Plan, ReadyPlan, RestartBudget, StartupPlan};
use crate::limits;

/// The three gates.
pub(super) fn lower(raw: &RawConfig, names: &Names, plan: &mut Plan, faults: &mut Faults) {
    let mut list = |typed: &Option<Vec<String>>, gate: &str, key: &str| {
        members(typed.as_deref().unwrap_or_default(), &path([gate, key]), names, faults)
    };
    let startup = list(&raw.startup.require, "startup", "require");
    let health = list(&raw.health.require, "health", "require");
    let require = list(&raw.ready.require, "ready", "require");
    let degrade = list(&raw.ready.degrade, "ready", "degrade");
    if let Some(index) = degrade.iter().position(|member| require.contains(member)) {
        let fault = Fault::value(join(&path(["ready", "degrade"]), &index.to_string()), "is required as well");
        faults.push(fault.expected("in one of the two lists"));
    }
    let budget = raw.startup.budget.as_ref().map_or(limits::STARTUP_BUDGET, |span| span.0);
    if budget.is_zero() {
        faults.push(Fault::value(path(["startup", "budget"]), "found 0").expected("more than nothing"));
    }
    let restart_budget = raw.health.restart_budget.as_ref();
    plan.startup = StartupPlan { require: startup, budget };
    plan.ready = ReadyPlan { require, degrade };
    plan.health = HealthPlan {
        require: health,
        restart_budget: restart_budget
            .map_or_else(RestartBudget::default, |budget| RestartBudget { count: budget.0.0, window: budget.0.1 }),
    };
}

/// The members that a list of names stands for. Unknown and repeated names are faults.
pub(super) fn members(typed: &[String], here: &KeyPath, names: &Names, faults: &mut Faults) -> Vec<Member> {
    let mut members = Vec::with_capacity(typed.len());
    for (index, name) in typed.iter().enumerate() {
        let place = || join(here, &index.to_string());
        match names.0.get(name) {
            Some(Some(member)) if members.contains(member) => {
                faults.push(Fault::value(place(), format!("{} is named twice", show_text(name))));
            }
            Some(Some(member)) => members.push(*member),
            Some(None) => {}
            // A text that was no text, reported by its shape.
            None if name.is_empty() && faults.below(&place()) => {}
            // Where a whole table of names is no table, every name is unknown, and nobody's fault.
            None if faults.0.iter().any(|fault| fault.path == ["checks"] || fault.path == ["groups"]) => {}
            None => {
                let fault = Fault::value(place(), format!("no check or group is called {}", show_text(name)));
                faults.push(fault.near(name, names.0.keys().map(String::as_str)));
            }
        }
    }
    members
}

/// The groups, in the order of their ids.
pub(super) fn groups(drafts: &[GroupDraft], names: &Names, faults: &mut Faults) -> Vec<GroupPlan> {
    drafts
        .iter()
        .map(|draft| GroupPlan {
            name: draft.name.clone(),
            min: draft.min,
            of: members(&draft.of, &draft.path, names, faults),
        })
        .collect()
}

/// No group contains itself, and no check depends on itself, however many steps away.
pub(super) fn refuse_cycles(plan: &Plan, faults: &mut Faults) {
    let count = plan.checks.len();
    let node = |member: &Member| match member {
        Member::Check(check) => check.index(),
        Member::Group(group) => count + group.index(),
    };
    let edges: Vec<Vec<usize>> = plan
        .checks
        .iter()
        .map(|check| check.depends_on.iter().map(node).collect())
        .chain(plan.groups.iter().map(|group| group.of.iter().map(node).collect()))
        .collect();
    for cycle in cycles(&edges) {
        let names: Vec<&str> = cycle.iter().chain(cycle.first()).map(|node| label(plan, *node)).collect();
        let first = cycle.first().copied().unwrap_or_default();
        let place = if first < count {
            path(["checks", label(plan, first), "depends_on"])
        } else {
            path(["groups", label(plan, first)])
        };
        faults.push(Fault::key(place, format!("a circle: {}", names.join(" -> "))));
    }
}

fn label(plan: &Plan, node: usize) -> &str {
    match plan.checks.get(node) {
        Some(check) => &check.name,
        None => plan.groups.get(node - plan.checks.len()).map_or("", |group| &group.name),
    }
}

/// One circle for each set of nodes that has one; depth first, without recursion, for chains may be thousands long.
fn cycles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; edges.len()];
    let mut found = Vec::new();
    for start in 0..edges.len() {
        if marks[start] != Mark::New {
            continue;
        }
        let mut stack = vec![(start, 0)];
        marks[start] = Mark::Open;
        while let Some((node, next)) = stack.last_mut() {
            match edges[*node].get(*next) {
                Some(&to) => {
                    *next += 1;
                    match marks[to] {
                        Mark::New => {
                            marks[to] = Mark::Open;
                            stack.push((to, 0));
                        }
                        Mark::Open => {
                            found.push(stack.iter().map(|(node, _)| *node).skip_while(|node| *node != to).collect());
                        }
                        Mark::Done => {}
                    }
                }
                None => {
                    marks[*node] = Mark::Done;
                    stack.pop();
                }
            }
        }
    }
    found
}
