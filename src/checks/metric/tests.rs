//! The `metric` check against pages that change, vanish and lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::checks::tests::{collectors, run_on};
use crate::checks::{CheckId, Collectors};
use crate::config::{Kind, MetricsPage};
use crate::engine::Verdict;
use crate::net::peer::{self, Then, raw, respond};

fn named(name: &str) -> MetricSelector {
    MetricSelector { name: name.to_owned(), matchers: Vec::new() }
}

fn spec(address: &str, selector: MetricSelector) -> MetricCheck {
    MetricCheck {
        page: MetricsPage { uri: format!("http://{address}/metrics").parse().unwrap() },
        selector,
        combine: Combine::Sum,
        rate: false,
        min: None,
        max: None,
        equals: None,
        absent: Absent::Unknown,
    }
}

/// A server whose page is the next of these at each scrape, the last one for ever.
async fn pages(pages: &'static [&'static str]) -> String {
    let at = Arc::new(AtomicUsize::new(0));
    peer::http(move |_| respond(200, pages[at.fetch_add(1, Ordering::SeqCst).min(pages.len() - 1)])).await
}

async fn check(spec: MetricCheck) -> Outcome {
    run_on(&collectors(vec![Kind::Metric(spec)]), 0).await
}

fn on(collectors: &Arc<Collectors>) -> impl Future<Output = Outcome> {
    collectors.attempt(CheckId(0), Duration::from_secs(5))
}

const VLLM: &str = "# TYPE vllm:num_requests_waiting gauge\n\
    vllm:num_requests_waiting{engine=\"0\",model_name=\"a\"} 50\n\
    vllm:num_requests_waiting{engine=\"1\",model_name=\"a\"} 7\n";

#[tokio::test]
async fn a_value_within_its_limits_passes_and_one_beyond_fails_with_both_numbers() {
    let address = pages(&[VLLM]).await;
    let waiting = spec(&address, named("vllm:num_requests_waiting"));
    let outcome = check(MetricCheck { max: Some(57.0), ..waiting.clone() }).await;
    assert_eq!((outcome.verdict, outcome.reason.as_str()), (Verdict::Pass, "vllm:num_requests_waiting is 57"));
    let outcome = check(MetricCheck { max: Some(20.0), ..waiting.clone() }).await;
    assert_eq!(outcome.verdict, Verdict::Fail(Fault::Answer));
    assert_eq!(outcome.reason, "vllm:num_requests_waiting is 57, expected at most 20");
    let outcome = check(MetricCheck { min: Some(8.0), combine: Combine::Min, ..waiting.clone() }).await;
    assert_eq!(outcome.reason, "vllm:num_requests_waiting is 7, expected at least 8");
    let outcome = check(MetricCheck { equals: Some(49.0), combine: Combine::Max, ..waiting }).await;
    assert_eq!(outcome.reason, "vllm:num_requests_waiting is 50, expected 49");
}

#[tokio::test]
async fn matchers_choose_the_series_and_a_missing_label_is_an_empty_one() {
    let address = pages(&["r{path=\"/predict\",code=\"200\"} 3\nr{path=\"/other\"} 40\nr 500\n"]).await;
    let with = |label: &str, op: MatchOp| {
        let matchers = vec![LabelMatcher { label: label.to_owned(), op }];
        check(MetricCheck { max: Some(0.0), ..spec(&address, MetricSelector { name: "r".to_owned(), matchers }) })
    };
    let anchored = |pattern: &str| regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
    let equal = with("path", MatchOp::Equal("/predict".to_owned())).await.reason;
    assert_eq!(equal, "r{path=\"/predict\"} is 3, expected at most 0");
    assert!(with("code", MatchOp::Equal(String::new())).await.reason.contains(" is 540,"));
    assert!(with("path", MatchOp::NotEqual("/other".to_owned())).await.reason.contains(" is 503,"));
    let matches = with("path", MatchOp::Matches(anchored("/p.*"))).await.reason;
    assert_eq!(matches, "r{path=~\"/p.*\"} is 3, expected at most 0");
    assert!(with("path", MatchOp::NotMatches(anchored("/.*"))).await.reason.contains(" is 500,"));
}

#[tokio::test]
async fn absence_means_what_the_file_says() {
    let address = pages(&["other 1\n"]).await;
    let with = |absent| check(MetricCheck { absent, ..spec(&address, named("m")) });
    let unknown = with(Absent::Unknown).await;
    assert_eq!((unknown.verdict, unknown.reason.as_str()), (Verdict::Unknown, "m is not on the metrics page"));
    assert_eq!(with(Absent::Fail).await.verdict, Verdict::Fail(Fault::Answer));
    assert_eq!(with(Absent::Pass).await.verdict, Verdict::Pass);
    assert_eq!(with(Absent::Required).await.verdict, Verdict::Pass);
    let there = check(MetricCheck { absent: Absent::Required, ..spec(&address, named("other")) }).await;
    assert_eq!(there.reason, "other is there, expected it to be absent");
}

