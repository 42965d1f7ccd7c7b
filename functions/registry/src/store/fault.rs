//! Faults of a store: a [`Reason`] for clients and operators, and the store's own text for the log.

use std::error::Error;
use std::fmt;

pub use crate::cause::Cause;

/// A store could not do its work. The request itself is not wrong.
///
/// Made by [`StoreError::because`]. The [`Reason`] decides which variant it is.
#[derive(Debug)]
pub enum StoreError {
    /// The store's retries did not succeed before the deadline, or a temporary condition prevents the work. The same
    /// request may succeed later (503 with `Retry-After`).
    Unavailable(StoreFault),
    /// The stored data is not what was written, or the store refused what it should accept (500).
    Failed(StoreFault),
}

/// The reason of a [`StoreError`], and the store's own text.
#[derive(Debug)]
pub struct StoreFault {
    reason: Reason,
    cause: Cause,
}

/// The reason of a fault. Clients may see it, and operators need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The store of blobs or metadata has no free space, or less than its configured minimum. Deletions help.
    NoSpace,
    /// This process may read the store but not write to it, for instance because of a file mode or a read-only file
    /// system.
    NotWritable,
    /// The object store does not respond.
    ObjectStoreUnreachable,
    /// The object store refuses this registry: a permission or the bucket is missing.
    ObjectStoreRefuses,
    /// The table or the file of the metadata does not respond.
    MetadataUnreachable,
    /// The table refuses this registry: a permission or the table is missing.
    MetadataRefuses,
    /// A service throttles this registry.
    Throttled,
    /// No memory became free before the timeout.
    Memory,
    /// Credentials cannot be checked now.
    Credentials,
    /// The clock of this process differs too much from that of a service.
    ClockOff,
    /// The store is not the one that was opened: it was removed or replaced since.
    StoreReplaced,
    /// An object or a row is missing, or is not what was written.
    Damaged,
    /// Another temporary fault.
    Unavailable,
    /// Another permanent fault.
    Failed,
}

impl Reason {
    /// Whether the fault is temporary: the same request may succeed later, without a repair of data or permissions.
    fn passes(self) -> bool {
        match self {
            Self::ObjectStoreRefuses | Self::MetadataRefuses | Self::Damaged | Self::Failed => false,
            Self::NoSpace
            | Self::NotWritable
            | Self::ObjectStoreUnreachable
            | Self::MetadataUnreachable
            | Self::Throttled
            | Self::Memory
            | Self::Credentials
            | Self::ClockOff
            | Self::StoreReplaced
            | Self::Unavailable => true,
        }
    }

    /// The text for clients and operators. It is fixed, and reveals nothing about what is stored or where.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NoSpace => "no space is left for uploads; deletions and pulls go on",
            Self::NotWritable => "the registry may not write to its store; pulls go on",
            Self::ObjectStoreUnreachable => "the object store cannot be reached",
            Self::ObjectStoreRefuses => "the object store refuses the registry: a permission or the bucket is missing",
            Self::MetadataUnreachable => "the metadata store cannot be reached",
            Self::MetadataRefuses => "the metadata store refuses the registry: a permission or the table is missing",
            Self::Throttled => "the registry's store asks for fewer requests",
            Self::Memory => "no memory became free for the request",
            Self::Credentials => "credentials cannot be checked now",
            Self::ClockOff => "the registry's clock is wrong, so that it stores and removes nothing",
            Self::StoreReplaced => "the registry's store was removed or replaced while it was running",
            Self::Damaged => "a stored object is lost or damaged: push the image again",
            Self::Unavailable => "the registry cannot do this now",
            Self::Failed => "the registry failed to do this",
        }
    }
}

impl StoreError {
    /// An error with this reason. `cause` is the store's own text.
    pub fn because(reason: Reason, cause: impl Into<Cause>) -> Self {
        let fault = StoreFault {
            reason,
            cause: cause.into(),
        };
        if reason.passes() {
            Self::Unavailable(fault)
        } else {
            Self::Failed(fault)
        }
    }

    /// A [`StoreError::Unavailable`] with the given cause, and no more specific reason.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::because(Reason::Unavailable, cause)
    }

    /// A [`StoreError::Failed`] with the given cause, and no more specific reason.
    pub fn failed(cause: impl Into<Cause>) -> Self {
        Self::because(Reason::Failed, cause)
    }

    /// A [`StoreError::Failed`] because of [`Damage`].
    pub fn damaged(what: impl fmt::Display) -> Self {
        Self::because(Reason::Damaged, Damage(what.to_string()))
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.fault().reason
    }

    /// The store's own text.
    #[must_use]
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.fault().cause
    }

    /// The store's own text, for an error that wraps it.
    #[must_use]
    pub fn into_cause(self) -> Cause {
        let (Self::Unavailable(fault) | Self::Failed(fault)) = self;
        fault.cause
    }

    /// The damage, if that is the cause: the store works, but the data of one record or object is not what was written.
    #[must_use]
    pub fn damage(&self) -> Option<&Damage> {
        self.cause().downcast_ref()
    }

    fn fault(&self) -> &StoreFault {
        let (Self::Unavailable(fault) | Self::Failed(fault)) = self;
        fault
    }
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(fault) => write!(f, "store unavailable: {}", fault.cause),
            Self::Failed(fault) => write!(f, "store failed: {}", fault.cause),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.cause())
    }
}

/// The data of one record or object is not what was written; the text says which and why. All other data can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub String);
