//! Which clients may do what, and for which hosts requests are answered: decided from the settings and from where the
//! registry can be reached. Requests without credentials may change a registry that others can reach only if the operator
//! says so.

use std::net::IpAddr;

use registry::auth::Rules;
use registry::{Host, HostPolicy};

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
    /// What all clients may do.
    #[must_use]
    pub fn rules(self) -> Rules {
        match self {
            Self::Pull => Rules::pull_only(),
            Self::All => Rules::everything(),
        }
    }
}

/// The settings that decide about access. `U` says where users with passwords are, for instance in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessSettings<U> {
    /// Where the users with passwords are that have no account; `None` if there are none.
    pub users: Option<U>,
    /// Whether the metadata has an account. `None`: it cannot be read now.
    pub has_accounts: Option<bool>,
    /// Whether there is a secret by which the first account is made.
    pub has_bootstrap: bool,
    /// What requests without credentials may do; `None` if the operator does not say.
    pub anonymous: Option<AnonymousAccess>,
    /// From where clients reach the registry.
    pub exposure: Exposure,
    /// Whether clients of other hosts reach it through a proxy, whatever its own address is.
    pub is_proxied: bool,
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
    /// Clients with credentials may do what the policy says.
    Users {
        /// Where the users are that have no account, if there are any.
        users: Option<U>,
        /// Whether all other clients may pull everything.
        anonymous_pull: bool,
    },
    /// All clients may do this without credentials, until the first account is made.
    Everyone(AnonymousAccess),
    /// All users of this machine may do everything without credentials, until the first account is made. No other client
    /// reaches the registry.
    ThisMachine,
}

/// Why a registry must not start with its settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AccessRefusal {
    /// There are users, and all clients may do everything.
    #[error("all clients may do everything without credentials, so passwords would protect nothing")]
    UselessPasswords,
    /// Other hosts reach the registry, perhaps through a proxy, there are neither accounts nor users, and the operator does
    /// not allow requests without credentials.
    #[error("without authentication, all clients that reach the registry could push and delete")]
    Unprotected,
}

impl<U> AccessSettings<U> {
    /// Decides about access. Fails if the registry must not start with these settings. `spelling` is for the text of a
    /// refused request.
    pub fn decide(self, spelling: Spelling) -> Result<AccessDecision<U>, AccessRefusal> {
        use AnonymousAccess::{All, Pull};

        let has_users = self.users.is_some() || self.has_accounts == Some(true);
        let has_passwords = has_users || self.has_bootstrap;
        let users = |anonymous_pull| ClientAccess::Users {
            users: self.users,
            anonymous_pull,
        };
        let clients = match self.anonymous {
            Some(All) if has_users => return Err(AccessRefusal::UselessPasswords),
            Some(Pull) if has_passwords => users(true),
            None if has_passwords => users(false),
            Some(anonymous) => ClientAccess::Everyone(anonymous),
            None => match self.has_accounts {
                _ if self.exposure == Exposure::Loopback && !self.is_proxied => ClientAccess::ThisMachine,
                // Nothing is open without being asked, and the accounts may come back.
                None => users(false),
                Some(_) => return Err(AccessRefusal::Unprotected),
            },
        };
        let only = match self.exposure {
            // Without passwords, pages of other sites must not reach the registry through a browser. Requests that a browser
            // marks as sent by another site are refused everywhere. Requests for other hosts are refused where the right
            // hosts are known.
            Exposure::Loopback if !has_passwords && !matches!(clients, ClientAccess::Users { .. }) => {
                Some(self.allowed_hosts)
            }
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
            has_accounts: Some(false),
            has_bootstrap: false,
            anonymous,
            exposure,
            is_proxied: false,
            allowed_hosts: Vec::new(),
        }
    }

