//! [`Files`] on a local file system.

use std::fs::{DirBuilder, File};
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::directory_sync::DirectorySync;
use super::{Files, Name, exists, open_directory};
use crate::Sync;

/// How many directories objects are spread over: enough that none of them is the one lock of all uploads, few enough
/// that uploads at the same time often meet in one and share its sync, and that all can be kept open.
const FANOUT: u8 = 16;

/// The most slices that one `pwritev` takes everywhere (`IOV_MAX`).
const MAX_SLICES: usize = 1024;

/// A joined file is synced each time this many bytes were copied, so that the last sync is no long stall and the
/// pages waiting for the disk stay few.
const SYNC_EVERY: u64 = 64 << 20;

/// The buffer of a copy through user space, in bytes.
const COPY_BUFFER: usize = 512 << 10;

/// The directory tree below `<data>/blobs`.
#[derive(Debug)]
pub(crate) struct Disk {
    sync: Sync,
    directories: Vec<Directory>,
}

#[derive(Debug)]
struct Directory {
    // Kept open, so that an object costs the look-up of one name.
    handle: OwnedFd,
    syncs: DirectorySync,
}

impl Disk {
    /// Opens the tree at `root`, making the directories that are missing.
    pub(crate) fn open(root: &Path, sync: Sync) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        match builder.create(root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let root_handle = open_directory(root)?;
        // They are made in order, so that the last one stands for all.
        if !exists(&root_handle, &directory_name(FANOUT - 1))? {
            for index in 0..FANOUT {
                match builder.create(root.join(directory_name(index))) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
            }
            if sync == Sync::Full {
                rustix::fs::fsync(&root_handle)?;
            }
        }
        let directories = (0..FANOUT)
            .map(|index| {
                Ok(Directory {
                    handle: open_directory(&root.join(directory_name(index)))?,
                    syncs: DirectorySync::default(),
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { sync, directories })
    }

    fn directory(&self, name: Name) -> &Directory {
        &self.directories[directory_index(name)]
    }

    fn open_with(&self, name: Name, flags: OFlags) -> io::Result<File> {
        let handle = rustix::fs::openat(
            &self.directory(name).handle,
            name.to_string(),
            flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::RUSR | Mode::WUSR,
        )?;
        Ok(File::from(handle))
    }
}

/// The first hexadecimal digit of the session's id: all that a session stores lies in one directory, so that joining
/// and renaming touch one.
fn directory_index(name: Name) -> usize {
    usize::try_from(name.session.0 >> 124).unwrap_or_default()
}

fn directory_name(index: u8) -> String {
    format!("{index:x}")
}

impl Files for Disk {
    fn create(&self, name: Name) -> io::Result<File> {
        self.open_with(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
    }

    fn write(&self, _: Name, file: &File, mut parts: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let slices = &parts[..parts.len().min(MAX_SLICES)];
            match rustix::io::pwritev(file, slices, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut parts, written);
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn open(&self, name: Name) -> io::Result<File> {
        self.open_with(name, OFlags::RDONLY)
    }

    fn create_or_open(&self, name: Name) -> io::Result<File> {
        self.open_with(name, OFlags::WRONLY | OFlags::CREATE)
    }

    fn look(&self, name: Name) -> io::Result<Option<u64>> {
        let directory = &self.directory(name).handle;
        match rustix::fs::statat(directory, name.to_string(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(u64::try_from(stat.st_size).unwrap_or_default())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn copy(&self, name: Name, from: &File, to: &File, offset: u64, length: u64) -> io::Result<()> {
        let mut copied = 0;
        while copied < length {
            let step = (length - copied).min(SYNC_EVERY);
            let in_kernel = copy_in_kernel(from, to, copied, offset + copied, step)?;
            if in_kernel < step {
                copy_through_buffer(
                    from,
                    to,
                    copied + in_kernel,
                    offset + copied + in_kernel,
                    step - in_kernel,
                )?;
            }
            copied += step;
            if step == SYNC_EVERY {
                self.sync_file(name, to)?;
            }
        }
        Ok(())
    }

    fn sync_file(&self, _: Name, file: &File) -> io::Result<()> {
        match self.sync {
            // The length of a file is among what fdatasync writes: POSIX counts what is needed to read the data back.
            Sync::Full => file.sync_data(),
            Sync::Off => Ok(()),
        }
    }

    fn sync_directory(&self, name: Name) -> io::Result<()> {
        let directory = self.directory(name);
        match self.sync {
            Sync::Full => directory.syncs.run(|| Ok(rustix::fs::fsync(&directory.handle)?)),
            Sync::Off => Ok(()),
        }
    }

    fn rename(&self, from: Name, to: Name) -> io::Result<()> {
        let source = &self.directory(from).handle;
        let target = &self.directory(to).handle;
        Ok(rustix::fs::renameat(source, from.to_string(), target, to.to_string())?)
    }

    fn remove(&self, name: Name) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.directory(name).handle, name.to_string(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn available(&self) -> io::Result<u64> {
        let system = rustix::fs::fstatvfs(&self.directories[0].handle)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }
}

/// Copies without passing the bytes through this process; answers how many it copied, which is fewer than `length`
/// where the platform or the file system cannot go on.
#[cfg(target_os = "linux")]
fn copy_in_kernel(from: &File, to: &File, mut start: u64, mut offset: u64, length: u64) -> io::Result<u64> {
    let mut copied = 0;
    while copied < length {
        let step = usize::try_from(length - copied).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut start), to, Some(&mut offset), step) {
            // Some file systems answer 0 where there are bytes; the copy through a buffer tells the end from that.
            Ok(0) | Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => break,
            Ok(moved) => copied += moved as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(copied)
}

#[cfg(not(target_os = "linux"))]
fn copy_in_kernel(_: &File, _: &File, _: u64, _: u64, _: u64) -> io::Result<u64> {
    Ok(0)
}

fn copy_through_buffer(from: &File, to: &File, mut start: u64, mut offset: u64, mut length: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BUFFER];
    while length > 0 {
        let step = usize::try_from(length).unwrap_or(COPY_BUFFER).min(COPY_BUFFER);
        let read = match from.read_at(&mut buffer[..step], start) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all_at(&buffer[..read], offset)?;
        start += read as u64;
        offset += read as u64;
        length -= read as u64;
    }
    Ok(())
}
