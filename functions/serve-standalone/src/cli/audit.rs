//! The flags of `roadstead audit`.

use std::time::Duration;

use clap::Args;
use registry::store::access::{AuditEvent, AuditKind};
use shell::values::Span;

use super::stores::StoreArgs;

#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// Only the events of the last time, for example 24h or 7d [default: all, which is 400 days]
    #[arg(long, value_name = "DURATION", value_parser = since)]
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

/// For how many days an event is kept.
const KEPT_DAYS: u64 = AuditEvent::LIFETIME_MS / (24 * 60 * 60 * 1000);

/// Parses a duration up to the one for which events are kept, which is longer than a [`Span`].
fn since(text: &str) -> Result<Span, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    match days {
        Some(days @ 1..=KEPT_DAYS) => Ok(Span(Duration::from_hours(24 * days))),
        _ => text
            .parse()
            .map_err(|_| format!("expected a duration of at most {KEPT_DAYS}d, such as 24h or 7d")),
    }
}

/// Parses a kind of events.
fn kind(text: &str) -> Result<AuditKind, String> {
    text.parse().map_err(|_| {
        let kinds: Vec<_> = AuditKind::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("expected one of {}", kinds.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_asked_for_as_long_as_they_are_kept() {
        let hours = |hours| Ok(Span(Duration::from_hours(hours)));
        for (text, expected) in [
            ("400d", hours(9_600)),
            ("366d", hours(8_784)),
            ("7d", hours(168)),
            ("24h", hours(24)),
        ] {
            assert_eq!(since(text), expected, "{text}");
        }
        for wrong in ["", "0d", "401d", "-1d", "d", "yesterday", "9601h"] {
            assert!(
                since(wrong).is_err_and(|error| error.contains("at most 400d")),
                "{wrong}"
            );
        }
    }
}
