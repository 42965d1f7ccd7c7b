//! Stores a request body as an object, or as parts of one.
//!
//! While a body arrives, full parts of it are sent in parallel; the bytes left at its end are added to the last part. A
//! body that ends before its first part is full becomes one object, without a multipart upload.
//!
//! If the client disconnects or the claim of the session is lost, the bytes of this body are not saved. They cannot
//! damage another attempt, because each attempt writes to keys of its own, and writes parts to a multipart upload of
//! the session only if no other attempt can be writing to it. After a disconnect, the attempt waits up to 5 seconds
//! until its parts are stored. Then the next attempt can overwrite them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use registry::budget::ClientKey;
use registry::store::blobs::{AppendError, Appended, Source};
use registry::store::{Attempt, Reason, StoreError};

use crate::chunk_queue::{ByteChunks, ChunkQueue};
use crate::memory::{MemoryAllowance, UploadMemoryPermit};
use crate::multipart::{MultipartTarget, SentPart};
use crate::parts::{AbortOnDrop, PartUploads};
use crate::plan::{LAST_NUMBER, MINIMUM_PART, Parts};
use crate::record::{PartsRecord, StoredPart};
use crate::state::{OpenMultipart, TailObject, UploadState};
use crate::store::S3Store;
use crate::time::CallTimeout;

/// Maximum time to wait for the parts of a body whose connection was cut. During this time it keeps its memory and the
/// session's claim.
const PARTS_TIMEOUT: Duration = Duration::from_secs(5);

impl S3Store {
    pub(crate) async fn append(
        self: &Arc<Self>,
        timeout: CallTimeout,
        client: ClientKey,
        attempt: Attempt,
        state: &[u8],
        source: &mut dyn Source,
    ) -> Result<Appended, AppendError> {
        let state = UploadState::decode(state)?;
        let _open = self.bucket.counters.upload();
        let Some(first) = source.next().await? else {
            return Ok(self.append_nothing(timeout, attempt, state).await?);
        };
        // A small object before this body is sent again together with it.
        let resent = state.tail.filter(|tail| self.is_resent(&state, *tail));
        let resent_bytes = resent.map_or(0, |tail| usize::try_from(tail.size).unwrap_or(usize::MAX));
        let declared = source
            .remaining()
            .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let wanted = declared.map_or(usize::MAX, |bytes| bytes.saturating_add(first.len() + resent_bytes));
        let memory = self.memory.begin(client, self.parts.base(wanted)).await?;
        let mut writer = BodyWriter::new(self, timeout, attempt, state, memory);
        writer.expected = declared.map(|_| wanted as u64);
        let stored = async {
            if let Some(tail) = resent {
                // The small object is read at once, so it needs its memory first.
                while writer.memory.acquire_more(0).await? {}
                writer.read_back(tail).await?;
            }
            writer.take(first).await?;
            while let Some(chunk) = writer.next(source).await? {
                writer.take(chunk).await?;
            }
            // The hash does not include the bytes of the small object.
            let sha256 = source.sha256().filter(|_| resent.is_none());
            Ok(writer.finish(sha256).await?)
        };
        match stored.await {
            Ok(stored) => {
                writer.commit();
                Ok(stored)
            }
            Err(AppendError::Body(error)) if !writer.finish_and_cancel().await => {
                Err(AppendError::WriteInFlight(error))
            }
            Err(error) => {
                writer.cancel().await;
                Err(error)
            }
        }
    }

    /// The state after an attempt that failed and wrote nothing that could still change the session's upload. The next
    /// attempt may then write to the same upload.
    pub(crate) fn after_failed_attempt(attempt: Attempt, state: &[u8]) -> Option<Vec<u8>> {
        // A state that cannot be decoded is refused later, where an error can be returned.
        let mut state = UploadState::decode(state).ok()?;
        if state.upload.is_none() || !state.is_followed_by(attempt.number) {
            return None;
        }
        state.last = attempt.number;
        state.encode().ok()
    }

    /// Stores an empty body. Only the first body of an upload makes a difference: it becomes an object of no bytes.
    async fn append_nothing(
        &self,
        timeout: CallTimeout,
        attempt: Attempt,
        mut state: UploadState,
    ) -> Result<Appended, StoreError> {
        if state.bodies == 0 {
            let key = self.keys.object(attempt);
            self.bucket
                .put(&key, &ChunkQueue::default().cut(0), None, timeout.start())
                .await?;
            state.bodies = 1;
            state.last = attempt.number;
            state.tail = Some(TailObject {
                attempt: attempt.number,
                size: 0,
            });
        } else if state.is_followed_by(attempt.number) {
            state.last = attempt.number;
        }
        Ok(Appended {
            state: state.encode()?,
            part: None,
        })
    }

