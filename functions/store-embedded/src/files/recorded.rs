//! [`Files`] for tests. They record calls, fail when a test says so, and lose what was not synced when a test simulates
//! a power failure.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Disk, FileForm, FileName, Files};
use crate::Sync;

/// The kind of a call. The record stores it with the form and the number of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileCall {
    Create,
    Write,
    Copy,
    SyncFile,
    SyncDirectory,
    Rename,
    Remove,
}

/// A disk with a record of its calls.
#[derive(Debug)]
pub(crate) struct RecordedFiles {
    disk: Disk,
    root: PathBuf,
    record: Mutex<CallRecord>,
}

#[derive(Debug, Default)]
struct CallRecord {
    calls: Vec<(FileCall, FileForm, u32)>,
    /// The kind of call that fails from now on, and the error number of the operating system.
    fault: Option<(FileCall, i32)>,
    /// The number of calls that still succeed before all calls fail.
    left: Option<usize>,
    /// Files with bytes that are not synced: a power failure loses these bytes.
    bytes: BTreeSet<FileName>,
    /// Changes of names that are not synced, in their order.
    names: Vec<NameChange>,
    /// The number of files that were saved beside the tree.
    saved: usize,
}

/// A change of a directory, with what is needed to undo it.
#[derive(Debug)]
enum NameChange {
    Made(FileName),
    /// The old name, the new name, and the saved copy of the file that had the new name before.
    Renamed(FileName, FileName, Option<PathBuf>),
    /// The name, and the saved copy of the file.
    Removed(FileName, PathBuf),
}

impl NameChange {
    fn name(&self) -> FileName {
        match self {
            Self::Made(name) | Self::Renamed(_, name, _) | Self::Removed(name, _) => *name,
        }
    }
}

impl RecordedFiles {
    pub(crate) fn open(root: &Path) -> Self {
        Self {
            disk: Disk::open(root, Sync::Full).expect("a directory for the test"),
            root: root.to_owned(),
            record: Mutex::default(),
        }
    }

    /// Returns the calls so far, and clears the record.
    pub(crate) fn calls(&self) -> Vec<(FileCall, FileForm, u32)> {
        std::mem::take(&mut self.record().calls)
    }

    /// Makes all calls of one kind fail from now on with an error number of the operating system.
    pub(crate) fn fail(&self, fault: Option<(FileCall, i32)>) {
        self.record().fault = fault;
    }

    /// Lets this number of changing calls succeed. All later ones fail.
    pub(crate) fn stop_after(&self, calls: usize) {
        self.record().left = Some(calls);
    }

    /// Whether a power failure now would lose the bytes or the name of a file.
    pub(crate) fn is_volatile(&self, name: FileName) -> bool {
        let record = self.record();
        record.bytes.contains(&name) || record.names.iter().any(|change| change.name() == name)
    }

