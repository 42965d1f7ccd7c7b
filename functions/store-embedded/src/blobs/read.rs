//! Streams a range of an object.
//!
//! Data in the page cache is opened and copied on the caller's thread without blocking (`RESOLVE_CACHED`,
//! `RWF_NOWAIT`). This costs less than moving the call to another thread. Data on the disk is opened and read on
//! threads that may block, one block ahead of the reader.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use registry::budget::{ClientKey, Grant};
use registry::store::blobs::ByteStream;
use registry::store::{Context, Reason, StoreError};
use tokio::task::JoinHandle;

use super::failure;
use super::open_files::{FileHandle, OpenFiles};
use crate::files::{FileName, Files};
use crate::inline::Inline;
use crate::turns::{Turns, run_in};

/// The maximum size of a block, in bytes. It is large enough that the cost of the calls does not matter, and small
/// enough that a block is still in the processor's cache when it is sent.
const MAX_BLOCK: usize = 256 << 10;

/// The minimum size of a block, in bytes.
const MIN_BLOCK: usize = 16 << 10;

/// The maximum memory of the blocks of all streams together, in bytes, for fewer than 2,048 streams. With many readers
/// the blocks are smaller, because a slow client keeps its blocks.
const BUDGET: usize = 32 << 20;

/// The maximum number of unused buffers of the maximum block size that are kept for later blocks.
const MAX_FREE_BUFFERS: usize = 8;

/// The minimum timeout for opening an object, even if the deadline of the call has passed.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// A range of at most this number of bytes is read when it is opened.
const SMALL: usize = 16 << 10;

/// The state that all reads of the process share.
#[derive(Debug)]
pub(super) struct BlobReads {
    files: Arc<OpenFiles>,
    turns: Turns,
    active: AtomicUsize,
    free_buffers: Mutex<Vec<Box<[u8]>>>,
}

impl BlobReads {
    /// Reads from `files`, and keeps at most `maximum` of them open between reads.
    pub(super) fn new(files: Arc<dyn Files>, maximum: usize) -> Self {
        Self {
            files: Arc::new(OpenFiles::new(files, maximum)),
            turns: Turns::new(),
            active: AtomicUsize::new(0),
            free_buffers: Mutex::default(),
        }
    }

    /// The turns of all reads, including reads that are not streams.
    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Opens `range` of an object.
    pub(super) async fn open(
        self: &Arc<Self>,
        cx: Context,
        name: FileName,
        range: Range<u64>,
    ) -> Result<Option<ByteStream>, StoreError> {
        if let Some(bytes) = self.read_small(name, &range).await {
            return Ok(Some(stream::once(std::future::ready(Ok(bytes))).boxed()));
        }
        let Some((file, length)) = self.open_file(cx, name).await? else {
            return Ok(None);
        };
        // Objects never change: a file that is too short was truncated by accident.
        if length < range.end {
            return Ok(None);
        }
        if range.is_empty() {
            return Ok(Some(stream::empty().boxed()));
        }
        self.active.fetch_add(1, Ordering::Relaxed);
        let mut reader = BlobReader {
            reads: Arc::clone(self),
            client: cx.client,
            file,
            name,
            offset: range.start,
            end: range.end,
            ahead: None,
            from_disk: false,
        };
        if range.end - range.start <= SMALL as u64 {
            let bytes = reader.next().await?;
            if reader.offset == reader.end {
                return Ok(Some(stream::once(std::future::ready(Ok(bytes))).boxed()));
            }
            let rest = reader.into_stream();
            return Ok(Some(stream::once(std::future::ready(Ok(bytes))).chain(rest).boxed()));
        }
        Ok(Some(reader.into_stream()))
    }

    /// Reads a small range if its bytes are in the page cache. Its file is closed at once, so it does not count among
    /// the files that stay open. `None`: the caller opens and reads the range on a thread that may block, and that path
    /// reports any error.
    async fn read_small(&self, name: FileName, range: &Range<u64>) -> Option<Bytes> {
        let Ok(length @ 1..=SMALL) = usize::try_from(range.end - range.start) else {
            return None;
        };
        let file = if self.files.opens_at_once() {
            self.files.open_for_once(name)
        } else {
            let _inline = Inline::enter().await?;
            self.files.open_for_once(name)
        };
        let file = file.ok()??;
        let mut bytes = vec![0; length];
        let read = read_cached(&file, &mut bytes, range.start).ok()?;
        (read == length).then(|| bytes.into())
    }

