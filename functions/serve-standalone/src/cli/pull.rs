//! The flags that say how blobs are pulled: through the registry, or by a redirect to the object store.

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use ipnet::IpNet;
use registry::Delivery;
use shell::client_address::network;
use shell::delivery::{PullRule, PullRules, parse_delivery};
use shell::settings;
use shell::values::PresignLifetime;

/// The flags of pulls.
#[derive(Args, Debug)]
#[command(next_help_heading = "Pulls")]
pub(crate) struct PullArgs {
    /// How clients get blobs from an object store. Whatever this says, a pull is never redirected to the host of the request
    /// (as `Host`, `X-Forwarded-Host` and `Forwarded` tell it) or to a host below it: clients would send their password
    /// there
    #[arg(
        long,
        env = settings::PULL.variable,
        value_name = "WAY",
        default_value = settings::PULL.default,
        value_parser = pull_words()
    )]
    pub(crate) pull: Delivery,
    /// Exceptions to --pull, as `WAY[,repository=GLOB][,network=CIDR]`; the first rule that matches counts. In a glob,
    /// `*` matches any text within one component of a repository's name, and `**` at the end matches any number of
    /// components. May be repeated; in the environment, rules are separated by `;`
    #[arg(long, env = settings::PULL_RULE.variable, value_name = "RULE", value_delimiter = ';')]
    pub(crate) pull_rule: Vec<PullRule>,
    /// Maximum time for which the presigned URL of a redirect works; 1m to 12h
    #[arg(
        long,
        env = settings::PRESIGN_LIFETIME.variable,
        value_name = "DURATION",
        default_value = settings::PRESIGN_LIFETIME.default
    )]
    pub(crate) presign_lifetime: PresignLifetime,
    /// Networks of reverse proxies whose `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` the server trusts. A
    /// proxy must set these, and not pass on what its client has sent. The client of any other request is the address that
    /// opened the connection, even if that is a proxy. May be repeated, or separated by commas
    #[arg(
        long,
        env = settings::TRUSTED_PROXY.variable,
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = network
    )]
    pub(crate) trusted_proxy: Vec<IpNet>,
}

impl PullArgs {
    /// How blobs are pulled.
    pub(crate) fn rules(&self) -> PullRules {
        PullRules::new(self.pull_rule.clone(), self.pull)
    }
}

/// The words of `--pull`, with their help.
fn pull_words() -> impl TypedValueParser<Value = Delivery> {
    PossibleValuesParser::new([
        PossibleValue::new("redirect").help("Redirect clients to the object store"),
        PossibleValue::new("proxy").help("The registry sends the blobs"),
        PossibleValue::new("auto").help("Redirect clients that can probably reach the object store"),
    ])
    .try_map(|word| parse_delivery(&word))
}
