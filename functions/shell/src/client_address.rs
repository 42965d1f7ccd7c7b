//! The address of the client of a request, behind trusted proxies.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// The header field in which proxies name the client and other proxies.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Parses a network in CIDR notation, or a single address. The error is a text for the operator.
pub fn network(text: &str) -> Result<IpNet, String> {
    let read = text
        .parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    read.ok_or_else(|| format!("{text:?} is not a network such as 10.0.0.0/8 or fd00::/8"))
}

/// The proxies whose `X-Forwarded-For` is trusted.
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

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Parses an address as proxies write it; some of them add a port.
fn address(text: &[u8]) -> Option<IpAddr> {
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
}
