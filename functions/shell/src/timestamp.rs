//! Timestamps as text (RFC 3339), in UTC.

use std::cell::RefCell;
use std::fmt::Write as _;

use registry::store::Timestamp;

/// A timestamp as RFC 3339 writes it, in UTC and whole seconds.
#[must_use]
pub fn seconds(at: Timestamp) -> String {
    let mut text = String::with_capacity(20);
    date_and_time(&mut text, at);
    text.push('Z');
    text
}

/// Appends a timestamp with milliseconds to `text`.
pub fn milliseconds(text: &mut String, at: Timestamp) {
    date_and_time(text, at);
    let millis = at.0 % 1000;
    text.push('.');
    for place in [100, 10, 1] {
        text.push(char::from(b'0' + u8::try_from(millis / place % 10).unwrap_or(0)));
    }
    text.push('Z');
}

thread_local! {
    /// The last second that was written, and its text: many lines of the log have the same.
    static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

fn date_and_time(text: &mut String, at: Timestamp) {
    let seconds = at.0 / 1000;
    LAST.with_borrow_mut(|(last, written)| {
        if *last != seconds {
            *last = seconds;
            written.clear();
            write_seconds(written, seconds);
        }
        text.push_str(written);
    });
}

fn write_seconds(text: &mut String, seconds: u64) {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days are counted in years that begin in March, so that a leap day is the last of its year and its 400 years.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leap_years_and_ends_of_days() {
        for (timestamp, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            let at = Timestamp(timestamp * 1000 + 999);
            assert_eq!(seconds(at), text);
            let mut precise = String::new();
            milliseconds(&mut precise, at);
            assert_eq!(precise, text.replace('Z', ".999Z"));
        }
    }
}
