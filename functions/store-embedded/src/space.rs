//! Keeps a minimum of free space on a file system. When the free space falls below this floor, nothing new is stored.
//! So deletions always have the space that they need themselves.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use registry::store::{Reason, StoreError};

/// The maximum age of a measurement of the file system.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The file system is measured again after this number of bytes, even before [`GOOD_FOR`] has passed.
const GOOD_FOR_BYTES: u64 = 16 << 20;

/// The space that must stay free on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinFree {
    /// This number of bytes; 0 switches the floor off.
    Bytes(u64),
    /// This percentage of the file system.
    Percent(u8),
    /// This percentage of the file system, but at most this number of bytes.
    PercentUpTo(u8, u64),
}

impl MinFree {
    /// 5 % of the file system, but at most 1 GiB.
    pub const DEFAULT: Self = Self::PercentUpTo(5, 1 << 30);

    /// The floor in bytes, on a file system of `total` bytes.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        let hundredths = |percent: u8| total / 100 * u64::from(percent);
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => hundredths(percent),
            Self::PercentUpTo(percent, maximum) => hundredths(percent).min(maximum),
        }
    }
}

/// The space on the file system of one directory.
#[derive(Debug)]
pub struct Space {
    path: PathBuf,
    ask: fn(&Path) -> io::Result<FileSystem>,
    /// The lock is never held during a call to the file system: if the file system does not answer, callers who only
    /// read the state must not wait.
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
    last: Option<SpaceMeasurement>,
}

/// What the last measurement found, and what was written since.
#[derive(Clone, Copy, Debug)]
struct SpaceMeasurement {
    at: Instant,
    free: u64,
    floor: u64,
    written: u64,
}

impl SpaceMeasurement {
    fn is_enough(&self) -> bool {
        self.floor == 0 || self.free.saturating_sub(self.written) >= self.floor
    }
}

impl Space {
    /// Creates it without a floor; [`Space::keep`] sets one.
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

    /// Sets the space that must stay free from now on.
    pub fn keep(&self, min_free: MinFree) {
        *self.state() = SpaceState { min_free, last: None };
    }

    /// Measures the file system. Blocks until the file system answers.
    pub fn refresh(&self) {
        let min_free = self.state().min_free;
        if min_free == MinFree::Bytes(0) {
            return;
        }
        // Another check notices and reports a missing directory; it is not an error of space.
        let look = self.look(min_free).ok();
        let mut state = self.state();
        if state.min_free == min_free {
            state.last = look;
        }
    }

    /// Returns an error if the last measurement found less free space than the floor. Never blocks: a caller that needs
    /// recent values calls [`Space::refresh`] regularly, on a thread of its own.
    pub fn check(&self) -> Result<(), StoreError> {
        match self.state().last {
            Some(look) if !look.is_enough() => Err(StoreError::because(Reason::NoSpace, self.too_few(look))),
            _ => Ok(()),
        }
    }

    /// Checks that `bytes` more may be written now. Measures the file system when the last measurement is too old,
    /// which blocks.
    pub(crate) fn admit(&self, bytes: u64) -> io::Result<()> {
        let is_good = |look: &SpaceMeasurement| look.at.elapsed() < GOOD_FOR && look.written < GOOD_FOR_BYTES;
        if !self.state().last.as_ref().is_some_and(is_good) {
            self.refresh();
        }
        let mut state = self.state();
        let Some(mut look) = state.last else { return Ok(()) };
        look.written = look.written.saturating_add(bytes);
        let enough = look.is_enough();
        if !enough {
            // Refused bytes are not written, so they do not count.
            look.written -= bytes;
        }
        state.last = Some(look);
        if enough {
            return Ok(());
        }
        Err(self.too_few(look))
    }

    /// Whether a floor is set, and the last measurement found more free space than that.
    #[must_use]
    pub fn is_above_floor(&self) -> bool {
        self.state().last.is_some_and(|look| look.floor > 0 && look.is_enough())
    }

    /// Whether an error was caused by the floor, and not by the file system itself.
    #[must_use]
    pub fn is_of_floor(error: &StoreError) -> bool {
        let cause = error.cause().downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause.is_some_and(|cause| cause.is::<TooFewBytesFree>() || cause.is::<NoSpaceForBody>())
    }

    fn too_few(&self, look: SpaceMeasurement) -> io::Error {
        let too_few = TooFewBytesFree {
            path: self.path.clone(),
            free: look.free.saturating_sub(look.written),
            floor: look.floor,
        };
        io::Error::new(io::ErrorKind::StorageFull, too_few)
    }

