//! What trusted proxies say about a request: the address of its client, and the URL that the client has used.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use registry::auth::{Forwarded, ForwardedHost, UrlScheme};

/// The header field in which proxies name the client and other proxies.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The header field in which a proxy reports the scheme of the URL that its client has used.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The header field in which a proxy reports the host of that URL.
pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Parses a network in CIDR notation, or a single address. The error is a text for the operator.
pub fn network(text: &str) -> Result<IpNet, String> {
    let read = text
        .parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    read.ok_or_else(|| format!("{text:?} is not a network such as 10.0.0.0/8 or fd00::/8"))
}

/// The proxies whose `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` are trusted.
///
/// The default trusts no proxy: the client of each request is the address that has opened the connection.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts every proxy whose address is in one of `networks`.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The address of the client of a request that came from `peer`. This is `peer` itself, unless that is a trusted proxy.
    /// Then it is the last address in `X-Forwarded-For` that is not a trusted proxy, because untrusted clients may have
    /// written all addresses before it. `None` if that address cannot be parsed.
    #[must_use]
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer.ip().to_canonical();
        if !self.trusts(peer) {
            return Some(peer);
        }
        // Several header fields are one list (RFC 9110, 5.3).
        let hops = headers.get_all(FORWARDED_FOR).iter().rev();
        let hops = hops.flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops {
            let hop = address(hop)?;
            if !self.trusts(hop) {
                return Some(hop);
            }
        }
        // The proxy sends a request of its own, or of another trusted proxy.
        Some(peer)
    }

    /// What a trusted proxy says about the URL that its client has used. `None`: the request came from another `peer`, or has
    /// none of the three fields, so that the trusted address itself has sent it.
    ///
    /// A proxy must set the fields, and so replace what its client has sent. If a field has several values that differ, a
    /// client or another proxy may have written each of them, so it says nothing.
    #[must_use]
    pub fn forwarded(&self, peer: SocketAddr, headers: &HeaderMap) -> Option<Forwarded> {
        let mut fields = [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST].into_iter();
        if !self.trusts(peer.ip().to_canonical()) || !fields.any(|field| headers.contains_key(field)) {
            return None;
        }
        let host = if headers.contains_key(FORWARDED_HOST) {
            let host = only(headers, &FORWARDED_HOST).and_then(|text| text.parse().ok());
            host.map_or(ForwardedHost::Unclear, ForwardedHost::Host)
        } else {
            ForwardedHost::Unchanged
        };
        let scheme = only(headers, &FORWARDED_PROTO).and_then(UrlScheme::parse);
        Some(Forwarded { scheme, host })
    }

    /// Whether an address is that of a trusted proxy.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The value of a field, if all its lines and list elements are the same.
fn only<'a>(headers: &'a HeaderMap, field: &HeaderName) -> Option<&'a str> {
    let lines = headers.get_all(field).iter();
    let mut values = lines.flat_map(|line| line.to_str().unwrap_or_default().split(',').map(str::trim));
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

