//! Metadata in memory as records, for export, import and checks.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;
use oci::{Digest, RepositoryName};

use super::MemoryMetadata;
use super::metadata::{BlobRow, CatalogRow, LinkRow, ManifestRow, MetadataRecords};
use crate::store::metadata::{Content, Link, ManifestRecord};
use crate::store::records::{
    BackReference, EntryContent, LinkKind, ManifestEntry, Record, RecordStore, RecordedObject, Unreadable,
};
use crate::store::{Context, Cursor, Slice, StoreError};

impl MetadataRecords {
    /// All records under their cursors. Made again for each slice, since simplicity matters more here than speed.
    fn export(&self) -> BTreeMap<String, Result<Record, Unreadable>> {
        let mut all = BTreeMap::new();
        for (name, row) in &self.catalog {
            let record = Record::Repository {
                name: name.clone(),
                created: row.created,
                permanent: row.permanent,
            };
            all.insert(format!("repository {name}"), Ok(record));
        }
        for (digest, row) in &self.blobs {
            let record = Record::Blob {
                digest: *digest,
                location: row.location.clone(),
                size: row.size,
                at: row.at,
            };
            all.insert(format!("blob {digest}"), Ok(record));
        }
        for ((repository, digest), row) in &self.links {
            let record = Record::Link {
                repository: repository.clone(),
                digest: *digest,
                location: row.link.location.clone(),
                size: row.link.size,
                uid: row.link.uid,
                at: row.at,
            };
            all.insert(format!("link {repository} {digest}"), Ok(record));
        }
        for (repository, manifests) in &self.manifests {
            for (digest, row) in manifests {
                let record = self.entry(repository, digest, row);
                let record = record.map(|entry| Record::Manifest(Box::new(entry)));
                all.insert(format!("manifest {repository} {digest}"), record);
            }
        }
        for (repository, tags) in &self.tags {
            for (tag, target) in tags {
                let record = Record::Tag {
                    repository: repository.clone(),
                    tag: tag.clone(),
                    target: target.clone(),
                };
                all.insert(format!("tag {repository} {tag}"), Ok(record));
            }
        }
        for ((repository, tag), history) in &self.history {
            for (version, change) in history {
                let record = Record::History {
                    repository: repository.clone(),
                    tag: tag.clone(),
                    change: change.clone(),
                };
                all.insert(format!("history {repository} {tag} {version:016x}"), Ok(record));
            }
        }
        all
    }

    fn entry(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        row: &ManifestRow,
    ) -> Result<ManifestEntry, Unreadable> {
        let subject = row.record.subject.map(|subject| {
            let referrers = self.referrers.get(&(repository.clone(), subject));
            let referrer = referrers.and_then(|referrers| referrers.get(digest));
            Ok((
                subject,
                referrer.cloned().ok_or_else(|| Unreadable {
                    record: format!("manifest {repository} {digest}"),
                    reason: "it is not shown under its subject".to_owned(),
                })?,
            ))
        });
        Ok(ManifestEntry {
            repository: repository.clone(),
            digest: *digest,
            media_type: row.record.media_type.clone(),
            size: row.record.size,
            content: match &row.record.content {
                Content::Inline(bytes) | Content::Damaged(bytes) => EntryContent::Inline(bytes.clone()),
                Content::Stored(location) | Content::Defective(location, _) => EntryContent::Stored(location.clone()),
            },
            subject: subject.transpose()?,
            artifact_type: row.record.artifact_type.clone(),
            references: row.references.iter().copied().collect(),
            uid: row.record.uid,
            at: row.at,
        })
    }

    /// Whether a back-reference exists. An edge must have the uid of its parent.
    fn has(&self, back_reference: &BackReference) -> bool {
        match back_reference {
            BackReference::Edge {
                repository,
                target,
                parent,
                ..
            } => {
                let parents = self.edges.get(&(repository.clone(), *target));
                parents.is_some_and(|parents| parents.contains(parent))
            }
            BackReference::BackLink {
                digest,
                repository,
                link_kind,
                uid,
            } => {
                let linking_repositories = self.back_links.get(digest);
                linking_repositories.is_some_and(|linking_repositories| {
                    linking_repositories.contains_key(&(repository.clone(), *link_kind, *uid))
                })
            }
        }
    }

