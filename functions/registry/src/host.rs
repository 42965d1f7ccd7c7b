//! A host name or an address, with an optional port.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The maximum length of a name, in bytes; DNS has no longer names (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;

/// A host with an optional port, as in `Host`: `localhost:5000`, `192.0.2.1`, `[::1]:5000`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// The name in lower case, without a final dot; or an address in its shortest form, without brackets.
    name: String,
    port: Option<u16>,
}

/// The text is not a host with an optional port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected a host name or an address, an IPv6 address in brackets")]
pub struct HostError;

impl Host {
    /// The name or the address, in lower case and without a final dot or brackets.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, if the text has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The same host without its port.
    #[must_use]
    pub fn without_port(self) -> Self {
        Self { port: None, ..self }
    }

    /// Whether both have the same name and the same port. `default` is the port of a host without one.
    pub(crate) fn is_same(&self, other: &Self, default: Option<u16>) -> bool {
        self.name == other.name && self.port.or(default) == other.port.or(default)
    }

    /// Whether the host is the machine itself on every system (RFC 6761, 6.3; RFC 1122, 3.2.1.3; RFC 4291, 2.5.3).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.name.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.name == "localhost" || self.name.ends_with(".localhost"),
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let (name, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or(HostError)?;
            let address: std::net::Ipv6Addr = address.parse().map_err(|_| HostError)?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':').ok_or(HostError)?),
            };
            (address.to_string(), port)
        } else {
            let (name, port) = match text.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            };
            let name = name.strip_suffix('.').unwrap_or(name);
            // RFC 3986, 3.2.2, without percent-encoding and user information, which no client sends.
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if name.is_empty() || name.ends_with('.') || name.len() > MAX_NAME || !name.bytes().all(legal) {
                return Err(HostError);
            }
            (name.to_ascii_lowercase(), port)
        };
        // `host:` is valid, and means the default port.
        let port = match port {
            None | Some("") => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().map_err(|_| HostError)?),
            Some(_) => return Err(HostError),
        };
        Ok(Self { name, port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]", self.name)?;
        } else {
            f.write_str(&self.name)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The default port of a scheme.
pub(crate) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, shown, loopback) in [
            ("localhost", "localhost", true),
            ("LocalHost.:5000", "localhost:5000", true),
            ("registry.localhost", "registry.localhost", true),
            ("127.0.0.1:5000", "127.0.0.1:5000", true),
            ("127.255.255.254:", "127.255.255.254", true),
            ("[::1]:5000", "[::1]:5000", true),
            ("[0:0:0:0:0:0:0:1]", "[::1]", true),
            ("[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]", true),
            ("evil.example", "evil.example", false),
            ("localhost.evil.example", "localhost.evil.example", false),
            ("notlocalhost", "notlocalhost", false),
            ("127.0.0.1.evil.example", "127.0.0.1.evil.example", false),
            ("0.0.0.0:5000", "0.0.0.0:5000", false),
            ("2130706433", "2130706433", false),
            ("127.1", "127.1", false),
            ("[::2]", "[::2]", false),
            ("a_b:1", "a_b:1", false),
        ] {
            let host: Host = text.parse().unwrap();
            assert_eq!(host.to_string(), shown, "{text}");
            assert_eq!(host.is_loopback(), loopback, "{text}");
        }
        for text in [
            "",
            ".",
            "..",
            "a..",
            ":5000",
            "a b",
            "a@b",
            "a:b",
            "a:65536",
            "a:+1",
            "::1",
            "[::1",
            "[::1]5000",
            "[v1.x]",
            "a/b",
            "a%20b",
            "\u{e9}",
        ] {
            assert_eq!(text.parse::<Host>(), Err(HostError), "{text}");
        }
        assert!("a".repeat(255).parse::<Host>().is_ok());
        assert_eq!("a".repeat(256).parse::<Host>(), Err(HostError));
    }
}
