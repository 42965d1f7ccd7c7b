//! Who has grants.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The client to which a grant is charged: a network address, or the registry itself.
///
/// IPv6 addresses count by their /64 network, which one host usually has as a whole.
// One number, since it is compared and hashed some times for each request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey(u128);

impl ClientKey {
    /// The registry itself: collection, checks, start-up. Also requests with an unknown client.
    // No network ends with these bits.
    pub const INTERNAL: Self = Self(u128::MAX);

    /// The client at `address`.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().into(),
            IpAddr::V6(address) => u128::from(address) >> 64 << 64,
        })
    }
}

impl Default for ClientKey {
    fn default() -> Self {
        Self::INTERNAL
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::INTERNAL => f.write_str("internal"),
            Self(number) => Ipv6Addr::from(number).to_canonical().fmt(f),
        }
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
