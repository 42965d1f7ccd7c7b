//! Garbage collection: deletes unreferenced metadata and objects while the registry serves requests.
//!
//! A collection pass walks over all metadata and finds *candidates*. The same checks and marks as in the deletions of
//! [`metadata`](super::metadata) decide what is deleted, so a push never loses content that it relies on:
//!
//! 1. A pass marks a link to which no manifest refers and which is older than [`GracePeriods::link_ms`]. A pass that
//!    finds the mark at least `link_ms` later deletes the link. Every push removes the mark: a put of a manifest, a
//!    commit or mount of the blob, or a HEAD by a client that may push ([`MetadataStore::link_and_unmark`]).
//! 2. The record of an object without back-links is deleted, and its object is scheduled for deletion.
//! 3. A repository without manifests and links is removed from the catalog, at once or by a later pass. If a client
//!    publishes a manifest in it meanwhile, the repository stays, or is added again.
//! 4. An expired upload session is *swept*: every object that its attempts may have written is scheduled for deletion,
//!    then its row is deleted.
//! 5. An object is deleted if it has been pending deletion for [`GracePeriods::deletion_ms`], which is longer than any
//!    redirect to it is valid, and if it is not referenced again. No other step deletes the object of a blob or
//!    manifest. An object has one pending deletion, however often it is scheduled, and the time counts from the last
//!    scheduling.
//! 6. A deep pass also deletes what interrupted operations have left in the metadata: edges and back-links whose
//!    manifest or link was never made or does not exist any more.
//!
//! `collection::collect` defines the order of these steps over all stores. This module defines what a store must do.
//!
//! [`MetadataStore::link_and_unmark`]: super::metadata::MetadataStore::link_and_unmark

use std::ops::AddAssign;

use async_trait::async_trait;
use oci::Digest;
use serde::{Deserialize, Serialize};

use super::blobs::ObjectToDelete;
use super::sessions::{Session, SessionKey, State};
use super::{Attempt, Context, Cursor, Location, Slice, StoreError, Timestamp, Uid};

/// For how many milliseconds a recorded reference counts although its manifest does not exist (yet). This is longer
/// than any put may take. Older ones are orphaned records of an interrupted put.
pub const YOUNG_MS: u64 = 3_600_000;

/// Grace periods, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracePeriods {
    /// For an unreferenced link, before it is marked, and again before it is deleted: the time that a client may take
    /// from pushing its first blob to pushing the manifest.
    pub link_ms: u64,
    /// For a session, after its token has expired.
    pub session_ms: u64,
    /// For an object that is pending deletion. It is longer than the longest validity of a redirect to the object. It
    /// is also an hour longer than the validity of an upload token: until then, a repeated final PUT may reference the
    /// object again.
    pub deletion_ms: u64,
    /// For the orphaned records that a deep pass deletes.
    pub orphan_ms: u64,
}

impl Default for GracePeriods {
    fn default() -> Self {
        const HOUR: u64 = 3_600_000;
        Self {
            link_ms: 24 * HOUR,
            session_ms: HOUR,
            deletion_ms: 25 * HOUR,
            orphan_ms: 24 * HOUR,
        }
    }
}

/// The plan of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Only counts what the pass would do; writes nothing.
    pub dry_run: bool,
    /// Also deletes orphaned records of interrupted operations in the metadata.
    pub deep: bool,
    /// The grace periods.
    pub grace_periods: GracePeriods,
}

/// What a pass over the metadata has done, or, in a dry run, would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassStatistics {
    /// Records that were read.
    pub seen: u64,
    /// Links that were marked for a later pass.
    pub marked: u64,
    /// The bytes of the blobs of these links. A blob counts once for each of its repositories.
    #[serde(default)]
    pub marked_bytes: u64,
    /// Unreferenced links that an earlier pass has marked, and whose grace period has not ended.
    #[serde(default)]
    pub waiting: u64,
    /// The bytes of the blobs of these links. A blob counts once for each of its repositories.
    #[serde(default)]
    pub waiting_bytes: u64,
    /// Links that were deleted.
    pub unlinked: u64,
    /// Objects that were scheduled for deletion, because no repository refers to them.
    pub scheduled: u64,
    /// The bytes of these objects.
    pub scheduled_bytes: u64,
    /// Edges and back-links without a manifest or link, which a deep pass has deleted.
    pub orphaned_records: u64,
    /// Repositories without manifests and links that were removed from the catalog.
    #[serde(default)]
    pub repositories: u64,
}

