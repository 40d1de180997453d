//! Time as the engine knows it: nanoseconds since an origin that the driver chose.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A moment. Only differences mean anything; the driver's clock ties it to the world.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(u64);

impl Time {
    pub const ZERO: Self = Self(0);

    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }

    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    pub fn as_secs_f64(self) -> f64 {
        Duration::from_nanos(self.0).as_secs_f64()
    }

    /// How long after `earlier` this is; nothing if it is before.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The first of those that come at all.
#[inline]
pub(super) fn earliest<const N: usize>(times: [Option<Time>; N]) -> Option<Time> {
    times.iter().fold(None, |first, &at| match (first, at) {
        (Some(first), Some(at)) => Some(at.min(first)),
        (first, at) => first.or(at),
    })
}

impl Add<Duration> for Time {
    type Output = Self;

    /// Saturates: a deadline beyond the end of time is never.
    #[inline]
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Time {
    #[inline]
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub for Time {
    type Output = Duration;

    #[inline]
    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", self.as_secs_f64())
    }
}

/// A span as a configuration file would say it: `5m`, `1h 30m`, `1.5s`.
pub(super) fn plain(span: Duration) -> String {
    let whole = span.as_secs();
    if span.subsec_nanos() > 0 || whole < 60 {
        return format!("{span:?}");
    }
    let parts = [(whole / 3600, "h"), (whole / 60 % 60, "m"), (whole % 60, "s")];
    let shown: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_as_a_file_would_say_it() {
        let said = |millis| plain(Duration::from_millis(millis));
        assert_eq!([said(1500), said(59_000), said(300_000)], ["1.5s", "59s", "5m"]);
        assert_eq!([said(3_600_000), said(5_430_000), said(0)], ["1h", "1h 30m 30s", "0ns"]);
    }
}