/// Parses an address as proxies write it; some of them add a port.
pub(crate) fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    let address = text.parse().ok().or_else(with_port).or_else(bracketed)?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_its_last_word() {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        let client = |peer: &str, fields: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(FORWARDED_FOR, field.parse().unwrap());
            }
            let client = proxies.client(peer.parse().unwrap(), &headers);
            client.map(|client| client.to_string()).unwrap_or_default()
        };
        for (peer, fields, expected) in [
            ("192.0.2.1:5", &["1.1.1.1"][..], "192.0.2.1"),
            ("10.0.0.1:5", &["1.1.1.1"], "1.1.1.1"),
            ("[::ffff:10.0.0.1]:5", &["1.1.1.1"], "1.1.1.1"),
            ("[::1]:5", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1:5", &["9.9.9.9, 1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1:5", &["9.9.9.9", "1.1.1.1", "10.0.0.2,10.0.0.3"], "1.1.1.1"),
            ("10.0.0.1:5", &["1.1.1.1:443"], "1.1.1.1"),
            ("10.0.0.1:5", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.0.0.1:5", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1:5", &["1.1.1.1, unknown"], ""),
            ("10.0.0.1:5", &[""], ""),
            ("10.0.0.1:5", &["10.0.0.9"], "10.0.0.1"),
            ("10.0.0.1:5", &[], "10.0.0.1"),
        ] {
            assert_eq!(client(peer, fields), expected, "{peer} {fields:?}");
        }
        let none_trusted = TrustedProxies::default();
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_FOR, "1.1.1.1".parse().unwrap());
        assert_eq!(
            none_trusted
                .client("10.0.0.1:5".parse().unwrap(), &headers)
                .unwrap()
                .to_string(),
            "10.0.0.1"
        );
    }

    /// The scheme and the host that a request has after its proxy, as text.
    fn forwarded(proxies: &TrustedProxies, peer: &str, fields: &[(&'static str, &'static [u8])]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_bytes(value).unwrap());
        }
        let Forwarded { scheme, host } = proxies.forwarded(peer.parse().unwrap(), &headers)?;
        let scheme = scheme.map_or("?", UrlScheme::as_str);
        Some(match host {
            ForwardedHost::Unchanged => scheme.to_owned(),
            ForwardedHost::Host(host) => format!("{scheme}://{host}"),
            ForwardedHost::Unclear => format!("{scheme}://?"),
        })
    }

    #[test]
    fn s29_only_a_trusted_proxy_says_scheme_and_host() {
        const FOR: &str = "x-forwarded-for";
        const PROTO: &str = "x-forwarded-proto";
        const HOST: &str = "x-forwarded-host";

        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        for (fields, expected) in [
            (&[][..], None),
            (&[("forwarded", &b"host=a.example;proto=https"[..])], None),
            (&[(FOR, b"1.1.1.1")], Some("?")),
            (&[(HOST, b"a.example")], Some("?://a.example")),
            (&[(PROTO, b"https")], Some("https")),
            (&[(PROTO, b"HTTP")], Some("http")),
            (&[(PROTO, b"wss")], Some("?")),
            (&[(PROTO, b"")], Some("?")),
            (&[(PROTO, b"https, https")], Some("https")),
            (&[(PROTO, b"https"), (PROTO, b"https")], Some("https")),
            (&[(PROTO, b"https, http")], Some("?")),
            (&[(PROTO, b"https"), (PROTO, b"http")], Some("?")),
            (&[(PROTO, b"https,")], Some("?")),
            (&[(PROTO, b"\xff")], Some("?")),
            (
                &[(PROTO, b"https"), (HOST, b"A.Example.:8443")],
                Some("https://a.example:8443"),
            ),
            (&[(PROTO, b"https"), (HOST, b"[::1]:5000")], Some("https://[::1]:5000")),
            (
                &[(PROTO, b"https"), (HOST, b"a.example,a.example")],
                Some("https://a.example"),
            ),
            (
                &[(PROTO, b"https"), (HOST, b"evil.example, a.example")],
                Some("https://?"),
            ),
            (
                &[(PROTO, b"https"), (HOST, b"evil.example"), (HOST, b"a.example")],
                Some("https://?"),
            ),
            (&[(PROTO, b"https"), (HOST, b"")], Some("https://?")),
            (&[(PROTO, b"https"), (HOST, b"https://a.example")], Some("https://?")),
            (&[(PROTO, b"https"), (HOST, b"alice@a.example")], Some("https://?")),
            (&[(PROTO, b"https"), (HOST, b"a.example\"")], Some("https://?")),
            (&[(PROTO, b"https"), (HOST, b"\xff")], Some("https://?")),
        ] {
            for trusted in ["10.0.0.1:5", "[::ffff:10.0.0.1]:5", "[::1]:5"] {
                assert_eq!(
                    forwarded(&proxies, trusted, fields).as_deref(),
                    expected,
                    "{trusted} {fields:?}"
                );
            }
            for stranger in ["192.0.2.1:5", "[2001:db8::1]:5", "11.0.0.1:5"] {
                assert_eq!(forwarded(&proxies, stranger, fields), None, "{stranger} {fields:?}");
            }
            assert_eq!(forwarded(&TrustedProxies::default(), "10.0.0.1:5", fields), None);
        }
    }
}