impl AddAssign for PassStatistics {
    fn add_assign(&mut self, other: Self) {
        self.seen += other.seen;
        self.marked += other.marked;
        self.marked_bytes += other.marked_bytes;
        self.waiting += other.waiting;
        self.waiting_bytes += other.waiting_bytes;
        self.unlinked += other.unlinked;
        self.scheduled += other.scheduled;
        self.scheduled_bytes += other.scheduled_bytes;
        self.orphaned_records += other.orphaned_records;
        self.repositories += other.repositories;
    }
}

/// One slice of the walk over the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// What was done in this slice.
    pub statistics: PassStatistics,
    /// The position of the next slice; `None` after the last.
    pub next: Option<Cursor>,
}

/// A pending deletion: an object that is deleted later, unless it is referenced again.
///
/// Each object has at most one. It is written before the object loses its last reference, or in the same transaction.
/// So a caller that finds an unreferenced object also finds its pending deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingDeletion {
    /// The object.
    pub location: Location,
    /// The digest of the object, or the digest that it was to get. If the record of this digest has this location, the
    /// object is in use.
    pub digest: Option<Digest>,
    /// The object may be unfinished (see [`ObjectToDelete`]).
    pub unfinished: bool,
    /// When it was scheduled for deletion, for the last time.
    pub at: Timestamp,
}

impl PendingDeletion {
    /// Joins the pending deletions of an object that is scheduled twice, here and in `other`. The order of the two does
    /// not matter. The result has the later time, and the digest of the later one, or of the earlier one if only that
    /// has a digest. It is unfinished if either is: the deletion then searches for more, and it is no error if nothing
    /// is found.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        let (earlier, later) = if self.at <= other.at {
            (self, other)
        } else {
            (other, self)
        };
        Self {
            digest: later.digest.or(earlier.digest),
            unfinished: earlier.unfinished || later.unfinished,
            ..later
        }
    }
}

/// The result of the last check of a pending deletion that was listed as due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionCheck {
    /// The object is not in use, and the pending deletion has not changed since it was listed. The object may be
    /// deleted, and then the pending deletion.
    Due,
    /// The object is in use: the record of its digest has this location. The pending deletion may be deleted.
    InUse,
    /// The object is not in use, but was scheduled again since the pending deletion was listed, or the pending deletion
    /// does not exist any more. Another process or a later pass deletes the object.
    Changed,
}

/// The calls of a blob store for pending deletions, each with whether its object is in use. An object that is not in
/// use is deleted. An object that is in use stays, and unfinished writes beside it are deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clearing {
    /// The argument of [`BlobStore::delete`](super::blobs::BlobStore::delete).
    pub to_delete: Vec<ObjectToDelete>,
    /// The argument of [`BlobStore::tidy`](super::blobs::BlobStore::tidy).
    pub kept: Vec<Location>,
}

impl FromIterator<(PendingDeletion, bool)> for Clearing {
    fn from_iter<I: IntoIterator<Item = (PendingDeletion, bool)>>(pending_deletions: I) -> Self {
        let mut clearing = Self::default();
        for (pending_deletion, in_use) in pending_deletions {
            let PendingDeletion {
                location, unfinished, ..
            } = pending_deletion;
            if !in_use {
                clearing.to_delete.push(ObjectToDelete { location, unfinished });
            } else if unfinished {
                clearing.kept.push(location);
            }
        }
        clearing
    }
}

