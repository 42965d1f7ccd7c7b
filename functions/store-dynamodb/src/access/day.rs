//! Days of the calendar, in UTC: the audit trail has separate collections for each.

use std::fmt;

use registry::store::Timestamp;

/// The milliseconds of a day.
pub(super) const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A day: days since the Unix epoch. Its text is `yyyy-mm-dd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(u64);

impl Day {
    pub(super) fn of(at: Timestamp) -> Self {
        Self(at.0 / DAY_MS)
    }

    /// Its first millisecond.
    pub(super) fn start(self) -> Timestamp {
        Timestamp(self.0.saturating_mul(DAY_MS))
    }

    pub(super) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The Gregorian calendar repeats itself every 400 years, which have 146,097 days. Years begin with March here, so that
        // a leap day is the last day of its year. 719,468 days lie between 1 March of the year 0 and the epoch.
        let days = self.0 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (seconds, text) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
            (1_735_689_600, "2025-01-01"),
            (1_796_000_000, "2026-11-30"),
            (4_107_542_400, "2100-03-01"),
            (253_402_300_799, "9999-12-31"),
        ] {
            assert_eq!(Day::of(Timestamp(seconds * 1000)).to_string(), text, "{seconds}");
        }
    }

    #[test]
    fn a_day_ends_where_the_next_one_starts() {
        let day = Day::of(Timestamp(1_796_000_000_123));
        assert_eq!(Day::of(day.start()), day);
        assert_eq!(Day::of(Timestamp(day.next().start().0 - 1)), day);
        assert_eq!(Day::of(day.next().start()), day.next());
    }
}
