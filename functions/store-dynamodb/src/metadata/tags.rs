//! Tags: each change is one transaction of the tag, its row under the manifest, and its history.
//!
//! A change is conditional on the tag as it was read. An existing tag has a version. A missing tag has a tombstone, or
//! was never created. So the versions of a tag always grow, also over deletions and new creations, whichever instance
//! writes it.

use std::collections::{BTreeMap, BTreeSet};

use oci::{Digest, MediaType, RepositoryName, Tag};
use registry::store::access::Author;
use registry::store::metadata::{HistoryRecord, Protected, Removal, TagGuard, TagRecord};
use registry::store::{Context, StoreError, Timestamp};

use super::StoreCall;
use crate::keys;
use crate::records::{ChangeRow, TagRow, Tombstone, attributes, has_version, tagged_item};
use crate::table::{Item, ItemKey, Write, WriteCondition, Written};

/// The maximum number of items in a change of one tag.
pub(super) const ITEMS_PER_TAG: usize = 4;

/// A tag as it was read.
#[derive(Clone, Debug)]
pub(super) struct ReadTag {
    tag: Tag,
    record: Option<TagRecord>,
    tombstone: Option<Tombstone>,
    /// Since when the tag will count as naming the next manifest, as the guard has answered. `None`: since the change.
    since: Option<Timestamp>,
}

/// The manifest that a tag is to name.
#[derive(Clone, Copy)]
pub(super) struct TagTarget<'a> {
    pub(super) digest: &'a Digest,
    pub(super) media_type: &'a MediaType,
    pub(super) size: u64,
}

/// The keys to read before a change of tags.
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
    /// Takes a tag from the items that were read under [`keys_of`].
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
            since: None,
        })
    }

    pub(super) fn tag(&self) -> &Tag {
        &self.tag
    }

    pub(super) fn refers_to(&self, digest: &Digest) -> bool {
        self.record.as_ref().is_some_and(|record| record.digest == *digest)
    }

    /// The tag and the digest that it names; `None` if that is `digest`.
    pub(super) fn other_than(&self, digest: &Digest) -> Option<(&Tag, Option<Digest>)> {
        let named = self.record.as_ref().map(|record| record.digest);
        (named != Some(*digest)).then_some((&self.tag, named))
    }

    /// The version of the next change. It grows with the time, and is higher than every earlier version of the tag.
    fn next_version(&self, cx: Context) -> u64 {
        let current = self.record.as_ref().map(|record| record.version);
        let before = current.or(self.tombstone.map(|tombstone| tombstone.version));
        TagRecord::next_version(before, cx.now)
    }

    /// Whether the guard allows that the tag names a manifest. It is not asked about a tag that names it already.
    fn check_naming(&mut self, cx: Context, digest: &Digest, guard: &dyn TagGuard) -> Result<(), Protected> {
        match &self.record {
            Some(record) if record.digest == *digest => Ok(()),
            Some(record) => guard.moved(&self.tag, record, digest, cx.now),
            None => {
                let last = self.tombstone.and_then(|tombstone| tombstone.deletion());
                self.since = Some(guard.create(&self.tag, digest, last.as_ref(), cx.now)?);
                Ok(())
            }
        }
    }

    /// Whether the guard allows that the tag is deleted.
    pub(super) fn check_deleting(&self, cx: Context, guard: &dyn TagGuard) -> Result<(), Protected> {
        match &self.record {
            Some(record) => guard.removed(&self.tag, record, cx.now),
            None => Ok(()),
        }
    }

    fn history(&self, cx: Context, after: Option<Digest>, author: &Author) -> HistoryRecord {
        HistoryRecord {
            version: self.next_version(cx),
            before: self.record.as_ref().map(|record| record.digest),
            after,
            principal: author.principal.clone(),
            promoted_from: author.promoted_from().map(str::to_owned),
            at: cx.now,
            since: self.record.as_ref().map(|record| record.at).filter(|_| after.is_none()),
        }
    }

    /// The condition that the tag is as it was read.
    fn unchanged(&self) -> WriteCondition {
        match &self.record {
            Some(record) => has_version(record.version),
            None => WriteCondition::Absent,
        }
    }

    /// The writes that let the tag name a manifest. If it does already, nothing is written, but the transaction is
    /// refused when another request moves the tag.
    pub(super) fn naming(
        &self,
        cx: Context,
        repository: &RepositoryName,
        to: TagTarget<'_>,
        author: &Author,
    ) -> Vec<Write> {
        let tag = &self.tag;
        let key = keys::tag(repository, tag);
        if self.refers_to(to.digest) {
            return vec![Write::Check {
                key,
                condition: self.unchanged(),
            }];
        }
        let change = self.history(cx, Some(*to.digest), author);
        let record = TagRecord {
            digest: *to.digest,
            media_type: to.media_type.clone(),
            size: to.size,
            version: change.version,
            at: self.since.unwrap_or(cx.now),
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
            // An update instead of a put: attributes that a later version has added to the tag stay.
            Write::Update {
                key,
                set: TagRow::attributes(&record),
                // The flag concerned the manifest that the tag named before.
                remove: vec![attributes::DEFECT],
                condition: self.unchanged(),
            },
            before,
            put(tagged_item(repository, to.digest, tag)),
            put(ChangeRow::item(repository, tag, &change)),
        ]
    }

    /// The writes that delete the tag; none if it does not exist.
    pub(super) fn deleting(&self, cx: Context, repository: &RepositoryName, author: &Author) -> Vec<Write> {
        let Some(record) = &self.record else {
            return Vec::new();
        };
        let tag = &self.tag;
        let change = self.history(cx, None, author);
        vec![
            Write::Delete {
                key: keys::tag(repository, tag),
                condition: self.unchanged(),
            },
            Write::Delete {
                key: keys::tagged(repository, &record.digest, tag),
                condition: WriteCondition::Always,
            },
            put(Tombstone::of(&change).item(repository, tag)),
            put(ChangeRow::item(repository, tag, &change)),
        ]
    }
}

