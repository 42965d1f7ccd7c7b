//! The flags of `roadstead audit`.

use clap::Args;
use registry::store::access::AuditKind;
use shell::values::Span;

use super::stores::StoreArgs;

#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// Only the events of the last time, for example 24h or 7d [default: all, which is 400 days]
    #[arg(long, value_name = "DURATION")]
    pub(crate) since: Option<Span>,
    /// Only what this principal has done: alice, robot:ci, anonymous, or :operator for commands like this one
    #[arg(long, value_name = "PRINCIPAL")]
    pub(crate) principal: Option<String>,
    /// Only what has changed in this repository
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) repository: Option<String>,
    /// Only this kind of event, for example tag.deleted
    #[arg(long, value_name = "KIND", value_parser = kind)]
    pub(crate) event: Option<AuditKind>,
    /// Go on, and print new events as they come, until the command is interrupted. Without --since, it begins with the events
    /// of the last two minutes
    #[arg(long)]
    pub(crate) follow: bool,
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

/// Parses a kind of events.
fn kind(text: &str) -> Result<AuditKind, String> {
    text.parse().map_err(|_| {
        let kinds: Vec<_> = AuditKind::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("expected one of {}", kinds.join(", "))
    })
}
