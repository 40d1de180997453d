//! `probegate check`: the checks once, now.
//!
//! Uses the sidecar's own collectors with their own timeouts. It judges one result and no history: no
//! thresholds, no jitter, no parents.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::terminal::{self, Cell, Paint, Tone};
use super::{Answer, Failure, Outcome};
use crate::checks::Collectors;
use crate::clock::Clock;
use crate::config::{self, Config, Overrides, nearest};
use crate::engine::{self, CheckId, Gate, Member, Plan, Verdict};

/// Checks under way at once: enough to be quick, few enough for the descriptors of a shell.
const CONCURRENCY: usize = 128;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "probegate.toml")]
    config: PathBuf,

    /// Only these checks, or those of these groups
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    kind: &'static str,
    target: String,
    /// `pass`, `fail`, `timeout` or `unknown`.
    outcome: &'static str,
    latency_ms: f64,
    reason: String,
    /// A gate fails without it.
    required: bool,
    /// The gates in which it speaks.
    gates: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Answers {
    /// Whether every required check passed, or at least did not fail.
    ok: bool,
    checks: Vec<Line>,
}

pub(super) fn run(args: Args) -> Outcome {
    let overrides = Overrides::from_process();
    let config = config::load(&args.config, &overrides).map_err(|problems| Failure::new(problems.to_string()))?;
    let plan = Arc::clone(&config.engine);
    let wanted = wanted(&plan, &args.names)?;
    require_variables(&config, &wanted, &overrides)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcomes = runtime.block_on(attempt_all(&config, &wanted));
    runtime.shutdown_background();
    let gates = Roles::of(&plan);
    let lines: Vec<Line> =
        wanted.iter().zip(&outcomes).map(|(&check, outcome)| gates.line(&plan, check, outcome)).collect();
    let answers = Answers { ok: lines.iter().all(|line| !line.required || !line.failed()), checks: lines };
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &answers).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        out.write_all(answers.text(Paint::for_stdout(), terminal::width()).as_bytes())?;
    }
    Ok(if answers.ok { Answer::Yes } else { Answer::No })
}

/// What the wanted checks need of the environment must be there; what the others need need not.
fn require_variables(config: &Config, wanted: &[CheckId], overrides: &Overrides) -> Result<(), Failure> {
    let names: BTreeSet<&str> = wanted.iter().map(|check| config.checks[check.index()].name.as_str()).collect();
    let unset = config::unset_variables(config, &overrides.environment);
    let unset = unset.iter().filter(|unset| names.contains(unset.check.as_str()));
    let lines: Vec<String> = unset.map(|unset| format!("{}: {unset}", config.source.display())).collect();
    if lines.is_empty() { Ok(()) } else { Err(Failure::new(lines.join("\n"))) }
}

/// The checks that were named, in the file's order; all of them if none was.
fn wanted(plan: &Plan, names: &[String]) -> Result<Vec<CheckId>, Failure> {
    let mut wanted = BTreeSet::new();
    for name in names {
        if let Some(at) = plan.checks.iter().position(|check| check.name == *name) {
            wanted.extend(check_id(at));
        } else if let Some(group) = plan.groups.iter().find(|group| group.name == *name) {
            group.of.iter().for_each(|&member| checks_of(plan, member, &mut wanted));
        } else {
            let known = plan.checks.iter().map(|check| check.name.as_str());
            let known = known.chain(plan.groups.iter().map(|group| group.name.as_str()));
            let hint = nearest(name, known).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
            return Err(Failure::new(format!("no check or group is named \"{name}\"{hint}")));
        }
    }
    if names.is_empty() {
        wanted.extend((0..plan.checks.len()).filter_map(check_id));
    }
    Ok(wanted.into_iter().collect())
}

fn check_id(index: usize) -> Option<CheckId> {
    u32::try_from(index).ok().map(CheckId)
}

/// Every check that a member stands for, through groups. A plan has no cycles.
fn checks_of(plan: &Plan, member: Member, into: &mut BTreeSet<CheckId>) {
    match member {
        Member::Check(check) => {
            into.insert(check);
        }
        Member::Group(group) => plan.groups[group.index()].of.iter().for_each(|&member| checks_of(plan, member, into)),
    }
}

