//! Times as text: RFC 3339, in UTC.

use registry::store::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;
/// The days of 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;
/// The days from the first of March of the year 0 to the first of January 1970.
const BEFORE_EPOCH: u64 = 719_468;
/// The last time that has a text.
const LAST_MS: u64 = 253_402_300_799_999;

/// A time, such as `2026-11-30T17:00:00Z`. A fraction of a second may be given, to the millisecond.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Time(pub(super) Timestamp);

impl Time {
    /// Reads a time.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, rest) = text.split_at_checked(19)?;
        let millis = match rest.strip_suffix('Z')? {
            "" => 0,
            fraction => millis(fraction.strip_prefix('.')?)?,
        };
        let bytes = whole.as_bytes();
        let is_set = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
            .iter()
            .all(|(at, mark)| bytes.get(*at) == Some(mark));
        let number = |from: usize, to: usize| digits(whole.get(from..to)?);
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !is_set || year < 1970 || !(1..=12).contains(&month) || day < 1 || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = days_of(year, month, day);
        // The day exists if it is that of its number.
        (date_of(days) == (year, month, day)).then(|| {
            Self(Timestamp(
                days * MS_PER_DAY + ((hour * 60 + minute) * 60 + second) * 1000 + millis,
            ))
        })
    }

    /// Its text, in whole seconds.
    pub(super) fn text(self) -> String {
        let at = self.0.0.min(LAST_MS);
        let second = at % MS_PER_DAY / 1000;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!("{}T{hour:02}:{minute:02}:{second:02}Z", day_text(at / MS_PER_DAY))
    }
}

/// A day, by its number since the Unix epoch: `2026-11-30`.
pub(super) fn day_text(day: u64) -> String {
    let (year, month, day) = date_of(day.min(LAST_MS / MS_PER_DAY));
    format!("{year:04}-{month:02}-{day:02}")
}

fn digits(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

fn millis(fraction: &str) -> Option<u64> {
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    digits(fraction)?;
    digits(format!("{fraction:0<3}").get(..3)?)
}

/// Year, month and day, by the number of the day since the Unix epoch. Years are counted from March, so that the day that some
/// of them have more is their last.
fn date_of(day: u64) -> (u64, u64, u64) {
    let from_march = day + BEFORE_EPOCH;
    let in_era = from_march % ERA_DAYS;
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march_month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march_month + 2) / 5 + 1;
    let month = (from_march_month + 2) % 12 + 1;
    let year = from_march / ERA_DAYS * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// The number of a day since the Unix epoch.
fn days_of(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let year_of_era = year % 400;
    let in_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let in_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + in_year;
    (year / 400 * ERA_DAYS + in_era).saturating_sub(BEFORE_EPOCH)
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a time"))
    }
}

/// When a key ends: a time, or `never`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expiry {
    Never,
    At(Time),
}

impl Expiry {
    const NEVER: &'static str = "never";

    pub(super) fn timestamp(self) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::At(Time(at)) => Some(at),
        }
    }
}

impl From<Option<Timestamp>> for Expiry {
    fn from(at: Option<Timestamp>) -> Self {
        at.map_or(Self::Never, |at| Self::At(Time(at)))
    }
}

impl Serialize for Expiry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Never => serializer.serialize_str(Self::NEVER),
            Self::At(at) => at.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == Self::NEVER {
            return Ok(Self::Never);
        }
        let at = Time::parse(&text).ok_or_else(|| de::Error::custom("neither a time nor `never`"))?;
        Ok(Self::At(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_back() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_799_000, "2000-02-29T23:59:59Z"),
            (951_868_800_000, "2000-03-01T00:00:00Z"),
            (1_796_000_000_000, "2026-11-30T00:53:20Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
            (253_402_300_799_000, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Time(Timestamp(millis)).text(), text);
            assert_eq!(Time::parse(text), Some(Time(Timestamp(millis))), "{text}");
        }
        assert_eq!(Time(Timestamp(u64::MAX)).text(), "9999-12-31T23:59:59Z");
        let with_millis = Time(Timestamp(1_796_000_000_120));
        for text in ["2026-11-30T00:53:20.12Z", "2026-11-30T00:53:20.120999Z"] {
            assert_eq!(Time::parse(text), Some(with_millis), "{text}");
        }
        assert_eq!(day_text(20_787), "2026-11-30");
    }

    /// Every day of 400 years has a text of its own that is read back.
    #[test]
    fn every_day_is_read_back() {
        for day in 0..ERA_DAYS {
            let text = format!("{}T00:00:00Z", day_text(day));
            assert_eq!(Time::parse(&text), Some(Time(Timestamp(day * MS_PER_DAY))), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-11-30",
            "2026-11-30T00:53:20",
            "2026-11-30 00:53:20Z",
            "2026-11-30T00:53:20z",
            "2026-11-30T00:53:20+01:00",
            "2026-11-30T00:53:20.Z",
            "2026-11-30T00:53:20.1234567890Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "1969-12-31T23:59:59Z",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:0éZ",
        ] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }
}
