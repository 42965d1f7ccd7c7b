//! Promotion: what a tag or a digest of one repository names gets the same digest and a tag in another one.
//!
//! Blobs are linked, and manifests are put again; no blob is read or copied. The steps have one order: for each manifest, first
//! everything to which it refers; then what refers to it; the tags at the end, in one write. So an interruption at any step
//! leaves only complete manifests, and no tag. The promotion can be repeated, and then finds what is there.

use oci::{Digest, Reference, RepositoryName};

use super::promoted_manifests::PromotedManifests;
use super::promoted_referrers::PromotedReferrers;
use super::promotion_rights::{PromotionError, PromotionRights};
use super::tag_changes::TagChange;
use crate::access::Access;
use crate::auth::{Creation, TagPermit};
use crate::call::Call;
use crate::registry::Registry;
use crate::releases::{Promoted, Promotion, ReleaseError};
use crate::store::access::{Author, Occasion};

impl Registry {
    /// Gives a manifest, everything to which it refers, and what refers to it to the repository of the target, and then the
    /// tags of the target the manifest's digest. The guard of tags decides which tags may change. Within one repository only
    /// the tags change. A repeated promotion changes nothing.
    ///
    /// Referrers are manifests with a promoted one as their subject, and manifests of the tags under which clients without the
    /// referrers API find them: `sha256-<hash>`, alone or with a suffix such as `.sig`. Such a tag is not changed if the
    /// manifest that it names in the target has entries that the source lacks ([`Promoted::kept`]).
    ///
    /// The settings that the policy has for the target apply as they apply to a push. What the target links already stays.
    ///
    /// A manifest that is too large for its record is read and stored again, since its object belongs to its record.
    pub async fn promote(&self, promotion: &Promotion<'_>) -> Result<Promoted, ReleaseError> {
        let call = Call::internal(self);
        let promoted = call.promote(promotion, Author::new(promotion.principal), None).await;
        promoted.map_err(PromotionError::without_caller)
    }
}

impl Call<'_> {
    /// See [`Registry::promote`]. `author` is the principal of the promotion; its occasion is set here. `access` is that of the
    /// request, if there is one. Then the caller is authorized again before each change of tags, if its authorization is old.
    pub(crate) async fn promote(
        &self,
        promotion: &Promotion<'_>,
        author: Author,
        access: Option<&Access<'_>>,
    ) -> Result<Promoted, PromotionError> {
        let (source, target) = (promotion.source.repository(), promotion.target.push().repository());
        let digest = self.promoted_digest(source, promotion.reference).await?;
        let mut rights = PromotionRights::new(promotion, access);
        let guard = rights.guard();
        let from = match promotion.reference {
            Reference::Tag(tag) => format!("{source}:{tag}"),
            Reference::Digest(digest) => format!("{source}@{digest}"),
        };
        let author = Author {
            occasion: Occasion::Promotion { from },
            ..author
        };
        let change = TagChange {
            repository: target,
            tags: promotion.target.tags(),
            digest: &digest,
            author: &author,
            guard: &guard,
        };
        let mut promoted = Promoted {
            digest,
            moved: self.needs_change(&change).await?,
            manifests: 0,
            referrers: 0,
            kept: Vec::new(),
            copied_bytes: 0,
        };
        if source != target {
            self.check_target(promotion.target).await?;
            let mut manifests = PromotedManifests::new(self, promotion, &author, &guard);
            if !manifests.bring(digest, 0).await? {
                let repository = source.clone();
                return Err(ReleaseError::NoManifest { repository, digest }.into());
            }
            promoted.manifests = manifests.count();
            if promotion.with_referrers {
                let mut referrers = PromotedReferrers::new(&mut manifests, &mut rights);
                referrers.bring_all().await?;
                promoted.kept = referrers.into_kept();
            }
            promoted.referrers = manifests.count() - promoted.manifests;
            promoted.copied_bytes = manifests.copied_bytes();
        }
        let guard = rights.renewed_guard().await?;
        self.change_tags(&TagChange {
            guard: &guard,
            ..change
        })
        .await?;
        Ok(promoted)
    }

    /// The digest of the manifest that is promoted.
    async fn promoted_digest(&self, source: &RepositoryName, reference: &Reference) -> Result<Digest, ReleaseError> {
        let metadata = &self.stores.metadata;
        match reference {
            Reference::Tag(tag) => match metadata.tag(self.cx(), source, tag).await? {
                Some(row) => Ok(row.digest),
                None => Err(ReleaseError::NoTag {
                    repository: source.clone(),
                    tag: tag.clone(),
                }),
            },
            Reference::Digest(digest) => match metadata.manifest(self.cx(), source, digest).await? {
                Some(_) => Ok(*digest),
                None => Err(ReleaseError::NoManifest {
                    repository: source.clone(),
                    digest: *digest,
                }),
            },
        }
    }

    /// Fails if the policy does not let a push create the target, and it does not exist.
    async fn check_target(&self, permit: &TagPermit) -> Result<(), ReleaseError> {
        let target = permit.push().repository();
        let must_exist = permit.push().settings().create == Creation::Listed;
        if must_exist && self.stores.metadata.repository(self.cx(), target).await?.is_none() {
            return Err(ReleaseError::NoRepository(target.clone()));
        }
        Ok(())
    }
}
