//! The manifests of a promotion. Each is put in the target after everything to which it refers, so that an interruption leaves
//! no incomplete manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use oci::{Digest, Manifest, RepositoryName, Role};

use super::manifest_bytes::UNLIMITED;
use super::put_manifest::referrer;
use super::repository_settings::foreign_layer;
use crate::auth::RepositorySettings;
use crate::call::Call;
use crate::error::Error;
use crate::memory::Memory;
use crate::releases::{MAX_DEPTH, MAX_MANIFESTS, MissingReference, Promotion, ReleaseError};
use crate::store::StoreError;
use crate::store::access::Author;
use crate::store::metadata::{Link, ManifestPut, NewContent, PutManifest, TagGuard};

/// A stored manifest, and the permit for its memory.
pub(super) struct FoundManifest {
    pub(super) manifest: Manifest,
    bytes: Bytes,
    memory: Memory,
}

/// Puts manifests of one repository in another one.
pub(super) struct PromotedManifests<'c> {
    pub(super) call: &'c Call<'c>,
    pub(super) source: &'c RepositoryName,
    pub(super) target: &'c RepositoryName,
    /// Who promotes, and what.
    pub(super) author: &'c Author,
    /// The settings of the policy for the target.
    settings: RepositorySettings,
    guard: &'c Arc<dyn TagGuard>,
    /// The manifests that are in the target, in the order in which they were put there.
    order: Vec<Digest>,
    done: BTreeSet<Digest>,
    copied_bytes: u64,
}

impl<'c> PromotedManifests<'c> {
    pub(super) fn new(
        call: &'c Call<'c>,
        promotion: &Promotion<'c>,
        author: &'c Author,
        guard: &'c Arc<dyn TagGuard>,
    ) -> Self {
        Self {
            call,
            source: promotion.source.repository(),
            target: promotion.target.push().repository(),
            author,
            settings: promotion.target.push().settings(),
            guard,
            order: Vec::new(),
            done: BTreeSet::new(),
            copied_bytes: 0,
        }
    }

    /// How many manifests are in the target.
    pub(super) fn count(&self) -> usize {
        self.order.len()
    }

    /// The manifest that was put as number `index`.
    pub(super) fn nth(&self, index: usize) -> Option<Digest> {
        self.order.get(index).copied()
    }

