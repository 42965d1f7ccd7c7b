//! Collection: reclaiming what nothing names any more, while everything goes on.
//!
//! One pass walks over all names and only *nominates*; what is removed is decided by the same looks and marks as the
//! removals of [`metadata`](super::metadata), so that a push never meets a gap:
//!
//! 1. A link that no manifest refers to, older than [`GracePeriods::link_ms`], is marked. A later pass that finds the mark
//!    still there after as long again unlinks the blob. Whoever pushes removes the mark: a put of a manifest, a
//!    commit or mount of the blob, or a HEAD by somebody who may push ([`MetadataStore::link_and_unmark`]).
//! 2. The record of bytes that no repository holds is removed, and its object goes to the graveyard.
//! 3. A repository without manifests and links leaves the catalog, at once or by a later pass. Whoever publishes a
//!    manifest in it meanwhile keeps it there, or puts it back.
//! 4. Upload sessions past their end are swept: everything that their attempts may have left goes to the graveyard.
//! 5. What has lain in the graveyard for [`GracePeriods::deletion_ms`], longer than any redirect to it works, and is not named
//!    again, is deleted. Nothing else ever deletes bytes. An object has one grave, however often it was buried, and
//!    waits from its last burial.
//! 6. A deep pass also removes what operations that were cut off have left among the names: edges of manifests and
//!    back-links of holders that never came to be, or are gone.
//!
//! The order of these steps over all stores is `collection::collect`'s; here is what a store must do for it.
//!
//! [`MetadataStore::link_and_unmark`]: super::metadata::MetadataStore::link_and_unmark

use std::ops::AddAssign;

use async_trait::async_trait;
use oci::Digest;
use serde::{Deserialize, Serialize};

use super::blobs::ObjectToDelete;
use super::sessions::{Attempt, Session, SessionKey, State};
use super::{Context, Cursor, Location, Slice, StoreError, Timestamp, Uid};

/// For how many milliseconds a reference that was recorded counts although the manifest that makes it is not (yet)
/// there: longer than any put may take. Older ones are leftovers of a put that was cut off.
pub const YOUNG_MS: u64 = 3_600_000;

/// How long everything is left alone, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracePeriods {
    /// A link without a reference, before it is marked, and again before it is unlinked: the time a client may take
    /// from pushing its first blob to pushing the manifest.
    pub link_ms: u64,
    /// A session, after its token has ended.
    pub session_ms: u64,
    /// An object that lost its name; more than the longest lifetime of a redirect to it, and more than an upload token
    /// lives, by an hour: until then a final PUT that is repeated may give the object its name back.
    pub deletion_ms: u64,
    /// What a deep pass removes.
    pub leftover_ms: u64,
}

impl Default for GracePeriods {
    fn default() -> Self {
        const HOUR: u64 = 3_600_000;
        Self {
            link_ms: 24 * HOUR,
            session_ms: HOUR,
            deletion_ms: 25 * HOUR,
            leftover_ms: 24 * HOUR,
        }
    }
}

/// What a pass does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Only counts what it would do; writes nothing.
    pub dry_run: bool,
    /// Also removes leftovers among the names.
    pub deep: bool,
    /// How long everything is left alone.
    pub grace_periods: GracePeriods,
}

/// What a pass over the names has done, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassStatistics {
    /// Records looked at.
    pub seen: u64,
    /// Links marked for a later pass.
    pub marked: u64,
    /// The bytes that these name; those of a blob once for each of its repositories.
    #[serde(default)]
    pub marked_bytes: u64,
    /// Unreferenced links that an earlier pass has marked, and that are not old enough to be removed.
    #[serde(default)]
    pub waiting: u64,
    /// The bytes of their blobs; those of a blob once for each of its repositories.
    #[serde(default)]
    pub waiting_bytes: u64,
    /// Links removed.
    pub unlinked: u64,
    /// Records of bytes removed; their objects are in the graveyard.
    pub scheduled: u64,
    /// The bytes of those.
    pub scheduled_bytes: u64,
    /// Edges and back-links that belonged to nothing, removed by a deep pass.
    pub leftovers: u64,
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
        self.leftovers += other.leftovers;
        self.repositories += other.repositories;
    }
}

/// One slice of the walk over the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// What was done in this slice.
    pub statistics: PassStatistics,
    /// Where the next slice begins; `None` after the last.
    pub next: Option<Cursor>,
}

/// An object that lost its name.
///
/// There is one for each object. A burial comes before the loss of the name, or is one with it, so that whoever finds an
/// object without a name finds the grave of that loss, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingDeletion {
    /// The object.
    pub location: Location,
    /// The digest under which it was, or was to be, known. If that digest's bytes lie here, the object is in use.
    pub digest: Option<Digest>,
    /// It may have been begun and never finished (see [`ObjectToDelete`]).
    pub unfinished: bool,
    /// When it was buried, for the last time.
    pub at: Timestamp,
}

impl PendingDeletion {
    /// The one grave of an object that is buried twice, here and in `other`, in whatever order these are written. It is
    /// buried at the later time, and under the digest of that burial, or of the earlier one if that alone names any. It
    /// may have been left unfinished if either says so: then more is looked for, and what is not there is not missed.
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

/// What is to be done about a grave that was listed as due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its object was not named, and then the grave was still as it was listed: the object may be deleted, and then the
    /// grave forgotten.
    Due,
    /// Its digest's bytes lie there: the object is in use, and the grave may be forgotten.
    Named,
    /// The object is not named, and was buried again since the grave was listed, or its grave is gone: somebody else
    /// sees to it, or a later pass.
    Changed,
}

