//! Timestamps as text (RFC 3339), in UTC.

use std::cell::RefCell;

use registry::store::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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
    /// The last second that was written, and its text: many lines of the log have the same, and a date library takes longer
    /// for one than for all the rest of its line.
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
    let written = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|at| at.format(&Rfc3339).ok());
    // Later than RFC 3339 can say: the last second that it can.
    text.push_str(
        written
            .as_deref()
            .map_or("9999-12-31T23:59:59", |text| text.trim_end_matches('Z')),
    );
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
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, "9999-12-31T23:59:59Z"),
            (u64::MAX / 1000 - 1, "9999-12-31T23:59:59Z"),
        ] {
            let at = Timestamp(timestamp * 1000 + 999);
            assert_eq!(seconds(at), text);
            let mut precise = String::new();
            milliseconds(&mut precise, at);
            assert_eq!(precise, text.replace('Z', ".999Z"));
        }
    }
}
