//! Which clients may do what, and for which hosts requests are answered: decided from the settings and from where the
//! registry can be reached. Requests without credentials may change a registry that others can reach only if the operator
//! says so.

use std::net::IpAddr;

use registry::auth::Scope;
use registry::{Anonymous, Host, HostPolicy};

use crate::settings::{ALLOW_HOST, Spelling};

/// From where clients reach a registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exposure {
    /// Only from the same host.
    Loopback,
    /// From other hosts too. A function or a Worker can always be reached from other hosts.
    Public,
}

impl Exposure {
    /// The exposure of a server that listens on `address`. An IPv4-mapped loopback address is one for the operating system,
    /// too.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_loopback() {
            Self::Loopback
        } else {
            Self::Public
        }
    }
}

/// What an operator allows to requests without credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnonymousAccess {
    /// Pull and list everything.
    Pull,
    /// Everything, also push and delete.
    All,
}

impl AnonymousAccess {
    /// The authenticator of a registry in which all clients may do this.
    #[must_use]
    pub fn authenticator(self) -> Anonymous {
        match self {
            Self::Pull => Anonymous::pull(),
            Self::All => Anonymous::all(),
        }
    }
}

/// The settings that decide about access. `U` says where users with passwords are, for instance in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessSettings<U> {
    /// Where the users with passwords are; `None` if there are none.
    pub users: Option<U>,
    /// What requests without credentials may do; `None` if the operator does not say.
    pub anonymous: Option<AnonymousAccess>,
    /// From where clients reach the registry.
    pub exposure: Exposure,
    /// The hosts for which requests are answered; empty if the operator does not say.
    pub allowed_hosts: Vec<Host>,
}

/// Which clients may do what, and for which hosts requests are answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessDecision<U> {
    /// What clients may do.
    pub clients: ClientAccess<U>,
    /// The hosts for which requests are answered.
    pub hosts: HostPolicy,
}

/// What clients may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientAccess<U> {
    /// Users may do everything with their passwords.
    Users {
        /// Where the users are.
        users: U,
        /// The scope of all other clients; `None` if they may do nothing.
        others: Option<Scope>,
    },
    /// All clients may do this without credentials.
    Everyone(AnonymousAccess),
    /// All users of this machine may do everything without credentials. No other client reaches the registry.
    ThisMachine,
}

/// Why a registry must not start with its settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AccessRefusal {
    /// There are users, and all clients may do everything.
    #[error("all clients may do everything without credentials, so passwords would protect nothing")]
    UselessPasswords,
    /// Other hosts reach the registry, there are no users, and the operator does not allow requests without credentials.
    #[error("without authentication, all clients that reach the registry could push and delete")]
    Unprotected,
}

