//! Values of flags that only this shell has: addresses, and the free space of a disk.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use shell::values::Length;
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
}
