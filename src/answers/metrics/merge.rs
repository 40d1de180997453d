//! Two pages become one: families of the same name meet, names that are ours stay ours, doubles go.
//!
//! It owns who wins. The four `model_*` names are the model server's if it exports them; `probegate_*` is
//! never anybody's but ours. It refuses to interpret a value.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::exposition::{self, Family, Point};
use super::{PageFormat, format_of};
use crate::limits;
use crate::scrape::Page;
use crate::scrape::text::{Exposition, Format, Labels, MetricType, Sample};

/// The model server's page as it was fetched.
pub(super) struct Theirs {
    pub page: Arc<Page>,
    pub took: Duration,
}

/// What goes out, in either format.
pub(super) struct Merge<'a> {
    families: Vec<Family<'a>>,
    /// About the merge itself.
    about: String,
}

/// Our stand-ins for servers that do not export them.
const STAND_INS: [&str; 4] = ["model_requests", "model_latency_ms", "model_accuracy", "model_degraded"];
const OURS: &str = "probegate_";

impl<'a> Merge<'a> {
    /// `ours` is OpenMetrics. `theirs` is none where the model server has no page.
    pub(super) fn new(ours: &'a str, theirs: Option<&'a Result<Theirs, String>>) -> Self {
        let readable = theirs.and_then(|fetched| fetched.as_ref().ok()).filter(|t| is_readable(&t.page.body));
        let mut gather = Gather::default();
        let their_page = readable.map(|theirs| {
            let format = format_of(&theirs.page);
            (Exposition::parse(&theirs.page.body, format), format)
        });
        let stepping_aside = their_page.as_ref().map_or_else(HashSet::new, |(page, _)| stand_ins(page));
        let our_page = Exposition::parse(ours.as_bytes(), Format::OpenMetrics);
        for family in canonical(our_page, Format::OpenMetrics, &mut gather.dropped) {
            if !stepping_aside.contains(family.name.as_ref()) {
                gather.add(family);
            }
        }
        if let Some((page, format)) = their_page {
            gather.dropped += page.problem_count;
            for family in canonical(page, format, &mut gather.dropped) {
                if family.name.starts_with(OURS) {
                    gather.dropped += family.points.len();
                } else {
                    gather.add(family);
                }
            }
        }
        for family in &mut gather.families {
            family.group();
        }
        let about = theirs.map_or_else(String::new, |_| about_merge(readable, gather.dropped));
        Self { families: gather.families, about }
    }

    pub(super) fn render(&self, format: PageFormat) -> String {
        let mut page = String::with_capacity(64 * 1024);
        let mut written = HashSet::new();
        for family in &self.families {
            exposition::write(&mut page, family, format, &mut written);
        }
        page.push_str(&self.about);
        if format == PageFormat::OpenMetrics {
            page.push_str("# EOF\n");
        }
        page
    }
}

/// Whether a page can be read within a sidecar's memory.
fn is_readable(body: &[u8]) -> bool {
    body.len() <= limits::MERGE_BYTES_MAX
        && body.iter().filter(|&&byte| byte == b'\n').count() <= limits::MERGE_LINES_MAX
}

/// Gauges about the merge, the same in both formats.
fn about_merge(usable: Option<&Theirs>, dropped: usize) -> String {
    let gauge =
        |name: &str, help: &str, value: String| format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    let mut about = gauge(
        "probegate_upstream_metrics_up",
        "1 while the model server's own metrics are part of this page",
        u8::from(usable.is_some()).to_string(),
    );
    if let Some(theirs) = usable {
        let bytes = theirs.page.body.len().to_string();
        about.push_str(&gauge("probegate_upstream_metrics_bytes", "Size of the model server's own page", bytes));
        let seconds = theirs.took.as_secs_f64().to_string();
        about.push_str(&gauge("probegate_upstream_metrics_fetch_seconds", "Time its page took to come", seconds));
        let help = "Lines and series of its page left out: unreadable, doubled or under our own names";
        about.push_str(&gauge("probegate_upstream_metrics_dropped", help, dropped.to_string()));
    }
    about
}

