//! Which clients can reach an endpoint directly, as far as its address shows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The network scope of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkScope {
    /// On the Internet, or not known to be elsewhere.
    Public,
    /// In a private network. The client may be in another private network; a client with a public address cannot reach
    /// it.
    Private,
    /// On this machine.
    Loopback,
    /// Under a name that only an internal resolver knows, for example between containers.
    Internal,
}

/// Suffixes of names that no public resolver knows.
const INTERNAL_SUFFIXES: &[&str] = &[
    "corp",
    "home.arpa",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "test",
];

impl NetworkScope {
    /// The scope of a URL's host: a name, an IPv4 address, or an IPv6 address in brackets.
    pub(crate) fn of_host(host: &str) -> Self {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Self::of_address(address);
        }
        let name = bare.trim_end_matches('.').to_ascii_lowercase();
        let ends_in = |end: &str| {
            name.strip_suffix(end)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if ends_in("localhost") {
            Self::Loopback
        } else if !name.contains('.') || INTERNAL_SUFFIXES.iter().any(|end| ends_in(end)) {
            Self::Internal
        } else {
            Self::Public
        }
    }

    fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            address if address.is_unspecified() => Self::Internal,
            IpAddr::V4(address) if is_private_v4(address) => Self::Private,
            IpAddr::V6(address) if is_private_v6(address) => Self::Private,
            _ => Self::Public,
        }
    }

    /// Whether a client with this address can probably reach the endpoint.
    pub(crate) fn admits(self, client: IpAddr) -> bool {
        let client = Self::of_address(client);
        match self {
            Self::Public => true,
            Self::Private => matches!(client, Self::Private | Self::Loopback),
            Self::Loopback => client == Self::Loopback,
            Self::Internal => false,
        }
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    // The last range is that of carriers' address translation (RFC 6598).
    address.is_private() || address.is_link_local() || (first == 100 && second & 0xc0 == 64)
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    address.is_unique_local() || address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_host_has_the_scope_of_its_name_or_address() {
        let table = [
            ("s3.eu-central-1.amazonaws.com", NetworkScope::Public),
            ("8.8.8.8", NetworkScope::Public),
            ("[2001:4860:4860::8888]", NetworkScope::Public),
            ("minio.example.org", NetworkScope::Public),
            ("10.1.2.3", NetworkScope::Private),
            ("172.31.0.1", NetworkScope::Private),
            ("172.32.0.1", NetworkScope::Public),
            ("192.168.1.1", NetworkScope::Private),
            ("169.254.1.1", NetworkScope::Private),
            ("100.64.0.1", NetworkScope::Private),
            ("100.128.0.1", NetworkScope::Public),
            ("[fd00::1]", NetworkScope::Private),
            ("[fe80::1]", NetworkScope::Private),
            ("127.0.0.1", NetworkScope::Loopback),
            ("127.9.9.9", NetworkScope::Loopback),
            ("[::1]", NetworkScope::Loopback),
            ("[::ffff:127.0.0.1]", NetworkScope::Loopback),
            ("[::ffff:10.0.0.1]", NetworkScope::Private),
            ("localhost", NetworkScope::Loopback),
            ("LOCALHOST.", NetworkScope::Loopback),
            ("s3.localhost", NetworkScope::Loopback),
            ("notlocalhost", NetworkScope::Internal),
            ("minio", NetworkScope::Internal),
            ("minio.storage.svc.cluster.local", NetworkScope::Internal),
            ("s3.internal", NetworkScope::Internal),
            ("s3.notinternal", NetworkScope::Public),
            ("0.0.0.0", NetworkScope::Internal),
        ];
        for (host, scope) in table {
            assert_eq!(NetworkScope::of_host(host), scope, "{host}");
        }
    }

    #[test]
    fn clients_reach_only_scopes_that_include_them() {
        let public: IpAddr = "203.0.113.9".parse().unwrap();
        let private: IpAddr = "10.0.0.9".parse().unwrap();
        let own: IpAddr = "::1".parse().unwrap();
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let admitted = |scope: NetworkScope| [public, private, own, mapped].map(|client| scope.admits(client));
        assert_eq!(admitted(NetworkScope::Public), [true; 4]);
        assert_eq!(admitted(NetworkScope::Private), [false, true, true, true]);
        assert_eq!(admitted(NetworkScope::Loopback), [false, false, true, true]);
        assert_eq!(admitted(NetworkScope::Internal), [false; 4]);
    }
}
