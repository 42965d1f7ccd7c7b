//! Which clients can reach an endpoint by themselves, as far as its address tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an endpoint lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// On the Internet, or nothing speaks against it.
    Anyone,
    /// In a private network, which need not be the client's; but a client with a public address is surely elsewhere.
    Private,
    /// On this machine.
    Loopback,
    /// Under a name that means something only inside, as between containers.
    Nobody,
}

/// Ends of names that no public resolver knows.
const INTERNAL: &[&str] = &[
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

impl Reach {
    /// Of the host in a URL: a name, or an address, of the sixth version in brackets.
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
        } else if !name.contains('.') || INTERNAL.iter().any(|end| ends_in(end)) {
            Self::Nobody
        } else {
            Self::Anyone
        }
    }

    fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            address if address.is_unspecified() => Self::Nobody,
            IpAddr::V4(address) if is_private_v4(address) => Self::Private,
            IpAddr::V6(address) if is_private_v6(address) => Self::Private,
            _ => Self::Anyone,
        }
    }

    /// Whether a client can probably get there.
    pub(crate) fn admits(self, client: IpAddr) -> bool {
        let client = Self::of_address(client);
        match self {
            Self::Anyone => true,
            Self::Private => matches!(client, Self::Private | Self::Loopback),
            Self::Loopback => client == Self::Loopback,
            Self::Nobody => false,
        }
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    // The last is what carriers use behind their address translation (RFC 6598).
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
    fn hosts_lie_where_their_address_says() {
        let table = [
            ("s3.eu-central-1.amazonaws.com", Reach::Anyone),
            ("8.8.8.8", Reach::Anyone),
            ("[2001:4860:4860::8888]", Reach::Anyone),
            ("minio.example.org", Reach::Anyone),
            ("10.1.2.3", Reach::Private),
            ("172.31.0.1", Reach::Private),
            ("172.32.0.1", Reach::Anyone),
            ("192.168.1.1", Reach::Private),
            ("169.254.1.1", Reach::Private),
            ("100.64.0.1", Reach::Private),
            ("100.128.0.1", Reach::Anyone),
            ("[fd00::1]", Reach::Private),
            ("[fe80::1]", Reach::Private),
            ("127.0.0.1", Reach::Loopback),
            ("127.9.9.9", Reach::Loopback),
            ("[::1]", Reach::Loopback),
            ("[::ffff:127.0.0.1]", Reach::Loopback),
            ("[::ffff:10.0.0.1]", Reach::Private),
            ("localhost", Reach::Loopback),
            ("LOCALHOST.", Reach::Loopback),
            ("s3.localhost", Reach::Loopback),
            ("notlocalhost", Reach::Nobody),
            ("minio", Reach::Nobody),
            ("minio.storage.svc.cluster.local", Reach::Nobody),
            ("s3.internal", Reach::Nobody),
            ("s3.notinternal", Reach::Anyone),
            ("0.0.0.0", Reach::Nobody),
        ];
        for (host, reach) in table {
            assert_eq!(Reach::of_host(host), reach, "{host}");
        }
    }

    #[test]
    fn clients_reach_what_is_not_further_inside_than_they() {
        let public: IpAddr = "203.0.113.9".parse().unwrap();
        let private: IpAddr = "10.0.0.9".parse().unwrap();
        let own: IpAddr = "::1".parse().unwrap();
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let admitted = |reach: Reach| [public, private, own, mapped].map(|client| reach.admits(client));
        assert_eq!(admitted(Reach::Anyone), [true; 4]);
        assert_eq!(admitted(Reach::Private), [false, true, true, true]);
        assert_eq!(admitted(Reach::Loopback), [false, false, true, true]);
        assert_eq!(admitted(Reach::Nobody), [false; 4]);
    }
}
