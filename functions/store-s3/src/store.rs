//! The store, and what the core calls.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use registry::clock::ServiceClock;
use registry::store::blobs::{
    AppendError, Appended, BlobStore, ByteStream, DeletedObjects, Discarded, ObjectToDelete, Redirect, RedirectRequest,
    Source, Stored, Upload,
};
use registry::store::sessions::{Attempt, SessionId};
use registry::store::{Context, Cursor, Location, Reason, Slice, StoreError, Timestamp};

use crate::keys::Keys;
use crate::plan::Parts;
use crate::presign::Presigner;
use crate::requests::{Bucket, Patience};
use crate::room::Room;
use crate::state::State;
use crate::statistics::{Operation, Statistics};
use crate::time::Span;

/// Keeps bytes in an object store. Clones share everything.
#[derive(Clone)]
pub struct S3Blobs(pub(crate) Arc<Store>);

pub(crate) struct Store {
    pub(crate) bucket: Arc<Bucket>,
    pub(crate) keys: Keys,
    pub(crate) parts: Parts,
    pub(crate) room: Room,
    pub(crate) presigner: Presigner,
    pub(crate) clock: Arc<ServiceClock>,
}

impl fmt::Debug for S3Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Blobs")
            .field("bucket", &self.0.bucket.name)
            .field("prefix", &self.0.keys.prefix())
            .finish_non_exhaustive()
    }
}

impl S3Blobs {
    /// What was asked of the object store so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.0.bucket.counters.read(self.0.room.free())
    }

    /// What the answers of the object store say of the clock of this host.
    #[must_use]
    pub fn clock(&self) -> &Arc<ServiceClock> {
        &self.0.clock
    }

    /// A URL with the scheme and the host of those to which pulls are redirected; nothing can be fetched with it. No
    /// request is made. `None`: the configuration names no host.
    pub async fn public_url(&self) -> Option<String> {
        self.0.presigner.public_url().await
    }

    /// Whether the bucket is there and this process may read it, found out by asking for an object that nobody has: one
    /// request, which transfers nothing. The answer to a HEAD would not tell an absent bucket from an absent object.
    pub async fn check(&self, cx: Context) -> Result<(), CheckError> {
        let key = self.0.keys.of(&Location::main("0.1"))?;
        let bucket = &self.0.bucket;
        let answer = bucket.call(Operation::GetObject, Span::of(cx).begin(), || {
            let request = bucket
                .client
                .get_object()
                .bucket(&bucket.name)
                .key(&key)
                .range("bytes=0-0")
                .set_expected_bucket_owner(bucket.owner.clone());
            (request.send(), Patience::SHORT)
        });
        match answer.await {
            Ok(_) => Ok(()),
            Err(fault) if fault.is_absent() => Ok(()),
            Err(fault) if fault.is_no_bucket() => Err(CheckError::NoBucket(bucket.name.clone())),
            Err(fault) => {
                let text = format!("the bucket {} cannot be read: {fault}", bucket.name);
                let reason = StoreError::from(fault).reason();
                Err(StoreError::because(reason, text).into())
            }
        }
    }
}

/// Why a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It does not exist.
    #[error("there is no bucket {0}: create it, or name another one with --blobs s3://BUCKET")]
    NoBucket(String),
    /// The object store does not answer, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CheckError> for StoreError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::NoBucket(_) => Self::because(Reason::ObjectStoreRefuses, error),
            CheckError::Store(error) => error,
        }
    }
}

#[async_trait]
impl BlobStore for S3Blobs {
    async fn append(
        &self,
        cx: Context,
        attempt: Attempt,
        state: &[u8],
        source: &mut dyn Source,
    ) -> Result<Appended, AppendError> {
        self.0.append(Span::of(cx), cx.client, attempt, state, source).await
    }

    fn after_failed_attempt(&self, attempt: Attempt, state: &[u8]) -> Option<Vec<u8>> {
        Store::after_failed_attempt(attempt, state)
    }

    async fn seal(&self, cx: Context, upload: &Upload) -> Result<Location, StoreError> {
        self.0.seal(Span::of(cx), cx.client, upload).await
    }

    fn seal_writes(&self, upload: &Upload) -> bool {
        State::decode(&upload.state).is_ok_and(|state| state.upload.is_some())
    }

    fn leaves_something(&self, state: &[u8]) -> bool {
        // The end of a body behind parts of one size, which the seal copies; or an upload that was begun twice. A state
        // that cannot be read names nothing.
        State::decode(state).is_ok_and(|state| state.littered || (state.upload.is_some() && state.tail.is_some()))
    }

    async fn discard(
        &self,
        cx: Context,
        session: SessionId,
        attempts: u32,
        state: &[u8],
        keep: Option<&Location>,
    ) -> Result<Discarded, StoreError> {
        self.0.clock.check()?;
        let deadline = Span::of(cx).begin();
        self.0.discard(deadline, session, attempts, state, keep).await
    }

    async fn read(
        &self,
        cx: Context,
        location: &Location,
        range: Range<u64>,
    ) -> Result<Option<ByteStream>, StoreError> {
        self.0.read(Span::of(cx), location, range).await
    }

    async fn redirect(
        &self,
        now: Timestamp,
        location: &Location,
        request: RedirectRequest,
    ) -> Result<Option<Redirect>, StoreError> {
        let key = self.0.keys.of(location)?;
        let RedirectRequest {
            content_type,
            reached_by,
        } = request;
        self.0.presigner.redirect(now, &key, content_type, reached_by).await
    }

    async fn delete(&self, cx: Context, to_delete: &[ObjectToDelete]) -> Result<Option<DeletedObjects>, StoreError> {
        // What is due was decided by the clock of this host.
        self.0.clock.check()?;
        self.0.delete(Span::of(cx).begin(), to_delete).await?;
        // S3 does not tell whether there was anything.
        Ok(None)
    }

    async fn tidy(&self, cx: Context, kept: &[Location]) -> Result<(), StoreError> {
        self.0.clock.check()?;
        self.0.tidy(Span::of(cx).begin(), kept).await
    }

    async fn stat(&self, cx: Context, location: &Location) -> Result<Option<u64>, StoreError> {
        let key = self.0.keys.of(location)?;
        let seen = self.0.bucket.look(&key, Span::of(cx).begin()).await?;
        Ok(seen.map(|seen| seen.size))
    }

    async fn objects(&self, cx: Context, after: Option<&Cursor>, limit: usize) -> Result<Slice<Stored>, StoreError> {
        self.0.objects(Span::of(cx).begin(), after, limit).await
    }
}
