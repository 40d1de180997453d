//! Which of equals to take. Where the figures do not differ, haste has bought nothing: caution decides, and says so.

use super::{Axis, Point};

/// The kubelet's own numbers (§1), for probes in the manifest.
const DEFAULTS: [(&str, f64); 5] = [
    ("periodSeconds", 10.0),
    ("timeoutSeconds", 1.0),
    ("failureThreshold", 3.0),
    ("successThreshold", 1.0),
    ("initialDelaySeconds", 0.0),
];
/// More of it is less probing.
const INTERVALS: [&str; 5] = ["periodSeconds", "interval", "fast_interval", "down_interval", "pending_interval"];
/// More of it is more patience.
const PATIENCE: [&str; 6] =
    ["failureThreshold", "failure_threshold", "timeoutSeconds", "timeout", "max_age", "stall_after"];
/// Logarithms closer than this are of equal products.
const EPSILON: f64 = 1e-9;

/// How cautious a value of a key is: more is more.
type Caution = fn(&str, f64) -> f64;

/// The most cautious of `equals`, and why in words if there were others: the design as written, then what is at the
/// kubelet's defaults, then the least probing, then the most patient, then the one that comes first.
pub(super) fn gentlest(points: &[Point], equals: &[usize], axes: &[Axis]) -> Option<(usize, String)> {
    let first = *equals.first()?;
    let among = equals.len();
    if among == 1 {
        return Some((first, String::new()));
    }
    let told = |why: &str| format!(" {among} points do not differ in any of this; {why}.");
    if equals.contains(&0) {
        return Some((0, told("the design as written is one of them")));
    }
    let mut left = equals.to_vec();
    let mut reasons = Vec::new();
    let steps: [(Caution, &str); 3] = [
        (is_default, "is nearest to the kubelet's defaults"),
        (probing, "probes least"),
        (patience, "is the most patient"),
    ];
    for (caution, why) in steps {
        let sum = |index: &usize| {
            let values = axes.iter().zip(&points[*index].values);
            values.filter_map(|(axis, text)| Some(caution(&axis.key, number(text)?))).sum::<f64>()
        };
        let most = left.iter().map(sum).fold(f64::NEG_INFINITY, f64::max);
        let before = left.len();
        left.retain(|index| most - EPSILON <= sum(index));
        if left.len() < before {
            reasons.push(why);
        }
    }
    let point = *left.first()?;
    let why = if reasons.is_empty() { "comes first".to_owned() } else { reasons.join(" and of these ") };
    Some((point, told(&format!("this one {why}, and more haste has bought nothing"))))
}

fn field(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn is_default(key: &str, value: f64) -> f64 {
    let is_probe = key.contains("Probe.");
    let is_default = DEFAULTS.iter().any(|(name, default)| *name == field(key) && (value - default).abs() < EPSILON);
    f64::from(u8::from(is_probe && is_default))
}

fn probing(key: &str, value: f64) -> f64 {
    if INTERVALS.contains(&field(key)) { value.max(EPSILON).ln() } else { 0.0 }
}

fn patience(key: &str, value: f64) -> f64 {
    if PATIENCE.contains(&field(key)) { value.max(EPSILON).ln() } else { 0.0 }
}

/// A number, or a duration in seconds.
fn number(text: &str) -> Option<f64> {
    text.parse().ok().or_else(|| Some(humantime::parse_duration(text).ok()?.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gentlest_of(keys: &[&str], choices: &[&[&str]]) -> (usize, String) {
        let axes: Vec<Axis> = keys.iter().map(|key| Axis::parse(&format!("{key}=1")).unwrap()).collect();
        let point = |values: &[&str]| Point {
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            refused: None,
            cost: None,
        };
        let points: Vec<Point> =
            std::iter::once(point(&[])).chain(choices.iter().map(|values| point(values))).collect();
        gentlest(&points, &(1..points.len()).collect::<Vec<_>>(), &axes).unwrap()
    }

    #[test]
    fn the_kubelets_own_numbers_come_before_more_and_before_less() {
        let keys = ["readinessProbe.periodSeconds", "livenessProbe.failureThreshold"];
        let (point, why) = gentlest_of(&keys, &[&["1", "1"], &["10", "1"], &["10", "3"], &["20", "6"]]);
        assert_eq!(point, 3);
        assert!(why.contains("4 points") && why.contains("kubelet's defaults"), "{why}");
    }

    #[test]
    fn then_the_least_probing_wins_and_then_the_most_patience() {
        let keys = ["checks.*.interval", "checks.*.failure_threshold"];
        let (point, why) = gentlest_of(&keys, &[&["500ms", "5"], &["2s", "1"], &["2s", "3"], &["1s", "9"]]);
        assert_eq!(point, 3);
        assert!(why.contains("probes least and of these is the most patient"), "{why}");
    }

    #[test]
    fn the_design_as_written_wins_over_any_equal_and_one_alone_needs_no_reason() {
        let axes = [Axis::parse("readinessProbe.periodSeconds=1,10").unwrap()];
        let points: Vec<Point> = [&[][..], &["1"], &["10"]]
            .map(|values| Point { values: values.iter().map(ToString::to_string).collect(), refused: None, cost: None })
            .into();
        let (point, why) = gentlest(&points, &[0, 1, 2], &axes).unwrap();
        assert!(point == 0 && why.contains("as written"), "{why}");
        assert_eq!(gentlest(&points, &[1], &axes), Some((1, String::new())));
        assert_eq!(gentlest(&points, &[], &axes), None);
    }
}
