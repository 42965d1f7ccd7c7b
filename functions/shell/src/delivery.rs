//! Which pulls are redirected to the object store: a default, and rules for repositories and clients. Also finds out which
//! clients cannot use the redirects, because of the host of the object store.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use oci::RepositoryName;
use registry::auth::RepositoryPattern;
use registry::{Delivery, DeliveryPolicy, Host, own_host};

use crate::client_address::network;
use crate::opened::StoreStatistics;

/// How blobs are pulled: a default, and exceptions in their order.
#[derive(Debug)]
pub struct PullRules {
    rules: Vec<PullRule>,
    otherwise: Delivery,
}

impl PullRules {
    /// The first rule of `rules` that matches counts; if none matches, `otherwise` does.
    #[must_use]
    pub fn new(rules: Vec<PullRule>, otherwise: Delivery) -> Self {
        Self { rules, otherwise }
    }

    /// Whether any pull may be redirected.
    #[must_use]
    pub fn may_redirect(&self) -> bool {
        let mut ways = self.rules.iter().map(|rule| rule.mode).chain([self.otherwise]);
        ways.any(|way| way != Delivery::Proxy)
    }

    /// The problems of redirected pulls; none if there is no object store or if no pull may be redirected. Sends no request.
    pub async fn redirect_problems(&self, stores: &StoreStatistics, own: &OwnHosts) -> Vec<RedirectProblem> {
        let Some(bucket) = stores.object_store.as_ref().filter(|_| self.may_redirect()) else {
            return Vec::new();
        };
        let url = bucket.public_url().await;
        let store = url.as_deref().and_then(own_host::host_of_url);
        store.map(|store| own.problems_with(&store)).unwrap_or_default()
    }
}

/// The hosts under which clients reach a registry, as far as its shell knows them.
#[derive(Clone, Debug)]
pub struct OwnHosts {
    /// The hosts that are known.
    pub known: Vec<Host>,
    /// Whether clients may use other hosts too.
    pub has_others: bool,
}

/// Why some clients do not get redirects, or cannot follow them. A shell warns the operator of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RedirectProblem {
    /// The host of the object store is one of the registry's own, or below one. Clients would send their password to the
    /// object store, so pulls for these hosts go through the registry. The port does not matter.
    OwnHost {
        /// The host of the object store.
        object_store: Host,
        /// The hosts of the registry for which no pull is redirected.
        asked: Vec<Host>,
    },
    /// The object store has a private address and no host name. crane and other clients that are built on
    /// go-containerregistry follow no redirect to such an address.
    PrivateAddress {
        /// The address of the object store.
        object_store: Host,
    },
}

impl OwnHosts {
    fn problems_with(&self, object_store: &Host) -> Vec<RedirectProblem> {
        let mut problems = Vec::new();
        let is_within = |own: &&Host| own_host::is_within(object_store, own);
        let (same, others): (Vec<_>, Vec<_>) = self.known.iter().partition(is_within);
        if !same.is_empty() {
            problems.push(RedirectProblem::OwnHost {
                object_store: object_store.clone(),
                asked: same.into_iter().cloned().collect(),
            });
        }
        let redirected = !others.is_empty() || self.has_others;
        if redirected && object_store.name().parse().is_ok_and(is_private) {
            problems.push(RedirectProblem::PrivateAddress {
                object_store: object_store.clone(),
            });
        }
        problems
    }
}

/// Whether an address is private for clients that follow no redirect to a private address.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

impl DeliveryPolicy for PullRules {
    fn delivery(&self, repository: &RepositoryName, client: Option<IpAddr>) -> Delivery {
        let rule = self.rules.iter().find(|rule| rule.matches(repository, client));
        rule.map_or(self.otherwise, |rule| rule.mode)
    }
}

/// Parses how blobs are pulled: `redirect`, `proxy` or `auto`. The error is a text for the operator.
pub fn parse_delivery(text: &str) -> Result<Delivery, String> {
    match text {
        "redirect" => Ok(Delivery::Redirect),
        "proxy" => Ok(Delivery::Proxy),
        "auto" => Ok(Delivery::Auto),
        _ => Err("expected redirect, proxy or auto".into()),
    }
}

/// An exception to how blobs are pulled: `WAY[,repository=GLOB][,network=CIDR]`.
///
/// `GLOB` is a [`RepositoryPattern`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRule {
    /// How blobs are pulled if the rule matches.
    mode: Delivery,
    /// Only in these repositories.
    repository: Option<RepositoryPattern>,
    /// Only for clients of this network.
    network: Option<IpNet>,
}

impl PullRule {
    /// Whether the rule matches `repository` and `client`, whose address may be unknown.
    #[must_use]
    pub fn matches(&self, repository: &RepositoryName, client: Option<IpAddr>) -> bool {
        self.repository
            .as_ref()
            .is_none_or(|pattern| pattern.matches(repository))
            && self
                .network
                .is_none_or(|network| client.is_some_and(|client| network.contains(&client.to_canonical())))
    }
}

