//! The kinds of writes of a push.

use registry::store::wrapped::StoreMethod;

/// The kinds of writes of a push. Two writes are of different kinds if a store may refuse one and accept the other: a KMS
/// key may allow to store parts and not to complete them; a role may allow to change rows and not to check other rows in a
/// transaction. So the success of one kind says nothing about the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PushStep {
    /// Stores bytes of an upload.
    Append,
    /// Makes one object of the bytes.
    Seal,
    /// Claims an upload session, or saves its progress.
    Session,
    /// Ends an upload session.
    SessionEnd,
    /// Publishes a blob or a manifest.
    Metadata,
}

impl PushStep {
    /// The kind of a method; `None` if it is no part of a push, or if pushes work without it.
    pub(super) fn of(method: StoreMethod) -> Option<Self> {
        match method {
            StoreMethod::Append => Some(Self::Append),
            StoreMethod::Seal => Some(Self::Seal),
            StoreMethod::Claim | StoreMethod::ClaimExisting | StoreMethod::Save => Some(Self::Session),
            StoreMethod::Commit | StoreMethod::Finish => Some(Self::SessionEnd),
            StoreMethod::CommitBlob | StoreMethod::Mount | StoreMethod::PutManifest | StoreMethod::Insert => {
                Some(Self::Metadata)
            }
            _ => None,
        }
    }

    /// The name of the store in the log.
    pub(super) fn store(self) -> &'static str {
        match self {
            Self::Append | Self::Seal => "blobs",
            Self::Session | Self::SessionEnd => "sessions",
            Self::Metadata => "metadata",
        }
    }
}
