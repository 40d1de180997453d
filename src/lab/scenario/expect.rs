//! `expect` lines: what a scenario holds its designs to.

use std::fmt;

/// `DESIGN: METRIC < VALUE`.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// As written, for messages.
    pub text: String,
    pub design: String,
    pub metric: Metric,
    pub comparison: Comparison,
    pub value: f64,
}

/// A number that the score of a design holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Metric {
    /// Per cent of requests that ended well.
    Availability,
    /// Requests that failed or were answered wrong.
    Failed,
    /// Most pods out of rotation at one time, once all were in.
    PodsLost,
    Restarts,
    /// Of servers that had nothing a restart would mend.
    UnwantedRestarts,
    /// Per cent of requests that ended well in the worst minute.
    WorstMinute,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Comparison {
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

impl Metric {
    pub const ALL: [Self; 6] =
        [Self::Availability, Self::Failed, Self::PodsLost, Self::Restarts, Self::UnwantedRestarts, Self::WorstMinute];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::Failed => "failed",
            Self::PodsLost => "pods_lost",
            Self::Restarts => "restarts",
            Self::UnwantedRestarts => "unwanted_restarts",
            Self::WorstMinute => "worst_minute",
        }
    }
}

impl Comparison {
    const ALL: [(&'static str, Self); 5] = [
        ("<=", Self::LessEqual),
        (">=", Self::GreaterEqual),
        ("<", Self::Less),
        (">", Self::Greater),
        ("=", Self::Equal),
    ];

    pub fn holds(self, seen: f64, value: f64) -> bool {
        match self {
            Self::Equal => (seen - value).abs() < 1e-9,
            Self::Greater => seen > value,
            Self::GreaterEqual => seen >= value,
            Self::Less => seen < value,
            Self::LessEqual => seen <= value,
        }
    }
}

impl Expectation {
    /// # Errors
    /// Says what of the line is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (design, rest) = text.split_once(':').ok_or("expected \"DESIGN: METRIC < VALUE\"")?;
        let found = Comparison::ALL.iter().find_map(|(sign, comparison)| {
            rest.split_once(sign).map(|(metric, value)| (metric.trim(), *comparison, value.trim()))
        });
        let (metric, comparison, value) = found.ok_or("expected one of <, <=, =, >=, > after the metric")?;
        let known = Metric::ALL.into_iter().find(|known| known.as_str() == metric);
        let metric = known.ok_or_else(|| {
            let names: Vec<&str> = Metric::ALL.iter().map(|metric| metric.as_str()).collect();
            format!("{metric:?} is no metric: {}", names.join(", "))
        })?;
        let value = value.trim_end_matches('%').trim().parse().map_err(|_| format!("{value:?} is no number"))?;
        Ok(Self { text: text.to_owned(), design: design.trim().to_owned(), metric, comparison, value })
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
