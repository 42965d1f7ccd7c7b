//! What the methods of the stores do: whether they read, change or store, and which step of a push they are.

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
    /// Removes, or changes what is there.
    Changes,
    /// Stores something new, for which there must be space.
    Stores,
}

/// What a method does; one that is not known here changes something.
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
            // Asked by every HEAD of somebody who may push. Where a mark is met it would write: see `may_keep`.
            | "link_and_unmark",
        )
        | (StoreKind::Sessions, "get" | "parts" | "expired")
        | (StoreKind::Collection, "pending_deletions" | "standing")
        | (StoreKind::Records, "walk" | "place" | "lost") => Effect::Reads,
        (StoreKind::Blobs, "append")
        | (StoreKind::Metadata, "commit_blob" | "mount" | "put_manifest")
        | (StoreKind::Sessions, "claim" | "claim_begun")
        | (StoreKind::Records, "insert") => Effect::Stores,
        _ => Effect::Changes,
    }
}

/// The writes of a push, apart from each other as far as one may be refused and another not. So that one that succeeds
/// says nothing of the others: a key of KMS may let parts be stored and not be completed, a role may change rows and not
/// check others in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PushStep {
    /// Bytes are stored.
    Append,
    /// They become one object.
    Seal,
    /// An upload is claimed, or what it has stored is recorded.
    Session,
    /// It ends with what it becomes.
    SessionEnd,
    /// A blob or a manifest becomes visible.
    Metadata,
}

impl PushStep {
    /// What a method writes of a push; `None`: it belongs to none, or pushes work without it.
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

    /// For the log.
    pub(super) fn store(self) -> &'static str {
        match self {
            Self::Append | Self::Seal => "blobs",
            Self::Session | Self::SessionEnd => "sessions",
            Self::Metadata => "metadata",
        }
    }
}
