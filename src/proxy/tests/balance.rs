//! The algorithms side by side before single-threaded model servers, in virtual time.
//!
//! Answers: which one serves a model server best whose requests take unequal time? `cargo test --lib balance --
//! --nocapture` prints the table of `docs/upstreams.md`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::super::upstreams::{Admit, Picked, Upstreams, Weighted};
use crate::config::Algorithm;
use crate::engine::BackendId;

const SERVERS: usize = 4;
const REQUESTS: u64 = 40_000;
/// Microseconds: nine of ten requests are short, the tenth takes ten times as long.
const SHORT: u64 = 20_000;
const LONG: u64 = 200_000;

/// A small seeded generator (SplitMix64).
struct Dice(u64);

impl Dice {
    /// From 0 to below 1.
    fn throw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Response times in milliseconds, and answers per second.
#[derive(Debug)]
struct Figures {
    p50: f64,
    p99: f64,
    rate: f64,
}

/// Open-loop arrivals at `load` of the servers' capacity, with `skew` times the service time at one of them.
fn simulate(algorithm: Algorithm, load: f64, skew: f64) -> Figures {
    let list: Vec<Weighted> = (0..SERVERS)
        .map(|server| Weighted {
            address: SocketAddr::from(([127, 0, 0, 1], 8000 + server as u16)),
            weight: 1,
            timeouts: true,
        })
        .collect();
    let upstreams = Upstreams::new(algorithm, &list, 2).unwrap();
    (0..SERVERS).for_each(|server| assert!(upstreams.admit(BackendId(server as u32), Admit::Anything)));
    let mean = 0.9 * SHORT as f64 + 0.1 * LONG as f64;
    let capacity = (SERVERS - 1) as f64 / mean + 1.0 / (mean * skew);
    let mut dice = Dice(7);
    let mut free_at = [0_u64; SERVERS];
    let mut busy: BTreeMap<(u64, u64), Picked> = BTreeMap::new();
    let mut took = Vec::new();
    let (mut now, mut last) = (0.0, 0);
    for request in 0..REQUESTS {
        now += -(1.0 - dice.throw()).ln() / (capacity * load);
        let at = now as u64;
        while busy.first_key_value().is_some_and(|((end, _), _)| *end <= at) {
            busy.pop_first();
        }
        let picked = upstreams.pick((request % 2) as usize, b"/predict", None).unwrap();
        let server = picked.id.index();
        let service = if dice.throw() < 0.9 { SHORT } else { LONG };
        let service = if server == 0 { (service as f64 * skew) as u64 } else { service };
        free_at[server] = free_at[server].max(at) + service;
        took.push(free_at[server] - at);
        last = last.max(free_at[server]);
        busy.insert((free_at[server], request), picked);
    }
    took.sort_unstable_by_key(|micros| Reverse(*micros));
    let at = |share: f64| took[(took.len() as f64 * (1.0 - share)) as usize] as f64 / 1e3;
    Figures { p50: at(0.5), p99: at(0.99), rate: REQUESTS as f64 / (last as f64 / 1e6) }
}

#[test]
fn the_least_loaded_serves_unequal_requests_best_and_so_it_is_the_default() {
    println!("| load | slow server | algorithm | p50 ms | p99 ms | requests/s |\n|---|---|---|---|---|---|");
    for (load, skew) in [(0.5, 1.0), (0.8, 1.0), (0.8, 2.0)] {
        let [least, turns, random] =
            [Algorithm::LeastLoaded, Algorithm::RoundRobin, Algorithm::Random].map(|algorithm| {
                let figures = simulate(algorithm, load, skew);
                let Figures { p50, p99, rate } = figures;
                println!("| {load} | {skew} x | {algorithm:?} | {p50:.0} | {p99:.0} | {rate:.1} |");
                figures
            });
        for other in [turns, random] {
            assert!(least.p50 <= other.p50 && least.p99 < other.p99, "{load} {skew}: {least:?} and {other:?}");
            assert!(other.rate <= least.rate * 1.01, "{load} {skew}: {least:?} and {other:?}");
        }
    }
    assert_eq!(Algorithm::default(), Algorithm::LeastLoaded);
}
