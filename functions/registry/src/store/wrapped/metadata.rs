//! The metadata store, called through a hook.

use std::sync::Arc;

use async_trait::async_trait;
use oci::{Digest, RepositoryName, Tag};

use super::{Hook, StoreMethod, Wrapped};
use crate::store::access::Author;
use crate::store::metadata::{
    Defect, HistoryRecord, Link, Listing, ManifestPut, ManifestRecord, MetadataStore, PutManifest, Referrer, Removal,
    TagGuard, TagRecord,
};
use crate::store::{Context, Location, Page, StoreError};

#[async_trait]
impl<H: Hook> MetadataStore for Wrapped<dyn MetadataStore, H> {
    async fn link(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError> {
        self.call(StoreMethod::Link, cx, self.inner.link(cx, repository, digest))
            .await
    }

    async fn link_and_unmark(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError> {
        let Err(refused) = self.hook.may_keep() else {
            return self
                .call(
                    StoreMethod::LinkAndUnmark,
                    cx,
                    self.inner.link_and_unmark(cx, repository, digest),
                )
                .await;
        };
        // An unmarked link needs no write.
        match self.marked_link(cx, repository, digest).await? {
            Some((_, true)) => Err(refused),
            found => Ok(found.map(|(link, _)| link)),
        }
    }

    async fn marked_link(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<(Link, bool)>, StoreError> {
        self.call(StoreMethod::Link, cx, self.inner.marked_link(cx, repository, digest))
            .await
    }

    async fn manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, StoreError> {
        self.call(StoreMethod::Manifest, cx, self.inner.manifest(cx, repository, digest))
            .await
    }

    async fn tag(&self, cx: Context, repository: &RepositoryName, tag: &Tag) -> Result<Option<TagRecord>, StoreError> {
        self.call(StoreMethod::Tag, cx, self.inner.tag(cx, repository, tag))
            .await
    }

    async fn tagged_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<(TagRecord, Option<ManifestRecord>)>, StoreError> {
        self.call(
            StoreMethod::TaggedManifest,
            cx,
            self.inner.tagged_manifest(cx, repository, tag),
        )
        .await
    }

    async fn tags(
        &self,
        cx: Context,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Tag>, StoreError> {
        self.call(StoreMethod::Tags, cx, self.inner.tags(cx, repository, after, limit))
            .await
    }

    async fn history(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<HistoryRecord>, StoreError> {
        self.call(
            StoreMethod::History,
            cx,
            self.inner.history(cx, repository, tag, before, limit),
        )
        .await
    }

    async fn repository(&self, cx: Context, repository: &RepositoryName) -> Result<Option<Listing>, StoreError> {
        self.call(StoreMethod::Repository, cx, self.inner.repository(cx, repository))
            .await
    }

    async fn repositories(
        &self,
        cx: Context,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepositoryName>, StoreError> {
        self.call(StoreMethod::Repositories, cx, self.inner.repositories(cx, after, limit))
            .await
    }

    async fn create_repository(
        &self,
        cx: Context,
        repository: &RepositoryName,
        author: &Author,
    ) -> Result<bool, StoreError> {
        let created = self.inner.create_repository(cx, repository, author);
        self.call_writing(StoreMethod::CreateRepository, cx, created, |created| *created)
            .await
    }

    async fn manifests(
        &self,
        cx: Context,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Digest>, StoreError> {
        self.call(
            StoreMethod::Manifests,
            cx,
            self.inner.manifests(cx, repository, after, limit),
        )
        .await
    }

    async fn referrers(
        &self,
        cx: Context,
        repository: &RepositoryName,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Referrer>, StoreError> {
        self.call(
            StoreMethod::Referrers,
            cx,
            self.inner.referrers(cx, repository, subject, after, limit),
        )
        .await
    }

    async fn commit_blob(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        location: &Location,
        size: u64,
    ) -> Result<Location, StoreError> {
        self.call(
            StoreMethod::CommitBlob,
            cx,
            self.inner.commit_blob(cx, repository, digest, location, size),
        )
        .await
    }

    async fn replace_location(
        &self,
        cx: Context,
        digest: &Digest,
        old: &Location,
        new: &Location,
        size: u64,
    ) -> Result<Option<Location>, StoreError> {
        self.call(
            StoreMethod::ReplaceLocation,
            cx,
            self.inner.replace_location(cx, digest, old, new, size),
        )
        .await
    }

    async fn record_defect(
        &self,
        cx: Context,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        location: &Location,
        defect: Defect,
    ) -> Result<Option<Location>, StoreError> {
        self.call(
            StoreMethod::RecordDefect,
            cx,
            self.inner.record_defect(cx, repository, digest, location, defect),
        )
        .await
    }

    async fn clear_missing(&self, cx: Context, digest: &Digest, location: &Location) -> Result<(), StoreError> {
        self.call(
            StoreMethod::ClearMissing,
            cx,
            self.inner.clear_missing(cx, digest, location),
        )
        .await
    }

    async fn record_damaged_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        self.call(
            StoreMethod::RecordDamagedManifest,
            cx,
            self.inner.record_damaged_manifest(cx, repository, digest),
        )
        .await
    }

    async fn mount(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<bool, StoreError> {
        // A link that existed already need not be written, and the result does not say whether it did.
        let mounted = self.inner.mount(cx, repository, digest, from);
        self.call_writing(StoreMethod::Mount, cx, mounted, |_| false).await
    }

    async fn linking_repositories(
        &self,
        cx: Context,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StoreError> {
        self.call(
            StoreMethod::LinkingRepositories,
            cx,
            self.inner.linking_repositories(cx, digest, limit),
        )
        .await
    }

    async fn put_manifest(
        &self,
        cx: Context,
        put: &PutManifest,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<ManifestPut, StoreError> {
        let stored = |answer: &ManifestPut| matches!(answer, ManifestPut::Stored | ManifestPut::StoredElsewhere(_));
        self.call_writing(
            StoreMethod::PutManifest,
            cx,
            self.inner.put_manifest(cx, put, guard),
            stored,
        )
        .await
    }

    async fn delete_tag(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        author: &Author,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<Removal, StoreError> {
        self.call(
            StoreMethod::DeleteTag,
            cx,
            self.inner.delete_tag(cx, repository, tag, author, guard),
        )
        .await
    }

    async fn delete_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        author: &Author,
        guard: &Arc<dyn TagGuard>,
    ) -> Result<Removal, StoreError> {
        self.call(
            StoreMethod::DeleteManifest,
            cx,
            self.inner.delete_manifest(cx, repository, digest, author, guard),
        )
        .await
    }

    async fn unlink(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        author: &Author,
    ) -> Result<Removal, StoreError> {
        self.call(
            StoreMethod::Unlink,
            cx,
            self.inner.unlink(cx, repository, digest, author),
        )
        .await
    }
}
