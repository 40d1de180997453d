//! One opinion, many dialects: how a gate is put into words for whoever asks.
//!
//! A dialect owns a shape and a media type. It refuses to judge, and it refuses to be long: whatever the
//! number of checks, a body stays under what a kubelet reads ([`crate::limits::PROBE_BODY_BYTES_MAX`]).

mod actuator;
mod health_json;
mod kube;

use bytes::Bytes;
use http::HeaderMap;

use super::negotiate::preferred;
use super::opinion::{Line, Opinion};
use super::route::Query;
use crate::clock::Clock;
use crate::engine::{CheckView, Status};
use crate::limits;

/// A body and what it is.
#[derive(Clone, Debug)]
pub(super) struct Words {
    pub content_type: &'static str,
    pub body: Bytes,
}

/// What is needed to put an opinion into words.
pub(super) struct Telling<'a> {
    pub opinion: &'a Opinion<'a>,
    pub clock: &'a Clock,
    /// Whether this caller may read reasons and targets.
    pub details: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dialect {
    Actuator,
    /// `application/health+json`, draft-inadarei-api-health-check-06.
    HealthJson,
    /// kube-apiserver's `?verbose` page.
    Kube,
    /// `{"status":"pass"}`.
    Short,
}

const ACTUATOR_TYPE: &str = "application/vnd.spring-boot.actuator.v3+json";
const HEALTH_JSON_TYPE: &str = "application/health+json";
const JSON_TYPE: &str = "application/json";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";
/// Room left for what comes after the last check that fits.
const TAIL_BYTES: usize = 512;
/// A single text inside a body is cut here, so that no one reason pushes out all others.
const TEXT_BYTES_MAX: usize = limits::REASON_BYTES_MAX;

impl Dialect {
    /// What this caller wants: `format` first, then `verbose`, then `Accept`.
    pub(super) fn of(query: &Query, headers: &HeaderMap) -> Self {
        match query.format.as_deref() {
            Some("json" | "health+json") => return Self::HealthJson,
            Some("actuator") => return Self::Actuator,
            _ if query.verbose => return Self::Kube,
            _ => {}
        }
        match preferred(headers, &[HEALTH_JSON_TYPE, ACTUATOR_TYPE], JSON_TYPE) {
            Some(0) => Self::HealthJson,
            Some(_) => Self::Actuator,
            None => Self::Short,
        }
    }

    pub(super) fn words(self, telling: &Telling<'_>) -> Words {
        match self {
            Self::Actuator => Words { content_type: ACTUATOR_TYPE, body: actuator::body(telling) },
            Self::HealthJson => Words { content_type: HEALTH_JSON_TYPE, body: health_json::body(telling) },
            Self::Kube => Words { content_type: TEXT_TYPE, body: kube::body(telling) },
            Self::Short => short(telling.opinion.status),
        }
    }
}

