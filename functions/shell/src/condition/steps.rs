//! What each method of the stores does: whether it reads, changes or stores, and which step of a push it is.

/// The traits of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreKind {
    Blobs,
    Metadata,
    Sessions,
    Collection,
    Records,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    /// Deletes or changes existing data.
    Changes,
    /// Stores new data, which needs free space.
    Stores,
}

/// What a method does. An unknown method counts as a change.
pub(super) fn effect(kind: StoreKind, method: &str) -> Effect {
    match (kind, method) {
        (StoreKind::Blobs, "read" | "redirect" | "stat" | "objects")
        | (
            StoreKind::Metadata,
            "link"
            | "manifest"
            | "tag"
            | "tagged_manifest"
            | "tags"
            | "history"
            | "repository"
            | "repositories"
            | "manifests"
            | "referrers"
            | "linking_repositories"
            // Called by each HEAD of a client that may push. It writes only if it finds a mark: see `may_keep`.
            | "link_and_unmark",
        )
        | (StoreKind::Sessions, "get" | "parts" | "expired")
        | (StoreKind::Collection, "pending_deletions" | "check_pending_deletion")
        | (StoreKind::Records, "walk" | "recorded_object" | "missing_back_references") => Effect::Reads,
        (StoreKind::Blobs, "append")
        | (StoreKind::Metadata, "commit_blob" | "mount" | "put_manifest")
        | (StoreKind::Sessions, "claim" | "claim_begun")
        | (StoreKind::Records, "insert") => Effect::Stores,
        _ => Effect::Changes,
    }
}

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
    pub(super) fn of(kind: StoreKind, method: &str) -> Option<Self> {
        match (kind, method) {
            (StoreKind::Blobs, "append") => Some(Self::Append),
            (StoreKind::Blobs, "seal") => Some(Self::Seal),
            (StoreKind::Sessions, "claim" | "claim_begun" | "save") => Some(Self::Session),
            (StoreKind::Sessions, "commit" | "finish") => Some(Self::SessionEnd),
            (StoreKind::Metadata, "commit_blob" | "mount" | "put_manifest") | (StoreKind::Records, "insert") => {
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
