//! Stores one body as a segment of its own.
//!
//! While one batch is written on another thread, the next one is collected and the source hashes it. So at most two
//! batches are in memory. A body that fits into one batch needs one call on another thread, which creates, writes and
//! syncs the file and its name.

use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, Either};
use registry::budget::ClientKey;
use registry::store::blobs::{AppendError, Appended, Source};
use registry::store::{Attempt, StoreError};
use tokio::task::{JoinError, JoinHandle};

use super::body::BodyBatch;
use super::segments::{self, Segment};
use super::upload_budget::BASE;
use super::{DiskBlobs, failure};
use crate::Sync;
use crate::files::{FileName, Files};
use crate::space::NoSpaceForBody;
use crate::turns::{Turns, run_in};

/// A batch of this size is written as soon as the writer is idle.
const EAGER: usize = 256 << 10;

/// The file is synced each time this number of bytes was written. So the last sync is short, syncs of other uploads do
/// not wait for pages of this one, and few pages wait for the disk.
const WRITE_BACK: u64 = 32 << 20;

/// A body with at least this declared length is refused at once if it does not fit on the disk.
const CHECK_SPACE: u64 = 1 << 20;

/// A client that sends nothing for this time releases its memory. While others wait for memory, the batch of a slow
/// client is also written after this time, even if it is not full.
const PAUSE: Duration = Duration::from_millis(500);

impl DiskBlobs {
    pub(super) async fn append_body(
        &self,
        client: ClientKey,
        attempt: Attempt,
        state: &[u8],
        source: &mut dyn Source,
    ) -> Result<Appended, AppendError> {
        let segments = segments::decode(state)?;
        let mut writer = SegmentWriter::new(self, client, attempt.into(), source.remaining());
        let length = match self.copy(client, source, &mut writer).await {
            Ok(length) => length,
            Err(error) => {
                writer.discard().await;
                return Err(error);
            }
        };
        let (state, part) = segments::extend(
            segments,
            Segment {
                number: attempt.number,
                length,
            },
        );
        Ok(Appended { state, part })
    }

    async fn copy(
        &self,
        client: ClientKey,
        source: &mut dyn Source,
        writer: &mut SegmentWriter,
    ) -> Result<u64, AppendError> {
        let mut batch = BodyBatch::default();
        loop {
            // Wait for memory before the body is read: backpressure of the connection then slows the client down.
            // Memory is released while the client pauses, so that stalled clients do not prevent other uploads.
            if !batch.has_memory() {
                batch.begin(self.upload_memory.wait(client, BASE).await?);
            }
            let Some(chunk) = next_chunk(source, &mut batch, writer).await? else {
                break;
            };
            if !batch.has_memory_for(chunk.len()) {
                // While this upload waits for more memory, it holds only this chunk and the batch in flight.
                let full = std::mem::take(&mut batch);
                if full.length() > 0 {
                    writer.write(full).await?;
                }
                batch.begin(self.upload_memory.wait(client, BASE.max(chunk.len())).await?);
            }
            batch.push(chunk);
            let is_worth_a_write = batch.length() >= EAGER && writer.is_idle();
            if is_worth_a_write || batch.is_full() || (batch.is_older_than(PAUSE) && self.upload_memory.is_short()) {
                writer.write(std::mem::take(&mut batch)).await?;
            }
        }
        Ok(writer.finish(batch).await?)
    }
}

/// Waits for a chunk. If the writer becomes idle before the chunk arrives, a batch that is worth a write is written. If
/// the client pauses, the batch is written in any case and its memory is released.
async fn next_chunk(
    source: &mut dyn Source,
    batch: &mut BodyBatch,
    writer: &mut SegmentWriter,
) -> Result<Option<Bytes>, AppendError> {
    let mut next = source.next();
    if batch.length() >= EAGER {
        let (written, unfinished) = match future::select(next, pin!(writer.finish_write())).await {
            Either::Left((chunk, _)) => return Ok(chunk?),
            Either::Right(writer_first) => writer_first,
        };
        written?;
        writer.write(std::mem::take(batch)).await?;
        next = unfinished;
    }
    // The future is kept after the timeout: it may already hold a chunk, which must not be lost.
    if let Ok(chunk) = tokio::time::timeout(PAUSE, &mut next).await {
        return Ok(chunk?);
    }
    let collected = std::mem::take(batch);
    if collected.length() > 0 {
        writer.write(collected).await?;
    } else {
        // An empty batch has memory too.
        drop(collected);
    }
    // The write releases the memory while this waits for the client: the write may wait long for its turn.
    match future::select(next, pin!(writer.finish_write())).await {
        Either::Left((chunk, _)) => Ok(chunk?),
        Either::Right((written, unfinished)) => {
            written?;
            Ok(unfinished.await?)
        }
    }
}

/// Writes batches in order. Each write runs on a thread that may block, in a turn of the client.
struct SegmentWriter {
    files: Arc<dyn Files>,
    turns: Arc<Turns>,
    client: ClientKey,
    sync: Sync,
    name: FileName,
    /// The free space that the first write requires, in bytes.
    declared: u64,
    /// The file, if it was created and no write is in flight.
    segment: Option<OpenSegment>,
    /// The write in flight.
    writing: Option<JoinHandle<Result<OpenSegment, StoreError>>>,
    /// The sync in flight, beside the writes.
    write_back: Option<JoinHandle<Result<(), StoreError>>>,
    written_back: u64,
}

