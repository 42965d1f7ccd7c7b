//! The requests of a shell itself to its stores, in addition to those of the core.
//!
//! Each kind of store has one implementation, in the shell that opens it. The parts of this crate that check stores
//! ([`health`](crate::health), [`admission`](crate::admission), the statistics) do not depend on a certain store.

use async_trait::async_trait;
use registry::store::{Context, Location, StoreError};

/// Reads and writes of metadata and upload sessions since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Statements, items and pages that were read.
    pub reads: u64,
    /// Rows or items that were written.
    pub writes: u64,
}

/// Requests to an object store for one operation since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationCounts {
    /// The name of the operation in the protocol of the store.
    pub operation: &'static str,
    /// Requests that were sent, including retries.
    pub sent: u64,
    /// Requests that had no answer or a temporary error.
    pub failed: u64,
}

/// Why a store cannot be used.
#[derive(Debug)]
pub enum ProbeError {
    /// The fault is temporary: the store may answer later, without an operator.
    Passing(StoreError),
    /// An operator must do something first. The text of the cause says what.
    Lasting(StoreError),
}

impl From<ProbeError> for StoreError {
    fn from(error: ProbeError) -> Self {
        let (ProbeError::Passing(error) | ProbeError::Lasting(error)) = error;
        error
    }
}

/// The store of metadata and upload sessions.
#[async_trait]
pub trait MetadataProbe: Send + Sync + 'static {
    /// Whether it is a service, which may not answer while the shell starts, and which costs money for each request.
    fn is_remote(&self) -> bool;

    /// Whether it answers, and has a layout that this program knows. Takes one read for each table, and none for a file.
    async fn check(&self, cx: Context) -> Result<(), ProbeError>;

    /// Whether it never had any records.
    async fn is_new(&self, cx: Context) -> Result<bool, StoreError>;

    /// At most `limit` locations of blobs that have a record and are not recorded as lost. `None` if this store has no cheap
    /// way to find them.
    async fn some_locations(&self, cx: Context, limit: usize) -> Result<Option<Vec<Location>>, StoreError>;

    /// Identifies this store among others with the same description, such as a table of the same name in another region or
    /// account. `None` if the description is unique.
    async fn identity(&self, cx: Context) -> Result<Option<String>, StoreError>;

    /// Its reads and writes.
    fn counts(&self) -> TableCounts;
}

/// An object store. A local disk has no probe.
#[async_trait]
pub trait ObjectStoreProbe: Send + Sync + 'static {
    /// Whether its objects can be read. Takes one request.
    async fn check(&self, cx: Context) -> Result<(), ProbeError>;

    /// A URL with the scheme and the host to which pulls are redirected; `None` if the configuration has no host. Takes no
    /// request.
    async fn public_url(&self) -> Option<String>;

    /// Its requests, by operation.
    fn counts(&self) -> Vec<OperationCounts>;
}

/// Files of a store on this host, watched from time to time. Every method may wait for the disk, except
/// [`LocalFiles::check_space`], [`LocalFiles::is_above_floor`] and [`LocalFiles::is_of_floor`].
pub trait LocalFiles: std::fmt::Debug + Send + Sync + 'static {
    /// Reads the free space of the file system.
    fn refresh_space(&self);

    /// Fails with [`Reason::NoSpace`](registry::store::Reason::NoSpace) if the last read has found less than the minimum free
    /// space.
    fn check_space(&self) -> Result<(), StoreError>;

    /// Whether a minimum free space is set, and the last read has found more than that.
    fn is_above_floor(&self) -> bool;

    /// Whether `error` says that a write would have left less than the minimum free space. Otherwise the file system itself
    /// has refused the write.
    fn is_of_floor(&self, error: &StoreError) -> bool;

    /// Fails with [`Reason::StoreReplaced`](registry::store::Reason::StoreReplaced) if the open files are no longer those at
    /// their paths.
    fn check_in_place(&self) -> Result<(), StoreError>;

    /// Fails with [`Reason::NotWritable`](registry::store::Reason::NotWritable) if permissions or mounts do not allow this
    /// process to write.
    fn check_writable(&self) -> Result<(), StoreError>;
}
