//! Imports records, each with all rows that belong to it.
//!
//! No other process writes during an import, so rows are written unconditionally. A record that replaces another one
//! also removes the rows that belonged to that one. There is one exception: all deletions of a tag share one tombstone,
//! and slices that are written at the same time may both write it. So the tombstone is written only if it has not
//! changed since it was read.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oci::{Digest, RepositoryName, Tag};
use registry::store::metadata::{Content, Link, ManifestRecord, TagRecord};
use registry::store::records::{EntryContent, ManifestEntry, Record};
use registry::store::{Location, StoreError, Timestamp, Uid};

use super::dependent_keys;
use crate::keys::{self, RecordKey};
use crate::metadata::StoreCall;
use crate::records::{
    BackLink, BlobRow, CatalogRow, ChangeRow, EdgeRow, LinkKind, LinkRow, ListedRow, ManifestRow, ReferenceList,
    ReferencesRow, ReferrerRow, TagRow, Tombstone, has_version, tagged_item,
};
use crate::table::{Item, ItemKey, Write, WriteCondition};

/// How many tombstones are written at once. Each is a separate request.
const CONCURRENT_DELETIONS: usize = 16;

/// The changes of a slice. An item that one record removes and another writes is written.
#[derive(Default)]
struct Changes {
    removed: BTreeSet<ItemKey>,
    written: BTreeMap<ItemKey, Item>,
    /// The last deletion of each tag in the slice.
    deletions: BTreeMap<(RepositoryName, Tag), Tombstone>,
}

impl Changes {
    fn remove(&mut self, key: ItemKey) {
        self.removed.insert(key);
    }

    fn write(&mut self, item: Item) {
        self.written.insert(item.key.clone(), item);
    }

    fn delete_tag(&mut self, repository: &RepositoryName, tag: &Tag, deletion: Tombstone) {
        let last = self
            .deletions
            .entry((repository.clone(), tag.clone()))
            .or_insert(deletion);
        if last.version < deletion.version {
            *last = deletion;
        }
    }

    /// Three steps, each done before the next. An interrupted import must be able to find the rows to remove again: it
    /// finds them by the record that is replaced, and by the lists of a manifest's references. So those are written or
    /// removed last.
    fn into_steps(self) -> [Vec<Write>; 3] {
        let Self { removed, written, .. } = self;
        let mut steps: [Vec<Write>; 3] = Default::default();
        for key in removed.into_iter().filter(|key| !written.contains_key(key)) {
            let is_list = matches!(RecordKey::of(&key), Some(RecordKey::References { .. }));
            let step = if is_list { 2 } else { 0 };
            steps[step].push(Write::delete(key));
        }
        for item in written.into_values() {
            let name = RecordKey::of(&item.key);
            let replaces = matches!(
                name,
                Some(RecordKey::Link(..) | RecordKey::Manifest(..) | RecordKey::Tag(..))
            );
            let condition = WriteCondition::Always;
            steps[usize::from(replaces)].push(Write::Put { item, condition });
        }
        steps
    }
}

pub(super) async fn all(call: &StoreCall<'_>, records: &[Record]) -> Result<(), StoreError> {
    let before = call.main.get_all(&records.iter().flat_map(own_keys).collect()).await?;
    let mut changes = Changes::default();
    for record in records {
        let old = own_keys(record).next().and_then(|key| before.get(&key));
        match record {
            Record::Repository {
                name,
                created,
                permanent,
            } => {
                let row = CatalogRow {
                    created: *created,
                    permanent: *permanent,
                    mark: None,
                };
                changes.write(row.item(name));
            }
            Record::Blob {
                digest,
                location,
                size,
                at,
            } => changes.write(blob(location, *size, *at).item(digest)),
            Record::Link {
                repository,
                digest,
                location,
                size,
                uid,
                at,
            } => {
                if let Some(old) = old {
                    let old_uid = LinkRow::read(old)?.link.uid;
                    changes.remove(keys::back_link(digest, repository, old_uid));
                }
                changes.write(back_link(repository, *uid, LinkKind::Blob, *at).item(digest));
                let link = Link {
                    location: location.clone(),
                    size: *size,
                    uid: *uid,
                    defect: None,
                };
                let (at, mark) = (*at, None);
                changes.write(LinkRow { link, at, mark }.item(repository, digest));
            }
            Record::Manifest(entry) => {
                if let Some(old) = old {
                    remove_old_manifest(call, &mut changes, entry, &ManifestRow::read(old)?).await?;
                }
                manifest(&mut changes, entry)?;
            }
            Record::Tag {
                repository,
                tag,
                target,
            } => {
                if let Some(old) = old {
                    let named = TagRow::read(old)?.digest;
                    changes.remove(keys::tagged(repository, &named, tag));
                }
                write_tag(&mut changes, repository, tag, target);
            }
            Record::History {
                repository,
                tag,
                change,
            } => {
                changes.write(ChangeRow::item(repository, tag, change));
                if change.after.is_none() {
                    changes.delete_tag(repository, tag, Tombstone::of(change));
                }
            }
        }
    }
    let deletions = std::mem::take(&mut changes.deletions);
    stream::iter(deletions)
        .map(|((repository, tag), deletion)| {
            let known = before.get(&keys::tombstone(&repository, &tag)).cloned();
            write_tombstone(call, known, repository, tag, deletion)
        })
        .buffer_unordered(CONCURRENT_DELETIONS)
        .try_collect::<()>()
        .await?;
    for step in changes.into_steps() {
        call.main.write_all(&step).await?;
    }
    Ok(())
}