impl SegmentWriter {
    fn new(store: &DiskBlobs, client: ClientKey, name: FileName, declared: Option<u64>) -> Self {
        Self {
            files: Arc::clone(&store.files),
            turns: Arc::clone(&store.writes),
            client,
            sync: store.sync,
            name,
            declared: declared.filter(|bytes| *bytes >= CHECK_SPACE).unwrap_or(0),
            segment: None,
            writing: None,
            write_back: None,
            written_back: 0,
        }
    }

    fn is_idle(&self) -> bool {
        self.writing.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Starts to write a batch after the previous write has ended.
    async fn write(&mut self, batch: BodyBatch) -> Result<(), StoreError> {
        self.finish_write().await?;
        if let Some(segment) = &self.segment
            && self.sync == Sync::Full
            && segment.length - self.written_back >= WRITE_BACK
        {
            self.written_back = segment.length;
            let file = Arc::clone(&segment.file);
            let (files, name) = (Arc::clone(&self.files), self.name);
            let next = self.start(move || files.sync_file(name, &file).map_err(failure));
            // One sync at a time: if the disk is slower than the network, it slows the body down.
            if let Some(last) = self.write_back.replace(next) {
                joined(last).await?;
            }
        }
        let segment = self.segment.take();
        let (files, name, declared) = (Arc::clone(&self.files), self.name, self.declared);
        self.writing = Some(self.start(move || {
            let mut segment = OpenSegment::or_create(segment, &files, name, declared)?;
            segment.write(batch)?;
            Ok(segment)
        }));
        Ok(())
    }

    /// Writes the last batch, makes everything durable, and returns the length.
    async fn finish(&mut self, batch: BodyBatch) -> Result<u64, StoreError> {
        self.finish_write().await?;
        if let Some(last) = self.write_back.take() {
            joined(last).await?;
        }
        let segment = self.segment.take();
        let (files, name, declared) = (Arc::clone(&self.files), self.name, self.declared);
        joined(self.start(move || {
            let mut segment = OpenSegment::or_create(segment, &files, name, declared)?;
            segment.write(batch)?;
            segment.keep()
        }))
        .await
    }

    /// Removes what was written, even if a write is in flight.
    async fn discard(mut self) {
        // An error changes nothing here: the segment is abandoned, and it is removed when its last owner drops it.
        let _ = self.finish_write().await;
        if let Some(segment) = self.segment.take() {
            let dropping = self.start(move || {
                drop(segment);
                Ok(())
            });
            let _ = joined(dropping).await;
        }
    }

    /// Runs `work` when it is this client's turn. The caller continues meanwhile.
    fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> JoinHandle<Result<T, StoreError>> {
        if let Some(turn) = self.turns.try_take(self.client) {
            return run_in(turn, work);
        }
        // A task of its own: the work must get its turn even while the body waits for memory.
        let (turns, client) = (Arc::clone(&self.turns), self.client);
        tokio::spawn(async move { turns.run(client, work).await? })
    }

    /// Waits for the write in flight. Cancelling the wait loses nothing.
    async fn finish_write(&mut self) -> Result<(), StoreError> {
        if let Some(writing) = &mut self.writing {
            let written = joined(writing).await;
            self.writing = None;
            self.segment = Some(written?);
        }
        Ok(())
    }
}

async fn joined<T>(task: impl Future<Output = Result<Result<T, StoreError>, JoinError>>) -> Result<T, StoreError> {
    task.await.unwrap_or_else(|error| Err(StoreError::failed(error)))
}

/// A segment that is being written. If it is dropped before it was kept, it is removed on the thread that drops it. A
/// request whose client has disconnected drops it at any point.
struct OpenSegment {
    files: Arc<dyn Files>,
    name: FileName,
    file: Arc<File>,
    length: u64,
    is_kept: bool,
}

impl OpenSegment {
    fn or_create(
        segment: Option<Self>,
        files: &Arc<dyn Files>,
        name: FileName,
        declared: u64,
    ) -> Result<Self, StoreError> {
        if let Some(segment) = segment {
            return Ok(segment);
        }
        if declared > 0 && files.available().map_err(failure)? < declared {
            let full = io::Error::new(io::ErrorKind::StorageFull, NoSpaceForBody(declared));
            return Err(failure(full));
        }
        Ok(Self {
            file: Arc::new(files.create(name).map_err(failure)?),
            files: Arc::clone(files),
            name,
            length: 0,
            is_kept: false,
        })
    }

    fn write(&mut self, mut batch: BodyBatch) -> Result<(), StoreError> {
        let length = batch.length() as u64;
        let mut slices: Vec<_> = batch.parts().iter().map(|part| IoSlice::new(part)).collect();
        self.files
            .write(self.name, &self.file, &mut slices, self.length)
            .map_err(failure)?;
        self.length += length;
        Ok(())
    }

    fn keep(mut self) -> Result<u64, StoreError> {
        self.files.sync_file(self.name, &self.file).map_err(failure)?;
        self.files.sync_directory(self.name).map_err(failure)?;
        self.is_kept = true;
        Ok(self.length)
    }
}

impl Drop for OpenSegment {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // The session's row leads to the segment, so session expiry finds and removes it.
        if let Err(error) = self.files.remove(self.name) {
            tracing::warn!(
                segment = %self.name,
                %error,
                "an abandoned segment could not be removed; session expiry removes it"
            );
        }
    }
}
