//! Sizes as a person reads them.

/// `1536` as `1.5 KiB`, `1073741824` as `1 GiB`: one decimal where it says something.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // 1023.95 would round to 1024.0: it is one of the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", decimal(value), UNITS[unit])
}

/// `94.84` as `94.8 %`, `90` as `90 %`.
pub(super) fn percent(value: f64) -> String {
    format!("{} %", decimal(value))
}

fn decimal(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{percent, size};

    #[test]
    fn sizes_have_one_decimal_where_it_says_something() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1 KiB");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(1 << 30), "1 GiB");
        assert_eq!(size((1 << 30) - 1), "1 GiB");
        assert_eq!(size(u64::MAX), "16384 PiB");
        assert_eq!(percent(94.84), "94.8 %");
        assert_eq!(percent(90.0), "90 %");
    }
}
