//! The kubelet's part: a new connection for each probe, two hundred a second, each with the kubelet's default second.
//!
//! It has a thread of its own that runs before the load which shares its core. Probes do not wait for each other, so
//! a slow one hides none; what scheduling still adds is the prober's own floor, measured against a bare responder.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::{JoinSet, LocalSet};

use crate::clock::{self, Ticker, nanos};
use crate::contenders::ProbeTarget;
use crate::exchange;
use crate::machine::{self, Core};
use crate::wire::Line;

/// The kubelet's default `timeoutSeconds`.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Over all targets, between two probes.
const INTERVAL: Duration = Duration::from_millis(5);

/// What the probes of one target came to.
pub(crate) struct Answers {
    pub(crate) target: ProbeTarget,
    /// Nanoseconds. One that was missed waited for its whole second.
    pub(crate) latency: Histogram<u64>,
    pub(crate) sent: u64,
    pub(crate) missed: u64,
    pub(crate) refused: u64,
    pub(crate) first_miss: Option<String>,
}

/// Probes all targets from `from` to `to`, on the machine's clock.
pub(crate) fn start(
    targets: Vec<ProbeTarget>,
    core: Core,
    from: u64,
    to: u64,
) -> io::Result<std::thread::JoinHandle<io::Result<Vec<Answers>>>> {
    std::thread::Builder::new().name("prober".into()).spawn(move || {
        machine::pin(core)?;
        machine::prefer();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, probe_all(targets, from, to))
    })
}

async fn probe_all(targets: Vec<ProbeTarget>, from: u64, to: u64) -> io::Result<Vec<Answers>> {
    let ticker = Ticker::start()?;
    let mut answers = Vec::new();
    for target in targets {
        let latency = Histogram::new_with_bounds(1_000, 60_000_000_000, 3).map_err(io::Error::other)?;
        let empty = Answers { target, latency, sent: 0, missed: 0, refused: 0, first_miss: None };
        answers.push(Rc::new(RefCell::new(empty)));
    }
    let mut probes = JoinSet::new();
    let mut due = from;
    let mut turn = answers.iter().cycle();
    while due < to {
        let Some(next) = turn.next() else { break };
        ticker.until(due).await;
        probes.spawn_local(probe(Rc::clone(next)));
        due += nanos(INTERVAL);
    }
    while probes.join_next().await.is_some() {}
    drop(turn);
    Ok(answers.into_iter().filter_map(|one| Rc::try_unwrap(one).ok()).map(RefCell::into_inner).collect())
}

async fn probe(answers: Rc<RefCell<Answers>>) {
    let target = {
        let mut answers = answers.borrow_mut();
        answers.sent += 1;
        answers.target.clone()
    };
    let began = clock::now();
    let outcome = tokio::time::timeout(TIMEOUT, ask(&target)).await;
    let took = clock::now() - began;
    let mut answers = answers.borrow_mut();
    match outcome {
        // A timer that fired late does not make an answer early enough.
        Ok(Ok(status)) if took <= nanos(TIMEOUT) => {
            answers.latency.saturating_record(took);
            answers.refused += u64::from(status != "200");
        }
        Ok(Ok(_)) | Err(_) => missed(&mut answers, "no answer in 1 s".into()),
        Ok(Err(error)) => missed(&mut answers, error.to_string()),
    }
}

fn missed(answers: &mut Answers, why: String) {
    answers.missed += 1;
    answers.latency.saturating_record(nanos(TIMEOUT));
    answers.first_miss.get_or_insert(why);
}

async fn ask(target: &ProbeTarget) -> io::Result<String> {
    let ProbeTarget { address, path, headers, .. } = target;
    let mut line = Line::new(exchange::connect(*address).await?);
    let probe = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: kube-probe/1.34\r\naccept: */*\r\n{headers}connection: close\r\n\r\n"
    );
    line.send(probe.as_bytes()).await?;
    let head = line.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    line.skip_body(head.body).await?;
    Ok(head.word)
}
