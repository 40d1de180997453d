use super::*;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::sync::Arc;

fn page(counters: Counters) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::new(counters)));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

#[test]
fn the_page_shows_the_sum_of_the_workers_under_the_contracts_names() {
    let counters = Counters::new(2, Clock::start());
    let now = counters.clock.now();
    for index in 0..2 {
        let worker = counters.worker(index);
        let _flight = worker.begin(now, Duration::ZERO);
        worker.answered(200, Duration::from_millis(3));
        worker.finished(200, Duration::from_millis(40), now);
        worker.refuse(Reason::NotReady);
    }
    let flight = counters.worker(1).begin(now, Duration::ZERO);
    counters.worker(1).end(flight, now);
    counters.worker(1).end(flight, now);
    let page = page(counters);
    for line in [
        "probegate_requests_total{code=\"200\",reason=\"upstream\"} 2",
        "probegate_requests_total{code=\"503\",reason=\"not_ready\"} 2",
        "probegate_shed_total{reason=\"not_ready\"} 2",
        "probegate_shed_total{reason=\"queue_full\"} 0",
        "model_requests_total{code=\"200\"} 2",
        "model_latency_ms 40.0",
        "probegate_request_duration_seconds_bucket{le=\"0.025\"} 0",
        "probegate_request_duration_seconds_bucket{le=\"0.05\"} 2",
        "probegate_request_duration_seconds_bucket{le=\"+Inf\"} 2",
        "probegate_request_duration_seconds_sum 0.08",
        "probegate_time_to_first_byte_seconds_bucket{le=\"0.005\"} 2",
        "probegate_time_to_first_byte_seconds_count 2",
        "probegate_in_flight 1",
        "probegate_queued 0",
        "probegate_held 0",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
    }
}

#[test]
fn the_longest_patience_of_a_pending_request_is_told_and_lent_when_it_is_given_up() {
    let counters = Counters::new(2, Clock::start());
    let now = counters.clock.now();
    let (batch, other) = (counters.worker(0).begin(now, Duration::from_secs(900)), counters.worker(1));
    let short = other.begin(now, Duration::ZERO);
    assert_eq!(counters.traffic().patience, Duration::from_secs(900));
    counters.worker(0).flights().abandon(now + Duration::from_secs(2), now, 2, Duration::from_secs(900));
    counters.worker(0).end(batch, now);
    other.flights().abandon(now + Duration::from_secs(3), now, 3, Duration::ZERO);
    other.end(short, now);
    let told = counters.traffic();
    assert_eq!((told.patience, told.in_flight), (Duration::ZERO, 0));
    assert_eq!((told.abandoned, told.abandoned_wait, told.abandoned_sharing), (2, Duration::from_secs(5), 5));
    assert_eq!(told.lent_until, Some(now + Duration::from_secs(900)));
}

#[test]
fn the_pace_is_the_largest_of_all_workers() {
    let counters = Counters::new(2, Clock::start());
    let now = counters.clock.now();
    assert_eq!(counters.traffic().pace, None);
    counters.worker(0).judged(Verdict::Good, Origin::default(), Duration::from_millis(10), 1, now);
    counters.worker(1).judged(Verdict::Good, Origin::default(), Duration::from_millis(900), 3, now);
    counters.worker(1).judged(Verdict::Neither, Origin::default(), Duration::from_millis(20), 1, now);
    assert_eq!(counters.traffic().pace, Some(Duration::from_millis(300)));
}

#[test]
fn an_impossible_status_is_counted_nowhere() {
    let counters = Counters::new(1, Clock::start());
    counters.worker(0).answered(99, Duration::ZERO);
    counters.worker(0).answered(600, Duration::ZERO);
    let page = page(counters);
    let series: Vec<_> = page.lines().filter(|line| line.starts_with("model_requests_total{")).collect();
    assert_eq!(series, ["model_requests_total{code=\"200\"} 0"]);
}
