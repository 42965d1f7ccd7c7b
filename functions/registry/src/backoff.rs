//! The backoff between retries, the same in every store.
//!
//! This module only computes times. The caller has the clock and the randomness.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::random::SplitMix64;

/// A wait whose bound doubles with each failure. The wait itself is random, so that callers that failed together do not
/// retry together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// The bound is `first` after the first failure, and never more than `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The bound after `failures` earlier failures. `failures` is 0 for the first failure.
    fn bound(self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.min(16)).min(self.longest)
    }

    /// A random time below the bound after `failures` earlier failures, from 64 `random` bits.
    #[must_use]
    pub fn delay(self, failures: u32, random: u64) -> Duration {
        part(self.bound(failures), random)
    }

    /// Like the random wait, and at least half of the bound: for a lock that is polled, since very short waits would
    /// only keep it busy.
    #[must_use]
    pub fn delay_of_half_or_more(self, failures: u32, random: u64) -> Duration {
        let half = self.bound(failures) / 2;
        half + part(half, random)
    }
}

/// A random part of a duration, in microseconds.
fn part(of: Duration, random: u64) -> Duration {
    let micros = u64::try_from(of.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(random % micros.max(1))
}

/// Random bits that callers on several threads share. They are good enough to spread waits, and for nothing else: one of
/// them reveals all others.
#[derive(Debug)]
pub struct Jitter(AtomicU64);

impl Jitter {
    /// Two generators with the same seed return the same bits.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next 64 bits.
    pub fn bits(&self) -> u64 {
        let before = self.0.fetch_add(SplitMix64::STEP, Ordering::Relaxed);
        SplitMix64::mix(before.wrapping_add(SplitMix64::STEP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_and_are_spread() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let jitter = Jitter::new(1);
        for (failures, limit) in [(0, 100), (1, 200), (2, 400), (6, 5000), (40, 5000)] {
            let whole = |_| backoff.delay(failures, jitter.bits()).as_millis();
            let delays: Vec<_> = (0..200).map(whole).collect();
            let longest = delays.iter().max().copied().unwrap_or(0);
            let shortest = delays.iter().min().copied().unwrap_or(0);
            assert!(longest <= limit && longest > limit * 3 / 4, "{failures}: {longest}");
            assert!(shortest < limit / 4, "{failures}: {shortest}");
            let late = |_| backoff.delay_of_half_or_more(failures, jitter.bits()).as_millis();
            assert!((0..200).map(late).all(|delay| (limit / 2..=limit).contains(&delay)));
        }
    }

    #[test]
    fn no_wait_is_longer_than_its_bound_whatever_the_bits_are() {
        for longest in [Duration::ZERO, Duration::from_micros(1), Duration::MAX] {
            let backoff = Backoff::new(Duration::MAX, longest);
            assert!(backoff.delay(u32::MAX, u64::MAX) <= longest);
            assert!(backoff.delay_of_half_or_more(u32::MAX, u64::MAX) <= longest);
        }
    }
}
