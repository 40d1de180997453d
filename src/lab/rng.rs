//! Chance, from a seed: the same numbers on every machine.
//!
//! Integers only, and the four operations of IEEE floats where a logarithm is needed: the platform's own
//! `ln` may differ in its last bit, and one bit is another world.

use std::time::Duration;

/// Spreads consecutive seeds evenly over a range: the `dimension`-th of a few additive sequences.
///
/// Sixty runs drawn purely by chance leave gaps; what decides a whole run (how busy a node is, where in its
/// period a probe falls) is taken from here, so that sixty runs cover it.
pub fn stratum(seed: u64, dimension: usize, bound: u64) -> u64 {
    // The golden ratio and the roots of 2 and 3, less their whole parts: badly approximable, each and together.
    const STEPS: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b];
    let fraction = seed.wrapping_add(1).wrapping_mul(STEPS[dimension % STEPS.len()]);
    let product = u128::from(fraction) * u128::from(bound);
    u64::try_from(product >> 64).unwrap_or(u64::MAX)
}

/// xoshiro256** seeded through splitmix64.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    pub fn new(seed: u64) -> Self {
        let mut mix = seed;
        Self { state: [0; 4].map(|_: u64| splitmix(&mut mix)) }
    }

    /// A stream of its own for the part of the world that `label` names: one part drawing more numbers does
    /// not change another part's.
    pub fn fork(&self, label: u64) -> Self {
        let mut mix = self.state[0] ^ label.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self::new(splitmix(&mut mix))
    }

    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// Uniform in `0..bound`; 0 for a bound of 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: a bias below 2^-40 for every bound used here.
        let product = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(u64::MAX)
    }

    /// True `permille` times in a thousand.
    #[inline]
    pub fn chance(&mut self, permille: u32) -> bool {
        self.below(1000) < u64::from(permille)
    }

    /// Uniform in `low..high`, to the nanosecond.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_nanos();
        low + Duration::from_nanos(self.below(u64::try_from(span).unwrap_or(u64::MAX)))
    }

    /// `base` stretched by a factor uniform in `[1, 1.5)`: the jitter of the kubelet's pod workers.
    pub fn stretch_half(&mut self, base: Duration) -> Duration {
        self.between(base, base + base / 2)
    }

    /// Exponential with this mean, at most 20 times it.
    #[inline]
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        let factor = -ln_of_unit(self.next_u64());
        // Nanoseconds of a scenario are far below 2^53.
        Duration::from_nanos((as_f64(mean) * factor.min(20.0)) as u64)
    }
}

fn as_f64(span: Duration) -> f64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX) as f64
}

/// The natural logarithm of `(bits + 1) / 2^64`, by arithmetic alone.
fn ln_of_unit(bits: u64) -> f64 {
    let bits = bits | 1;
    let exponent = 63 - bits.leading_zeros();
    // The leading bits as a mantissa in [1, 2).
    let mantissa = (bits << bits.leading_zeros()) >> 11;
    let m = mantissa as f64 / (1_u64 << 52) as f64;
    // ln m = 2 atanh((m - 1) / (m + 1)), a third at most: nine terms are good to a ten-billionth.
    let x = (m - 1.0) / (m + 1.0);
    let square = x * x;
    let [c0, c1, c2, c3, c4, c5, c6, c7, c8] = ATANH;
    // Horner's scheme, written out: it is most of what a chance costs, and the order of its roundings is for ever.
    let high = (((c8 * square + c7) * square + c6) * square + c5) * square + c4;
    let sum = (((high * square + c3) * square + c2) * square + c1) * square + c0;
    2.0 * x * sum + (f64::from(exponent) - 64.0) * std::f64::consts::LN_2
}

/// Of the series of atanh: 1 / (2k + 1).
const ATANH: [f64; 9] =
    [1.0, 1.0 / 3.0, 1.0 / 5.0, 1.0 / 7.0, 1.0 / 9.0, 1.0 / 11.0, 1.0 / 13.0, 1.0 / 15.0, 1.0 / 17.0];

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_seed_gives_equal_numbers_for_ever() {
        let mut rng = Rng::new(1);
        let first: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(first, [12_966_619_160_104_079_557, 9_600_361_134_598_540_522, 10_590_380_919_521_690_900]);
    }

    #[test]
    fn a_fork_does_not_depend_on_what_was_drawn_from_its_siblings() {
        let rng = Rng::new(9);
        let mut a = rng.fork(1);
        let mut b = rng.fork(2);
        assert_ne!(a.next_u64(), b.next_u64());
        assert_eq!(rng.fork(1).next_u64(), Rng::new(9).fork(1).next_u64());
    }

    #[test]
    fn uniform_numbers_fill_their_range_and_stay_in_it() {
        let mut rng = Rng::new(3);
        let (low, high) = (Duration::from_secs(10), Duration::from_secs(15));
        let drawn: Vec<Duration> = (0..10_000).map(|_| rng.between(low, high)).collect();
        assert!(drawn.iter().all(|d| (low..high).contains(d)));
        assert!(drawn.iter().any(|d| *d < Duration::from_millis(10_010)));
        assert!(drawn.iter().any(|d| *d > Duration::from_millis(14_990)));
        assert_eq!(rng.between(high, low), high, "an empty range is its lower end");
    }

    #[test]
    fn sixty_consecutive_seeds_leave_no_wide_gap() {
        for dimension in 0..3 {
            for first in [0, 1, 100, 1 << 40] {
                let mut drawn: Vec<u64> = (first..first + 60).map(|seed| stratum(seed, dimension, 1000)).collect();
                drawn.sort_unstable();
                let gap = drawn.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
                assert!(gap <= 60 && drawn[0] <= 60 && drawn[59] >= 940, "{dimension} {first}: {drawn:?}");
            }
        }
    }

    #[test]
    fn the_logarithm_is_right_to_a_billionth() {
        for bits in [1, 2, 3, 1 << 20, u64::MAX / 3, u64::MAX / 2, u64::MAX] {
            let expected = ((bits | 1) as f64 / (u64::MAX as f64)).ln();
            assert!((ln_of_unit(bits) - expected).abs() < 1e-9, "{bits}");
        }
    }

    #[test]
    fn exponential_waits_have_the_mean_they_should() {
        let mut rng = Rng::new(5);
        let total: Duration = (0..100_000).map(|_| rng.exponential(Duration::from_millis(10))).sum();
        let mean = total / 100_000;
        assert!((9_900..10_100).contains(&mean.as_micros()), "{mean:?}");
    }
}
