//! `probegate lint`: whether a configuration file is whole, all problems at once.

use std::io::Write;

use serde_json::{Value, json};

use super::{Answer, ConfigFile, Failure, Outcome};
use crate::config::{self, Config, Overrides, Problem, Problems};
use crate::engine::{CheckPlan, Member, ProgressPlan};

const SILENCE_ALONE: &str = "silence alone decides that the model server hangs; \
    where it counts the work that it has done, name that `counter`, \
    or a `golden` check that must go unanswered too";
const ONE_ATTEMPT: &str = "its `window` is no longer than its `interval`: it never holds more than one attempt";
const ALL_RIGHT: &str = "with a `window` and a `min_accuracy` of 1 a check that is down stays so \
    until its last wrong answer is older than the window";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    file: ConfigFile,
    /// How to print the findings
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(args: Args) -> Outcome {
    let overrides = Overrides::from_process();
    let loaded = config::load(&args.file.path, &overrides);
    let mut out = std::io::stdout().lock();
    match (loaded, args.format) {
        (Ok(config), Format::Text) => {
            write!(out, "{}", summary(&config))?;
            for unset in config::unset_variables(&config, &overrides.environment) {
                writeln!(out, "note: {unset} here; `run` and `check` need it")?;
            }
            for (check, advice) in advice(&config) {
                writeln!(out, "note: checks.{check}: {advice}")?;
            }
        }
        (Ok(config), Format::Json) => {
            let unset = config::unset_variables(&config, &overrides.environment);
            let unset = unset.iter().map(|unset| note(&unset.check, &unset.to_string()));
            let advised = advice(&config).map(|(check, advice)| note(check, advice));
            let notes: Vec<Value> = unset.chain(advised).collect();
            writeln!(out, "{:#}", json!({ "ok": true, "problems": [], "notes": notes }))?;
        }
        (Err(problems), Format::Text) => return Err(Failure::new(text(&problems))),
        (Err(problems), Format::Json) => {
            let list: Vec<Value> = problems.iter().map(problem).collect();
            writeln!(out, "{:#}", json!({ "ok": false, "problems": list, "notes": [] }))?;
            return Err(Failure::new(count(&problems)));
        }
    }
    out.flush()?;
    Ok(Answer::Yes)
}

fn text(problems: &Problems) -> String {
    format!("{problems}\n\n{}", count(problems))
}

fn count(problems: &Problems) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    }
}

/// What the file comes to, in a few lines.
fn summary(config: &Config) -> String {
    let plan = &config.engine;
    let names = |members: &[Member]| -> String {
        let name = |member: &Member| match member {
            Member::Check(check) => plan.checks[check.index()].name.as_str(),
            Member::Group(group) => plan.groups[group.index()].name.as_str(),
        };
        let list: Vec<&str> = members.iter().map(name).collect();
        if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }
    };
    let addresses: Vec<&str> = config.upstream.backends.iter().map(|backend| backend.address.as_str()).collect();
    let mut text = format!("{}: ok\n", config.source.display());
    text.push_str(&format!("  upstream  {}\n", addresses.join(", ")));
    text.push_str(&format!("  startup   {}\n", names(&plan.startup.require)));
    text.push_str(&format!("  health    {}\n", names(&plan.health.require)));
    text.push_str(&format!("  ready     {}", names(&plan.ready.require)));
    if !plan.ready.degrade.is_empty() {
        text.push_str(&format!("; degraded without {}", names(&plan.ready.degrade)));
    }
    text.push_str(&format!("\n  checks    {}\n", plan.checks.len()));
    let width = plan.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    for check in &plan.checks {
        text.push_str(&format!("    {:width$}  {:9}  {}\n", check.name, check.kind, check.target));
    }
    text
}

fn problem(problem: &Problem) -> Value {
    let (line, column) = problem.line_column().unzip();
    json!({
        "file": problem.file().map(|file| file.display().to_string()),
        "line": line,
        "column": column,
        "place": problem.place(),
        "key": problem.key(),
        "message": problem.message(),
        "expected": problem.expected(),
        "nearest": problem.nearest(),
    })
}

fn note(check: &str, message: &str) -> Value {
    json!({ "key": format!("checks.{check}"), "message": message })
}

/// What is whole and hardly meant, by the check's name.
fn advice(config: &Config) -> impl Iterator<Item = (&str, &'static str)> {
    let checks = config.engine.checks.iter();
    checks.filter_map(|check| Some((check.name.as_str(), advice_on(check)?)))
}

fn advice_on(check: &CheckPlan) -> Option<&'static str> {
    // Nothing but the proxy's own sight of the traffic to go by.
    let alone = |rule: &ProgressPlan| rule.counter.is_none() && rule.cpu.is_none() && rule.golden.is_none();
    let often = check.interval.min(check.fast_interval).min(check.down_interval);
    match (check.progress(), check.accuracy.filter(|plan| !plan.window.is_zero())) {
        (Some(rule), _) if alone(rule) => Some(SILENCE_ALONE),
        (_, Some(plan)) if plan.window <= often => Some(ONE_ATTEMPT),
        (_, Some(plan)) if plan.min == 1.0 => Some(ALL_RIGHT),
        _ => None,
    }
}
