//! What a record says, compared with what it refers to.

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use oci::{Digest, Hasher, Manifest, RepositoryName, Tag};

use super::{Finding, Over};
use crate::operations::manifests::references;
use crate::store::metadata::TagRecord;
use crate::store::records::{EntryContent, ManifestEntry, Record};
use crate::store::{Incarnation, Location, StoreError};

/// How many holders of a digest are looked at: whether one more holds what a thousand hold is not worth a thousand
/// reads.
const HOLDERS: usize = 100;

/// What came of one record.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) findings: Vec<Finding>,
    pub(super) hashed: u64,
    pub(super) absent: u64,
}

impl Over<'_> {
    pub(super) async fn look(&self, record: Record) -> Result<Looked, StoreError> {
        let mut looked = Looked::default();
        match &record {
            Record::Repository { .. } | Record::History { .. } => {}
            Record::Blob {
                digest, location, size, ..
            } => self.blob(&mut looked, digest, location, *size).await?,
            Record::Link {
                repository,
                digest,
                location,
                incarnation,
                ..
            } => {
                self.link(&mut looked, repository, digest, location, *incarnation)
                    .await?;
            }
            Record::Manifest(entry) => self.manifest(&mut looked, entry).await?,
            Record::Tag { repository, tag, names } => self.tag(&mut looked, repository, tag, names).await?,
        }
        Ok(looked)
    }

    async fn is_named(&self, digest: &Digest, location: &Location) -> Result<bool, StoreError> {
        self.stores.collection.is_named(self.cx(), digest, location).await
    }

    /// Objects never change, so that one that is missing or wrong is so for ever; but its record may have been removed
    /// since it was read, and the object after it.
    async fn blob(
        &self,
        looked: &mut Looked,
        digest: &Digest,
        location: &Location,
        size: u64,
    ) -> Result<(), StoreError> {
        let found = self.stores.blobs.stat(self.cx(), location).await?;
        let suspicion = match found {
            None => Some(Finding::ObjectMissing {
                digest: *digest,
                location: location.clone(),
            }),
            Some(found) if found != size => Some(Finding::ObjectResized {
                digest: *digest,
                location: location.clone(),
                recorded: size,
                found,
            }),
            Some(size) if self.options.hash => {
                looked.hashed += 1;
                self.hash(digest, location, size).await?
            }
            Some(_) => None,
        };
        if let Some(finding) = suspicion
            && self.is_named(digest, location).await?
        {
            looked.findings.push(finding);
        }
        Ok(())
    }

    async fn hash(&self, digest: &Digest, location: &Location, size: u64) -> Result<Option<Finding>, StoreError> {
        let Some(mut stream) = self.stores.blobs.read(self.cx(), location, 0..size).await? else {
            return Ok(Some(Finding::ObjectMissing {
                digest: *digest,
                location: location.clone(),
            }));
        };
        let mut hasher = Hasher::new(digest.algorithm());
        while let Some(chunk) = stream.try_next().await? {
            hasher.update(&chunk);
        }
        let computed = hasher.finish();
        Ok((computed != *digest).then(|| Finding::Corrupt {
            digest: *digest,
            location: Some(location.clone()),
            computed,
        }))
    }

    async fn link(
        &self,
        looked: &mut Looked,
        repository: &RepositoryName,
        digest: &Digest,
        location: &Location,
        incarnation: Incarnation,
    ) -> Result<(), StoreError> {
        let metadata = &self.stores.metadata;
        let mut suspicions = Vec::new();
        if !self.is_named(digest, location).await? {
            suspicions.push(Finding::LinkAstray {
                repository: repository.clone(),
                digest: *digest,
                location: location.clone(),
            });
        }
        let holders = metadata.holders(self.cx(), digest, HOLDERS).await?;
        if holders.len() < HOLDERS && !holders.contains(repository) {
            suspicions.push(Finding::LinkWithoutHolder {
                repository: repository.clone(),
                digest: *digest,
            });
        }
        if !suspicions.is_empty() {
            let now = metadata.link(self.cx(), repository, digest).await?;
            if now.is_some_and(|link| link.incarnation == incarnation && link.location == *location) {
                looked.findings.append(&mut suspicions);
            }
        }
        Ok(())
    }

    async fn manifest(&self, looked: &mut Looked, entry: &ManifestEntry) -> Result<(), StoreError> {
        let ManifestEntry { repository, digest, .. } = entry;
        let mut suspicions = Vec::new();
        let mut readable = true;
        match &entry.content {
            EntryContent::Inline(bytes) => {
                let computed = Digest::of(digest.algorithm(), bytes);
                if computed != *digest {
                    readable = false;
                    suspicions.push(Finding::Corrupt {
                        digest: *digest,
                        location: None,
                        computed,
                    });
                }
            }
            // Whether there is an object is told by the record of its bytes.
            EntryContent::Stored(location) => {
                if !self.is_named(digest, location).await? {
                    suspicions.push(Finding::ManifestAstray {
                        repository: repository.clone(),
                        digest: *digest,
                        location: location.clone(),
                    });
                }
            }
        }
        if !self.stores.metadata.repository(self.cx(), repository).await? {
            suspicions.push(Finding::RepositoryUnlisted {
                repository: repository.clone(),
            });
        }
        let mut missing = Vec::new();
        for target in &entry.references {
            if !self.is_present(repository, target).await? {
                missing.push(*target);
            }
        }
        if !missing.is_empty()
            && readable
            && let Some(bytes) = self.bytes(entry).await?
        {
            self.judge(looked, &mut suspicions, entry, &missing, &bytes);
        }
        if !suspicions.is_empty() {
            let now = self.stores.metadata.manifest(self.cx(), repository, digest).await?;
            if now.is_some_and(|record| record.incarnation == entry.incarnation) {
                looked.findings.append(&mut suspicions);
            }
        }
        Ok(())
    }

    async fn is_present(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let metadata = &self.stores.metadata;
        Ok(metadata.link(self.cx(), repository, digest).await?.is_some()
            || metadata.manifest(self.cx(), repository, digest).await?.is_some())
    }

    /// Which of what is missing must be there: the records do not tell what was excepted, the manifest does.
    fn judge(
        &self,
        looked: &mut Looked,
        suspicions: &mut Vec<Finding>,
        entry: &ManifestEntry,
        missing: &[Digest],
        bytes: &[u8],
    ) {
        let limits = &self.options.limits;
        let bounds = oci::Limits {
            max_depth: limits.json_depth,
            max_references: limits.manifest_references,
            ..oci::Limits::default()
        };
        let manifest = match Manifest::parse(bytes, Some(&entry.media_type), &bounds) {
            Ok(manifest) => manifest,
            Err(error) => {
                suspicions.push(Finding::ManifestRefused {
                    repository: entry.repository.clone(),
                    digest: entry.digest,
                    reason: error.to_string(),
                });
                return;
            }
        };
        let (required, _) = references(&manifest, self.options.sparse);
        for target in missing {
            if required.contains(target) {
                suspicions.push(Finding::ReferenceMissing {
                    repository: entry.repository.clone(),
                    digest: entry.digest,
                    target: *target,
                });
            } else {
                looked.absent += 1;
            }
        }
    }

    /// A manifest's bytes. `None`: their object is missing, or larger than any manifest; that is told elsewhere.
    async fn bytes(&self, entry: &ManifestEntry) -> Result<Option<Bytes>, StoreError> {
        let location = match &entry.content {
            EntryContent::Inline(bytes) => return Ok(Some(bytes.clone())),
            EntryContent::Stored(location) => location,
        };
        let found = self.stores.blobs.stat(self.cx(), location).await?;
        if found != Some(entry.size) || entry.size > self.options.limits.manifest_bytes as u64 {
            return Ok(None);
        }
        let Some(mut stream) = self.stores.blobs.read(self.cx(), location, 0..entry.size).await? else {
            return Ok(None);
        };
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes.freeze()))
    }

    async fn tag(
        &self,
        looked: &mut Looked,
        repository: &RepositoryName,
        tag: &Tag,
        names: &TagRecord,
    ) -> Result<(), StoreError> {
        let metadata = &self.stores.metadata;
        let digest = names.digest;
        let suspicion = match metadata.manifest(self.cx(), repository, &digest).await? {
            None => Finding::TagDangling {
                repository: repository.clone(),
                tag: tag.clone(),
                digest,
            },
            Some(record) if record.media_type != names.media_type || record.size != names.size => Finding::TagDiffers {
                repository: repository.clone(),
                tag: tag.clone(),
                digest,
            },
            Some(_) => return Ok(()),
        };
        let now = metadata.tag(self.cx(), repository, tag).await?;
        if now.is_some_and(|record| record.version == names.version) {
            looked.findings.push(suspicion);
        }
        Ok(())
    }
}
