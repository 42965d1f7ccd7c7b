//! The few file system calls that the blobs use. They are behind a trait, so that tests can record their order and make
//! them fail.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;

use registry::store::{Attempt, SessionId};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

mod directory_sync;
mod disk;
#[cfg(test)]
pub(crate) mod recorded;

pub(crate) use disk::Disk;

/// The name of a file. Names sort in the order of the directories that contain the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileName {
    pub(crate) session: SessionId,
    /// The attempt that wrote the file. In a joined file: the last of the attempts.
    pub(crate) number: u32,
    pub(crate) form: FileForm,
}

/// What a file contains. The end of its name says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FileForm {
    /// The body of one attempt: `<session>.<number>`. After segments were joined, the file contains the bodies of all
    /// attempts up to this one. The list of earlier segments is final when an attempt is claimed, so the last number
    /// identifies the whole list.
    Segment,
    /// The joined segments of a session, as the first version of this program wrote them: `<session>.<number>.0`. This
    /// version only reads and removes such files.
    Joined,
    /// A file that replaces a segment's file after the segments are joined: `<session>.<number>.0.0`.
    Joining,
}

impl FileForm {
    fn ending(self) -> &'static str {
        match self {
            Self::Segment => "",
            Self::Joined => ".0",
            Self::Joining => ".0.0",
        }
    }
}

impl FileName {
    pub(crate) fn new(session: SessionId, number: u32, form: FileForm) -> Self {
        Self { session, number, form }
    }

    /// The index of the file's directory: the first hexadecimal digit of the session's id. So all files of one session
    /// are in one directory, and joining and renaming them touches only that directory.
    pub(crate) fn directory(self) -> usize {
        usize::try_from(self.session.0 >> 124).unwrap_or_default()
    }

    /// The file into which the segments up to this one are joined.
    pub(crate) fn joining(self) -> Self {
        Self {
            form: FileForm::Joining,
            ..self
        }
    }

    /// Parses the key of an object: a segment or a joined file. Accepts only the exact text that [`fmt::Display`]
    /// writes, so that no other text can become a path.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let (Attempt { session, number }, rest) = Attempt::of_key(key)?;
        let form = match rest {
            "" => FileForm::Segment,
            rest if rest == FileForm::Joined.ending() => FileForm::Joined,
            _ => return None,
        };
        Some(Self::new(session, number, form))
    }
}

impl From<Attempt> for FileName {
    fn from(attempt: Attempt) -> Self {
        Self::new(attempt.session, attempt.number, FileForm::Segment)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}{}", self.session, self.number, self.form.ending())
    }
}

/// Files by [`FileName`]. Every call may block.
pub(crate) trait Files: fmt::Debug + Send + Sync + 'static {
    /// Creates a file. An existing file is an error, because a name is never used twice.
    fn create(&self, name: FileName) -> io::Result<File>;

    /// Writes all of `parts` at `offset`.
    fn write(&self, name: FileName, file: &File, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Opens a file for reading.
    fn open(&self, name: FileName) -> io::Result<File>;

    /// Like [`Files::open`], if the kernel has everything that it needs in memory. `None`: the call must ask the disk,
    /// or the platform cannot say.
    fn open_cached(&self, name: FileName) -> io::Result<Option<File>>;

    /// Whether [`Files::open_cached`] waits only for the kernel. It does not when the files are on another machine or
    /// behind another process.
    fn opens_at_once(&self) -> bool;

    /// Opens a file for writing from its start, and creates it if it does not exist. Existing content stays until it is
    /// overwritten.
    fn create_or_open(&self, name: FileName) -> io::Result<File>;

    /// The length of a file in bytes; `None` if the file does not exist.
    fn look(&self, name: FileName) -> io::Result<Option<u64>>;

    /// Copies a range of `from` to `offset` in `to`.
    fn copy(&self, name: FileName, from: &File, range: Range<u64>, to: &File, offset: u64) -> io::Result<()>;

    /// Makes the bytes and the length of a file durable, but not its name.
    fn sync_file(&self, name: FileName, file: &File) -> io::Result<()>;

    /// Makes the names in the directory of `name` durable.
    fn sync_directory(&self, name: FileName) -> io::Result<()>;

    /// Renames a file. An existing target is replaced.
    fn rename(&self, from: FileName, to: FileName) -> io::Result<()>;

    /// Removes a file. A missing file is `Ok`.
    fn remove(&self, name: FileName) -> io::Result<()>;

    /// Visits the names of the objects in a directory (see [`FileName::directory`]), in no particular order. `false`:
    /// this directory does not exist, and neither do those with a higher index.
    fn names(&self, directory: usize, visit: &mut dyn FnMut(FileName)) -> io::Result<bool>;

    /// How many more bytes can be stored.
    fn available(&self) -> io::Result<u64>;
}

/// Opens a directory, to sync it or to resolve names in it.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Whether an entry exists in a directory.
pub(crate) fn exists(directory: &OwnedFd, entry: &str) -> io::Result<bool> {
    match rustix::fs::statat(directory, entry, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_text_of_a_key_is_accepted() {
        let session = SessionId(0xabc << 64);
        let id = session.to_string();
        for form in [FileForm::Segment, FileForm::Joined] {
            let name = FileName::new(session, 42, form);
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
        let unfinished = FileName::new(session, 42, FileForm::Joining).to_string();
        let others = [
            unfinished.as_str(),
            "",
            ".",
            "..",
            "../metadata.db",
            &id,
            &format!("{id}."),
            &format!("{id}.0"),
            &format!("{id}.0.0"),
            &format!("{id}.01"),
            &format!("{id}.+1"),
            &format!("{id}.1.1"),
            &format!("{id}.1.0/"),
            &format!("{id}/1"),
            &format!("{id}.4294967296"),
            &format!("{}.1", id.to_uppercase()),
            &format!("{}.1", &id[1..]),
            &format!("0{id}.1"),
            &format!("../{}.1", &id[3..]),
            &format!("{id}.1\0"),
        ];
        for other in others {
            assert_eq!(FileName::parse(other), None, "{other:?}");
        }
    }
}
