//! What is asked of the condition before every call of a store, and what is learnt from how it ends.

use registry::store::StoreError;
use registry::store::wrapped::{CallEnd, Hook};

use super::Condition;
use super::refused::PushStep;

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
enum Effect {
    Reads,
    /// Removes, or changes what is there.
    Changes,
    /// Stores something new, for which there must be space.
    Stores,
}

/// What a method does; one that is not known here changes something.
fn effect(kind: StoreKind, method: &str) -> Effect {
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

/// Lets calls through, and learns from them.
pub(super) struct ConditionGuard {
    pub(super) condition: Condition,
    pub(super) kind: StoreKind,
}

impl Hook for ConditionGuard {
    fn before(&self, method: &'static str) -> Result<(), StoreError> {
        match effect(self.kind, method) {
            Effect::Reads => self.condition.may_read(),
            Effect::Changes => self.condition.may_change(),
            Effect::Stores => self.condition.may_store(),
        }
    }

    fn ended(&self, method: &'static str, end: CallEnd<'_>) {
        if let Some(step) = PushStep::of(self.kind, method) {
            self.condition.0.refused.note(step, end);
        }
    }

    fn after(&self, _method: &'static str) -> Result<(), StoreError> {
        Ok(())
    }

    fn may_keep(&self) -> Result<(), StoreError> {
        self.condition.may_change()
    }
}
