//! [`Files`] that write down what is asked of them, and fail where a test says so.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::Path;
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
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    calls: Vec<(Call, Form, u32)>,
    /// The call that fails from now on, and the system's number of the error.
    fault: Option<(Call, i32)>,
    /// What a loss of power would take: bytes not synced, and names not synced.
    bytes: BTreeSet<String>,
    names: BTreeSet<String>,
}

impl Recorded {
    pub(crate) fn open(root: &Path) -> Self {
        Self {
            disk: Disk::open(root, Sync::Full).expect("a directory for the test"),
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

    /// Whether a loss of power now would take the bytes or the name of a file.
    pub(crate) fn is_volatile(&self, name: Name) -> bool {
        let record = self.record();
        record.bytes.contains(&name.to_string()) || record.names.contains(&name.to_string())
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, call: Call, name: Name) -> io::Result<()> {
        let mut record = self.record();
        record.calls.push((call, name.form, name.number));
        match record.fault {
            Some((faulty, code)) if faulty == call => Err(io::Error::from_raw_os_error(code)),
            _ => Ok(()),
        }
    }
}

impl Files for Recorded {
    fn create(&self, name: Name) -> io::Result<File> {
        self.call(Call::Create, name)?;
        self.record().names.insert(name.to_string());
        self.disk.create(name)
    }

    fn write(&self, name: Name, file: &File, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.record().bytes.insert(name.to_string());
        self.call(Call::Write, name)?;
        self.disk.write(name, file, parts, offset)
    }

    fn open(&self, name: Name) -> io::Result<File> {
        self.disk.open(name)
    }

    fn create_or_open(&self, name: Name) -> io::Result<File> {
        self.call(Call::Create, name)?;
        self.record().names.insert(name.to_string());
        self.disk.create_or_open(name)
    }

    fn look(&self, name: Name) -> io::Result<Option<u64>> {
        self.disk.look(name)
    }

    fn copy(&self, name: Name, from: &File, to: &File, offset: u64, length: u64) -> io::Result<()> {
        self.record().bytes.insert(name.to_string());
        self.call(Call::Copy, name)?;
        self.disk.copy(name, from, to, offset, length)
    }

    fn sync_file(&self, name: Name, file: &File) -> io::Result<()> {
        self.call(Call::SyncFile, name)?;
        self.disk.sync_file(name, file)?;
        self.record().bytes.remove(&name.to_string());
        Ok(())
    }

    fn sync_directory(&self, name: Name) -> io::Result<()> {
        self.call(Call::SyncDirectory, name)?;
        self.disk.sync_directory(name)?;
        self.record().names.clear();
        Ok(())
    }

    fn rename(&self, from: Name, to: Name) -> io::Result<()> {
        self.call(Call::Rename, from)?;
        self.disk.rename(from, to)?;
        let mut record = self.record();
        record.names.insert(to.to_string());
        if record.bytes.remove(&from.to_string()) {
            record.bytes.insert(to.to_string());
        }
        Ok(())
    }

    fn remove(&self, name: Name) -> io::Result<()> {
        self.call(Call::Remove, name)?;
        self.disk.remove(name)
    }

    fn available(&self) -> io::Result<u64> {
        self.disk.available()
    }
}
