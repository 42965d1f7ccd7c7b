//! The protocols broken on purpose, one mistake at a time.
//!
//! A search through schedules proves something only if it finds what is wrong. Each mistake that the protocols guard
//! against is therefore kept as a switch at the very line that would be wrong, and a test asserts that the search
//! finds it. Outside tests every switch is a constant `false`, and nothing is left of it.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A manifest looks at what it refers to before it has written its edges.
    LookBeforeEdges,
    /// A manifest that meets a mark on what it refers to leaves it there.
    IgnoreMarks,
    /// A removal does not look for edges.
    NoLook,
    /// Deleting a manifest removes the edges of all its lives.
    EdgesOfEveryUid,
    /// Removing a link removes the back-links of all its lives.
    BackLinksOfEveryUid,
    /// A commit writes its back-link after it has looked for the bytes.
    BackLinkLate,
    /// An edge counts only when the manifest that makes it is published.
    PublishedEdgesOnly,
    /// What was buried is due at once.
    PendingDeletionsAtOnce,
    /// What names an object is removed before its grave is dug.
    ScheduleLate,
    /// An object that is buried again keeps its old grave.
    KeepFirstSchedule,
    /// The last look before a deletion is at the grave, and then at the name.
    DeletionBeforeRecord,
    /// A grave is forgotten although its object was buried again.
    ForgetBlindly,
    /// A pass unlinks on its own fresh mark.
    UnlinkAtOnce,
    /// Deleting a manifest does not look whether it was put again since it was marked.
    IgnoreVersion,
    /// A link whose making was not answered is made again, whatever became of it meanwhile.
    RetryBlindly,
    /// A tag is written whatever it names by now.
    BlindTag,
    /// What the service says of the time is not heeded.
    TrustClock,
    /// Bytes get another location whatever their location is by now.
    ReplaceBlindly,
    /// Bytes get another location, and their holders are not told.
    ReplaceWithoutSync,
    /// A defect is recorded of whichever object the bytes are by now.
    RecordBlindly,
    /// Whoever makes a holder of bytes does not look at these again.
    CheckOnce,
    /// Whoever lets a holder agree with the record of the bytes does not look at that again.
    SyncOnce,
    /// A put leaves the mark of a collection on the catalog's row.
    KeepCatalogMark,
    /// A collection deletes the catalog's row whether or not its mark still stands.
    DeleteCatalogBlindly,
}

/// Whether this mistake is to be made.
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

    /// Whether this mistake is to be made, on this thread.
    pub(crate) fn active(mutation: Mutation) -> bool {
        ACTIVE.get() == Some(mutation)
    }

    /// Does something with a mistake, or with none.
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
