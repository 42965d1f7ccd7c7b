//! [`Files`] on a local file system.

use std::fs::{DirBuilder, File};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::directory_sync::DirectorySync;
use super::{FileName, Files, exists, open_directory};
use crate::Sync;
use crate::space::Space;
use crate::watch::PathWatch;

/// The number of directories that contain objects. They are enough that uploads do not all wait for the lock of one
/// directory. They are few enough that simultaneous uploads often share the sync of one directory, and that all
/// directories can stay open.
const FANOUT: u8 = 16;

/// The maximum number of slices that every platform accepts in one `pwritev` (`IOV_MAX`).
const MAX_SLICES: usize = 1024;

/// A joined file is synced each time this number of bytes was copied. So the last sync is short, and few pages wait for
/// the disk.
const SYNC_EVERY: u64 = 64 << 20;

/// The buffer of a copy through user space, in bytes.
const COPY_BUFFER: usize = 512 << 10;

/// The numbers (statfs(2)) of file systems inside the kernel: ext2 to ext4, XFS, Btrfs, ZFS, F2FS, bcachefs, tmpfs.
/// Opening a file in them waits for no other process or machine. The exception is a program of the operator that must
/// approve each open (fanotify(7)), as some virus scanners do.
#[cfg(target_os = "linux")]
const KERNEL_FILE_SYSTEMS: [u64; 7] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x2fc1_2fc1,
    0xf2f5_2010,
    0xca45_1a4e,
    0x0102_1994,
];

/// The directory tree below `<data>/blobs`.
#[derive(Debug)]
pub(crate) struct Disk {
    sync: Sync,
    directories: Vec<BlobDirectory>,
    opens_at_once: bool,
    space: Arc<Space>,
    watch: PathWatch,
}

#[derive(Debug)]
struct BlobDirectory {
    // Kept open, so that opening an object looks up only one name.
    handle: OwnedFd,
    syncs: DirectorySync,
}

impl Disk {
    /// Opens the tree at `root`, and creates missing directories.
    pub(crate) fn open(root: &Path, sync: Sync) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        match builder.create(root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let root_handle = open_directory(root)?;
        // They are created in order, so if the last one exists, all exist.
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
                Ok(BlobDirectory {
                    handle: open_directory(&root.join(directory_name(index)))?,
                    syncs: DirectorySync::default(),
                })
            })
            .collect::<io::Result<Vec<_>>>()?;
        let paths = (0..FANOUT).map(|index| root.join(directory_name(index)));
        Ok(Self {
            sync,
            opens_at_once: directories
                .iter()
                .all(|directory| is_kernel_file_system(&directory.handle)),
            directories,
            space: Arc::new(Space::at(root)),
            watch: PathWatch::of(std::iter::once(root.to_owned()).chain(paths))?,
        })
    }

    /// The free space for objects.
    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Tells whether the tree at the path is still the one that was opened.
    pub(crate) fn watch(&self) -> &PathWatch {
        &self.watch
    }

    fn directory(&self, name: FileName) -> &BlobDirectory {
        &self.directories[name.directory()]
    }

    fn open_with(&self, name: FileName, flags: OFlags) -> io::Result<File> {
        let handle = rustix::fs::openat(
            &self.directory(name).handle,
            name.to_string(),
            flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::RUSR | Mode::WUSR,
        )?;
        Ok(File::from(handle))
    }
}

#[cfg(target_os = "linux")]
fn is_kernel_file_system(directory: &OwnedFd) -> bool {
    let kind = rustix::fs::fstatfs(directory).ok();
    kind.and_then(|kind| u64::try_from(kind.f_type).ok())
        .is_some_and(|kind| KERNEL_FILE_SYSTEMS.contains(&kind))
}

#[cfg(not(target_os = "linux"))]
fn is_kernel_file_system(_: &OwnedFd) -> bool {
    false
}

fn directory_name(index: u8) -> String {
    format!("{index:x}")
}

