//! The files that are open for reading: a bounded number, whatever the number of readers.
//!
//! A stream names its file for as long as it lasts, and asks for it each time it reads a block. Between two blocks the
//! file may be closed, because other streams need theirs; then it is opened again. What a file holds never changes under
//! its name, and a file outlives its last reader by far, so that a reader does not notice. Streams of one object share
//! its file.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::{Files, Name};

/// Files that are open for reading, and those that were.
#[derive(Debug)]
pub(super) struct OpenFiles {
    files: Arc<dyn Files>,
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    named: HashMap<Name, Entry>,
    open: usize,
    /// Numbers uses, so that the oldest is known.
    uses: u64,
}

#[derive(Debug, Default)]
struct Entry {
    file: Option<Arc<File>>,
    streams: usize,
    used: u64,
}

/// A file that a stream may read from, until this is dropped.
#[derive(Debug)]
pub(super) struct Handle {
    files: Arc<OpenFiles>,
    name: Name,
}

impl OpenFiles {
    /// Keeps at most `most` files open between reads. While they are read, there may be as many more as there are
    /// threads that read.
    pub(super) fn new(files: Arc<dyn Files>, most: usize) -> Self {
        Self {
            files,
            most: most.max(1),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file of `name` for a stream, and tells its length.
    pub(super) fn open(self: &Arc<Self>, name: Name) -> io::Result<(Handle, u64)> {
        let handle = self.handle(name);
        let length = handle.file()?.metadata()?.len();
        Ok((handle, length))
    }

    /// The same, if the file is open, or can be opened without asking the disk. `None`: it cannot, or nobody can tell.
    pub(super) fn open_cached(self: &Arc<Self>, name: Name) -> io::Result<Option<(Handle, u64)>> {
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

    /// A file for one read, if it can be opened without asking the disk. It counts for nobody: nothing waits meanwhile.
    pub(super) fn open_for_once(&self, name: Name) -> io::Result<Option<File>> {
        self.files.open_cached(name)
    }

    /// Whether that cannot wait for anything else either.
    pub(super) fn opens_at_once(&self) -> bool {
        self.files.opens_at_once()
    }

    /// Counts a stream of the file. Dropping the handle takes the count back, also when the file cannot be opened.
    fn handle(self: &Arc<Self>, name: Name) -> Handle {
        self.lock().named.entry(name).or_default().streams += 1;
        Handle {
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

impl State {
    /// The file, if it is open.
    fn find(&mut self, name: Name) -> Option<Arc<File>> {
        self.uses += 1;
        let entry = self.named.get_mut(&name)?;
        entry.used = self.uses;
        entry.file.clone()
    }

    /// Takes from the table those files that were used the longest time ago and that nobody reads now, until there is
    /// room for one more. They are closed by the caller, without the lock.
    fn make_room(&mut self, most: usize) -> Vec<Arc<File>> {
        let mut closed = Vec::new();
        while self.open >= most {
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

impl Handle {
    /// The file, if it is open.
    pub(super) fn file_if_open(&self) -> Option<Arc<File>> {
        self.files.lock().find(self.name)
    }

    /// The file; opened again if it was closed meanwhile, which may wait for the disk.
    pub(super) fn file(&self) -> io::Result<Arc<File>> {
        if let Some(file) = self.file_if_open() {
            return Ok(file);
        }
        Ok(self.keep(self.files.files.open(self.name)?))
    }

    /// Takes note of a file that was just opened.
    fn keep(&self, opened: File) -> Arc<File> {
        let opened = Arc::new(opened);
        let mut state = self.files.lock();
        if let Some(file) = state.find(self.name) {
            // Another stream of the same object was faster.
            return file;
        }
        let closed = state.make_room(self.files.most);
        if let Some(entry) = state.named.get_mut(&self.name) {
            entry.file = Some(Arc::clone(&opened));
            state.open += 1;
        }
        drop(state);
        drop(closed);
        opened
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.files.lock();
        let Some(entry) = state.named.get_mut(&self.name) else {
            return;
        };
        entry.streams -= 1;
        if entry.streams > 0 {
            return;
        }
        // Nobody names it any more: once it is deleted, its space must come back at once.
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

    use registry::store::sessions::SessionId;

    use super::*;
    use crate::Sync;
    use crate::files::{Disk, Form};

    fn name(number: u32) -> Name {
        Name::new(SessionId(7), number, Form::Segment)
    }

    fn read(handle: &Handle) -> u8 {
        let mut byte = [0];
        handle.file().unwrap().read_exact_at(&mut byte, 0).unwrap();
        byte[0]
    }

    #[test]
    fn files_of_waiting_streams_are_closed_and_opened_again() {
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
        // What is being read is not closed.
        let reading: Vec<_> = handles.iter().take(5).map(|handle| handle.file().unwrap()).collect();
        assert_eq!(files.open_now(), 5);
        drop(reading);
        assert_eq!(read(&handles[9]), 9);
        assert_eq!(files.open_now(), 3);
        // Streams of one object share its file, and the last one closes it.
        let (same, _) = files.open(name(9)).unwrap();
        assert_eq!(files.open_now(), 3);
        handles.remove(9);
        assert!(same.file_if_open().is_some());
        drop((same, handles));
        assert_eq!(files.open_now(), 0);
        assert!(files.lock().named.is_empty());
    }

    #[test]
    fn what_cannot_be_opened_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::open(&folder.path().join("blobs"), Sync::Off).unwrap());
        let files = Arc::new(OpenFiles::new(disk, 3));
        assert_eq!(files.open(name(1)).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(files.lock().named.is_empty());
    }
}
