//! Stores one body as a segment of its own.
//!
//! The next batch is collected (and hashed by the source) while the last one is written on another thread, so at most
//! two are in memory. A body that fits one batch costs one hop: created, written, synced and named in one go.

use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, Either};
use registry::budget::ClientKey;
use registry::store::StoreError;
use registry::store::blobs::{AppendError, Appended, Source};
use registry::store::sessions::Attempt;
use tokio::task::{JoinError, JoinHandle};

use super::body::Batch;
use super::room::BASE;
use super::segments::{self, Segment};
use super::{DiskBlobs, failure};
use crate::Sync;
use crate::files::{Files, Name};
use crate::space::NoRoomForBody;
use crate::turns::{Turns, run_in};

/// A batch of this many bytes is handed on as soon as the writer is idle.
const EAGER: usize = 256 << 10;

/// The disk is told to write after every so many bytes, so that the last sync is short, other uploads' syncs do not
/// wait for this one's pages, and the pages waiting for the disk stay few.
const WRITE_BACK: u64 = 32 << 20;

/// A body that is declared to be this long is refused at once when the disk has no room for it.
const CHECK_SPACE: u64 = 1 << 20;

/// A client that sends nothing for so long gives its memory to others; if others wait, so does one that does not fill a
/// batch in this time.
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
        let mut writer = Writer::new(self, client, attempt.into(), source.remaining());
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

    async fn copy(&self, client: ClientKey, source: &mut dyn Source, writer: &mut Writer) -> Result<u64, AppendError> {
        let mut batch = Batch::default();
        loop {
            // Before the body is read: a client that must wait is slowed down by its own connection. Given back while the
            // client pauses: those that stall must not keep others from uploading.
            if !batch.has_memory() {
                batch.begin(self.room.wait(client, BASE).await?);
            }
            let Some(chunk) = next_chunk(source, &mut batch, writer).await? else {
                break;
            };
            if !batch.has_room_for(chunk.len()) {
                // Nothing is held while more is waited for, but for this chunk and what is being written.
                let full = std::mem::take(&mut batch);
                if full.length() > 0 {
                    writer.write(full).await?;
                }
                batch.begin(self.room.wait(client, BASE.max(chunk.len())).await?);
            }
            batch.push(chunk);
            let is_worth_a_write = batch.length() >= EAGER && writer.is_idle();
            if is_worth_a_write || batch.is_full() || (batch.is_older_than(PAUSE) && self.room.is_short()) {
                writer.write(std::mem::take(&mut batch)).await?;
            }
        }
        Ok(writer.finish(batch).await?)
    }
}

/// Waits for a chunk. What was collected is handed on when the writer is ready for it before the client, if it is worth
/// a write, and in any case when the client pauses; then the memory is given back too.
async fn next_chunk(
    source: &mut dyn Source,
    batch: &mut Batch,
    writer: &mut Writer,
) -> Result<Option<Bytes>, AppendError> {
    let mut next = source.next();
    if batch.length() >= EAGER {
        let (settled, unfinished) = match future::select(next, pin!(writer.settle())).await {
            Either::Left((chunk, _)) => return Ok(chunk?),
            Either::Right(writer_first) => writer_first,
        };
        settled?;
        writer.write(std::mem::take(batch)).await?;
        next = unfinished;
    }
    // The future is kept when the time is up: a chunk that it holds already must not be lost.
    if let Ok(chunk) = tokio::time::timeout(PAUSE, &mut next).await {
        return Ok(chunk?);
    }
    let collected = std::mem::take(batch);
    if collected.length() > 0 {
        writer.write(collected).await?;
    } else {
        // It has memory all the same.
        drop(collected);
    }
    // Its memory is on its way back while the client is listened to: a write may wait long for its turn.
    match future::select(next, pin!(writer.settle())).await {
        Either::Left((chunk, _)) => Ok(chunk?),
        Either::Right((settled, unfinished)) => {
            settled?;
            Ok(unfinished.await?)
        }
    }
}

