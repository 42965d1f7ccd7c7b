//! A store with a hook around every call: for a shell that observes its stores, and for tests that count calls or
//! inject faults. [`StoreMethod`] names the calls. The methods about metadata and
//! about accounts are in files of their own.

mod access;
mod metadata;
mod method;

use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use oci::Digest;

pub use self::method::{Effect, StoreMethod};
use crate::store::blobs::{
    AppendError, Appended, BlobStore, ByteStream, DeletedObjects, Discarded, ObjectToDelete, Redirect, RedirectRequest,
    Source, StoredObject, Upload,
};
use crate::store::collection::{Collected, CollectionStore, DeletionCheck, PassStart, PendingDeletion, Plan};
use crate::store::records::{BackReference, Record, RecordStore, RecordedObject, Unreadable};
use crate::store::sessions::{
    Cancelled, Claim, Claimed, End, Expected, Progress, Publishing, Session, SessionKey, SessionStore, SigningKey,
};
use crate::store::{Attempt, Context, Cursor, Location, SessionId, Slice, StoreError, Timestamp, Uid};

/// Observes every call of a store.
pub trait Hook: Send + Sync + 'static {
    /// Called first, with the context of the call. A redirect has none, because it sends no request.
    fn called(&self, _method: StoreMethod, _cx: Context) {}

    /// Called before the store. If it returns an error, the call returns that error, and the store is not called.
    fn before(&self, method: StoreMethod) -> Result<(), StoreError>;

    /// Called after the store has succeeded. An error replaces the store's result.
    fn after(&self, method: StoreMethod) -> Result<(), StoreError>;

    /// Called with the result of the store itself.
    fn ended(&self, _method: StoreMethod, _end: CallEnd<'_>) {}

    /// Whether the HEAD of a client that may push may write, to unmark a link that a collection has marked. On an
    /// error, a marked link is answered with that error, and an unmarked link is only read.
    fn may_keep(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How often a call yields to other tasks before it begins.
    fn pauses(&self) -> u32 {
        0
    }

    /// A future that completes before the call begins.
    fn gate(&self, _method: StoreMethod) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }
}

/// The result of a call, without its value.
#[derive(Clone, Copy, Debug)]
pub enum CallEnd<'a> {
    /// The call succeeded.
    Done,
    /// The call succeeded and wrote nothing: its result says why nothing had to be written.
    NothingWritten,
    /// The call failed.
    Failed(&'a StoreError),
}

