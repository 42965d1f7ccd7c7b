//! The files that are open for reading. Their number is bounded and does not depend on the number of readers.
//!
//! A stream has a handle of its file until it ends, and asks for the file each time it reads a block. Between two
//! blocks the file may be closed, because other streams need open files; the stream then opens it again. The reader
//! does not notice this, because the content under a name never changes, and because a file exists long after its last
//! reader ends. Streams of the same object share its file.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::{FileName, Files};

/// The files that streams use, open or closed.
///
/// This is no cache from a library. Such a cache evicts its oldest entry, but here the entry of a stream stays until the
/// stream ends: only its file is closed, and only while no caller reads it. The search for the file that has not been
/// used for the longest time looks at all entries. There is one for each object that is being read, and the search
/// happens only before a file is opened, which takes longer.
#[derive(Debug)]
pub(super) struct OpenFiles {
    files: Arc<dyn Files>,
    maximum: usize,
    state: Mutex<FileTable>,
}

#[derive(Debug, Default)]
struct FileTable {
    named: HashMap<FileName, FileEntry>,
    open: usize,
    /// Counts uses, so that the least recently used file is known.
    uses: u64,
}

#[derive(Debug, Default)]
struct FileEntry {
    file: Option<Arc<File>>,
    streams: usize,
    used: u64,
}

/// A file that a stream may read until the handle is dropped.
#[derive(Debug)]
pub(super) struct FileHandle {
    files: Arc<OpenFiles>,
    name: FileName,
}

