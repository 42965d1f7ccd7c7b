//! Blobs on disk.
//!
//! Each attempt writes a segment of its own, at its final path. If the bytes of a session came in one body, sealing
//! writes nothing. If they came in several bodies, sealing joins the segments once, and the joined file gets the name
//! of the last segment. Reads have a position and keep a bounded window in memory.

mod append;
mod body;
mod open_files;
mod read;
mod seal;
mod segments;
#[cfg(test)]
mod tests;
mod upload_budget;
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
    Source, StoredObject, Upload,
};
use registry::store::{Attempt, Context, Cursor, Location, Reason, SessionId, Slice, StoreError, Timestamp};

use crate::files::{Disk, FileName, Files};
use crate::space::Space;
use crate::turns::Turns;
use crate::watch::PathWatch;
use crate::{EmbeddedOptions, Sync};
use read::BlobReads;
use upload_budget::UploadBudget;
use walk::ObjectWalk;

/// The maximum number of files that stay open for reading, for any number of readers. A reader opens its file again if
/// it was closed meanwhile. Reading a block takes much less time than a client takes to ask for the next one.
pub const READ_FILES: usize = 256;

/// Blobs on a local disk.
#[derive(Debug)]
pub struct DiskBlobs {
    files: Arc<dyn Files>,
    sync: Sync,
    upload_memory: UploadBudget,
    reads: Arc<BlobReads>,
    /// Separate from the turns of reads, so that reads and writes do not delay each other.
    writes: Arc<Turns>,
    walk: Arc<ObjectWalk>,
    space: Arc<Space>,
    watch: PathWatch,
}

impl DiskBlobs {
    /// Opens the tree at `root`. The memory in `options` is the budget for the buffers of all uploads together.
    pub(crate) fn open(root: &Path, options: &EmbeddedOptions) -> io::Result<Self> {
        let disk = Disk::open(root, options.sync)?;
        let memory = UploadBudget::new(options.upload_memory, options.memory_timeout);
        let (space, watch) = (Arc::clone(disk.space()), disk.watch().clone());
        Ok(Self {
            space,
            watch,
            ..Self::new(Arc::new(disk), options.sync, memory)
        })
    }

    /// The space on the file system of the objects. With a floor, a write that would go below it is refused, even in
    /// the middle of a body.
    #[must_use]
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Tells whether the directories of the objects are still those that were opened.
    #[must_use]
    pub fn watch(&self) -> &PathWatch {
        &self.watch
    }

    fn new(files: Arc<dyn Files>, sync: Sync, upload_memory: UploadBudget) -> Self {
        Self {
            reads: Arc::new(BlobReads::new(Arc::clone(&files), READ_FILES)),
            writes: Arc::new(Turns::new()),
            files,
            sync,
            upload_memory,
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
                // There is only one possible name for an unfinished join, so removing it needs no list of attempts.
                deleted.bytes += remove(&*files, name.joining())?.unwrap_or_default();
                if let Some(bytes) = remove(&*files, name)? {
                    deleted.objects += 1;
                    deleted.bytes += bytes;
                }
                touched.insert(name.directory(), name);
            }
            // After this answer, the caller deletes its record of the objects. An object that returned after a power
            // failure would stay forever.
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

    async fn objects(
        &self,
        cx: Context,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<StoredObject>, StoreError> {
        let after = after.map(walk::position).transpose()?;
        let (walk, files) = (Arc::clone(&self.walk), Arc::clone(&self.files));
        let slice = move || walk.slice(&*files, after, limit).map_err(failure);
        blocking(self.reads.turns(), cx.client, slice).await
    }
}

/// Removes a file and returns its length in bytes; `None` if the file did not exist.
fn remove(files: &dyn Files, name: FileName) -> Result<Option<u64>, StoreError> {
    let bytes = files.look(name).map_err(failure)?;
    if bytes.is_some() {
        files.remove(name).map_err(failure)?;
    }
    Ok(bytes)
}

/// The location of an object of this store.
fn location(name: FileName) -> Location {
    Location::main(name.to_string())
}

/// The file of an object. The key is parsed before it becomes a path, even though only this store writes keys.
fn name(location: &Location) -> Result<FileName, StoreError> {
    let key = location.key_in(Location::MAIN)?;
    FileName::parse(key).ok_or_else(|| StoreError::failed(format!("{key:?} is not a key of this store")))
}

/// Classifies errors of the file system as temporary or permanent.
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

/// Runs file system calls in a turn of `client`. They run to their end even if the caller stops waiting.
async fn blocking<T: Send + 'static>(
    turns: &Turns,
    client: ClientKey,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    turns.run(client, work).await?
}