/// Yields to other tasks this many times.
async fn pause(mut times: u32) {
    poll_fn(|task| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A store `S` (one of the traits as `dyn`) that is called through a hook.
pub struct Wrapped<S: ?Sized, H> {
    inner: Arc<S>,
    hook: H,
}

impl<S: ?Sized, H: Hook> Wrapped<S, H> {
    /// Wraps a store.
    pub fn new(inner: Arc<S>, hook: H) -> Self {
        Self { inner, hook }
    }

    fn call<T, E: OfStore>(
        &self,
        method: StoreMethod,
        cx: Context,
        work: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, E>> {
        self.call_writing(method, cx, work, |_| true)
    }

    /// Like `call`, for a write; `written` says, from its result, whether the store wrote anything.
    fn call_writing<T, E: OfStore>(
        &self,
        method: StoreMethod,
        cx: Context,
        work: impl Future<Output = Result<T, E>>,
        written: impl FnOnce(&T) -> bool,
    ) -> impl Future<Output = Result<T, E>> {
        self.hook.called(method, cx);
        self.observe(method, work, written)
    }

    /// A call, which may have no context.
    async fn observe<T, E: OfStore>(
        &self,
        method: StoreMethod,
        work: impl Future<Output = Result<T, E>>,
        written: impl FnOnce(&T) -> bool,
    ) -> Result<T, E> {
        pause(self.hook.pauses()).await;
        self.hook.gate(method).await;
        self.hook.before(method)?;
        let answer = work.await;
        match &answer {
            Ok(answer) if written(answer) => self.hook.ended(method, CallEnd::Done),
            Ok(_) => self.hook.ended(method, CallEnd::NothingWritten),
            Err(error) => {
                if let Some(error) = error.of_store() {
                    self.hook.ended(method, CallEnd::Failed(error));
                }
            }
        }
        let answer = answer?;
        self.hook.after(method)?;
        Ok(answer)
    }
}

/// An error of a call, which may be a fault of the store.
trait OfStore: From<StoreError> {
    fn of_store(&self) -> Option<&StoreError>;
}

impl OfStore for StoreError {
    fn of_store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl OfStore for AppendError {
    fn of_store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            // A fault of the body's source, which may be a fault of another store.
            Self::Body(_) | Self::WriteInFlight(_) => None,
        }
    }
}

#[async_trait]
impl<H: Hook> BlobStore for Wrapped<dyn BlobStore, H> {
    async fn append(
        &self,
        cx: Context,
        attempt: Attempt,
        state: &[u8],
        source: &mut dyn Source,
    ) -> Result<Appended, AppendError> {
        self.call(StoreMethod::Append, cx, self.inner.append(cx, attempt, state, source))
            .await
    }

    async fn seal(&self, cx: Context, upload: &Upload) -> Result<Location, StoreError> {
        let writes = self.inner.seal_writes(upload);
        self.call_writing(StoreMethod::Seal, cx, self.inner.seal(cx, upload), |_| writes)
            .await
    }

    fn seal_writes(&self, upload: &Upload) -> bool {
        self.inner.seal_writes(upload)
    }

    fn after_failed_attempt(&self, attempt: Attempt, state: &[u8]) -> Option<Vec<u8>> {
        self.inner.after_failed_attempt(attempt, state)
    }

    fn leaves_something(&self, state: &[u8]) -> bool {
        self.inner.leaves_something(state)
    }

    async fn discard(
        &self,
        cx: Context,
        session: SessionId,
        attempts: u32,
        state: &[u8],
        keep: Option<&Location>,
    ) -> Result<Discarded, StoreError> {
        self.call(
            StoreMethod::Discard,
            cx,
            self.inner.discard(cx, session, attempts, state, keep),
        )
        .await
    }

    async fn read(
        &self,
        cx: Context,
        location: &Location,
        range: Range<u64>,
    ) -> Result<Option<ByteStream>, StoreError> {
        self.call(StoreMethod::Read, cx, self.inner.read(cx, location, range))
            .await
    }

    async fn redirect(
        &self,
        now: Timestamp,
        location: &Location,
        request: RedirectRequest,
    ) -> Result<Option<Redirect>, StoreError> {
        self.observe(
            StoreMethod::Redirect,
            self.inner.redirect(now, location, request),
            |_| true,
        )
        .await
    }

    async fn delete(&self, cx: Context, to_delete: &[ObjectToDelete]) -> Result<Option<DeletedObjects>, StoreError> {
        self.call(StoreMethod::Delete, cx, self.inner.delete(cx, to_delete))
            .await
    }

    async fn tidy(&self, cx: Context, kept: &[Location]) -> Result<(), StoreError> {
        self.call(StoreMethod::Tidy, cx, self.inner.tidy(cx, kept)).await
    }

    async fn stat(&self, cx: Context, location: &Location) -> Result<Option<u64>, StoreError> {
        self.call(StoreMethod::Stat, cx, self.inner.stat(cx, location)).await
    }

    async fn objects(
        &self,
        cx: Context,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<StoredObject>, StoreError> {
        self.call(StoreMethod::Objects, cx, self.inner.objects(cx, after, limit))
            .await
    }
}

#[async_trait]
impl<H: Hook> SessionStore for Wrapped<dyn SessionStore, H> {
    async fn get(&self, cx: Context, key: SessionKey) -> Result<Option<Session>, StoreError> {
        self.call(StoreMethod::Get, cx, self.inner.get(cx, key)).await
    }

    async fn claim(
        &self,
        cx: Context,
        key: SessionKey,
        expected: Expected,
        until: Timestamp,
        max_attempts: u32,
    ) -> Result<Claimed, StoreError> {
        let method = match expected {
            Expected::New => StoreMethod::Claim,
            Expected::Existing => StoreMethod::ClaimExisting,
        };
        let claimed = self.inner.claim(cx, key, expected, until, max_attempts);
        self.call_writing(method, cx, claimed, |claimed| matches!(claimed, Claimed::Granted(_)))
            .await
    }

    async fn renew(&self, cx: Context, claim: &Claim, until: Timestamp) -> Result<bool, StoreError> {
        self.call(StoreMethod::Renew, cx, self.inner.renew(cx, claim, until))
            .await
    }

    async fn save(
        &self,
        cx: Context,
        claim: &Claim,
        progress: Progress,
        part: Option<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        let saved = self.inner.save(cx, claim, progress, part);
        self.call_writing(StoreMethod::Save, cx, saved, |saved| *saved).await
    }

    async fn release(&self, cx: Context, claim: &Claim) -> Result<(), StoreError> {
        self.call(StoreMethod::Release, cx, self.inner.release(cx, claim)).await
    }

    async fn parts(&self, cx: Context, key: SessionKey) -> Result<Vec<Vec<u8>>, StoreError> {
        self.call(StoreMethod::Parts, cx, self.inner.parts(cx, key)).await
    }

    async fn commit(&self, cx: Context, claim: &Claim, publishing: &Publishing) -> Result<bool, StoreError> {
        let marked = self.inner.commit(cx, claim, publishing);
        self.call_writing(StoreMethod::Commit, cx, marked, |marked| *marked)
            .await
    }

    async fn finish(&self, cx: Context, claim: &Claim, end: End) -> Result<(), StoreError> {
        self.call(StoreMethod::Finish, cx, self.inner.finish(cx, claim, end))
            .await
    }

    async fn finish_committing(&self, cx: Context, key: SessionKey, end: End) -> Result<(), StoreError> {
        self.call(
            StoreMethod::FinishCommitting,
            cx,
            self.inner.finish_committing(cx, key, end),
        )
        .await
    }

    async fn cancel(&self, cx: Context, key: SessionKey) -> Result<Cancelled, StoreError> {
        self.call(StoreMethod::Cancel, cx, self.inner.cancel(cx, key)).await
    }

    async fn expired(
        &self,
        cx: Context,
        before: Timestamp,
        after: Option<SessionKey>,
        limit: usize,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        self.call(StoreMethod::Expired, cx, self.inner.expired(cx, before, after, limit))
            .await
    }

    async fn signing_keys(&self, cx: Context, candidate: SigningKey) -> Result<Vec<SigningKey>, StoreError> {
        self.call(StoreMethod::SigningKeys, cx, self.inner.signing_keys(cx, candidate))
            .await
    }
}

#[async_trait]
impl<H: Hook> CollectionStore for Wrapped<dyn CollectionStore, H> {
    async fn begin_pass(&self, cx: Context, pass: Uid, until: Timestamp) -> Result<PassStart, StoreError> {
        self.call(StoreMethod::BeginPass, cx, self.inner.begin_pass(cx, pass, until))
            .await
    }

    async fn checkpoint(
        &self,
        cx: Context,
        pass: Uid,
        next: Option<&Cursor>,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.call(
            StoreMethod::Checkpoint,
            cx,
            self.inner.checkpoint(cx, pass, next, until),
        )
        .await
    }

    async fn collect_metadata(
        &self,
        cx: Context,
        plan: &Plan,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Collected, StoreError> {
        self.call(
            StoreMethod::CollectMetadata,
            cx,
            self.inner.collect_metadata(cx, plan, after, limit),
        )
        .await
    }

    async fn sweep(&self, cx: Context, key: SessionKey, session: &Session) -> Result<Option<u64>, StoreError> {
        self.call(StoreMethod::Sweep, cx, self.inner.sweep(cx, key, session))
            .await
    }

    async fn pending_deletions(
        &self,
        cx: Context,
        before: Timestamp,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<PendingDeletion>, StoreError> {
        self.call(
            StoreMethod::PendingDeletions,
            cx,
            self.inner.pending_deletions(cx, before, after, limit),
        )
        .await
    }

    async fn check_pending_deletion(
        &self,
        cx: Context,
        pending_deletion: &PendingDeletion,
    ) -> Result<DeletionCheck, StoreError> {
        self.call(
            StoreMethod::CheckPendingDeletion,
            cx,
            self.inner.check_pending_deletion(cx, pending_deletion),
        )
        .await
    }

    async fn remove_pending_deletions(
        &self,
        cx: Context,
        pending_deletions: &[PendingDeletion],
    ) -> Result<(), StoreError> {
        self.call(
            StoreMethod::RemovePendingDeletions,
            cx,
            self.inner.remove_pending_deletions(cx, pending_deletions),
        )
        .await
    }
}

#[async_trait]
impl<H: Hook> RecordStore for Wrapped<dyn RecordStore, H> {
    async fn walk(
        &self,
        cx: Context,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<Result<Record, Unreadable>>, StoreError> {
        self.call(StoreMethod::Walk, cx, self.inner.walk(cx, after, limit))
            .await
    }

    async fn recorded_object(&self, cx: Context, digest: &Digest) -> Result<Option<RecordedObject>, StoreError> {
        self.call(StoreMethod::RecordedObject, cx, self.inner.recorded_object(cx, digest))
            .await
    }

    async fn missing_back_references(
        &self,
        cx: Context,
        back_references: &[BackReference],
    ) -> Result<Vec<BackReference>, StoreError> {
        self.call(
            StoreMethod::MissingBackReferences,
            cx,
            self.inner.missing_back_references(cx, back_references),
        )
        .await
    }

    async fn insert(&self, cx: Context, records: &[Record]) -> Result<(), StoreError> {
        self.call(StoreMethod::Insert, cx, self.inner.insert(cx, records)).await
    }
}
