//! How much of a file system is left to others: below a floor nothing new is stored, so that what deletes always finds
//! the space that it needs itself.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use registry::store::{Reason, StoreError};

/// For how long a look at the file system is good.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// After so many bytes the file system is looked at again, whatever the time is.
const GOOD_FOR_BYTES: u64 = 16 << 20;

/// What is to stay free on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinFree {
    /// So many bytes; 0 switches the floor off.
    Bytes(u64),
    /// So many hundredths of the whole.
    Percent(u8),
    /// So many hundredths of the whole, and no more than so many bytes.
    PercentUpTo(u8, u64),
}

impl MinFree {
    /// 5 % of the file system, and no more than 1 GiB.
    pub const DEFAULT: Self = Self::PercentUpTo(5, 1 << 30);

    /// In bytes, on a file system of `total` bytes.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        let hundredths = |percent: u8| total / 100 * u64::from(percent);
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => hundredths(percent),
            Self::PercentUpTo(percent, most) => hundredths(percent).min(most),
        }
    }
}

/// The space on the file system of one directory.
#[derive(Debug)]
pub struct Space {
    path: PathBuf,
    ask: fn(&Path) -> io::Result<FileSystem>,
    /// Never held while the file system is asked: one that does not answer must not hold those who only read.
    state: Mutex<SpaceState>,
}

/// The bytes of a file system.
#[derive(Clone, Copy, Debug)]
struct FileSystem {
    free: u64,
    total: u64,
}

fn ask(path: &Path) -> io::Result<FileSystem> {
    let system = rustix::fs::statvfs(path)?;
    Ok(FileSystem {
        free: system.f_bavail.saturating_mul(system.f_frsize),
        total: system.f_blocks.saturating_mul(system.f_frsize),
    })
}

#[derive(Debug)]
struct SpaceState {
    min_free: MinFree,
    last: Option<SpaceLook>,
}

/// What the file system said, and what was written since.
#[derive(Clone, Copy, Debug)]
struct SpaceLook {
    at: Instant,
    free: u64,
    floor: u64,
    written: u64,
}

impl SpaceLook {
    fn is_enough(&self) -> bool {
        self.floor == 0 || self.free.saturating_sub(self.written) >= self.floor
    }
}

impl Space {
    /// Without a floor, until [`Space::keep`] sets one.
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            ask,
            state: Mutex::new(SpaceState {
                min_free: MinFree::Bytes(0),
                last: None,
            }),
        }
    }

    /// From now on, so much stays free.
    pub fn keep(&self, min_free: MinFree) {
        *self.state() = SpaceState { min_free, last: None };
    }

    /// Looks at the file system. Blocks for as long as that takes to answer.
    pub fn refresh(&self) {
        let min_free = self.state().min_free;
        if min_free == MinFree::Bytes(0) {
            return;
        }
        // A directory that is gone is noticed and told elsewhere, and is no matter of space.
        let look = self.look(min_free).ok();
        let mut state = self.state();
        if state.min_free == min_free {
            state.last = look;
        }
    }

    /// An error when the last look has found that less is free than is to stay free. Never blocks: whoever needs it to be
    /// recent calls [`Space::refresh`] from time to time, on a thread of its own.
    pub fn check(&self) -> Result<(), StoreError> {
        match self.state().last {
            Some(look) if !look.is_enough() => Err(StoreError::because(Reason::NoSpace, self.few(look))),
            _ => Ok(()),
        }
    }

    /// Whether `bytes` more may be written now. The file system is looked at once in a while, which blocks.
    pub(crate) fn admit(&self, bytes: u64) -> io::Result<()> {
        let is_good = |look: &SpaceLook| look.at.elapsed() < GOOD_FOR && look.written < GOOD_FOR_BYTES;
        if !self.state().last.as_ref().is_some_and(is_good) {
            self.refresh();
        }
        let mut state = self.state();
        let Some(mut look) = state.last else { return Ok(()) };
        look.written = look.written.saturating_add(bytes);
        let enough = look.is_enough();
        if !enough {
            // What is refused is not written.
            look.written -= bytes;
        }
        state.last = Some(look);
        if enough {
            return Ok(());
        }
        Err(self.few(look))
    }

    /// Whether a floor is set, and the last look has found that more is free.
    #[must_use]
    pub fn is_above_floor(&self) -> bool {
        self.state().last.is_some_and(|look| look.floor > 0 && look.is_enough())
    }

    /// Whether an error says that something would not have fitted above a floor, and not that the file system has refused.
    #[must_use]
    pub fn is_of_floor(error: &StoreError) -> bool {
        let cause = error.cause().downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause.is_some_and(|cause| cause.is::<TooFewBytesFree>() || cause.is::<NoRoomForBody>())
    }

    fn few(&self, look: SpaceLook) -> io::Error {
        let few = TooFewBytesFree {
            path: self.path.clone(),
            free: look.free.saturating_sub(look.written),
            floor: look.floor,
        };
        io::Error::new(io::ErrorKind::StorageFull, few)
    }

    fn state(&self) -> MutexGuard<'_, SpaceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may still be written of `free` bytes.
    pub(crate) fn above_floor(&self, free: u64) -> u64 {
        let min_free = self.state().min_free;
        if min_free == MinFree::Bytes(0) {
            return free;
        }
        self.look(min_free).map_or(free, |look| free.saturating_sub(look.floor))
    }

    fn look(&self, min_free: MinFree) -> io::Result<SpaceLook> {
        let FileSystem { free, total } = (self.ask)(&self.path)?;
        Ok(SpaceLook {
            at: Instant::now(),
            free,
            floor: min_free.of(total),
            written: 0,
        })
    }
}

