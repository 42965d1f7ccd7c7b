//! Durations and sizes, as an operator writes them in flags and environment variables.
//!
//! They have no library: `humantime` takes `5M` for five months and refuses a plain number of seconds, and `bytesize` takes
//! `64K` for 64,000 bytes, where these values always meant 65,536.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration, from 1 millisecond to 365 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(
    /// The duration.
    pub Duration,
);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let millis = match unit {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err("expected a duration such as 500ms, 30s, 5m or 6h".into()),
        };
        // The upper bound keeps sums with the present time representable.
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis)) {
            Some(millis @ 1..=31_536_000_000) => Ok(Self(Duration::from_millis(millis))),
            _ => Err("expected a duration from 1ms to 365d".into()),
        }
    }
}

/// Parses a duration of at most a day. Unreferenced objects are kept an hour longer than that: a client may repeat the last
/// request of an upload as long as its token is valid, and must find the object.
pub fn within_a_day(text: &str) -> Result<Span, String> {
    match text.parse()? {
        Span(duration) if duration > Duration::from_hours(24) => Err("expected a duration of at most 24h".into()),
        span => Ok(span),
    }
}

/// A number of bytes, at least one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Length(
    /// The number of bytes.
    pub u64,
);

impl fmt::Debug for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let factor = match unit.trim_start() {
            "" | "B" => 1,
            "K" | "KiB" => 1 << 10,
            "M" | "MiB" => 1 << 20,
            "G" | "GiB" => 1 << 30,
            "T" | "TiB" => 1_u64 << 40,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err("expected a size such as 64MiB, 10GiB or 1000000".into()),
        };
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
            Some(bytes @ 1..) => Ok(Self(bytes)),
            _ => Err("expected a size of at least one byte".into()),
        }
    }
}

/// The lifetime of a presigned URL. It is shorter, with a margin, than the time for which an unreferenced object is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresignLifetime(
    /// The lifetime.
    pub Duration,
);

impl Default for PresignLifetime {
    fn default() -> Self {
        Self(Duration::from_mins(15))
    }
}

impl FromStr for PresignLifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Span(lifetime) = text.parse()?;
        if !(Duration::from_mins(1)..=Duration::from_hours(12)).contains(&lifetime) {
            return Err("expected a duration from 1m to 12h".into());
        }
        Ok(Self(lifetime))
    }
}

/// For how long a client may use an access token: 1 minute to 1 hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLifetime(
    /// The lifetime.
    pub Duration,
);

impl Default for TokenLifetime {
    fn default() -> Self {
        Self(Duration::from_mins(10))
    }
}

impl FromStr for TokenLifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Span(lifetime) = text.parse()?;
        if !(Duration::from_mins(1)..=Duration::from_hours(1)).contains(&lifetime) {
            return Err("expected a duration from 1m to 1h".into());
        }
        Ok(Self(lifetime))
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let millis = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("30"), Ok(30_000));
        assert_eq!(millis("30s"), Ok(30_000));
        assert_eq!(millis("5m"), Ok(300_000));
        assert_eq!(millis("6h"), Ok(21_600_000));
        assert_eq!(millis("365d"), Ok(31_536_000_000));
        for wrong in ["", "s", "0", "-1s", "1.5s", "1w", "5M", "366d", "99999999999999999999s"] {
            assert!(millis(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_day_is_the_bound_of_an_upload() {
        assert_eq!(within_a_day("24h"), Ok(Span(Duration::from_hours(24))));
        assert!(within_a_day("86400001ms").is_err());
    }

    #[test]
    fn sizes() {
        let bytes = |text: &str| text.parse::<Length>().map(|length| length.0);
        assert_eq!(bytes("1000"), Ok(1000));
        assert_eq!(bytes("64K"), Ok(64 << 10));
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("64 MiB"), Ok(64 << 20));
        assert_eq!(bytes("10GB"), Ok(10_000_000_000));
        for wrong in ["", "0", "MiB", "1.5G", "-1", "1X", "99999999TiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lifetimes_are_bounded() {
        assert_eq!("12h".parse(), Ok(PresignLifetime(Duration::from_hours(12))));
        for wrong in ["43201s", "59s", "0", "forever"] {
            assert!(wrong.parse::<PresignLifetime>().is_err(), "{wrong}");
        }
        assert_eq!("1m".parse(), Ok(TokenLifetime(Duration::from_mins(1))));
        assert_eq!("60m".parse(), Ok(TokenLifetime(Duration::from_hours(1))));
        for wrong in ["3601s", "59s", "0", "forever"] {
            assert!(wrong.parse::<TokenLifetime>().is_err(), "{wrong}");
        }
    }
}
