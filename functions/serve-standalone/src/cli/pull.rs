//! The flags that say by which way blobs leave, and to whom.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use registry::Delivery;
use shell::client_address::network;
use shell::delivery::PullRule;

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
    use super::*;

    #[test]
    fn lifetimes_are_bounded() {
        assert_eq!("12h".parse(), Ok(PresignLifetime(Duration::from_hours(12))));
        for wrong in ["43201s", "59s", "0", "forever"] {
            assert!(wrong.parse::<PresignLifetime>().is_err(), "{wrong}");
        }
    }
}
