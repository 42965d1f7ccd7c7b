//! Sends parts in parallel, and aborts uploads that are not needed.

use std::sync::Arc;

use tokio::task::JoinSet;

use registry::store::StoreError;

use crate::chunk_queue::ByteChunks;
use crate::error::RequestError;
use crate::memory::{PartPermits, UploadMemoryPermit};
use crate::multipart::{MultipartTarget, SentPart};
use crate::requests::BucketClient;
use crate::time::CallTimeout;

/// The parts of one body that are being sent, each in a separate task. Dropping this cancels the tasks.
pub(crate) struct PartUploads {
    bucket: Arc<BucketClient>,
    timeout: CallTimeout,
    tasks: JoinSet<(Result<SentPart, RequestError>, UploadMemoryPermit)>,
}

impl PartUploads {
    pub(crate) fn new(bucket: &Arc<BucketClient>, timeout: CallTimeout) -> Self {
        Self {
            bucket: Arc::clone(bucket),
            timeout,
            tasks: JoinSet::new(),
        }
    }

    pub(crate) fn start(&mut self, target: &MultipartTarget, number: u16, content: ByteChunks, permits: PartPermits) {
        let (bucket, timeout, target) = (Arc::clone(&self.bucket), self.timeout, target.clone());
        let PartPermits { base, extra } = permits;
        self.tasks.spawn(async move {
            let deadline = timeout.start();
            let part = bucket.upload_part(&target, number, &content, deadline).await;
            drop((content, extra));
            (part, base)
        });
    }

    /// A part that is stored already, if there is one, and the memory permit that it had from its upload's base.
    pub(crate) fn stored_already(&mut self) -> Option<Result<(SentPart, UploadMemoryPermit), StoreError>> {
        self.tasks.try_join_next().map(outcome)
    }

    /// Waits until a part is stored. `None`: no part is being sent.
    pub(crate) async fn stored(&mut self) -> Option<Result<(SentPart, UploadMemoryPermit), StoreError>> {
        self.tasks.join_next().await.map(outcome)
    }

    /// Waits until all parts are sent. Returns whether all are stored and each was sent exactly once.
    pub(crate) async fn all_stored_once(&mut self) -> bool {
        let mut all = true;
        while let Some(stored) = self.stored().await {
            all &= stored.is_ok_and(|(sent, _)| sent.sent_once);
        }
        all
    }

    /// Cancels the tasks, and waits until they have ended.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

fn outcome(
    joined: Result<(Result<SentPart, RequestError>, UploadMemoryPermit), tokio::task::JoinError>,
) -> Result<(SentPart, UploadMemoryPermit), StoreError> {
    let (part, base) = joined.map_err(StoreError::failed)?;
    Ok((part?, base))
}

/// An upload that this attempt began. Dropping this aborts the upload, unless `target` was taken; also when the request
/// is dropped because its client has disconnected. If the abort fails, the session's row still contains the key.
pub(crate) struct AbortOnDrop {
    pub(crate) bucket: Arc<BucketClient>,
    pub(crate) target: Option<MultipartTarget>,
    pub(crate) timeout: CallTimeout,
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        let Some(target) = self.target.take() else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (bucket, timeout) = (Arc::clone(&self.bucket), self.timeout);
        runtime.spawn(async move {
            if let Err(error) = bucket.abort(&target, timeout.start()).await {
                tracing::warn!(
                    key = target.key,
                    error = %error,
                    "a multipart upload could not be aborted: collection will abort it"
                );
            }
        });
    }
}
