//! Counters of wrong passwords.

use registry::store::access::{FailureKey, Failures};
use registry::store::{Context, StoreError, Timestamp, Uid};

use super::super::keys;
use crate::records::{ItemBuilder, ItemFields, attributes, damaged};
use crate::table::{Item, Write, WriteCondition};

/// A counter. DynamoDB removes it a day after the last failure, though not at once: an ended row counts as absent.
pub(in crate::access) struct FailuresRow {
    pub(in crate::access) failures: Failures,
    /// The uid of the call that wrote it.
    pub(in crate::access) writer: Uid,
    /// When it ends, in seconds.
    expires: u64,
}

impl FailuresRow {
    const ATTRIBUTES: [&str; 7] = [
        attributes::VERSION,
        attributes::WRITER,
        attributes::COUNT,
        attributes::LAST,
        attributes::UNTIL,
        attributes::AT,
        attributes::EXPIRES,
    ];

    /// A write that gives the row these values, under this version.
    pub(in crate::access) fn update(
        cx: Context,
        key: FailureKey,
        failures: &Failures,
        version: u64,
        condition: WriteCondition,
    ) -> Write {
        let last: Vec<u8> = failures.last.iter().flat_map(|hash| hash.to_be_bytes()).collect();
        let end = failures.at.unwrap_or(cx.now).plus_millis(Failures::LIFETIME_MS);
        let item = ItemBuilder::default()
            .number(attributes::VERSION, version)
            .text(attributes::WRITER, cx.uid)
            .number(attributes::COUNT, failures.count)
            .bytes_if_any(attributes::LAST, &last)
            .number_if_any(attributes::UNTIL, failures.until.map(|until| until.0))
            .number_if_any(attributes::AT, failures.at.map(|at| at.0))
            .number(attributes::EXPIRES, end.0.div_ceil(1000))
            .item(keys::failures(key));
        Write::change_to(item, &Self::ATTRIBUTES, condition)
    }

    pub(in crate::access) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = ItemFields(item);
        let last = fields.bytes_or_none(attributes::LAST)?;
        let (hashes, rest) = last.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(damaged(&item.key, "the hashes have the wrong length"));
        }
        Ok(Self {
            failures: Failures {
                version: fields.number(attributes::VERSION)?,
                count: fields.small(attributes::COUNT)?,
                last: hashes.iter().map(|hash| u64::from_be_bytes(*hash)).collect(),
                until: fields.timestamp_if_any(attributes::UNTIL)?,
                at: fields.timestamp_if_any(attributes::AT)?,
            },
            writer: fields.uid(attributes::WRITER)?,
            expires: fields.number(attributes::EXPIRES)?,
        })
    }

    pub(in crate::access) fn has_ended(&self, now: Timestamp) -> bool {
        self.expires < Self::first_end_after(now)
    }

    /// The condition that the row has ended.
    pub(in crate::access) fn ended(now: Timestamp) -> WriteCondition {
        WriteCondition::Below(attributes::EXPIRES, Self::first_end_after(now))
    }

    fn first_end_after(now: Timestamp) -> u64 {
        now.0 / 1000 + 1
    }
}