/// The row of a record that must be read before it is replaced.
fn own_keys(record: &Record) -> impl Iterator<Item = ItemKey> + use<> {
    let key = match record {
        Record::Repository { .. } | Record::Blob { .. } => None,
        Record::Link { repository, digest, .. } => Some(keys::link(repository, digest)),
        Record::Manifest(entry) => Some(keys::manifest(&entry.repository, &entry.digest)),
        Record::Tag { repository, tag, .. } => Some(keys::tag(repository, tag)),
        // All deletions of a tag share one row, its tombstone.
        Record::History {
            repository,
            tag,
            change,
        } => change.after.is_none().then(|| keys::tombstone(repository, tag)),
    };
    key.into_iter()
}

fn blob(location: &Location, size: u64, at: Timestamp) -> BlobRow {
    BlobRow {
        location: location.clone(),
        size,
        at,
        defect: None,
        mark: None,
    }
}

fn back_link(repository: &RepositoryName, uid: Uid, link_kind: LinkKind, at: Timestamp) -> BackLink {
    BackLink {
        repository: repository.clone(),
        uid,
        link_kind,
        at,
    }
}

fn write_tag(changes: &mut Changes, repository: &RepositoryName, tag: &Tag, target: &TagRecord) {
    changes.write(TagRow::item(repository, tag, target));
    changes.write(tagged_item(repository, &target.digest, tag));
}

/// Writes the version of a tag's last deletion, so that a new creation of the tag continues from it. An older deletion
/// must not replace it, neither from a slice that is written at the same time nor by a late request.
async fn write_tombstone(
    call: &StoreCall<'_>,
    mut known: Option<Item>,
    repository: RepositoryName,
    tag: Tag,
    deletion: Tombstone,
) -> Result<(), StoreError> {
    let mut round = 0;
    loop {
        let before = known.as_ref().map(Tombstone::read).transpose()?;
        if before.is_some_and(|before| before.version >= deletion.version) {
            return Ok(());
        }
        let item = deletion.item(&repository, &tag);
        let condition = before.map_or(WriteCondition::Absent, |before| has_version(before.version));
        let key = item.key.clone();
        if call.main.write(&Write::Put { item, condition }).await?.is_done() {
            return Ok(());
        }
        call.main.lost_race(round).await?;
        round += 1;
        known = call.main.get(&key).await?;
    }
}

async fn remove_old_manifest(
    call: &StoreCall<'_>,
    changes: &mut Changes,
    entry: &ManifestEntry,
    old: &ManifestRow,
) -> Result<(), StoreError> {
    let (repository, digest) = (&entry.repository, &entry.digest);
    let references = call.references_of(repository, digest, old).await?;
    for key in dependent_keys(repository, digest, old, &references) {
        changes.remove(key);
    }
    Ok(())
}

fn manifest(changes: &mut Changes, entry: &ManifestEntry) -> Result<(), StoreError> {
    let ManifestEntry {
        repository,
        digest,
        uid,
        at,
        ..
    } = entry;
    let references: &[Digest] = &entry.references;
    for target in references {
        let edge = EdgeRow {
            target: *target,
            parent: *digest,
            uid: *uid,
            at: *at,
        };
        changes.write(edge.item(repository));
    }
    let kept = ReferenceList::of(references);
    if let ReferenceList::Separate(_) = kept {
        for item in ReferencesRow::all(repository, digest, *uid, references, *at) {
            changes.write(item);
        }
    }
    if let Some((subject, referrer)) = &entry.subject {
        changes.write(ReferrerRow::item(repository, subject, referrer)?);
    }
    let content = match &entry.content {
        EntryContent::Inline(bytes) => Content::Inline(bytes.clone()),
        EntryContent::Stored(location) => {
            changes.write(back_link(repository, *uid, LinkKind::Manifest, *at).item(digest));
            Content::Stored(location.clone())
        }
    };
    let row = ManifestRow {
        record: ManifestRecord {
            media_type: entry.media_type.clone(),
            size: entry.size,
            content,
            subject: entry.subject.as_ref().map(|(subject, _)| *subject),
            artifact_type: entry.artifact_type.clone(),
            uid: *uid,
        },
        at: *at,
        version: 0,
        references: kept,
        mark: None,
    };
    changes.write(row.item(repository, digest));
    let listed = ListedRow {
        at: *at,
        size: entry.size,
    };
    changes.write(listed.item(repository, digest));
    Ok(())
}

#[cfg(test)]
mod tests;