    #[test]
    fn only_a_loopback_address_is_open_without_being_asked() {
        use AnonymousAccess::{All, Pull};

        let users = |anonymous_pull| {
            Ok(ClientAccess::Users {
                users: Some("file"),
                anonymous_pull,
            })
        };
        for (has_users, anonymous, exposure, expected) in [
            (false, None, LOOPBACK, Ok(ClientAccess::ThisMachine)),
            (false, None, PUBLIC, Err(AccessRefusal::Unprotected)),
            (false, Some(Pull), LOOPBACK, Ok(ClientAccess::Everyone(Pull))),
            (false, Some(Pull), PUBLIC, Ok(ClientAccess::Everyone(Pull))),
            (false, Some(All), LOOPBACK, Ok(ClientAccess::Everyone(All))),
            (false, Some(All), PUBLIC, Ok(ClientAccess::Everyone(All))),
            (true, None, LOOPBACK, users(false)),
            (true, None, PUBLIC, users(false)),
            (true, Some(Pull), LOOPBACK, users(true)),
            (true, Some(Pull), PUBLIC, users(true)),
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
    fn s15_accounts_and_the_bootstrap_secret_close_a_registry() {
        use AnonymousAccess::{All, Pull};

        let accounts = |anonymous_pull| {
            Ok(ClientAccess::Users {
                users: None,
                anonymous_pull,
            })
        };
        for (has_accounts, has_bootstrap, anonymous, exposure, expected) in [
            (Some(true), false, None, LOOPBACK, accounts(false)),
            (Some(true), false, None, PUBLIC, accounts(false)),
            (Some(true), false, Some(Pull), PUBLIC, accounts(true)),
            (
                Some(true),
                false,
                Some(All),
                LOOPBACK,
                Err(AccessRefusal::UselessPasswords),
            ),
            (Some(false), true, None, LOOPBACK, accounts(false)),
            (Some(false), true, None, PUBLIC, accounts(false)),
            (Some(false), true, Some(Pull), PUBLIC, accounts(true)),
            (Some(false), true, Some(All), PUBLIC, Ok(ClientAccess::Everyone(All))),
            // The metadata cannot be read now.
            (None, false, None, LOOPBACK, Ok(ClientAccess::ThisMachine)),
            (None, false, None, PUBLIC, accounts(false)),
            (None, false, Some(All), PUBLIC, Ok(ClientAccess::Everyone(All))),
        ] {
            let settings = AccessSettings {
                has_accounts,
                has_bootstrap,
                ..settings(false, anonymous, exposure)
            };
            let decided = settings.decide(|setting| setting.name.to_owned());
            let what = format!("{has_accounts:?} {has_bootstrap} {anonymous:?} {exposure:?}");
            assert_eq!(decided.map(|access| access.clients), expected, "{what}");
        }
    }

    /// A proxy on the same machine brings the clients of other hosts to a loopback address.
    #[test]
    fn behind_a_proxy_a_loopback_address_is_as_open_as_any_other() {
        use AnonymousAccess::{All, Pull};

        for (has_users, has_accounts, anonymous) in [
            (false, Some(false), None),
            (false, Some(true), None),
            (false, None, None),
            (false, Some(false), Some(Pull)),
            (false, Some(false), Some(All)),
            (true, Some(false), None),
            (true, Some(true), Some(All)),
        ] {
            let clients = |exposure, is_proxied| {
                let settings = AccessSettings {
                    has_accounts,
                    is_proxied,
                    ..settings(has_users, anonymous, exposure)
                };
                let decided = settings.decide(|setting| setting.name.to_owned());
                decided.map(|access| access.clients)
            };
            let public = clients(PUBLIC, false);
            let what = format!("{has_users} {has_accounts:?} {anonymous:?}");
            assert_eq!(clients(LOOPBACK, true), public, "{what}");
            assert_eq!(clients(PUBLIC, true), public, "{what}");
        }
        // The accounts cannot be read now. When they can, clients of the proxy come with its name.
        let unknown = AccessSettings {
            has_accounts: None,
            is_proxied: true,
            ..settings(false, None, LOOPBACK)
        };
        let decided = unknown.decide(|setting| setting.name.to_owned()).unwrap();
        assert_eq!(decided.hosts.only, None);
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
