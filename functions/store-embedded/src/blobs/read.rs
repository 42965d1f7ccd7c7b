//! Streams a range of an object.
//!
//! What the kernel has in memory is opened and copied out on the caller's thread without waiting (`RESOLVE_CACHED`,
//! `RWF_NOWAIT`), which costs less than handing the call to another thread; what must come from the disk is opened and
//! read on threads that may block, one block ahead of the reader.

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
use super::open_files::{Handle, OpenFiles};
use crate::files::{Files, Name};
use crate::inline::Inline;
use crate::turns::{Turns, run_in};

/// The largest block, in bytes: large enough that the calls per byte do not show, small enough that a block is still
/// in the processor's cache when it is sent.
const MAX_BLOCK: usize = 256 << 10;

/// The smallest block, in bytes.
const MIN_BLOCK: usize = 16 << 10;

/// What the blocks of all streams together hold at most, as long as there are fewer than 2,048 of them, in bytes: with
/// many readers blocks are smaller, because a client that is slow to take its bytes keeps its blocks.
const BUDGET: usize = 32 << 20;

/// How many blocks of the largest size are kept to be used again.
const SPARE: usize = 8;

/// An object is waited for at least so long, also when the deadline is over.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// A range of at most this many bytes is read when it is opened, in bytes.
const SMALL: usize = 16 << 10;

/// What all reads of the process share.
#[derive(Debug)]
pub(super) struct Reads {
    files: Arc<OpenFiles>,
    turns: Turns,
    active: AtomicUsize,
    spare: Mutex<Vec<Box<[u8]>>>,
}

impl Reads {
    /// Reads from `files`, of which at most `most` stay open between reads.
    pub(super) fn new(files: Arc<dyn Files>, most: usize) -> Self {
        Self {
            files: Arc::new(OpenFiles::new(files, most)),
            turns: Turns::new(),
            active: AtomicUsize::new(0),
            spare: Mutex::default(),
        }
    }

    /// The turns of all reads, also of those that are no streams.
    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Opens `range` of an object.
    pub(super) async fn open(
        self: &Arc<Self>,
        cx: Context,
        name: Name,
        range: Range<u64>,
    ) -> Result<Option<ByteStream>, StoreError> {
        if let Some(bytes) = self.read_small(name, &range).await {
            return Ok(Some(stream::once(std::future::ready(Ok(bytes))).boxed()));
        }
        let Some((file, length)) = self.open_file(cx, name).await? else {
            return Ok(None);
        };
        // Objects never change: one that is too short now was cut by an accident.
        if length < range.end {
            return Ok(None);
        }
        if range.is_empty() {
            return Ok(Some(stream::empty().boxed()));
        }
        self.active.fetch_add(1, Ordering::Relaxed);
        let mut reader = Reader {
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

    /// A small range whose bytes are in memory. Its file is closed again at once, and so needs no place among those that
    /// stay open. `None`: it is to be opened and read where that may wait, and what is wrong with it is met there.
    async fn read_small(&self, name: Name, range: &Range<u64>) -> Option<Bytes> {
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

    /// Opens a file, on the caller's thread if that cannot keep it for long, and tells its length. `None`: there is none.
    async fn open_file(&self, cx: Context, name: Name) -> Result<Option<(Arc<Handle>, u64)>, StoreError> {
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
            && let Some(buffer) = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop()
        {
            return buffer;
        }
        vec![0; size].into_boxed_slice()
    }
}

/// One stream.
struct Reader {
    reads: Arc<Reads>,
    client: ClientKey,
    file: Arc<Handle>,
    name: Name,
    offset: u64,
    end: u64,
    /// The block after this one, once the kernel had to ask the disk.
    ahead: Option<JoinHandle<io::Result<Block>>>,
    from_disk: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.reads.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reader {
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
            // A file that was closed meanwhile is opened where it may wait.
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
        // Reading ahead is worth a turn that nobody else wants.
        if block.length > 0
            && next < self.end
            && let Some(turn) = self.reads.turns.try_take(self.client)
        {
            self.ahead = Some(self.read(next, turn));
        }
        self.take(block)
    }

    fn read(&self, offset: u64, turn: Grant) -> JoinHandle<io::Result<Block>> {
        let mut block = self.block_at(offset);
        let file = Arc::clone(&self.file);
        run_in(turn, move || {
            block.read(&*file.file()?, offset)?;
            Ok(block)
        })
    }

    fn block(&self) -> Block {
        self.block_at(self.offset)
    }

    fn block_at(&self, offset: u64) -> Block {
        let size = self.reads.block_size();
        let wanted = usize::try_from(self.end - offset).unwrap_or(size).min(size);
        // A small object takes a buffer of its own size, so that it does not keep a large one.
        let capacity = if wanted > size / 2 { size } else { wanted };
        Block {
            buffer: self.reads.buffer(capacity),
            wanted,
            length: 0,
            reads: Arc::clone(&self.reads),
        }
    }

    fn take(&mut self, block: Block) -> Result<Bytes, StoreError> {
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

/// A buffer that goes back to where it came from when the last reference to its bytes is dropped.
struct Block {
    buffer: Box<[u8]>,
    wanted: usize,
    length: usize,
    reads: Arc<Reads>,
}

impl Block {
    /// Reads what there is, blocking; fewer bytes than wanted only at the end of the file.
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

/// Reads what the kernel has in memory, and tells how many bytes; 0 also where it cannot tell.
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

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.buffer.len() != MAX_BLOCK {
            return;
        }
        let mut spare = self.reads.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE {
            spare.push(std::mem::take(&mut self.buffer));
        }
    }
}
