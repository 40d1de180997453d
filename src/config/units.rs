//! The small languages of the file: durations, sizes, shares, windows.
//!
//! Each parser takes what was typed and refuses anything ambiguous: `5M` is no duration, for it may mean minutes
//! or months. The texts that say what was expected live here too, so that every message uses the same words.

use std::time::Duration;

use super::plan::{Amount, Bytes, DiskAmount, StatusRange};

pub(crate) const DURATION: &str = r#"a duration such as "500ms", "5s" or "2m""#;
pub(crate) const SIZE: &str = r#"a size such as "512MiB" or "2GB""#;
pub(crate) const AMOUNT: &str = r#"a size or a share such as "512MiB", "90%" or "90% of 1GiB""#;
pub(crate) const DISK_AMOUNT: &str = r#"a size or a share such as "2GiB" or "10%""#;
pub(crate) const SHARE: &str = r#"a share such as "10%" or 0.1"#;
pub(crate) const WINDOW: &str = r#"failures of the last results such as "3/5", at most 64 results"#;
pub(crate) const BUDGET: &str = r#"a count and a time such as "3 per 1h""#;
pub(crate) const STATUS: &str = r#"a status or a range such as 200, "200-299" or "200-299,304""#;

/// A century: nobody waits longer, and sums of such times cannot overflow.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// `500ms`, `1h30m`, `0.5s`, `0s`. Units: `ns`, `us`, `ms`, `s`, `m`, `h`, `d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        rest = rest[letters..].trim_start();
    }
    // Floating point leaves dust below a nanosecond's size: 0.3 s is 300 ms.
    (total <= DURATION_MAX).then_some(total)
}

/// A duration as people type it.
pub(crate) fn show(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

/// `512MiB`, `2GB`, `1024`.
pub(crate) fn size(text: &str) -> Option<Bytes> {
    let text = text.trim();
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    text.parse::<bytesize::ByteSize>().ok().map(|size| Bytes(size.as_u64()))
}

/// `10%`, between 0 and `max`.
pub(crate) fn percent(text: &str, max: f64) -> Option<f64> {
    let number: f64 = text.trim().strip_suffix('%')?.trim_end().parse().ok()?;
    (number.is_finite() && (0.0..=max).contains(&number)).then_some(number)
}

pub(crate) fn amount(text: &str) -> Option<Amount> {
    if let Some((share, whole)) = text.split_once(" of ") {
        return Some(Amount::PercentOf(percent(share, 100.0)?, size(whole)?));
    }
    percent(text, 100.0).map(Amount::PercentOfLimit).or_else(|| size(text).map(Amount::Bytes))
}

pub(crate) fn disk_amount(text: &str) -> Option<DiskAmount> {
    percent(text, 100.0).map(DiskAmount::Percent).or_else(|| size(text).map(DiskAmount::Bytes))
}

/// A share in thousandths: `10%`, or `0.1` as a text.
pub(crate) fn permille(text: &str) -> Option<u32> {
    let share = percent(text, 100.0).or_else(|| {
        let number: f64 = text.trim().parse().ok()?;
        (0.0..=1.0).contains(&number).then_some(number * 100.0)
    })?;
    // At most 1000, so it fits.
    Some((share * 10.0).round() as u32)
}

/// `3/5`: 3 failures of the last 5 results.
pub(crate) fn window(text: &str) -> Option<(u32, u32)> {
    let (fail, of) = text.split_once('/')?;
    let (fail, of) = (fail.trim().parse().ok()?, of.trim().parse().ok()?);
    (1 <= fail && fail <= of && of <= crate::limits::CHECK_WINDOW_MAX).then_some((fail, of))
}

/// `3 per 1h`.
pub(crate) fn budget(text: &str) -> Option<(u32, Duration)> {
    let (count, window) = text.split_once(" per ")?;
    let window = duration(window)?;
    (!window.is_zero()).then_some((count.trim().parse().ok()?, window))
}

/// `200`, `200-299`, `2xx`, and lists of these with commas.
pub(crate) fn statuses(text: &str) -> Option<Vec<StatusRange>> {
    text.split(',').map(|part| status(part.trim())).collect()
}

fn status(text: &str) -> Option<StatusRange> {
    let (from, to) = match (text.split_once('-'), text.strip_suffix("xx")) {
        (Some((from, to)), _) => (from.trim().parse().ok()?, to.trim().parse().ok()?),
        (None, Some(class)) => {
            let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
            (class * 100, class * 100 + 99)
        }
        (None, None) => {
            let one = text.parse().ok()?;
            (one, one)
        }
    };
    (100 <= from && from <= to && to <= 599).then_some(StatusRange { from, to })
}

/// `[a-z0-9]([a-z0-9_-]*)`, at most 63 characters: safe in a path, a label and a metric.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
}

/// Splits `host:port`, `[v6]:port` included. The host is not empty; the port is a number above 0.
pub(crate) fn host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    let bare = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())?,
        None => host,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!bare.is_empty() && (host.starts_with('[') || bare.chars().all(plain))).then_some((bare, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_type_them() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("0.3s"), Some(Duration::from_millis(300)));
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration(" 2 m "), Some(Duration::from_secs(120)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
    }

    #[test]
    fn ambiguous_or_endless_durations_are_refused() {
        for text in ["", "5", "5x", "5M", "-1s", "s", "1e9s", "5 s 3", "99999999999999d", "1..2s", "NaNs"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_sizes_or_shares() {
        assert_eq!(amount("90% of 1GiB"), Some(Amount::PercentOf(90.0, Bytes(1 << 30))));
        assert_eq!(amount("90%"), Some(Amount::PercentOfLimit(90.0)));
        assert_eq!(amount("512MiB"), Some(Amount::Bytes(Bytes(512 << 20))));
        assert_eq!(amount("190%"), None);
        assert_eq!(amount("lots"), None);
        assert_eq!(amount("-1MiB"), None);
    }

    #[test]
    fn windows_hold_at_least_one_failure_and_fit_a_word() {
        assert_eq!(window("3/5"), Some((3, 5)));
        assert_eq!(window("64/64"), Some((64, 64)));
        for text in ["0/5", "6/5", "1/65", "3", "a/b"] {
            assert_eq!(window(text), None, "{text}");
        }
    }

    #[test]
    fn statuses_are_codes_ranges_classes_and_lists() {
        assert_eq!(statuses("200-299,304").map(|s| s.len()), Some(2));
        assert_eq!(statuses("2xx"), Some(vec![StatusRange { from: 200, to: 299 }]));
        for text in ["", "99", "600", "300-200", "6xx", "ok"] {
            assert_eq!(statuses(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        assert_eq!(host_port("redis:6379"), Some(("redis", 6379)));
        assert_eq!(host_port("[::1]:80"), Some(("::1", 80)));
        for text in ["redis", ":80", "redis:0", "redis:70000", "a b:1", "u:p@h:1", "::1:80"] {
            assert_eq!(host_port(text), None, "{text}");
        }
    }
}
