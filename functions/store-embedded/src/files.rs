//! The few file system calls that blobs are made of, behind a trait so that tests can record their order and make them
//! fail.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;

use registry::store::sessions::{Attempt, SessionId};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

mod directory_sync;
mod disk;
#[cfg(test)]
pub(crate) mod recorded;

pub(crate) use disk::Disk;

/// The name of a file. Names sort like the directories that the files lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) session: SessionId,
    /// The attempt that wrote it, or the last one of those that were joined in it.
    pub(crate) number: u32,
    pub(crate) form: Form,
}

/// What a file holds, told by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Form {
    /// The body of one attempt, or of all up to it once they were joined: `<session>.<number>`. The segments before an
    /// attempt are settled when it is claimed, so that the last one names the list.
    Segment,
    /// What the first version of this program made of several segments: `<session>.<number>.0`. Only read and removed.
    Joined,
    /// What becomes a segment's file while segments are joined: `<session>.<number>.0.0`.
    Joining,
}

impl Form {
    fn ending(self) -> &'static str {
        match self {
            Self::Segment => "",
            Self::Joined => ".0",
            Self::Joining => ".0.0",
        }
    }
}

impl Name {
    pub(crate) fn new(session: SessionId, number: u32, form: Form) -> Self {
        Self { session, number, form }
    }

    /// Which directory the file lies in: the first hexadecimal digit of the session's id, so that joining and renaming
    /// what one session stores touches one directory.
    pub(crate) fn directory(self) -> usize {
        usize::try_from(self.session.0 >> 124).unwrap_or_default()
    }

    /// Where the segments up to this one are joined.
    pub(crate) fn joining(self) -> Self {
        Self {
            form: Form::Joining,
            ..self
        }
    }

    /// Reads the key of an object back: a segment, or what was joined. Only the one spelling that [`fmt::Display`]
    /// writes is accepted, so that no other text ever becomes a path.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let (Attempt { session, number }, rest) = Attempt::of_key(key)?;
        let form = match rest {
            "" => Form::Segment,
            rest if rest == Form::Joined.ending() => Form::Joined,
            _ => return None,
        };
        Some(Self::new(session, number, form))
    }
}

impl From<Attempt> for Name {
    fn from(attempt: Attempt) -> Self {
        Self::new(attempt.session, attempt.number, Form::Segment)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}{}", self.session, self.number, self.form.ending())
    }
}

/// Files by [`Name`]. Every call may block.
pub(crate) trait Files: fmt::Debug + Send + Sync + 'static {
    /// Makes a new file; one that exists is an error, because names are never used twice.
    fn create(&self, name: Name) -> io::Result<File>;

    /// Writes all of `parts` at `offset`.
    fn write(&self, name: Name, file: &File, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Opens a file to be read.
    fn open(&self, name: Name) -> io::Result<File>;

    /// The same, where all that it takes is in memory. `None`: the disk must be asked, or nobody can tell.
    fn open_cached(&self, name: Name) -> io::Result<Option<File>>;

    /// Whether [`Files::open_cached`] asks nobody but the kernel: it does not, where files lie on another machine or in
    /// another process.
    fn opens_at_once(&self) -> bool;

    /// Opens a file to be written from its start, making it if there is none; what it holds stays until it is written
    /// over.
    fn create_or_open(&self, name: Name) -> io::Result<File>;

    /// The length in bytes of the file that has a name; `None` if there is none.
    fn look(&self, name: Name) -> io::Result<Option<u64>>;

    /// Copies a range of `from` to `offset` of `to`.
    fn copy(&self, name: Name, from: &File, range: Range<u64>, to: &File, offset: u64) -> io::Result<()>;

    /// Makes a file's bytes and length durable, not its name.
    fn sync_file(&self, name: Name, file: &File) -> io::Result<()>;

    /// Makes the names in the directory of `name` durable.
    fn sync_directory(&self, name: Name) -> io::Result<()>;

    /// Renames; an existing target is replaced.
    fn rename(&self, from: Name, to: Name) -> io::Result<()>;

    /// Removes a name; `Ok` when there is none.
    fn remove(&self, name: Name) -> io::Result<()>;

    /// Visits the names of the objects in a directory (see [`Name::directory`]), in no order. `false`: there is no such
    /// directory, and none behind it.
    fn names(&self, directory: usize, visit: &mut dyn FnMut(Name)) -> io::Result<bool>;

    /// Bytes that can still be stored.
    fn available(&self) -> io::Result<u64>;
}

/// Opens a directory, to be synced or to resolve names in it.
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
    fn only_what_is_written_as_a_key_is_read_as_one() {
        let session = SessionId(0xabc << 64);
        let id = session.to_string();
        for form in [Form::Segment, Form::Joined] {
            let name = Name::new(session, 42, form);
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        let unfinished = Name::new(session, 42, Form::Joining).to_string();
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
            assert_eq!(Name::parse(other), None, "{other:?}");
        }
    }
}
