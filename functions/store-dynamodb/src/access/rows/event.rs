//! Events of the audit trail, and since when there are any.

use registry::store::access::AuditEvent;
use registry::store::{StoreError, Timestamp};

use super::super::keys::{self, EventPosition};
use crate::records::{ItemBuilder, ItemFields, attributes, damaged};
use crate::table::{Item, Value, WriteCondition};

/// An event. DynamoDB removes it after 400 days.
pub(in crate::access) struct EventRow;

impl EventRow {
    pub(in crate::access) fn item(event: &AuditEvent) -> Item {
        ItemBuilder::default()
            .text(attributes::EVENT, event.event)
            .text(attributes::ACTOR, &event.principal)
            .text_if_any(attributes::CREDENTIAL, event.credential)
            .text_if_any(attributes::ADDRESS, event.address.as_ref())
            .text_if_any(attributes::REPOSITORY, event.repository.as_ref())
            .text_if_any(attributes::REFERENCE, event.reference.as_ref())
            .text_if_any(attributes::BEFORE, event.before.as_ref())
            .text_if_any(attributes::AFTER, event.after.as_ref())
            .text_if_any(attributes::REQUEST, event.request.as_ref())
            .text_if_any(attributes::DETAIL, event.detail.as_ref())
            .number(
                attributes::EXPIRES,
                event.at.plus_millis(AuditEvent::LIFETIME_MS).0.div_ceil(1000),
            )
            .item(keys::event(event))
    }

    pub(in crate::access) fn read(item: &Item) -> Result<AuditEvent, StoreError> {
        let fields = ItemFields(item);
        let text = |name| Ok::<_, StoreError>(fields.text_if_any(name)?.map(ToOwned::to_owned));
        let (at, id) = EventPosition::parse(&item.key.sort)
            .and_then(EventPosition::event)
            .ok_or_else(|| damaged(&item.key, "not the key of an event"))?;
        Ok(AuditEvent {
            at,
            id,
            event: fields.parsed(attributes::EVENT)?,
            principal: fields.text(attributes::ACTOR)?.to_owned(),
            credential: fields.parsed_if_any(attributes::CREDENTIAL)?,
            address: text(attributes::ADDRESS)?,
            repository: fields.parsed_if_any(attributes::REPOSITORY)?,
            reference: text(attributes::REFERENCE)?,
            before: text(attributes::BEFORE)?,
            after: text(attributes::AFTER)?,
            request: text(attributes::REQUEST)?,
            detail: text(attributes::DETAIL)?,
        })
    }
}

/// The time of the first event: lists begin there. An import of earlier events moves it back.
pub(in crate::access) struct FirstEventRow;

impl FirstEventRow {
    pub(in crate::access) fn item(at: Timestamp) -> Item {
        ItemBuilder::default()
            .timestamp(attributes::AT, at)
            .item(keys::first_event())
    }

    pub(in crate::access) fn read(item: &Item) -> Result<Timestamp, StoreError> {
        ItemFields(item).timestamp(attributes::AT)
    }

    /// The condition that the row is as it was read.
    pub(in crate::access) fn is(first: Timestamp) -> WriteCondition {
        WriteCondition::Is(attributes::AT, Value::N(first.0))
    }
}
