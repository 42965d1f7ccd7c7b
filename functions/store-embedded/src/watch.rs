//! Notices that an open file or directory is no longer the one at its path: it was removed, replaced, moved away,
//! hidden by a mount, or emptied. Without this check, the registry would acknowledge writes that are missing after the
//! next start.
//!
//! `cp` of a backup over the database keeps the inode, so the header of the database is checked too. It reveals copies
//! made by `VACUUM INTO` (as in `backup.sh`): such a copy says that it has no log, and a database in use never says so.
//! It does not reveal plain copies or copies made by `.backup`, which have the header of the original. Nothing else in
//! the file is sure to differ, because the latest writes are in the log.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use registry::store::{Reason, StoreError};
use rustix::fs::{Access, AtFlags, CWD};

/// The files and directories that a store has open, as they were when the store opened them.
#[derive(Clone, Debug, Default)]
pub struct PathWatch {
    entries: Vec<WatchedPath>,
}

#[derive(Clone, Debug)]
struct WatchedPath {
    path: PathBuf,
    device: u64,
    inode: u64,
    is_file: bool,
    database: Option<Arc<DatabaseHeader>>,
}

/// The header of a database that is in use.
#[derive(Debug, Default)]
struct DatabaseHeader {
    /// Open until the process ends: closing it would release the locks that SQLite has on the file in this process.
    file: OnceLock<Option<&'static File>>,
    /// Whether other content was seen. It stays `true`, because SQLite may write parts of the old content over the new
    /// one.
    is_overwritten: AtomicBool,
}

impl PathWatch {
    /// Watches what is at `paths` now.
    pub(crate) fn of(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let entries = paths.into_iter().map(|path| {
            let found = std::fs::metadata(&path)?;
            Ok(WatchedPath {
                device: found.dev(),
                inode: found.ino(),
                is_file: found.is_file(),
                database: None,
                path,
            })
        });
        Ok(Self {
            entries: entries.collect::<io::Result<_>>()?,
        })
    }

    /// Watches a SQLite database that is in use and has a log.
    pub(crate) fn of_database(path: PathBuf) -> io::Result<Self> {
        let mut watch = Self::of([path])?;
        for entry in &mut watch.entries {
            entry.database = Some(Arc::default());
        }
        Ok(watch)
    }

    /// Checks every path. Costs some microseconds, but blocks while the disk does not answer. Returns an error with
    /// [`Reason::StoreReplaced`] if a path is missing or leads to something else.
    pub fn check(&self) -> Result<(), StoreError> {
        self.entries.iter().try_for_each(WatchedPath::check)
    }

    /// Checks that this process may write at every path, according to modes and mounts. Otherwise returns an error with
    /// [`Reason::NotWritable`].
    pub fn check_writable(&self) -> Result<(), StoreError> {
        self.entries.iter().try_for_each(|entry| {
            let wanted = if entry.is_file {
                Access::READ_OK | Access::WRITE_OK
            } else {
                Access::WRITE_OK | Access::EXEC_OK
            };
            match rustix::fs::accessat(CWD, &entry.path, wanted, AtFlags::EACCESS).map_err(io::Error::from) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                    ) =>
                {
                    let text = format!("{} is not writable: {error}", entry.path.display());
                    Err(StoreError::because(Reason::NotWritable, text))
                }
                // `check` reports a missing path.
                _ => Ok(()),
            }
        })
    }
}

impl WatchedPath {
    fn check(&self) -> Result<(), StoreError> {
        let what = match std::fs::metadata(&self.path) {
            Err(error) if is_missing(&error) => "was removed or moved away",
            Ok(found) if (found.dev(), found.ino()) != (self.device, self.inode) => "was replaced",
            Ok(found) if self.is_file && found.len() == 0 => "was emptied",
            Ok(_) if self.is_overwritten() => "was overwritten",
            // A disk that does not answer is a different fault. Reads report it.
            Ok(_) | Err(_) => return Ok(()),
        };
        Err(StoreError::because(
            Reason::StoreReplaced,
            format!(
                "{} {what} while it was in use: {}",
                self.path.display(),
                advice(&self.path)
            ),
        ))
    }

    fn is_overwritten(&self) -> bool {
        let Some(header) = &self.database else {
            return false;
        };
        let file = header.file.get_or_init(|| {
            let file = File::open(&self.path).ok()?;
            Some(Box::leak(Box::new(file)))
        });
        if file.is_some_and(is_header_changed) {
            header.is_overwritten.store(true, Ordering::Relaxed);
        }
        header.is_overwritten.load(Ordering::Relaxed)
    }
}

/// Whether a file does not begin like a database with a log ("Database File Format", 1.3). An unreadable header counts
/// as unchanged.
fn is_header_changed(file: &File) -> bool {
    let mut header = [0; 20];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => !header.starts_with(b"SQLite format 3\0") || header[18..] != [2, 2],
        Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn advice(path: &Path) -> String {
    format!(
        "stop the server, restore the previous file or a backup of all of {}, and start the server again",
        path.parent().unwrap_or(path).display()
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn reason(watch: &PathWatch) -> Option<Reason> {
        watch.check().err().map(|error| error.reason())
    }

    #[test]
    fn s34_a_removed_replaced_or_emptied_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (file, directory, away) = (
            folder.path().join("f"),
            folder.path().join("d"),
            folder.path().join("away"),
        );
        std::fs::write(&file, "x").unwrap();
        std::fs::create_dir(&directory).unwrap();
        let watch = PathWatch::of([file.clone(), directory.clone()]).unwrap();
        assert_eq!(reason(&watch), None);
        std::fs::write(&file, "more").unwrap();
        std::fs::write(directory.join("child"), "x").unwrap();
        assert_eq!(reason(&watch), None, "the content may change");

        for path in [&file, &directory] {
            std::fs::rename(path, &away).unwrap();
            assert_eq!(reason(&watch), Some(Reason::StoreReplaced), "moved away");
            if path == &file {
                std::fs::write(path, "another").unwrap();
            } else {
                std::fs::create_dir(path).unwrap();
            }
            let text = watch.check().unwrap_err().to_string();
            assert!(text.contains("was replaced") && text.contains("restore"), "{text}");
            if path == &file {
                std::fs::remove_file(path).unwrap();
            } else {
                std::fs::remove_dir(path).unwrap();
            }
            std::fs::rename(&away, path).unwrap();
            assert_eq!(reason(&watch), None, "the previous file is restored");
        }
        std::fs::File::create(&file).unwrap();
        assert!(watch.check().unwrap_err().to_string().contains("was emptied"));
        assert!(watch.check_writable().is_ok());
        assert!(PathWatch::default().check().is_ok());
    }
}
