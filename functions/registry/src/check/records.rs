//! What a record says, compared with what it refers to. Manifests, which refer to most, are in `manifests`.

use futures_util::TryStreamExt as _;
use oci::{Digest, Hasher, RepositoryName, Tag};

use super::finding::Finding;
use super::run::Over;
use crate::store::metadata::{Defect, Link, TagRecord};
use crate::store::records::{BackReference, LinkKind, Record, RecordedObject, Unreadable};
use crate::store::{Location, StoreError};

/// What came of one record.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) findings: Vec<Finding>,
    pub(super) hashed: u64,
    pub(super) absent: u64,
}

/// A defect that a look has not found, or has not looked for.
fn as_recorded(defect: Defect, digest: &Digest, location: &Location) -> Finding {
    let (digest, location) = (*digest, location.clone());
    match defect {
        Defect::Missing => Finding::RecordedAsMissing { digest, location },
        Defect::Damaged => Finding::RecordedAsDamaged { digest, location },
    }
}

impl Over<'_> {
    pub(super) async fn look(&self, record: Result<Record, Unreadable>) -> Result<Looked, StoreError> {
        let mut looked = Looked::default();
        let record = match record {
            Ok(record) => record,
            Err(Unreadable { record, reason }) => {
                looked.findings.push(Finding::Damaged { record, reason });
                return Ok(looked);
            }
        };
        match self.compare(&mut looked, &record).await {
            // Of what the record refers to.
            Err(error) if error.damage().is_some() => looked.findings.push(Finding::Damaged {
                record: record.to_string(),
                reason: error.to_string(),
            }),
            done => done?,
        }
        Ok(looked)
    }

    async fn compare(&self, looked: &mut Looked, record: &Record) -> Result<(), StoreError> {
        match record {
            Record::Repository { .. } | Record::History { .. } => Ok(()),
            Record::Blob {
                digest, location, size, ..
            } => self.blob(looked, digest, location, *size).await,
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
                self.link(looked, repository, digest, &link).await
            }
            Record::Manifest(entry) => self.manifest(looked, entry).await,
            Record::Tag { repository, tag, names } => self.tag(looked, repository, tag, names).await,
        }
    }

    pub(super) async fn place(&self, digest: &Digest) -> Result<Option<RecordedObject>, StoreError> {
        self.stores.records.place(self.cx(), digest).await
    }

    /// Whether the repository is among those who hold the bytes.
    pub(super) async fn is_held(&self, hold: BackReference) -> Result<bool, StoreError> {
        Ok(self.stores.records.lost(self.cx(), &[hold]).await?.is_empty())
    }

    /// Objects never change, so that one that is missing or wrong is so for ever; but its record may have been removed
    /// since it was read, and the object after it. What is recorded as wrong, and is not read here, is told too: until
    /// it is mended, pulls are answered with 404.
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
        let now = self.place(digest).await?;
        if let Some(now) = now.filter(|now| now.location == *location && now.size == size) {
            let recorded = now.defect.map(|defect| as_recorded(defect, digest, location));
            looked.findings.extend(suspicion.or(recorded));
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
        looked: &mut Looked,
        repository: &RepositoryName,
        digest: &Digest,
        link: &Link,
    ) -> Result<(), StoreError> {
        let mut suspicions = Vec::new();
        match self.place(digest).await? {
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
            _ => suspicions.push(Finding::LinkAstray {
                repository: repository.clone(),
                digest: *digest,
                location: link.location.clone(),
            }),
        }
        let hold = BackReference::BackLink {
            digest: *digest,
            repository: repository.clone(),
            link_kind: LinkKind::Blob,
            uid: link.uid,
        };
        if !self.is_held(hold).await? {
            suspicions.push(Finding::LinkWithoutHolder {
                repository: repository.clone(),
                digest: *digest,
            });
        }
        if !suspicions.is_empty() {
            let now = self.stores.metadata.link(self.cx(), repository, digest).await?;
            // Whether a defect of the object is recorded is another question.
            if now.is_some_and(|now| Link { defect: None, ..now } == *link) {
                looked.findings.append(&mut suspicions);
            }
        }
        Ok(())
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
