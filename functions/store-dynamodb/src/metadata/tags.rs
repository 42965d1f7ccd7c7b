//! Tags: each change is one transaction of the tag, its reverse record, and its history.
//!
//! A change is conditional on the tag as it was read. A tag that lives carries its version; one that does not has a
//! tombstone, or was never there. Versions therefore form a chain through all lives of a tag, whoever writes it.

use std::collections::{BTreeMap, BTreeSet};

use oci::{Digest, MediaType, RepositoryName, Tag};
use registry::store::metadata::{HistoryRecord, TagRecord};
use registry::store::{Context, StoreError};

use super::StoreCall;
use crate::keys;
use crate::mutation::{Mutation, active};
use crate::records::{ChangeRow, TagRow, Tombstone, attributes, has_version, tagged_item};
use crate::table::{Item, ItemKey, Write, WriteCondition, Written};

/// The most items that a change of one tag takes.
pub(super) const ITEMS_PER_TAG: usize = 4;

/// A tag as it was read.
#[derive(Clone, Debug)]
pub(super) struct ReadTag {
    tag: Tag,
    record: Option<TagRecord>,
    tombstone: Option<Tombstone>,
}

/// What a tag is to name.
#[derive(Clone, Copy)]
pub(super) struct TagTarget<'a> {
    pub(super) digest: &'a Digest,
    pub(super) media_type: &'a MediaType,
    pub(super) size: u64,
}

/// What must be read of a tag before it is changed.
pub(super) fn keys_of<'a>(repository: &RepositoryName, tags: impl IntoIterator<Item = &'a Tag>) -> BTreeSet<ItemKey> {
    let tags = tags.into_iter();
    tags.flat_map(|tag| [keys::tag(repository, tag), keys::tombstone(repository, tag)])
        .collect()
}

fn put(item: Item) -> Write {
    Write::Put {
        item,
        condition: WriteCondition::Always,
    }
}

impl ReadTag {
    /// Out of what was read under [`keys_of`].
    pub(super) fn among(
        items: &BTreeMap<ItemKey, Item>,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Self, StoreError> {
        let record = items.get(&keys::tag(repository, tag));
        let tombstone = items.get(&keys::tombstone(repository, tag));
        Ok(Self {
            tag: tag.clone(),
            record: record.map(TagRow::read).transpose()?,
            tombstone: tombstone.map(Tombstone::read).transpose()?,
        })
    }

    pub(super) fn names(&self, digest: &Digest) -> bool {
        self.record.as_ref().is_some_and(|record| record.digest == *digest)
    }

    /// The version of the next change: it grows with the time, and over all lives of the tag.
    fn next_version(&self, cx: Context) -> u64 {
        let current = self.record.as_ref().map(|record| record.version);
        let before = current.or(self.tombstone.map(|tombstone| tombstone.version));
        TagRecord::next_version(before, cx.now)
    }

    fn history(&self, cx: Context, after: Option<Digest>, principal: &str) -> HistoryRecord {
        HistoryRecord {
            version: self.next_version(cx),
            before: self.record.as_ref().map(|record| record.digest),
            after,
            who: principal.to_owned(),
            at: cx.now,
        }
    }

    /// The tag is as it was read.
    fn unchanged(&self) -> WriteCondition {
        if active(Mutation::BlindTag) {
            return WriteCondition::Always;
        }
        match &self.record {
            Some(record) => has_version(record.version),
            None => WriteCondition::Absent,
        }
    }

    /// What lets the tag name a manifest. If it does so, nothing changes, but the transaction is refused when somebody
    /// else moves it.
    pub(super) fn naming(
        &self,
        cx: Context,
        repository: &RepositoryName,
        to: TagTarget<'_>,
        principal: &str,
    ) -> Vec<Write> {
        let tag = &self.tag;
        let key = keys::tag(repository, tag);
        if self.names(to.digest) {
            return vec![Write::Check {
                key,
                condition: self.unchanged(),
            }];
        }
        let change = self.history(cx, Some(*to.digest), principal);
        let record = TagRecord {
            digest: *to.digest,
            media_type: to.media_type.clone(),
            size: to.size,
            version: change.version,
            at: cx.now,
            is_suspect: false,
        };
        let before = match (&self.record, self.tombstone) {
            (Some(record), _) => Write::Delete {
                key: keys::tagged(repository, &record.digest, tag),
                condition: WriteCondition::Always,
            },
            (None, Some(tombstone)) => Write::Delete {
                key: keys::tombstone(repository, tag),
                condition: has_version(tombstone.version),
            },
            (None, None) => Write::Check {
                key: keys::tombstone(repository, tag),
                condition: WriteCondition::Absent,
            },
        };
        vec![
            // Not put: what a later version may have added to the tag stays.
            Write::Update {
                key,
                set: TagRow::attributes(&record),
                // It was said of what the tag named before.
                remove: vec![attributes::DEFECT],
                condition: self.unchanged(),
            },
            before,
            put(tagged_item(repository, to.digest, tag)),
            put(ChangeRow::item(repository, tag, &change)),
        ]
    }

    /// What deletes the tag; nothing if there is none.
    pub(super) fn deleting(&self, cx: Context, repository: &RepositoryName, principal: &str) -> Vec<Write> {
        let Some(record) = &self.record else {
            return Vec::new();
        };
        let tag = &self.tag;
        let change = self.history(cx, None, principal);
        let tombstone = Tombstone {
            version: change.version,
            at: cx.now,
        };
        vec![
            Write::Delete {
                key: keys::tag(repository, tag),
                condition: self.unchanged(),
            },
            Write::Delete {
                key: keys::tagged(repository, &record.digest, tag),
                condition: WriteCondition::Always,
            },
            put(tombstone.item(repository, tag)),
            put(ChangeRow::item(repository, tag, &change)),
        ]
    }
}

impl StoreCall<'_> {
    /// Tags as they are now, each by itself.
    pub(super) async fn see_tags<'t>(
        &self,
        repository: &RepositoryName,
        tags: impl IntoIterator<Item = &'t Tag> + Clone + Send,
    ) -> Result<Vec<ReadTag>, StoreError> {
        let items = self.main.get_all(&keys_of(repository, tags.clone())).await?;
        let seen = tags.into_iter().map(|tag| ReadTag::among(&items, repository, tag));
        seen.collect()
    }

    pub(super) async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        principal: &str,
    ) -> Result<bool, StoreError> {
        let mut round = 0;
        while let Some(record) = self.tag_of(repository, tag).await? {
            let seen = ReadTag {
                tag: tag.clone(),
                record: Some(record),
                tombstone: None,
            };
            let writes = seen.deleting(self.cx, repository, principal);
            if self.main.transact(&writes).await? == Written::Done {
                return Ok(true);
            }
            self.main.lost_race(round).await?;
            round += 1;
        }
        Ok(false)
    }
}
