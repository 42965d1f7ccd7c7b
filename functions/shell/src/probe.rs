//! What a shell asks of a store itself, beside the operations that the core asks for.
//!
//! Each kind of store has one implementation, in the shell that opens it; the parts of this crate that judge stores
//! ([`health`](crate::health), `admission`, the statistics) know no store by name.

use async_trait::async_trait;
use registry::store::{Context, Location, StoreError};

/// What has been asked of the tables of metadata and sessions since they were opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Statements, items and pages that were read.
    pub reads: u64,
    /// Rows or items that were written.
    pub writes: u64,
}

/// How often one operation has been asked of an object store since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationCounts {
    /// The name of the operation, as the store's protocol has it.
    pub operation: &'static str,
    /// Requests sent, repetitions included.
    pub sent: u64,
    /// Those that were not answered, or with an error that passes.
    pub failed: u64,
}

/// Why a store cannot be used.
#[derive(Debug)]
pub enum ProbeError {
    /// It may answer later, and nobody has to do anything about it.
    Passing(StoreError),
    /// An operator has to do something first. The text of the cause says what.
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
    /// Whether it is a service of its own, which may be away while the shell starts, and which costs money for each
    /// request.
    fn is_remote(&self) -> bool;

    /// Whether it answers, and this program understands what lies there. One read for each table; none for a file.
    async fn check(&self, cx: Context) -> Result<(), ProbeError>;

    /// Whether nothing was ever kept in it.
    async fn is_new(&self, cx: Context) -> Result<bool, StoreError>;

    /// At most `limit` locations of blobs that the metadata names and does not record as lost. `None`: this store has no
    /// cheap way to tell.
    async fn some_locations(&self, cx: Context, limit: usize) -> Result<Option<Vec<Location>>, StoreError>;

    /// What tells this store from every other one that is described alike, such as a table of the same name in another
    /// region or account. `None`: the description is enough.
    async fn identity(&self, cx: Context) -> Result<Option<String>, StoreError>;

    /// What was asked of it.
    fn counts(&self) -> TableCounts;
}

/// An object store. A local disk has no probe.
#[async_trait]
pub trait ObjectStoreProbe: Send + Sync + 'static {
    /// Whether its objects can be read. One request.
    async fn check(&self, cx: Context) -> Result<(), ProbeError>;

    /// A URL with the scheme and the host to which pulls are redirected. No request. `None`: the configuration names no
    /// host.
    async fn public_url(&self) -> Option<String>;

    /// What was asked of it, by operation.
    fn counts(&self) -> Vec<OperationCounts>;
}

/// Files of a store on this host, watched from time to time. Every method may wait for the disk, except
/// [`LocalFiles::check_space`], [`LocalFiles::is_above_floor`] and [`LocalFiles::is_of_floor`].
pub trait LocalFiles: std::fmt::Debug + Send + Sync + 'static {
    /// Looks at the space of the file system.
    fn refresh_space(&self);

    /// An error with [`Reason::NoSpace`](registry::store::Reason::NoSpace) when the last look has found less space than is
    /// to stay free.
    fn check_space(&self) -> Result<(), StoreError>;

    /// Whether a floor is set, and the last look has found more space than that.
    fn is_above_floor(&self) -> bool;

    /// Whether `error` says that something would not have fitted above the floor. Otherwise the file system itself has
    /// refused.
    fn is_of_floor(&self, error: &StoreError) -> bool;

    /// An error with [`Reason::StoreReplaced`](registry::store::Reason::StoreReplaced) when the files that are open are no
    /// longer those at their paths.
    fn check_in_place(&self) -> Result<(), StoreError>;

    /// An error with [`Reason::NotWritable`](registry::store::Reason::NotWritable) when modes or mounts do not let this
    /// process write.
    fn check_writable(&self) -> Result<(), StoreError>;
}
