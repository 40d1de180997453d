//! What a `progress` check reads, against pages that move, fall silent and lack the counter.

use super::*;
use crate::checks::tests::{collectors, run_on};
use crate::config::{Kind, MetricSelector, MetricsPage};
use crate::engine::Verdict;
use crate::net::peer::{self, Then, raw, respond};

fn spec(address: &str, name: &str, process: Option<&str>) -> Kind {
    Kind::Progress(Box::new(ProgressCheck {
        stall_after: Duration::from_secs(60),
        counter: Some(ProgressCounter {
            page: MetricsPage { uri: format!("http://{address}/metrics").parse().unwrap() },
            selector: MetricSelector::parse(name).unwrap(),
            name: name.to_owned(),
            lag: Duration::ZERO,
        }),
        process: process.map(|name| (ProcessSelect::Match(name.to_owned()), name.to_owned())),
        golden: None,
        abandoned: None,
    }))
}

async fn read(kind: Kind) -> Outcome {
    run_on(&collectors(vec![kind]), 0).await
}

#[tokio::test]
async fn the_counter_is_summed_over_the_series_that_match() {
    let address = peer::http(|_| respond(200, "r{path=\"/predict\"} 3\nr{path=\"/predict\",x=\"1\"} 4\nr 90\n")).await;
    let outcome = read(spec(&address, r#"r{path="/predict"}"#, None)).await;
    assert_eq!(outcome.verdict, Verdict::Pass);
    assert_eq!(outcome.reading.and_then(|reading| reading.value), Some(7.0));
}

#[tokio::test]
async fn a_silent_page_is_a_timeout_and_any_other_failure_is_unknown() {
    let silent = raw("", Then::Hold).await;
    let outcome = read(spec(&silent.address, "r", Some("no-process-is-called-so"))).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Timeout));
    assert_eq!(outcome.reading, Some(Reading::default()));
    let address = peer::http(|_| respond(200, "other 1\n")).await;
    let outcome = read(spec(&address, "r", None)).await;
    assert_eq!((outcome.verdict, outcome.reason.as_str()), (Verdict::Unknown, "r is not on the metrics page"));
    let address = peer::http(|_| respond(404, "")).await;
    assert_eq!(read(spec(&address, "r", None)).await.verdict, Verdict::Unknown);
    let address = format!("127.0.0.1:{}", peer::closed_port().await);
    assert_eq!(read(spec(&address, "r", None)).await.verdict, Verdict::Unknown);
}

#[tokio::test]
async fn cpu_time_of_a_process_is_read_beside_the_page() {
    let mut child = std::process::Command::new("sleep").arg("118.41").spawn().unwrap();
    let address = peer::http(|_| respond(200, "r 1\n")).await;
    let outcome = read(spec(&address, "r", Some("118.41"))).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let reading = outcome.reading.unwrap();
    assert!(reading.cpu.is_some_and(|cpu| cpu < Duration::from_secs(1)), "{reading:?}");
    assert_eq!(reading.threads, Some(Threads { all: 1, ..Threads::default() }));
}

#[tokio::test]
async fn threads_that_run_or_would_and_those_that_are_stopped_are_told_apart() {
    let busy = "while :; do :; done # 118.42";
    let mut child = std::process::Command::new("sh").args(["-c", busy]).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let mut spec = spec("127.0.0.1:1", "r", Some("118.42"));
    if let Kind::Progress(spec) = &mut spec {
        spec.counter = None;
    }
    // It has to become a shell first.
    let mut threads = read(spec.clone()).await.reading.and_then(|reading| reading.threads);
    for _ in 0..100 {
        if threads.is_some_and(|threads| threads.ready == 1) {
            break;
        }
        threads = read(spec.clone()).await.reading.and_then(|reading| reading.threads);
    }
    assert_eq!(threads, Some(Threads { all: 1, ready: 1, ..Threads::default() }));
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let mut status = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::UNTRACED).unwrap();
    while status.is_none_or(|(_, status)| !status.stopped()) {
        status = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::UNTRACED).unwrap();
    }
    let threads = read(spec).await.reading.and_then(|reading| reading.threads);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(threads, Some(Threads { all: 1, stopped: 1, ..Threads::default() }));
}
