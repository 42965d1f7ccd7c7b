//! What the caller of the API does in repositories: the operations behind the requests of the protocol, with their permits and
//! their guard of tags.

use std::fmt;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use oci::{RepositoryName, Tag};

use super::promotion_rights::PromotionError;
use crate::access::Access;
use crate::api_endpoint::{ApiPage, ApiPromotion, ApiRefusal, ApiRepositories, DescribedTag};
use crate::auth::{Action, Identity, Permit, Pull, Push, TagPermit};
use crate::call::Call;
use crate::error::Error;
use crate::memory::Purpose;
use crate::query::PageRequest;
use crate::releases::{Earlier, Promoted, Promotion, ReleaseError, RolledBack};
use crate::store::metadata::HistoryRecord;

/// The memory for a row of a page of tags or of changes: two digests, the names, and all of it as JSON.
const ROW: usize = 2 << 10;

/// How many tags are read at the same time.
const READS_AT_ONCE: usize = 16;

/// The repositories, for one caller.
pub(super) struct CallerRepositories<'c> {
    call: &'c Call<'c>,
    access: &'c Access<'c>,
    identity: &'c Identity,
}

impl fmt::Debug for CallerRepositories<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerRepositories")
            .field("identity", self.identity)
            .finish_non_exhaustive()
    }
}

impl<'c> CallerRepositories<'c> {
    /// The repositories for the caller with this identity.
    pub(super) fn new(call: &'c Call<'c>, access: &'c Access<'c>, identity: &'c Identity) -> Self {
        Self { call, access, identity }
    }

    fn permit<A: Action>(&self, repository: &RepositoryName) -> Result<Permit<A>, Error> {
        let permit = self.identity.permit(repository);
        permit.map_err(|denied| self.access.refusal(self.identity, denied))
    }

    fn permit_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<TagPermit, Error> {
        let permit = self.identity.permit_tags(repository, vec![tag.clone()]);
        permit.map_err(|denied| self.access.refusal(self.identity, denied))
    }

    /// The number of items in a page.
    fn limit(&self, asked: usize) -> usize {
        asked.clamp(1, self.call.settings.limits.page.max(1))
    }
}

#[async_trait]
impl ApiRepositories for CallerRepositories<'_> {
    async fn search(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ApiPage<RepositoryName>, ApiRefusal> {
        let page = PageRequest {
            limit: self.limit(limit),
            last: after.map(str::to_owned),
        };
        let (_making, listed) = self.call.visible_repositories(self.identity, prefix, &page).await?;
        let last = listed.repositories.last().filter(|_| listed.more);
        Ok(ApiPage {
            next: last.map(ToString::to_string),
            items: listed.repositories,
            is_incomplete: listed.is_cut,
        })
    }

    async fn create(&self, repository: &RepositoryName) -> Result<bool, ApiRefusal> {
        let author = self.call.author(&self.permit::<Push>(repository)?);
        let metadata = &self.call.stores.metadata;
        let created = metadata.create_repository(self.call.cx(), repository, &author);
        Ok(created.await?)
    }

    async fn tags(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ApiPage<DescribedTag>, ApiRefusal> {
        let permit = self.permit::<Pull>(repository)?;
        let (call, limit) = (self.call, self.limit(limit));
        let metadata = &call.stores.metadata;
        let _making = call.memory_for(Purpose::Page, limit * ROW).await?;
        let found = metadata.tags(call.cx(), repository, after, limit).await?;
        if found.items.is_empty() && metadata.repository(call.cx(), repository).await?.is_none() {
            return Err(Error::NameUnknown.into());
        }
        let next = found.items.last().filter(|_| found.more).map(ToString::to_string);
        let now = call.environment.now();
        let mut items = Vec::with_capacity(found.items.len());
        for tags in found.items.chunks(READS_AT_ONCE) {
            let reads = tags.iter().map(|tag| metadata.tag(call.cx(), repository, tag));
            let rows = try_join_all(reads).await?;
            // A tag may have been deleted since its page was read.
            let rows = tags.iter().zip(rows).filter_map(|(tag, row)| Some((tag, row?)));
            items.extend(rows.map(|(tag, record)| {
                let shared = permit.shared_rules();
                let rule = shared.and_then(|shared| shared.frozen(repository, tag, record.at, now));
                DescribedTag {
                    tag: tag.clone(),
                    frozen: rule.map(|rule| rule.name.clone()),
                    record,
                }
            }));
        }
        Ok(ApiPage {
            items,
            next,
            is_incomplete: false,
        })
    }

    async fn history(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: usize,
    ) -> Result<ApiPage<HistoryRecord>, ApiRefusal> {
        self.permit::<Pull>(repository)?;
        let (call, limit) = (self.call, self.limit(limit));
        let _making = call.memory_for(Purpose::Page, limit * ROW).await?;
        let metadata = &call.stores.metadata;
        let found = metadata.history(call.cx(), repository, tag, before, limit).await?;
        if found.items.is_empty() && before.is_none() {
            let (repository, tag) = (repository.clone(), tag.clone());
            return Err(Error::ReleaseUnknown(ReleaseError::NoTag { repository, tag }.to_string()).into());
        }
        let last = found.items.last().filter(|_| found.more);
        Ok(ApiPage {
            next: last.map(|change| change.version.to_string()),
            items: found.items,
            is_incomplete: false,
        })
    }

    async fn roll_back(&self, repository: &RepositoryName, tag: &Tag, to: Earlier) -> Result<RolledBack, ApiRefusal> {
        // The answer names the digest of an earlier version.
        self.permit::<Pull>(repository)?;
        let permit = self.permit_tag(repository, tag)?;
        let author = self.call.author(permit.push());
        let rolled_back = self.call.roll_back(&permit, to, author).await;
        Ok(rolled_back.map_err(|error| refusal(error, permit.push()))?)
    }

    async fn promote(&self, promotion: &ApiPromotion) -> Result<Promoted, ApiRefusal> {
        let source = self.permit::<Pull>(&promotion.source)?;
        let target = self.permit_tag(&promotion.target, &promotion.tag)?;
        let author = self.call.author(target.push());
        let asked = Promotion {
            source: &source,
            reference: &promotion.reference,
            target: &target,
            principal: &author.principal,
            with_referrers: promotion.with_referrers,
        };
        let promoted = self.call.promote(&asked, author.clone(), Some(self.access)).await;
        Ok(promoted.map_err(|error| match error {
            PromotionError::Release(error) => refusal(*error, target.push()),
            PromotionError::Rights(error) => *error,
        })?)
    }
}

/// The answer to a rollback or a promotion that is not made.
fn refusal(error: ReleaseError, permit: &Permit<Push>) -> Error {
    match error {
        ReleaseError::Store(error) => Error::Store(error),
        ReleaseError::Protected(protected) => Error::protected(permit, *protected),
        ReleaseError::NoRepository(repository) => Error::RepositoryNotCreated(repository),
        ReleaseError::NoTag { .. }
        | ReleaseError::NoManifest { .. }
        | ReleaseError::NoVersion { .. }
        | ReleaseError::Deletion { .. }
        | ReleaseError::NeverNamed { .. }
        | ReleaseError::ManifestDeleted { .. } => Error::ReleaseUnknown(error.to_string()),
        error => Error::ApiConflict(error.to_string().into()),
    }
}
