//! Deliberate mistakes in the protocols, switched on one at a time by tests.
//!
//! A search through schedules proves something only if it finds mistakes. Each mistake that the protocols guard against
//! is therefore a switch at the line that would be wrong, and a test asserts that the search finds it. Outside tests
//! every switch is a constant `false`, and the compiler removes it.

/// A deliberate mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A put of a manifest reads its targets before it writes its edges.
    LookBeforeEdges,
    /// A put of a manifest leaves the marks on its targets.
    IgnoreMarks,
    /// A removal does not look for edges.
    NoLook,
    /// The deletion of a manifest removes the edges of all its uids.
    EdgesOfEveryUid,
    /// The removal of a link removes the back-links of all its uids.
    BackLinksOfEveryUid,
    /// A commit writes its back-link after it has read the blob record.
    BackLinkLate,
    /// An edge counts only when its manifest is published.
    PublishedEdgesOnly,
    /// A pending deletion is due at once.
    PendingDeletionsAtOnce,
    /// A record is removed before its object is scheduled for deletion.
    ScheduleLate,
    /// An object that is scheduled again keeps its old pending deletion.
    KeepFirstSchedule,
    /// The last check before a deletion reads the pending deletion first, and the blob record second.
    DeletionBeforeRecord,
    /// A pending deletion is removed although its object was scheduled again.
    ForgetBlindly,
    /// A collection pass unlinks on the mark that it has just written.
    UnlinkAtOnce,
    /// The deletion of a manifest ignores a put since it was marked.
    IgnoreVersion,
    /// A link whose creation was not answered is created again without a check of the present link.
    RetryBlindly,
    /// A tag is written without a check of its version.
    BlindTag,
    /// The time of the service is ignored.
    TrustClock,
    /// A blob record gets another location without a check of its present one.
    ReplaceBlindly,
    /// A blob record gets another location, and the links to it are not updated.
    ReplaceWithoutSync,
    /// A defect is recorded without a check of the object that the blob record names.
    RecordBlindly,
    /// A request that has created a link does not read the blob record again.
    CheckOnce,
    /// A request that has updated a link from the blob record does not read that record again.
    SyncOnce,
    /// A put leaves the mark of a collection pass on the catalog row.
    KeepCatalogMark,
    /// A collection pass deletes the catalog row without checking its mark.
    DeleteCatalogBlindly,
}

/// Whether this mistake is switched on.
#[cfg(not(test))]
pub(crate) const fn active(_: Mutation) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switch::{active, during};

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::Mutation;

    thread_local! {
        static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Whether this mistake is switched on, on this thread.
    pub(crate) fn active(mutation: Mutation) -> bool {
        ACTIVE.get() == Some(mutation)
    }

    /// Runs `work` with this mistake switched on, or with none.
    pub(crate) fn during<T>(mutation: Option<Mutation>, work: impl FnOnce() -> T) -> T {
        struct Restore(Option<Mutation>);
        impl Drop for Restore {
            fn drop(&mut self) {
                ACTIVE.set(self.0);
            }
        }
        let _restore = Restore(ACTIVE.replace(mutation));
        work()
    }
}