    /// Whether an object is read back and sent again together with the next bytes, and not copied as a part.
    fn is_resent(&self, state: &UploadState, tail: TailObject) -> bool {
        state.upload.is_some() || self.parts == Parts::Equal || tail.size < MINIMUM_PART as u64
    }
}

/// Stores one body.
struct BodyWriter<'a> {
    store: &'a Arc<S3Store>,
    timeout: CallTimeout,
    attempt: Attempt,
    /// The state before this body.
    before: UploadState,
    /// The number of bytes to store, if the client declared the length.
    expected: Option<u64>,
    memory: MemoryAllowance,
    /// The number of bytes received and read back so far.
    arrived: u64,
    queue: ChunkQueue,
    /// The upload that receives this body's parts, once it is open.
    open: Option<BodyUpload>,
    sending: PartUploads,
    parts: Vec<StoredPart>,
    /// Whether each part was sent exactly once, so that no part of an earlier attempt of its request can still arrive.
    sent_once: bool,
    /// Whether the store may have uploads that the state does not record, begun by requests whose responses were lost.
    has_unrecorded_uploads: bool,
}

struct BodyUpload {
    upload: OpenMultipart,
    target: MultipartTarget,
    /// Aborts the upload, if this attempt began it.
    abort_on_drop: Option<AbortOnDrop>,
    /// Whether the upload certainly exists: this attempt began it, or the store has accepted a part of this body for it.
    is_confirmed: bool,
}

impl<'a> BodyWriter<'a> {
    fn new(
        store: &'a Arc<S3Store>,
        timeout: CallTimeout,
        attempt: Attempt,
        before: UploadState,
        memory: MemoryAllowance,
    ) -> Self {
        Self {
            sending: PartUploads::new(&store.bucket, timeout),
            has_unrecorded_uploads: before.has_unrecorded_uploads,
            store,
            timeout,
            attempt,
            before,
            expected: None,
            memory,
            arrived: 0,
            queue: ChunkQueue::default(),
            open: None,
            parts: Vec::new(),
            sent_once: true,
        }
    }

    fn key(&self, attempt: u32) -> String {
        self.store.keys.object(self.attempt_of(attempt))
    }

    fn attempt_of(&self, number: u32) -> Attempt {
        Attempt {
            session: self.attempt.session,
            number,
        }
    }

    /// Reads back the bytes that an earlier attempt stored.
    async fn read_back(&mut self, tail: TailObject) -> Result<(), AppendError> {
        if tail.size == 0 {
            return Ok(());
        }
        let object = self.attempt_of(tail.attempt);
        let key = if self.before.upload.is_some() {
            self.store.keys.staged(object)
        } else {
            self.store.keys.object(object)
        };
        for chunk in self
            .store
            .bucket
            .fetch(&key, tail.size, self.timeout.start())
            .await
            .map_err(StoreError::from)?
        {
            self.take(chunk).await?;
        }
        Ok(())
    }

    /// Waits for a chunk, unless this body must give way because it arrives too slowly while other uploads wait for
    /// memory.
    async fn next(&mut self, source: &mut dyn Source) -> Result<Option<Bytes>, AppendError> {
        let must_give_way = std::pin::pin!(self.memory.must_give_way(self.arrived));
        match select(source.next(), must_give_way).await {
            Either::Left((chunk, _)) => Ok(chunk?),
            Either::Right(_) => {
                let gave_way = "memory is short: this upload arrived too slowly and gave way to others";
                Err(StoreError::because(Reason::Memory, gave_way).into())
            }
        }
    }

    /// Takes a chunk and sends full parts. Waits while there is no memory for another chunk.
    async fn take(&mut self, chunk: Bytes) -> Result<(), AppendError> {
        self.arrived += chunk.len() as u64;
        self.queue.push(chunk);
        while let Some(stored) = self.sending.stored_already() {
            self.stored(stored?);
        }
        loop {
            if let Some(bytes) = self.store.parts.cut(self.next_number(), self.queue.len()) {
                self.send(bytes).await?;
            } else if self.memory.may_receive(self.queue.len()) {
                return Ok(());
            } else if self.memory.acquire_more(self.arrived).await? {
                // The upload held memory for its first bytes only.
            } else if self.memory.grow() {
                // Perhaps the chunk needs still more.
            } else if let Some(stored) = self.sending.stored().await {
                self.stored(stored?);
            } else if let Some(bytes) = self.store.parts.cut_early(self.queue.len()) {
                self.send(bytes).await?;
            } else {
                self.memory.wait_for_more(self.store.parts).await?;
            }
        }
    }

