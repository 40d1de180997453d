//! From what was typed to what can run: every name resolved, every default filled in, every rule checked.
//!
//! Lowering goes on after a fault, with a stand-in where it must, so that one run finds them all.

mod check;
mod gates;
mod kinds;
mod liveness;
mod passive;
mod server;
mod text;
mod tls;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::fault::{Fault, Faults, KeyPath, join, path, show_text};
use super::plan::{CheckSpec, Config, HeartbeatSource, Kind, Listen};
use super::raw::{RawConfig, RawGroup};
use super::units;
use crate::engine::{self, BackendId, CheckId, GroupId, Member, TrafficRule};
use crate::limits;

/// The whole configuration; none if it lacks what nothing can stand in for. Faults tell whether it may be used.
pub(crate) fn lower(file: &Path, raw: &RawConfig, faults: &mut Faults) -> Option<Config> {
    let upstream = server::upstream(&raw.upstream, faults);
    let listen = server::listen(raw, faults);
    let traffic = server::traffic(&raw.traffic, faults);
    let tls = raw.tls.as_ref().and_then(|raw| tls::tls(raw, faults));
    let log = server::log(&raw.log, faults);
    let drain = server::drain(&raw.drain, faults);
    let scene = Scene {
        addresses: upstream
            .as_ref()
            .map(|u| u.backends.iter().map(|b| b.address.clone()).collect())
            .unwrap_or_default(),
        metrics: upstream.as_ref().and_then(|u| u.metrics.clone()),
        beside: file.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let checks = checks(raw, &scene, faults);
    let notify_socket = notify_socket(&checks, faults);
    let (names, groups) = name(&checks, raw, faults);
    let passive = passive::lower(&raw.upstream.passive, faults);
    let mut plan = engine::Plan { drain, passive, ..engine::Plan::default() };
    gates::lower(raw, &names, &mut plan, faults);
    plan.groups = gates::groups(&groups, &names, faults);
    let mut specs = Vec::with_capacity(checks.drafts.len());
    for draft in checks.drafts {
        let mut life = draft.life;
        let here = join(&draft.path, "depends_on");
        life.depends_on = gates::members(&draft.depends_on, &here, &names, faults);
        resolve_golden(&mut life, &draft.spec, &draft.path, &names, faults);
        plan.checks.push(life);
        specs.push(draft.spec);
    }
    plan.abandoned = abandoned(&specs, faults);
    gates::refuse_cycles(&plan, faults);
    liveness::refuse_unfit(&plan, &specs, faults);
    let upstream = upstream?;
    for (index, backend) in upstream.backends.iter().enumerate() {
        let own = if upstream.backends.len() == 1 { "upstream".to_owned() } else { format!("upstream-{}", index + 1) };
        let Some(Member::Check(check)) = names.get(&own) else {
            if !faults.below(&path(["checks", "upstream"])) {
                let message = format!("`{own}` must be a check: it says whether {} gets traffic", backend.address);
                faults.push(Fault::key(path(["groups", &own]), message));
            }
            return None;
        };
        plan.backends.push(engine::BackendPlan { address: backend.address.clone(), check: *check });
    }
    let report = &raw.report;
    Some(Config {
        source: file.to_owned(),
        upstream,
        listen,
        details: server::details(&raw.details),
        traffic,
        tls,
        log,
        engine: Arc::new(plan),
        checks: specs,
        report_file: server::file(report.file.as_deref(), path(["report", "file"]), faults),
        trace_file: server::file(report.trace.as_deref(), path(["report", "trace"]), faults),
        ring_file: server::file(report.ring.as_deref(), path(["report", "ring"]), faults),
        notify_socket,
    })
}

/// The listeners alone.
pub(crate) fn listen(raw: &RawConfig, faults: &mut Faults) -> Listen {
    server::listen(raw, faults)
}

/// What the model server does with what its clients leave, by whichever `progress` checks say so.
fn abandoned(specs: &[CheckSpec], faults: &mut Faults) -> engine::Abandoned {
    let mut words = specs.iter().filter_map(|spec| match &spec.kind {
        Kind::Progress(progress) => Some((&spec.name, progress.abandoned?)),
        _ => None,
    });
    let Some((first, word)) = words.next() else { return engine::Abandoned::default() };
    for (other, _) in words.filter(|(_, other)| *other != word) {
        let place = path(["checks", other, "progress", "abandoned"]);
        let message = format!("says the opposite of check `{first}`");
        faults.push(Fault::value(place, message).expected("the same word in both: it is about the model server"));
    }
    word
}

/// Finds the golden check that a `progress` check names.
fn resolve_golden(life: &mut engine::CheckPlan, spec: &CheckSpec, here: &KeyPath, names: &Names, faults: &mut Faults) {
    let Kind::Progress(progress) = &spec.kind else { return };
    let (Some(name), Some(TrafficRule::Progress(rule))) = (&progress.golden, &mut life.rule) else { return };
    match names.0.get(name) {
        Some(Some(Member::Check(id))) => rule.golden = Some(*id),
        Some(None) => {}
        Some(Some(Member::Group(_))) | None => {
            let fault = Fault::value(join(&join(here, "progress"), "golden"), format!("found {}", show_text(name)));
            faults.push(fault.expected("the name of a golden check").near(name, names.0.keys().map(String::as_str)));
        }
    }
}

/// What every check may refer to.
#[derive(Debug, Default)]
struct Scene {
    /// The upstream's addresses.
    addresses: Vec<String>,
    metrics: Option<super::plan::MetricsPage>,
    /// The directory of the file: what is named beside it is there.
    beside: std::path::PathBuf,
}

/// A check on its way.
#[derive(Debug)]
struct Draft {
    /// Where it was typed.
    path: KeyPath,
    life: engine::CheckPlan,
    spec: CheckSpec,
    depends_on: Vec<String>,
}

#[derive(Debug, Default)]
struct Drafts {
    drafts: Vec<Draft>,
    /// Names that were typed but whose check is faulty: no reason to call them unknown.
    broken: Vec<String>,
    /// Checks that stand for one per address, as groups.
    spread: BTreeMap<String, Vec<String>>,
}

fn checks(raw: &RawConfig, scene: &Scene, faults: &mut Faults) -> Drafts {
    let mut out = Drafts::default();
    for (table, count) in [("checks", raw.checks.len()), ("groups", raw.groups.len())] {
        if count > limits::CHECKS_MAX {
            let fault = Fault::key(path([table]), format!("{count} {table}"));
            faults.push(fault.expected(format!("at most {}", limits::CHECKS_MAX)));
        }
    }
    for (name, check) in &raw.checks {
        let here = path(["checks", name]);
        refuse_bad_name(name, &here, faults);
        // A check of "the upstream" becomes one per address; what is said about it is said once.
        let spread = scene.addresses.len() > 1 && check::is_of_upstream(check);
        let backends = if spread { scene.addresses.len() } else { 1 };
        let mut members = Vec::new();
        for backend in 0..backends {
            let own = if spread { format!("{name}-{}", backend + 1) } else { name.clone() };
            members.push(own.clone());
            if spread && raw.checks.contains_key(&own) {
                continue;
            }
            match check::lower(&own, check, &here, BackendId(backend as u32), scene, faults) {
                Some((life, spec)) => {
                    out.drafts.push(Draft { path: here.clone(), life, spec, depends_on: check.depends_on.clone() })
                }
                None => out.broken.push(own),
            }
        }
        if spread {
            out.spread.insert(name.clone(), members);
        }
    }
    out
}

/// A group as it will be: `min` of `of`, and where it was typed.
#[derive(Debug)]
struct GroupDraft {
    name: String,
    path: KeyPath,
    min: u32,
    of: Vec<String>,
}

/// Names and what they stand for; `None` stands for something that is faulty and already reported.
#[derive(Debug, Default)]
struct Names(BTreeMap<String, Option<Member>>);

impl Names {
    fn get(&self, name: &str) -> Option<&Member> {
        self.0.get(name).and_then(Option::as_ref)
    }
}

fn name(checks: &Drafts, raw: &RawConfig, faults: &mut Faults) -> (Names, Vec<GroupDraft>) {
    let mut names = Names::default();
    let mut groups = Vec::new();
    names.0.extend(checks.broken.iter().map(|name| (name.clone(), None)));
    for (index, draft) in checks.drafts.iter().enumerate() {
        names.0.insert(draft.life.name.clone(), Some(Member::Check(CheckId(index as u32))));
    }
    for (name, members) in &checks.spread {
        let path = path(["checks", name]);
        groups.push(GroupDraft { name: name.clone(), path, min: 1, of: members.clone() });
    }
    for (name, group) in &raw.groups {
        let here = path(["groups", name]);
        refuse_bad_name(name, &here, faults);
        if raw.checks.contains_key(name) || names.0.contains_key(name) {
            faults.push(Fault::key(here.clone(), format!("`{name}` is a check as well; names are shared")));
        }
        match compose(name, group, &here, faults) {
            Some(group) => groups.push(group),
            None => {
                names.0.insert(name.clone(), None);
            }
        }
    }
    for (index, group) in groups.iter().enumerate() {
        names.0.insert(group.name.clone(), Some(Member::Group(GroupId(index as u32))));
    }
    (names, groups)
}

fn compose(name: &str, group: &RawGroup, here: &KeyPath, faults: &mut Faults) -> Option<GroupDraft> {
    let draft = |key: &str, min: usize, of: &Vec<String>| GroupDraft {
        name: name.to_owned(),
        path: join(here, key),
        min: min as u32,
        of: of.clone(),
    };
    let draft = match (&group.all, &group.any, &group.quorum) {
        (Some(of), None, None) => draft("all", of.len(), of),
        (None, Some(of), None) => draft("any", 1, of),
        (None, None, Some(quorum)) => {
            let of_path = join(&join(here, "quorum"), "of");
            let count = quorum.of.len();
            let Some(min) = usize::try_from(quorum.min).ok().filter(|min| (1..=count.max(1)).contains(min)) else {
                let fault = Fault::value(join(&join(here, "quorum"), "min"), format!("found {}", quorum.min));
                faults.push(fault.expected(format!("1 to the number of members, {count}")));
                return None;
            };
            GroupDraft { path: of_path, ..draft("quorum", min, &quorum.of) }
        }
        _ => {
            if !faults.below(here) {
                let fault = Fault::key(here.clone(), "a group is one of three".to_owned());
                faults.push(fault.expected("exactly one of `all`, `any` and `quorum`"));
            }
            return None;
        }
    };
    if draft.of.is_empty() {
        faults.push(Fault::value(draft.path, "a group without members").expected("at least one name"));
        return None;
    }
    Some(draft)
}

fn refuse_bad_name(name: &str, here: &KeyPath, faults: &mut Faults) {
    if !units::is_name(name) {
        let fault = Fault::key(here.clone(), format!("{} is no name", show_text(name)));
        faults.push(fault.expected("lower-case letters, digits, `-` and `_`, a letter or digit first, at most 63"));
    }
}

/// The one socket that notifications come to.
fn notify_socket(checks: &Drafts, faults: &mut Faults) -> Option<std::path::PathBuf> {
    let mut socket: Option<std::path::PathBuf> = None;
    for draft in &checks.drafts {
        let Kind::Heartbeat(beat) = &draft.spec.kind else { continue };
        let HeartbeatSource::Notify = beat.source else { continue };
        let mine = std::path::PathBuf::from(&draft.life.target);
        match &socket {
            Some(first) if *first != mine => {
                let fault = Fault::value(join(&draft.path, "heartbeat"), "a second notify socket");
                faults.push(fault.expected(format!("the same as the other's, {}", first.display())));
            }
            _ => socket = Some(mine),
        }
    }
    socket
}