    fn import(&mut self, record: &Record) {
        match record.clone() {
            Record::Repository {
                name,
                created,
                permanent,
            } => {
                self.catalog.insert(name, CatalogRow { created, permanent });
            }
            Record::Blob {
                digest,
                location,
                size,
                at,
            } => {
                let defect = None;
                let row = BlobRow {
                    location,
                    size,
                    at,
                    defect,
                };
                self.blobs.insert(digest, row);
            }
            Record::Link {
                repository,
                digest,
                location,
                size,
                uid,
                at,
            } => {
                self.remove_link(&repository, digest);
                self.back_links
                    .entry(digest)
                    .or_default()
                    .insert((repository.clone(), LinkKind::Blob, uid), at);
                let row = LinkRow {
                    link: Link {
                        location,
                        size,
                        uid,
                        defect: None,
                    },
                    at,
                    marked: None,
                };
                self.links.insert((repository, digest), row);
            }
            Record::Manifest(entry) => self.import_manifest(*entry),
            Record::Tag {
                repository,
                tag,
                target,
            } => {
                let digest = target.digest;
                let tags = self.tags.entry(repository.clone()).or_default();
                if let Some(before) = tags.insert(tag.clone(), target) {
                    self.tagged.remove(&(repository.clone(), before.digest, tag.clone()));
                }
                self.tagged.insert((repository, digest, tag));
            }
            Record::History {
                repository,
                tag,
                change,
            } => {
                let history = self.history.entry((repository, tag)).or_default();
                history.insert(change.version, change);
            }
        }
    }

    fn import_manifest(&mut self, entry: ManifestEntry) {
        let ManifestEntry { repository, digest, .. } = entry;
        self.remove_manifest(&repository, digest);
        let references = entry.references.into_iter().collect();
        self.add_references(&repository, digest, &references);
        let subject = entry.subject.as_ref().map(|(subject, _)| *subject);
        if let Some((subject, row)) = entry.subject {
            let key = (repository.clone(), subject);
            self.referrers.entry(key).or_default().insert(digest, row);
        }
        let content = match entry.content {
            EntryContent::Inline(bytes) => Content::Inline(bytes),
            EntryContent::Stored(location) => {
                self.back_links
                    .entry(digest)
                    .or_default()
                    .insert((repository.clone(), LinkKind::Manifest, entry.uid), entry.at);
                Content::Stored(location)
            }
        };
        let row = ManifestRow {
            record: ManifestRecord {
                media_type: entry.media_type,
                size: entry.size,
                content,
                subject,
                artifact_type: entry.artifact_type,
                uid: entry.uid,
            },
            references,
            at: entry.at,
        };
        self.manifests.entry(repository).or_default().insert(digest, row);
    }
}

#[async_trait]
impl RecordStore for MemoryMetadata {
    async fn walk(
        &self,
        _cx: Context,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<Result<Record, Unreadable>>, StoreError> {
        let all = self.begin().export();
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.0.as_str()));
        let slice: Vec<_> = all.range::<str, _>((from, Bound::Unbounded)).take(limit).collect();
        let last = slice.last().filter(|_| slice.len() == limit);
        Ok(Slice {
            next: last.map(|(key, _)| Cursor((*key).clone())),
            items: slice.iter().map(|(_, record)| (*record).clone()).collect(),
        })
    }

    async fn recorded_object(&self, _cx: Context, digest: &Digest) -> Result<Option<RecordedObject>, StoreError> {
        let records = self.begin();
        let row = records.blobs.get(digest);
        Ok(row.map(|row| RecordedObject {
            location: row.location.clone(),
            size: row.size,
            defect: row.defect,
        }))
    }

    async fn missing_back_references(
        &self,
        _cx: Context,
        back_references: &[BackReference],
    ) -> Result<Vec<BackReference>, StoreError> {
        let records = self.begin();
        Ok(back_references
            .iter()
            .filter(|back_reference| !records.has(back_reference))
            .cloned()
            .collect())
    }

    async fn insert(&self, _cx: Context, records: &[Record]) -> Result<(), StoreError> {
        let mut all = self.begin();
        for record in records {
            all.import(record);
        }
        Ok(())
    }
}