#[tokio::test]
async fn what_is_not_a_number_is_no_evidence() {
    let address = pages(&["q{quantile=\"0.5\"} NaN\nq{quantile=\"0.9\"} NaN\nmixed{a=\"1\"} NaN\nmixed 4\n"]).await;
    let outcome = check(MetricCheck { max: Some(1.0), ..spec(&address, named("q")) }).await;
    assert_eq!((outcome.verdict, outcome.reason.as_str()), (Verdict::Unknown, "q is NaN"));
    let outcome = check(MetricCheck { max: Some(1.0), ..spec(&address, named("mixed")) }).await;
    assert_eq!(outcome.reason, "mixed is 4, expected at most 1");
}

#[tokio::test]
async fn a_rate_needs_two_readings_and_a_reset_starts_it_anew() {
    let address = pages(&["c_total 10\n", "c_total 1010\n", "c_total 1010\n", "c_total 5\n", "c_total 2005\n"]).await;
    let spec = MetricCheck { rate: true, min: Some(0.1), ..spec(&address, named("c_total")) };
    let collectors = collectors(vec![Kind::Metric(spec)]);
    let first = on(&collectors).await;
    assert_eq!((first.verdict, first.sign), (Verdict::Unknown, None));
    assert_eq!(first.reason, "c_total is 10: a rate needs a second reading");
    let moving = on(&collectors).await;
    assert_eq!(moving.verdict, Verdict::Pass, "{}", moving.reason);
    assert!(moving.reason.ends_with(" per second"), "{}", moving.reason);
    let still = on(&collectors).await;
    assert_eq!(still.verdict, Verdict::Fail(Fault::Answer));
    assert_eq!(still.reason, "c_total is 0 per second, expected at least 0.1");
    let reset = on(&collectors).await;
    assert_eq!((reset.verdict, reset.sign), (Verdict::Unknown, Some(Sign::CounterReset)));
    assert_eq!(reset.reason, "c_total went back from 1010 to 5");
    assert_eq!(on(&collectors).await.verdict, Verdict::Pass);
}

#[tokio::test]
async fn the_start_time_of_the_process_is_passed_on_unless_several_tell_one() {
    let address = pages(&["process_start_time_seconds 1.79599999925e+09\nm 1\n"]).await;
    let outcome = check(spec(&address, named("m"))).await;
    assert_eq!(outcome.sign, Some(Sign::StartedAt { unix_ms: 1_795_999_999_250 }));
    let address = pages(&["process_start_time_seconds{p=\"1\"} 1\nprocess_start_time_seconds{p=\"2\"} 2\nm 1\n"]).await;
    assert_eq!(check(spec(&address, named("m"))).await.sign, None);
    for odd in ["NaN", "0", "-1", "+Inf"] {
        assert_eq!(started_at(odd.parse().unwrap()), None, "{odd}");
    }
}

#[tokio::test]
async fn no_page_is_neither_moving_nor_frozen() {
    let refused = format!("127.0.0.1:{}", peer::closed_port().await);
    let outcome = check(spec(&refused, named("m"))).await;
    assert_eq!(outcome.verdict, Verdict::Unknown);
    assert_eq!(outcome.reason, format!("no metrics page from {refused}: connection refused by {refused}"));
    let mut silent = raw("", Then::Hold).await;
    let outcome = check(spec(&silent.address, named("m"))).await;
    assert_eq!(outcome.verdict, Verdict::Unknown, "{}", outcome.reason);
    silent.left().await;
    let garbage = pages(&["<html><body>404</body></html>"]).await;
    assert_eq!(check(spec(&garbage, named("m"))).await.reason, "m is not on the metrics page");
}

#[tokio::test]
async fn several_checks_on_one_page_cost_one_scrape() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let address = peer::http(move |_| {
        seen.fetch_add(1, Ordering::SeqCst);
        respond(200, VLLM)
    })
    .await;
    let kinds = (0..20).map(|_| Kind::Metric(spec(&address, named("vllm:num_requests_waiting")))).collect();
    let collectors = collectors(kinds);
    for check in 0..20 {
        assert_eq!(run_on(&collectors, check).await.verdict, Verdict::Pass);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    run_on(&collectors, 0).await;
    assert_eq!(count.load(Ordering::SeqCst), 2, "no check judges the same page twice");
    run_on(&collectors, 1).await;
    assert_eq!(count.load(Ordering::SeqCst), 2, "but another may judge what that one fetched");
}
