//! Bytes on local disk, names and upload sessions in one SQLite file: the stores of a registry on one host.
//!
//! Read in this order: this file (what a shell opens), `open` (what is refused and why), `files` (the few file system
//! calls that everything goes through), `inline` (which calls may run on the threads that run all requests), `space` and
//! `watch` (what must be so for anything to be written), `blobs` (segments, their joining, reading), `sqlite` (the
//! schema, the one writer with its group commit, the parallel readers, and the operations).
//!
//! ```text
//! <data>/metadata.db          every record, mode 0600: it holds the keys that sign upload tokens
//! <data>/blobs/<hex>/<key>    bytes; a key is <session id>.<attempt>
//! ```
//!
//! Several processes may share one data directory on one host, each with an [`Embedded`] of its own.

mod blobs;
mod files;
mod inline;
mod open;
mod space;
mod sqlite;
mod turns;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use blobs::{DiskBlobs, READ_FILES};
pub use open::OpenError;
pub use space::{MinFree, Space};
pub use sqlite::{SCHEMA_VERSION, SqliteStore, Statistics};
pub use turns::MAX_THREADS;
pub use watch::PathWatch;

/// What durability costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sync {
    /// What was acknowledged survives a loss of power: files, their directories and the log of the metadata are
    /// synced before an answer.
    #[default]
    Full,
    /// What was acknowledged survives a crash of the process, not of the machine. After a loss of power the metadata
    /// may name bytes that were never written.
    Off,
}

/// Where and how the stores are opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; created with mode 0700 if there is none.
    pub data: PathBuf,
    /// What durability costs.
    pub sync: Sync,
    /// Bytes that the buffers of all uploads of this process may hold together; uploads wait for memory. At least
    /// 128 KiB are taken.
    pub upload_memory: u64,
    /// For how long an upload waits for memory. Less than half of the time for which it has claimed its session.
    pub memory_timeout: Duration,
}

impl Options {
    /// A fitting [`Options::memory_timeout`].
    pub const MEMORY_TIMEOUT: Duration = Duration::from_secs(30);
}

/// The stores over one data directory.
#[derive(Debug)]
pub struct Embedded {
    /// Bytes.
    pub blobs: Arc<DiskBlobs>,
    /// Names; also what collects them, and all records for export, import and checks.
    pub metadata: Arc<SqliteStore>,
    /// Upload sessions; the same store as `metadata`.
    pub sessions: Arc<SqliteStore>,
}

/// Opens the bytes of a data directory alone, for a registry whose names are elsewhere: nothing but `blobs` is made or
/// looked at in it. Unless it may be `created`, it must hold bytes already.
pub fn open_blobs(options: &Options, created: bool) -> Result<Arc<DiskBlobs>, OpenError> {
    let absent = if created {
        open::Absent::Create
    } else {
        open::Absent::Refuse
    };
    open::open_blobs(options, absent).map(Arc::new)
}

impl Embedded {
    /// Opens the data directory, and makes one if there is none. Scans nothing, whatever is stored.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        open::open(options, open::Absent::Create)
    }

    /// Opens a data directory that exists already: for commands that ask a registry something and must not make an
    /// empty one where a path was mistyped.
    pub fn open_existing(options: &Options) -> Result<Self, OpenError> {
        open::open(options, open::Absent::Refuse)
    }

    /// Ends the writer after all that was queued, and leaves a metadata file without a log beside it if no other
    /// process uses it. Every operation that comes later answers that the store is unavailable. Blocks for as long as
    /// the last commit takes. Dropping the last handle of the stores does the same.
    pub fn close(self) {
        self.metadata.close();
    }
}
