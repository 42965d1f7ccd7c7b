//! Bytes on disk.
//!
//! Every attempt writes a segment of its own, at its final place. A session whose bytes came in one body is sealed by
//! saying so; the segments of several bodies are joined once, when they are sealed, and take the name of the last one.
//! Reads are positioned and hold a bounded window.

mod append;
mod body;
mod open_files;
mod read;
mod room;
mod seal;
mod segments;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use registry::budget::ClientKey;
use registry::store::blobs::{
    AppendError, Appended, BlobStore, ByteStream, DeletedObjects, Discarded, ObjectToDelete, Redirect, RedirectRequest,
    Source, Stored, Upload,
};
use registry::store::sessions::{Attempt, SessionId};
use registry::store::{Context, Cursor, Location, Reason, Slice, StoreError, Timestamp};

use crate::files::{Disk, Files, Name};
use crate::space::Space;
use crate::turns::Turns;
use crate::watch::PathWatch;
use crate::{Options, Sync};
use read::Reads;
use room::Room;
use walk::Walk;

/// Files that stay open for reading, however many readers there are: one whose turn it is opens its file again. A block
/// is read in much less time than a client takes to ask for the next one.
pub const READ_FILES: usize = 256;

/// Blobs on a local disk.
#[derive(Debug)]
pub struct DiskBlobs {
    files: Arc<dyn Files>,
    sync: Sync,
    room: Room,
    reads: Arc<Reads>,
    /// Apart from those of reads, so that neither keeps the other from running.
    writes: Arc<Turns>,
    walk: Arc<Walk>,
    space: Arc<Space>,
    watch: PathWatch,
}

impl DiskBlobs {
    /// Opens the tree at `root`. The buffers of all uploads together are bounded by the memory in `options`.
    pub(crate) fn open(root: &Path, options: &Options) -> io::Result<Self> {
        let disk = Disk::open(root, options.sync)?;
        let memory = Room::new(options.upload_memory, options.memory_timeout);
        let (space, watch) = (Arc::clone(disk.space()), disk.watch().clone());
        Ok(Self {
            space,
            watch,
            ..Self::new(Arc::new(disk), options.sync, memory)
        })
    }

    /// The space on the file system of the objects. With a floor, what would go below it is refused, also in the middle
    /// of a body.
    #[must_use]
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Whether the directories of the objects are still those that were opened.
    #[must_use]
    pub fn watch(&self) -> &PathWatch {
        &self.watch
    }

    fn new(files: Arc<dyn Files>, sync: Sync, room: Room) -> Self {
        Self {
            reads: Arc::new(Reads::new(Arc::clone(&files), READ_FILES)),
            writes: Arc::new(Turns::new()),
            files,
            sync,
            room,
            walk: Arc::default(),
            space: Arc::new(Space::at(Path::new("/"))),
            watch: PathWatch::default(),
        }
    }
}

#[async_trait]
impl BlobStore for DiskBlobs {
    async fn append(
        &self,
        cx: Context,
        attempt: Attempt,
        state: &[u8],
        source: &mut dyn Source,
    ) -> Result<Appended, AppendError> {
        self.append_body(cx.client, attempt, state, source).await
    }

    async fn seal(&self, cx: Context, upload: &Upload) -> Result<Location, StoreError> {
        self.seal_upload(cx.client, upload).await
    }

    fn seal_writes(&self, upload: &Upload) -> bool {
        seal::joins(upload)
    }

    fn leaves_something(&self, _state: &[u8]) -> bool {
        // A body's segment becomes the object.
        false
    }

    async fn discard(
        &self,
        cx: Context,
        session: SessionId,
        attempts: u32,
        _: &[u8],
        keep: Option<&Location>,
    ) -> Result<Discarded, StoreError> {
        let keep = keep.map(name).transpose()?;
        let files = Arc::clone(&self.files);
        let remove = move || seal::remove_all(&*files, session, attempts, keep).map_err(failure);
        blocking(&self.writes, cx.client, remove).await?;
        Ok(Discarded::All)
    }

