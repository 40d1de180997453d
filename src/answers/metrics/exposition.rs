//! Writing families in either format, whatever format they were read in.
//!
//! It owns the differences: where `_total` stands, what 0.0.4 has no type for, timestamps in milliseconds or
//! seconds, how `le` is spelled, what is escaped in a HELP, exemplars and units.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::PageFormat;
use crate::scrape::text::{Format, Labels, MetricType, Sample};

/// A family in the terms of OpenMetrics.
pub(super) struct Family<'a> {
    /// Without a counter's `_total`.
    pub name: Cow<'a, str>,
    pub kind: MetricType,
    /// As it was escaped.
    pub help: Option<&'a str>,
    pub unit: Option<&'a str>,
    pub points: Vec<Point<'a>>,
}

pub(super) struct Point<'a> {
    /// Behind the family's name.
    pub suffix: &'static str,
    pub sample: Sample<'a>,
    /// What the sample's timestamp is counted in.
    pub format: Format,
    /// Points of one group stand together: a counter and its `_created`, a histogram's buckets.
    pub group: u64,
}

/// Every suffix that a sample can have; the empty one included.
static SUFFIXES: [&str; 9] = ["", "_total", "_created", "_bucket", "_sum", "_count", "_info", "_gsum", "_gcount"];

impl<'a> Family<'a> {
    /// Takes over what another mention of the family knows better.
    pub(super) fn learn(&mut self, other: &Self) {
        if self.kind == MetricType::Unknown {
            self.kind = other.kind;
        }
        self.help = self.help.or(other.help);
        self.unit = self.unit.or(other.unit);
    }

    /// Brings the points of each group together, in the order of their first mention, `_created` last.
    pub(super) fn group(&mut self) {
        let mut order = HashMap::new();
        for point in &self.points {
            let next = order.len();
            order.entry(point.group).or_insert(next);
        }
        self.points.sort_by_key(|point| (order.get(&point.group).copied(), point.suffix == "_created"));
    }

    fn has(&self, suffix: &str) -> bool {
        self.points.iter().any(|point| point.suffix == suffix)
    }
}

/// The suffix as one of those that exist; `None` for any other word.
pub(super) fn known_suffix(word: &str) -> Option<&'static str> {
    SUFFIXES.into_iter().find(|suffix| *suffix == word)
}

pub(super) fn is_metric_name(name: &str) -> bool {
    is_name(name, |b| b == b'_' || b == b':')
}

/// `__name__` is the metric's own name: as a label it makes a Prometheus refuse the whole page.
pub(super) fn is_label_name(name: &str) -> bool {
    name != "__name__" && is_name(name, |b| b == b'_')
}

/// Whether a timestamp fits both formats: whole milliseconds in 64 bits in text. One that does not makes a
/// Prometheus refuse the whole page.
pub(super) fn is_timestamp(at: &str, format: Format) -> bool {
    match format {
        Format::OpenMetrics => at.parse::<f64>().is_ok_and(|seconds| seconds.abs() < 9e15),
        Format::Text => at.parse::<i64>().is_ok(),
    }
}

fn is_name(name: &str, also: impl Fn(u8) -> bool) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|b| !b.is_ascii_digit()) && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || also(b))
}

/// Writes a family with its metadata; a family without points is not written. `written` holds the names that
/// are on the page: two families can come to the same name in one format (`a_info` and the info `a` in text), and
/// a second `# TYPE` of a name makes a Prometheus refuse the page. The first one stays.
pub(super) fn write(page: &mut String, family: &Family<'_>, format: PageFormat, written: &mut HashSet<String>) {
    for part in parts(family, format) {
        part.write(page, family, format, written);
    }
}

/// What a format makes of a family: one family, or several where it has no type for the whole.
struct Part {
    /// Behind the family's name, in `# TYPE`.
    name: &'static str,
    word: &'static str,
    suffixes: &'static [&'static str],
}

