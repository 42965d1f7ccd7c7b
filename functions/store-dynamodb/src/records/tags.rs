//! Tags, their versions, and their history.

use oci::{Digest, RepositoryName, Tag};
use registry::store::metadata::{HistoryRecord, TagRecord};
use registry::store::{StoreError, Timestamp};

use super::fields::Making;
use super::{Fields, names};
use crate::keys;
use crate::table::{Condition, Item, Value};

/// A tag. One read answers HEAD by tag.
pub(crate) struct TagRow;

impl TagRow {
    pub(crate) fn attributes(record: &TagRecord) -> Vec<(&'static str, Value)> {
        vec![
            (names::DIGEST, Value::S(record.digest.to_string())),
            (names::MEDIA_TYPE, Value::S(record.media_type.as_str().to_owned())),
            (names::SIZE, Value::N(record.size)),
            (names::VERSION, Value::N(record.version)),
            (names::AT, Value::N(record.at.0)),
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
        let fields = Fields(item);
        Ok(TagRecord {
            digest: fields.parsed(names::DIGEST)?,
            media_type: fields.parsed(names::MEDIA_TYPE)?,
            size: fields.number(names::SIZE)?,
            version: fields.number(names::VERSION)?,
            at: fields.timestamp(names::AT)?,
            is_suspect: fields.flag(names::DEFECT),
        })
    }
}

/// The last version of a tag that was deleted; says nothing while the tag lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// The version of the deletion.
    pub(crate) version: u64,
    /// When.
    pub(crate) at: Timestamp,
}

impl Tombstone {
    pub(crate) fn item(&self, repository: &RepositoryName, tag: &Tag) -> Item {
        Making::default()
            .number(names::VERSION, self.version)
            .timestamp(names::AT, self.at)
            .item(keys::tombstone(repository, tag))
    }

    pub(crate) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = Fields(item);
        Ok(Self {
            version: fields.number(names::VERSION)?,
            at: fields.timestamp(names::AT)?,
        })
    }
}

/// The row exists and has this version; for tags, tombstones, manifests and sessions.
pub(crate) fn at_version(version: u64) -> Condition {
    Condition::Is(names::VERSION, Value::N(version))
}

/// A change of a tag.
pub(crate) struct ChangeRow;

impl ChangeRow {
    pub(crate) fn item(repository: &RepositoryName, tag: &Tag, change: &HistoryRecord) -> Item {
        Making::default()
            .number(names::VERSION, change.version)
            .text_if_any(names::BEFORE, change.before)
            .text_if_any(names::AFTER, change.after)
            .text(names::WHO, &change.who)
            .timestamp(names::AT, change.at)
            .item(keys::change(repository, tag, change.version))
    }

    pub(crate) fn read(item: &Item) -> Result<HistoryRecord, StoreError> {
        let fields = Fields(item);
        Ok(HistoryRecord {
            version: fields.number(names::VERSION)?,
            before: fields.parsed_if_any::<Digest>(names::BEFORE)?,
            after: fields.parsed_if_any::<Digest>(names::AFTER)?,
            who: fields.text(names::WHO)?.to_owned(),
            at: fields.timestamp(names::AT)?,
        })
    }
}
