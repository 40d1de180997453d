//! Upstream's algorithm by its own examples: the replica calculator's, the behaviour's, the documentation's.

mod limits;

use super::*;

const NOW: Time = Time::from_secs(10_000);

/// Pods that have been ready for long, each so busy, in thousandths.
fn pods(values: &[u64]) -> Vec<Sample> {
    values
        .iter()
        .map(|value| Sample {
            value: Some(*value),
            started: Time::from_secs(1000),
            is_ready: true,
            changed: Time::from_secs(1010),
            is_pending: false,
            is_leaving: false,
        })
        .collect()
}

/// The same; those that are not ready have never been, and have just started.
fn partly_ready(values: &[u64], ready: &[bool]) -> Vec<Sample> {
    let mut pods = pods(values);
    for (pod, is_ready) in pods.iter_mut().zip(ready) {
        if !is_ready {
            (pod.is_ready, pod.started, pod.changed) = (false, Time::from_secs(9940), Time::from_secs(9940));
        }
    }
    pods
}

fn spec(percent: u64) -> Spec {
    Spec { min: 1, max: 100, target: Target::Utilisation(percent), ..Spec::default() }
}

fn calculated(percent: u64, current: usize, samples: &[Sample]) -> Option<usize> {
    proposed(NOW, &spec(percent), current, samples)
}

#[test]
fn test_replica_calc_scale_up_and_down() {
    assert_eq!(calculated(30, 3, &pods(&[300, 500, 700])), Some(5));
    assert_eq!(calculated(50, 5, &pods(&[100, 300, 500, 250, 250])), Some(3));
}

/// Those that have just started, and count as ready: what they say is what their start costs.
fn hot(values: &[u64], hot: &[bool]) -> Vec<Sample> {
    let mut pods = pods(values);
    for (pod, _) in pods.iter_mut().zip(hot).filter(|(_, is_hot)| **is_hot) {
        (pod.started, pod.changed) = (NOW, NOW);
    }
    pods
}

/// Those whose pods nobody could ask.
fn unheard(mut pods: Vec<Sample>, which: &[usize]) -> Vec<Sample> {
    which.iter().for_each(|pod| pods[*pod].value = None);
    pods
}

/// Of plain numbers, in thousandths.
fn counted(target: u64, current: usize, samples: &[Sample]) -> Option<usize> {
    proposed(NOW, &Spec { target: Target::InFlight(target), ..spec(1) }, current, samples)
}

#[test]
fn test_replica_calc_hot_cpu() {
    assert_eq!(calculated(30, 3, &hot(&[300, 500, 700], &[true, false, false])), Some(4), "less");
    assert_eq!(calculated(30, 3, &hot(&[400, 500, 700], &[false, true, true])), Some(3), "not at all");
    let down = hot(&[100, 300, 500, 250, 250], &[false, false, false, true, true]);
    assert_eq!(calculated(50, 5, &down), Some(2), "on the way down they are left out");
}

#[test]
fn test_replica_calc_plain_metrics() {
    assert_eq!(counted(15_000, 3, &pods(&[20_000, 10_000, 30_000])), Some(4));
    assert_eq!(counted(20_000, 5, &pods(&[12_000; 5])), Some(3));
    assert_eq!(counted(20_000, 3, &pods(&[20_000, 21_000, 21_000])), Some(3), "within the tolerance");
    let one = partly_ready(&[50_000, 10_000, 30_000], &[true, true, false]);
    assert_eq!(counted(15_000, 3, &one), Some(6), "one that is not ready counts");
    let two = partly_ready(&[50_000, 15_000, 30_000], &[false, true, false]);
    assert_eq!(counted(15_000, 3, &two), Some(7));
}

#[test]
fn plain_metrics_at_the_target_with_half_of_them_missing_are_taken_for_a_way_up_that_is_a_way_down() {
    let pods = unheard(pods(&[10_000; 4]), &[2, 3]);
    assert_eq!(counted(10_000, 4, &pods), Some(2));
}

#[test]
fn test_replica_calc_computed_tolerance() {
    assert_eq!(calculated(56, 10, &pods(&[500; 10])), Some(9), "just beyond a tenth");
    assert_eq!(calculated(55, 10, &pods(&[500; 10])), Some(10), "just within");
}

