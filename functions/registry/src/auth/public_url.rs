//! The URL at which clients reach the registry.

use std::fmt;
use std::str::FromStr;

use crate::host::{Host, default_port};

/// The scheme of the URL at which a client reaches the registry. A shell that serves TLS itself sets it as an extension of
/// each request; a request without this extension has arrived by plain http.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum UrlScheme {
    /// Plain http.
    Http,
    /// TLS.
    Https,
}

impl UrlScheme {
    /// The scheme as in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Parses a scheme in upper or lower case (RFC 3986, 3.1). `None`: it is another one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Http, Self::Https]
            .into_iter()
            .find(|scheme| text.eq_ignore_ascii_case(scheme.as_str()))
    }
}

/// The URL at which clients reach the registry: scheme, host, and the port if it is not the scheme's own. It has no path,
/// because the paths of the protocol begin at the root.
///
/// ```
/// use registry::auth::PublicUrl;
///
/// let url: PublicUrl = "https://Registry.example.com:443/".parse().unwrap();
/// assert_eq!(url.to_string(), "https://registry.example.com");
/// assert_eq!(url.authority(), "registry.example.com");
/// assert!("https://registry.example.com/v2/".parse::<PublicUrl>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicUrl {
    scheme: UrlScheme,
    host: Host,
}

/// Why a text is not a [`PublicUrl`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PublicUrlError {
    /// It does not begin with `http://` or `https://`.
    #[error("expected a URL that begins with https:// or http://, such as https://registry.example.com")]
    Scheme,
    /// It has a path, a query or a fragment.
    #[error(
        "expected a URL without a path, such as https://registry.example.com: clients look for a registry at the root of a \
         host"
    )]
    Path,
    /// It has a user name or a password.
    #[error("expected a URL without a user name or a password")]
    User,
    /// What follows the scheme is not a host with an optional port.
    #[error("expected a host name or an address after the scheme, an IPv6 address in brackets, and an optional port")]
    Host,
}

impl PublicUrl {
    /// The URL of a host.
    #[must_use]
    pub fn new(scheme: UrlScheme, host: Host) -> Self {
        let own = default_port(scheme.as_str());
        let host = if host.port() == own { host.without_port() } else { host };
        Self { scheme, host }
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> UrlScheme {
        self.scheme
    }

    /// The host, with the port if it is not the scheme's own.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The host as text, with the port if it is not the scheme's own: the name under which docker knows the registry.
    #[must_use]
    pub fn authority(&self) -> String {
        self.host.to_string()
    }

    /// Whether passwords that are sent to this URL can be read on the network: it is plain http, and leads to another
    /// machine.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.scheme == UrlScheme::Http && !self.host.is_loopback()
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)
    }
}

impl FromStr for PublicUrl {
    type Err = PublicUrlError;

    /// Parses a URL. A slash at its end is ignored.
    fn from_str(text: &str) -> Result<Self, PublicUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(PublicUrlError::Scheme)?;
        let scheme = UrlScheme::parse(scheme).ok_or(PublicUrlError::Scheme)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '\\']) {
            return Err(PublicUrlError::Path);
        }
        if authority.contains('@') {
            return Err(PublicUrlError::User);
        }
        let host = authority.parse().map_err(|_| PublicUrlError::Host)?;
        Ok(Self::new(scheme, host))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, shown, authority, exposed) in [
            ("https://a.example", "https://a.example", "a.example", false),
            ("https://a.example/", "https://a.example", "a.example", false),
            ("HTTPS://A.Example.", "https://a.example", "a.example", false),
            ("https://a.example:443", "https://a.example", "a.example", false),
            ("https://a.example:", "https://a.example", "a.example", false),
            ("https://a.example:80", "https://a.example:80", "a.example:80", false),
            (
                "https://a.example:5000/",
                "https://a.example:5000",
                "a.example:5000",
                false,
            ),
            ("http://a.example", "http://a.example", "a.example", true),
            ("http://a.example:80", "http://a.example", "a.example", true),
            ("http://a.example:443", "http://a.example:443", "a.example:443", true),
            ("http://192.0.2.1:5000", "http://192.0.2.1:5000", "192.0.2.1:5000", true),
            (
                "http://[2001:DB8::1]:5000",
                "http://[2001:db8::1]:5000",
                "[2001:db8::1]:5000",
                true,
            ),
            (
                "http://localhost:5000",
                "http://localhost:5000",
                "localhost:5000",
                false,
            ),
            (
                "http://127.0.0.1:5000",
                "http://127.0.0.1:5000",
                "127.0.0.1:5000",
                false,
            ),
            ("http://[::1]:5000", "http://[::1]:5000", "[::1]:5000", false),
        ] {
            let url: PublicUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown, "{text}");
            assert_eq!(url.authority(), authority, "{text}");
            assert_eq!(url.is_exposed(), exposed, "{text}");
            assert_eq!(shown.parse(), Ok(url), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_url_of_a_registry() {
        use PublicUrlError::{Host, Path, Scheme, User};

        for (text, expected) in [
            ("", Scheme),
            ("registry.example.com", Scheme),
            ("registry.example.com:443", Scheme),
            ("//registry.example.com", Scheme),
            ("ftp://registry.example.com", Scheme),
            (" https://registry.example.com", Scheme),
            ("https:/registry.example.com", Scheme),
            ("https://registry.example.com/v2/", Path),
            ("https://registry.example.com//", Path),
            ("https://registry.example.com?x", Path),
            ("https://registry.example.com#x", Path),
            ("https://registry.example.com\\x", Path),
            ("https://alice@registry.example.com", User),
            ("https://alice:secret@registry.example.com", User),
            ("https://", Host),
            ("https:///", Host),
            ("https://:443", Host),
            ("https://a b", Host),
            ("https://a\"b", Host),
            ("https://a,b", Host),
            ("https://a:x", Host),
            ("https://a:65536", Host),
            ("https://::1", Host),
            ("https://[::1", Host),
            ("https://\u{e9}.example", Host),
        ] {
            assert_eq!(text.parse::<PublicUrl>(), Err(expected), "{text:?}");
        }
    }
}