/// Which stand-ins the model server makes needless, under our own names for them.
fn stand_ins(theirs: &Exposition<'_>) -> HashSet<&'static str> {
    let exported =
        |name: &str| theirs.families.iter().any(|f| f.name.strip_suffix("_total").unwrap_or(&f.name) == name);
    STAND_INS.into_iter().filter(|name| exported(name)).collect()
}

/// A page in the terms of OpenMetrics: counters without `_total`, `_created` with the family it is about.
fn canonical<'a>(page: Exposition<'a>, format: Format, dropped: &mut usize) -> Vec<Family<'a>> {
    let names: HashMap<Cow<'a, str>, MetricType> =
        page.families.iter().map(|family| (family.name.clone(), family.kind)).collect();
    let base = |name: &Cow<'a, str>, kind: MetricType| {
        let stem = name.strip_suffix("_total").filter(|stem| kind == MetricType::Counter && !names.contains_key(*stem));
        match (stem, name) {
            (Some(""), _) => name.clone(),
            (Some(_), Cow::Borrowed(text)) => Cow::Borrowed(text.strip_suffix("_total").unwrap_or(text)),
            (Some(stem), _) => Cow::Owned(stem.to_owned()),
            (None, _) => name.clone(),
        }
    };
    // What `foo_created` is about: a family `foo` that can have been created.
    let mut creatable: HashSet<String> = HashSet::new();
    for family in &page.families {
        if matches!(family.kind, MetricType::Counter | MetricType::Histogram | MetricType::Summary) {
            creatable.insert(base(&family.name, family.kind).into_owned());
        }
    }
    let mut families = Vec::with_capacity(page.families.len());
    for family in page.families {
        let may_be_created = matches!(family.kind, MetricType::Gauge | MetricType::Unknown);
        let stem = family.name.strip_suffix("_created").filter(|stem| may_be_created && creatable.contains(*stem));
        let name = stem.map_or_else(|| base(&family.name, family.kind), |stem| Cow::Owned(stem.to_owned()));
        let is_created = stem.is_some();
        let before = family.samples.len();
        let points: Vec<_> = family.samples.into_iter().filter_map(|sample| point(&name, sample, format)).collect();
        *dropped += before - points.len();
        families.push(Family {
            name,
            // A family of nothing but `_created` says nothing about the one that it joins.
            kind: if is_created { MetricType::Unknown } else { family.kind },
            help: family.help.filter(|_| !is_created),
            unit: family.unit.filter(|_| !is_created),
            points,
        });
    }
    families
}

/// A sample under its family; `None` if it cannot be written in both formats (names that need quotes, a
/// timestamp out of range).
fn point<'a>(base: &str, sample: Sample<'a>, format: Format) -> Option<Point<'a>> {
    let suffix = exposition::known_suffix(sample.name.strip_prefix(base)?)?;
    let plain = |labels: Labels<'a>| labels.iter().all(|(name, _)| exposition::is_label_name(&name));
    let timed = sample.timestamp.is_none_or(|at| exposition::is_timestamp(at, format));
    if !exposition::is_metric_name(&sample.name) || !plain(sample.labels) || !timed {
        return None;
    }
    let exemplar = sample.exemplar.filter(|exemplar| plain(exemplar.labels));
    Some(Point { suffix, sample: Sample { exemplar, ..sample }, format, group: 0 })
}

/// Families as they come in, met by name.
#[derive(Default)]
struct Gather<'a> {
    families: Vec<Family<'a>>,
    by_name: HashMap<String, usize>,
    /// Series that are on the page already: of each family, suffix and labels.
    seen: HashSet<(usize, &'static str, u64)>,
    hasher: RandomState,
    dropped: usize,
}

impl<'a> Gather<'a> {
    fn add(&mut self, mut family: Family<'a>) {
        let points = std::mem::take(&mut family.points);
        let at = match self.by_name.get(family.name.as_ref()) {
            Some(&at) => {
                self.families[at].learn(&family);
                at
            }
            None => {
                self.by_name.insert(family.name.to_string(), self.families.len());
                self.families.push(family);
                self.families.len() - 1
            }
        };
        for mut point in points {
            let (series, group) = self.identity(point.sample.labels);
            if self.seen.insert((at, point.suffix, series)) {
                point.group = group;
                self.families[at].points.push(point);
            } else {
                self.dropped += 1;
            }
        }
    }