    /// Opens a file and returns its length. Uses the caller's thread if the call cannot block for long. `None`: the
    /// file does not exist.
    async fn open_file(&self, cx: Context, name: FileName) -> Result<Option<(Arc<FileHandle>, u64)>, StoreError> {
        let inline = Inline::enter().await;
        let cached = inline.map_or(Ok(None), |_inline| self.files.open_cached(name));
        let opened = match cached {
            Ok(Some(opened)) => Ok(opened),
            Ok(None) => {
                let files = Arc::clone(&self.files);
                let opening = self.turns.run(cx.client, move || files.open(name));
                let left = Duration::from_millis(cx.deadline.millis_since(cx.now));
                let late =
                    |_| StoreError::because(Reason::ObjectStoreUnreachable, "a blob could not be opened in time");
                tokio::time::timeout(left.max(MIN_WAIT), opening)
                    .await
                    .map_err(late)??
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok((file, length)) => Ok(Some((Arc::new(file), length))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failure(error)),
        }
    }

    fn block_size(&self) -> usize {
        (BUDGET / 2 / self.active.load(Ordering::Relaxed).max(1)).clamp(MIN_BLOCK, MAX_BLOCK)
    }

    fn buffer(&self, size: usize) -> Box<[u8]> {
        if size == MAX_BLOCK
            && let Some(buffer) = self.free_buffers.lock().unwrap_or_else(PoisonError::into_inner).pop()
        {
            return buffer;
        }
        vec![0; size].into_boxed_slice()
    }
}

/// One stream.
struct BlobReader {
    reads: Arc<BlobReads>,
    client: ClientKey,
    file: Arc<FileHandle>,
    name: FileName,
    offset: u64,
    end: u64,
    /// The block after this one, once the kernel had to read from the disk.
    ahead: Option<JoinHandle<io::Result<ReadBlock>>>,
    from_disk: bool,
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.reads.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BlobReader {
    fn into_stream(self) -> ByteStream {
        stream::unfold(Some(self), |reader| async {
            let mut reader = reader?;
            if reader.offset == reader.end {
                return None;
            }
            match reader.next().await {
                Ok(bytes) => Some((Ok(bytes), Some(reader))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Bytes, StoreError> {
        if !self.from_disk {
            // A file that was closed meanwhile is opened on a thread that may block.
            if let Some(file) = self.file.file_if_open() {
                let mut block = self.block();
                block.length = read_cached(&file, &mut block.buffer[..block.wanted], self.offset).map_err(failure)?;
                if block.length > 0 {
                    return self.take(block);
                }
                self.from_disk = true;
            }
        }
        let reading = match self.ahead.take() {
            Some(reading) => reading,
            None => self.read(self.offset, self.reads.turns.take(self.client).await?),
        };
        let block = reading.await.map_err(StoreError::failed)?.map_err(failure)?;
        let next = self.offset + block.length as u64;
        // Read ahead only if a turn is free that no other client waits for.
        if block.length > 0
            && next < self.end
            && let Some(turn) = self.reads.turns.try_take(self.client)
        {
            self.ahead = Some(self.read(next, turn));
        }
        self.take(block)
    }

    fn read(&self, offset: u64, turn: Grant) -> JoinHandle<io::Result<ReadBlock>> {
        let mut block = self.block_at(offset);
        let file = Arc::clone(&self.file);
        run_in(turn, move || {
            block.read(&*file.file()?, offset)?;
            Ok(block)
        })
    }

    fn block(&self) -> ReadBlock {
        self.block_at(self.offset)
    }

    fn block_at(&self, offset: u64) -> ReadBlock {
        let size = self.reads.block_size();
        let wanted = usize::try_from(self.end - offset).unwrap_or(size).min(size);
        // A small object gets a buffer of its own size, so that it does not occupy a large one.
        let capacity = if wanted > size / 2 { size } else { wanted };
        ReadBlock {
            buffer: self.reads.buffer(capacity),
            wanted,
            length: 0,
            reads: Arc::clone(&self.reads),
        }
    }

    fn take(&mut self, block: ReadBlock) -> Result<Bytes, StoreError> {
        if block.length == 0 {
            return Err(StoreError::failed(format!(
                "{} ends at byte {}, before byte {}",
                self.name, self.offset, self.end
            )));
        }
        self.offset += block.length as u64;
        Ok(Bytes::from_owner(block))
    }
}

/// A buffer that returns to the free buffers when the last reference to its bytes is dropped.
struct ReadBlock {
    buffer: Box<[u8]>,
    wanted: usize,
    length: usize,
    reads: Arc<BlobReads>,
}

impl ReadBlock {
    /// Reads, and blocks. Returns fewer bytes than wanted only at the end of the file.
    fn read(&mut self, file: &File, offset: u64) -> io::Result<()> {
        while self.length < self.wanted {
            match file.read_at(&mut self.buffer[self.length..self.wanted], offset + self.length as u64) {
                Ok(0) => break,
                Ok(read) => self.length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Reads what is in the page cache, and returns the number of bytes. Returns 0 also if the platform cannot say.
#[cfg(target_os = "linux")]
fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    match preadv2(file, &mut [io::IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(read),
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn read_cached(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
    Ok(0)
}

impl AsRef<[u8]> for ReadBlock {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for ReadBlock {
    fn drop(&mut self) {
        if self.buffer.len() != MAX_BLOCK {
            return;
        }
        let mut free_buffers = self.reads.free_buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if free_buffers.len() < MAX_FREE_BUFFERS {
            free_buffers.push(std::mem::take(&mut self.buffer));
        }
    }
}