    /// Removes what a power failure can remove: all bytes and all changes of names that were not synced. Afterwards all
    /// calls succeed again.
    pub(crate) fn lose_power(&self) -> io::Result<()> {
        let record = std::mem::take(&mut *self.record());
        for name in record.bytes {
            if self.disk.look(name)?.is_some() {
                std::fs::OpenOptions::new()
                    .write(true)
                    .open(self.path(name))?
                    .set_len(0)?;
            }
        }
        for change in record.names.into_iter().rev() {
            match change {
                NameChange::Made(name) => self.disk.remove(name)?,
                NameChange::Removed(name, before) => std::fs::rename(before, self.path(name))?,
                NameChange::Renamed(from, to, before) => {
                    if self.disk.look(to)?.is_some() {
                        self.disk.rename(to, from)?;
                    }
                    if let Some(before) = before {
                        std::fs::rename(before, self.path(to))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn path(&self, name: FileName) -> PathBuf {
        self.root.join(format!("{:x}", name.directory())).join(name.to_string())
    }

    fn record(&self) -> MutexGuard<'_, CallRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, call: FileCall, name: FileName) -> io::Result<()> {
        let mut record = self.record();
        record.calls.push((call, name.form, name.number));
        if let Some(left) = &mut record.left {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| io::Error::other("the power has failed"))?;
        }
        match record.fault {
            Some((faulty, code)) if faulty == call => Err(io::Error::from_raw_os_error(code)),
            _ => Ok(()),
        }
    }

    /// Saves a hard link to the file beside the tree, if the file exists.
    fn put_aside(&self, name: FileName) -> io::Result<Option<PathBuf>> {
        if self.disk.look(name)?.is_none() {
            return Ok(None);
        }
        let mut record = self.record();
        record.saved += 1;
        let aside = self.root.with_file_name(format!("aside-{}", record.saved));
        // An earlier store over the same directory may have left this file.
        let _ = std::fs::remove_file(&aside);
        std::fs::hard_link(self.path(name), &aside)?;
        Ok(Some(aside))
    }

    fn made(&self, name: FileName) {
        self.record().names.push(NameChange::Made(name));
    }
}

impl Files for RecordedFiles {
    fn create(&self, name: FileName) -> io::Result<File> {
        self.call(FileCall::Create, name)?;
        let file = self.disk.create(name)?;
        self.made(name);
        Ok(file)
    }

    fn write(&self, name: FileName, file: &File, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.record().bytes.insert(name);
        self.call(FileCall::Write, name)?;
        self.disk.write(name, file, parts, offset)
    }

    fn open(&self, name: FileName) -> io::Result<File> {
        self.disk.open(name)
    }

    fn open_cached(&self, name: FileName) -> io::Result<Option<File>> {
        self.disk.open_cached(name)
    }

    fn opens_at_once(&self) -> bool {
        self.disk.opens_at_once()
    }

    fn create_or_open(&self, name: FileName) -> io::Result<File> {
        self.call(FileCall::Create, name)?;
        let is_new = self.disk.look(name)?.is_none();
        let file = self.disk.create_or_open(name)?;
        if is_new {
            self.made(name);
        }
        Ok(file)
    }

    fn look(&self, name: FileName) -> io::Result<Option<u64>> {
        self.disk.look(name)
    }

    fn copy(&self, name: FileName, from: &File, range: Range<u64>, to: &File, offset: u64) -> io::Result<()> {
        self.record().bytes.insert(name);
        self.call(FileCall::Copy, name)?;
        self.disk.copy(name, from, range, to, offset)
    }

    fn sync_file(&self, name: FileName, file: &File) -> io::Result<()> {
        self.call(FileCall::SyncFile, name)?;
        self.disk.sync_file(name, file)?;
        self.record().bytes.remove(&name);
        Ok(())
    }

    fn sync_directory(&self, name: FileName) -> io::Result<()> {
        self.call(FileCall::SyncDirectory, name)?;
        self.disk.sync_directory(name)?;
        self.record()
            .names
            .retain(|change| change.name().directory() != name.directory());
        Ok(())
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        self.call(FileCall::Rename, from)?;
        let before = self.put_aside(to)?;
        self.disk.rename(from, to)?;
        let mut record = self.record();
        if record.bytes.remove(&from) {
            record.bytes.insert(to);
        }
        record.names.push(NameChange::Renamed(from, to, before));
        Ok(())
    }

    fn remove(&self, name: FileName) -> io::Result<()> {
        self.call(FileCall::Remove, name)?;
        if let Some(before) = self.put_aside(name)? {
            self.disk.remove(name)?;
            self.record().names.push(NameChange::Removed(name, before));
        }
        Ok(())
    }

    fn names(&self, directory: usize, visit: &mut dyn FnMut(FileName)) -> io::Result<bool> {
        self.disk.names(directory, visit)
    }

    fn available(&self) -> io::Result<u64> {
        self.disk.available()
    }
}
