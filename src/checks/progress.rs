//! `progress`: reads what the engine judges hangs by, beside the traffic that it sees anyway.
//!
//! A counter from a metrics page, the CPU time of processes and the states of their threads. It judges none of them:
//! that the page is silent, that a counter stands still, mean something only together with pending work, and that the
//! engine knows.

use std::time::Duration;

use super::metric::{Series, Value};
use super::proc::Proc;
use super::threads::Look;
use super::{BY_TRAFFIC, Scene, process};
use crate::config::{Combine, ProcessSelect, ProgressCheck, ProgressCounter};
use crate::engine::{Fault, Outcome, Reading, Threads};
use crate::scrape::Scraper;

/// The kernel shows CPU time in hundredths of a second, whatever it counts in (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
/// From the first look at threads that are ready to run to the second. Longer than a whole look takes, shorter than
/// whoever wakes up ten times a second sleeps.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Always a new page: the engine asks at the moment whose numbers it needs, and with older ones, however fresh, its
/// verdict would wait for the next attempt.
const PAGE_AGE: Duration = Duration::ZERO;

pub(super) async fn attempt(spec: &ProgressCheck, scraper: Option<&Scraper>, scene: &Scene) -> Outcome {
    let mut reading = Reading::default();
    let mut remarks = Vec::new();
    if let Some((select, _)) = &spec.process {
        match processes(select.clone(), scene).await {
            Ok((cpu, threads)) => (reading.cpu, reading.threads) = (Some(cpu), Some(threads)),
            Err(reason) => remarks.push(reason),
        }
    }
    let Some(counter) = &spec.counter else {
        remarks.push(BY_TRAFFIC.to_owned());
        return scene.pass().reading(reading).remark(remarks.join("; "));
    };
    let Some(scraper) = scraper else { return Outcome::unknown("no metrics page to read", scene.elapsed()) };
    let within = scene.timeout.saturating_sub(scene.elapsed()) * 9 / 10;
    let silent = format!("the metrics page of {} is silent", scraper.whom());
    // The frame's own deadline would take the CPU reading with it.
    match tokio::time::timeout(within, scraper.page(PAGE_AGE, scene.timeout)).await {
        Err(_elapsed) => scene.fail(Fault::Timeout, silent).reading(reading),
        Ok(Err(reason)) => Outcome::unknown(reason, scene.elapsed()).reading(reading),
        Ok(Ok(page)) => {
            reading.age = scene.clock.now().since(page.fetched_at);
            match value(&Series::of(&page, &counter.selector, Combine::Sum), counter) {
                Ok(value) => {
                    reading.value = Some(value);
                    remarks.push(format!("{} is {value}", counter.name));
                    scene.pass().reading(reading).remark(remarks.join("; "))
                }
                Err(reason) => Outcome::unknown(reason, scene.elapsed()).reading(reading),
            }
        }
    }
}

fn value(series: &Series, counter: &ProgressCounter) -> Result<f64, String> {
    match series.value {
        Value::Number(value) => Ok(value),
        Value::NotANumber => Err(format!("{} is NaN", counter.name)),
        Value::Absent => Err(format!("{} is not on the metrics page", counter.name)),
    }
}

/// The CPU time of the selected processes, and what their threads are at.
async fn processes(select: ProcessSelect, scene: &Scene) -> Result<(Duration, Threads), String> {
    const WHAT: &str = "/proc to be read";
    let read = move || {
        let proc = Proc::here();
        let found = process::select_processes(&proc, std::process::id(), &select)?;
        let ticks = found.iter().map(|stat| stat.cpu_ticks).fold(0, u64::saturating_add);
        Ok((TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)), Look::at(&proc, &found)))
    };
    let read: Result<_, String> = scene.blocking(WHAT, read).await.map_err(|outcome| outcome.reason)?;
    let (cpu, look) = read?;
    if !look.wants_another() {
        return Ok((cpu, look.threads()));
    }
    tokio::time::sleep(LOOK_AGAIN).await;
    let first = look.threads();
    Ok((cpu, scene.blocking(WHAT, || look.again(&Proc::here())).await.unwrap_or(first)))
}

#[cfg(test)]
mod tests;