    fn stored(&mut self, (part, base): (SentPart, UploadMemoryPermit)) {
        self.memory.return_base(base);
        self.sent_once &= part.sent_once;
        self.parts.push(part.part);
    }

    /// The number of the next part in the upload that is open, or in the session's upload.
    fn next_number(&self) -> u16 {
        let open = self.open.as_ref().map(|open| open.upload.next);
        open.or(self.before.upload.as_ref().map(|upload| upload.next))
            .unwrap_or(1)
    }

    /// Sends the first `bytes` of the queue as a part.
    async fn send(&mut self, bytes: usize) -> Result<(), StoreError> {
        let content = self.queue.cut(bytes);
        let permits = self.memory.split_for_part(content.len());
        let (number, is_confirmed) = {
            let open = self.open().await?;
            open.check_numbers()?;
            (open.upload.next, open.is_confirmed)
        };
        if is_confirmed {
            let open = self.open().await?;
            let target = open.target.clone();
            open.count(&content);
            self.sending.start(&target, number, content, permits);
            return Ok(());
        }
        // The first part after an earlier body is sent alone. If the upload has been sealed in the meantime, no bytes
        // of this body are lost yet, and another upload can receive them.
        let mut part = self.send_alone(number, &content).await?;
        if part.is_none() {
            self.begin().await?;
            part = self.send_alone(self.next_number(), &content).await?;
        }
        let part = part.ok_or_else(|| StoreError::failed("a multipart upload that was just begun does not exist"))?;
        self.memory.return_base(permits.base);
        self.parts.push(part);
        let open = self.open().await?;
        open.is_confirmed = true;
        open.count(&content);
        Ok(())
    }

