//! Who asks for what, as far as a proxy can tell without looking into bodies and without memory of its own.
//!
//! Owns the sorting of requests into shares by caller and by input, and one worker's counts of how they ended.
//! A caller is an address, and what the hops before say in `X-Forwarded-For`; an input is a caller, a path and a
//! length. Two that fall into one share count as one. It refuses to conclude: the engine weighs the sums.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::Request;
use http::header::HeaderName;
use http_body::Body;

use super::durations::add;
use crate::engine::Origins;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The shares of one request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Origin {
    caller: u8,
    input: u8,
}

/// One worker's counts.
pub(super) struct Tallied([[AtomicU64; 2]; 2 * Origins::CALLERS]);

impl Origin {
    /// Of a request of which nothing else is known.
    pub(super) fn of_caller(ip: IpAddr) -> Self {
        Self::new(ip, None, b"", None)
    }

    /// Read before the request is changed for its way.
    pub(super) fn of<B: Body>(ip: IpAddr, request: &Request<B>) -> Self {
        let forwarded = request.headers().get(X_FORWARDED_FOR).map(|value| value.as_bytes());
        Self::new(ip, forwarded, request.uri().path().as_bytes(), request.body().size_hint().exact())
    }

    /// `length`: of the body, where it is known beforehand.
    pub(super) fn new(ip: IpAddr, forwarded: Option<&[u8]>, path: &[u8], length: Option<u64>) -> Self {
        let mut hasher = DefaultHasher::new();
        (ip, forwarded).hash(&mut hasher);
        let caller = share(hasher.finish());
        (path, length).hash(&mut hasher);
        Self { caller, input: share(hasher.finish()) }
    }
}

/// Below [`Origins::CALLERS`], which fits.
const fn share(hash: u64) -> u8 {
    (hash % Origins::CALLERS as u64) as u8
}

impl Default for Tallied {
    fn default() -> Self {
        Self([const { [const { AtomicU64::new(0) }; 2] }; 2 * Origins::CALLERS])
    }
}

impl Tallied {
    /// A request ended, well or by the model server's failure. Called by the worker alone.
    pub(super) fn note(&self, from: Origin, well: bool) {
        add(&self.0[usize::from(from.caller)][usize::from(well)], 1);
        add(&self.0[Origins::CALLERS + usize::from(from.input)][usize::from(well)], 1);
    }

    /// Adds this worker's part.
    pub(super) fn add_to(&self, all: &mut Origins) {
        for (share, [bad, good]) in all.shares.iter_mut().zip(&self.0) {
            share.0 += good.load(Relaxed);
            share.1 += bad.load(Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn the_same_request_comes_from_the_same_share_and_others_spread() {
        let one = Origin::new(IP, None, b"/predict", Some(10));
        assert_eq!(one, Origin::new(IP, None, b"/predict", Some(10)));
        let lengths: HashSet<u8> =
            (0..200).map(|length| Origin::new(IP, None, b"/predict", Some(length)).input).collect();
        assert!(lengths.len() > 25, "{lengths:?}");
        let callers = (0..200_u32).map(|caller| Origin::new(IP, Some(&caller.to_be_bytes()), b"/predict", Some(10)));
        let callers: HashSet<u8> = callers.map(|origin| origin.caller).collect();
        assert!(callers.len() > 25, "{callers:?}");
        assert!((0..200).all(|length| Origin::new(IP, None, b"/", Some(length)).caller == one.caller));
    }

    #[test]
    fn ends_are_counted_by_caller_and_by_input() {
        let (tallied, from) = (Tallied::default(), Origin { caller: 3, input: 31 });
        tallied.note(from, true);
        tallied.note(from, false);
        tallied.note(from, false);
        let mut all = Origins::default();
        tallied.add_to(&mut all);
        tallied.add_to(&mut all);
        assert_eq!((all.shares[3], all.shares[Origins::CALLERS + 31]), ((2, 4), (2, 4)));
        assert_eq!(all.shares.iter().filter(|share| **share != (0, 0)).count(), 2);
    }
}