#[test]
fn test_replica_calc_scale_down_exclude_unscheduled_pods() {
    let mut pods = unheard(partly_ready(&[100; 5], &[true, false, false, false, false]), &[1, 2, 3, 4]);
    pods[1..].iter_mut().for_each(|pod| pod.is_pending = true);
    assert_eq!(calculated(50, 5, &pods), Some(1));
}

#[test]
fn test_replica_calc_tolerance() {
    assert_eq!(calculated(100, 3, &pods(&[1010, 1030, 1020])), Some(3));
    assert_eq!(calculated(100, 3, &pods(&[900, 900, 900])), Some(3), "a tenth exactly is within");
    assert_eq!(calculated(100, 10, &pods(&[890; 10])), Some(9));
    for percent in [10, 20, 30, 50, 70, 90, 100] {
        let bound = |tenths: u64| calculated(percent, 10, &pods(&[percent * tenths; 10]));
        assert_eq!(
            (bound(9), bound(11)),
            (Some(10), Some(10)),
            "{percent} %: both bounds are within, however they round"
        );
        let beyond = calculated(percent, 10, &pods(&[percent * 11 + 10; 10]));
        assert!(beyond > Some(10), "{percent} %: one per cent more is not");
    }
    assert_eq!(calculated(100, 10, &pods(&[1120; 10])), Some(12));
}

#[test]
fn test_replica_calc_scale_up_unready_less_scale_and_no_scale() {
    let less = partly_ready(&[300, 500, 700], &[false, true, true]);
    assert_eq!(calculated(30, 3, &less), Some(4), "by the ready ones alone it would be six");
    let none = partly_ready(&[400, 500, 700], &[true, false, false]);
    assert_eq!(calculated(30, 3, &none), Some(3), "with the others idle it would be fewer: neither");
}

#[test]
fn test_replica_calc_scale_down_include_unready_pods() {
    let pods = partly_ready(&[100, 300, 500, 250, 250], &[true, true, true, false, false]);
    assert_eq!(calculated(50, 5, &pods), Some(2), "on the way down they are left out");
}

#[test]
fn test_replica_calc_ignores_pods_that_are_deleted() {
    let mut pods = pods(&[500, 700, 900, 900]);
    pods[2].is_leaving = true;
    pods[3].is_leaving = true;
    assert_eq!(calculated(30, 2, &pods), Some(4));
}

#[test]
fn test_replica_calc_missing_metrics() {
    let down = unheard(pods(&[400, 95, 0, 0]), &[2, 3]);
    assert_eq!(calculated(100, 4, &down), Some(3), "24 % by those that say something, 62 % by all");
    let one_of_two = |value| calculated(100, 2, &unheard(pods(&[value, 0]), &[1]));
    assert_eq!([1000, 1900, 600].map(one_of_two), [Some(2); 3], "equal, more, less: none enough");
    assert_eq!(calculated(50, 4, &down), Some(4), "busy on the way down: 62 %, and it would turn");
    let mut up = pods(&[1000, 1000, 0]);
    up[2].value = None;
    assert_eq!(calculated(50, 3, &up), Some(4), "idle on the way up: 66 %, not twice as many");
    let mut nothing = pods(&[0, 0]);
    nothing.iter_mut().for_each(|pod| pod.value = None);
    assert_eq!(calculated(50, 2, &nothing), None);
    assert_eq!(Autoscaler::default().look(NOW, &spec(50), 2, &nothing), 2, "without any metric nothing is done");
}

#[test]
fn test_replica_calc_missing_metrics_with_unready_pods() {
    let mut pods = partly_ready(&[100, 950, 0, 0], &[true, true, false, true]);
    pods[3].value = None;
    assert_eq!(calculated(50, 4, &pods), Some(4), "52 % by two of them, 26 % by all four: it would turn");
    let first_unready = |values: &[u64]| {
        let ready: Vec<bool> = (0..values.len()).map(|pod| pod > 0).collect();
        calculated(50, values.len(), &unheard(partly_ready(values, &ready), &[values.len() - 1]))
    };
    assert_eq!(first_unready(&[100, 450, 0]), Some(3), "no change");
    assert_eq!(first_unready(&[100, 2000, 0]), Some(4), "up");
    assert_eq!(first_unready(&[100, 100, 100, 0]), Some(3), "down");
}

