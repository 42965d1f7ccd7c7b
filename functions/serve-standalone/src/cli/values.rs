//! Values of flags: addresses, durations, sizes.
//!
//! Durations and sizes have no library: `humantime` takes `5M` for five months and refuses a plain number of seconds, and
//! `bytesize` takes `64K` for 64,000 bytes, where these flags always meant 65,536.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use store_embedded::MinFree;

/// The variable of the server's address. `roadstead health` reads it too.
pub(super) const LISTEN_VARIABLE: &str = "ROADSTEAD_LISTEN";

/// The variable of the server's certificate. If it is set, `roadstead health` knows that the server has TLS.
pub(super) const TLS_CERT_VARIABLE: &str = "ROADSTEAD_TLS_CERT";

/// The default address.
pub(super) const DEFAULT_LISTEN: &str = "127.0.0.1:5000";

/// Parses an address to listen on. The only host name is `localhost`; an empty host is every address. Other names would
/// have to be resolved, and could resolve to an address that is not meant to be public.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let address = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match address {
        Some(("localhost", port)) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        Some(("", port)) => Ok((Ipv4Addr::UNSPECIFIED, port).into()),
        _ => Err("expected ADDRESS:PORT, such as 127.0.0.1:5000, [::1]:5000 or 0.0.0.0:5000".into()),
    }
}

/// Parses a host without a port. A port would be wrong behind a port forwarding, where it differs from the registry's own.
pub(super) fn host(text: &str) -> Result<registry::Host, String> {
    let host: registry::Host = text
        .parse()
        .map_err(|error: registry::hosts::HostError| error.to_string())?;
    if host.port().is_some() {
        return Err("expected a host without a port".into());
    }
    Ok(host)
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricsAddress {
    /// Metrics are not served.
    Off,
    /// At the address of the registry.
    Here,
    /// At a separate address.
    At(SocketAddr),
}

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "here" => Ok(Self::Here),
            _ => listen(text)
                .map(Self::At)
                .map_err(|_| "expected off, here, or ADDRESS:PORT such as 127.0.0.1:9090".into()),
        }
    }
}

/// A duration, from 1 millisecond to 365 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

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
pub(crate) fn within_a_day(text: &str) -> Result<Span, String> {
    match text.parse()? {
        Span(duration) if duration > Duration::from_hours(24) => Err("expected a duration of at most 24h".into()),
        span => Ok(span),
    }
}

/// A number of bytes, at least one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Length(pub(crate) u64);

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

/// Parses the minimum free space of a disk: a size, a part of the whole, or an empty text for the default.
pub(super) fn min_free(text: &str) -> Result<MinFree, String> {
    if text.is_empty() {
        return Ok(MinFree::DEFAULT);
    }
    if text == "0" {
        return Ok(MinFree::Bytes(0));
    }
    let expected = || "expected a size such as 10GiB, a part from 0% to 90%, or 0".to_owned();
    match text.strip_suffix('%') {
        Some(percent) => match percent.parse() {
            Ok(0) => Ok(MinFree::Bytes(0)),
            Ok(percent @ 1..=90) => Ok(MinFree::Percent(percent)),
            _ => Err(expected()),
        },
        None => text
            .parse::<Length>()
            .map(|length| MinFree::Bytes(length.0))
            .map_err(|_| expected()),
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
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(listen("localhost:80").unwrap(), "127.0.0.1:80".parse().unwrap());
        assert_eq!(listen(":80").unwrap(), "0.0.0.0:80".parse().unwrap());
        assert_eq!(listen("[::1]:0").unwrap(), "[::1]:0".parse().unwrap());
        for wrong in ["", "80", "127.0.0.1", "example.org:80", "127.0.0.1:65536", "::1:x"] {
            assert!(listen(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn places_of_metrics() {
        assert_eq!("off".parse(), Ok(MetricsAddress::Off));
        assert_eq!("here".parse(), Ok(MetricsAddress::Here));
        let address = "127.0.0.1:9090".parse().unwrap();
        assert_eq!("localhost:9090".parse(), Ok(MetricsAddress::At(address)));
        for wrong in ["", "on", "9090", "metrics.example:9090"] {
            assert!(wrong.parse::<MetricsAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        let millis = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("30"), Ok(30_000));
        assert_eq!(millis("30s"), Ok(30_000));
        assert_eq!(millis("5m"), Ok(300_000));
        assert_eq!(millis("6h"), Ok(21_600_000));
        assert_eq!(millis("365d"), Ok(31_536_000_000));
        for wrong in ["", "s", "0", "-1s", "1.5s", "1w", "366d", "99999999999999999999s"] {
            assert!(millis(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_day_is_the_bound_of_an_upload() {
        assert_eq!(within_a_day("24h"), Ok(Span(Duration::from_hours(24))));
        assert!(within_a_day("86400001ms").is_err());
    }

    #[test]
    fn what_stays_free_is_a_size_or_a_part() {
        assert_eq!(min_free(""), Ok(MinFree::DEFAULT));
        assert_eq!(min_free("0"), Ok(MinFree::Bytes(0)));
        assert_eq!(min_free("0%"), Ok(MinFree::Bytes(0)));
        assert_eq!(min_free("10GiB"), Ok(MinFree::Bytes(10 << 30)));
        assert_eq!(min_free("90%"), Ok(MinFree::Percent(90)));
        for wrong in ["91%", "-1", "%", "x", "1.5%", "101%"] {
            assert!(min_free(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        let bytes = |text: &str| text.parse::<Length>().map(|length| length.0);
        assert_eq!(bytes("1000"), Ok(1000));
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("64 MiB"), Ok(64 << 20));
        assert_eq!(bytes("10GB"), Ok(10_000_000_000));
        for wrong in ["", "0", "MiB", "1.5G", "-1", "1X", "99999999TiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