const fn part(name: &'static str, word: &'static str, suffixes: &'static [&'static str]) -> Part {
    Part { name, word, suffixes }
}

fn parts(family: &Family<'_>, format: PageFormat) -> Vec<Part> {
    match format {
        PageFormat::OpenMetrics => openmetrics_parts(family),
        PageFormat::Text => text_parts(family.kind),
    }
}

fn openmetrics_parts(family: &Family<'_>) -> Vec<Part> {
    let suffixed = family.kind.suffixes();
    let bare_is_fine =
        matches!(family.kind, MetricType::Gauge | MetricType::StateSet | MetricType::Summary | MetricType::Unknown);
    if family.has("") && !bare_is_fine {
        // A counter of text 0.0.4 without `_total`: OpenMetrics has no counter of that name, and a name must
        // not depend on the format. It goes out as what it is called, without the type.
        return SUFFIXES.map(|suffix| part(suffix, "unknown", single(suffix))).into();
    }
    let mut whole = vec![Part { name: "", word: family.kind.as_str(), suffixes: all_of(family.kind) }];
    // Suffixes that the kind does not have stand for themselves.
    for suffix in SUFFIXES {
        if !suffix.is_empty() && !suffixed.contains(&suffix) {
            whole.push(part(suffix, "unknown", single(suffix)));
        }
    }
    whole
}

fn text_parts(kind: MetricType) -> Vec<Part> {
    let mut parts = match kind {
        MetricType::Counter => vec![part("_total", "counter", &["_total"]), part("", "counter", &[""])],
        MetricType::Gauge | MetricType::StateSet => vec![part("", "gauge", &[""])],
        MetricType::GaugeHistogram => vec![
            part("", "histogram", &["", "_bucket"]),
            part("_gcount", "gauge", &["_gcount"]),
            part("_gsum", "gauge", &["_gsum"]),
        ],
        MetricType::Histogram => vec![part("", "histogram", &["", "_bucket", "_sum", "_count"])],
        MetricType::Info => vec![part("_info", "gauge", &["_info"]), part("", "gauge", &[""])],
        MetricType::Summary => vec![part("", "summary", &["", "_sum", "_count"])],
        MetricType::Unknown => vec![part("", "untyped", &[""])],
    };
    for suffix in SUFFIXES {
        if !parts.iter().any(|part| part.suffixes.contains(&suffix)) {
            let word = if suffix == "_created" { "gauge" } else { "untyped" };
            parts.push(part(suffix, word, single(suffix)));
        }
    }
    parts
}

/// A kind's suffixes in OpenMetrics, the empty one where it has it.
const fn all_of(kind: MetricType) -> &'static [&'static str] {
    match kind {
        MetricType::Counter => &["_total", "_created"],
        MetricType::Gauge | MetricType::StateSet | MetricType::Unknown => &[""],
        MetricType::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
        MetricType::Histogram => &["_bucket", "_sum", "_count", "_created"],
        MetricType::Info => &["_info"],
        MetricType::Summary => &["", "_sum", "_count", "_created"],
    }
}

