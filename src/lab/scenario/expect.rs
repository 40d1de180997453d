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
    /// Times that a server crashed.
    Crashes,
    /// Streams that broke off.
    Cut,
    /// Seconds to the latest notice of a server's fault; a run's length if one went unnoticed.
    DetectionSeconds,
    /// Pods that a drain has evicted.
    Evicted,
    /// Requests that failed or were answered wrong.
    Failed,
    /// Pod-seconds out of rotation.
    OutOfRotationSeconds,
    /// Most pods out of rotation at one time, once all were in.
    PodsLost,
    /// Most pods that an autoscaler wanted at one time.
    PodsMost,
    Restarts,
    /// Rollouts that made no progress for as long as they may.
    RolloutsFailed,
    /// Seconds of the longest rollout that came to its end.
    RolloutSeconds,
    /// Times that an autoscaler wanted another number of pods.
    Scalings,
    SidecarRestarts,
    /// Of servers that had nothing a restart would mend.
    UnwantedRestarts,
    /// Of servers that stood still.
    WantedRestarts,
    /// Per cent of requests that ended well in the worst minute.
    WorstMinute,
    /// Requests with garbage in their answer.
    Wrong,
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
    pub const ALL: [Self; 18] = [
        Self::Availability,
        Self::Crashes,
        Self::Cut,
        Self::DetectionSeconds,
        Self::Evicted,
        Self::Failed,
        Self::OutOfRotationSeconds,
        Self::PodsLost,
        Self::PodsMost,
        Self::Restarts,
        Self::RolloutsFailed,
        Self::RolloutSeconds,
        Self::Scalings,
        Self::SidecarRestarts,
        Self::UnwantedRestarts,
        Self::WantedRestarts,
        Self::WorstMinute,
        Self::Wrong,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::Crashes => "crashes",
            Self::Cut => "cut",
            Self::DetectionSeconds => "detection_seconds",
            Self::Evicted => "evicted",
            Self::Failed => "failed",
            Self::OutOfRotationSeconds => "out_of_rotation_seconds",
            Self::PodsLost => "pods_lost",
            Self::PodsMost => "pods_most",
            Self::Restarts => "restarts",
            Self::RolloutsFailed => "rollouts_failed",
            Self::RolloutSeconds => "rollout_seconds",
            Self::Scalings => "scalings",
            Self::SidecarRestarts => "sidecar_restarts",
            Self::UnwantedRestarts => "unwanted_restarts",
            Self::WantedRestarts => "wanted_restarts",
            Self::WorstMinute => "worst_minute",
            Self::Wrong => "wrong",
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