impl<U> AccessSettings<U> {
    /// Decides about access. Fails if the registry must not start with these settings. `spelling` is for the text of a
    /// refused request.
    pub fn decide(self, spelling: Spelling) -> Result<AccessDecision<U>, AccessRefusal> {
        use AnonymousAccess::{All, Pull};

        let has_passwords = self.users.is_some();
        let clients = match (self.users, self.anonymous) {
            (Some(_), Some(All)) => return Err(AccessRefusal::UselessPasswords),
            (Some(users), Some(Pull)) => ClientAccess::Users {
                users,
                others: Some(Scope::PULL_ONLY),
            },
            (Some(users), None) => ClientAccess::Users { users, others: None },
            (None, Some(anonymous)) => ClientAccess::Everyone(anonymous),
            (None, None) => match self.exposure {
                Exposure::Loopback => ClientAccess::ThisMachine,
                Exposure::Public => return Err(AccessRefusal::Unprotected),
            },
        };
        let only = match self.exposure {
            // Without passwords, pages of other sites must not reach the registry through a browser. Requests that a browser
            // marks as sent by another site are refused everywhere. Requests for other hosts are refused where the right
            // hosts are known.
            Exposure::Loopback if !has_passwords => Some(self.allowed_hosts),
            Exposure::Loopback | Exposure::Public => Some(self.allowed_hosts).filter(|hosts| !hosts.is_empty()),
        };
        Ok(AccessDecision {
            clients,
            hosts: HostPolicy {
                only,
                setting: Some(spelling(ALLOW_HOST)),
                refuse_other_sites: !has_passwords,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const PUBLIC: Exposure = Exposure::Public;
    const LOOPBACK: Exposure = Exposure::Loopback;

    fn settings(
        has_users: bool,
        anonymous: Option<AnonymousAccess>,
        exposure: Exposure,
    ) -> AccessSettings<&'static str> {
        AccessSettings {
            users: has_users.then_some("file"),
            anonymous,
            exposure,
            allowed_hosts: Vec::new(),
        }
    }

    #[test]
    fn only_a_loopback_address_is_open_without_being_asked() {
        use AnonymousAccess::{All, Pull};

        let users = |others| Ok(ClientAccess::Users { users: "file", others });
        for (has_users, anonymous, exposure, expected) in [
            (false, None, LOOPBACK, Ok(ClientAccess::ThisMachine)),
            (false, None, PUBLIC, Err(AccessRefusal::Unprotected)),
            (false, Some(Pull), LOOPBACK, Ok(ClientAccess::Everyone(Pull))),
            (false, Some(Pull), PUBLIC, Ok(ClientAccess::Everyone(Pull))),
            (false, Some(All), LOOPBACK, Ok(ClientAccess::Everyone(All))),
            (false, Some(All), PUBLIC, Ok(ClientAccess::Everyone(All))),
            (true, None, LOOPBACK, users(None)),
            (true, None, PUBLIC, users(None)),
            (true, Some(Pull), LOOPBACK, users(Some(Scope::PULL_ONLY))),
            (true, Some(Pull), PUBLIC, users(Some(Scope::PULL_ONLY))),
            (true, Some(All), LOOPBACK, Err(AccessRefusal::UselessPasswords)),
            (true, Some(All), PUBLIC, Err(AccessRefusal::UselessPasswords)),
        ] {
            let decided = settings(has_users, anonymous, exposure).decide(|setting| setting.name.to_owned());
            assert_eq!(
                decided.map(|access| access.clients),
                expected,
                "{has_users} {anonymous:?} {exposure:?}"
            );
        }
    }

    #[test]
    fn without_passwords_pages_of_other_sites_are_refused() {
        let hosts = |has_users, exposure, allowed: &[&str]| {
            let anonymous = Some(AnonymousAccess::Pull);
            let settings = AccessSettings {
                allowed_hosts: allowed.iter().map(|host| host.parse().unwrap()).collect(),
                ..settings(has_users, anonymous, exposure)
            };
            let HostPolicy {
                only,
                setting,
                refuse_other_sites,
            } = settings.decide(|setting| setting.variable.to_owned()).unwrap().hosts;
            assert_eq!(setting.as_deref(), Some("ROADSTEAD_ALLOW_HOST"));
            let names = only.map(|hosts| hosts.iter().map(ToString::to_string).collect::<Vec<_>>());
            (names, refuse_other_sites)
        };
        let names = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(hosts(false, LOOPBACK, &[]), (names(&[]), true));
        assert_eq!(hosts(false, PUBLIC, &[]), (None, true));
        assert_eq!(hosts(true, LOOPBACK, &[]), (None, false));
        assert_eq!(hosts(true, PUBLIC, &[]), (None, false));
        for exposure in [LOOPBACK, PUBLIC] {
            assert_eq!(hosts(false, exposure, &["a.example"]), (names(&["a.example"]), true));
            assert_eq!(hosts(true, exposure, &["a.example"]), (names(&["a.example"]), false));
        }
    }

    #[test]
    fn loopback_addresses() {
        for (address, exposure) in [
            ("127.0.0.1", LOOPBACK),
            ("127.1.2.3", LOOPBACK),
            ("::1", LOOPBACK),
            ("::ffff:127.0.0.1", LOOPBACK),
            ("0.0.0.0", PUBLIC),
            ("::", PUBLIC),
            ("192.168.0.1", PUBLIC),
            ("fe80::1", PUBLIC),
        ] {
            assert_eq!(Exposure::of(address.parse().unwrap()), exposure, "{address}");
        }
    }
}
