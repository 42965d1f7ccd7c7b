//! Finds what cannot be pulled any more: manifests that need lost content, with their tags, and lost blobs without a
//! manifest.
//!
//! This runs only if something is lost. It walks over all records again, because no store has an index of the manifests
//! that refer to a digest. The walk is repeated until it finds no further manifest, since indexes refer to manifests.
//! The memory contains what was found.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use oci::{Digest, RepositoryName, Tag};

use super::finding::Finding;
use super::run::{CheckSetup, Run};
use crate::store::StoreError;
use crate::store::records::Record;

/// The lost content.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Lost in every repository.
    everywhere: HashSet<Digest>,
    /// Lost in these repositories only.
    in_repository: HashSet<(RepositoryName, Digest)>,
    /// Manifests with a missing reference.
    manifests: BTreeMap<(RepositoryName, Digest), Broken>,
}

impl Losses {
    pub(super) fn add(&mut self, finding: &Finding) {
        match finding {
            // Each repository has its own record.
            Finding::Corrupt {
                repository: Some(repository),
                digest,
                ..
            }
            | Finding::LinkLocationDiffers { repository, digest, .. }
            | Finding::ManifestLocationDiffers { repository, digest, .. }
            | Finding::TagDangling { repository, digest, .. } => {
                self.in_repository.insert((repository.clone(), *digest));
            }
            Finding::ObjectMissing { digest, .. }
            | Finding::ObjectResized { digest, .. }
            | Finding::RecordedAsDamaged { digest, .. }
            | Finding::Corrupt { digest, .. } => {
                self.everywhere.insert(*digest);
            }
            // In another repository, a manifest with the same reference may be intact.
            Finding::ReferenceMissing {
                repository,
                digest,
                target,
            } => {
                let broken = self.manifests.entry((repository.clone(), *digest)).or_default();
                broken.lost.insert(*target);
            }
            _ => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.everywhere.is_empty() && self.in_repository.is_empty() && self.manifests.is_empty()
    }

    fn has(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.everywhere.contains(digest) || self.in_repository.contains(&(repository.clone(), *digest))
    }
}

/// A manifest that cannot be pulled completely.
#[derive(Debug, Default)]
struct Broken {
    tags: BTreeSet<Tag>,
    lost: BTreeSet<Digest>,
}

/// What the walks have found.
#[derive(Debug)]
struct BrokenContent {
    manifests: BTreeMap<(RepositoryName, Digest), Broken>,
    blobs: BTreeSet<(RepositoryName, Digest)>,
}

impl BrokenContent {
    fn add(&mut self, losses: &Losses, record: Record) {
        match record {
            Record::Manifest(entry) => {
                let repository = &entry.repository;
                let is_lost = |target: &Digest| {
                    losses.has(repository, target) || self.manifests.contains_key(&(repository.clone(), *target))
                };
                let mut lost: BTreeSet<Digest> = entry.references.iter().copied().filter(is_lost).collect();
                if losses.has(repository, &entry.digest) {
                    lost.insert(entry.digest);
                }
                if !lost.is_empty() {
                    let key = (entry.repository, entry.digest);
                    self.manifests.entry(key).or_default().lost.extend(lost);
                }
            }
            Record::Link { repository, digest, .. } if losses.has(&repository, &digest) => {
                self.blobs.insert((repository, digest));
            }
            Record::Tag {
                repository,
                tag,
                target,
            } => {
                let key = (repository, target.digest);
                let is_lost = losses.in_repository.contains(&key);
                if let Some(broken) = self.manifests.get_mut(&key) {
                    broken.tags.insert(tag);
                } else if is_lost {
                    // The tag refers to a manifest that does not exist.
                    let broken = self.manifests.entry(key).or_default();
                    broken.lost.insert(target.digest);
                    broken.tags.insert(tag);
                }
            }
            _ => {}
        }
    }

    /// The findings. A blob is reported only if no manifest is reported because of it.
    fn findings(self) -> Vec<Finding> {
        let mut reported: HashSet<(RepositoryName, Digest)> = HashSet::new();
        let mut findings = Vec::new();
        for ((repository, digest), Broken { tags, lost }) in self.manifests {
            reported.extend(lost.iter().map(|lost| (repository.clone(), *lost)));
            findings.push(Finding::ManifestNotPullable {
                repository,
                digest,
                tags: tags.into_iter().collect(),
                missing: lost.into_iter().collect(),
            });
        }
        let blobs = self.blobs.into_iter().filter(|blob| !reported.contains(blob));
        findings.extend(blobs.map(|(repository, digest)| Finding::BlobNotPullable { repository, digest }));
        findings
    }
}

impl CheckSetup<'_> {
    async fn walk_over(&self, losses: &Losses, found: &mut BrokenContent) -> Result<(), StoreError> {
        let mut next = None;
        loop {
            let limit = self.options.slice;
            let slice = self.stores.records.walk(self.cx(), next.as_ref(), limit).await?;
            for record in slice.items.into_iter().flatten() {
                found.add(losses, record);
            }
            next = slice.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }
}

impl Run<'_> {
    /// Reports what cannot be pulled any more because of the lost content.
    pub(super) async fn not_pullable(&mut self, mut losses: Losses) -> Result<(), StoreError> {
        if losses.is_empty() {
            return Ok(());
        }
        let mut found = BrokenContent {
            manifests: std::mem::take(&mut losses.manifests),
            blobs: BTreeSet::new(),
        };
        loop {
            let before = found.manifests.len();
            self.setup.walk_over(&losses, &mut found).await?;
            if found.manifests.len() == before {
                break;
            }
        }
        for finding in found.findings() {
            self.found(&finding);
        }
        Ok(())
    }
}
