//! The blob store: the methods that the core calls.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use registry::clock::ServiceClock;
use registry::store::blobs::{
    AppendError, Appended, BlobStore, ByteStream, DeletedObjects, Discarded, ObjectToDelete, Redirect, RedirectRequest,
    Source, StoredObject, Upload,
};
use registry::store::{Attempt, Context, Cursor, Location, Reason, SessionId, Slice, StoreError, Timestamp};

use crate::keys::ObjectKeys;
use crate::memory::UploadMemory;
use crate::plan::Parts;
use crate::presign::Presigner;
use crate::requests::{AttemptTimeout, BucketClient};
use crate::state::UploadState;
use crate::statistics::{ObjectStoreStatistics, Operation};
use crate::time::CallTimeout;

/// Stores blobs in an object store. Clones share everything.
#[derive(Clone)]
pub struct S3Blobs(pub(crate) Arc<S3Store>);

pub(crate) struct S3Store {
    pub(crate) bucket: Arc<BucketClient>,
    pub(crate) keys: ObjectKeys,
    pub(crate) parts: Parts,
    pub(crate) memory: UploadMemory,
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
    /// The number of requests to the object store so far.
    #[must_use]
    pub fn statistics(&self) -> ObjectStoreStatistics {
        self.0.bucket.counters.read(self.0.memory.free())
    }

    /// Compares the times in the object store's responses with the clock of this host.
    #[must_use]
    pub fn clock(&self) -> &Arc<ServiceClock> {
        &self.0.clock
    }

    /// The scheme and the host of the URLs to which pulls are redirected, as a URL. No object can be fetched with it.
    /// It sends no request. `None`: the configuration contains no host.
    pub async fn public_url(&self) -> Option<String> {
        self.0.presigner.public_url().await
    }

    /// Checks that the bucket exists and that this process may read it. It requests an object that never exists: one
    /// request without content. The response to a HEAD would not distinguish an absent bucket from an absent object.
    pub async fn check(&self, cx: Context) -> Result<(), CheckError> {
        let key = self.0.keys.of(&Location::main("0.1"))?;
        let bucket = &self.0.bucket;
        let answer = bucket.call(Operation::GetObject, CallTimeout::of(cx).start(), || {
            let request = bucket
                .client
                .get_object()
                .bucket(&bucket.name)
                .key(&key)
                .range("bytes=0-0")
                .set_expected_bucket_owner(bucket.owner.clone());
            (request.send(), AttemptTimeout::SHORT)
        });
        match answer.await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) if error.is_bucket_not_found() => Err(CheckError::NoBucket(bucket.name.clone())),
            Err(error) => {
                let text = format!("the bucket {} cannot be read: {error}", bucket.name);
                let reason = StoreError::from(error).reason();
                Err(StoreError::because(reason, text).into())
            }
        }
    }
}

/// Why a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The bucket does not exist.
    #[error("there is no bucket {0}: create it, or name another one in the setting blobs")]
    NoBucket(String),
    /// The object store does not respond, or refuses the request.
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
        self.0
            .append(CallTimeout::of(cx), cx.client, attempt, state, source)
            .await
    }

    fn after_failed_attempt(&self, attempt: Attempt, state: &[u8]) -> Option<Vec<u8>> {
        S3Store::after_failed_attempt(attempt, state)
    }

    async fn seal(&self, cx: Context, upload: &Upload) -> Result<Location, StoreError> {
        self.0.seal(CallTimeout::of(cx), cx.client, upload).await
    }

    fn seal_writes(&self, upload: &Upload) -> bool {
        UploadState::decode(&upload.state).is_ok_and(|state| state.upload.is_some())
    }

    fn leaves_something(&self, state: &[u8]) -> bool {
        // An upload leaves objects if its last body was staged after equal parts (the seal copies the staged bytes), or
        // if a multipart upload was begun twice. A state that cannot be decoded has no objects.
        UploadState::decode(state)
            .is_ok_and(|state| state.has_unrecorded_uploads || (state.upload.is_some() && state.tail.is_some()))
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
        let deadline = CallTimeout::of(cx).start();
        self.0.discard(deadline, session, attempts, state, keep).await
    }

    async fn read(
        &self,
        cx: Context,
        location: &Location,
        range: Range<u64>,
    ) -> Result<Option<ByteStream>, StoreError> {
        self.0.read(CallTimeout::of(cx), location, range).await
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
        // The clock of this host decided which objects are due.
        self.0.clock.check()?;
        self.0.delete(CallTimeout::of(cx).start(), to_delete).await?;
        // The response of S3 does not say whether an object existed.
        Ok(None)
    }

    async fn tidy(&self, cx: Context, kept: &[Location]) -> Result<(), StoreError> {
        self.0.clock.check()?;
        self.0.tidy(CallTimeout::of(cx).start(), kept).await
    }

    async fn stat(&self, cx: Context, location: &Location) -> Result<Option<u64>, StoreError> {
        let key = self.0.keys.of(location)?;
        let info = self.0.bucket.head(&key, CallTimeout::of(cx).start()).await?;
        Ok(info.map(|info| info.size))
    }

    async fn objects(
        &self,
        cx: Context,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<StoredObject>, StoreError> {
        self.0.objects(CallTimeout::of(cx).start(), after, limit).await
    }
}
