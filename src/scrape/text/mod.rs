//! Prometheus text 0.0.4 and OpenMetrics 1.0, read without copying.
//!
//! Owns the reading of a page: line by line ([`samples`]) or as families ([`Exposition`]). Tolerant per line:
//! a bad line is reported with its number and skipped, never the page. It refuses to judge the numbers, to
//! de-duplicate samples and to convert between the formats.

mod cursor;
mod line;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

pub use line::{Exemplar, Labels, Line, LineError, Sample, parse_line};

/// Problems kept word by word; the rest is counted.
const PROBLEMS_KEPT: usize = 16;

/// The two text formats. They differ in units of timestamps, names of counters and the words of `# TYPE`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    OpenMetrics,
    /// Prometheus text 0.0.4, what every server speaks.
    #[default]
    Text,
}

/// What a family's samples mean.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum MetricType {
    Counter,
    Gauge,
    GaugeHistogram,
    Histogram,
    Info,
    StateSet,
    Summary,
    /// `unknown` in OpenMetrics, `untyped` in text 0.0.4, or no `# TYPE` at all.
    #[default]
    Unknown,
}

/// A page as families, in the order of their first mention.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition<'a> {
    pub families: Vec<Family<'a>>,
    /// The first lines that could not be read.
    pub problems: Vec<Problem>,
    /// How many there were in all.
    pub problem_count: usize,
    /// An OpenMetrics page ended with `# EOF`.
    pub eof: bool,
}

/// One family: what is said about it, and its samples from wherever on the page.
#[derive(Clone, Debug, PartialEq)]
pub struct Family<'a> {
    /// As `# TYPE` has it: in OpenMetrics without a counter's `_total`.
    pub name: Cow<'a, str>,
    pub kind: MetricType,
    /// Still escaped, as it stood on the page.
    pub help: Option<&'a str>,
    pub unit: Option<&'a str>,
    pub samples: Vec<Sample<'a>>,
}

/// A line that was skipped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    pub error: LineError,
}

impl Format {
    /// By the `Content-Type` of the answer; whatever is not OpenMetrics is read as text.
    pub fn of_content_type(content_type: &str) -> Self {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if media.eq_ignore_ascii_case("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }
}

impl MetricType {
    /// The word of `# TYPE`, in either format.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "gaugehistogram" => Self::GaugeHistogram,
            "histogram" => Self::Histogram,
            "info" => Self::Info,
            "stateset" => Self::StateSet,
            "summary" => Self::Summary,
            "unknown" | "untyped" => Self::Unknown,
            _ => return None,
        })
    }

    /// Its word in OpenMetrics. Text 0.0.4 knows only counter, gauge, histogram, summary and `untyped`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Histogram => "histogram",
            Self::Info => "info",
            Self::StateSet => "stateset",
            Self::Summary => "summary",
            Self::Unknown => "unknown",
        }
    }

    /// What a sample's name may have behind the family's, besides nothing.
    pub const fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total", "_created"],
            Self::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
            Self::Histogram => &["_bucket", "_sum", "_count", "_created"],
            Self::Info => &["_info"],
            Self::Summary => &["_sum", "_count", "_created"],
            Self::Gauge | Self::StateSet | Self::Unknown => &[],
        }
    }
}

/// Every suffix that some type has.
const SUFFIXES: [&str; 8] = ["_total", "_bucket", "_sum", "_count", "_created", "_info", "_gsum", "_gcount"];

/// The lines of a page with their numbers, from 1; it ends at `# EOF` only if the caller does.
pub fn lines(page: &[u8]) -> impl Iterator<Item = (usize, Result<Line<'_>, LineError>)> {
    page.split(|&b| b == b'\n').enumerate().map(|(index, line)| (index + 1, parse_line(line)))
}

/// The samples of a page in its order, bad lines left out: for those who look for a number.
pub fn samples(page: &[u8]) -> impl Iterator<Item = Sample<'_>> {
    lines(page).filter_map(|(_, line)| match line {
        Ok(Line::Sample(sample)) => Some(sample),
        _ => None,
    })
}

