//! Checks of manifests: a manifest is compared with its record, and with the digests that it refers to.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use oci::{Digest, Manifest, RepositoryName};

use super::finding::Finding;
use super::records::RecordCheck;
use super::run::CheckSetup;
use crate::store::StoreError;
use crate::store::records::{BackReference, EntryContent, LinkKind, ManifestEntry};

/// The references of a manifest: those that must be present, and all.
struct References {
    required: BTreeSet<Digest>,
    all: BTreeSet<Digest>,
}

impl CheckSetup<'_> {
    pub(super) async fn manifest(&self, result: &mut RecordCheck, entry: &ManifestEntry) -> Result<(), StoreError> {
        let ManifestEntry { repository, digest, .. } = entry;
        let mut suspicions = Vec::new();
        let bytes = match &entry.content {
            EntryContent::Inline(bytes) => {
                if bytes.len() as u64 != entry.size {
                    suspicions.push(Finding::ManifestResized {
                        repository: repository.clone(),
                        digest: *digest,
                        recorded: entry.size,
                        found: bytes.len() as u64,
                    });
                }
                Some(bytes.clone())
            }
            EntryContent::Stored(_) => self.stored(&mut suspicions, entry).await?,
        };
        if self.stores.metadata.repository(self.cx(), repository).await?.is_none() {
            suspicions.push(Finding::RepositoryUnlisted {
                repository: repository.clone(),
            });
        }
        let known = bytes.and_then(|bytes| self.parse(&mut suspicions, entry, &bytes));
        let absent = self.references(&mut suspicions, entry, known).await?;
        result.absent += absent;
        if !suspicions.is_empty() {
            let now = self.stores.metadata.manifest(self.cx(), repository, digest).await?;
            if now.is_some_and(|record| record.uid == entry.uid) {
                result.findings.append(&mut suspicions);
            }
        }
        Ok(())
    }

    /// The bytes of a manifest in an object. Also checks the manifest's back-link. `None`: the bytes cannot be read; a
    /// finding of the manifest or of the object's record reports that.
    async fn stored(&self, suspicions: &mut Vec<Finding>, entry: &ManifestEntry) -> Result<Option<Bytes>, StoreError> {
        let ManifestEntry { repository, digest, .. } = entry;
        let EntryContent::Stored(location) = &entry.content else {
            return Ok(None);
        };
        let back_reference = BackReference::BackLink {
            digest: *digest,
            repository: repository.clone(),
            link_kind: LinkKind::Manifest,
            uid: entry.uid,
        };
        if !self.exists(back_reference).await? {
            suspicions.push(Finding::ManifestWithoutBackReference {
                repository: repository.clone(),
                digest: *digest,
            });
        }
        let found = match self.recorded_object(digest).await? {
            Some(object) if object.location == *location => object.size,
            _ => {
                suspicions.push(Finding::ManifestLocationDiffers {
                    repository: repository.clone(),
                    digest: *digest,
                    location: location.clone(),
                });
                return Ok(None);
            }
        };
        if found != entry.size {
            suspicions.push(Finding::ManifestResized {
                repository: repository.clone(),
                digest: *digest,
                recorded: entry.size,
                found,
            });
        }
        if found > self.options.limits.manifest_bytes as u64 {
            suspicions.push(Finding::ManifestRefused {
                repository: repository.clone(),
                digest: *digest,
                reason: format!("it has {found} bytes"),
            });
            return Ok(None);
        }
        // A missing object, or one of another size, is a finding of the object's record.
        if self.stores.blobs.stat(self.cx(), location).await? != Some(found) {
            return Ok(None);
        }
        let Some(mut stream) = self.stores.blobs.read(self.cx(), location, 0..found).await? else {
            return Ok(None);
        };
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes.freeze()))
    }

    /// The references in the manifest itself. `None`: they cannot be read.
    fn parse(&self, suspicions: &mut Vec<Finding>, entry: &ManifestEntry, bytes: &[u8]) -> Option<References> {
        let computed = Digest::of(entry.digest.algorithm(), bytes);
        if computed != entry.digest {
            let (repository, location) = match &entry.content {
                EntryContent::Inline(_) => (Some(entry.repository.clone()), None),
                EntryContent::Stored(location) => (None, Some(location.clone())),
            };
            // With `hash`, the check of the object's record reports this.
            if location.is_none() || !self.options.hash {
                suspicions.push(Finding::Corrupt {
                    repository,
                    digest: entry.digest,
                    location,
                    computed,
                });
            }
            return None;
        }
        let limits = &self.options.limits;
        let bounds = oci::ManifestLimits {
            max_depth: limits.json_depth,
            max_references: limits.manifest_references,
            ..oci::ManifestLimits::default()
        };
        match Manifest::parse(bytes, Some(&entry.media_type), &bounds) {
            Ok(manifest) => {
                let (required, excepted) = self.options.sparse.references(&manifest);
                let all = required.union(&excepted).copied().collect();
                Some(References { required, all })
            }
            Err(error) => {
                suspicions.push(Finding::ManifestRefused {
                    repository: entry.repository.clone(),
                    digest: entry.digest,
                    reason: error.to_string(),
                });
                None
            }
        }
    }

    /// Compares the references of a manifest with the content that is present, with its edges, and with the list in its
    /// record. If the manifest's own references are unknown, the list in its record counts. Returns how many references
    /// are absent and may be absent.
    async fn references(
        &self,
        suspicions: &mut Vec<Finding>,
        entry: &ManifestEntry,
        known: Option<References>,
    ) -> Result<u64, StoreError> {
        let ManifestEntry { repository, digest, .. } = entry;
        let listed: BTreeSet<Digest> = entry.references.iter().copied().collect();
        let References { required, all } = known.unwrap_or_else(|| References {
            required: BTreeSet::new(),
            all: listed.clone(),
        });
        let back_references: Vec<BackReference> = all
            .iter()
            .map(|target| BackReference::Edge {
                repository: repository.clone(),
                target: *target,
                parent: *digest,
                uid: entry.uid,
            })
            .collect();
        let mut unheld = BTreeSet::new();
        for back_reference in self
            .stores
            .records
            .missing_back_references(self.cx(), &back_references)
            .await?
        {
            if let BackReference::Edge { target, .. } = back_reference {
                unheld.insert(target);
            }
        }
        let mut absent = 0;
        for target in all {
            let repository = || repository.clone();
            if unheld.contains(&target) {
                suspicions.push(Finding::EdgeMissing {
                    repository: repository(),
                    digest: *digest,
                    target,
                });
            } else if !listed.contains(&target) {
                suspicions.push(Finding::ReferenceUnlisted {
                    repository: repository(),
                    digest: *digest,
                    target,
                });
            }
            if self.is_present(&entry.repository, &target).await? {
                continue;
            }
            if required.contains(&target) {
                suspicions.push(Finding::ReferenceMissing {
                    repository: repository(),
                    digest: *digest,
                    target,
                });
            } else {
                absent += 1;
            }
        }
        Ok(absent)
    }

    /// Whether the repository has a digest, as a blob or as a manifest. A damaged one is present here: the check of its
    /// own record reports the damage.
    async fn is_present(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let metadata = &self.stores.metadata;
        let is_there = |error: StoreError| match error.damage() {
            Some(_) => Ok(true),
            None => Err(error),
        };
        let link = metadata.link(self.cx(), repository, digest).await;
        if link.map(|link| link.is_some()).or_else(is_there)? {
            return Ok(true);
        }
        let manifest = metadata.manifest(self.cx(), repository, digest).await;
        manifest.map(|manifest| manifest.is_some()).or_else(is_there)
    }
}