/// Writes batches one after the other, each on a thread that may block, in turns of the client.
struct Writer {
    files: Arc<dyn Files>,
    turns: Arc<Turns>,
    client: ClientKey,
    sync: Sync,
    name: Name,
    /// What the first write checks the free space against, in bytes.
    declared: u64,
    /// The file, when no write is under way and it was created.
    segment: Option<Open>,
    /// The write that is under way.
    writing: Option<JoinHandle<Result<Open, StoreError>>>,
    /// The sync that is under way beside the writes.
    write_back: Option<JoinHandle<Result<(), StoreError>>>,
    written_back: u64,
}

impl Writer {
    fn new(store: &DiskBlobs, client: ClientKey, name: Name, declared: Option<u64>) -> Self {
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

    /// Starts to write a batch when the last one is written.
    async fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.settle().await?;
        if let Some(segment) = &self.segment
            && self.sync == Sync::Full
            && segment.length - self.written_back >= WRITE_BACK
        {
            self.written_back = segment.length;
            let file = Arc::clone(&segment.file);
            let (files, name) = (Arc::clone(&self.files), self.name);
            let next = self.start(move || files.sync_file(name, &file).map_err(failure));
            // One at a time: a disk that is slower than the network holds the body back.
            if let Some(last) = self.write_back.replace(next) {
                joined(last).await?;
            }
        }
        let segment = self.segment.take();
        let (files, name, declared) = (Arc::clone(&self.files), self.name, self.declared);
        self.writing = Some(self.start(move || {
            let mut segment = Open::or_create(segment, &files, name, declared)?;
            segment.write(batch)?;
            Ok(segment)
        }));
        Ok(())
    }

    /// Writes the last batch, makes everything durable, and answers the length.
    async fn finish(&mut self, batch: Batch) -> Result<u64, StoreError> {
        self.settle().await?;
        if let Some(last) = self.write_back.take() {
            joined(last).await?;
        }
        let segment = self.segment.take();
        let (files, name, declared) = (Arc::clone(&self.files), self.name, self.declared);
        joined(self.start(move || {
            let mut segment = Open::or_create(segment, &files, name, declared)?;
            segment.write(batch)?;
            segment.keep()
        }))
        .await
    }

    /// Removes what was written, also when a write is under way.
    async fn discard(mut self) {
        // An error here adds nothing: the segment is given up, and removed when its last owner drops it.
        let _ = self.settle().await;
        if let Some(segment) = self.segment.take() {
            let dropping = self.start(move || {
                drop(segment);
                Ok(())
            });
            let _ = joined(dropping).await;
        }
    }

    /// Runs `work` as soon as it is this client's turn. The body goes on meanwhile.
    fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> JoinHandle<Result<T, StoreError>> {
        if let Some(turn) = self.turns.try_take(self.client) {
            return run_in(turn, work);
        }
        // A task of its own: a turn must not be kept waiting by a body that waits for memory.
        let (turns, client) = (Arc::clone(&self.turns), self.client);
        tokio::spawn(async move { turns.run(client, work).await? })
    }

    /// Waits for the write that is under way. Nothing is lost when the waiting is given up.
    async fn settle(&mut self) -> Result<(), StoreError> {
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

/// A segment that is being written. It is removed when it is dropped before it was kept, on whichever thread that is:
/// a request whose client has gone drops it at any point.
struct Open {
    files: Arc<dyn Files>,
    name: Name,
    file: Arc<File>,
    length: u64,
    kept: bool,
}

impl Open {
    fn or_create(segment: Option<Self>, files: &Arc<dyn Files>, name: Name, declared: u64) -> Result<Self, StoreError> {
        if let Some(segment) = segment {
            return Ok(segment);
        }
        if declared > 0 && files.available().map_err(failure)? < declared {
            let full = io::Error::new(io::ErrorKind::StorageFull, NoRoomForBody(declared));
            return Err(failure(full));
        }
        Ok(Self {
            file: Arc::new(files.create(name).map_err(failure)?),
            files: Arc::clone(files),
            name,
            length: 0,
            kept: false,
        })
    }

    fn write(&mut self, mut batch: Batch) -> Result<(), StoreError> {
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
        self.kept = true;
        Ok(self.length)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // The session's row names the segment, so that what stays here is found when the session has expired.
        if let Err(error) = self.files.remove(self.name) {
            tracing::warn!(segment = %self.name, %error, "a segment that was given up could not be removed");
        }
    }
}