/// The answer of every ordinary probe: static bytes.
pub(super) const fn short(status: Status) -> Words {
    let body = match status {
        Status::Pass => Bytes::from_static(br#"{"status":"pass"}"#),
        Status::Warn => Bytes::from_static(br#"{"status":"warn"}"#),
        Status::Fail => Bytes::from_static(br#"{"status":"fail"}"#),
    };
    Words { content_type: JSON_TYPE, body }
}

/// A plain text.
pub(super) fn text(body: impl Into<Bytes>) -> Words {
    Words { content_type: TEXT_TYPE, body: body.into() }
}

/// A JSON value.
pub(super) fn json(value: &serde_json::Value) -> Words {
    Words { content_type: JSON_TYPE, body: value.to_string().into() }
}

/// Why a check is as it is, as one line: "connection refused by 127.0.0.1:6379, 3 times since 12:01:07Z".
fn reason(check: &CheckView, clock: &Clock) -> String {
    let mut text = if check.reason.is_empty() { check.state.as_str().to_owned() } else { one_line(&check.reason) };
    if let Some(since) = check.failing_since
        && 0 < check.failures
    {
        let times = if check.failures == 1 { "once".to_owned() } else { format!("{} times", check.failures) };
        text.push_str(&format!(", {times} since {}", clock.time_of_day(since)));
    }
    text
}

/// A text that cannot break the shape of a page: control characters become spaces, and it ends somewhere.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if TEXT_BYTES_MAX < line.len() {
        line.truncate(line.floor_char_boundary(TEXT_BYTES_MAX));
        line.push('…');
    }
    line
}

/// The lines with the interesting ones first: when not all fit, those that fail are told.
fn by_interest<'a, 'b>(lines: &'b [Line<'a>]) -> impl Iterator<Item = &'b Line<'a>> {
    use super::opinion::Part;
    let rank = |part: Part| match part {
        Part::Fails => 0,
        Part::Degrades => 1,
        Part::Idle => 2,
        Part::Excluded => 3,
        Part::Ok => 4,
    };
    let mut sorted: Vec<_> = lines.iter().collect();
    sorted.sort_by_key(|line| rank(line.part));
    sorted.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::sample;
    use crate::engine::{Cause, Gate};
    use crate::limits::PROBE_BODY_BYTES_MAX;

    fn tell(opinion: &Opinion<'_>, dialect: Dialect, details: bool) -> String {
        let clock = Clock::start();
        let words = dialect.words(&Telling { opinion, clock: &clock, details });
        String::from_utf8(words.body.to_vec()).unwrap()
    }

    #[test]
    fn verbose_speaks_like_kube_apiserver() {
        let snapshot = sample::redis_down();
        let page = tell(&Opinion::of_gate(&snapshot, Gate::Ready, &[]), Dialect::Kube, true);
        let mut lines = page.lines();
        assert_eq!(lines.next(), Some("[+]model ok"));
        let redis = lines.next().unwrap();
        assert!(
            redis.starts_with("[-]redis failed: connection refused by 127.0.0.1:6379, 3 times since ")
                && redis.ends_with('Z'),
            "{redis}"
        );
        assert_eq!(lines.next(), Some("[+]cache ok"));
        assert_eq!(lines.next(), Some("readyz check failed"));
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn a_stranger_reads_names_and_states_but_no_reasons() {
        let snapshot = sample::redis_down();
        for dialect in [Dialect::Kube, Dialect::HealthJson, Dialect::Actuator] {
            let page = tell(&Opinion::of_gate(&snapshot, Gate::Ready, &[]), dialect, false);
            assert!(page.contains("redis") && page.contains("withheld"), "{page}");
            assert!(!page.contains("6379") && !page.contains("runbooks.example"), "{page}");
        }
    }

    #[test]
    fn an_excluded_check_counts_as_up() {
        let snapshot = sample::redis_down();
        let opinion = Opinion::of_gate(&snapshot, Gate::Ready, &["redis".into(), "nobody".into()]);
        assert_eq!(opinion.status, Status::Pass);
        let page = tell(&opinion, Dialect::Kube, false);
        assert!(page.contains("[+]redis excluded: ok\n"), "{page}");
        assert!(page.contains("warn: some health checks cannot be excluded: no matches for \"nobody\"\n"), "{page}");
        assert!(page.ends_with("readyz check passed\n"), "{page}");
    }

    #[test]
    fn excluding_one_member_of_a_group_composes_the_group_again() {
        let mut snapshot = sample::group_down();
        assert_eq!(Opinion::of_gate(&snapshot, Gate::Ready, &["a".into()]).status, Status::Pass, "any: one is enough");
        sample::set_group_min(&mut snapshot, 2);
        assert_eq!(Opinion::of_gate(&snapshot, Gate::Ready, &["a".into()]).status, Status::Fail, "all: b still fails");
        assert_eq!(Opinion::of_gate(&snapshot, Gate::Ready, &["pair".into()]).status, Status::Pass);
    }

    #[test]
    fn excluding_every_reason_that_is_listed_does_not_hide_a_check_that_is_not() {
        let mut snapshot = sample::many(30, 3);
        sample::down(&mut snapshot, 17, "down, and beyond the list of reasons");
        let opinion = Opinion::of_gate(&snapshot, Gate::Ready, &["c0003".into()]);
        assert_eq!(opinion.status, Status::Fail);
        assert!(tell(&opinion, Dialect::Kube, true).contains("[-]c0017 failed: "));
        let both = Opinion::of_gate(&snapshot, Gate::Ready, &["c0003".into(), "c0017".into()]);
        assert_eq!(both.status, Status::Pass);
    }

    #[test]
    fn a_verdict_that_is_withheld_fails_no_line() {
        let mut snapshot = sample::healthy();
        sample::down(&mut snapshot, 0, "no answer");
        sample::because(&mut snapshot, Gate::Health, Cause::Doubt, "throttled");
        snapshot.health.status = Status::Warn;
        let page = tell(&Opinion::of_gate(&snapshot, Gate::Health, &[]), Dialect::Kube, true);
        assert!(page.contains("[~]self-doubt withheld: throttled, since "), "{page}");
        assert!(page.contains("[~]model degraded: no answer") && page.ends_with("livez check passed\n"), "{page}");
    }

    #[test]
    fn excluding_a_check_does_not_hide_a_drain() {
        let mut snapshot = sample::redis_down();
        sample::because(&mut snapshot, Gate::Ready, Cause::Draining, "draining");
        let opinion = Opinion::of_gate(&snapshot, Gate::Ready, &["redis".into()]);
        assert_eq!(opinion.status, Status::Fail);
        assert!(tell(&opinion, Dialect::Kube, true).contains("[-]draining failed: draining, since "));
    }

    #[test]
    fn health_json_has_the_words_of_the_draft() {
        let snapshot = sample::redis_down();
        let page = tell(&Opinion::of_gate(&snapshot, Gate::Ready, &[]), Dialect::HealthJson, true);
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        assert_eq!(page["status"], "fail");
        assert_eq!(page["output"], "redis is down: connection refused by 127.0.0.1:6379");
        let redis = &page["checks"]["redis"][0];
        assert_eq!(redis["status"], "fail");
        assert_eq!(redis["componentType"], "datastore");
        assert_eq!(redis["observedUnit"], "ms");
        assert!(redis["time"].as_str().unwrap().ends_with('Z'));
        assert!(redis["output"].as_str().unwrap().starts_with("connection refused by"));
        assert_eq!(page["checks"]["model"][0]["status"], "pass");
        assert!(page["checks"]["model"][0].get("output").is_none(), "output is for what is not a pass");
    }

    #[test]
    fn the_reasons_of_an_excluded_check_are_not_given_as_the_gates() {
        let snapshot = sample::redis_down();
        let page = tell(&Opinion::of_gate(&snapshot, Gate::Ready, &["redis".into()]), Dialect::HealthJson, true);
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        assert_eq!((&page["status"], page.get("output")), (&"pass".into(), None));
    }

    #[test]
    fn excluding_a_check_does_not_fail_a_health_that_waits_for_a_start() {
        let mut snapshot = sample::healthy();
        let redis = crate::engine::GateMember { check: crate::engine::CheckId(1), required: true };
        std::sync::Arc::make_mut(&mut snapshot.plan).health.require.push(crate::engine::Member::Check(redis.check));
        snapshot.health.members.push(redis);
        sample::down(&mut snapshot, 0, "no answer");
        sample::because(&mut snapshot, Gate::Health, Cause::Starting, "the model server is starting");
        snapshot.health.status = Status::Pass;
        assert!(Opinion::of_gate(&snapshot, Gate::Health, &["redis".into()]).status.passes());
    }

    #[test]
    fn actuator_says_down_and_while_draining_out_of_service() {
        let mut snapshot = sample::redis_down();
        let page = |snapshot: &crate::engine::Snapshot| -> serde_json::Value {
            let opinion = Opinion::of_gate(snapshot, Gate::Ready, &[]);
            serde_json::from_str(&tell(&opinion, Dialect::Actuator, true)).unwrap()
        };
        let down = page(&snapshot);
        assert_eq!(down["status"], "DOWN");
        assert_eq!(down["components"]["redis"]["status"], "DOWN");
        assert_eq!(down["components"]["model"]["status"], "UP");
        sample::because(&mut snapshot, Gate::Ready, Cause::Draining, "draining");
        assert_eq!(page(&snapshot)["status"], "OUT_OF_SERVICE");
    }

    #[test]
    fn ten_thousand_checks_fit_in_what_a_kubelet_reads_and_the_failing_ones_are_told() {
        let snapshot = sample::many(10_000, 9_999);
        for dialect in [Dialect::Kube, Dialect::HealthJson, Dialect::Actuator, Dialect::Short] {
            let page = tell(&Opinion::of_gate(&snapshot, Gate::Ready, &[]), dialect, true);
            assert!(page.len() < PROBE_BODY_BYTES_MAX, "{dialect:?}: {} bytes", page.len());
            if dialect != Dialect::Short {
                assert!(page.contains("c9999"), "{dialect:?} tells the one that fails");
                assert!(page.contains("more"), "{dialect:?} says how many it left out");
            }
        }
    }

    #[test]
    fn a_reason_cannot_forge_a_line() {
        let mut snapshot = sample::redis_down();
        sample::reason(&mut snapshot, 1, "x\n[+]forged ok\r\nreadyz check passed");
        let page = tell(&Opinion::of_gate(&snapshot, Gate::Ready, &[]), Dialect::Kube, true);
        assert_eq!(page.lines().count(), 4, "{page}");
    }
}
