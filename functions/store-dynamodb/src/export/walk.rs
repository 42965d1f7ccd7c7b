//! One slice of the walk over all records.

use futures_util::future::try_join_all;
use oci::{Digest, RepositoryName};
use registry::store::metadata::Content;
use registry::store::records::{EntryContent, ManifestEntry, Record, Unreadable};
use registry::store::{Cursor, Slice, StoreError};

use crate::collect::{cursor, position};
use crate::keys::{self, RecordKey};
use crate::metadata::StoreCall;
use crate::records::{BlobRow, CatalogRow, ChangeRow, LinkRow, ManifestRow, ReferrerRow, TagRow, damaged};
use crate::table::Item;

/// How many records are completed at once. Each manifest costs up to two more reads.
const AT_ONCE: usize = 16;

/// The records of one page of the table. Rows that belong to a record are not records themselves.
pub(super) async fn slice(
    call: &StoreCall<'_>,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Slice<Result<Record, Unreadable>>, StoreError> {
    let after = after.map(position).transpose()?;
    let page = call.main.scan(after.as_ref(), limit.max(1)).await?;
    let mut items = Vec::new();
    for some in page.items.chunks(AT_ONCE) {
        let records = try_join_all(some.iter().map(|item| read_item(call, item))).await?;
        items.extend(records.into_iter().flatten());
    }
    Ok(Slice {
        items,
        next: page.more_after.as_ref().map(cursor),
    })
}

/// The record of an item. A damaged item gives an [`Unreadable`], so that the walk continues; only a table that cannot
/// be read ends it.
async fn read_item(call: &StoreCall<'_>, item: &Item) -> Result<Option<Result<Record, Unreadable>>, StoreError> {
    let Some(name) = RecordKey::of(&item.key) else {
        return Ok(None);
    };
    let Some(description) = description(&name) else {
        return Ok(None);
    };
    match record(call, item, name).await {
        Ok(record) => Ok(record.map(Ok)),
        Err(error) if error.damage().is_some() => Ok(Some(Err(Unreadable {
            record: description,
            reason: error.to_string(),
        }))),
        Err(error) => Err(error),
    }
}

/// The description of a record; `None`: the key is not that of a record.
fn description(name: &RecordKey) -> Option<String> {
    match name {
        RecordKey::Repository(name) => Some(format!("repository {name}")),
        RecordKey::Blob(digest) => Some(format!("blob {digest}")),
        RecordKey::Link(repository, digest) => Some(format!("link {repository} {digest}")),
        RecordKey::Manifest(repository, digest) => Some(format!("manifest {repository} {digest}")),
        RecordKey::Tag(repository, tag) => Some(format!("tag {repository} {tag}")),
        RecordKey::Change(repository, tag, version) => Some(format!("change {repository} {tag} {version}")),
        _ => None,
    }
}

async fn record(call: &StoreCall<'_>, item: &Item, name: RecordKey) -> Result<Option<Record>, StoreError> {
    let record = match name {
        RecordKey::Repository(name) => {
            let row = CatalogRow::read(item)?;
            Record::Repository {
                name,
                created: row.created,
                permanent: row.permanent,
            }
        }
        RecordKey::Blob(digest) => {
            let row = BlobRow::read(item)?;
            Record::Blob {
                digest,
                location: row.location,
                size: row.size,
                at: row.at,
            }
        }
        RecordKey::Link(repository, digest) => {
            let row = LinkRow::read(item)?;
            Record::Link {
                repository,
                digest,
                location: row.link.location,
                size: row.link.size,
                uid: row.link.uid,
                at: row.at,
            }
        }
        RecordKey::Manifest(repository, digest) => {
            let row = ManifestRow::read(item)?;
            return match entry(call, &repository, &digest, &row).await {
                Ok(entry) => Ok(Some(Record::Manifest(Box::new(entry)))),
                // A deletion of the manifest removes these rows. They are damaged only if the manifest still exists.
                Err(error) => match call.read_manifest(&repository, &digest).await? {
                    Some(now) if now.record.uid == row.record.uid => Err(error),
                    _ => Ok(None),
                },
            };
        }
        RecordKey::Tag(repository, tag) => Record::Tag {
            repository,
            tag,
            target: TagRow::read(item)?,
        },
        RecordKey::Change(repository, tag, _) => Record::History {
            repository,
            tag,
            change: ChangeRow::read(item)?,
        },
        _ => return Ok(None),
    };
    Ok(Some(record))
}

/// A manifest with all rows that belong to it.
async fn entry(
    call: &StoreCall<'_>,
    repository: &RepositoryName,
    digest: &Digest,
    row: &ManifestRow,
) -> Result<ManifestEntry, StoreError> {
    let subject = match row.record.subject {
        None => None,
        Some(subject) => {
            let key = keys::referrer(repository, &subject, digest);
            let item = call.main.get(&key).await?;
            let item = item.ok_or_else(|| damaged(&key, "it does not exist"))?;
            Some((subject, ReferrerRow::read(&item)?))
        }
    };
    let record = &row.record;
    Ok(ManifestEntry {
        repository: repository.clone(),
        digest: *digest,
        media_type: record.media_type.clone(),
        size: record.size,
        content: match &record.content {
            Content::Inline(bytes) | Content::Damaged(bytes) => EntryContent::Inline(bytes.clone()),
            Content::Stored(location) | Content::Defective(location, _) => EntryContent::Stored(location.clone()),
        },
        subject,
        artifact_type: record.artifact_type.clone(),
        references: call.references_of(repository, digest, row).await?,
        uid: record.uid,
        at: row.at,
    })
}