/// A body would not fit above the floor, by its length alone.
#[derive(Debug)]
pub(crate) struct NoRoomForBody(pub(crate) u64);

impl fmt::Display for NoRoomForBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the disk has no room for a body of {} bytes", self.0)
    }
}

impl std::error::Error for NoRoomForBody {}

/// Less is free than is to stay free.
#[derive(Debug)]
struct TooFewBytesFree {
    path: PathBuf,
    free: u64,
    floor: u64,
}

impl fmt::Display for TooFewBytesFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, free, floor } = self;
        write!(
            f,
            "{free} bytes are free on the file system of {}, and {floor} are to stay free (--min-free): delete images and \
             collect, or make it larger",
            path.display()
        )
    }
}

impl std::error::Error for TooFewBytesFree {}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn the_floor_is_a_size_or_a_part() {
        const GIB: u64 = 1 << 30;
        assert_eq!(MinFree::Bytes(7).of(GIB), 7);
        assert_eq!(MinFree::Percent(10).of(1_000), 100);
        assert_eq!(MinFree::DEFAULT.of(1_000), 50);
        assert_eq!(MinFree::DEFAULT.of(20 * GIB), 20 * GIB / 100 * 5, "at the bound");
        assert_eq!(MinFree::DEFAULT.of(21 * GIB), GIB, "and past it");
        assert_eq!(MinFree::Percent(100).of(0), 0);
    }

    fn look(free: u64, floor: u64, written: u64) -> bool {
        let at = Instant::now();
        SpaceLook {
            at,
            free,
            floor,
            written,
        }
        .is_enough()
    }

    #[test]
    fn what_was_written_since_counts() {
        assert!(look(100, 50, 50));
        assert!(!look(100, 50, 51));
        assert!(look(0, 0, 10), "without a floor the file system decides");
    }

    #[test]
    fn below_the_floor_nothing_more_is_stored() {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::at(folder.path());
        assert!(space.admit(u64::MAX).is_ok(), "there is no floor yet");
        assert!(!space.is_above_floor());
        space.keep(MinFree::Bytes(u64::MAX));
        assert_eq!(space.admit(1).unwrap_err().kind(), io::ErrorKind::StorageFull);
        let error = space.check().unwrap_err();
        assert_eq!(error.reason(), Reason::NoSpace);
        assert!(Space::is_of_floor(&error));
        let full = StoreError::because(Reason::NoSpace, io::Error::from(io::ErrorKind::StorageFull));
        assert!(!Space::is_of_floor(&full));
        let body = io::Error::new(io::ErrorKind::StorageFull, NoRoomForBody(7));
        assert!(Space::is_of_floor(&StoreError::because(Reason::NoSpace, body)));
        assert!(error.to_string().contains("--min-free"), "{error}");
        assert_eq!(space.above_floor(10), 0);
        space.keep(MinFree::Bytes(1));
        space.refresh();
        assert!(space.check().is_ok() && space.is_above_floor());
        assert!(space.above_floor(10) >= 9);
        // A directory that is gone is not full.
        let gone = Space::at(&folder.path().join("gone"));
        gone.keep(MinFree::Bytes(u64::MAX));
        gone.refresh();
        assert!(gone.check().is_ok());
        assert!(gone.admit(1).is_ok());
    }

    static SILENT: Mutex<()> = Mutex::new(());
    static ASKED: AtomicBool = AtomicBool::new(false);

    #[expect(clippy::unnecessary_wraps, reason = "the signature of what it stands in for")]
    fn silent(_: &Path) -> io::Result<FileSystem> {
        ASKED.store(true, Ordering::SeqCst);
        drop(SILENT.lock());
        Ok(FileSystem { free: 0, total: 100 })
    }

    /// A file system that does not answer holds those who write to it, and nobody who asks about it.
    #[test]
    fn a_check_waits_for_no_file_system() {
        let mut space = Space::at(Path::new("/"));
        space.ask = silent;
        space.keep(MinFree::Percent(10));
        let space = &space;
        std::thread::scope(|scope| {
            let hangs = SILENT.lock().unwrap();
            let writer = scope.spawn(|| space.admit(1));
            while !ASKED.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let (answer, answered) = std::sync::mpsc::channel();
            scope.spawn(move || answer.send(space.check().is_ok()));
            // Before anything is asserted, so that a failure is one and does not hang as well.
            let checked = answered.recv_timeout(Duration::from_secs(10));
            drop(hangs);
            assert_eq!(checked, Ok(true), "nothing is known yet");
            assert!(writer.join().unwrap().is_err());
            assert!(space.check().is_err(), "what the writer has found");
        });
    }
}
