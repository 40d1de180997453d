//! How opinions compose: checks into groups, both into gates, parents over children.
//!
//! Each node keeps counts of its members, so that one change costs the path to the gates and nothing more,
//! however many checks there are.

use super::plan::{CheckId, GroupId, Member, Plan};
use super::snapshot::{Gate, GateMember, Level};

/// Opinions of one node.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Levels {
    /// By fresh evidence only.
    pub(super) strict: Level,
    /// With what `/ready` lets through.
    pub(super) lenient: Level,
    /// With what `/health` does not hold against the model server.
    pub(super) condemning: Level,
}

/// Nodes are checks first, then groups, in the plan's order.
#[derive(Debug)]
pub(super) struct Graph {
    checks: usize,
    levels: Vec<Levels>,
    groups: Vec<Counts>,
    edges: Vec<Vec<Edge>>,
    /// Members of `/startup` that have been up since this model server began.
    latched: Vec<bool>,
    unlatched: u32,
    ready_missing: u32,
    ready_degraded: u32,
    health_down: u32,
    /// Checks that `/ready` requires and lets through all the same.
    waived: u32,
    is_waived: Vec<bool>,
    members: [Vec<GateMember>; 3],
    required_for_ready: Vec<bool>,
    /// Which gates a check speaks in, as bits by `Gate as u8`.
    speaks_in: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Edge {
    Child(CheckId),
    Degrade,
    Group(GroupId),
    Health,
    Ready,
    Startup(u32),
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    of: u32,
    min: u32,
    strict: Tally,
    lenient: Tally,
    condemning: Tally,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    up: u32,
    down: u32,
}

impl Tally {
    fn shift(&mut self, from: Level, to: Level) {
        self.up = self.up + u32::from(to == Level::Up) - u32::from(from == Level::Up);
        self.down = self.down + u32::from(to == Level::Down) - u32::from(from == Level::Down);
    }

    /// Up when enough are up, down when enough can no longer be.
    const fn level(self, of: u32, min: u32) -> Level {
        if self.up >= min {
            Level::Up
        } else if of - self.down < min {
            Level::Down
        } else {
            Level::Unknown
        }
    }
}

impl Graph {
    /// Every node unknown, nothing latched.
    pub(super) fn new(plan: &Plan) -> Self {
        let nodes = plan.checks.len() + plan.groups.len();
        let mut graph = Self {
            checks: plan.checks.len(),
            levels: vec![Levels::default(); nodes],
            groups: plan.groups.iter().map(|g| Counts { of: count(&g.of), min: g.min, ..Counts::default() }).collect(),
            edges: vec![Vec::new(); nodes],
            latched: vec![false; plan.startup.require.len()],
            unlatched: count(&plan.startup.require),
            ready_missing: count(&plan.ready.require),
            ready_degraded: count(&plan.ready.degrade),
            health_down: 0,
            waived: 0,
            is_waived: vec![false; plan.checks.len()],
            members: [Vec::new(), Vec::new(), Vec::new()],
            required_for_ready: vec![false; plan.checks.len()],
            speaks_in: vec![0; plan.checks.len()],
        };
        graph.link(plan);
        graph.list_members(plan);
        graph
    }

    fn link(&mut self, plan: &Plan) {
        for (index, group) in plan.groups.iter().enumerate() {
            for &member in &group.of {
                let group = GroupId(u32::try_from(index).unwrap_or(u32::MAX));
                self.edge(member, Edge::Group(group));
            }
        }
        for (index, check) in plan.checks.iter().enumerate() {
            for &parent in &check.depends_on {
                self.edge(parent, Edge::Child(CheckId(u32::try_from(index).unwrap_or(u32::MAX))));
            }
        }
        for (index, &member) in plan.startup.require.iter().enumerate() {
            self.edge(member, Edge::Startup(u32::try_from(index).unwrap_or(u32::MAX)));
        }
        for &member in &plan.ready.require {
            self.edge(member, Edge::Ready);
        }
        for &member in &plan.ready.degrade {
            self.edge(member, Edge::Degrade);
        }
        for &member in &plan.health.require {
            self.edge(member, Edge::Health);
        }
    }

    fn edge(&mut self, from: Member, edge: Edge) {
        let node = self.node(from);
        self.edges[node].push(edge);
    }

    const fn node(&self, member: Member) -> usize {
        match member {
            Member::Check(check) => check.index(),
            Member::Group(group) => self.checks + group.index(),
        }
    }

    fn list_members(&mut self, plan: &Plan) {
        let parts: [(Gate, &[Member], bool); 4] = [
            (Gate::Startup, &plan.startup.require, true),
            (Gate::Ready, &plan.ready.require, true),
            (Gate::Ready, &plan.ready.degrade, false),
            (Gate::Health, &plan.health.require, true),
        ];
        let mut required = vec![[None::<bool>; 3]; plan.checks.len()];
        for (gate, members, is_required) in parts {
            let mut stack: Vec<Member> = members.to_vec();
            while let Some(member) = stack.pop() {
                match member {
                    Member::Check(check) => {
                        let known = &mut required[check.index()][gate as usize];
                        *known = Some(known.unwrap_or(false) || is_required);
                    }
                    Member::Group(group) => stack.extend(&plan.groups[group.index()].of),
                }
            }
        }
        for (index, gates) in required.iter().enumerate() {
            for gate in Gate::ALL {
                if let Some(required) = gates[gate as usize] {
                    let check = CheckId(u32::try_from(index).unwrap_or(u32::MAX));
                    self.members[gate as usize].push(GateMember { check, required });
                    self.speaks_in[index] |= 1 << gate as u8;
                    self.required_for_ready[index] |= gate == Gate::Ready && required;
                }
            }
        }
    }