#[test]
fn the_cpu_time_of_a_pod_that_starts_counts_once_it_has_been_ready_for_a_whole_look() {
    let started = Time::from_secs(9900);
    let young = |is_ready, changed| Sample { started, is_ready, changed, ..pods(&[1000])[0] };
    let among = |young: Sample| calculated(50, 2, &[pods(&[500])[0], young]);
    assert_eq!(among(young(true, Time::from_secs(9990))), Some(2), "ready for ten seconds");
    assert_eq!(among(young(true, Time::from_secs(9980))), Some(3), "ready for twenty");
    let old = |changed| Sample { started: Time::from_secs(9000), is_ready: false, changed, ..pods(&[1000])[0] };
    assert_eq!(among(old(Time::from_secs(9005))), Some(2), "never been ready");
    assert_eq!(among(old(Time::from_secs(9500))), Some(3), "no longer ready: its load is load");
}

#[test]
fn requests_in_flight_are_load_whether_a_pod_is_ready_or_not_and_a_pending_pod_has_none() {
    let spec = Spec { target: Target::InFlight(4000), ..spec(1) };
    let mut pods = partly_ready(&[8000, 8000], &[true, false]);
    assert_eq!(proposed(NOW, &spec, 2, &pods), Some(4));
    pods[1].is_pending = true;
    assert_eq!(proposed(NOW, &spec, 2, &pods), Some(2), "it counts as idle on the way up");
}

fn run(spec: &Spec, from: usize, looks: &[(u64, u64)]) -> Vec<usize> {
    let mut scaler = Autoscaler::default();
    let mut current = from;
    let look = |(after, value): &(u64, u64)| {
        current = scaler.look(NOW + Duration::from_secs(*after), spec, current, &pods(&vec![*value; current]));
        current
    };
    looks.iter().map(look).collect()
}

#[test]
fn upwards_it_takes_four_pods_or_a_doubling_in_a_quarter_of_a_minute() {
    let busy: Vec<(u64, u64)> = (0..5).map(|look| (15 * look, 10_000)).collect();
    assert_eq!(run(&spec(50), 1, &busy), [5, 10, 20, 40, 80]);
    let often: Vec<(u64, u64)> = (0..4).map(|look| (5 * look, 10_000)).collect();
    assert_eq!(run(&spec(50), 1, &often), [5, 5, 5, 10], "the period counts, not the look");
}

#[test]
fn downwards_it_waits_for_the_whole_window_and_takes_the_most_that_was_proposed() {
    let idle: Vec<(u64, u64)> = (0..=21).map(|look| (15 * look, if look == 3 { 500 } else { 50 })).collect();
    let seen = run(&spec(50), 10, &idle);
    assert_eq!(seen[..20], [10; 20], "ten were wanted at first");
    assert_eq!(seen.last(), Some(&10), "and once more at the third look");
    let later: Vec<(u64, u64)> = (0..=21).map(|look| (15 * look, 50)).collect();
    assert_eq!(run(&spec(50), 10, &later)[19..], [10, 1, 1]);
}

#[test]
fn policies_and_disabled_directions_hold_it_back() {
    let slow = Policy { by: Step::Pods(1), every: Duration::from_secs(60) };
    let half = Policy { by: Step::Percent(50), every: Duration::from_secs(60) };
    let down = Rules { window: Duration::ZERO, select: Select::Max, policies: vec![slow, half] };
    let looks: Vec<(u64, u64)> = [0, 30, 60, 90, 120].map(|after| (after, 10)).into();
    let with = |down: Rules| run(&Spec { down, ..spec(50) }, 8, &looks);
    assert_eq!(with(down.clone()), [4, 4, 2, 2, 1]);
    assert_eq!(with(Rules { select: Select::Min, ..down.clone() }), [7, 7, 6, 6, 5]);
    assert_eq!(with(Rules { select: Select::Disabled, ..down }), [8; 5]);
}

#[test]
fn it_comes_back_within_its_bounds_at_once_and_never_leaves_them() {
    let spec = Spec { min: 3, max: 6, ..spec(50) };
    let mut scaler = Autoscaler::default();
    assert_eq!(scaler.look(NOW, &spec, 1, &pods(&[0])), 3);
    assert_eq!(scaler.look(NOW, &spec, 20, &pods(&[0; 20])), 6);
    assert_eq!(run(&spec, 5, &[(0, 9_000), (15, 9_000)]), [6, 6]);
    let idle: Vec<(u64, u64)> = (0..40).map(|look| (15 * look, 0)).collect();
    assert_eq!(run(&spec, 5, &idle).last(), Some(&3));
}
