//! The calls that the core makes to the store for one upload, with the data of the session's row.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use contract::source::{Body, noise};
use futures_util::TryStreamExt as _;
use oci::{Algorithm, Digest};
use registry::store::blobs::{AppendError, Appended, BlobStore, BodyError, Discarded, Source, Upload};
use registry::store::collection::{Clearing, remains};
use registry::store::sessions::{Progress, Publishing, SessionKey, State};
use registry::store::{Attempt, Context, Location, SessionId, StoreError, Timestamp, Uid, sessions};
use store_s3::S3Blobs;

/// One MiB in bytes.
pub(crate) const MIB: usize = 1 << 20;

/// A context with a time limit of this many seconds.
pub(crate) fn cx(seconds: u64) -> Context {
    let now = Timestamp(1_900_000_000_000);
    Context::internal(now, seconds * 1000, Uid(1))
}

/// An upload.
#[derive(Clone)]
pub(crate) struct UploadSession {
    pub(crate) store: S3Blobs,
    pub(crate) id: SessionId,
    pub(crate) attempts: u32,
    pub(crate) state: Vec<u8>,
    pub(crate) parts: Vec<Vec<u8>>,
    /// All bytes of saved bodies.
    pub(crate) whole: Vec<u8>,
}

static SESSIONS: AtomicU64 = AtomicU64::new(1);

impl UploadSession {
    pub(crate) fn new(store: &S3Blobs) -> Self {
        Self {
            store: store.clone(),
            id: SessionId(u128::from(SESSIONS.fetch_add(1, Ordering::Relaxed)) << 64),
            attempts: 0,
            state: Vec::new(),
            parts: Vec::new(),
            whole: Vec::new(),
        }
    }

    pub(crate) fn attempt(&mut self) -> Attempt {
        self.attempts += 1;
        Attempt {
            session: self.id,
            number: self.attempts,
        }
    }

    /// Appends random bytes and saves the result.
    pub(crate) async fn append(&mut self, size: usize) {
        let bytes = noise(u64::from(self.attempts) + 1000 * size as u64, size);
        let attempt = self.attempt();
        let mut body = Body::of(&bytes, 60_000);
        let appended = self
            .store
            .append(cx(60), attempt, &self.state, &mut body)
            .await
            .unwrap();
        self.save(appended, &bytes);
    }

    pub(crate) fn save(&mut self, appended: Appended, bytes: &[u8]) {
        self.state = appended.state;
        self.parts.extend(appended.part);
        self.whole.extend_from_slice(bytes);
    }

    /// Appends a body whose connection is cut after `size` bytes, as the core does while the server keeps running.
    pub(crate) async fn append_cut(&mut self, size: usize) {
        let (attempt, error) = self.try_append_cut(size).await;
        assert!(matches!(error, AppendError::Body(BodyError::Cut)), "{error}");
        if let Some(state) = self.store.after_failed_attempt(attempt, &self.state) {
            self.state = state;
        }
    }

    /// The same, but the server crashes: the state does not record the failed attempt.
    pub(crate) async fn append_lost(&mut self, size: usize) {
        self.try_append_cut(size).await;
    }

    pub(crate) async fn try_append_cut(&mut self, size: usize) -> (Attempt, AppendError) {
        let attempt = self.attempt();
        let mut body = Body::of(&noise(7, size), 60_000).failing(BodyError::Cut);
        let appended = self.store.append(cx(60), attempt, &self.state, &mut body).await;
        (attempt, appended.unwrap_err())
    }

    pub(crate) fn upload(&self) -> Upload {
        Upload {
            session: self.id,
            state: self.state.clone(),
            parts: self.parts.clone(),
            size: self.whole.len() as u64,
        }
    }

    pub(crate) async fn try_seal(&self) -> Result<Location, StoreError> {
        self.store.seal(cx(120), &self.upload()).await
    }

    pub(crate) async fn seal(&self) -> Location {
        self.try_seal().await.unwrap()
    }

    pub(crate) async fn discard(&self, keep: Option<&Location>) -> Discarded {
        let discarded = self.store.discard(cx(60), self.id, self.attempts, &self.state, keep);
        discarded.await.unwrap()
    }

    /// Does what the request that ends an upload does, and then what collection does.
    pub(crate) async fn end(&self, keep: Option<&Location>) {
        if self.discard(keep).await == Discarded::All {
            return;
        }
        let key = SessionKey {
            expires: Timestamp(0),
            id: self.id,
        };
        let publishing = keep.map(|location| Publishing {
            digest: Digest::of(Algorithm::Sha256, b""),
            location: location.clone(),
            size: self.whole.len() as u64,
        });
        let row = sessions::Session {
            version: 1,
            state: publishing.map_or(State::Cancelled(None), State::Committing),
            attempts: self.attempts,
            progress: Progress::default(),
        };
        let pending_deletions = remains(key, &row, Timestamp(0)).map(|pending_deletion| {
            let in_use = Some(&pending_deletion.location) == keep;
            (pending_deletion, in_use)
        });
        let Clearing { to_delete, kept } = pending_deletions.collect();
        self.store.delete(cx(60), &to_delete).await.unwrap();
        self.store.tidy(cx(60), &kept).await.unwrap();
    }

    /// Seals the upload, and checks the sealed object.
    pub(crate) async fn seal_and_check(&self) -> Location {
        let location = self.seal().await;
        self.check(&location).await;
        location
    }

    pub(crate) async fn check(&self, location: &Location) {
        let read = read(&self.store, location, self.whole.len()).await;
        assert_eq!(read.len(), self.whole.len());
        assert!(read == self.whole, "{location:?}");
    }
}

/// The first bytes of an object.
pub(crate) async fn read(store: &S3Blobs, location: &Location, size: usize) -> Vec<u8> {
    let stream = store.read(cx(60), location, 0..size as u64).await.unwrap().unwrap();
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    chunks.concat()
}

/// A long body without a declared length, whose chunks are made on demand.
pub(crate) struct LongBody {
    chunk: Bytes,
    left: usize,
}

impl LongBody {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            chunk: noise(5, MIB / 8),
            left: bytes,
        }
    }
}

#[async_trait]
impl Source for LongBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let size = self.left.min(self.chunk.len());
        self.left -= size;
        Ok((size > 0).then(|| self.chunk.slice(..size)))
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        None
    }
}