impl Files for Disk {
    fn create(&self, name: FileName) -> io::Result<File> {
        self.open_with(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
    }

    fn write(&self, _: FileName, file: &File, mut parts: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        self.space.admit(parts.iter().map(|part| part.len() as u64).sum())?;
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

    fn open(&self, name: FileName) -> io::Result<File> {
        self.open_with(name, OFlags::RDONLY)
    }

    #[cfg(target_os = "linux")]
    fn open_cached(&self, name: FileName) -> io::Result<Option<File>> {
        use rustix::fs::{ResolveFlags, openat2};
        let opened = openat2(
            &self.directory(name).handle,
            name.to_string(),
            // Another program may have put a special file, such as a FIFO, here. Opening it must not block.
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK,
            Mode::empty(),
            ResolveFlags::CACHED,
        );
        match opened {
            Ok(handle) => Ok(Some(File::from(handle))),
            Err(Errno::NOENT) => Err(Errno::NOENT.into()),
            // Also if the kernel or a sandbox does not support the call: the plain open then returns the actual error.
            Err(_) => Ok(None),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn open_cached(&self, _: FileName) -> io::Result<Option<File>> {
        Ok(None)
    }

    fn opens_at_once(&self) -> bool {
        self.opens_at_once
    }

    fn create_or_open(&self, name: FileName) -> io::Result<File> {
        self.open_with(name, OFlags::WRONLY | OFlags::CREATE)
    }

    fn look(&self, name: FileName) -> io::Result<Option<u64>> {
        let directory = &self.directory(name).handle;
        match rustix::fs::statat(directory, name.to_string(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(u64::try_from(stat.st_size).unwrap_or_default())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn copy(&self, name: FileName, from: &File, range: Range<u64>, to: &File, mut offset: u64) -> io::Result<()> {
        let mut start = range.start;
        while start < range.end {
            let step = (range.end - start).min(SYNC_EVERY);
            self.space.admit(step)?;
            let in_kernel = copy_in_kernel(from, to, start, offset, step)?;
            if in_kernel < step {
                copy_through_buffer(from, to, start + in_kernel, offset + in_kernel, step - in_kernel)?;
            }
            start += step;
            offset += step;
            if step == SYNC_EVERY {
                self.sync_file(name, to)?;
            }
        }
        Ok(())
    }

    fn sync_file(&self, _: FileName, file: &File) -> io::Result<()> {
        match self.sync {
            // fdatasync also writes the length of the file: POSIX includes what is needed to read the data back.
            Sync::Full => file.sync_data(),
            Sync::Off => Ok(()),
        }
    }

    fn sync_directory(&self, name: FileName) -> io::Result<()> {
        let directory = self.directory(name);
        match self.sync {
            Sync::Full => directory.syncs.run(|| Ok(rustix::fs::fsync(&directory.handle)?)),
            Sync::Off => Ok(()),
        }
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        let source = &self.directory(from).handle;
        let target = &self.directory(to).handle;
        Ok(rustix::fs::renameat(source, from.to_string(), target, to.to_string())?)
    }

    fn remove(&self, name: FileName) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.directory(name).handle, name.to_string(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn names(&self, directory: usize, visit: &mut dyn FnMut(FileName)) -> io::Result<bool> {
        let Some(directory) = self.directories.get(directory) else {
            return Ok(false);
        };
        for entry in Dir::read_from(&directory.handle)? {
            // Other programs put files with other names here.
            if let Some(name) = entry?.file_name().to_str().ok().and_then(FileName::parse) {
                visit(name);
            }
        }
        Ok(true)
    }

    fn available(&self) -> io::Result<u64> {
        let system = rustix::fs::fstatvfs(&self.directories[0].handle)?;
        Ok(self.space.above_floor(system.f_bavail.saturating_mul(system.f_frsize)))
    }
}

/// Copies inside the kernel, so that the bytes do not pass through this process. Returns the number of copied bytes. It
/// is below `length` if the platform or the file system cannot continue.
#[cfg(target_os = "linux")]
fn copy_in_kernel(from: &File, to: &File, mut start: u64, mut offset: u64, length: u64) -> io::Result<u64> {
    let mut copied = 0;
    while copied < length {
        let step = usize::try_from(length - copied).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut start), to, Some(&mut offset), step) {
            // Some file systems return 0 before the end; the copy through a buffer then distinguishes this from the
            // end.
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::unix::fs::PermissionsExt;

    use registry::store::SessionId;

    use super::*;
    use crate::files::FileForm;

    fn name(number: u32) -> FileName {
        FileName::new(SessionId(7), number, FileForm::Segment)
    }

    fn noise(length: usize) -> Vec<u8> {
        contract::source::noise(7, length).to_vec()
    }

    type Copy = fn(&Disk, &File, &File, u64) -> io::Result<()>;

    #[test]
    fn objects_are_private_and_their_names_are_used_once() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("blobs");
        let disk = Disk::open(&tree, Sync::Full).unwrap();
        let file = disk.create(name(1)).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(disk.create(name(1)).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        for directory in [tree.clone(), tree.join("0")] {
            assert_eq!(
                std::fs::metadata(directory).unwrap().permissions().mode() & 0o777,
                0o700
            );
        }
        assert!(tree.join("0").join(name(1).to_string()).is_file());
        // A second open succeeds, as it does in another process at the same time.
        let again = Disk::open(&tree, Sync::Off).unwrap();
        assert_eq!(again.look(name(1)).unwrap(), Some(0));
        assert_eq!(std::fs::read_dir(&tree).unwrap().count(), usize::from(FANOUT));
    }

    #[test]
    fn a_symbolic_link_is_never_followed() {
        let root = tempfile::tempdir().unwrap();
        let disk = Disk::open(&root.path().join("blobs"), Sync::Off).unwrap();
        let outside = root.path().join("outside");
        std::fs::write(&outside, "secret").unwrap();
        let link = root.path().join("blobs/0").join(name(1).to_string());
        std::os::unix::fs::symlink(&outside, link).unwrap();
        assert!(disk.open(name(1)).is_err());
        assert!(disk.create_or_open(name(1)).is_err());
    }

    #[test]
    fn many_slices_are_written_whole() {
        let root = tempfile::tempdir().unwrap();
        let disk = Disk::open(&root.path().join("blobs"), Sync::Off).unwrap();
        let bytes = noise(3 * MAX_SLICES + 5);
        let mut slices: Vec<_> = bytes.chunks(1).map(IoSlice::new).collect();
        slices.insert(0, IoSlice::new(&[]));
        let file = disk.create(name(1)).unwrap();
        disk.write(name(1), &file, &mut slices, 10).unwrap();
        let mut read = vec![0; bytes.len()];
        disk.open(name(1)).unwrap().read_exact_at(&mut read, 10).unwrap();
        assert_eq!(read, bytes);
        assert_eq!(disk.look(name(1)).unwrap(), Some(10 + bytes.len() as u64));
    }

    #[test]
    fn both_ways_of_copying_write_the_same_bytes() {
        let root = tempfile::tempdir().unwrap();
        let disk = Disk::open(&root.path().join("blobs"), Sync::Off).unwrap();
        let bytes = noise(2 * COPY_BUFFER + 77);
        let source = disk.create(name(1)).unwrap();
        source.write_all_at(&bytes, 0).unwrap();
        let source = disk.open(name(1)).unwrap();
        let length = bytes.len() as u64;
        let ways: [(u32, Copy); 2] = [
            (2, |disk, from, to, length| disk.copy(name(2), from, 0..length, to, 5)),
            (3, |_, from, to, length| copy_through_buffer(from, to, 0, 5, length)),
        ];
        for (number, copy) in ways {
            let target = disk.create(name(number)).unwrap();
            copy(&disk, &source, &target, length).unwrap();
            let mut read = vec![0; bytes.len()];
            disk.open(name(number)).unwrap().read_exact_at(&mut read, 5).unwrap();
            assert!(read == bytes, "way {number}");
            // A source that is too short is an error, not a complete copy.
            let error = copy(&disk, &source, &target, length + 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "way {number}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_copies_where_it_can() {
        let root = tempfile::tempdir().unwrap();
        let disk = Disk::open(&root.path().join("blobs"), Sync::Off).unwrap();
        let source = disk.create(name(1)).unwrap();
        source.write_all_at(&noise(5000), 0).unwrap();
        let target = disk.create(name(2)).unwrap();
        let source = disk.open(name(1)).unwrap();
        assert_eq!(copy_in_kernel(&source, &target, 0, 0, 5000).unwrap(), 5000);
        // The kernel copies only what it can: here fewer bytes than requested, and nothing to a pipe.
        assert_eq!(copy_in_kernel(&source, &target, 4000, 0, 5000).unwrap(), 1000);
        let (_, pipe) = io::pipe().unwrap();
        let pipe = File::from(OwnedFd::from(pipe));
        assert_eq!(copy_in_kernel(&source, &pipe, 0, 0, 5000).unwrap(), 0);
    }
}
