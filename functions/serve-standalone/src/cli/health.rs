//! The flags of `roadstead health`.

use std::net::SocketAddr;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::values;
use shell::values::Span;

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each of them is a flag")]
pub(crate) struct HealthArgs {
    /// The --listen of the server. If that is 0.0.0.0 or `[::]`, the server is asked on loopback
    #[arg(
        long,
        env = values::LISTEN_VARIABLE,
        value_name = "ADDRESS:PORT",
        default_value = values::DEFAULT_LISTEN,
        value_parser = values::listen
    )]
    pub(crate) listen: SocketAddr,
    /// Ask over TLS. The variable `ROADSTEAD_TLS_CERT` of the server has the same effect. The server's certificate is not
    /// verified: the request does not leave this host, and contains no secret
    #[arg(long, env = values::TLS_CERT_VARIABLE, hide_env = true, value_parser = FalseyValueParser::new())]
    pub(crate) tls: bool,
    /// Ask only whether the process answers (`/livez`); for probes after which a server is restarted
    #[arg(long, conflicts_with = "push")]
    pub(crate) live: bool,
    /// Ask also whether pushes work (`/readyz?push`)
    #[arg(long)]
    pub(crate) push: bool,
    /// Maximum time for the response
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub(crate) timeout: Span,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
