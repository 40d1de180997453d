//! The frame around every attempt: the deadline, the panic, the reason's size.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::{Collector, Scene};
use crate::engine::{Fault, Outcome};
use crate::limits::REASON_BYTES_MAX;

/// Runs one attempt to its end, its deadline or its panic, and makes the outcome fit to be shown.
pub(super) async fn run(collector: &Collector, scene: Scene) -> Outcome {
    let ended = tokio::time::timeout(scene.timeout, caught(collector.attempt(&scene))).await;
    let mut outcome = match ended {
        Ok(Ok(outcome)) => outcome,
        // The panic's own message went to the log by the panic hook; it may hold anything, so it stays there.
        Ok(Err(_)) => {
            Outcome::unknown("the attempt broke on a defect of probegate's own: see its log", scene.elapsed())
        }
        Err(_) => timed_out(collector, &scene),
    };
    outcome.sign = outcome.sign.or_else(|| scene.sign());
    outcome.reason = presentable(&outcome.reason);
    outcome
}

fn timed_out(collector: &Collector, scene: &Scene) -> Outcome {
    let timeout = shown(scene.timeout);
    let reason = match scene.last_waited_for() {
        Some(what) => format!("timeout after {timeout}, waiting for {what}"),
        None => format!("timeout after {timeout}"),
    };
    if collector.silence_is_unknown() {
        Outcome::unknown(reason, scene.timeout)
    } else {
        Outcome::fail(Fault::Timeout, reason, scene.timeout)
    }
}

/// To the millisecond: what the engine's own work took of the configured time is nobody's concern.
fn shown(timeout: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from((timeout.as_nanos() + 500_000) / 1_000_000).unwrap_or(u64::MAX);
    humantime::format_duration(if millis == 0 { timeout } else { Duration::from_millis(millis) })
}

/// A future whose panic is a value. It is dropped with its panic and never polled again.
async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// One line of at most [`REASON_BYTES_MAX`] bytes: no control characters, nothing that could fake a second line.
pub(super) fn presentable(reason: &str) -> String {
    const ELLIPSIS: &str = "…";
    let clean: String = reason.chars().map(|c| if is_unprintable(c) { ' ' } else { c }).collect();
    if clean.len() <= REASON_BYTES_MAX {
        return clean;
    }
    let mut end = REASON_BYTES_MAX - ELLIPSIS.len();
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ELLIPSIS}", &clean[..end])
}

/// Control characters, line separators, and the marks that turn the direction of text.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_clean_line_of_bounded_size() {
        assert_eq!(presentable("a\r\nb\x1b[31m\u{202e}c"), "a  b [31m c");
        assert_eq!(presentable(&"x".repeat(REASON_BYTES_MAX)).len(), REASON_BYTES_MAX);
        for long in ["x".repeat(REASON_BYTES_MAX + 1), "ü".repeat(REASON_BYTES_MAX), "🦀".repeat(100)] {
            let cut = presentable(&long);
            assert!(cut.len() <= REASON_BYTES_MAX && cut.len() > REASON_BYTES_MAX - 8 && cut.ends_with('…'), "{cut}");
        }
    }

    #[test]
    fn a_timeout_is_shown_as_it_was_configured() {
        assert_eq!(shown(Duration::from_nanos(299_909_695)).to_string(), "300ms");
        assert_eq!(shown(Duration::from_nanos(999_999_000)).to_string(), "1s");
        assert_eq!(shown(Duration::from_micros(200)).to_string(), "200us");
    }

    #[tokio::test]
    async fn a_panic_becomes_a_value() {
        assert!(caught(async { panic!("a defect, as the test asked for") }).await.is_err());
        assert_eq!(caught(std::future::ready(1)).await.unwrap(), 1);
    }
}
