//! The second table: how long a kubelet waits for an answer while the data plane is driven as hard as it goes.
//!
//! How hard that is, is measured and shown beside each answer (`core %`): where the generator and the backend share a
//! core they may give out before the contender does. Under the CPU limit the contender always gives out first.
//!
//! Each contender answers by the nearest thing it has: nginx and HAProxy from the worker that also carries the
//! traffic, Envoy from its worker and from its admin thread, Probegate from its probe thread. The floor is a bare
//! responder: alone on the proxy's core, and beside an nginx that fills it.

use std::time::Duration;

use crate::clock;
use crate::contenders::{Contender, ProbeTarget, Standing};
use crate::drive::{Driven, Load, Pace, Underway};
use crate::prober;
use crate::process::Process;
use crate::record::{Probed, Quantiles, Results, Skipped};
use crate::round::{Look, Stage, Use};
use crate::strain::{CpuLimit, accept_queue, flood};
use crate::work::Work;

pub(crate) const FULL: &str = "closed loop, as hard as it goes";
pub(crate) const OVERLOAD: &str = "open loop at twice the capacity";
pub(crate) const LIMITED: &str = "CPU limit of 0.2 cores";
pub(crate) const FLOODED: &str = "10 000 connections at the traffic port";
/// The prober's own: what it measures where nothing is in the way.
pub(crate) const FLOOR: &str = "bare responder, alone on its core";

const CONNECTIONS: usize = 256;
/// In an overload nobody waits for the answer before asking again: many connections stand for that.
const OVERLOAD_CONNECTIONS: usize = 2_000;
const FLOOD_CONNECTIONS: usize = 10_000;
const CPU_LIMIT: f64 = 0.2;
/// Between two looks at the accept queue.
const QUEUE_LOOK: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
enum Scene {
    /// A closed loop as fast as it goes.
    Full,
    /// An open loop at twice what the full load came to.
    Overload { per_second: f64 },
    /// The full load, on a fifth of a core.
    Limited,
    /// The full load, and ten thousand connections at the traffic port.
    Flooded,
}

impl Scene {
    fn title(self) -> &'static str {
        match self {
            Self::Full => FULL,
            Self::Overload { .. } => OVERLOAD,
            Self::Limited => LIMITED,
            Self::Flooded => FLOODED,
        }
    }

    fn pace(self) -> Pace {
        match self {
            Self::Overload { per_second } => Pace::Open { per_second },
            _ => Pace::Closed,
        }
    }
}

/// Fills the table.
pub(crate) async fn play(stage: &Stage, results: &mut Results) {
    let entrants: Vec<Contender> =
        results.entrants.iter().filter(|entrant| entrant.missing.is_none()).map(|entrant| entrant.contender).collect();
    floors(stage, results, &entrants).await;
    for contender in entrants.into_iter().filter(|one| !matches!(one, Contender::Direct | Contender::Nginx64)) {
        let Some(capacity) = keep(stage, results, contender, Scene::Full).await else { continue };
        if capacity >= 1.0 {
            keep(stage, results, contender, Scene::Overload { per_second: capacity * 2.0 }).await;
        } else {
            let why = "the closed loop came to nothing, and twice that is no load".to_owned();
            note(stage, results, contender, OVERLOAD, Err(why));
        }
        keep(stage, results, contender, Scene::Limited).await;
        keep(stage, results, contender, Scene::Flooded).await;
    }
}

/// The bare responder, where the contenders' own answers come from.
async fn floors(stage: &Stage, results: &mut Results, entrants: &[Contender]) {
    for (contender, scene, label) in [
        (Contender::Direct, "no proxy, load direct", FLOOR),
        (Contender::Nginx, Scene::Full.title(), "bare responder, beside a busy nginx"),
    ] {
        if !entrants.contains(&contender) && contender != Contender::Direct {
            continue;
        }
        let outcome = async {
            let (bare, address) = Process::start_own("bare", stage.machine.cores.proxy).map_err(|e| e.to_string())?;
            let mut standing = contender.start(&stage.place()).await?;
            standing.probes = vec![ProbeTarget { label, address, path: "/health", headers: "" }];
            let probed = watch(stage, &standing, Scene::Full, scene).await;
            drop(bare);
            probed
        };
        note(stage, results, contender, scene, outcome.await);
    }
}

async fn keep(stage: &Stage, results: &mut Results, contender: Contender, scene: Scene) -> Option<f64> {
    let outcome = set(stage, contender, scene).await;
    note(stage, results, contender, scene.title(), outcome)
}

