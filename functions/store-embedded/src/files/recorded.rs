//! [`Files`] that write down what is asked of them, fail where a test says so, and lose what was not synced when the
//! power goes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Disk, Files, Form, Name};
use crate::Sync;

/// A call, by the form and number of the file it was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
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
pub(crate) struct Recorded {
    disk: Disk,
    root: PathBuf,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    calls: Vec<(Call, Form, u32)>,
    /// The call that fails from now on, and the system's number of the error.
    fault: Option<(Call, i32)>,
    /// How many calls are still carried out before all of them fail.
    left: Option<usize>,
    /// What a loss of power would take: bytes not synced.
    bytes: BTreeSet<Name>,
    /// And changes of names not synced, in their order.
    names: Vec<Change>,
    /// How many files were put aside.
    saved: usize,
}

/// A change of a directory, and how it is taken back.
#[derive(Debug)]
enum Change {
    Made(Name),
    /// From and to; the file that had the second name lies here.
    Renamed(Name, Name, Option<PathBuf>),
    /// The file lies here.
    Removed(Name, PathBuf),
}

impl Change {
    fn name(&self) -> Name {
        match self {
            Self::Made(name) | Self::Renamed(_, name, _) | Self::Removed(name, _) => *name,
        }
    }
}

impl Recorded {
    pub(crate) fn open(root: &Path) -> Self {
        Self {
            disk: Disk::open(root, Sync::Full).expect("a directory for the test"),
            root: root.to_owned(),
            record: Mutex::default(),
        }
    }

    /// The calls so far, forgetting them.
    pub(crate) fn calls(&self) -> Vec<(Call, Form, u32)> {
        std::mem::take(&mut self.record().calls)
    }

    /// Makes a call fail from now on with an error of the system, by its number.
    pub(crate) fn fail(&self, fault: Option<(Call, i32)>) {
        self.record().fault = fault;
    }

    /// Carries out so many more calls that change something, and none behind them.
    pub(crate) fn stop_after(&self, calls: usize) {
        self.record().left = Some(calls);
    }

    /// Whether a loss of power now would take the bytes or the name of a file.
    pub(crate) fn is_volatile(&self, name: Name) -> bool {
        let record = self.record();
        record.bytes.contains(&name) || record.names.iter().any(|change| change.name() == name)
    }

    /// Takes from the disk what a loss of power may take: every byte and every change of a name that was not synced.
    /// Then all is well again.
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
                Change::Made(name) => self.disk.remove(name)?,
                Change::Removed(name, before) => std::fs::rename(before, self.path(name))?,
                Change::Renamed(from, to, before) => {
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

    fn path(&self, name: Name) -> PathBuf {
        self.root.join(format!("{:x}", name.directory())).join(name.to_string())
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, call: Call, name: Name) -> io::Result<()> {
        let mut record = self.record();
        record.calls.push((call, name.form, name.number));
        if let Some(left) = &mut record.left {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| io::Error::other("the power is gone"))?;
        }
        match record.fault {
            Some((faulty, code)) if faulty == call => Err(io::Error::from_raw_os_error(code)),
            _ => Ok(()),
        }
    }

    /// Keeps the file that has a name, if there is one, beside the tree.
    fn put_aside(&self, name: Name) -> io::Result<Option<PathBuf>> {
        if self.disk.look(name)?.is_none() {
            return Ok(None);
        }
        let mut record = self.record();
        record.saved += 1;
        let aside = self.root.with_file_name(format!("aside-{}", record.saved));
        // Left there by an earlier life of the same directory.
        let _ = std::fs::remove_file(&aside);
        std::fs::hard_link(self.path(name), &aside)?;
        Ok(Some(aside))
    }

    fn made(&self, name: Name) {
        self.record().names.push(Change::Made(name));
    }
}

impl Files for Recorded {
    fn create(&self, name: Name) -> io::Result<File> {
        self.call(Call::Create, name)?;
        let file = self.disk.create(name)?;
        self.made(name);
        Ok(file)
    }

    fn write(&self, name: Name, file: &File, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.record().bytes.insert(name);
        self.call(Call::Write, name)?;
        self.disk.write(name, file, parts, offset)
    }

    fn open(&self, name: Name) -> io::Result<File> {
        self.disk.open(name)
    }

    fn open_cached(&self, name: Name) -> io::Result<Option<File>> {
        self.disk.open_cached(name)
    }

    fn opens_at_once(&self) -> bool {
        self.disk.opens_at_once()
    }

    fn create_or_open(&self, name: Name) -> io::Result<File> {
        self.call(Call::Create, name)?;
        let is_new = self.disk.look(name)?.is_none();
        let file = self.disk.create_or_open(name)?;
        if is_new {
            self.made(name);
        }
        Ok(file)
    }

    fn look(&self, name: Name) -> io::Result<Option<u64>> {
        self.disk.look(name)
    }

    fn copy(&self, name: Name, from: &File, range: Range<u64>, to: &File, offset: u64) -> io::Result<()> {
        self.record().bytes.insert(name);
        self.call(Call::Copy, name)?;
        self.disk.copy(name, from, range, to, offset)
    }

    fn sync_file(&self, name: Name, file: &File) -> io::Result<()> {
        self.call(Call::SyncFile, name)?;
        self.disk.sync_file(name, file)?;
        self.record().bytes.remove(&name);
        Ok(())
    }

    fn sync_directory(&self, name: Name) -> io::Result<()> {
        self.call(Call::SyncDirectory, name)?;
        self.disk.sync_directory(name)?;
        self.record()
            .names
            .retain(|change| change.name().directory() != name.directory());
        Ok(())
    }

    fn rename(&self, from: Name, to: Name) -> io::Result<()> {
        self.call(Call::Rename, from)?;
        let before = self.put_aside(to)?;
        self.disk.rename(from, to)?;
        let mut record = self.record();
        if record.bytes.remove(&from) {
            record.bytes.insert(to);
        }
        record.names.push(Change::Renamed(from, to, before));
        Ok(())
    }

    fn remove(&self, name: Name) -> io::Result<()> {
        self.call(Call::Remove, name)?;
        if let Some(before) = self.put_aside(name)? {
            self.disk.remove(name)?;
            self.record().names.push(Change::Removed(name, before));
        }
        Ok(())
    }

    fn names(&self, directory: usize, visit: &mut dyn FnMut(Name)) -> io::Result<bool> {
        self.disk.names(directory, visit)
    }

    fn available(&self) -> io::Result<u64> {
        self.disk.available()
    }
}
