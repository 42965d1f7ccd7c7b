//! The common part of all files that are read again when they change: when they are checked, how a change is noticed, how a
//! file is read, and how often the log repeats that a file cannot be used.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use tokio::sync::Mutex;

/// Time between two checks of a file.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Maximum time for which a request or a connection waits for a check. A check does not end on a network share that is down.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// Time after which an unchanged complaint is logged again.
const COMPLAIN_AGAIN: Duration = Duration::from_mins(10);

/// Identifies the state of a file. For a symbolic link, it is the state of the file behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The present state of a file; `None` if there is none.
    pub(crate) fn now(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    /// Whether a later change would certainly be noticed. A file that has just changed may change again within the resolution
    /// of its time stamps.
    pub(crate) fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_secs()).unwrap_or(i64::MAX) > self.changed.0.saturating_add(2)
    }
}

/// A file that was read, and its state before that.
pub(crate) struct Read {
    pub(crate) bytes: Vec<u8>,
    pub(crate) stamp: Stamp,
    /// The permissions of the file, as `chmod` has them.
    pub(crate) mode: u32,
}

/// Reads a file of at most `max` bytes; `None`: it is larger.
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Option<Read>> {
    // If the file was replaced by a pipe, the thread must not wait until the pipe is written.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    read_open(file, max)
}

/// The same for an open file.
pub(crate) fn read_open(file: File, max: u64) -> io::Result<Option<Read>> {
    let metadata = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    let read = Read {
        bytes,
        stamp: Stamp::of(&metadata),
        mode: metadata.mode(),
    };
    Ok((read.bytes.len() as u64 <= max).then_some(read))
}

/// Decides when files are checked: at most once a second, when they are needed.
pub(crate) struct Looks {
    started: Instant,
    /// The time of the next check, in milliseconds after `started`.
    next: AtomicU64,
    /// Locked during a check, so that a file system that does not answer blocks one thread, and not one each second.
    looking: Arc<Mutex<()>>,
}

impl Looks {
    /// For files that were just read.
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            next: AtomicU64::new(millis(LOOK_AGAIN)),
            looking: Arc::default(),
        }
    }

    /// Runs `look` if a check is due. One caller runs it, and waits for its end for a short time. Other callers do not wait,
    /// and use the last state.
    pub(crate) async fn when_due(&self, look: impl FnOnce() + Send + 'static) {
        let now = millis(self.started.elapsed());
        if now < self.next.load(Ordering::Acquire) {
            return;
        }
        let Ok(turn) = self.looking.clone().try_lock_owned() else {
            return;
        };
        self.next.store(now + millis(LOOK_AGAIN), Ordering::Release);
        let looked = tokio::task::spawn_blocking(move || {
            look();
            drop(turn);
        });
        let _ = tokio::time::timeout(LOOK_TIMEOUT, looked).await;
    }

    /// Runs `look` now, or after the check in progress.
    pub(crate) async fn now(&self, look: impl FnOnce() + Send + 'static) {
        let turn = self.looking.clone().lock_owned().await;
        let looked = tokio::task::spawn_blocking(move || {
            look();
            drop(turn);
        });
        let _ = looked.await;
    }
}

/// The fault that was logged last.
#[derive(Default)]
pub(crate) struct Complaint(Option<(String, Instant)>);

impl Complaint {
    /// Whether `text` is to be logged now: because it is new, because it was logged long ago, or because of `asked`.
    pub(crate) fn is_due(&mut self, text: &str, asked: bool) -> bool {
        let repeated = self
            .0
            .as_ref()
            .is_some_and(|(before, at)| before == text && at.elapsed() < COMPLAIN_AGAIN);
        if repeated && !asked {
            return false;
        }
        self.0 = Some((text.to_owned(), Instant::now()));
        true
    }

    /// Notes that there is no fault any more. Returns whether there was one.
    pub(crate) fn end(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// The text that was logged last.
    #[cfg(test)]
    pub(crate) fn text(&self) -> Option<String> {
        self.0.as_ref().map(|(text, _)| text.clone())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
impl Looks {
    /// Makes the next call check the files, as if a second had passed.
    pub(crate) fn a_second_later(&self) {
        self.next.store(0, Ordering::Release);
    }

    /// Prevents further checks.
    pub(crate) fn never(&self) {
        self.next.store(u64::MAX, Ordering::Release);
    }
}
