//! Checks of records: a record is compared with what it refers to. Manifests, which have most references, are in
//! `manifests`.

use futures_util::TryStreamExt as _;
use oci::{Digest, Hasher, RepositoryName, Tag};

use super::finding::Finding;
use super::run::CheckSetup;
use crate::store::metadata::{Defect, Link, TagRecord};
use crate::store::records::{BackReference, LinkKind, Record, RecordedObject, Unreadable};
use crate::store::{Location, StoreError};

/// The result of the check of one record.
#[derive(Debug, Default)]
pub(super) struct RecordCheck {
    pub(super) findings: Vec<Finding>,
    pub(super) hashed: u64,
    pub(super) absent: u64,
}

/// The finding for a recorded defect that this check has not found itself, or has not looked for.
fn as_recorded(defect: Defect, digest: &Digest, location: &Location) -> Finding {
    let (digest, location) = (*digest, location.clone());
    match defect {
        Defect::Missing => Finding::RecordedAsMissing { digest, location },
        Defect::Damaged => Finding::RecordedAsDamaged { digest, location },
    }
}

impl CheckSetup<'_> {
    pub(super) async fn check_record(&self, record: Result<Record, Unreadable>) -> Result<RecordCheck, StoreError> {
        let mut result = RecordCheck::default();
        let record = match record {
            Ok(record) => record,
            Err(Unreadable { record, reason }) => {
                result.findings.push(Finding::Damaged { record, reason });
                return Ok(result);
            }
        };
        match self.compare(&mut result, &record).await {
            // Damage of something that the record refers to.
            Err(error) if error.damage().is_some() => result.findings.push(Finding::Damaged {
                record: record.to_string(),
                reason: error.to_string(),
            }),
            done => done?,
        }
        Ok(result)
    }

    async fn compare(&self, result: &mut RecordCheck, record: &Record) -> Result<(), StoreError> {
        match record {
            Record::Repository { .. } | Record::History { .. } => Ok(()),
            Record::Blob {
                digest, location, size, ..
            } => self.blob(result, digest, location, *size).await,
            Record::Link {
                repository,
                digest,
                location,
                size,
                uid,
                ..
            } => {
                let link = Link {
                    location: location.clone(),
                    size: *size,
                    uid: *uid,
                    defect: None,
                };
                self.link(result, repository, digest, &link).await
            }
            Record::Manifest(entry) => self.manifest(result, entry).await,
            Record::Tag {
                repository,
                tag,
                target,
            } => self.tag(result, repository, tag, target).await,
        }
    }

    pub(super) async fn recorded_object(&self, digest: &Digest) -> Result<Option<RecordedObject>, StoreError> {
        self.stores.records.recorded_object(self.cx(), digest).await
    }

    /// Whether a back-reference exists.
    pub(super) async fn exists(&self, back_reference: BackReference) -> Result<bool, StoreError> {
        Ok(self
            .stores
            .records
            .missing_back_references(self.cx(), &[back_reference])
            .await?
            .is_empty())
    }

    /// Checks the object of a digest. Objects never change, so a missing or wrong object stays so. But its record may
    /// have been deleted since it was read, and the object after it. A recorded defect that is not found here is
    /// reported too: until it is repaired, pulls get 404.
    async fn blob(
        &self,
        result: &mut RecordCheck,
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
                result.hashed += 1;
                self.hash(digest, location, size).await?
            }
            Some(_) => None,
        };
        let now = self.recorded_object(digest).await?;
        if let Some(now) = now.filter(|now| now.location == *location && now.size == size) {
            let recorded = now.defect.map(|defect| as_recorded(defect, digest, location));
            result.findings.extend(suspicion.or(recorded));
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
            repository: None,
            digest: *digest,
            location: Some(location.clone()),
            computed,
        }))
    }

    async fn link(
        &self,
        result: &mut RecordCheck,
        repository: &RepositoryName,
        digest: &Digest,
        link: &Link,
    ) -> Result<(), StoreError> {
        let mut suspicions = Vec::new();
        match self.recorded_object(digest).await? {
            Some(RecordedObject {
                location, size: found, ..
            }) if location == link.location => {
                if found != link.size {
                    suspicions.push(Finding::LinkResized {
                        repository: repository.clone(),
                        digest: *digest,
                        recorded: link.size,
                        found,
                    });
                }
            }
            _ => suspicions.push(Finding::LinkLocationDiffers {
                repository: repository.clone(),
                digest: *digest,
                location: link.location.clone(),
            }),
        }
        let back_reference = BackReference::BackLink {
            digest: *digest,
            repository: repository.clone(),
            link_kind: LinkKind::Blob,
            uid: link.uid,
        };
        if !self.exists(back_reference).await? {
            suspicions.push(Finding::LinkWithoutBackReference {
                repository: repository.clone(),
                digest: *digest,
            });
        }
        if !suspicions.is_empty() {
            let now = self.stores.metadata.link(self.cx(), repository, digest).await?;
            // A recorded defect of the object is a finding of the object's record.
            if now.is_some_and(|now| Link { defect: None, ..now } == *link) {
                result.findings.append(&mut suspicions);
            }
        }
        Ok(())
    }

    async fn tag(
        &self,
        result: &mut RecordCheck,
        repository: &RepositoryName,
        tag: &Tag,
        target: &TagRecord,
    ) -> Result<(), StoreError> {
        let metadata = &self.stores.metadata;
        let digest = target.digest;
        let suspicion = match metadata.manifest(self.cx(), repository, &digest).await? {
            None => Finding::TagDangling {
                repository: repository.clone(),
                tag: tag.clone(),
                digest,
            },
            Some(record) if record.media_type != target.media_type || record.size != target.size => {
                Finding::TagDiffers {
                    repository: repository.clone(),
                    tag: tag.clone(),
                    digest,
                }
            }
            Some(_) => return Ok(()),
        };
        let now = metadata.tag(self.cx(), repository, tag).await?;
        if now.is_some_and(|record| record.version == target.version) {
            result.findings.push(suspicion);
        }
        Ok(())
    }
}
