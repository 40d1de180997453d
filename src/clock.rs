//! The only place that reads time.
//!
//! Everything that decides works on [`Time`], nanoseconds since the process began, handed in from
//! outside. Wall-clock time appears only where a person reads it, and is derived here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::engine::Time;

/// Ties engine time to the monotonic and the wall clock. One per process, made at its start, copied freely.
///
/// The monotonic clock is the runtime's, which is the machine's own but in a test that pauses time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_wall: SystemTime,
}

impl Clock {
    /// Starts engine time.
    #[expect(clippy::disallowed_methods, reason = "this module is where time is read")]
    pub fn start() -> Self {
        Self { origin: Instant::now(), origin_wall: SystemTime::now() }
    }

    /// Engine time that began so long ago: for tests of what happens late.
    #[cfg(test)]
    pub(crate) fn start_after(elapsed: Duration) -> Self {
        let now = Self::start();
        Self { origin: now.origin - elapsed, origin_wall: now.origin_wall - elapsed }
    }

    /// Engine time now. Monotonic.
    pub fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// The runtime's instant for an engine time, to sleep until it.
    pub fn instant(&self, at: Time) -> Instant {
        self.origin + Duration::from_nanos(at.as_nanos())
    }

    /// The wall-clock time of an engine time. A wall clock that was stepped since the start is not followed.
    pub fn wall(&self, at: Time) -> SystemTime {
        self.origin_wall + Duration::from_nanos(at.as_nanos())
    }

    /// The wall clock itself, steps included: to compare with what others stamped (a file's modification time).
    #[expect(clippy::disallowed_methods, reason = "this module is where time is read")]
    pub fn wall_now(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Seconds since the Unix epoch, as Prometheus timestamps want them.
    pub fn unix_seconds(&self, at: Time) -> f64 {
        self.wall(at).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }

    /// RFC 3339 in UTC with milliseconds, as in `2026-11-21T12:01:07.250Z`.
    pub fn rfc3339(&self, at: Time) -> String {
        humantime::format_rfc3339_millis(self.wall(at)).to_string()
    }

    /// The time of day in UTC to the second, as in `12:01:07Z`: for lines that a person reads.
    pub fn time_of_day(&self, at: Time) -> String {
        let full = humantime::format_rfc3339_seconds(self.wall(at)).to_string();
        full.split_once('T').map_or_else(|| full.clone(), |(_, time)| time.to_owned())
    }
}