fn note(
    stage: &Stage,
    results: &mut Results,
    contender: Contender,
    scene: &str,
    outcome: Result<Vec<Probed>, String>,
) -> Option<f64> {
    match outcome {
        Ok(probed) => {
            for one in &probed {
                stage.say(&format!(
                    "{:<36} {:<40} p50 {:.2} ms  p99 {:.2}  p99.9 {:.2}  missed {} of {}  proxy {:.0} %",
                    one.target,
                    one.scene,
                    one.latency_ms.p50,
                    one.latency_ms.p99,
                    one.latency_ms.p999,
                    one.missed,
                    one.sent,
                    one.cpu_share * 100.0
                ));
            }
            let capacity = probed.first().map(|one| one.traffic_per_second);
            results.probed.extend(probed);
            capacity
        }
        Err(why) => {
            stage.say(&format!("{:<11} probes, {scene}: left out: {why}", contender.name()));
            results.skipped.push(Skipped { contender, what: format!("probes, {scene}"), why });
            None
        }
    }
}

async fn set(stage: &Stage, contender: Contender, scene: Scene) -> Result<Vec<Probed>, String> {
    // Declared first: the group goes when its processes have gone.
    let limit = match scene {
        Scene::Limited => Some(CpuLimit::make(CPU_LIMIT).map_err(|error| format!("no CPU limit to be had: {error}"))?),
        _ => None,
    };
    let standing = contender.start(&stage.place()).await?;
    if let (Some(limit), Some(process)) = (&limit, &standing.process) {
        limit.take(process).map_err(|error| format!("no CPU limit to be had: {error}"))?;
    }
    watch(stage, &standing, scene, scene.title()).await
}

/// Drives the load, and probes once it stands.
async fn watch(stage: &Stage, standing: &Standing, scene: Scene, title: &str) -> Result<Vec<Probed>, String> {
    let load = Load {
        work: Work::Json,
        to: standing.traffic,
        connections: if matches!(scene, Scene::Overload { .. }) { OVERLOAD_CONNECTIONS } else { CONNECTIONS },
        pace: scene.pace(),
        warm: stage.options.warm(),
        measure: stage.options.probing(),
    };
    let cores = stage.machine.cores;
    let (underway, window) =
        Underway::start(load, cores.generator).await.map_err(|error| format!("could not connect: {error}"))?;
    let flooding = match scene {
        Scene::Flooded => Some(flood(standing.traffic, FLOOD_CONNECTIONS, window.to, cores.generator)),
        _ => None,
    };
    clock::sleep_until(window.from).await;
    let before = Look::now(stage, standing);
    let probing =
        prober::start(standing.probes.clone(), cores.prober, window.from, window.to).map_err(|e| e.to_string())?;
    let queue = longest_queue(standing, window.to).await;
    let used = Look::now(stage, standing).since(&before);
    let driven = underway.finish().await.map_err(|error| error.to_string())?;
    if let Some(flooding) = flooding {
        let thread = flooding.map_err(|error| error.to_string())?;
        tokio::task::spawn_blocking(move || thread.join())
            .await
            .map_err(|e| e.to_string())?
            .map_err(|_| "the flood panicked")?
            .map_err(|error| error.to_string())?;
    }
    let answers = tokio::task::spawn_blocking(move || probing.join()).await.map_err(|error| error.to_string())?;
    let answers = answers.map_err(|_| "the prober panicked")?.map_err(|error| error.to_string())?;
    Ok(answers.into_iter().map(|one| probed(one, title, &driven, &used, stage.machine.core_count, queue)).collect())
}

async fn longest_queue(standing: &Standing, until: u64) -> u64 {
    let mut longest = 0;
    while clock::now() < until {
        longest = longest.max(accept_queue(standing.traffic));
        clock::sleep_until((clock::now() + clock::nanos(QUEUE_LOOK)).min(until)).await;
    }
    longest
}

fn probed(one: prober::Answers, title: &str, driven: &Driven, used: &Use, cores: usize, queue: u64) -> Probed {
    Probed {
        scene: title.to_owned(),
        target: one.target.label.to_owned(),
        sent: one.sent,
        missed: one.missed,
        refused: one.refused,
        first_miss: one.first_miss,
        latency_ms: Quantiles::of(&one.latency),
        cpu_share: used.proxy / used.elapsed,
        traffic_per_second: driven.completed as f64 / used.elapsed,
        foreign: used.foreign(cores),
        queue,
    }
}
