//! Whether bytes arrive fast enough to keep their memory.

use super::Grant;

/// Measures how fast bytes arrive for which memory was granted, so that slow ones release it while others wait.
///
/// It has no clock. The caller passes the time, in milliseconds since any fixed point. While the caller waits for its
/// client, it calls [`ArrivalRate::look`] at the times that [`ArrivalRate::next_look`] returns.
#[derive(Clone, Copy, Debug)]
pub struct ArrivalRate {
    since: u64,
    arrived: u64,
    next: u64,
}

impl ArrivalRate {
    /// The minimum rate in bytes per second. While others wait for memory, slower requests must release theirs.
    pub const LEAST_RATE: u64 = 16 << 10;

    /// The minimum duration over which a rate is measured, in milliseconds.
    pub const MEASURED_MS: u64 = 5_000;

    /// How often a slow request checks whether it must release its memory, in milliseconds.
    pub const ASK_EVERY_MS: u64 = 500;

    /// A measurement for memory that is granted at `now`, after `arrived` bytes have arrived.
    #[must_use]
    pub fn new(now: u64, arrived: u64) -> Self {
        Self {
            since: now,
            arrived,
            next: now + Self::MEASURED_MS,
        }
    }

    /// The time of the next check.
    #[must_use]
    pub fn next_look(&self) -> u64 {
        self.next
    }

    /// Checks the rate, after `arrived` bytes in total. `true`: the caller must drop `grant`.
    #[must_use]
    pub fn look(&mut self, now: u64, arrived: u64, grant: &mut Grant) -> bool {
        if now < self.next {
            return false;
        }
        let elapsed = now.saturating_sub(self.since).max(1);
        let found = arrived.saturating_sub(self.arrived).saturating_mul(1_000) / elapsed;
        if found >= Self::LEAST_RATE {
            grant.catches_up();
            *self = Self::new(now, arrived);
            return false;
        }
        self.next = now + Self::ASK_EVERY_MS;
        grant.falls_behind(found)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::budget::{Budget, ClientKey};

    const CLIENT: ClientKey = ClientKey::INTERNAL;

    #[test]
    fn the_least_rate_is_enough_and_one_byte_less_is_not() {
        let enough = ArrivalRate::LEAST_RATE * ArrivalRate::MEASURED_MS / 1_000;
        for (arrived, gives_way) in [(enough, false), (enough - 1, true), (0, true)] {
            let budget = Budget::new(1, 1);
            let mut grant = budget.try_take(CLIENT, 1).expect("it is free");
            let mut rate = ArrivalRate::new(100, 7);
            let mut waiting = Box::pin(budget.take(CLIENT, 1));
            assert!(waiting.as_mut().now_or_never().is_none());
            assert!(!rate.look(rate.next_look() - 1, 7, &mut grant), "it is too early");
            assert_eq!(
                rate.look(rate.next_look(), 7 + arrived, &mut grant),
                gives_way,
                "{arrived}"
            );
        }
    }

    /// A request that was slow while no other waited is checked again, and measured from the time at which it fell
    /// behind.
    #[test]
    fn a_slow_arrival_is_checked_until_it_catches_up() {
        let budget = Budget::new(1, 1);
        let mut grant = budget.try_take(CLIENT, 1).expect("it is free");
        let mut rate = ArrivalRate::new(0, 0);
        assert!(!rate.look(5_000, 0, &mut grant), "no other request waits");
        assert_eq!(rate.next_look(), 5_500);
        let mut waiting = Box::pin(budget.take(CLIENT, 1));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(rate.look(5_500, 0, &mut grant));
        assert!(
            !rate.look(10_000, 10 * ArrivalRate::LEAST_RATE, &mut grant),
            "it has caught up"
        );
        assert_eq!(rate.next_look(), 15_000);
        assert!(rate.look(15_000, 10 * ArrivalRate::LEAST_RATE, &mut grant));
    }
}
