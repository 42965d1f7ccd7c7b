//! What refers to the manifests of a promotion: signatures, attestations, lists of contents.

use std::collections::BTreeSet;

use oci::{Digest, Manifest, Role, Tag};

use super::promoted_manifests::PromotedManifests;
use super::promotion_rights::{PromotionError, PromotionRights};
use super::tag_changes::TagChange;
use crate::memory::Purpose;
use crate::releases::{MAX_REFERRERS, ReleaseError};
use crate::store::access::{Author, Occasion};

/// How many rows of referrers, and how many tags, are read at once.
const AT_ONCE: usize = 16;
/// The memory for a row of referrers, without its annotations.
const ROW: usize = 4 << 10;
/// How many digits of a hash are in the tag under which clients list referrers (distribution specification, *Referrers Tag
/// Schema*).
const DIGITS: usize = 64;

/// Puts referrers in the target.
pub(super) struct PromotedReferrers<'m, 'c> {
    manifests: &'m mut PromotedManifests<'c>,
    rights: &'m mut PromotionRights<'c>,
    count: usize,
    kept: Vec<Tag>,
}

impl<'m, 'c> PromotedReferrers<'m, 'c> {
    pub(super) fn new(manifests: &'m mut PromotedManifests<'c>, rights: &'m mut PromotionRights<'c>) -> Self {
        Self {
            manifests,
            rights,
            count: 0,
            kept: Vec::new(),
        }
    }

    /// The tags that stay as they are in the target.
    pub(super) fn into_kept(self) -> Vec<Tag> {
        self.kept
    }

    /// Puts what refers to any manifest of the promotion in the target, also to one that is put there meanwhile: signatures
    /// may be signed too.
    pub(super) async fn bring_all(&mut self) -> Result<(), PromotionError> {
        let mut next = 0;
        while let Some(subject) = self.manifests.nth(next) {
            next += 1;
            self.bring_referrers(&subject).await?;
            self.bring_tags(&subject).await?;
        }
        Ok(())
    }

    /// Those that name it as their subject.
    async fn bring_referrers(&mut self, subject: &Digest) -> Result<(), ReleaseError> {
        let call = self.manifests.call;
        let row = call.settings.limits.referrer_annotations_bytes.saturating_add(ROW);
        let mut after = None;
        loop {
            let memory = call.memory_for(Purpose::Page, row.saturating_mul(AT_ONCE)).await?;
            let page = call
                .stores
                .metadata
                .referrers(call.cx(), self.manifests.source, subject, after.as_ref(), AT_ONCE)
                .await?;
            let rows = page.items.into_iter();
            let digests: Vec<Digest> = rows.map(|referrer| referrer.descriptor.digest).collect();
            drop(memory);
            for digest in &digests {
                self.bring(*digest).await?;
            }
            after = digests.last().copied();
            if !page.more || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Those that a tag has which stands for it: `sha256-<hash>`, alone or with a suffix that begins with a dot.
    async fn bring_tags(&mut self, subject: &Digest) -> Result<(), PromotionError> {
        let call = self.manifests.call;
        let name = format!("{}-{:.DIGITS$}", subject.algorithm(), subject.hex());
        // Lists begin after a text, and the name alone is a tag too.
        let mut after = name[..name.len() - 1].to_owned();
        loop {
            let page = call
                .stores
                .metadata
                .tags(call.cx(), self.manifests.source, Some(&after), AT_ONCE)
                .await?;
            for tag in &page.items {
                match tag.as_str().strip_prefix(&*name) {
                    Some(suffix) if suffix.is_empty() || suffix.starts_with('.') => self.bring_tag(tag).await?,
                    None if tag.as_str() > &*name => return Ok(()),
                    _ => {}
                }
            }
            match page.items.last() {
                Some(last) if page.more => after = last.to_string(),
                _ => return Ok(()),
            }
        }
    }

    /// Puts the manifest of a tag in the target, and then the tag.
    async fn bring_tag(&mut self, tag: &Tag) -> Result<(), PromotionError> {
        let (call, source, target) = (self.manifests.call, self.manifests.source, self.manifests.target);
        let metadata = &call.stores.metadata;
        let Some(row) = metadata.tag(call.cx(), source, tag).await? else {
            return Ok(());
        };
        if let Some(there) = metadata.tag(call.cx(), target, tag).await?
            && there.digest != row.digest
            && self.would_lose(&there.digest, &row.digest).await?
        {
            self.kept.push(tag.clone());
            return Ok(());
        }
        if !self.bring(row.digest).await? {
            return Ok(());
        }
        let author = Author {
            occasion: Occasion::Promotion {
                from: format!("{source}:{tag}"),
            },
            ..self.manifests.author.clone()
        };
        let guard = self.rights.renewed_guard().await?;
        call.change_tags(&TagChange {
            repository: target,
            tags: std::slice::from_ref(tag),
            digest: &row.digest,
            author: &author,
            guard: &guard,
        })
        .await?;
        Ok(())
    }

    /// Puts a referrer in the target. `false`: it was deleted since it was found.
    async fn bring(&mut self, digest: Digest) -> Result<bool, ReleaseError> {
        if !self.manifests.has(&digest) {
            if self.count == MAX_REFERRERS {
                return Err(ReleaseError::TooManyReferrers);
            }
            self.count += 1;
        }
        self.manifests.bring(digest, 0).await
    }

    /// Whether the manifest in the target has entries that the one in the source lacks, for instance signatures that were
    /// made there. If it cannot be pulled, there is nothing to lose.
    async fn would_lose(&self, there: &Digest, here: &Digest) -> Result<bool, ReleaseError> {
        let there = match self.manifests.read(self.manifests.target, there).await {
            Ok(Some(found)) => entries(&found.manifest),
            Ok(None) | Err(ReleaseError::Lost { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let here = self.manifests.read(self.manifests.source, here).await?;
        let here = here.ok_or(ReleaseError::Changed)?;
        Ok(!there.is_subset(&entries(&here.manifest)))
    }
}

/// What the manifest lists: manifests of an index, or layers.
fn entries(manifest: &Manifest) -> BTreeSet<Digest> {
    let listed = manifest.references.iter().filter(|entry| entry.role != Role::Config);
    listed.map(|entry| entry.descriptor.digest).collect()
}
