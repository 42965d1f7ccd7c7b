//! The stores of a registry on one host: blobs on the local disk, and metadata and upload sessions in one SQLite file.
//!
//! Read in this order: this file (what a shell opens), `open` (what is checked at the start, and what is refused),
//! `files` (the few file system calls that all blobs go through), `inline` (which calls may run on the worker threads
//! of the runtime), `space` and `watch` (the conditions for every write), `blobs` (segments, how they are joined, and
//! reads), `sqlite` (the schema, the one writer with its group commit, the parallel readers, and the operations).
//!
//! ```text
//! <data>/metadata.db          all records, mode 0600: they include the keys that sign upload tokens
//! <data>/blobs/<hex>/<key>    blobs; a key is <session id>.<attempt>
//! ```
//!
//! Several processes may share one data directory on one host. Each of them opens an [`Embedded`] of its own.

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
pub use sqlite::{ACCESS_VERSION, SCHEMA_VERSION, SqliteStatistics, SqliteStore};
pub use turns::MAX_THREADS;
pub use watch::PathWatch;

/// What is durable before a request is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sync {
    /// What was acknowledged survives a power failure: files, their directories and the log of the metadata are synced
    /// before the answer.
    #[default]
    Full,
    /// What was acknowledged survives a crash of the process, but not a crash of the machine. After a power failure,
    /// the metadata may refer to objects that were never written.
    Off,
}

/// The data directory, and how its stores work.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// The data directory. It is created with mode 0700 if it does not exist.
    pub data: PathBuf,
    /// What is durable before a request is acknowledged.
    pub sync: Sync,
    /// The memory budget of all uploads of this process together, in bytes. An upload waits until it gets memory.
    /// Values below 128 KiB count as 128 KiB.
    pub upload_memory: u64,
    /// The maximum time that an upload waits for memory. It must be less than half of the time for which an upload
    /// claims its session.
    pub memory_timeout: Duration,
}

impl EmbeddedOptions {
    /// A suitable value for [`EmbeddedOptions::memory_timeout`].
    pub const MEMORY_TIMEOUT: Duration = Duration::from_secs(30);
}

/// The stores of one data directory.
#[derive(Debug)]
pub struct Embedded {
    /// The blobs.
    pub blobs: Arc<DiskBlobs>,
    /// The metadata. The same store also runs collection, and reads and writes all records for export, import and
    /// checks.
    pub metadata: Arc<SqliteStore>,
    /// The upload sessions. This is the same store as `metadata`.
    pub sessions: Arc<SqliteStore>,
}

/// Opens only the blobs of a data directory, for a registry whose metadata is in another store. Creates and reads
/// nothing but `blobs` in the directory. `created` says that `blobs` may be created; otherwise it must exist.
pub fn open_blobs(options: &EmbeddedOptions, created: bool) -> Result<Arc<DiskBlobs>, OpenError> {
    let if_absent = if created {
        open::IfAbsent::Create
    } else {
        open::IfAbsent::Refuse
    };
    open::open_blobs(options, if_absent).map(Arc::new)
}

impl Embedded {
    /// Opens the data directory, and creates it if it does not exist. Scans nothing, so that the time does not depend
    /// on the amount of data.
    pub fn open(options: &EmbeddedOptions) -> Result<Self, OpenError> {
        open::open(options, open::IfAbsent::Create)
    }

    /// Opens a data directory that exists. Commands that only query a registry use this function, so that a mistyped
    /// path does not create an empty registry.
    pub fn open_existing(options: &EmbeddedOptions) -> Result<Self, OpenError> {
        open::open(options, open::IfAbsent::Refuse)
    }

    /// Stops the writer after it has committed all queued operations. If no other process uses the metadata file, its
    /// log is removed. Every later operation answers that the store is unavailable. Blocks until the last commit ends.
    /// Dropping the last handle of the stores does the same.
    pub fn close(self) {
        self.metadata.close();
    }
}
