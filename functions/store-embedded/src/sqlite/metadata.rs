//! Metadata: the reads, and the calls of the operations that write.

pub(super) mod objects;
mod publish;
pub(super) mod remove;
mod tag_history;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Digest, RepositoryName, Tag};
use registry::store::access::Author;
use registry::store::metadata::{
    Content, Defect, HistoryRecord, Link, Listing, ManifestPut, ManifestRecord, MetadataStore, PutManifest, Referrer,
    Removal, TagGuard, TagRecord,
};
use registry::store::{Context, Location, Page, StoreError};
use rusqlite::{Row, params};

use self::objects::DefectRecord;
use super::SqliteStore;
use super::rows::{OperationFailure, Rows};
use super::values::{Columns, integer, one_more, page};

/// The recorded defect of a digest's bytes. The index contains only the few rows with a defect.
macro_rules! defect_of {
    ($digest:literal) => {
        concat!(
            "(SELECT blob.condemned FROM blob INDEXED BY blob_condemned \
             WHERE blob.digest = ",
            $digest,
            " AND blob.condemned IS NOT NULL)"
        )
    };
}

/// The columns of a manifest with this digest, for [`manifest`].
macro_rules! manifest_columns {
    ($digest:literal) => {
        concat!(
            "manifest.media_type, manifest.size, manifest.subject, manifest.artifact_type, manifest.incarnation, \
             manifest.content, manifest.store, manifest.key, iif(manifest.content IS NULL, ",
            defect_of!($digest),
            ", manifest.condemned)"
        )
    };
}

/// The number of these columns, and the number of a tag's columns.
const MANIFEST_COLUMNS: usize = 9;
const TAG_COLUMNS: usize = 6;

/// Whether the manifest of a tag in the repository `?1` is recorded as damaged. The index contains only damaged
/// manifests.
macro_rules! is_suspect {
    () => {
        "EXISTS (SELECT 1 FROM manifest AS damaged INDEXED BY manifest_condemned WHERE damaged.repository = ?1 \
         AND damaged.digest = tag.digest AND damaged.condemned IS NOT NULL)"
    };
}

/// Some tags of the manifest `?2` with their rows, for [`tag_of`].
const TAGS_OF_MANIFEST: &str = concat!(
    "SELECT tag, digest, media_type, size, version, at, ",
    is_suspect!(),
    " FROM tag WHERE repository = ?1 AND digest = ?2 AND tag > ?3 ORDER BY tag LIMIT ?4"
);

