//! A store with a hook around every call; what [`counting`](super::counting) and [`faulty`](super::faulty) share.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use oci::{Digest, RepositoryName, Tag};

use crate::store::blobs::{AppendError, Appended, BlobStore, ByteStream, Redirect, RedirectRequest, Source, Upload};
use crate::store::metadata::{
    HistoryRecord, Link, ManifestPut, ManifestRecord, MetadataStore, PutManifest, Referrer, Removal, TagRecord,
};
use crate::store::sessions::{
    Attempt, Cancelled, Claim, Claimed, End, Progress, Session, SessionId, SessionKey, SessionStore, SigningKey,
};
use crate::store::{Context, Location, Page, StoreError, Timestamp};

/// Sees every call of a store, by the name of its method.
pub trait Hook: Send + Sync + 'static {
    /// Called first. An error is the answer, and the store is not asked.
    fn before(&self, method: &'static str) -> Result<(), StoreError>;

    /// Called when the store has done its work. An error replaces its answer.
    fn after(&self, method: &'static str) -> Result<(), StoreError>;
}

/// A store `S` (one of the three traits as `dyn`), called through a hook.
pub struct Wrapped<S: ?Sized, H> {
    inner: Arc<S>,
    hook: H,
}

impl<S: ?Sized, H: Hook> Wrapped<S, H> {
    /// Wraps a store.
    pub fn new(inner: Arc<S>, hook: H) -> Self {
        Self { inner, hook }
    }

    async fn call<T, E: From<StoreError>>(
        &self,
        method: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.hook.before(method)?;
        let answer = work.await?;
        self.hook.after(method)?;
        Ok(answer)
    }
}

#[async_trait]
impl<H: Hook> BlobStore for Wrapped<dyn BlobStore, H> {
    async fn append(&self, attempt: Attempt, state: &[u8], source: &mut dyn Source) -> Result<Appended, AppendError> {
        self.call("append", self.inner.append(attempt, state, source)).await
    }

    async fn seal(&self, cx: Context, upload: &Upload) -> Result<Location, StoreError> {
        self.call("seal", self.inner.seal(cx, upload)).await
    }

    async fn discard(
        &self,
        cx: Context,
        session: SessionId,
        attempts: u32,
        state: &[u8],
        keep: Option<&Location>,
    ) -> Result<(), StoreError> {
        self.call("discard", self.inner.discard(cx, session, attempts, state, keep))
            .await
    }

    async fn read(&self, location: &Location, range: Range<u64>) -> Result<Option<ByteStream>, StoreError> {
        self.call("read", self.inner.read(location, range)).await
    }

    async fn redirect(
        &self,
        now: Timestamp,
        location: &Location,
        request: RedirectRequest,
    ) -> Result<Option<Redirect>, StoreError> {
        self.call("redirect", self.inner.redirect(now, location, request)).await
    }

    async fn delete(&self, cx: Context, locations: &[Location]) -> Result<(), StoreError> {
        self.call("delete", self.inner.delete(cx, locations)).await
    }
}

#[async_trait]
impl<H: Hook> SessionStore for Wrapped<dyn SessionStore, H> {
    async fn get(&self, cx: Context, key: SessionKey) -> Result<Option<Session>, StoreError> {
        self.call("get", self.inner.get(cx, key)).await
    }

    async fn claim(&self, cx: Context, key: SessionKey, until: Timestamp) -> Result<Claimed, StoreError> {
        self.call("claim", self.inner.claim(cx, key, until)).await
    }

    async fn renew(&self, cx: Context, claim: &Claim, until: Timestamp) -> Result<bool, StoreError> {
        self.call("renew", self.inner.renew(cx, claim, until)).await
    }

    async fn save(
        &self,
        cx: Context,
        claim: &Claim,
        progress: Progress,
        part: Option<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        self.call("save", self.inner.save(cx, claim, progress, part)).await
    }

    async fn release(&self, cx: Context, claim: &Claim) -> Result<(), StoreError> {
        self.call("release", self.inner.release(cx, claim)).await
    }

    async fn parts(&self, cx: Context, key: SessionKey) -> Result<Vec<Vec<u8>>, StoreError> {
        self.call("parts", self.inner.parts(cx, key)).await
    }

    async fn commit(&self, cx: Context, claim: &Claim, digest: &Digest) -> Result<bool, StoreError> {
        self.call("commit", self.inner.commit(cx, claim, digest)).await
    }

    async fn finish(&self, cx: Context, claim: &Claim, end: End) -> Result<(), StoreError> {
        self.call("finish", self.inner.finish(cx, claim, end)).await
    }

    async fn cancel(&self, cx: Context, key: SessionKey) -> Result<Cancelled, StoreError> {
        self.call("cancel", self.inner.cancel(cx, key)).await
    }

    async fn expired(
        &self,
        cx: Context,
        before: Timestamp,
        after: Option<SessionKey>,
        limit: usize,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        self.call("expired", self.inner.expired(cx, before, after, limit)).await
    }

    async fn signing_keys(&self, cx: Context, candidate: SigningKey) -> Result<Vec<SigningKey>, StoreError> {
        self.call("signing_keys", self.inner.signing_keys(cx, candidate)).await
    }
}

#[async_trait]
impl<H: Hook> MetadataStore for Wrapped<dyn MetadataStore, H> {
    async fn link(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError> {
        self.call("link", self.inner.link(cx, repository, digest)).await
    }

    async fn manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, StoreError> {
        self.call("manifest", self.inner.manifest(cx, repository, digest)).await
    }

    async fn tag(&self, cx: Context, repository: &RepositoryName, tag: &Tag) -> Result<Option<TagRecord>, StoreError> {
        self.call("tag", self.inner.tag(cx, repository, tag)).await
    }

    async fn tags(
        &self,
        cx: Context,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Tag>, StoreError> {
        self.call("tags", self.inner.tags(cx, repository, after, limit)).await
    }

    async fn history(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<HistoryRecord>, StoreError> {
        self.call("history", self.inner.history(cx, repository, tag, before, limit))
            .await
    }

    async fn repository(&self, cx: Context, repository: &RepositoryName) -> Result<bool, StoreError> {
        self.call("repository", self.inner.repository(cx, repository)).await
    }

    async fn repositories(
        &self,
        cx: Context,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepositoryName>, StoreError> {
        self.call("repositories", self.inner.repositories(cx, after, limit))
            .await
    }

    async fn manifests(
        &self,
        cx: Context,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Digest>, StoreError> {
        self.call("manifests", self.inner.manifests(cx, repository, after, limit))
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
        self.call("referrers", self.inner.referrers(cx, repository, subject, after, limit))
            .await
    }

    async fn commit_blob(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        location: &Location,
        size: u64,
    ) -> Result<(), StoreError> {
        self.call(
            "commit_blob",
            self.inner.commit_blob(cx, repository, digest, location, size),
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
        self.call("mount", self.inner.mount(cx, repository, digest, from)).await
    }

    async fn holders(&self, cx: Context, digest: &Digest, limit: usize) -> Result<Vec<RepositoryName>, StoreError> {
        self.call("holders", self.inner.holders(cx, digest, limit)).await
    }

    async fn put_manifest(&self, cx: Context, put: &PutManifest) -> Result<ManifestPut, StoreError> {
        self.call("put_manifest", self.inner.put_manifest(cx, put)).await
    }

    async fn delete_tag(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        who: &str,
    ) -> Result<bool, StoreError> {
        self.call("delete_tag", self.inner.delete_tag(cx, repository, tag, who))
            .await
    }

    async fn delete_manifest(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &Digest,
        who: &str,
    ) -> Result<Removal, StoreError> {
        self.call(
            "delete_manifest",
            self.inner.delete_manifest(cx, repository, digest, who),
        )
        .await
    }

    async fn unlink(&self, cx: Context, repository: &RepositoryName, digest: &Digest) -> Result<Removal, StoreError> {
        self.call("unlink", self.inner.unlink(cx, repository, digest)).await
    }
}