    /// Which series, and which group of series (a histogram's buckets) within its family. Labels count as a
    /// set: the sum of their hashes does not depend on their order.
    fn identity(&self, labels: Labels<'_>) -> (u64, u64) {
        let mut series = 0_u64;
        let mut group = 0_u64;
        for (name, value) in labels.iter() {
            let hash = self.hasher.hash_one((name.as_ref(), value.as_ref()));
            series = series.wrapping_add(hash);
            if !matches!(name.as_ref(), "le" | "quantile") {
                group = group.wrapping_add(hash);
            }
        }
        (series, group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const OURS_PAGE: &str = "# HELP probegate_probe_requests Probe answers given.\n\
        # TYPE probegate_probe_requests counter\n\
        probegate_probe_requests_total{gate=\"ready\",code=\"200\"} 7\n\
        # TYPE model_degraded gauge\nmodel_degraded 0\n\
        # TYPE model_requests counter\nmodel_requests_total{code=\"200\"} 3\n\
        # TYPE probegate_build info\nprobegate_build_info{version=\"0.1.0\"} 1\n# EOF\n";
    const OM: &str = "application/openmetrics-text; version=1.0.0";

    fn merged(theirs: &str, content_type: &str, format: PageFormat) -> String {
        let page = Page {
            body: theirs.to_owned().into(),
            content_type: content_type.to_owned(),
            fetched_at: Clock::start().now(),
        };
        let theirs = Ok(Theirs { page: Arc::new(page), took: Duration::from_millis(3) });
        Merge::new(OURS_PAGE, Some(&theirs)).render(format)
    }

    fn has(page: &str, line: &str) -> bool {
        page.lines().any(|l| l == line)
    }

    #[track_caller]
    fn assert_lines(page: &str, lines: &[&str]) {
        for line in lines {
            assert!(has(page, line), "no line {line:?} in\n{page}");
        }
    }

    #[test]
    fn two_families_that_come_to_one_name_are_one_on_the_page() {
        let theirs = "a_info 1\n# TYPE a info\na_info{x=\"y\"} 1\n# EOF\n";
        let text = merged(theirs, OM, PageFormat::Text);
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE a_info ")).count(), 1, "{text}");
        assert_lines(&text, &["a_info 1"]);
    }

    #[test]
    fn our_counters_follow_the_names_of_the_format() {
        let text = Merge::new(OURS_PAGE, None).render(PageFormat::Text);
        assert_lines(&text, &["# TYPE probegate_probe_requests_total counter", "# TYPE probegate_build_info gauge"]);
        assert!(!text.contains("# EOF"), "{text}");
        let om = Merge::new(OURS_PAGE, None).render(PageFormat::OpenMetrics);
        assert_lines(&om, &["# TYPE probegate_probe_requests counter", "# TYPE probegate_build info", "# EOF"]);
        let sample = "probegate_probe_requests_total{gate=\"ready\",code=\"200\"} 7";
        assert!(has(&text, sample) && has(&om, sample));
    }

    #[test]
    fn the_model_servers_own_four_win_whatever_their_format() {
        let theirs = "# TYPE model_requests_total counter\nmodel_requests_total{code=\"500\"} 9\n\
            # TYPE model_degraded gauge\nmodel_degraded 1\n";
        let page = merged(theirs, "text/plain", PageFormat::OpenMetrics);
        assert_lines(
            &page,
            &["model_requests_total{code=\"500\"} 9", "model_degraded 1", "# TYPE model_requests counter"],
        );
        assert!(!page.contains("model_degraded 0") && !page.contains("model_requests_total{code=\"200\"}"), "{page}");
    }

    #[test]
    fn names_that_are_ours_are_dropped_from_theirs_and_counted() {
        let page = merged("probegate_gate_status 1\nfine 1\n", "text/plain", PageFormat::Text);
        assert!(!page.contains("probegate_gate_status"), "{page}");
        assert_lines(&page, &["fine 1", "probegate_upstream_metrics_dropped 1", "probegate_upstream_metrics_up 1"]);
    }

    #[test]
    fn a_python_page_becomes_openmetrics() {
        let theirs = "# HELP http_requests_total Say \"hi\".\n# TYPE http_requests_total counter\n\
            http_requests_total{m=\"GET\"} 4.0 1700000000123\nhttp_requests_total{m=\"PUT\"} 1.0\n\
            # TYPE http_requests_created gauge\nhttp_requests_created{m=\"GET\"} 1.7e+09\n\
            # TYPE lat histogram\nlat_bucket{le=\"1\"} 1\nlat_bucket{le=\"+Inf\"} 2\nlat_count 2\nlat_sum 3.5\n\
            plain 1\n# TYPE odd counter\nodd 2\n";
        let page = merged(theirs, "text/plain; version=0.0.4", PageFormat::OpenMetrics);
        assert_lines(
            &page,
            &[
                "# HELP http_requests Say \\\"hi\\\".",
                "# TYPE http_requests counter",
                "http_requests_total{m=\"GET\"} 4.0 1700000000.123",
                "http_requests_created{m=\"GET\"} 1.7e+09",
                "lat_bucket{le=\"1.0\"} 1",
                "# TYPE plain unknown",
                "# TYPE odd unknown",
                "odd 2",
            ],
        );
        assert!(!page.contains("# TYPE http_requests_created"), "{page}");
        let at = |line: &str| page.find(line).unwrap();
        assert!(at("http_requests_created{m=\"GET\"}") < at("http_requests_total{m=\"PUT\"}"), "grouped by labels");
        assert_eq!(page.matches("# EOF").count(), 1);
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn an_openmetrics_page_becomes_text() {
        let theirs = "# TYPE r counter\n# UNIT lat_seconds seconds\n# HELP r Say \\\"hi\\\".\n\
            r_total 4 1700000000.5 # {trace=\"a\"} 1 1.5\nr_created 1.5\n\
            # TYPE lat_seconds histogram\nlat_seconds_bucket{le=\"1.0\"} 1 # {t=\"b\"} 0.5\nlat_seconds_count 1\n\
            # TYPE b info\nb_info{v=\"1\"} 1\n# TYPE s stateset\ns{s=\"on\"} 1\n\
            # TYPE g gaugehistogram\ng_bucket{le=\"+Inf\"} 3\ng_gcount 3\ng_gsum 4\n\
            # TYPE u unknown\nu NaN\n# EOF\nafter 1\n";
        let page = merged(theirs, OM, PageFormat::Text);
        assert_lines(
            &page,
            &[
                "# HELP r_total Say \"hi\".",
                "# TYPE r_total counter",
                "r_total 4 1700000000500",
                "# TYPE r_created gauge",
                "r_created 1.5",
                "lat_seconds_bucket{le=\"1.0\"} 1",
                "# TYPE b_info gauge",
                "# TYPE s gauge",
                "# TYPE g histogram",
                "# TYPE g_gcount gauge",
                "# TYPE g_gsum gauge",
                "# TYPE u untyped",
                "u NaN",
            ],
        );
        assert!(!page.contains("trace") && !page.contains("UNIT") && !page.contains("after"), "{page}");
    }

    #[test]
    fn exemplars_and_units_survive_in_openmetrics() {
        let theirs = "# TYPE lat_seconds histogram\n# UNIT lat_seconds seconds\n\
            lat_seconds_bucket{le=\"1.0\"} 1 # {t=\"b\"} 0.5 1.25\n# EOF\n";
        let page = merged(theirs, OM, PageFormat::OpenMetrics);
        assert_lines(&page, &["# UNIT lat_seconds seconds", "lat_seconds_bucket{le=\"1.0\"} 1 # {t=\"b\"} 0.5 1.25"]);
    }

    #[test]
    fn doubles_go_and_families_are_told_once() {
        let theirs = "# TYPE a gauge\na{x=\"1\",y=\"2\"} 1\n# TYPE b gauge\nb 1\n# TYPE a gauge\n\
            a{y=\"2\",x=\"1\"} 5\na{x=\"3\"} 6\nbroken{ 1\n\u{0}\n";
        let page = merged(theirs, "text/plain", PageFormat::Text);
        assert_eq!(page.matches("# TYPE a gauge").count(), 1);
        assert_lines(&page, &["a{x=\"1\",y=\"2\"} 1", "a{x=\"3\"} 6", "probegate_upstream_metrics_dropped 3"]);
        assert!(!page.contains("} 5"), "{page}");
    }

    /// Each of these was seen to cost a whole scrape, ours included.
    #[test]
    fn what_a_prometheus_would_refuse_the_page_for_is_left_out_or_written_as_it_reads_it() {
        let theirs = "fine 1\nname{__name__=\"x\"} 1\nlate 1 99999999999999999999\nhalf 1 1.5\n\
            large 1e999\nsmall -1e999\ntimed 1 1700000000123\n";
        for format in [PageFormat::Text, PageFormat::OpenMetrics] {
            let page = merged(theirs, "text/plain", format);
            assert_lines(&page, &["fine 1", "large +Inf", "small -Inf", "probegate_upstream_metrics_dropped 3"]);
            assert!(!page.contains("name{") && !page.contains("late") && !page.contains("half"), "{page}");
        }
        let theirs = "# TYPE c counter\nc_total 1 # {t=\"a\"} 1e999\n# TYPE g gauge\ng 1 1e30\n# EOF\n";
        let page = merged(theirs, OM, PageFormat::OpenMetrics);
        assert_lines(&page, &["c_total 1 # {t=\"a\"} +Inf", "probegate_upstream_metrics_dropped 1"]);
    }

    #[test]
    fn a_gauge_and_a_counter_of_one_stem_stay_apart() {
        let theirs = "# TYPE q gauge\nq 1\n# TYPE q_total counter\nq_total 2\n";
        let text = merged(theirs, "text/plain", PageFormat::Text);
        assert_lines(&text, &["# TYPE q gauge", "# TYPE q_total counter", "q 1", "q_total 2"]);
        let om = merged(theirs, "text/plain", PageFormat::OpenMetrics);
        assert_lines(&om, &["# TYPE q gauge", "# TYPE q_total unknown", "q 1", "q_total 2"]);
    }

    #[test]
    fn a_page_of_too_many_lines_is_left_out_whole() {
        let page = merged(&"a 1\n".repeat(limits::MERGE_LINES_MAX + 1), "text/plain", PageFormat::Text);
        assert_lines(&page, &["probegate_upstream_metrics_up 0"]);
        assert!(!has(&page, "a 1"));
    }

    #[test]
    fn label_values_keep_their_escapes() {
        let theirs = "a{x=\"q\\\"b\\\\c\\nd\", y = \"z\" , } +Inf\n";
        let page = merged(theirs, "text/plain", PageFormat::Text);
        assert_lines(&page, &["a{x=\"q\\\"b\\\\c\\nd\",y=\"z\"} +Inf"]);
    }

    use proptest::collection::vec;

    proptest::proptest! {
        /// Whatever comes, what goes out is a page that reads back without a problem.
        #[test]
        fn any_bytes_merge_into_a_readable_page(bytes in vec(proptest::prelude::any::<u8>(), 0..400)) {
            reads_back(&bytes);
        }

        #[test]
        fn any_page_of_likely_words_merges_into_a_readable_page(
            words in vec(proptest::sample::select(&["# TYPE ", "# HELP ", "a", "a_total", "a_created", " counter\n",
                " gauge\n", " histogram\n", " info\n", "{le=\"1\"}", "{x=\"\\n\"}", " 1\n", " NaN 5\n",
                "\n", "# EOF\n", "a_bucket", "a_info", " 1 # {t=\"x\"} 2\n", "# UNIT a a\n"][..]), 0..60)
        ) {
            reads_back(words.concat().as_bytes());
        }
    }

    fn reads_back(bytes: &[u8]) {
        for content_type in ["text/plain", OM] {
            let page = Page {
                body: bytes.to_vec().into(),
                content_type: content_type.into(),
                fetched_at: Clock::start().now(),
            };
            let theirs = Ok(Theirs { page: Arc::new(page), took: Duration::ZERO });
            let merge = Merge::new(OURS_PAGE, Some(&theirs));
            for (format, read) in [(PageFormat::Text, Format::Text), (PageFormat::OpenMetrics, Format::OpenMetrics)] {
                let page = merge.render(format);
                let again = Exposition::parse(page.as_bytes(), read);
                assert_eq!(again.problems, [], "{page}");
                let mut types: Vec<_> = page.lines().filter(|l| l.starts_with("# TYPE ")).collect();
                types.iter_mut().for_each(|line| *line = line.rsplit_once(' ').unwrap().0);
                let all = types.len();
                types.sort_unstable();
                types.dedup();
                assert_eq!(types.len(), all, "TYPE once a family:\n{page}");
                let mut series: Vec<_> =
                    page.lines().filter(|l| !l.starts_with('#')).map(|l| l.split(' ').next()).collect();
                let all = series.len();
                series.sort_unstable();
                series.dedup();
                assert_eq!(series.len(), all, "no series twice:\n{page}");
            }
        }
    }
}
