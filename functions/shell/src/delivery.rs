//! Which pulls are redirected to the object store: a default, and rules for repositories and clients.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use oci::RepositoryName;
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

/// An exception to how blobs are pulled: `WAY[,repository=GLOB][,network=CIDR]`.
///
/// In a glob, `*` matches any text within one component of a name, and `**` at the end matches any number of components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRule {
    /// How blobs are pulled if the rule matches.
    pub mode: Delivery,
    /// Only in these repositories.
    repository: Option<Glob>,
    /// Only for clients of this network.
    network: Option<IpNet>,
}

impl PullRule {
    /// Whether the rule matches `repository` and `client`, whose address may be unknown.
    #[must_use]
    pub fn matches(&self, repository: &RepositoryName, client: Option<IpAddr>) -> bool {
        self.repository
            .as_ref()
            .is_none_or(|glob| glob.matches(repository.as_str()))
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
        let mode = match mode {
            "redirect" => Delivery::Redirect,
            "proxy" => Delivery::Proxy,
            "auto" => Delivery::Auto,
            _ => return Err(format!("a rule begins with redirect, proxy or auto, not with {mode:?}")),
        };
        let (mut repository, mut network_) = (None, None);
        for word in words {
            let twice = match word.split_once('=') {
                Some(("repository", glob)) => repository.replace(glob.parse()?).is_some(),
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

/// A pattern for the components of repository names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob {
    /// The components; each may contain `*`.
    components: Vec<String>,
    /// Whether one or more further components follow.
    deep: bool,
}

impl Glob {
    fn matches(&self, name: &str) -> bool {
        let mut names = name.split('/');
        for component in &self.components {
            match names.next() {
                Some(name) if matches_component(component.as_bytes(), name.as_bytes()) => {}
                _ => return false,
            }
        }
        names.next().is_some() == self.deep
    }
}

impl FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut components: Vec<String> = text.split('/').map(ToOwned::to_owned).collect();
        let deep = components.pop_if(|last| last == "**").is_some();
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-*".contains(&byte);
        let fine =
            |component: &String| !component.is_empty() && !component.contains("**") && component.bytes().all(legal);
        if text.is_empty() || !components.iter().all(fine) {
            return Err(format!(
                "{text:?} is not a pattern for repositories such as team/app, team/* or team/** (`**` stands at the end)"
            ));
        }
        Ok(Self { components, deep })
    }
}

/// Whether the pattern matches the name; `*` matches any text. If the text after a star does not match, the search continues
/// at the last star. This is fast enough, because names and patterns are short.
fn matches_component(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star = None;
    while at < name.len() {
        match pattern.get(from) {
            Some(b'*') => {
                star = Some((from, at));
                from += 1;
            }
            Some(byte) if *byte == name[at] => {
                from += 1;
                at += 1;
            }
            _ => {
                let Some((behind, taken)) = star else { return false };
                star = Some((behind, taken + 1));
                from = behind + 1;
                at = taken + 1;
            }
        }
    }
    pattern[from..].iter().all(|byte| *byte == b'*')
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
            ("proxy,repository=team/*", "team", None, false),
            ("proxy,repository=team/*", "team/app/x", None, false),
            ("proxy,repository=team/**", "team/app/x", None, true),
            ("proxy,repository=team/**", "team/app", None, true),
            ("proxy,repository=team/**", "team", None, false),
            ("proxy,repository=team/**", "teams/app", None, false),
            ("proxy,repository=**", "anything/at/all", None, true),
            ("proxy,repository=*", "one", None, true),
            ("proxy,repository=*", "one/two", None, false),
            ("proxy,repository=*/app-*-x", "team/app-1-x-2-x", None, true),
            ("proxy,repository=*/app-*-x", "team/app-1-y", None, false),
            ("proxy,repository=a.b", "a-b", None, false),
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
    fn what_is_no_rule_is_refused() {
        for wrong in [
            "",
            "direct",
            "proxy,",
            "proxy,repo=a",
            "proxy,repository=",
            "proxy,repository=A",
            "proxy,repository=a//b",
            "proxy,repository=**/b",
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
