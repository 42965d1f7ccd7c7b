//! Pseudorandom numbers that a seed repeats: they spread waits, and make tests repeatable. Secrets come from
//! [`Environment::random`](crate::Environment::random).

/// The generator `SplitMix64`. Each of its numbers reveals all others.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The difference between two states. It is odd, so that all states come before one comes again.
    pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// Two generators with the same seed return the same numbers.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        Self::mix(self.0)
    }

    /// The number of a state: spreads consecutive states over all 64 bits.
    #[must_use]
    pub const fn mix(state: u64) -> u64 {
        let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the reference implementation.
    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut random = SplitMix64::new(1_234_567);
        let numbers = [(); 3].map(|()| random.bits());
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }
}
