//! What was seen, to be asked at other moments than those at which it was seen.

use std::time::Duration;

use super::Missing;
use crate::engine::{
    CheckId, CheckPlan, Engine, Event, Fault, Imprint, Input, Outcome, Plan, Reading, Time, Trace, TrafficRule, Verdict,
};

/// Recorded evidence stands for so many of the check's usual gaps, and then for nothing.
const GAPS: u32 = 3;
/// At least so long, and where only one outcome was recorded.
const STANDS_AT_LEAST: Duration = Duration::from_secs(5);

/// All of it.
#[derive(Debug)]
pub(super) struct Evidence {
    /// By the new plan's check.
    sources: Vec<Source>,
    /// By the recorded plans, one after the other, and by their checks: the new plan's.
    new_ids: Vec<Vec<Option<CheckId>>>,
}

/// Where a check's outcomes come from.
#[derive(Debug)]
enum Source {
    Recorded(Level),
    /// The engine judges it by the traffic alone, and that was recorded.
    Traffic,
    /// Nobody saw it; why.
    Nothing(&'static str),
}

/// What one check saw, as something that lasts.
#[derive(Debug)]
struct Level {
    /// By when each attempt began.
    seen: Vec<(Time, Outcome)>,
    stands: Duration,
}

impl Evidence {
    pub(super) fn new(trace: &Trace, plan: &Plan) -> Self {
        let mut new_ids = vec![new_ids_of(&trace.plan, plan)];
        let mut seen: Vec<Vec<(Time, Outcome)>> = vec![Vec::new(); plan.checks.len()];
        for (at, event) in &trace.events {
            match event {
                Event::Reload(Some(imprint)) => new_ids.push(new_ids_of(imprint, plan)),
                Event::Input(Input::Result { check, outcome, .. }) => {
                    let known = new_ids.last().and_then(|ids| *ids.get(check.index())?);
                    if let Some(seen) = known.and_then(|id| seen.get_mut(id.index())) {
                        let latency = u64::try_from(outcome.latency.as_nanos()).unwrap_or(u64::MAX);
                        seen.push((Time::from_nanos(at.as_nanos().saturating_sub(latency)), outcome.clone()));
                    }
                }
                _ => {}
            }
        }
        let has_traffic = trace.events.iter().any(|(_, event)| matches!(event, Event::Input(Input::Traffic(_))));
        let sources = plan.checks.iter().zip(seen).map(|(check, seen)| source(check, seen, has_traffic)).collect();
        Self { sources, new_ids }
    }

    /// What the new plan calls a check of the recorded plan with this number, the first being 0.
    pub(super) fn new_id(&self, recorded_plan: usize, check: CheckId) -> Option<CheckId> {
        *self.new_ids.get(recorded_plan)?.get(check.index())?
    }

    /// What an attempt sees that begins at `now` and may take `timeout`.
    pub(super) fn at(&self, now: Time, check: CheckId, timeout: Duration) -> Outcome {
        match self.sources.get(check.index()) {
            Some(Source::Recorded(level)) => level.at(now, timeout),
            Some(Source::Traffic) => Outcome::pass(Duration::ZERO).reading(Reading::default()),
            Some(Source::Nothing(why)) => Outcome::unknown(*why, Duration::ZERO),
            None => Outcome::unknown("no such check", Duration::ZERO),
        }
    }

    /// The checks that nobody saw, and how they stand with an engine.
    pub(super) fn missing(&self, engine: &mut Engine) -> Vec<Missing> {
        let snapshot = engine.snapshot();
        let missing = |(source, check): (&Source, &CheckPlan)| match source {
            Source::Nothing(why) => {
                let state = snapshot.check_named(&check.name).map_or("pending", |check| check.state.as_str());
                Some(Missing { check: check.name.clone(), kind: check.kind, why, state })
            }
            Source::Recorded(_) | Source::Traffic => None,
        };
        self.sources.iter().zip(&engine.plan().checks).filter_map(missing).collect()
    }
}

/// By a recorded plan's checks: the new plan's of the same name and, where the recording tells, the same kind.
fn new_ids_of(recorded: &Imprint, plan: &Plan) -> Vec<Option<CheckId>> {
    let id = |(index, name): (usize, &String)| {
        let new = plan.checks.iter().position(|check| check.name == *name)?;
        let is_kind = recorded.kinds.get(index).is_none_or(|kind| kind == plan.checks[new].kind);
        u32::try_from(new).ok().filter(|_| is_kind).map(CheckId)
    };
    recorded.checks.iter().enumerate().map(id).collect()
}

fn source(check: &CheckPlan, seen: Vec<(Time, Outcome)>, has_traffic: bool) -> Source {
    if check.rule.is_some() && !has_traffic {
        return Source::Nothing("no traffic was recorded");
    }
    if let Some(TrafficRule::Progress(progress)) = &check.rule {
        let read = |of: fn(&Reading) -> bool| seen.iter().any(|(_, seen)| seen.reading.as_ref().is_some_and(of));
        if progress.counter.is_some() && !read(|reading| reading.value.is_some()) {
            return Source::Nothing("its counter was not recorded");
        }
        if progress.cpu.is_some() && !read(|reading| reading.cpu.is_some()) {
            return Source::Nothing("its processes were not recorded");
        }
    }
    match (Level::new(seen), &check.rule) {
        (Some(level), _) => Source::Recorded(level),
        (None, Some(_)) => Source::Traffic,
        (None, None) => Source::Nothing("no check of this name and kind was recorded"),
    }
}

impl Level {
    /// None of nothing.
    fn new(mut seen: Vec<(Time, Outcome)>) -> Option<Self> {
        if seen.is_empty() {
            return None;
        }
        seen.sort_by_key(|(began, _)| *began);
        let mut gaps: Vec<Duration> = seen.windows(2).map(|pair| pair[1].0.since(pair[0].0)).collect();
        gaps.sort_unstable();
        let usual = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
        Some(Self { seen, stands: STANDS_AT_LEAST.max(usual.saturating_mul(GAPS)) })
    }

    /// What was seen nearest to `now`, before or after: of two the earlier.
    fn at(&self, now: Time, timeout: Duration) -> Outcome {
        let after = self.seen.partition_point(|(began, _)| *began <= now);
        let away = |began: Time| if began < now { now.since(began) } else { began.since(now) };
        let around = after.checked_sub(1).into_iter().chain(Some(after)).filter_map(|index| self.seen.get(index));
        let Some((began, seen)) = around.min_by_key(|(began, _)| away(*began)) else {
            return Outcome::unknown("nothing was recorded", Duration::ZERO);
        };
        if self.stands < away(*began) {
            let away = away(*began).as_secs_f64();
            return Outcome::unknown(format!("nothing was recorded within {away:.0} s of it"), Duration::ZERO);
        }
        if seen.latency <= timeout {
            return seen.clone();
        }
        match seen.verdict {
            // No shorter timeout makes knowledge of what was none.
            Verdict::Unknown | Verdict::Fail(Fault::Timeout) => Outcome { latency: timeout, ..seen.clone() },
            Verdict::Pass | Verdict::Fail(_) => {
                let [took, within] = [seen.latency, timeout].map(|span| span.as_secs_f64());
                Outcome::fail(Fault::Timeout, format!("no answer in {within:.2} s; it came after {took:.2} s"), timeout)
            }
        }
    }
}
