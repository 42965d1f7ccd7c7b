//! Notices that what is open is no longer what lies at its path: removed, replaced, moved away, covered by a mount, or
//! emptied. Writing on would acknowledge what nobody finds after the next start.
//!
//! A database is also looked into: a backup that is copied over it (`cp`) leaves the same file with other content. Its
//! header tells, where the copy was made by SQLite (`VACUUM INTO`, as `backup.sh` does): such a copy says that it has no log,
//! which a database in use never does. A copy of the file itself, or by `.backup`, has the header of its original, and is not
//! noticed: nothing in the file is sure to differ, since the log holds what was written last.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use registry::store::{Reason, StoreError};
use rustix::fs::{Access, AtFlags, CWD};

/// Files and directories that a store has open, as they were then.
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
    /// Open for as long as the process lives: closing it would drop the locks that SQLite has on the file in this process.
    file: OnceLock<Option<&'static File>>,
    /// It was seen with another content. Stays so: SQLite may write some of the old content over it.
    is_overwritten: AtomicBool,
}

impl PathWatch {
    /// Watches what lies at `paths` now.
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

    /// Watches a database of SQLite that is in use, and has a log.
    pub(crate) fn of_database(path: PathBuf) -> io::Result<Self> {
        let mut watch = Self::of([path])?;
        for entry in &mut watch.entries {
            entry.database = Some(Arc::default());
        }
        Ok(watch)
    }

    /// Looks at every path; costs some microseconds, and waits for the disk where that does not answer. An error of
    /// [`Reason::StoreReplaced`] when something else lies there, or nothing.
    pub fn check(&self) -> Result<(), StoreError> {
        self.entries.iter().try_for_each(WatchedPath::check)
    }

    /// Whether this process may write there, as far as modes and mounts tell: an error of [`Reason::NotWritable`].
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
                    let text = format!("{} cannot be written: {error}", entry.path.display());
                    Err(StoreError::because(Reason::NotWritable, text))
                }
                // What is gone is told by the other check.
                _ => Ok(()),
            }
        })
    }
}

impl WatchedPath {
    fn check(&self) -> Result<(), StoreError> {
        let what = match std::fs::metadata(&self.path) {
            Err(error) if is_gone(&error) => "was removed or moved away",
            Ok(found) if (found.dev(), found.ino()) != (self.device, self.inode) => "was replaced",
            Ok(found) if self.is_file && found.len() == 0 => "was emptied",
            Ok(_) if self.is_overwritten() => "was overwritten",
            // A disk that does not answer is another matter, and is met by whoever reads.
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
        if file.is_some_and(has_other_header) {
            header.is_overwritten.store(true, Ordering::Relaxed);
        }
        header.is_overwritten.load(Ordering::Relaxed)
    }
}

/// Whether a file does not begin as a database with a log does ("Database File Format", 1.3). What cannot be read says
/// nothing.
fn has_other_header(file: &File) -> bool {
    let mut header = [0; 20];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => !header.starts_with(b"SQLite format 3\0") || header[18..] != [2, 2],
        Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn advice(path: &Path) -> String {
    format!(
        "stop the server, put back what was there or a backup of all of {}, and start it again",
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
    fn s34_what_is_removed_replaced_or_emptied_is_noticed() {
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
        assert_eq!(reason(&watch), None, "what changes inside is the store's own");

        for path in [&file, &directory] {
            std::fs::rename(path, &away).unwrap();
            assert_eq!(reason(&watch), Some(Reason::StoreReplaced), "moved away");
            if path == &file {
                std::fs::write(path, "another").unwrap();
            } else {
                std::fs::create_dir(path).unwrap();
            }
            let text = watch.check().unwrap_err().to_string();
            assert!(text.contains("was replaced") && text.contains("put back"), "{text}");
            if path == &file {
                std::fs::remove_file(path).unwrap();
            } else {
                std::fs::remove_dir(path).unwrap();
            }
            std::fs::rename(&away, path).unwrap();
            assert_eq!(reason(&watch), None, "what was there is back");
        }
        std::fs::File::create(&file).unwrap();
        assert!(watch.check().unwrap_err().to_string().contains("was emptied"));
        assert!(watch.check_writable().is_ok());
        assert!(PathWatch::default().check().is_ok());
    }
}