impl StoreCall<'_> {
    /// Reads tags, each at its own time.
    pub(super) async fn see_tags<'t>(
        &self,
        repository: &RepositoryName,
        tags: impl IntoIterator<Item = &'t Tag> + Clone + Send,
    ) -> Result<Vec<ReadTag>, StoreError> {
        let items = self.main.get_all(&keys_of(repository, tags.clone())).await?;
        let seen = tags.into_iter().map(|tag| ReadTag::among(&items, repository, tag));
        seen.collect()
    }

    /// Asks the guard whether these tags may name a manifest. A tag may have a tombstone of a program that did not
    /// record the deleted digest. For such a tag, the deletion is read from the history.
    pub(super) async fn check_naming(
        &self,
        repository: &RepositoryName,
        seen: &mut [ReadTag],
        digest: &Digest,
        guard: &dyn TagGuard,
    ) -> Result<Option<Protected>, StoreError> {
        for tag in seen {
            if let (None, Some(tombstone)) = (&tag.record, &mut tag.tombstone)
                && tombstone.before.is_none()
            {
                let key = keys::change(repository, &tag.tag, tombstone.version);
                let change = self.main.get(&key).await?;
                if let Some(change) = change.as_ref().map(ChangeRow::read).transpose()? {
                    *tombstone = Tombstone::of(&change);
                }
            }
            if let Err(protected) = tag.check_naming(self.cx, digest, guard) {
                return Ok(Some(protected));
            }
        }
        Ok(None)
    }

    pub(super) async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        author: &Author,
        guard: &dyn TagGuard,
    ) -> Result<Removal, StoreError> {
        let mut round = 0;
        while let Some(record) = self.tag_of(repository, tag).await? {
            let event = author.tag_deleted(self.cx, repository, tag, &record.digest);
            let seen = ReadTag {
                tag: tag.clone(),
                record: Some(record),
                tombstone: None,
                since: None,
            };
            if let Err(protected) = seen.check_deleting(self.cx, guard) {
                return Ok(Removal::Protected(protected));
            }
            let mut writes = seen.deleting(self.cx, repository, author);
            writes.push(self.event(event).await?);
            if self.main.transact(&writes).await? == Written::Done {
                return Ok(Removal::Removed);
            }
            self.main.lost_race(round).await?;
            round += 1;
        }
        Ok(Removal::Absent)
    }
}