    fn state(&self) -> MutexGuard<'_, SpaceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of `free` bytes may still be written.
    pub(crate) fn above_floor(&self, free: u64) -> u64 {
        let min_free = self.state().min_free;
        if min_free == MinFree::Bytes(0) {
            return free;
        }
        self.look(min_free).map_or(free, |look| free.saturating_sub(look.floor))
    }

    fn look(&self, min_free: MinFree) -> io::Result<SpaceMeasurement> {
        let FileSystem { free, total } = (self.ask)(&self.path)?;
        Ok(SpaceMeasurement {
            at: Instant::now(),
            free,
            floor: min_free.of(total),
            written: 0,
        })
    }
}

/// The declared length of a body does not fit above the floor.
#[derive(Debug)]
pub(crate) struct NoSpaceForBody(pub(crate) u64);

impl fmt::Display for NoSpaceForBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the disk has no space for a body of {} bytes", self.0)
    }
}

impl std::error::Error for NoSpaceForBody {}

/// Less space is free than the floor.
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
            "{free} bytes are free on the file system of {}, and {floor} bytes must stay free (setting min-free): delete \
             images and run a collection, or enlarge the file system",
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
    fn the_floor_is_a_size_or_a_percentage() {
        const GIB: u64 = 1 << 30;
        assert_eq!(MinFree::Bytes(7).of(GIB), 7);
        assert_eq!(MinFree::Percent(10).of(1_000), 100);
        assert_eq!(MinFree::DEFAULT.of(1_000), 50);
        assert_eq!(MinFree::DEFAULT.of(20 * GIB), 20 * GIB / 100 * 5, "at the bound");
        assert_eq!(MinFree::DEFAULT.of(21 * GIB), GIB, "above the bound");
        assert_eq!(MinFree::Percent(100).of(0), 0);
    }

    fn look(free: u64, floor: u64, written: u64) -> bool {
        let at = Instant::now();
        SpaceMeasurement {
            at,
            free,
            floor,
            written,
        }
        .is_enough()
    }

    #[test]
    fn bytes_written_since_the_measurement_count() {
        assert!(look(100, 50, 50));
        assert!(!look(100, 50, 51));
        assert!(look(0, 0, 10), "without a floor the file system decides");
    }

    #[test]
    fn a_write_below_the_floor_is_refused() {
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
        let body = io::Error::new(io::ErrorKind::StorageFull, NoSpaceForBody(7));
        assert!(Space::is_of_floor(&StoreError::because(Reason::NoSpace, body)));
        assert!(error.to_string().contains("setting min-free"), "{error}");
        assert_eq!(space.above_floor(10), 0);
        space.keep(MinFree::Bytes(1));
        space.refresh();
        assert!(space.check().is_ok() && space.is_above_floor());
        assert!(space.above_floor(10) >= 9);
        // A missing directory does not count as full.
        let missing = Space::at(&folder.path().join("missing"));
        missing.keep(MinFree::Bytes(u64::MAX));
        missing.refresh();
        assert!(missing.check().is_ok());
        assert!(missing.admit(1).is_ok());
    }

    static UNANSWERED: Mutex<()> = Mutex::new(());
    static ASKED: AtomicBool = AtomicBool::new(false);

    #[expect(clippy::unnecessary_wraps, reason = "the signature of what it stands in for")]
    fn unanswered(_: &Path) -> io::Result<FileSystem> {
        ASKED.store(true, Ordering::SeqCst);
        drop(UNANSWERED.lock());
        Ok(FileSystem { free: 0, total: 100 })
    }

    /// When a file system does not answer, callers that write to it wait. Callers that only check its state do not.
    #[test]
    fn a_check_does_not_wait_for_the_file_system() {
        let mut space = Space::at(Path::new("/"));
        space.ask = unanswered;
        space.keep(MinFree::Percent(10));
        let space = &space;
        std::thread::scope(|scope| {
            let lock = UNANSWERED.lock().unwrap();
            let writer = scope.spawn(|| space.admit(1));
            while !ASKED.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let (answer, answered) = std::sync::mpsc::channel();
            scope.spawn(move || answer.send(space.check().is_ok()));
            // Before the assertions, so that a failed assertion does not also hang the test.
            let checked = answered.recv_timeout(Duration::from_secs(10));
            drop(lock);
            assert_eq!(checked, Ok(true), "there is no measurement yet");
            assert!(writer.join().unwrap().is_err());
            assert!(space.check().is_err(), "the measurement of the writer");
        });
    }
}
