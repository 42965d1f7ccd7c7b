//! The audit trail. Rows older than [`AuditEvent::LIFETIME_MS`] are removed when new ones are written, a few with each.

use oci::RepositoryName;
use registry::auth::CredentialId;
use registry::store::access::{AuditEvent, AuditQuery};
use registry::store::{Cursor, Slice, StoreError, Timestamp};
use rusqlite::{Row, params};

use super::super::rows::{OperationFailure, Rows};
use super::super::values::{Columns as _, bits, timestamp};

macro_rules! events {
    ($rest:literal) => {
        concat!(
            "SELECT at, id, event, principal, credential, address, repository, reference, before, after, request, \
             detail FROM audit WHERE ",
            $rest
        )
    };
}

/// A slice of all events.
pub(super) const EVENTS: &str = events!("(at, id) > (?1, ?2) AND at < ?3 ORDER BY at, id LIMIT ?4");

/// A slice of the events in a repository.
pub(super) const EVENTS_OF_REPOSITORY: &str =
    events!("repository = ?5 AND (at, id) > (?1, ?2) AND at < ?3 ORDER BY at, id LIMIT ?4");

/// Removes some events that are older than a time. More than one with each new event, so that all are removed in the end.
pub(super) const REMOVE_OLD: &str =
    "DELETE FROM audit WHERE (at, id) IN (SELECT at, id FROM audit WHERE at < ?1 ORDER BY at, id LIMIT 4)";

/// The maximum number of rows that a slice reads, whatever it looks for.
const MAX_ROWS: usize = 1_000;

/// The event after which a slice begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct AuditPosition {
    at: i64,
    id: i64,
}

impl AuditPosition {
    /// The later one of two positions: before the first event at `from`, and after `cursor`.
    pub(super) fn after(from: Option<Timestamp>, cursor: Option<&Cursor>) -> Result<Self, StoreError> {
        let from = (from.map_or(-1, |from| timestamp(from) - 1), i64::MAX);
        let cursor = cursor.map(parse).transpose()?;
        let (at, id) = cursor.map_or(from, |cursor| cursor.max(from));
        Ok(Self { at, id })
    }
}

fn parse(cursor: &Cursor) -> Result<(i64, i64), StoreError> {
    let position = cursor.0.split_once(' ');
    let position = position.and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    position.ok_or_else(|| StoreError::failed("not a cursor of this store"))
}

fn cursor(event: &AuditEvent) -> Cursor {
    Cursor(format!("{} {}", timestamp(event.at), bits(event.id)))
}

/// Reads a bounded number of rows, and returns those that are asked for.
pub(super) fn slice(
    rows: &Rows<'_>,
    query: &AuditQuery,
    position: AuditPosition,
    limit: usize,
) -> Result<Slice<AuditEvent>, OperationFailure> {
    let AuditPosition { at, id } = position;
    let to = query.to.map_or(i64::MAX, timestamp);
    // Most rows that are read may not be asked for.
    let is_filtered = query.principal.is_some() || query.event.is_some();
    let read = if is_filtered { MAX_ROWS } else { limit.min(MAX_ROWS) };
    let row_limit = i64::try_from(read).unwrap_or(i64::MAX);
    let events = match &query.repository {
        Some(repository) => rows.all(
            EVENTS_OF_REPOSITORY,
            params![at, id, to, row_limit, repository.as_str()],
            event,
        ),
        None => rows.all(EVENTS, params![at, id, to, row_limit], event),
    }?;
    let last = events.last().filter(|_| events.len() == read).map(cursor);
    let mut items: Vec<_> = events.into_iter().filter(|event| query.matches(event)).collect();
    let mut next = last;
    if items.len() > limit {
        items.truncate(limit);
        next = items.last().map(cursor);
    }
    Ok(Slice { items, next })
}

fn event(row: &Row<'_>) -> Result<AuditEvent, OperationFailure> {
    Ok(AuditEvent {
        at: row.timestamp(0)?,
        id: row.uid(1)?,
        event: row.parsed(2)?,
        principal: row.value(3)?,
        credential: row.parsed_if_any(4)?,
        address: row.value(5)?,
        repository: row.parsed_if_any(6)?,
        reference: row.value(7)?,
        before: row.value(8)?,
        after: row.value(9)?,
        request: row.value(10)?,
        detail: row.value(11)?,
    })
}

/// Whether an event is recorded.
pub(super) fn has(rows: &Rows<'_>, event: &AuditEvent) -> Result<bool, OperationFailure> {
    rows.exists(
        "SELECT 1 FROM audit WHERE at = ?1 AND id = ?2",
        params![timestamp(event.at), bits(event.id)],
    )
}

/// Records an event in the transaction of the change that it is about. A call that is made again replaces its own event.
pub(in super::super) fn record(rows: &Rows<'_>, event: &AuditEvent, now: Timestamp) -> Result<(), OperationFailure> {
    rows.change(
        "INSERT OR REPLACE INTO audit (at, id, event, principal, credential, address, repository, reference, before, \
         after, request, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            timestamp(event.at),
            bits(event.id),
            event.event.as_str(),
            event.principal,
            event.credential.as_ref().map(CredentialId::to_string),
            event.address,
            event.repository.as_ref().map(RepositoryName::as_str),
            event.reference,
            event.before,
            event.after,
            event.request,
            event.detail,
        ],
    )?;
    let oldest = now.0.saturating_sub(AuditEvent::LIFETIME_MS);
    rows.change(REMOVE_OLD, [timestamp(Timestamp(oldest))])?;
    Ok(())
}
