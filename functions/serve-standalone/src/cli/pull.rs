//! The flags that say by which way blobs leave, and to whom.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use oci::RepositoryName;
use registry::Delivery;

use super::values::Span;

/// How blobs are pulled.
#[derive(Args, Debug)]
#[command(next_help_heading = "Pulls")]
pub(crate) struct PullArgs {
    /// By which way blobs reach those who pull them, when they lie in an object store. A pull is never redirected to the
    /// host that was asked for it, or below it, whatever this says: clients would send their password along. Which host that
    /// was, `Host`, `X-Forwarded-Host` and `Forwarded` say
    #[arg(long, env = "ROADSTEAD_PULL", value_name = "WAY", default_value = "auto")]
    pub(crate) pull: PullMode,
    /// Exceptions to --pull, as `WAY[,repository=GLOB][,network=CIDR]`: the first one that matches counts. In a glob
    /// `*` is anything within one component of a name, and `**` at its end any number of components. May be repeated;
    /// in the environment, rules are separated by `;`
    #[arg(long, env = "ROADSTEAD_PULL_RULE", value_name = "RULE", value_delimiter = ';')]
    pub(crate) pull_rule: Vec<PullRule>,
    /// For how long the URL of a redirect works at most; 1m to 12h
    #[arg(
        long,
        env = "ROADSTEAD_PRESIGN_LIFETIME",
        value_name = "DURATION",
        default_value = "15m"
    )]
    pub(crate) presign_lifetime: PresignLifetime,
    /// Networks of reverse proxies whose `X-Forwarded-For` is believed. Without this the client of every request is
    /// whoever opened the connection, also when that is a proxy. May be repeated, or separated by commas
    #[arg(long, env = "ROADSTEAD_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    pub(crate) trusted_proxy: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullMode {
    /// From the object store, by a redirect
    Redirect,
    /// Through the registry
    Proxy,
    /// By a redirect if the client can probably reach the object store
    Auto,
}

impl From<PullMode> for Delivery {
    fn from(mode: PullMode) -> Self {
        match mode {
            PullMode::Redirect => Self::Redirect,
            PullMode::Proxy => Self::Proxy,
            PullMode::Auto => Self::Auto,
        }
    }
}

/// An exception to `--pull`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PullRule {
    /// What happens where it matches.
    pub(crate) mode: PullMode,
    /// Only in these repositories.
    repository: Option<Glob>,
    /// Only for clients of this network.
    network: Option<IpNet>,
}

impl PullRule {
    /// Whether it is meant for `client`, whose address may be unknown, and `repository`.
    pub(crate) fn matches(&self, repository: &RepositoryName, client: Option<IpAddr>) -> bool {
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
        let mode = PullMode::from_str(mode, false)
            .map_err(|_| format!("a rule begins with redirect, proxy or auto, not with {mode:?}"))?;
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

/// Reads a network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let read = text
        .parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    read.ok_or_else(|| format!("{text:?} is not a network such as 10.0.0.0/8 or fd00::/8"))
}

/// Names of repositories, by a pattern over their components.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob {
    /// Each may hold `*`.
    components: Vec<String>,
    /// One or more components more.
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

/// Whether `*` in the pattern can stand for something so that it reads like the name. Linear but for a step back to the
/// last star, as is usual: names and patterns are short.
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

/// How long a presigned URL works: at most as long as the bytes that lost their name are kept, with room to spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PresignLifetime(pub(crate) Duration);

impl FromStr for PresignLifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Span(lifetime) = text.parse()?;
        if !(Duration::from_mins(1)..=Duration::from_hours(12)).contains(&lifetime) {
            return Err("expected a duration from 1m to 12h".into());
        }
        Ok(Self(lifetime))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

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

    #[test]
    fn lifetimes_are_bounded() {
        assert_eq!("12h".parse(), Ok(PresignLifetime(Duration::from_hours(12))));
        for wrong in ["43201s", "59s", "0", "forever"] {
            assert!(wrong.parse::<PresignLifetime>().is_err(), "{wrong}");
        }
    }
}