    /// Sets a check's opinion and carries it on. Children whose parent went down or came back are named in
    /// `children`, with the difference in parents that are down.
    pub(super) fn set(&mut self, check: CheckId, levels: Levels, children: &mut Vec<(CheckId, i32)>) {
        if self.levels[check.index()] == levels {
            return;
        }
        let mut changed = vec![check.index()];
        while let Some(node) = changed.pop() {
            // A group is looked at when its turn comes: several of its members may have moved by then.
            let to = match node.checked_sub(self.checks) {
                Some(group) => self.groups[group].levels(),
                None => levels,
            };
            let from = std::mem::replace(&mut self.levels[node], to);
            if from == to {
                continue;
            }
            for index in 0..self.edges[node].len() {
                match self.edges[node][index] {
                    Edge::Child(child) => {
                        let difference = i32::from(to.strict == Level::Down) - i32::from(from.strict == Level::Down);
                        if difference != 0 {
                            children.push((child, difference));
                        }
                    }
                    Edge::Degrade => shift(&mut self.ready_degraded, from.lenient, to.lenient),
                    Edge::Group(group) => {
                        let counts = &mut self.groups[group.index()];
                        counts.strict.shift(from.strict, to.strict);
                        counts.lenient.shift(from.lenient, to.lenient);
                        counts.condemning.shift(from.condemning, to.condemning);
                        changed.push(self.checks + group.index());
                    }
                    Edge::Health => {
                        self.health_down = self.health_down + u32::from(to.condemning == Level::Down)
                            - u32::from(from.condemning == Level::Down);
                    }
                    Edge::Ready => shift(&mut self.ready_missing, from.lenient, to.lenient),
                    Edge::Startup(latch) => self.latch(latch as usize, to.strict),
                }
            }
        }
    }

    fn latch(&mut self, latch: usize, level: Level) {
        if level == Level::Up && !self.latched[latch] {
            self.latched[latch] = true;
            self.unlatched -= 1;
        }
    }

    /// Starts the startup gate anew: only what is up now counts as having been up.
    pub(super) fn relatch(&mut self, plan: &Plan) {
        self.latched.fill(false);
        self.unlatched = count(&plan.startup.require);
        for (index, &member) in plan.startup.require.iter().enumerate() {
            self.latch(index, self.levels[self.node(member)].strict);
        }
    }

    /// Marks as latched whatever had been up before a reload, by name.
    pub(super) fn latch_by_name(&mut self, was_latched: impl Fn(Member) -> bool, plan: &Plan) {
        for (index, &member) in plan.startup.require.iter().enumerate() {
            if was_latched(member) {
                self.latch(index, Level::Up);
            }
        }
    }

    /// Notes whether `/ready` lets a check through although it is not up.
    pub(super) fn set_waived(&mut self, check: CheckId, waived: bool) {
        let known = &mut self.is_waived[check.index()];
        if self.required_for_ready[check.index()] && *known != waived {
            *known = waived;
            self.waived = if waived { self.waived + 1 } else { self.waived - 1 };
        }
    }

    pub(super) const fn ready_waived(&self) -> bool {
        self.waived > 0
    }

    pub(super) fn level(&self, member: Member) -> Levels {
        self.levels[self.node(member)]
    }

    pub(super) fn is_latched(&self, index: usize) -> bool {
        self.latched[index]
    }

    /// Members up by fresh evidence, and how many it takes.
    pub(super) fn group_counts(&self, group: GroupId) -> (u32, u32, u32) {
        let counts = &self.groups[group.index()];
        (counts.strict.up, counts.of, counts.min)
    }

    pub(super) fn required_for_ready(&self, check: CheckId) -> bool {
        self.required_for_ready[check.index()]
    }

    pub(super) fn is_in_a_group(&self, check: CheckId) -> bool {
        self.edges[check.index()].iter().any(|edge| matches!(edge, Edge::Group(_)))
    }

    pub(super) const fn all_latched(&self) -> bool {
        self.unlatched == 0
    }

    pub(super) const fn ready_missing(&self) -> bool {
        self.ready_missing > 0
    }

    pub(super) const fn ready_degraded(&self) -> bool {
        self.ready_degraded > 0
    }

    pub(super) const fn health_down(&self) -> bool {
        self.health_down > 0
    }

    pub(super) fn members(&self, gate: Gate) -> &[GateMember] {
        &self.members[gate as usize]
    }

    pub(super) fn speaks_in(&self, check: CheckId, gate: Gate) -> bool {
        self.speaks_in[check.index()] & 1 << gate as u8 != 0
    }
}

impl Counts {
    const fn levels(&self) -> Levels {
        Levels {
            strict: self.strict.level(self.of, self.min),
            lenient: self.lenient.level(self.of, self.min),
            condemning: self.condemning.level(self.of, self.min),
        }
    }
}

/// Keeps a count of members that are not up.
fn shift(not_up: &mut u32, from: Level, to: Level) {
    *not_up = *not_up + u32::from(from == Level::Up) - u32::from(to == Level::Up);
}

fn count(members: &[Member]) -> u32 {
    u32::try_from(members.len()).unwrap_or(u32::MAX)
}