/// What a blob store is asked to do about graves, each of which comes with whether its object is in use: an object that
/// is not in use is deleted, and one that is stays, without what was begun beside it and never finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clearing {
    /// What [`BlobStore::delete`](super::blobs::BlobStore::delete) is given.
    pub to_delete: Vec<ObjectToDelete>,
    /// What [`BlobStore::tidy`](super::blobs::BlobStore::tidy) is given.
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

/// What a session may have left in the blob store, unless it is done: one grave for the object that it was sealed as, if
/// that has another key than its attempts; then one for each of these, the last one first, so that a store which has
/// buried some of them may count them off the row.
///
/// All of them name the digest that the session was to have, because a publication that was cut off may have come
/// about. All are searched for more, but for the attempt inside whose name the object lies that was made of several:
/// what is found there may be it.
pub fn remains(key: SessionKey, session: &Session, at: Timestamp) -> impl Iterator<Item = PendingDeletion> + use<> {
    let attempts = match session.state {
        State::Done => 0,
        State::Open | State::Committing | State::Published | State::Cancelled | State::Swept => session.attempts,
    };
    let (digest, sealed) = match &session.publishing {
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

/// Until this moment, which does not come, an import holds the walk over the names: as long as it is not through, what
/// nothing refers to yet must not go, and no grave is looked into. It lets go of it at its end; one that was cut off
/// leaves it held for the one that goes on with it. A [`PassStart::Busy`] of this moment therefore means: there is half of
/// a registry.
pub const UNTIL_IMPORTED: Timestamp = Timestamp(253_402_300_799_000);

/// The longest that a pass is held without a sign of life, in milliseconds. What says that it is held for longer was
/// written by a process whose clock was wrong, and would keep everybody else out until then: it holds nothing.
pub const LONGEST_LEASE_MS: u64 = 3_600_000;

/// Whether a pass that is said to be held `until` then is held `now`.
#[must_use]
pub fn is_held(until: Timestamp, now: Timestamp) -> bool {
    until > now && (until >= UNTIL_IMPORTED || until.millis_since(now) <= LONGEST_LEASE_MS)
}

/// Whether a pass may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassStart {
    /// It is the caller's, from the beginning.
    New,
    /// A pass was interrupted; it is the caller's, and goes on here.
    Resumed(Cursor),
    /// Another process is at it, and has said so until this moment.
    Busy(Timestamp),
}

/// What a store does for collection. Implemented beside [`MetadataStore`](super::metadata::MetadataStore) and
/// [`SessionStore`](super::sessions::SessionStore), over the same records.
///
/// Every method is safe whoever else collects, pushes or deletes at the same time; that one pass runs at a time only
/// saves work. Memory is bounded by the slices.
#[async_trait]
pub trait CollectionStore: Send + Sync + 'static {
    /// Takes the walk over the names until `until`, for the pass `pass`: granted when nobody else holds it at
    /// `cx.now`, as [`is_held`] tells.
    async fn begin_pass(&self, cx: Context, pass: Uid, until: Timestamp) -> Result<PassStart, StoreError>;

    /// Records how far the pass has come, so that another process can go on from there, and holds it until `until`.
    /// `None`: it has ended, and nothing of it stays. `false`: somebody else holds it by now.
    async fn checkpoint(
        &self,
        cx: Context,
        pass: Uid,
        next: Option<&Cursor>,
        until: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Walks over about `limit` names from `after` on, and does to them what the plan says (steps 1, 2, 3 and 6).
    async fn collect_metadata(
        &self,
        cx: Context,
        plan: &Plan,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Collected, StoreError>;

    /// Ends an expired session for good, if it is still as given: what its attempts may have left is buried, then the
    /// row goes with its part records. What that is, [`remains`] tells; a session that is done leaves nothing but its
    /// row. The number of graves; `None`: the session has changed, or is gone, or has left more than can be buried in one
    /// call: then the next one goes on. Interrupted and repeated, it does the same. The caller has seen that no claim on
    /// it is live.
    async fn sweep(&self, cx: Context, key: SessionKey, session: &Session) -> Result<Option<u64>, StoreError>;

    /// One slice of a walk over what was buried, for the last time, before `before`; at most `limit` of them (1 or
    /// more). A slice may hold none of them and yet not be the last: what is not due is passed over, and a call looks at
    /// a bounded number of graves. Graves that are dug meanwhile may be missed.
    async fn pending_deletions(
        &self,
        cx: Context,
        before: Timestamp,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<PendingDeletion>, StoreError>;

    /// The last look at a grave before its object is deleted. It looks for the name first and at the grave afterwards:
    /// an object that loses its name between the two has got its new grave before, so that a grave which is still as it
    /// was listed belongs to a loss as old as it says. In the other order an object that is named until now, and has an
    /// old grave as well, could be deleted the moment it loses its name.
    async fn standing(&self, cx: Context, pending_deletion: &PendingDeletion) -> Result<Standing, StoreError>;

    /// Removes graves: their objects are gone, or in use. A grave whose object was buried at another time since stays.
    /// Idempotent.
    async fn forget(&self, cx: Context, pending_deletions: &[PendingDeletion]) -> Result<(), StoreError>;
}