/// A slice of one suffix.
fn single(suffix: &'static str) -> &'static [&'static str] {
    SUFFIXES.iter().position(|known| *known == suffix).map_or(&[], |at| &SUFFIXES[at..=at])
}

impl Part {
    fn write(&self, page: &mut String, family: &Family<'_>, format: PageFormat, written: &mut HashSet<String>) {
        let mut points = family.points.iter().filter(|point| self.suffixes.contains(&point.suffix)).peekable();
        if points.peek().is_none() {
            return;
        }
        let name = format!("{}{}", family.name, self.name);
        if !written.insert(name.clone()) {
            return;
        }
        if let Some(help) = family.help {
            page.push_str("# HELP ");
            page.push_str(&name);
            page.push(' ');
            write_help(page, help, format);
            page.push('\n');
        }
        let _ = writeln!(page, "# TYPE {name} {}", self.word);
        let unit = family.unit.filter(|unit| name.strip_suffix(unit).is_some_and(|stem| stem.ends_with('_')));
        if let (Some(unit), PageFormat::OpenMetrics) = (unit, format) {
            let _ = writeln!(page, "# UNIT {name} {unit}");
        }
        for point in points {
            point.write(page, family, format);
        }
    }
}

impl Point<'_> {
    fn write(&self, page: &mut String, family: &Family<'_>, format: PageFormat) {
        let sample = &self.sample;
        page.push_str(&family.name);
        page.push_str(self.suffix);
        if !sample.labels.is_empty() {
            write_labels(page, sample.labels, format);
        }
        page.push(' ');
        write_value(page, sample.value, sample.value_text);
        if let Some(at) = sample.timestamp {
            write_timestamp(page, at, self.format, format);
        }
        let may_have_exemplar = matches!(self.suffix, "_total" | "_bucket");
        if let Some(exemplar) = sample.exemplar.filter(|_| may_have_exemplar && format == PageFormat::OpenMetrics) {
            page.push_str(" # ");
            write_labels(page, exemplar.labels, format);
            page.push(' ');
            write_value(page, exemplar.value_text.parse().unwrap_or(f64::NAN), exemplar.value_text);
            if let Some(at) = exemplar.timestamp {
                let _ = write!(page, " {at}");
            }
        }
        page.push('\n');
    }
}

fn write_labels(page: &mut String, labels: Labels<'_>, format: PageFormat) {
    page.push('{');
    for (at, (name, value)) in labels.iter().enumerate() {
        if 0 < at {
            page.push(',');
        }
        page.push_str(&name);
        page.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => page.push_str("\\\\"),
                '"' => page.push_str("\\\""),
                '\n' => page.push_str("\\n"),
                c => page.push(c),
            }
        }
        // OpenMetrics spells bounds as floats: a bucket `1` of text 0.0.4 is the bucket `1.0`.
        if format == PageFormat::OpenMetrics
            && matches!(name.as_ref(), "le" | "quantile")
            && value.bytes().all(|b| b.is_ascii_digit())
            && !value.is_empty()
        {
            page.push_str(".0");
        }
        page.push('"');
    }
    page.push('}');
}

/// The number as it was written, but the three that are no numbers in the one spelling that all read. A number
/// too large for a float (`1e999`) is infinite: as written, a Prometheus refuses the whole page for it.
fn write_value(page: &mut String, value: f64, text: &str) {
    match value {
        value if value.is_nan() => page.push_str("NaN"),
        f64::INFINITY => page.push_str("+Inf"),
        f64::NEG_INFINITY => page.push_str("-Inf"),
        _ => page.push_str(text),
    }
}

fn write_timestamp(page: &mut String, at: &str, from: Format, to: PageFormat) {
    let number = at.parse::<f64>().unwrap_or_default();
    let _ = match (from, to) {
        (Format::OpenMetrics, PageFormat::OpenMetrics) | (Format::Text, PageFormat::Text) => write!(page, " {at}"),
        (Format::Text, PageFormat::OpenMetrics) => write!(page, " {}", number / 1e3),
        (Format::OpenMetrics, PageFormat::Text) => write!(page, " {:.0}", number * 1e3),
    };
}

/// Both formats escape `\` and the line break; OpenMetrics escapes quotes too.
fn write_help(page: &mut String, help: &str, format: PageFormat) {
    let quote = if format == PageFormat::OpenMetrics { "\\\"" } else { "\"" };
    let mut chars = help.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => page.push_str(quote),
            '\\' => match chars.next() {
                Some('"') => page.push_str(quote),
                Some('n') => page.push_str("\\n"),
                Some('\\') | None => page.push_str("\\\\"),
                Some(other) => page.extend(['\\', '\\', other]),
            },
            c => page.push(c),
        }
    }
}
