//! Writes of pushes that a store has refused: what only a write can tell counts until one succeeds.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use registry::store::wrapped::CallEnd;
use registry::store::{Reason, StoreError};
use store_embedded::Space;

use super::guard::StoreKind;

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
    fn store(self) -> &'static str {
        match self {
            Self::Append | Self::Seal => "blobs",
            Self::Session | Self::SessionEnd => "sessions",
            Self::Metadata => "metadata",
        }
    }
}

#[derive(Debug)]
struct RefusedWrite {
    reason: Reason,
    text: String,
    /// Whether it was refused because of a floor, or less than that was free since: then it counts no longer than until
    /// enough is free, which looks tell. What a file system refuses for other limits of its own, only a write tells.
    is_of_floor: bool,
}

/// Writes that were refused, and none of their kind has succeeded since.
#[derive(Debug, Default)]
pub(super) struct RefusedWrites(Mutex<BTreeMap<PushStep, RefusedWrite>>);

impl RefusedWrites {
    /// Notes how a write has ended.
    pub(super) fn note(&self, step: PushStep, end: CallEnd<'_>) {
        match end {
            CallEnd::Done => {
                if self.all().remove(&step).is_some() {
                    tracing::info!(store = step.store(), "a write has succeeded again");
                }
            }
            CallEnd::NothingWritten => {}
            CallEnd::Failed(error) => self.note_failed(step, error),
        }
    }

    fn note_failed(&self, step: PushStep, error: &StoreError) {
        let reason = error.reason();
        if matches!(
            reason,
            Reason::NoSpace | Reason::NotWritable | Reason::ObjectStoreRefuses | Reason::MetadataRefuses
        ) {
            let write = RefusedWrite {
                reason,
                text: error.to_string(),
                is_of_floor: Space::is_of_floor(error),
            };
            self.all().insert(step, write);
        }
    }

    /// Less is free than is to stay free: when enough is again, what was refused for want of space counts no more.
    pub(super) fn below_floor(&self) {
        for write in self.all().values_mut() {
            write.is_of_floor |= write.reason == Reason::NoSpace;
        }
    }

    /// Adds why pushes would be refused. `has_space`: a look has found more free than is to stay free.
    pub(super) fn add_to(&self, blocks: &mut BTreeMap<Reason, String>, has_space: bool) {
        for write in self.all().values().filter(|write| !(write.is_of_floor && has_space)) {
            blocks.entry(write.reason).or_insert_with(|| write.text.clone());
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<PushStep, RefusedWrite>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
