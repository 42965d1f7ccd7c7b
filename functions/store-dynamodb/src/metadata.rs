//! The protocols of the metadata: [`reads`]; [`commit`] (blobs and links); [`objects`] (locations and defects of
//! blobs); [`tags`]; [`catalog`]; [`publish`] (manifests); [`remove`].

mod catalog;
mod commit;
mod known;
mod objects;
mod publish;
mod reads;
mod remove;
mod tags;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use oci::{Digest, RepositoryName, Tag};
use registry::store::access::{AuditEvent, Author};
use registry::store::metadata::{
    Defect, HistoryRecord, Link, Listing, ManifestPut, ManifestRecord, MetadataStore, PutManifest, Referrer, Removal,
    TagGuard, TagRecord,
};
use registry::store::{Context, Location, Page, StoreError, Uid};

pub(crate) use commit::{has_location, has_uid, unmark};
pub(crate) use known::{KnownRepositories, REMEMBERED_MS};

pub(crate) use remove::UnlinkOutcome;

use crate::DynamoStore;
use crate::access::{KnownRows, event_write};
use crate::retrying::Requests;
use crate::table::Write;

/// One call of the store: its context, and its requests to both tables, which share its deadline.
#[derive(Clone, Copy)]
pub(crate) struct StoreCall<'a> {
    pub(crate) cx: Context,
    pub(crate) main: Requests<'a>,
    pub(crate) local: Requests<'a>,
    known: &'a KnownRepositories,
    access_rows: &'a KnownRows,
}

impl DynamoStore {
    /// Starts a call, whose time runs from now.
    pub(crate) fn call(&self, cx: Context) -> StoreCall<'_> {
        StoreCall {
            cx,
            main: self.main.within(cx),
            local: self.local.within(cx),
            known: &self.known,
            access_rows: &self.access_rows,
        }
    }

    /// Starts a call that is a part of a walk over the table.
    pub(crate) fn walk_call(&self, cx: Context) -> StoreCall<'_> {
        StoreCall {
            known: &self.known_to_walks,
            ..self.call(cx)
        }
    }
}

impl StoreCall<'_> {
    /// A unique uid for each round of a protocol and each try of a mark, so that a late request of an earlier round or
    /// try changes nothing of this one.
    fn uid(&self, round: u64) -> Uid {
        // The factor is odd, so that different rounds give different values.
        Uid(self.cx.uid.0.wrapping_add(round.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// The write of an event, for one transaction. Each transaction of a call has its own id, since one that was not
    /// answered may be applied late, besides the next one.
    async fn event(&self, mut event: AuditEvent) -> Result<Write, StoreError> {
        event.id = Uid(self.cx.uid.0 ^ self.main.random());
        self.access_rows.begin_events(&self.main, self.cx.now).await?;
        Ok(event_write(&event))
    }
}

#[async_trait]
impl MetadataStore for DynamoStore {
    async fn link(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError> {
        self.call(cx).link_of(repository, digest).await
    }

    async fn link_and_unmark(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError> {
        self.call(cx).link_and_unmark(repository, digest).await
    }

    async fn marked_link(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<(Link, bool)>, StoreError> {
        self.call(cx).marked_link(repository, digest).await
    }

    async fn manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, StoreError> {
        self.call(cx).manifest_of(repository, digest).await
    }

    async fn tag(&self, cx: Context, repository: &RepositoryName, tag: &Tag) -> Result<Option<TagRecord>, StoreError> {
        self.call(cx).tag_of(repository, tag).await
    }

    async fn tagged_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<(TagRecord, Option<ManifestRecord>)>, StoreError> {
        let call = self.call(cx);
        let Some(tag) = call.tag_of(repository, tag).await? else {
            return Ok(None);
        };
        let manifest = call.manifest_of(repository, &tag.digest).await?;
        Ok(Some((tag, manifest)))
    }

    async fn tags(
        &self,
        cx: Context,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Tag>, StoreError> {
        self.call(cx).tags_of(repository, after, limit).await
    }

    async fn history(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<HistoryRecord>, StoreError> {
        self.call(cx).history_of(repository, tag, before, limit).await
    }

    async fn repository(&self, cx: Context, repository: &RepositoryName) -> Result<Option<Listing>, StoreError> {
        self.call(cx).listing_of(repository).await
    }

    async fn repositories(
        &self,
        cx: Context,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepositoryName>, StoreError> {
        self.call(cx).repositories_of(after, limit).await
    }

    async fn create_repository(
        &self,
        cx: Context,
        repository: &RepositoryName,
        author: &Author,
    ) -> Result<bool, StoreError> {
        self.call(cx).create_repository(repository, author).await
    }

    async fn manifests(
        &self,
        cx: Context,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Digest>, StoreError> {
        self.call(cx).manifests_of(repository, after, limit).await
    }

    async fn referrers(
        &self,
        cx: Context,
        repository: &RepositoryName,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Referrer>, StoreError> {
        self.call(cx).referrers_of(repository, subject, after, limit).await
    }

    async fn commit_blob(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        location: &Location,
        size: u64,
    ) -> Result<Location, StoreError> {
        self.call(cx).commit_blob(repository, digest, location, size).await
    }

    async fn replace_location(
        &self,
        cx: Context,
        digest: &Digest,
        old: &Location,
        new: &Location,
        size: u64,
    ) -> Result<Option<Location>, StoreError> {
        let new = commit::StoredBytes::sealed(new, size);
        self.call(cx).replace_location(digest, old, &new).await
    }

    async fn record_defect(
        &self,
        cx: Context,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        location: &Location,
        defect: Defect,
    ) -> Result<Option<Location>, StoreError> {
        self.call(cx).record_defect(repository, digest, location, defect).await
    }

    async fn clear_missing(&self, cx: Context, digest: &Digest, location: &Location) -> Result<(), StoreError> {
        self.call(cx).clear_missing(digest, location).await
    }

    async fn record_damaged_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        self.call(cx).record_damaged_manifest(repository, digest).await
    }

    async fn mount(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<bool, StoreError> {
        self.call(cx).mount(repository, digest, from).await
    }

    async fn linking_repositories(
        &self,
        cx: Context,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StoreError> {
        self.call(cx).linking_repositories_of(digest, limit).await
    }

    async fn put_manifest(
        &self,
        cx: Context,
        put: &PutManifest,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<ManifestPut, StoreError> {
        self.call(cx).put_manifest(put, &**guard).await
    }

    async fn delete_tag(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        author: &Author,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<Removal, StoreError> {
        self.call(cx).delete_tag(repository, tag, author, &**guard).await
    }

    async fn delete_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        author: &Author,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<Removal, StoreError> {
        self.call(cx)
            .delete_manifest(repository, digest, author, &**guard)
            .await
    }

    async fn unlink(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        author: &Author,
    ) -> Result<Removal, StoreError> {
        self.call(cx).unlink(repository, digest, author).await
    }
}