impl FromStr for PullRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(',').map(str::trim);
        let mode = words.next().unwrap_or_default();
        let mode = parse_delivery(mode)
            .map_err(|_| format!("a rule begins with redirect, proxy or auto, not with {mode:?}"))?;
        let (mut repository, mut network_) = (None, None);
        for word in words {
            let twice = match word.split_once('=') {
                Some(("repository", glob)) => {
                    let pattern = glob.parse().map_err(|error| format!("{glob:?} is {error}"))?;
                    repository.replace(pattern).is_some()
                }
                Some(("network", cidr)) => network_.replace(network(cidr)?).is_some(),
                _ => return Err(format!("expected repository=GLOB or network=CIDR, not {word:?}")),
            };
            if twice {
                return Err(format!(
                    "{word:?}: a rule has one repository and one network; make another rule"
                ));
            }
        }
        Ok(Self {
            mode,
            repository,
            network: network_,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules = [
            "proxy,repository=team/*,network=10.0.0.0/8",
            "redirect,repository=team/**",
            "auto,network=::/0",
        ];
        let rules = PullRules::new(
            rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            Delivery::Proxy,
        );
        let delivery = |repository: &str, client: Option<&str>| {
            rules.delivery(
                &repository.parse().unwrap(),
                client.map(|client| client.parse().unwrap()),
            )
        };
        assert_eq!(delivery("team/app", Some("10.0.0.1")), Delivery::Proxy);
        assert_eq!(delivery("team/app", Some("11.0.0.1")), Delivery::Redirect);
        assert_eq!(delivery("team/app", None), Delivery::Redirect);
        assert_eq!(delivery("zoo", Some("fd00::1")), Delivery::Auto);
        assert_eq!(delivery("zoo", Some("10.0.0.1")), Delivery::Proxy);
    }

    #[test]
    fn a_rule_or_the_default_may_redirect() {
        let may = |rule: &str, otherwise| PullRules::new(vec![rule.parse().unwrap()], otherwise).may_redirect();
        assert!(may("auto,network=10.0.0.0/8", Delivery::Proxy));
        assert!(may("proxy,network=10.0.0.0/8", Delivery::Redirect));
        assert!(!may("proxy,network=10.0.0.0/8", Delivery::Proxy));
    }

    #[test]
    fn problems_of_redirects() {
        let host = |text: &str| text.parse::<Host>().unwrap();
        let own = |object_store: &str, asked: &[&str]| RedirectProblem::OwnHost {
            object_store: host(object_store),
            asked: asked.iter().map(|asked| host(asked)).collect(),
        };
        let private = |object_store: &str| RedirectProblem::PrivateAddress {
            object_store: host(object_store),
        };
        for (object_store, known, has_others, expected) in [
            ("s3.example", &["registry.example"][..], true, vec![]),
            ("s3.example", &[], true, vec![]),
            (
                "s3.registry.example",
                &["registry.example", "b.example"],
                false,
                vec![own("s3.registry.example", &["registry.example"])],
            ),
            (
                "127.0.0.1:9000",
                &["127.0.0.1"],
                false,
                vec![own("127.0.0.1:9000", &["127.0.0.1"])],
            ),
            (
                "127.0.0.1:9000",
                &["127.0.0.1"],
                true,
                vec![own("127.0.0.1:9000", &["127.0.0.1"]), private("127.0.0.1:9000")],
            ),
            ("10.0.0.1", &["registry.example"], false, vec![private("10.0.0.1")]),
            ("[fe80::1]", &["registry.example"], false, vec![private("[fe80::1]")]),
            ("[fd00::1]", &["registry.example"], false, vec![private("[fd00::1]")]),
            ("169.254.0.1", &[], true, vec![private("169.254.0.1")]),
            ("192.0.2.1", &["registry.example"], true, vec![]),
        ] {
            let hosts = OwnHosts {
                known: known.iter().map(|own| host(own)).collect(),
                has_others,
            };
            let problems = hosts.problems_with(&host(object_store));
            assert_eq!(problems, expected, "{object_store} {known:?} {has_others}");
        }
    }

    #[test]
    fn rules_match_by_repository_and_network() {
        let matches = |rule: &str, repository: &str, client: Option<&str>| {
            let client = client.map(|client| client.parse().unwrap());
            rule.parse::<PullRule>()
                .unwrap()
                .matches(&repository.parse().unwrap(), client)
        };
        for (rule, repository, client, expected) in [
            ("proxy", "a", None, true),
            ("proxy,repository=team/*", "team/app", None, true),
            ("redirect,network=10.0.0.0/8", "a", Some("10.1.2.3"), true),
            ("redirect,network=10.0.0.0/8", "a", Some("::ffff:10.1.2.3"), true),
            ("redirect,network=10.0.0.0/8", "a", Some("11.1.2.3"), false),
            ("redirect,network=10.0.0.0/8", "a", None, false),
            ("redirect,network=fd00::/8", "a", Some("fd12::1"), true),
            ("redirect,network=192.0.2.7", "a", Some("192.0.2.7"), true),
            (
                "auto, network=10.0.0.0/8, repository=team/**",
                "team/a",
                Some("10.1.2.3"),
                true,
            ),
            (
                "auto,network=10.0.0.0/8,repository=team/**",
                "zoo",
                Some("10.1.2.3"),
                false,
            ),
        ] {
            assert_eq!(
                matches(rule, repository, client),
                expected,
                "{rule} {repository} {client:?}"
            );
        }
    }

    #[test]
    fn ways_to_pull() {
        for (text, way) in [
            ("redirect", Delivery::Redirect),
            ("proxy", Delivery::Proxy),
            ("auto", Delivery::Auto),
        ] {
            assert_eq!(parse_delivery(text), Ok(way));
        }
        assert!(parse_delivery("Auto").is_err() && parse_delivery("").is_err());
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for wrong in [
            "",
            "direct",
            "proxy,",
            "proxy,repo=a",
            "proxy,repository=",
            "proxy,repository=a**",
            "proxy,network=10.0.0.0/33",
            "proxy,network=lan",
            "proxy,repository=a,repository=b",
            "proxy,network=::/0,network=::/0",
        ] {
            assert!(wrong.parse::<PullRule>().is_err(), "{wrong:?}");
        }
    }
}