impl<'a> Exposition<'a> {
    /// Reads a page. In OpenMetrics nothing counts behind `# EOF`.
    pub fn parse(page: &'a [u8], format: Format) -> Self {
        let mut reader = Reader::default();
        for (number, line) in lines(page) {
            match line {
                Ok(Line::Eof) if format == Format::OpenMetrics => {
                    reader.page.eof = true;
                    break;
                }
                Ok(line) => reader.take(number, line),
                Err(error) => reader.problem(number, error),
            }
        }
        reader.page
    }

    /// A family by its name.
    pub fn family(&self, name: &str) -> Option<&Family<'a>> {
        self.families.iter().find(|family| family.name == name)
    }
}

/// Gathers lines into families.
#[derive(Default)]
struct Reader<'a> {
    page: Exposition<'a>,
    by_name: HashMap<Cow<'a, str>, usize>,
    /// The family of the line before: nearly always that of this line too.
    current: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, number: usize, line: Line<'a>) {
        match line {
            Line::Comment | Line::Eof => {}
            Line::Help { family, text } => {
                self.family(family).help.get_or_insert(text);
            }
            Line::Unit { family, unit } => {
                self.family(family).unit.get_or_insert(unit);
            }
            Line::Type { family, kind } => {
                let family = self.family(family);
                if family.kind == MetricType::Unknown {
                    family.kind = kind;
                } else if family.kind != kind {
                    self.problem(number, LineError::Type);
                }
            }
            Line::Sample(sample) => {
                let index = self.home(sample.name.clone());
                self.current = index;
                self.page.families[index].samples.push(sample);
            }
        }
    }

    fn problem(&mut self, line: usize, error: LineError) {
        self.page.problem_count += 1;
        if self.page.problems.len() < PROBLEMS_KEPT {
            self.page.problems.push(Problem { line, error });
        }
    }

    /// The family of that name, made if it is new.
    fn family(&mut self, name: Cow<'a, str>) -> &mut Family<'a> {
        let index = match self.by_name.get(&name) {
            Some(&index) => index,
            None => self.add(name),
        };
        self.current = index;
        &mut self.page.families[index]
    }

    fn add(&mut self, name: Cow<'a, str>) -> usize {
        let index = self.page.families.len();
        self.by_name.insert(name.clone(), index);
        self.page.families.push(Family {
            name,
            kind: MetricType::Unknown,
            help: None,
            unit: None,
            samples: Vec::new(),
        });
        index
    }

    /// Where a sample belongs: the family of the line before, one of its very name, one that its suffix
    /// fits, or a new one.
    fn home(&mut self, name: Cow<'a, str>) -> usize {
        let sample = name.as_ref();
        if self.page.families.get(self.current).is_some_and(|family| family.takes(sample)) {
            return self.current;
        }
        if let Some(&index) = self.by_name.get(sample) {
            return index;
        }
        let stems = SUFFIXES.iter().filter_map(|suffix| sample.strip_suffix(suffix));
        let known = stems.filter_map(|stem| self.by_name.get(stem).copied());
        let mut fitting = known.filter(|&index| self.page.families[index].takes(sample));
        match fitting.next() {
            Some(index) => index,
            None => self.add(name),
        }
    }
}

impl Family<'_> {
    fn takes(&self, sample: &str) -> bool {
        let Some(suffix) = sample.strip_prefix(self.name.as_ref()) else { return false };
        suffix.is_empty() || self.kind.suffixes().contains(&suffix)
    }
}

/// The family as a page has it: HELP, TYPE and UNIT, then the samples, a line each.
impl fmt::Display for Family<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = String::new();
        line::write_name(&mut name, &self.name)?;
        if let Some(help) = self.help {
            writeln!(f, "# HELP {name} {help}")?;
        }
        if self.kind != MetricType::Unknown {
            writeln!(f, "# TYPE {name} {}", self.kind.as_str())?;
        }
        if let Some(unit) = self.unit {
            writeln!(f, "# UNIT {name} {unit}")?;
        }
        self.samples.iter().try_for_each(|sample| writeln!(f, "{sample}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.error)
    }
}

#[cfg(test)]
mod tests;