impl OpenFiles {
    /// Keeps at most `maximum` files open between reads. During reads, there may be one more for each reading thread.
    pub(super) fn new(files: Arc<dyn Files>, maximum: usize) -> Self {
        Self {
            files,
            maximum: maximum.max(1),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, FileTable> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file of `name` for a stream, and returns its length.
    pub(super) fn open(self: &Arc<Self>, name: FileName) -> io::Result<(FileHandle, u64)> {
        let handle = self.handle(name);
        let length = handle.file()?.metadata()?.len();
        Ok((handle, length))
    }

    /// Like [`OpenFiles::open`], if the file is open or can be opened without asking the disk. `None`: it cannot, or
    /// the platform cannot say.
    pub(super) fn open_cached(self: &Arc<Self>, name: FileName) -> io::Result<Option<(FileHandle, u64)>> {
        let handle = self.handle(name);
        let file = match handle.file_if_open() {
            Some(file) => file,
            None => match self.files.open_cached(name)? {
                Some(file) => handle.keep(file),
                None => return Ok(None),
            },
        };
        let length = file.metadata()?.len();
        Ok(Some((handle, length)))
    }

    /// Opens a file for one read, if this is possible without asking the disk. The file does not count as open, because
    /// no call waits while it is open.
    pub(super) fn open_for_once(&self, name: FileName) -> io::Result<Option<File>> {
        self.files.open_cached(name)
    }

    /// Whether [`OpenFiles::open_for_once`] also waits for no other process or machine.
    pub(super) fn opens_at_once(&self) -> bool {
        self.files.opens_at_once()
    }

    /// Counts a stream of the file. Dropping the handle reverts the count, even if the file cannot be opened.
    fn handle(self: &Arc<Self>, name: FileName) -> FileHandle {
        self.lock().named.entry(name).or_default().streams += 1;
        FileHandle {
            files: Arc::clone(self),
            name,
        }
    }

    /// How many files are open.
    #[cfg(test)]
    pub(super) fn open_now(&self) -> usize {
        self.lock().open
    }
}

impl FileTable {
    /// The file, if it is open.
    fn find(&mut self, name: FileName) -> Option<Arc<File>> {
        self.uses += 1;
        let entry = self.named.get_mut(&name)?;
        entry.used = self.uses;
        entry.file.clone()
    }

    /// Removes the least recently used files that no caller reads now, until one more file may be open. The caller
    /// closes them after it has released the lock.
    fn close_unused(&mut self, maximum: usize) -> Vec<Arc<File>> {
        let mut closed = Vec::new();
        while self.open >= maximum {
            let oldest = self
                .named
                .values_mut()
                .filter(|entry| entry.file.as_ref().is_some_and(|file| Arc::strong_count(file) == 1))
                .min_by_key(|entry| entry.used);
            let Some(file) = oldest.and_then(|entry| entry.file.take()) else {
                break;
            };
            self.open -= 1;
            closed.push(file);
        }
        closed
    }
}

impl FileHandle {
    /// The file, if it is open.
    pub(super) fn file_if_open(&self) -> Option<Arc<File>> {
        self.files.lock().find(self.name)
    }

    /// The file. If it was closed meanwhile, it is opened again, which may wait for the disk.
    pub(super) fn file(&self) -> io::Result<Arc<File>> {
        if let Some(file) = self.file_if_open() {
            return Ok(file);
        }
        Ok(self.keep(self.files.files.open(self.name)?))
    }

    /// Records a file that was just opened.
    fn keep(&self, opened: File) -> Arc<File> {
        let opened = Arc::new(opened);
        let mut state = self.files.lock();
        if let Some(file) = state.find(self.name) {
            // Another stream of the same object has opened it first.
            return file;
        }
        let closed = state.close_unused(self.files.maximum);
        if let Some(entry) = state.named.get_mut(&self.name) {
            entry.file = Some(Arc::clone(&opened));
            state.open += 1;
        }
        drop(state);
        drop(closed);
        opened
    }
}

impl Drop for FileHandle {
    fn drop(&mut self) {
        let mut state = self.files.lock();
        let Some(entry) = state.named.get_mut(&self.name) else {
            return;
        };
        entry.streams -= 1;
        if entry.streams > 0 {
            return;
        }
        // No stream uses it. It is closed at once, because a deleted file occupies space while it is open.
        let closed = state.named.remove(&self.name).and_then(|entry| entry.file);
        if closed.is_some() {
            state.open -= 1;
        }
        drop(state);
        drop(closed);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use registry::store::SessionId;

    use super::*;
    use crate::Sync;
    use crate::files::{Disk, FileForm};

    fn name(number: u32) -> FileName {
        FileName::new(SessionId(7), number, FileForm::Segment)
    }

    fn read(handle: &FileHandle) -> u8 {
        let mut byte = [0];
        handle.file().unwrap().read_exact_at(&mut byte, 0).unwrap();
        byte[0]
    }

    #[test]
    fn files_of_idle_streams_are_closed_and_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::open(&folder.path().join("blobs"), Sync::Off).unwrap());
        for number in 0..20 {
            let byte = [u8::try_from(number).unwrap()];
            disk.create(name(number)).unwrap().write_all_at(&byte, 0).unwrap();
        }
        let files = Arc::new(OpenFiles::new(disk.clone(), 3));
        let mut handles: Vec<_> = (0..20).map(|number| files.open(name(number)).unwrap().0).collect();
        assert_eq!(files.open_now(), 3);
        assert!(handles[0].file_if_open().is_none() && handles[19].file_if_open().is_some());
        for round in 0..3 {
            for (number, handle) in handles.iter().enumerate() {
                assert_eq!(usize::from(read(handle)), number, "{round}");
                assert_eq!(files.open_now(), 3);
            }
        }
        // Files that are being read are not closed.
        let reading: Vec<_> = handles.iter().take(5).map(|handle| handle.file().unwrap()).collect();
        assert_eq!(files.open_now(), 5);
        drop(reading);
        assert_eq!(read(&handles[9]), 9);
        assert_eq!(files.open_now(), 3);
        // Streams of the same object share its file, and the last one closes it.
        let (same, _) = files.open(name(9)).unwrap();
        assert_eq!(files.open_now(), 3);
        handles.remove(9);
        assert!(same.file_if_open().is_some());
        drop((same, handles));
        assert_eq!(files.open_now(), 0);
        assert!(files.lock().named.is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_opened_leaves_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::open(&folder.path().join("blobs"), Sync::Off).unwrap());
        let files = Arc::new(OpenFiles::new(disk, 3));
        assert_eq!(files.open(name(1)).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(files.lock().named.is_empty());
    }
}