async fn attempt_all(config: &Config, wanted: &[CheckId]) -> Vec<engine::Outcome> {
    let collectors = Collectors::new(config, Clock::start(), None);
    let room = Arc::new(Semaphore::new(CONCURRENCY));
    let mut attempts = JoinSet::new();
    for (at, &check) in wanted.iter().enumerate() {
        let timeout = config.engine.checks[check.index()].timeout;
        let (collectors, room) = (Arc::clone(&collectors), Arc::clone(&room));
        attempts.spawn(async move {
            // The semaphore is never closed; without a place there would only be more at once.
            let _place = room.acquire().await;
            (at, collectors.attempt(check, timeout).await)
        });
    }
    let crashed = || engine::Outcome::unknown("the check itself has crashed", Duration::ZERO);
    let mut outcomes: Vec<engine::Outcome> = wanted.iter().map(|_| crashed()).collect();
    while let Some(ended) = attempts.join_next().await {
        if let Ok((at, outcome)) = ended {
            outcomes[at] = outcome;
        }
    }
    outcomes
}

/// Which gates a check speaks in.
struct Roles {
    required: [BTreeSet<CheckId>; 3],
    degrade: BTreeSet<CheckId>,
}

impl Roles {
    fn of(plan: &Plan) -> Self {
        let all = |members: &[Member]| {
            let mut checks = BTreeSet::new();
            members.iter().for_each(|&member| checks_of(plan, member, &mut checks));
            checks
        };
        let required = [all(&plan.startup.require), all(&plan.ready.require), all(&plan.health.require)];
        Self { required, degrade: all(&plan.ready.degrade) }
    }

    fn line(&self, plan: &Plan, id: CheckId, outcome: &engine::Outcome) -> Line {
        let check = &plan.checks[id.index()];
        let verdict = match (outcome.verdict, check.on_timeout) {
            (Verdict::Fail(engine::Fault::Timeout), engine::OnTimeout::Unknown) => Verdict::Unknown,
            (verdict, _) => verdict,
        };
        let mut gates: Vec<&str> = Gate::ALL
            .iter()
            .zip(&self.required)
            .filter(|(_, set)| set.contains(&id))
            .map(|(gate, _)| gate.as_str())
            .collect();
        let required = !gates.is_empty();
        if self.degrade.contains(&id) {
            gates.push("degrade");
        }
        Line {
            name: check.name.clone(),
            kind: check.kind,
            target: check.target.clone(),
            outcome: verdict.as_str(),
            latency_ms: (outcome.latency.as_secs_f64() * 1e6).round() / 1e3,
            reason: outcome.reason.clone(),
            required,
            gates,
        }
    }
}

impl Line {
    fn failed(&self) -> bool {
        [Verdict::Fail(engine::Fault::Answer), Verdict::Fail(engine::Fault::Timeout)]
            .iter()
            .any(|verdict| verdict.as_str() == self.outcome)
    }

    fn tone(&self) -> Tone {
        match (self.outcome, self.required) {
            ("pass", _) => Tone::Good,
            ("unknown", _) | (_, false) => Tone::Doubtful,
            _ => Tone::Bad,
        }
    }
}

impl Answers {
    fn text(&self, paint: Paint, width: usize) -> String {
        let heading = ["CHECK", "KIND", "OUTCOME", "LATENCY", "GATES", "REASON"];
        let mut rows: Vec<Vec<Cell>> = vec![heading.iter().map(|&text| (text.to_owned(), Tone::Faint)).collect()];
        for line in &self.checks {
            rows.push(vec![
                (line.name.clone(), Tone::Bold),
                (line.kind.to_owned(), Tone::Plain),
                (line.outcome.to_owned(), line.tone()),
                (format!("{:>6.1} ms", line.latency_ms), Tone::Faint),
                (if line.gates.is_empty() { "-".to_owned() } else { line.gates.join(",") }, Tone::Faint),
                (line.reason.clone(), Tone::Plain),
            ]);
        }
        let mut text = terminal::table(&rows, 0, width, paint);
        let failed = |required| self.checks.iter().filter(|line| line.required == required && line.failed()).count();
        let (bad, warned) = (failed(true), failed(false));
        let passed = self.checks.iter().filter(|line| line.outcome == "pass").count();
        let mut words = vec![format!("{passed} of {} pass", self.checks.len())];
        words.extend((bad > 0).then(|| format!("{bad} required {} failing", if bad == 1 { "is" } else { "are" })));
        words.extend(
            (warned > 0)
                .then(|| format!("{warned} that no gate requires {} failing", if warned == 1 { "is" } else { "are" })),
        );
        text.push_str(&format!("\n{}\n", paint.paint(if self.ok { Tone::Good } else { Tone::Bad }, &words.join(", "))));
        text
    }
}
