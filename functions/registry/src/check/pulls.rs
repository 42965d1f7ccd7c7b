//! What can no longer be pulled, under the names by which it is pulled: the manifests that need something lost, with
//! their tags, and the blobs that are lost by themselves.
//!
//! Only if something is lost, and by walking over all records again: which manifests refer to a digest, no store tells.
//! The walk is repeated until it meets no further manifest, since indexes refer to manifests. What is held in memory is
//! what is found.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use oci::{Digest, RepositoryName, Tag};

use super::finding::Finding;
use super::run::{Over, Run};
use crate::store::StoreError;
use crate::store::records::Record;

/// What was found lost.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Whoever holds these has lost them.
    everywhere: HashSet<Digest>,
    /// Only these repositories have.
    here: HashSet<(RepositoryName, Digest)>,
    /// Manifests that lack what they need.
    manifests: BTreeMap<(RepositoryName, Digest), Broken>,
}

impl Losses {
    pub(super) fn add(&mut self, finding: &Finding) {
        match finding {
            // A record, of which every repository has its own.
            Finding::Corrupt {
                repository: Some(repository),
                digest,
                ..
            }
            | Finding::LinkAstray { repository, digest, .. }
            | Finding::ManifestAstray { repository, digest, .. }
            | Finding::TagDangling { repository, digest, .. } => {
                self.here.insert((repository.clone(), *digest));
            }
            Finding::ObjectMissing { digest, .. }
            | Finding::ObjectResized { digest, .. }
            | Finding::RecordedAsDamaged { digest, .. }
            | Finding::Corrupt { digest, .. } => {
                self.everywhere.insert(*digest);
            }
            // Others may refer to the same, and need not have it.
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
        self.everywhere.is_empty() && self.here.is_empty() && self.manifests.is_empty()
    }

    fn has(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.everywhere.contains(digest) || self.here.contains(&(repository.clone(), *digest))
    }
}

/// A manifest that cannot be pulled whole.
#[derive(Debug, Default)]
struct Broken {
    tags: BTreeSet<Tag>,
    lost: BTreeSet<Digest>,
}

/// What a walk has met.
#[derive(Debug)]
struct Met {
    manifests: BTreeMap<(RepositoryName, Digest), Broken>,
    blobs: BTreeSet<(RepositoryName, Digest)>,
}

impl Met {
    fn look(&mut self, losses: &Losses, record: Record) {
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
            Record::Tag { repository, tag, names } => {
                let key = (repository, names.digest);
                let is_here = losses.here.contains(&key);
                if let Some(broken) = self.manifests.get_mut(&key) {
                    broken.tags.insert(tag);
                } else if is_here {
                    // There is no manifest at all.
                    let broken = self.manifests.entry(key).or_default();
                    broken.lost.insert(names.digest);
                    broken.tags.insert(tag);
                }
            }
            _ => {}
        }
    }

    /// What is to be told: blobs only where no manifest tells of them.
    fn findings(self) -> Vec<Finding> {
        let mut told: HashSet<(RepositoryName, Digest)> = HashSet::new();
        let mut findings = Vec::new();
        for ((repository, digest), Broken { tags, lost }) in self.manifests {
            told.extend(lost.iter().map(|lost| (repository.clone(), *lost)));
            findings.push(Finding::ManifestNotPullable {
                repository,
                digest,
                tags: tags.into_iter().collect(),
                lost: lost.into_iter().collect(),
            });
        }
        let blobs = self.blobs.into_iter().filter(|blob| !told.contains(blob));
        findings.extend(blobs.map(|(repository, digest)| Finding::BlobNotPullable { repository, digest }));
        findings
    }
}

impl Over<'_> {
    async fn walk_over(&self, losses: &Losses, met: &mut Met) -> Result<(), StoreError> {
        let mut next = None;
        loop {
            let limit = self.options.slice;
            let slice = self.stores.records.walk(self.cx(), next.as_ref(), limit).await?;
            for record in slice.items.into_iter().flatten() {
                met.look(losses, record);
            }
            next = slice.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }
}

impl Run<'_> {
    /// Tells what can no longer be pulled because of what was lost.
    pub(super) async fn not_pullable(&mut self, mut losses: Losses) -> Result<(), StoreError> {
        if losses.is_empty() {
            return Ok(());
        }
        let mut met = Met {
            manifests: std::mem::take(&mut losses.manifests),
            blobs: BTreeSet::new(),
        };
        loop {
            let before = met.manifests.len();
            self.over.walk_over(&losses, &mut met).await?;
            if met.manifests.len() == before {
                break;
            }
        }
        for finding in met.findings() {
            self.found(&finding);
        }
        Ok(())
    }
}
