//! Which pulls are redirected to the object store: a default, and rules for repositories and clients.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use oci::RepositoryName;
use registry::auth::RepositoryPattern;
use registry::{Delivery, DeliveryPolicy};

use crate::client_address::network;

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
    pub mode: Delivery,
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
