//! `roadstead audit`.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use registry::auth::Principal;
use registry::store::access::{AccessStore, AuditEvent, AuditQuery};
use registry::store::{Timestamp, Uid};
use serde_json::{Value, json};
use shell::clock;
use shell::stores::Absent;
use shell::timestamp::milliseconds;

use super::output::{Form, Output};
use super::store::{PAGE, cx, parse_repository, with_records};
use crate::cli::AuditArgs;
use crate::failure::Failure;

const LIST: &[(&str, usize)] = &[
    ("AT", 24),
    ("EVENT", 18),
    ("BY", 16),
    ("FROM", 15),
    ("REPOSITORY", 24),
    ("REFERENCE", 24),
    ("BEFORE", 12),
    ("AFTER", 12),
    ("DETAIL", 0),
];
/// An event is visible at most this long after its time, in milliseconds: a request has less time to make its change, and the
/// clocks of servers differ by less.
const SETTLING_MS: u64 = 2 * 60 * 1000;
/// How often new events are read.
const PERIOD: Duration = Duration::from_secs(2);

/// Lists the events of the audit trail.
pub(super) fn run(args: &AuditArgs) -> Result<(), Failure> {
    let repository = args.repository.as_deref().map(parse_repository).transpose()?;
    let principal = args.principal.as_deref().map(|principal| match principal {
        // No account has this name.
        "anonymous" => Principal::ANONYMOUS.to_string(),
        principal => principal.to_owned(),
    });
    let since = match args.since {
        Some(span) => Some(before_now(u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX))),
        None => args.follow.then(|| before_now(SETTLING_MS)),
    };
    let mut query = AuditQuery {
        from: since,
        to: None,
        principal,
        repository,
        event: args.event,
    };
    with_records(&args.stores, Absent::Refuse, async |records| {
        let store = records.access;
        let mut output = Output::new(args.json, LIST)?;
        if !args.follow {
            read(&*store, &query, |event| show(&mut output, event)).await?;
            return Ok(output.finish()?);
        }
        let mut seen = Seen::default();
        loop {
            let next = before_now(SETTLING_MS);
            read(&*store, &query, |event| {
                if seen.is_new(event) {
                    show(&mut output, event)?;
                }
                Ok(())
            })
            .await?;
            output.flush()?;
            // Events that come late are read too, with those around them that were seen.
            query.from = query.from.max(Some(next));
            seen.forget(next);
            tokio::time::sleep(PERIOD).await;
        }
    })
}

/// This many milliseconds ago.
fn before_now(millis: u64) -> Timestamp {
    Timestamp(clock::now().0.saturating_sub(millis))
}

/// The events that were shown, as far as they may be read again.
#[derive(Default)]
struct Seen(BTreeSet<(Timestamp, Uid)>);

impl Seen {
    /// Whether the event is seen for the first time.
    fn is_new(&mut self, event: &AuditEvent) -> bool {
        self.0.insert((event.at, event.id))
    }

    /// Forgets the events before this time, which are not read again.
    fn forget(&mut self, before: Timestamp) {
        self.0 = self.0.split_off(&(before, Uid(0)));
    }
}

/// Calls `show` with every event that is asked for, in the order of time.
async fn read(
    store: &dyn AccessStore,
    query: &AuditQuery,
    mut show: impl FnMut(&AuditEvent) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let slice = store.audit(cx(), query, after.as_ref(), PAGE).await;
        let slice = slice.map_err(|error| Failure::failed("cannot read the audit trail", error))?;
        for event in &slice.items {
            show(event)?;
        }
        match slice.next {
            None => return Ok(()),
            next => after = next,
        }
    }
}

fn show(output: &mut Output, event: &AuditEvent) -> io::Result<()> {
    if output.form() == Form::Json {
        return output.json(&event_json(event));
    }
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
    output.columns(&[
        time(event.at),
        event.event.to_string(),
        printable(&event.principal),
        text(&event.address),
        event
            .repository
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string),
        text(&event.reference),
        text(&event.before),
        text(&event.after),
        text(&event.detail),
    ])
}

fn time(at: Timestamp) -> String {
    let mut text = String::new();
    milliseconds(&mut text, at);
    text
}

fn event_json(event: &AuditEvent) -> Value {
    json!({
        "at": time(event.at),
        "id": event.id.to_string(),
        "event": event.event,
        "principal": event.principal,
        "credential": event.credential,
        "address": event.address,
        "repository": event.repository.as_ref().map(ToString::to_string),
        "reference": event.reference,
        "before": event.before,
        "after": event.after,
        "request": event.request,
        "detail": event.detail,
    })
}

/// A text of the trail, in one column of one line: characters that a terminal would obey or hide are escaped.
fn printable(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // Quotes harm nothing, and the detail has many.
            '"' | '\'' => escaped.push(character),
            _ => escaped.extend(character.escape_debug()),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use registry::store::access::AuditKind;

    use super::*;

    #[test]
    fn texts_of_the_trail_cannot_control_a_terminal() {
        for (text, expected) in [
            ("alice", "alice"),
            (r#"[{"tag":"v1"}]"#, r#"[{"tag":"v1"}]"#),
            ("a\nb\tc\r", r"a\nb\tc\r"),
            ("\u{1b}[2J", r"\u{1b}[2J"),
            ("\u{9b}2J\u{7f}", r"\u{9b}2J\u{7f}"),
            ("\u{202e}evil", r"\u{202e}evil"),
            (r"a\b", r"a\\b"),
            ("Zoë", "Zoë"),
        ] {
            assert_eq!(printable(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_event_is_shown_once() {
        let event = |at, id| AuditEvent::new(AuditKind::TagDeleted, "alice".to_owned(), Timestamp(at), Uid(id));
        let mut seen = Seen::default();
        assert!(seen.is_new(&event(1, 7)) && seen.is_new(&event(2, 7)) && seen.is_new(&event(2, 8)));
        assert!(!seen.is_new(&event(2, 7)));
        seen.forget(Timestamp(2));
        assert_eq!(seen.0.len(), 2);
        assert!(!seen.is_new(&event(2, 8)));
    }
}