#[async_trait]
impl MetadataStore for SqliteStore {
    async fn link(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError> {
        let (repository, digest) = (repository.clone(), digest.to_string());
        let found = self.read(cx, move |rows| link(rows, &repository, &digest)).await?;
        Ok(found.map(|(link, _)| link))
    }

    async fn link_and_unmark(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError> {
        let of = || (repository.clone(), digest.to_string());
        let (repository, digest) = of();
        let found = self.read(cx, move |rows| link(rows, &repository, &digest)).await?;
        let Some((_, true)) = found else {
            return Ok(found.map(|(link, _)| link));
        };
        let (repository, digest) = of();
        self.write(cx, move |rows| {
            // The link may have been removed after the read.
            publish::unmark_link(rows, &repository, &digest)?;
            let found = link(rows, &repository, &digest)?;
            Ok(found.map(|(link, _)| link))
        })
        .await
    }

    async fn marked_link(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<(Link, bool)>, StoreError> {
        let (repository, digest) = (repository.clone(), digest.to_string());
        self.read(cx, move |rows| link(rows, &repository, &digest)).await
    }

    async fn manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, StoreError> {
        let (repository, digest) = (repository.clone(), digest.to_string());
        self.read(cx, move |rows| {
            rows.one(
                concat!(
                    "SELECT ",
                    manifest_columns!("?2"),
                    " FROM manifest WHERE repository = ?1 AND digest = ?2"
                ),
                params![repository.as_str(), digest],
                manifest,
            )
        })
        .await
    }

    async fn tag(&self, cx: Context, repository: &RepositoryName, tag: &Tag) -> Result<Option<TagRecord>, StoreError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.read(cx, move |rows| tag_record(rows, &repository, tag.as_str()))
            .await
    }

    async fn tagged_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<(TagRecord, Option<ManifestRecord>)>, StoreError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.read(cx, move |rows| {
            rows.one(
                concat!(
                    "SELECT ",
                    manifest_columns!("tag.digest"),
                    ", tag.digest, tag.media_type, tag.size, tag.version, tag.at, ",
                    is_suspect!(),
                    ", manifest.digest IS NOT NULL FROM tag LEFT JOIN manifest \
                     ON manifest.repository = tag.repository AND manifest.digest = tag.digest \
                     WHERE tag.repository = ?1 AND tag.tag = ?2"
                ),
                params![repository.as_str(), tag.as_str()],
                |row| {
                    let exists: bool = row.value(MANIFEST_COLUMNS + TAG_COLUMNS)?;
                    let manifest = exists.then(|| manifest(row)).transpose()?;
                    Ok((tag_of(row, MANIFEST_COLUMNS)?, manifest))
                },
            )
        })
        .await
    }

    async fn tags(
        &self,
        cx: Context,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Tag>, StoreError> {
        // No tag is empty, so the empty text means "from the start".
        let (repository, after) = (repository.clone(), after.unwrap_or_default().to_owned());
        let tags = self.read(cx, move |rows| {
            rows.all(
                "SELECT tag FROM tag WHERE repository = ?1 AND tag > ?2 ORDER BY tag LIMIT ?3",
                params![repository.as_str(), after, one_more(limit)],
                |row| row.parsed(0),
            )
        });
        let tags = tags.await?;
        Ok(page(tags, limit))
    }

    async fn history(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<HistoryRecord>, StoreError> {
        let before = before.map_or(i64::MAX, integer);
        let (repository, tag) = (repository.clone(), tag.clone());
        let changes = self.read(cx, move |rows| {
            rows.all(
                "SELECT version, before, after, who, promoted_from, at, since FROM tag_history \
                 WHERE repository = ?1 AND tag = ?2 AND version < ?3 ORDER BY version DESC LIMIT ?4",
                params![repository.as_str(), tag.as_str(), before, one_more(limit)],
                |row| {
                    Ok(HistoryRecord {
                        version: row.unsigned(0)?,
                        before: row.parsed_if_any(1)?,
                        after: row.parsed_if_any(2)?,
                        principal: row.value(3)?,
                        promoted_from: row.value(4)?,
                        at: row.timestamp(5)?,
                        since: row.timestamp_if_any(6)?,
                    })
                },
            )
        });
        let changes = changes.await?;
        Ok(page(changes, limit))
    }

    async fn repository(&self, cx: Context, repository: &RepositoryName) -> Result<Option<Listing>, StoreError> {
        let repository = repository.clone();
        self.read(cx, move |rows| {
            rows.one(
                "SELECT permanent FROM repository WHERE name = ?1",
                [repository.as_str()],
                |row| row.value(0).map(Listing::of),
            )
        })
        .await
    }

    async fn repositories(
        &self,
        cx: Context,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepositoryName>, StoreError> {
        let after = after.unwrap_or_default().to_owned();
        let names = self.read(cx, move |rows| {
            rows.all(
                "SELECT name FROM repository WHERE name > ?1 ORDER BY name LIMIT ?2",
                params![after, one_more(limit)],
                |row| row.parsed(0),
            )
        });
        let names = names.await?;
        Ok(page(names, limit))
    }

    async fn create_repository(
        &self,
        cx: Context,
        repository: &RepositoryName,
        author: &Author,
    ) -> Result<bool, StoreError> {
        let (repository, author) = (repository.clone(), author.clone());
        self.write(cx, move |rows| {
            publish::create_repository(rows, cx, &repository, &author)
        })
        .await
    }

    async fn manifests(
        &self,
        cx: Context,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Digest>, StoreError> {
        let after = after.map(Digest::to_string).unwrap_or_default();
        let repository = repository.clone();
        let digests = self.read(cx, move |rows| {
            rows.all(
                "SELECT digest FROM manifest WHERE repository = ?1 AND digest > ?2 ORDER BY digest LIMIT ?3",
                params![repository.as_str(), after, one_more(limit)],
                |row| row.parsed(0),
            )
        });
        let digests = digests.await?;
        Ok(page(digests, limit))
    }

    async fn referrers(
        &self,
        cx: Context,
        repository: &RepositoryName,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Referrer>, StoreError> {
        let (repository, subject) = (repository.clone(), subject.to_string());
        let after = after.map(Digest::to_string).unwrap_or_default();
        let referrers = self.read(cx, move |rows| {
            rows.all(
                "SELECT descriptor, annotations_omitted FROM referrer \
                 WHERE repository = ?1 AND subject = ?2 AND digest > ?3 ORDER BY digest LIMIT ?4",
                params![repository.as_str(), subject, after, one_more(limit)],
                |row| referrer(row, 0, 1),
            )
        });
        let referrers = referrers.await?;
        Ok(page(referrers, limit))
    }

    async fn commit_blob(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        location: &Location,
        size: u64,
    ) -> Result<Location, StoreError> {
        let (repository, digest, location) = (repository.clone(), digest.to_string(), location.clone());
        self.write(cx, move |rows| {
            publish::blob(rows, cx, &repository, &digest, &location, size)
        })
        .await
    }

    async fn replace_location(
        &self,
        cx: Context,
        digest: &Digest,
        old: &Location,
        new: &Location,
        size: u64,
    ) -> Result<Option<Location>, StoreError> {
        let (digest, old, new) = (digest.to_string(), old.clone(), new.clone());
        self.write(cx, move |rows| objects::replace(rows, cx, &digest, &old, &new, size))
            .await
    }

    async fn record_defect(
        &self,
        cx: Context,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        location: &Location,
        defect: Defect,
    ) -> Result<Option<Location>, StoreError> {
        let of = (repository.cloned(), digest.to_string(), location.clone());
        let (repository, digest, location) = of.clone();
        let recorded = self.read(cx, move |rows| {
            objects::is_recorded(rows, of.0.as_ref(), &of.1, &of.2, defect)
        });
        if let DefectRecord::Already(answer) = recorded.await? {
            return Ok(answer);
        }
        self.write(cx, move |rows| {
            objects::record_defect(rows, cx, repository.as_ref(), &digest, &location, defect)
        })
        .await
    }

    async fn clear_missing(&self, cx: Context, digest: &Digest, location: &Location) -> Result<(), StoreError> {
        let (digest, location) = (digest.to_string(), location.clone());
        self.write(cx, move |rows| objects::clear_missing(rows, &digest, &location))
            .await
    }

    async fn record_damaged_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.write(cx, move |rows| {
            objects::record_damaged_manifest(rows, &repository, &digest)
        })
        .await
    }

    async fn mount(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<bool, StoreError> {
        let (repository, digest, from) = (repository.clone(), digest.to_string(), from.clone());
        self.write(cx, move |rows| publish::mount(rows, cx, &repository, &digest, &from))
            .await
    }

    async fn linking_repositories(
        &self,
        cx: Context,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StoreError> {
        let digest = digest.to_string();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(cx, move |rows| {
            rows.all(
                "SELECT repository FROM backlink WHERE digest = ?1 AND kind = 'blob' ORDER BY repository LIMIT ?2",
                params![digest, limit],
                |row| row.parsed(0),
            )
        })
        .await
    }

    async fn put_manifest(
        &self,
        cx: Context,
        put: &PutManifest,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<ManifestPut, StoreError> {
        let put = publish::ManifestWrite::new(put, guard)?;
        self.write(cx, move |rows| put.publish(rows, cx)).await
    }

    async fn delete_tag(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        author: &Author,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<Removal, StoreError> {
        let (repository, tag, author) = (repository.clone(), tag.clone(), author.clone());
        let guard = Arc::clone(guard);
        self.write(cx, move |rows| {
            remove::tag(rows, cx, &repository, &tag, &author, &*guard)
        })
        .await
    }

    async fn delete_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        author: &Author,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<Removal, StoreError> {
        let removal = remove::ManifestRemoval {
            repository: repository.clone(),
            digest: digest.to_string(),
            author: author.clone(),
            guard: Arc::clone(guard),
        };
        remove::in_batches(self, cx, removal).await
    }

    async fn unlink(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        author: &Author,
    ) -> Result<Removal, StoreError> {
        let (repository, digest, author) = (repository.clone(), digest.to_string(), author.clone());
        self.write(cx, move |rows| {
            remove::link_of_author(rows, cx, &repository, &digest, &author)
        })
        .await
    }
}

/// A link, and whether a collection pass has marked it.
fn link(rows: &Rows<'_>, repository: &RepositoryName, digest: &str) -> Result<Option<(Link, bool)>, OperationFailure> {
    rows.one(
        concat!(
            "SELECT store, key, size, incarnation, condemned IS NOT NULL, ",
            defect_of!("?2"),
            " FROM link WHERE repository = ?1 AND digest = ?2"
        ),
        params![repository.as_str(), digest],
        |row| {
            let link = Link {
                location: row.location(0, 1)?,
                size: row.unsigned(2)?,
                uid: row.uid(3)?,
                defect: objects::defect(row, 5)?,
            };
            Ok((link, row.value(4)?))
        },
    )
}

/// Reads a referrer from its two columns.
pub(super) fn referrer(row: &Row<'_>, descriptor: usize, omitted: usize) -> Result<Referrer, OperationFailure> {
    let text = row
        .get_ref(descriptor)?
        .as_str()
        .map_err(|error| OperationFailure::Damaged(error.to_string()))?;
    Ok(Referrer {
        descriptor: serde_json::from_str(text).map_err(|error| OperationFailure::Damaged(error.to_string()))?,
        annotations_omitted: row.value(omitted)?,
    })
}

fn manifest(row: &Row<'_>) -> Result<ManifestRecord, OperationFailure> {
    let content: Option<&[u8]> = row
        .get_ref(5)?
        .as_blob_or_null()
        .map_err(|error| OperationFailure::Damaged(error.to_string()))?;
    Ok(ManifestRecord {
        media_type: row.parsed(0)?,
        size: row.unsigned(1)?,
        content: match (content.map(Bytes::copy_from_slice), objects::defect(row, 8)?) {
            (Some(bytes), None) => Content::Inline(bytes),
            (Some(bytes), Some(_)) => Content::Damaged(bytes),
            (None, None) => Content::Stored(row.location(6, 7)?),
            (None, Some(defect)) => Content::Defective(row.location(6, 7)?, defect),
        },
        subject: row.parsed_if_any(2)?,
        artifact_type: row.parsed_if_any(3)?,
        uid: row.uid(4)?,
    })
}

fn tag_record(rows: &Rows<'_>, repository: &RepositoryName, tag: &str) -> Result<Option<TagRecord>, OperationFailure> {
    rows.one(
        concat!(
            "SELECT digest, media_type, size, version, at, ",
            is_suspect!(),
            " FROM tag WHERE repository = ?1 AND tag = ?2"
        ),
        params![repository.as_str(), tag],
        |row| tag_of(row, 0),
    )
}

/// Reads a tag from its columns, which start at column `first`.
fn tag_of(row: &Row<'_>, first: usize) -> Result<TagRecord, OperationFailure> {
    Ok(TagRecord {
        digest: row.parsed(first)?,
        media_type: row.parsed(first + 1)?,
        size: row.unsigned(first + 2)?,
        version: row.unsigned(first + 3)?,
        at: row.timestamp(first + 4)?,
        is_suspect: row.value(first + 5)?,
    })
}
