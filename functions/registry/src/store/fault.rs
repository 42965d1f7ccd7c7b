//! Why a store could not do its work: for the log in the store's own words, for everybody else as a [`Reason`].

use std::error::Error;
use std::fmt;

/// A boxed cause, kept for the log; its text never reaches a client.
pub type Cause = Box<dyn Error + Send + Sync>;

/// A store could not do its work. Nothing about the request is wrong.
///
/// Made by [`StoreError::because`], whose [`Reason`] decides which of the two it is.
#[derive(Debug)]
pub enum StoreError {
    /// The store's retries did not succeed before the deadline, or something that passes is short now; the same request
    /// may succeed later (503 with `Retry-After`).
    Unavailable(StoreFault),
    /// What is stored is not what was written, or the store refused what it should accept (500).
    Failed(StoreFault),
}

/// The reason of a [`StoreError`] and what the store said.
#[derive(Debug)]
pub struct StoreFault {
    reason: Reason,
    cause: Cause,
}

/// What is wrong, as far as a client may know it and an operator must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No space is left where blobs or metadata are stored, or less than the floor. Deleting helps.
    NoSpace,
    /// This process may read the store and not write to it: a mode, a read-only file system.
    NotWritable,
    /// The object store does not answer.
    ObjectStoreUnreachable,
    /// The object store refuses this registry: a missing permission or bucket.
    ObjectStoreRefuses,
    /// The table or the file of the metadata does not answer.
    MetadataUnreachable,
    /// The table refuses this registry: a missing permission or table.
    MetadataRefuses,
    /// A service asks for fewer requests.
    Throttled,
    /// No memory became free in time.
    Memory,
    /// Credentials cannot be checked now.
    Credentials,
    /// The clock of this process differs from that of a service by too much.
    ClockOff,
    /// The store is not the one that was opened: it was removed or replaced meanwhile.
    StoreReplaced,
    /// An object or a row is not what was written, or is gone.
    Damaged,
    /// Something else that passes.
    Unavailable,
    /// Something else that does not.
    Failed,
}

impl Reason {
    /// Whether the same request may succeed later without anybody mending what is stored or allowed.
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

    /// What a client is told, and what an operator reads first. Fixed text: it says nothing of what is stored where.
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
    /// The error with this reason, for which `cause` is the store's own text.
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

    /// A [`StoreError::Unavailable`] with the given cause and no reason that a client could use.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::because(Reason::Unavailable, cause)
    }

    /// A [`StoreError::Failed`] with the given cause and no reason that a client could use.
    pub fn failed(cause: impl Into<Cause>) -> Self {
        Self::because(Reason::Failed, cause)
    }

    /// A [`StoreError::Failed`] because of [`Damage`].
    pub fn damaged(what: impl fmt::Display) -> Self {
        Self::because(Reason::Damaged, Damage(what.to_string()))
    }

    /// Why, in general.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.fault().reason
    }

    /// Why, in the store's own words.
    #[must_use]
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.fault().cause
    }

    /// The store's own words, for an error that wraps them.
    #[must_use]
    pub fn into_cause(self) -> Cause {
        let (Self::Unavailable(fault) | Self::Failed(fault)) = self;
        fault.cause
    }

    /// The damage, if that is why: the store works, and what it holds at this one place is not what was written.
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

/// What a store holds at one place is not what was written: which place, and why. Everything else can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub String);