    async fn read(
        &self,
        cx: Context,
        location: &Location,
        range: Range<u64>,
    ) -> Result<Option<ByteStream>, StoreError> {
        self.reads.open(cx, name(location)?, range).await
    }

    async fn redirect(&self, _: Timestamp, _: &Location, _: RedirectRequest) -> Result<Option<Redirect>, StoreError> {
        Ok(None)
    }

    async fn delete(&self, cx: Context, to_delete: &[ObjectToDelete]) -> Result<Option<DeletedObjects>, StoreError> {
        let names = to_delete.iter().map(|to_delete| name(&to_delete.location));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let files = Arc::clone(&self.files);
        blocking(&self.writes, cx.client, move || {
            let mut touched = BTreeMap::new();
            let mut deleted = DeletedObjects::default();
            for name in names {
                // What was begun under a name has one place, so that it is not worth asking whether anything was.
                deleted.bytes += remove(&*files, name.joining())?.unwrap_or_default();
                if let Some(bytes) = remove(&*files, name)? {
                    deleted.objects += 1;
                    deleted.bytes += bytes;
                }
                touched.insert(name.directory(), name);
            }
            // Whoever asked for it forgets the names now: what came back with a loss of power would stay for ever.
            let mut touched = touched.into_values();
            touched.try_for_each(|name| files.sync_directory(name).map_err(failure))?;
            Ok(Some(deleted))
        })
        .await
    }

    async fn tidy(&self, cx: Context, kept: &[Location]) -> Result<(), StoreError> {
        let names = kept.iter().map(name).collect::<Result<Vec<_>, _>>()?;
        let files = Arc::clone(&self.files);
        blocking(&self.writes, cx.client, move || {
            let mut joining = names.iter().map(|name| files.remove(name.joining()));
            joining.try_for_each(|removed| removed.map_err(failure))
        })
        .await
    }

    async fn stat(&self, cx: Context, location: &Location) -> Result<Option<u64>, StoreError> {
        let name = name(location)?;
        let files = Arc::clone(&self.files);
        blocking(self.reads.turns(), cx.client, move || files.look(name).map_err(failure)).await
    }

    async fn objects(&self, cx: Context, after: Option<&Cursor>, limit: usize) -> Result<Slice<Stored>, StoreError> {
        let after = after.map(walk::place).transpose()?;
        let (walk, files) = (Arc::clone(&self.walk), Arc::clone(&self.files));
        let slice = move || walk.slice(&*files, after, limit).map_err(failure);
        blocking(self.reads.turns(), cx.client, slice).await
    }
}

/// Removes a file. How many bytes it had; `None`: there was none.
fn remove(files: &dyn Files, name: Name) -> Result<Option<u64>, StoreError> {
    let bytes = files.look(name).map_err(failure)?;
    if bytes.is_some() {
        files.remove(name).map_err(failure)?;
    }
    Ok(bytes)
}

/// The location of an object of this store.
fn location(name: Name) -> Location {
    Location::main(name.to_string())
}

/// The object that a location names. The key is parsed before it can become a path, although only this store wrote it.
fn name(location: &Location) -> Result<Name, StoreError> {
    let key = location.key_in(Location::MAIN)?;
    Name::parse(key).ok_or_else(|| StoreError::failed(format!("{key:?} is no key of this store")))
}

/// Tells what a file system refuses for now from what it will go on refusing.
fn failure(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::because(Reason::NoSpace, error),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            StoreError::because(Reason::NotWritable, error)
        }
        io::ErrorKind::OutOfMemory
        | io::ErrorKind::Interrupted
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::ResourceBusy => StoreError::unavailable(error),
        // EMFILE and ENFILE have no kind of their own: too many files are open now.
        _ if matches!(error.raw_os_error(), Some(23 | 24)) => StoreError::unavailable(error),
        _ => StoreError::failed(error),
    }
}

/// Runs file system calls in a turn of `client`. What was started runs to its end even if nobody waits.
async fn blocking<T: Send + 'static>(
    turns: &Turns,
    client: ClientKey,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    turns.run(client, work).await?
}
