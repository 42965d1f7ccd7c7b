//! One slice of the walk over all records.

use futures_util::future::try_join_all;
use oci::{Digest, RepositoryName};
use registry::store::metadata::Content;
use registry::store::records::{EntryContent, ManifestEntry, Record};
use registry::store::{Cursor, Slice, StoreError};

use crate::collect::{cursor, place};
use crate::keys::{self, Name};
use crate::metadata::Call;
use crate::records::{BlobRow, CatalogRow, ChangeRow, LinkRow, ManifestRow, ReferrerRow, TagRow, damaged};
use crate::table::Item;

/// How many manifests are put together at once; each costs up to two more reads.
const AT_ONCE: usize = 16;

/// The records of one page of the table. What hangs on a record is not one by itself.
pub(super) async fn slice(call: &Call<'_>, after: Option<&Cursor>, limit: usize) -> Result<Slice<Record>, StoreError> {
    let after = after.map(place).transpose()?;
    let page = call.main.scan(after.as_ref(), limit.max(1)).await?;
    let mut items = Vec::new();
    for some in page.items.chunks(AT_ONCE) {
        let records = try_join_all(some.iter().map(|item| record(call, item))).await?;
        items.extend(records.into_iter().flatten());
    }
    Ok(Slice {
        items,
        next: page.more_after.as_ref().map(cursor),
    })
}

async fn record(call: &Call<'_>, item: &Item) -> Result<Option<Record>, StoreError> {
    let record = match Name::of(&item.key) {
        Some(Name::Repository(name)) => Record::Repository {
            name,
            created: CatalogRow::read(item)?.created,
        },
        Some(Name::Blob(digest)) => {
            let row = BlobRow::read(item)?;
            Record::Blob {
                digest,
                location: row.location,
                size: row.size,
                at: row.at,
            }
        }
        Some(Name::Link(repository, digest)) => {
            let row = LinkRow::read(item)?;
            Record::Link {
                repository,
                digest,
                location: row.link.location,
                size: row.link.size,
                incarnation: row.link.incarnation,
                at: row.at,
            }
        }
        Some(Name::Manifest(repository, digest)) => {
            let row = ManifestRow::read(item)?;
            return match entry(call, &repository, &digest, &row).await {
                Ok(entry) => Ok(Some(Record::Manifest(Box::new(entry)))),
                // What belongs to it goes when it is deleted, and is damaged only if it is still there.
                Err(error) => match call.read_manifest(&repository, &digest).await? {
                    Some(now) if now.record.incarnation == row.record.incarnation => Err(error),
                    _ => Ok(None),
                },
            };
        }
        Some(Name::Tag(repository, tag)) => Record::Tag {
            repository,
            tag,
            names: TagRow::read(item)?,
        },
        Some(Name::Change(repository, tag, _)) => Record::History {
            repository,
            tag,
            change: ChangeRow::read(item)?,
        },
        _ => return Ok(None),
    };
    Ok(Some(record))
}

/// A manifest with all that hangs on it.
async fn entry(
    call: &Call<'_>,
    repository: &RepositoryName,
    digest: &Digest,
    row: &ManifestRow,
) -> Result<ManifestEntry, StoreError> {
    let subject = match row.record.subject {
        None => None,
        Some(subject) => {
            let key = keys::referrer(repository, &subject, digest);
            let item = call.main.get(&key).await?;
            let item = item.ok_or_else(|| damaged(&key, "it is not there"))?;
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
            Content::Inline(bytes) => EntryContent::Inline(bytes.clone()),
            Content::Stored(location) => EntryContent::Stored(location.clone()),
        },
        subject,
        artifact_type: record.artifact_type.clone(),
        references: call.references_of(repository, digest, row).await?,
        incarnation: record.incarnation,
        at: row.at,
    })
}