    /// Sends a part and waits for the response. `None`: the upload does not exist any more.
    async fn send_alone(&mut self, number: u16, content: &ByteChunks) -> Result<Option<StoredPart>, StoreError> {
        let deadline = self.timeout.start();
        let bucket = Arc::clone(&self.store.bucket);
        let target = self.open().await?.target.clone();
        match bucket.upload_part(&target, number, content, deadline).await {
            Ok(sent) => {
                self.sent_once &= sent.sent_once;
                Ok(Some(sent.part))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The upload that receives this body's parts: the session's if no other attempt can be using it, otherwise a new
    /// one.
    async fn open(&mut self) -> Result<&mut BodyUpload, StoreError> {
        if self.open.is_none() {
            match self.usable() {
                Some(upload) => {
                    let target = MultipartTarget {
                        key: self.key(upload.attempt),
                        id: upload.id.clone(),
                        checksums: upload.checksums,
                    };
                    self.open = Some(BodyUpload {
                        upload,
                        target,
                        abort_on_drop: None,
                        is_confirmed: false,
                    });
                }
                None => self.begin().await?,
            }
        }
        self.open
            .as_mut()
            .ok_or_else(|| StoreError::failed("a multipart upload was opened but is not recorded"))
    }

    fn usable(&self) -> Option<OpenMultipart> {
        let upload = self.before.upload.as_ref()?;
        let is_nearly_full = self.store.parts.is_nearly_full(upload.next, self.expected);
        let is_usable = self.before.is_followed_by(self.attempt.number) && !is_nearly_full;
        is_usable.then(|| upload.clone())
    }

    /// Begins a new upload for the bytes after those stored before.
    async fn begin(&mut self) -> Result<(), StoreError> {
        let key = self.key(self.attempt.number);
        let bucket = &self.store.bucket;
        // Stores differ in the checksums that they return for bytes copied from other uploads.
        let may_have_checksums = self.before.upload.is_none();
        let (target, repeated) = bucket.begin(&key, may_have_checksums, self.timeout.start()).await?;
        self.has_unrecorded_uploads |= repeated;
        let abort_on_drop = AbortOnDrop {
            bucket: Arc::clone(bucket),
            target: Some(target.clone()),
            timeout: self.timeout,
        };
        let (prefix, first) = match &self.before.upload {
            Some(before) => {
                let copies = self.store.parts.copies(before.end(), before.next - 1);
                (before.end(), copies + 1)
            }
            None => (0, 1),
        };
        let upload = OpenMultipart {
            attempt: self.attempt.number,
            id: target.id.clone(),
            prefix,
            first,
            next: first,
            own: 0,
            checksums: target.checksums,
        };
        self.open = Some(BodyUpload {
            upload,
            target: target.clone(),
            abort_on_drop: Some(abort_on_drop),
            is_confirmed: true,
        });
        match self.before.tail {
            Some(tail) if !self.store.is_resent(&self.before, tail) => self.copy(&target, tail).await,
            _ => Ok(()),
        }
    }

    /// Makes a single object the first part.
    async fn copy(&mut self, target: &MultipartTarget, tail: TailObject) -> Result<(), StoreError> {
        let source = self.key(tail.attempt);
        let number = self.next_number();
        let copied = self
            .store
            .bucket
            .copy_small(target, number, (&source, tail.size), None, self.timeout.start());
        let part = copied.await?;
        if let Some(open) = &mut self.open {
            open.upload.next += 1;
            open.upload.own += part.size;
        }
        self.parts.push(part);
        Ok(())
    }

    /// Stores the remaining bytes, and returns the new state of the session.
    async fn finish(&mut self, sha256: Option<[u8; 32]>) -> Result<Appended, StoreError> {
        let follows_large = |tail: TailObject| !self.store.is_resent(&self.before, tail);
        let is_object =
            self.open.is_none() && self.before.upload.is_none() && !self.before.tail.is_some_and(follows_large);
        let rest = self.queue.len();
        let mut tail = None;
        if is_object {
            tail = Some(self.put(self.store.keys.object(self.attempt), sha256).await?);
        } else if self.store.parts.is_part(rest) {
            self.send(rest).await?;
        } else if rest > 0 {
            // The key of the sealed object must contain an attempt whose upload no other attempt can have sealed.
            self.open().await?;
            tail = Some(self.put(self.store.keys.staged(self.attempt), None).await?);
        }
        while let Some(stored) = self.sending.stored().await {
            self.stored(stored?);
        }
        self.parts.sort_unstable_by_key(|part| part.number);
        let upload = self.open.as_ref().map(|open| open.upload.clone());
        let upload = upload.or_else(|| self.before.upload.clone());
        let part = match &upload {
            Some(upload) if !self.parts.is_empty() => {
                let record = PartsRecord {
                    attempt: upload.attempt,
                    id: upload.id.clone(),
                    prefix: upload.prefix,
                    first: upload.first,
                    parts: std::mem::take(&mut self.parts),
                };
                Some(record.encode()?)
            }
            _ => None,
        };
        let state = UploadState {
            bodies: self.before.bodies + 1,
            last: self.attempt.number,
            upload,
            tail,
            has_unrecorded_uploads: self.has_unrecorded_uploads,
        };
        Ok(Appended {
            state: state.encode()?,
            part,
        })
    }

    /// Stores the remaining bytes as an object.
    async fn put(&mut self, key: String, sha256: Option<[u8; 32]>) -> Result<TailObject, StoreError> {
        let content = self.queue.cut(usize::MAX);
        let deadline = self.timeout.start();
        self.store.bucket.put(&key, &content, sha256, deadline).await?;
        Ok(TailObject {
            attempt: self.attempt.number,
            size: content.len() as u64,
        })
    }

    /// Keeps the upload that this attempt began, since the body is stored.
    fn commit(&mut self) {
        if let Some(abort_on_drop) = self.open.as_mut().and_then(|open| open.abort_on_drop.as_mut()) {
            abort_on_drop.target = None;
        }
    }

    /// Cancels a body that failed. Returns whether nothing of it can still reach the session's upload; then the next
    /// body may use the same upload. It waits for parts in flight and does not abort them, because the store may have
    /// all their bytes.
    async fn finish_and_cancel(&mut self) -> bool {
        let is_shared = self.open.as_ref().is_some_and(|open| open.abort_on_drop.is_none());
        let mut is_finished = true;
        if is_shared {
            let stored = tokio::time::timeout(PARTS_TIMEOUT, self.sending.all_stored_once()).await;
            is_finished = self.sent_once && stored == Ok(true);
        }
        self.cancel().await;
        is_finished
    }

    /// Cancels a body that failed, and aborts the upload that this attempt began. A background task sends the abort,
    /// since a client may be waiting for the response.
    async fn cancel(&mut self) {
        self.sending.stop().await;
        self.open = None;
    }
}

impl BodyUpload {
    /// Returns an error if no part number is left.
    fn check_numbers(&self) -> Result<(), StoreError> {
        if self.upload.next > LAST_NUMBER {
            return Err(StoreError::failed(
                "an upload has used up the 10,000 parts that the protocol allows",
            ));
        }
        Ok(())
    }

    /// Counts a part that is being sent.
    fn count(&mut self, content: &ByteChunks) {
        self.upload.next += 1;
        self.upload.own += content.len() as u64;
    }
}
