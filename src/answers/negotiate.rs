//! Which of the things we can say a caller wants to hear: `Accept` with its q-values.
//!
//! It refuses to be strict: a header that cannot be read, or that names nothing we have, gets the default.

use http::HeaderMap;
use http::header::ACCEPT;

/// The index in `offers` of what the caller prefers; `None` if it names none of them, or prefers something
/// else that it names. Wildcards do not count: they ask for the default. Equal wishes: the earlier offer wins.
pub(super) fn preferred(headers: &HeaderMap, offers: &[&str], default: &str) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    let mut plain = 0.0_f32;
    for range in headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',')) {
        let mut parts = range.split(';');
        let media = parts.next().unwrap_or_default().trim();
        let q = quality(parts);
        if media.eq_ignore_ascii_case(default) {
            plain = plain.max(q);
        }
        let Some(offer) = offers.iter().position(|offer| media.eq_ignore_ascii_case(offer)) else { continue };
        if 0.0 < q && best.is_none_or(|(at, had)| had < q || (q == had && offer < at)) {
            best = Some((offer, q));
        }
    }
    best.filter(|&(_, q)| plain <= q).map(|(offer, _)| offer)
}

fn quality<'a>(parameters: impl Iterator<Item = &'a str>) -> f32 {
    parameters
        .filter_map(|parameter| parameter.trim().strip_prefix("q=").or_else(|| parameter.trim().strip_prefix("Q=")))
        .find_map(|q| q.trim().parse::<f32>().ok())
        .filter(|q| (0.0..=1.0).contains(q))
        .unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(accept: &str) -> Option<usize> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        preferred(&headers, &["application/health+json", "text/x"], "application/json")
    }

    #[test]
    fn a_named_type_is_heard_and_a_wildcard_asks_for_the_default() {
        assert_eq!(wish("application/health+json"), Some(0));
        assert_eq!(wish("text/html, Application/Health+JSON;q=0.5"), Some(0));
        assert_eq!(wish("*/*"), None);
        assert_eq!(wish("application/*"), None);
        assert_eq!(wish(""), None);
    }

    #[test]
    fn quality_decides_and_zero_refuses() {
        assert_eq!(wish("application/health+json;q=0.2, text/x;q=0.7"), Some(1));
        assert_eq!(wish("application/json, application/health+json;q=0.9"), None);
        assert_eq!(wish("application/json;q=0.9, application/health+json"), Some(0));
        assert_eq!(wish("application/health+json;q=0"), None);
        assert_eq!(wish("application/health+json;q=banana"), Some(0));
        assert_eq!(wish("application/health+json;q=7"), Some(0));
    }
}
