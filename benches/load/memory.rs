//! The third table: resident memory at rest, for each idle kept connection, and with many token streams open.

use std::time::Duration;

use crate::clock;
use crate::contenders::{Contender, Standing};
use crate::exchange::{self, Exchange};
use crate::record::{Held, Results, Skipped};
use crate::round::Stage;
use crate::work::Work;

pub(crate) async fn weigh(stage: &Stage, results: &mut Results) {
    let entrants: Vec<Contender> =
        results.entrants.iter().filter(|entrant| entrant.missing.is_none()).map(|entrant| entrant.contender).collect();
    for contender in entrants.into_iter().filter(|one| !matches!(one, Contender::Direct | Contender::Nginx64)) {
        match weigh_one(stage, contender).await {
            Ok(held) => {
                stage.say(&format!(
                    "{:<11} idle {:.1} MB, {:.1} % of a core; {} per idle connection; {} with {} streams",
                    contender.name(),
                    held.idle_mb,
                    held.idle_cpu_percent,
                    held.kib_per_idle.map_or_else(|| "-".into(), |kib| format!("{kib:.1} KiB")),
                    held.streams_mb.map_or_else(|| "-".into(), |mb| format!("{mb:.0} MB")),
                    held.streams
                ));
                results.held.push(held);
            }
            Err(why) => {
                stage.say(&format!("{:<11} memory: left out: {why}", contender.name()));
                results.skipped.push(Skipped { contender, what: "memory".into(), why });
            }
        }
    }
}

async fn weigh_one(stage: &Stage, contender: Contender) -> Result<Held, String> {
    let room = usize::try_from(stage.machine.proxied_connections()).unwrap_or(usize::MAX);
    let count = room.min(if stage.options.quick { 1_000 } else { 10_000 });
    let mut held = Held {
        contender,
        idle_mb: 0.0,
        idle_anonymous_mb: 0.0,
        kib_per_idle: None,
        idle_connections: count,
        streams_mb: None,
        streams: count,
        idle_cpu_percent: 0.0,
        notes: Vec::new(),
    };
    {
        let standing = contender.start(&stage.place()).await?;
        tokio::time::sleep(stage.options.settling()).await;
        held.idle_anonymous_mb =
            standing.process.as_ref().map_or(0.0, |process| process.anonymous_bytes() as f64 / 1e6);
        held.idle_mb = resident(&standing);
        held.idle_cpu_percent = rest(&standing, stage.options.resting()).await;
        match idle_connections(&standing, count, stage.options.settling()).await {
            Ok(mb) => held.kib_per_idle = Some((mb - held.idle_mb) * 1e6 / 1024.0 / count as f64),
            Err(why) => held.notes.push(format!("idle connections: {why}")),
        }
    }
    let standing = contender.start(&stage.place()).await?;
    match streams(&standing, count, stage.options.settling()).await {
        Ok(mb) => held.streams_mb = Some(mb),
        Err(why) => held.notes.push(format!("streams: {why}")),
    }
    Ok(held)
}

fn resident(standing: &Standing) -> f64 {
    standing.process.as_ref().map_or(0.0, |process| process.rss_bytes() as f64 / 1e6)
}

async fn rest(standing: &Standing, resting: Duration) -> f64 {
    let Some(process) = &standing.process else { return 0.0 };
    let (before, from) = (process.cpu(), clock::now());
    tokio::time::sleep(resting).await;
    process.cpu().since(&before) / Duration::from_nanos(clock::now() - from).as_secs_f64() * 100.0
}

/// Megabytes with `count` connections that have each carried one request and wait for the next.
async fn idle_connections(standing: &Standing, count: usize, settling: Duration) -> Result<f64, String> {
    let request = exchange::request(Work::Json);
    let mut open = Vec::with_capacity(count);
    for at in 0..count {
        let each = async {
            let mut exchange = Exchange::open(Work::Json, standing.traffic, &request).await?;
            exchange::in_time(exchange.once()).await?;
            Ok::<_, std::io::Error>(exchange)
        };
        open.push(each.await.map_err(|error| format!("the {}th: {error}", at + 1))?);
    }
    tokio::time::sleep(settling).await;
    Ok(resident(standing))
}

/// Megabytes with `count` token streams open, a token a second on each.
async fn streams(standing: &Standing, count: usize, settling: Duration) -> Result<f64, String> {
    let mut open = Vec::with_capacity(count);
    for at in 0..count {
        let stream = exchange::hold(standing.traffic, "/slow-tokens").await;
        open.push(stream.map_err(|error| format!("the {}th: {error}", at + 1))?);
    }
    tokio::time::sleep(settling).await;
    Ok(resident(standing))
}