/// Everything that a session may have left in the blob store, as pending deletions; nothing if the session is done.
///
/// The first is the sealed object, if its key is not the name of an attempt. Then follows one for each attempt, the
/// last attempt first: a store that has scheduled some of them may lower the row's number of attempts.
///
/// Each contains the digest of the session's blob, because an interrupted publication may have succeeded. Each also
/// requests a search for more, except for an attempt whose name begins the key of a sealed object that was made of
/// several parts: the search could find that object.
pub fn remains(key: SessionKey, session: &Session, at: Timestamp) -> impl Iterator<Item = PendingDeletion> + use<> {
    let attempts = match session.state {
        State::Done(_) => 0,
        State::Open { .. } | State::Committing(_) | State::Published(_) | State::Cancelled(_) | State::Swept(_) => {
            session.attempts
        }
    };
    let (digest, sealed) = match session.state.publishing() {
        Some(publishing) if attempts > 0 => (Some(publishing.digest), Some(publishing.location.clone())),
        _ => (None, None),
    };
    let name_of = move |number| {
        let session = key.id;
        Attempt { session, number }.to_string()
    };
    let pending_deletion = move |location, unfinished| PendingDeletion {
        location,
        digest,
        unfinished,
        at,
    };
    let made_in = move |sealed: &Location, name: &str| {
        let rest = sealed.key.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let apart = sealed
        .clone()
        .filter(|sealed| !(1..=attempts).any(|number| *sealed == Location::main(name_of(number))))
        .map(|sealed| pending_deletion(sealed, false));
    let own = (1..=attempts).rev().map(move |number| {
        let name = name_of(number);
        let unfinished = !sealed.as_ref().is_some_and(|sealed| made_in(sealed, &name));
        pending_deletion(Location::main(name), unfinished)
    });
    apart.into_iter().chain(own)
}

/// A lease until this time means that an import is in progress or was interrupted. The time never comes. Until the
/// import is complete, unreferenced metadata must not be deleted, and pending deletions must not be read. The import
/// ends the lease when it is complete; an interrupted one leaves it for the import that continues. So a
/// [`PassStart::Busy`] with this time means: the registry is the result of an incomplete import.
pub const UNTIL_IMPORTED: Timestamp = Timestamp(253_402_300_799_000);

/// The maximum duration of a pass's lease without a renewal, in milliseconds. A longer lease was written by a process
/// whose clock was wrong. It would exclude all other processes until then, so it is ignored.
pub const LONGEST_LEASE_MS: u64 = 3_600_000;

/// Whether a lease until `until` is valid at `now`.
#[must_use]
pub fn is_held(until: Timestamp, now: Timestamp) -> bool {
    until > now && (until >= UNTIL_IMPORTED || until.millis_since(now) <= LONGEST_LEASE_MS)
}

/// The result of [`CollectionStore::begin_pass`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassStart {
    /// The caller has the lease, and starts at the beginning.
    New,
    /// The caller has the lease, and continues an interrupted pass here.
    Resumed(Cursor),
    /// Another process has the lease, until this time.
    Busy(Timestamp),
}

/// The operations of a store for collection. Implemented beside [`MetadataStore`](super::metadata::MetadataStore) and
/// [`SessionStore`](super::sessions::SessionStore), over the same records.
///
/// Every method is safe during concurrent collections, pushes and deletions. The lease, which lets one pass run at a
/// time, only saves work. The sizes of the slices bound the memory.
#[async_trait]
pub trait CollectionStore: Send + Sync + 'static {
    /// Takes the lease of the walk over the metadata until `until`, for the pass `pass`. Granted if no other pass has
    /// the lease at `cx.now` (see [`is_held`]).
    async fn begin_pass(&self, cx: Context, pass: Uid, until: Timestamp) -> Result<PassStart, StoreError>;

    /// Records the position of the pass, so that another process can continue there, and extends the lease until
    /// `until`. With `next` `None` the pass has ended, and its position and lease are deleted. `false`: another pass
    /// has the lease now.
    async fn checkpoint(
        &self,
        cx: Context,
        pass: Uid,
        next: Option<&Cursor>,
        until: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Walks over about `limit` records of metadata after `after`, and does what the plan says (steps 1, 2, 3 and 6).
    async fn collect_metadata(
        &self,
        cx: Context,
        plan: &Plan,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Collected, StoreError>;

    /// Sweeps an expired session, if its row is still as given. Schedules everything that its attempts may have left
    /// (see [`remains`]) for deletion, then deletes the row with its part records. A session that is done leaves
    /// nothing but its row.
    ///
    /// Returns the number of pending deletions. `None`: the session has changed, or does not exist any more, or has
    /// left more than one call can schedule; then the next call continues. Safe to interrupt and repeat. The caller has
    /// checked that no claim on the session is valid.
    async fn sweep(&self, cx: Context, key: SessionKey, session: &Session) -> Result<Option<u64>, StoreError>;

    /// One slice of a walk over the objects that were scheduled for deletion, for the last time, before `before`; at
    /// most `limit` (1 or more). A slice may be empty and not be the last one: a call reads a bounded number of rows,
    /// and skips those that are not due. Pending deletions that are written during the walk may be missed.
    async fn pending_deletions(
        &self,
        cx: Context,
        before: Timestamp,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<PendingDeletion>, StoreError>;

    /// The last check of a pending deletion before its object is deleted.
    ///
    /// It reads the record of the digest first, and the pending deletion afterwards. An object that loses its last
    /// reference between the two reads has got its new pending deletion before that. So a pending deletion that has not
    /// changed since it was listed is as old as it says. In the other order, an object that is still in use and also
    /// has an old pending deletion could be deleted as soon as it loses its last reference.
    async fn check_pending_deletion(
        &self,
        cx: Context,
        pending_deletion: &PendingDeletion,
    ) -> Result<DeletionCheck, StoreError>;

    /// Deletes pending deletions, whose objects are deleted or in use. A pending deletion whose object was scheduled at
    /// another time since then stays. Idempotent.
    async fn remove_pending_deletions(
        &self,
        cx: Context,
        pending_deletions: &[PendingDeletion],
    ) -> Result<(), StoreError>;
}