    /// Whether the manifest is in the target.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.done.contains(digest)
    }

    /// Bytes of large manifests that were stored again.
    pub(super) fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// Reads a manifest. `None`: it does not exist.
    pub(super) async fn read(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<FoundManifest>, ReleaseError> {
        let metadata = &self.call.stores.metadata;
        let Some(record) = metadata.manifest(self.call.cx(), repository, digest).await? else {
            return Ok(None);
        };
        let lost = || ReleaseError::Lost {
            repository: repository.clone(),
            digest: *digest,
        };
        let found = self.call.bytes_to_parse(repository, digest, &record).await?;
        let (bytes, memory) = found.ok_or_else(lost)?;
        // A store takes the bytes of a put for those of the digest.
        if Digest::of(digest.algorithm(), &bytes) != *digest {
            return Err(lost());
        }
        let manifest = Manifest::parse(&bytes, Some(&record.media_type), &UNLIMITED).map_err(StoreError::failed)?;
        Ok(Some(FoundManifest {
            manifest,
            bytes,
            memory,
        }))
    }

    /// Puts a manifest in the target, after everything to which it refers. `false`: the source has no such manifest.
    pub(super) fn bring(&mut self, digest: Digest, depth: usize) -> BoxFuture<'_, Result<bool, ReleaseError>> {
        Box::pin(async move {
            if self.done.contains(&digest) {
                return Ok(true);
            }
            if depth > MAX_DEPTH {
                return Err(ReleaseError::TooDeep);
            }
            let Some(first) = self.read(self.source, &digest).await? else {
                return Ok(false);
            };
            if let Some(digest) = foreign_layer(self.settings, &first.manifest) {
                let repository = self.target.clone();
                return Err(ReleaseError::ForeignLayer { repository, digest });
            }
            let references = references_of(&first.manifest);
            let (must_exist, _) = self.call.settings.sparse.references(&first.manifest);
            let mut found = Some(first);
            let (mut required, mut excepted) = (BTreeSet::new(), BTreeSet::new());
            for (reference, is_manifest) in references {
                let is_there = if !is_manifest && self.mount(&reference).await? {
                    true
                } else {
                    // Nothing is kept in memory while this waits for memory for another manifest.
                    found = None;
                    // The entries of an index may be blobs, and other references may be manifests.
                    self.bring(reference, depth + 1).await? || (is_manifest && self.mount(&reference).await?)
                };
                if is_there {
                    required.insert(reference);
                } else if must_exist.contains(&reference) || self.is_linked(&reference).await? {
                    return Err(ReleaseError::Incomplete(Box::new(MissingReference {
                        repository: self.source.clone(),
                        manifest: digest,
                        digest: reference,
                    })));
                } else {
                    excepted.insert(reference);
                }
            }
            let found = match found {
                Some(found) => found,
                None => self.read(self.source, &digest).await?.ok_or(ReleaseError::Changed)?,
            };
            self.put(digest, found, required, excepted).await?;
            Ok(true)
        })
    }

    /// Links a blob. `false`: the source does not link it, or its object has a defect.
    async fn mount(&self, digest: &Digest) -> Result<bool, ReleaseError> {
        self.check_size(digest).await?;
        let metadata = &self.call.stores.metadata;
        Ok(metadata.mount(self.call.cx(), self.target, digest, self.source).await?)
    }

    /// Refuses a blob that is too large for the target and not there yet. One read, if the policy bounds the target's blobs.
    async fn check_size(&self, digest: &Digest) -> Result<(), ReleaseError> {
        let Some(limit) = self.settings.max_blob else {
            return Ok(());
        };
        let link = self.link(self.source, digest).await?;
        if link.is_none_or(|link| link.size <= limit) || self.link(self.target, digest).await?.is_some() {
            return Ok(());
        }
        Err(ReleaseError::BlobTooLarge {
            repository: self.target.clone(),
            digest: *digest,
            limit,
        })
    }

    /// Whether the source links the blob, whatever its condition.
    async fn is_linked(&self, digest: &Digest) -> Result<bool, ReleaseError> {
        Ok(self.link(self.source, digest).await?.is_some())
    }

    async fn link(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<Link>, ReleaseError> {
        let metadata = &self.call.stores.metadata;
        Ok(metadata.link(self.call.cx(), repository, digest).await?)
    }

    async fn put(
        &mut self,
        digest: Digest,
        found: FoundManifest,
        required: BTreeSet<Digest>,
        excepted: BTreeSet<Digest>,
    ) -> Result<(), ReleaseError> {
        if self.order.len() >= MAX_MANIFESTS {
            return Err(ReleaseError::TooManyManifests);
        }
        let FoundManifest {
            manifest,
            bytes,
            memory: _held,
        } = found;
        let (size, limits) = (bytes.len() as u64, &self.call.settings.limits);
        let is_large = bytes.len() > limits.inline_manifest_bytes;
        let row = referrer(&manifest, &digest, size, limits.referrer_annotations_bytes);
        let mut put = PutManifest {
            repository: self.target.clone(),
            digest,
            media_type: manifest.media_type,
            size,
            content: NewContent::Inline(bytes.clone()),
            artifact_type: manifest.artifact_type,
            subject: manifest.subject.map(|subject| (subject.digest, row)),
            required,
            excepted,
            tags: Vec::new(),
            author: self.author.clone(),
        };
        let outcome = self.call.put_bytes(&mut put, bytes, self.guard).await;
        match outcome.map_err(fault)? {
            ManifestPut::AsItWas => {}
            ManifestPut::Stored | ManifestPut::StoredElsewhere(_) => {
                if is_large {
                    self.copied_bytes += size;
                }
            }
            // Deleted since it was put or mounted.
            ManifestPut::Missing(_) => return Err(ReleaseError::Changed),
            ManifestPut::OtherType(media_type) => {
                let repository = self.target.clone();
                return Err(ReleaseError::OtherType {
                    repository,
                    digest,
                    media_type,
                });
            }
            ManifestPut::Protected(protected) => return Err(ReleaseError::Protected(Box::new(protected))),
            ManifestPut::Gone => {
                return Err(StoreError::failed("a manifest that was put with its bytes is said to have none").into());
            }
        }
        self.done.insert(digest);
        self.order.push(digest);
        Ok(())
    }
}

/// What the manifest refers to, except its subject, and whether it is an entry of an index.
fn references_of(manifest: &Manifest) -> BTreeMap<Digest, bool> {
    let mut references = BTreeMap::new();
    for entry in &manifest.references {
        *references.entry(entry.descriptor.digest).or_default() |= entry.role == Role::Manifest;
    }
    references
}

/// The error of a put with its bytes, which only a store can cause.
fn fault(error: Error) -> ReleaseError {
    match error {
        Error::Store(error) => error.into(),
        error => StoreError::failed(error.to_string()).into(),
    }
}
