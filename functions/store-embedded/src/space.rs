//! How much of a file system is left to others: below a floor nothing new is stored, so that what deletes always finds
//! the space that it needs itself.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
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
    state: Mutex<SpaceState>,
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
            state: Mutex::new(SpaceState {
                min_free: MinFree::Bytes(0),
                last: None,
            }),
        }
    }

    /// From now on, so much stays free.
    pub fn keep(&self, min_free: MinFree) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = SpaceState { min_free, last: None };
    }

    /// An error when less is free than is to stay free.
    pub fn check(&self) -> Result<(), StoreError> {
        self.admit(0)
            .map_err(|error| StoreError::because(Reason::NoSpace, error))
    }

    /// Whether `bytes` more may be written now. Cheap: the file system is looked at once in a while.
    pub(crate) fn admit(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.min_free == MinFree::Bytes(0) {
            return Ok(());
        }
        let good = state
            .last
            .filter(|look| look.at.elapsed() < GOOD_FOR && look.written < GOOD_FOR_BYTES);
        let mut look = match good {
            Some(look) => look,
            None => match self.look(state.min_free) {
                Ok(look) => look,
                // A directory that is gone is noticed and told elsewhere, and is no matter of space.
                Err(_) => return Ok(()),
            },
        };
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
        let few = TooFewBytesFree {
            path: self.path.clone(),
            free: look.free.saturating_sub(look.written),
            floor: look.floor,
        };
        Err(io::Error::new(io::ErrorKind::StorageFull, few))
    }

    /// What may still be written of `free` bytes.
    pub(crate) fn above_floor(&self, free: u64) -> u64 {
        let min_free = self.state.lock().unwrap_or_else(PoisonError::into_inner).min_free;
        if min_free == MinFree::Bytes(0) {
            return free;
        }
        self.look(min_free).map_or(free, |look| free.saturating_sub(look.floor))
    }

    fn look(&self, min_free: MinFree) -> io::Result<SpaceLook> {
        let system = rustix::fs::statvfs(&self.path)?;
        Ok(SpaceLook {
            at: Instant::now(),
            free: system.f_bavail.saturating_mul(system.f_frsize),
            floor: min_free.of(system.f_blocks.saturating_mul(system.f_frsize)),
            written: 0,
        })
    }
}

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
        space.keep(MinFree::Bytes(u64::MAX));
        assert_eq!(space.admit(1).unwrap_err().kind(), io::ErrorKind::StorageFull);
        let error = space.check().unwrap_err();
        assert_eq!(error.reason(), Reason::NoSpace);
        assert!(error.to_string().contains("--min-free"), "{error}");
        assert_eq!(space.above_floor(10), 0);
        space.keep(MinFree::Bytes(1));
        assert!(space.check().is_ok());
        assert!(space.above_floor(10) >= 9);
        // A directory that is gone is not full.
        let gone = Space::at(&folder.path().join("gone"));
        gone.keep(MinFree::Bytes(u64::MAX));
        assert!(gone.check().is_ok());
    }
}
