//! Tags, their versions, and their history.

use oci::{Digest, RepositoryName, Tag};
use registry::store::metadata::{Deletion, HistoryRecord, TagRecord};
use registry::store::{StoreError, Timestamp};

use super::fields::ItemBuilder;
use super::{ItemFields, attributes};
use crate::keys;
use crate::table::{Item, Value, WriteCondition};

/// A tag. One read of this row answers HEAD by tag.
pub(crate) struct TagRow;

impl TagRow {
    pub(crate) fn attributes(record: &TagRecord) -> Vec<(&'static str, Value)> {
        vec![
            (attributes::DIGEST, Value::S(record.digest.to_string())),
            (attributes::MEDIA_TYPE, Value::S(record.media_type.as_str().to_owned())),
            (attributes::SIZE, Value::N(record.size)),
            (attributes::VERSION, Value::N(record.version)),
            (attributes::AT, Value::N(record.at.0)),
        ]
    }

    pub(crate) fn item(repository: &RepositoryName, tag: &Tag, record: &TagRecord) -> Item {
        let attributes = Self::attributes(record).into_iter();
        Item {
            key: keys::tag(repository, tag),
            attributes: attributes.map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    pub(crate) fn read(item: &Item) -> Result<TagRecord, StoreError> {
        let fields = ItemFields(item);
        Ok(TagRecord {
            digest: fields.parsed(attributes::DIGEST)?,
            media_type: fields.parsed(attributes::MEDIA_TYPE)?,
            size: fields.number(attributes::SIZE)?,
            version: fields.number(attributes::VERSION)?,
            at: fields.timestamp(attributes::AT)?,
            is_suspect: fields.flag(attributes::DEFECT),
        })
    }
}

/// The last deletion of a tag. While the tag exists, the row has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// The version of the deletion.
    pub(crate) version: u64,
    /// When the tag was deleted.
    pub(crate) at: Timestamp,
    /// The digest that the tag had named. `None`: a program that did not record it here deleted the tag; the history
    /// has the digest.
    pub(crate) before: Option<Digest>,
    /// Since when the tag had named it.
    pub(crate) since: Option<Timestamp>,
}

impl Tombstone {
    /// The tombstone of a deletion in the history.
    pub(crate) fn of(deletion: &HistoryRecord) -> Self {
        Self {
            version: deletion.version,
            at: deletion.at,
            before: deletion.before,
            since: deletion.since,
        }
    }

    /// The deletion. `None`: it has to be read from the history.
    pub(crate) fn deletion(&self) -> Option<Deletion> {
        self.before.map(|digest| Deletion {
            digest,
            since: self.since,
            at: self.at,
        })
    }

    pub(crate) fn item(&self, repository: &RepositoryName, tag: &Tag) -> Item {
        ItemBuilder::default()
            .number(attributes::VERSION, self.version)
            .timestamp(attributes::AT, self.at)
            .text_if_any(attributes::BEFORE, self.before)
            .timestamp_if_any(attributes::SINCE, self.since)
            .item(keys::tombstone(repository, tag))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = ItemFields(item);
        Ok(Self {
            version: fields.number(attributes::VERSION)?,
            at: fields.timestamp(attributes::AT)?,
            before: fields.parsed_if_any(attributes::BEFORE)?,
            since: fields.number_if_any(attributes::SINCE)?.map(Timestamp),
        })
    }
}

/// The condition that the row exists and has this version; for tags, tombstones, manifests and sessions.
pub(crate) fn has_version(version: u64) -> WriteCondition {
    WriteCondition::Is(attributes::VERSION, Value::N(version))
}

/// A change of a tag, in its history.
pub(crate) struct ChangeRow;

impl ChangeRow {
    pub(crate) fn item(repository: &RepositoryName, tag: &Tag, change: &HistoryRecord) -> Item {
        ItemBuilder::default()
            .number(attributes::VERSION, change.version)
            .text_if_any(attributes::BEFORE, change.before)
            .text_if_any(attributes::AFTER, change.after)
            .text(attributes::PRINCIPAL, &change.principal)
            .text_if_any(attributes::PROMOTED_FROM, change.promoted_from.as_ref())
            .timestamp(attributes::AT, change.at)
            .timestamp_if_any(attributes::SINCE, change.since)
            .item(keys::change(repository, tag, change.version))
    }

    pub(crate) fn read(item: &Item) -> Result<HistoryRecord, StoreError> {
        let fields = ItemFields(item);
        Ok(HistoryRecord {
            version: fields.number(attributes::VERSION)?,
            before: fields.parsed_if_any::<Digest>(attributes::BEFORE)?,
            after: fields.parsed_if_any::<Digest>(attributes::AFTER)?,
            principal: fields.text(attributes::PRINCIPAL)?.to_owned(),
            promoted_from: fields.text_if_any(attributes::PROMOTED_FROM)?.map(str::to_owned),
            at: fields.timestamp(attributes::AT)?,
            since: fields.number_if_any(attributes::SINCE)?.map(Timestamp),
        })
    }
}
