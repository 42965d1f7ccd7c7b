//! Compares the clock of this process with the clock of a service that it uses.
//!
//! Each instance decides by its own clock what is young, due or expired. An instance whose clock is off by hours would
//! take a new reference for an orphan of a crash, and delete the reference's target. Services send the time in every
//! response, so the comparison costs nothing.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::store::{Reason, StoreError};

/// The maximum difference of the two clocks, in milliseconds. The protocols tolerate an hour; a clock that NTP adjusts
/// is off by less than a second.
pub const TOLERANCE_MS: u64 = 60_000;

/// No response has contained the time yet.
const UNKNOWN: i64 = i64::MIN;

/// The difference between this process's clock and the clock of one service. All callers of the service share it.
#[derive(Debug)]
pub struct ServiceClock {
    /// This process's clock minus the service's clock, in milliseconds.
    ahead: AtomicI64,
}

impl Default for ServiceClock {
    fn default() -> Self {
        Self {
            ahead: AtomicI64::new(UNKNOWN),
        }
    }
}

/// The change that an observation has caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockChange {
    /// The clock was right, or unknown, and is off now.
    WentOff,
    /// It was off, and is right now.
    CameBack,
}

impl ServiceClock {
    /// Records that the service reported the second `service`, between the times `sent` and `received` of this
    /// process's clock. All are in milliseconds since the Unix epoch. The duration of the request never counts as a
    /// difference.
    pub fn observe(&self, service: u64, sent: u64, received: u64) -> Option<ClockChange> {
        let signed = |timestamp: u64| i64::try_from(timestamp).unwrap_or(i64::MAX);
        let (service, first, last) = (signed(service), signed(sent.min(received)), signed(sent.max(received)));
        // The header has whole seconds, so the service's clock showed a time up to the next second.
        let at_least = first.saturating_sub(service).saturating_sub(1_000);
        let at_most = last.saturating_sub(service);
        let ahead = if at_least > 0 { at_least } else { at_most.min(0) };
        let before = self.ahead.swap(ahead, Ordering::Relaxed);
        match (is_off(before), is_off(ahead)) {
            (false, true) => Some(ClockChange::WentOff),
            (true, false) => Some(ClockChange::CameBack),
            _ => None,
        }
    }

    /// How many milliseconds this process's clock is ahead of the service's clock; negative when it is behind, 0 within
    /// the precision of the header. `None`: unknown.
    #[must_use]
    pub fn ahead(&self) -> Option<i64> {
        let ahead = self.ahead.load(Ordering::Relaxed);
        (ahead != UNKNOWN).then_some(ahead)
    }

    /// An error when the clock is off by more than [`TOLERANCE_MS`]. Then nothing is stored or deleted.
    pub fn check(&self) -> Result<(), StoreError> {
        let ahead = self.ahead.load(Ordering::Relaxed);
        if !is_off(ahead) {
            return Ok(());
        }
        let seconds = ahead.unsigned_abs() / 1_000;
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        Err(StoreError::because(
            Reason::ClockOff,
            format!("the clock of this host is {seconds} s {side} that of the service: set it right (NTP)"),
        ))
    }
}

fn is_off(ahead: i64) -> bool {
    ahead != UNKNOWN && ahead.unsigned_abs() > TOLERANCE_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_900_000_000_000;

    fn ahead(service: u64, sent: u64, received: u64) -> Option<i64> {
        let clock = ServiceClock::default();
        clock.observe(service, sent, received);
        clock.ahead()
    }

    #[test]
    fn the_duration_of_a_request_is_not_a_difference() {
        assert_eq!(ServiceClock::default().ahead(), None);
        // The same second, the end of that second, and a response that took an hour.
        assert_eq!(ahead(NOON, NOON, NOON + 20), Some(0));
        assert_eq!(ahead(NOON, NOON + 999, NOON + 1_000), Some(0));
        assert_eq!(ahead(NOON + 1_800_000, NOON, NOON + 3_600_000), Some(0));
        assert_eq!(ahead(NOON, NOON + 5_000, NOON + 5_020), Some(4_000));
        assert_eq!(ahead(NOON, NOON - 5_020, NOON - 5_000), Some(-5_000));
        // A clock that was set back during the request.
        assert_eq!(ahead(NOON, NOON + 10, NOON - 10), Some(0));
        assert!(ahead(0, u64::MAX, u64::MAX).is_some() && ahead(u64::MAX, 0, 0).is_some());
    }

    #[test]
    fn s33_a_minute_is_the_bound() {
        for (sent, off) in [
            (NOON + 61_000, false),
            (NOON + 61_001, true),
            (NOON - 60_000, false),
            (NOON - 60_001, true),
        ] {
            let clock = ServiceClock::default();
            let change = clock.observe(NOON, sent, sent);
            assert_eq!(change, off.then_some(ClockChange::WentOff), "{sent}");
            let refused = clock.check().err().map(|error| error.reason());
            assert_eq!(refused, off.then_some(Reason::ClockOff), "{sent}");
        }
    }

    #[test]
    fn a_corrected_clock_is_accepted() {
        let clock = ServiceClock::default();
        assert_eq!(
            clock.observe(NOON, NOON - 7_200_000, NOON - 7_200_000),
            Some(ClockChange::WentOff)
        );
        assert_eq!(clock.observe(NOON, NOON - 7_200_000, NOON - 7_199_000), None);
        let text = clock.check().map_err(|error| error.to_string()).expect_err("off");
        assert!(text.contains("behind"), "{text}");
        assert_eq!(clock.observe(NOON, NOON, NOON), Some(ClockChange::CameBack));
        assert!(clock.check().is_ok());
    }
}
