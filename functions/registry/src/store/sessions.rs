//! Upload sessions: uploads in progress.
//!
//! The keys of all objects of a session follow from its row: they begin with `<session id>.1` to
//! `<session id>.<attempts>`. The row is written first, so collection finds every object after a crash.
//!
//! Sessions are separate from other metadata because they are never replicated between regions. The key of a session
//! comes from its signed token, so opening an upload writes nothing. [`SessionStore::claim`] creates the row, before
//! the first byte is stored.

use std::fmt;

use async_trait::async_trait;
use oci::Digest;

use super::{Attempt, Context, Location, SessionId, StoreError, Timestamp};

/// The key of a session's row. Both parts can be read from the upload token. Rows sort by expiry, so the same row
/// serves a lookup by key and a search for expired sessions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey {
    /// When the token expires.
    pub expires: Timestamp,
    /// The id of the session.
    pub id: SessionId,
}

/// The state of a session. See [`SessionStore`] for the transitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// The session accepts bodies.
    Open {
        /// When the current claim expires; `None` without a claim. A claim that is not renewed expires by itself.
        claimed_until: Option<Timestamp>,
    },
    /// The final PUT has verified the digest and publishes this blob. The session's objects must not be changed.
    Committing(Publishing),
    /// Committed: this blob is published. Objects other than the published one may be left, which only collection finds.
    Published(Publishing),
    /// Committed: this blob is published. No object but the published one is left.
    Done(Publishing),
    /// Ended without a commit: by DELETE, or because the bytes do not have the expected digest. Or the session was
    /// committing, and its blob could not be published; then this is the blob. Another repository may use its object.
    Cancelled(Option<Publishing>),
    /// Expired. Its objects are being scheduled for deletion. The blob is that of the state before.
    Swept(Option<Publishing>),
}

impl State {
    /// A session without a claim.
    pub const UNCLAIMED: Self = Self::Open { claimed_until: None };

    /// The state after [`SessionStore::finish`] with a valid claim. `None`: the event is refused.
    #[must_use]
    pub fn finished(&self, end: End) -> Option<Self> {
        match (self, end) {
            (Self::Committing(publishing), End::Published) => Some(Self::Published(publishing.clone())),
            (Self::Committing(publishing), End::Done) => Some(Self::Done(publishing.clone())),
            (Self::Committing(publishing), End::Cancelled) => Some(Self::Cancelled(Some(publishing.clone()))),
            // A blob is published only after a commit.
            (Self::Open { claimed_until: Some(_) }, End::Cancelled) => Some(Self::Cancelled(None)),
            (Self::Open { .. } | Self::Published(_) | Self::Done(_) | Self::Cancelled(_) | Self::Swept(_), _) => None,
        }
    }

    /// The blob that the session becomes, or became.
    #[must_use]
    pub fn publishing(&self) -> Option<&Publishing> {
        match self {
            Self::Open { .. } => None,
            Self::Committing(publishing) | Self::Published(publishing) | Self::Done(publishing) => Some(publishing),
            Self::Cancelled(publishing) | Self::Swept(publishing) => publishing.as_ref(),
        }
    }
}

/// The blob that a session becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publishing {
    /// The verified digest.
    pub digest: Digest,
    /// The sealed object.
    pub location: Location,
    /// Its size in bytes.
    pub size: u64,
}

/// The progress of a session after its last complete body.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// The number of stored bytes.
    pub offset: u64,
    /// The saved state of the hash of these bytes (see `oci::Hasher::save`); empty before the first body.
    pub hash: Vec<u8>,
    /// The blob store's own state, opaque to all others. It is small, and each body replaces it.
    pub store: Vec<u8>,
    /// The number of part records (see [`SessionStore::parts`]).
    pub parts: u32,
}

/// A session's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Counts the changes of the row. Every write is conditional on it.
    pub version: u64,
    /// The state.
    pub state: State,
    /// How many attempts have been claimed so far.
    pub attempts: u32,
    /// What is stored.
    pub progress: Progress,
}

impl Session {
    /// Whether the session accepts bodies.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// When the current claim expires; `None` without a claim.
    #[must_use]
    pub fn claimed_until(&self) -> Option<Timestamp> {
        match self.state {
            State::Open { claimed_until } => claimed_until,
            State::Committing(_) | State::Published(_) | State::Done(_) | State::Cancelled(_) | State::Swept(_) => None,
        }
    }

    /// Whether a request may be writing. A claim ends exactly at its `claimed_until`.
    #[must_use]
    pub fn is_claimed(&self, now: Timestamp) -> bool {
        self.claimed_until().is_some_and(|until| now < until)
    }
}

/// The right to store one body in a session. It ends when it is saved, released or lost.
///
/// A claim is lost when the version of the row has changed, because another request has claimed or cancelled the
/// session. Expiry alone does not end a claim: it only allows other requests to claim the session. If no other request
/// does, an expired claim is still valid. So a seal that takes longer than a minute does not cost the upload.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The session.
    pub key: SessionKey,
    /// The attempt.
    pub attempt: Attempt,
    /// The version of the row after the claim. Renewals do not change it.
    pub version: u64,
    /// What was stored before this attempt.
    pub progress: Progress,
}

/// What the request suggests about the session before its row is read. A wrong guess costs one more request to the
/// table and does not change the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// Nothing is stored yet: there is no row.
    New,
    /// Bytes are stored already: there is a row.
    Existing,
}

/// The result of [`SessionStore::claim`].
#[derive(Clone, Debug)]
pub enum Claimed {
    /// The claim is granted. Only the caller may store a body now.
    Granted(Claim),
    /// Another request has a claim that has not expired. This is the session.
    Busy(Session),
    /// The session is open and has had its maximum number of attempts. This is the session.
    AttemptsExhausted(Session),
    /// The session accepts no more bodies. This is the session.
    Ended(Session),
}

/// The final state that [`SessionStore::finish`] sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The blob is published, and other objects of the session may be left.
    Published,
    /// The blob is published, and no other object is left.
    Done,
    /// The session ended without a commit.
    Cancelled,
}

/// A key that signs upload tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its public id.
    pub id: u32,
    /// 32 secret bytes.
    pub secret: [u8; 32],
    /// When it was created.
    pub created: Timestamp,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A derived Debug could write the secret to a log.
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Stores upload sessions, and the keys that sign upload tokens.
///
/// # The states of a session
///
/// Each row of the table is a [`State`]. An open session has three rows: without a claim, with a claim, and with an
/// expired claim. Each column is an event. A cell is the next state, or, in *italics*, the result that refuses the
/// event and changes nothing.
///
/// | | claim | save, release | commit | finish | cancel | expire |
/// |---|---|---|---|---|---|---|
/// | no row | claimed | *lost* | *lost* | *lost* | cancelled | – |
/// | open, not claimed | claimed ¹ | *lost* | *lost* | *lost* | cancelled | swept |
/// | open, claimed | *busy* | not claimed | committing | cancelled ² | cancelled | *skipped* |
/// | open, claim expired | claimed ¹ | not claimed | committing | cancelled ² | cancelled | swept |
/// | committing | *ended* | *lost* | *lost* | ended ³ | *ended* | swept |
/// | published | *ended* | *lost* | *lost* | *lost* | *ended* | swept |
/// | done | *ended* | *lost* | *lost* | *lost* | *ended* | swept ⁴ |
/// | cancelled | *ended* | *lost* | *lost* | *lost* | *ended* | swept |
/// | swept | *ended* | *lost* | *lost* | *lost* | *ended* | swept |
///
/// * *busy* is [`Claimed::Busy`]; *ended* is [`Claimed::Ended`] or [`Cancelled::Ended`].
/// * *lost*: the caller's claim is not valid any more. [`save`](Self::save) and [`commit`](Self::commit) return
///   `false`; [`release`](Self::release) and [`finish`](Self::finish) do nothing.
/// * ¹ Unless the session has had its maximum number of attempts: [`Claimed::AttemptsExhausted`].
/// * ² Only as [`End::Cancelled`], when the bytes do not have the expected digest. *Lost* for every other end: a blob is
///   published only after a commit.
/// * ³ Published, done or cancelled, as the caller says ([`End`]); by the claim that committed the session, or by
///   [`finish_committing`](Self::finish_committing) for a request that repeats an interrupted one.
/// * *expire* is [`CollectionStore::sweep`](super::collection::CollectionStore::sweep), after the session's token has
///   expired. Everything that the session may have left in the blob store is scheduled for deletion, then the row is
///   deleted. A store that cannot do both at once shows *swept* in between. *skipped*: a later pass looks at the
///   session again.
/// * ⁴ A done session has left nothing, so only its row is deleted.
///
/// The protocol core uses these as save (a chunk was stored), release (nothing was stored), fail (a body failed:
/// release, unless the session has ended meanwhile), commit and finish (the last body), and cancel (DELETE, or a wrong
/// digest).
///
/// # All methods
///
/// Every method is atomic. What it has acknowledged is visible to the next call on every instance. Implementations
/// retry their own faults until the deadline of the [`Context`].
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// The row. `None`: there is no row, because nothing was stored since the token was issued.
    async fn get(&self, cx: Context, key: SessionKey) -> Result<Option<Session>, StoreError>;

    /// Claims the session until `until` for one body, and creates the row if there is none.
    ///
    /// Grants the claim if and only if the session is open, has no claim that is valid at `cx.now`, and has had fewer
    /// than `max_attempts` attempts (1 or more). Counts an attempt. Durable when it returns: the row then names the
    /// object that the caller is about to write. `expected` only says which request a store should try first, if
    /// reading and creating a row are separate requests.
    async fn claim(
        &self,
        cx: Context,
        key: SessionKey,
        expected: Expected,
        until: Timestamp,
        max_attempts: u32,
    ) -> Result<Claimed, StoreError>;

    /// Extends a claim until `until`. `false`: the claim is lost, and the caller must abort the body.
    async fn renew(&self, cx: Context, claim: &Claim, until: Timestamp) -> Result<bool, StoreError>;

    /// Records a complete body and ends the claim. `progress` replaces the session's progress, except `parts`, which
    /// the store counts itself. `part`, if given, is appended to the part records. `false`: the claim was lost, and
    /// nothing is recorded.
    async fn save(
        &self,
        cx: Context,
        claim: &Claim,
        progress: Progress,
        part: Option<Vec<u8>>,
    ) -> Result<bool, StoreError>;

    /// Ends the claim after a body that was interrupted or refused. The session is as before the claim, except for the
    /// number of attempts. Does nothing if the claim is lost.
    async fn release(&self, cx: Context, claim: &Claim) -> Result<(), StoreError>;

    /// All part records, in the order in which they were saved. Empty if there is no row.
    async fn parts(&self, cx: Context, key: SessionKey) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Marks a claimed session as [`State::Committing`], and records the blob that it becomes. So a repetition of the
    /// request can finish an interrupted publication. `false`: the claim was lost, and the caller must not publish
    /// anything. From then on no other request can claim or cancel the session. It is swept only when it has expired,
    /// and its objects are then scheduled for deletion, not deleted at once.
    async fn commit(&self, cx: Context, claim: &Claim, publishing: &Publishing) -> Result<bool, StoreError>;

    /// Ends a session that the caller has marked as committing, or cancels one that it has claimed (see
    /// [`State::finished`]). Does nothing if the claim is lost. Idempotent. The row stays until the token has expired, so
    /// that a repeated request finds it. A session that does not end as [`End::Done`] is swept later. The caller
    /// acknowledges a commit only after this call: a repeated request would otherwise publish again what was deleted
    /// since.
    async fn finish(&self, cx: Context, claim: &Claim, end: End) -> Result<(), StoreError>;

    /// Ends a committing session, for a caller that has finished the publication that another request began. Does
    /// nothing in any other state.
    async fn finish_committing(&self, cx: Context, key: SessionKey, end: End) -> Result<(), StoreError>;

    /// Cancels a session for a client, and creates the row if there is none, so that the session stays cancelled while
    /// its token is valid. Returns the row as it was before, if this call has cancelled it (`None`: there was no row).
    /// A valid claim does not prevent it: the body that is streaming loses its claim, and finds that out at its next
    /// renewal or save. A session that is committing or has ended does not change.
    async fn cancel(&self, cx: Context, key: SessionKey) -> Result<Cancelled, StoreError>;

    /// Sessions whose token expired before `before`, after the session `after`, at most `limit`, in an order that the
    /// store chooses.
    async fn expired(
        &self,
        cx: Context,
        before: Timestamp,
        after: Option<SessionKey>,
        limit: usize,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError>;

    /// The keys that sign and verify upload tokens, newest first. Stores `candidate` if there is none yet. Concurrent
    /// first calls all return the same key.
    async fn signing_keys(&self, cx: Context, candidate: SigningKey) -> Result<Vec<SigningKey>, StoreError>;
}

/// The result of [`SessionStore::cancel`].
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "short-lived, and almost always the large variant"
)]
pub enum Cancelled {
    /// This call has cancelled it. The session as it was before; `None` if nothing had been stored.
    Now(Option<Session>),
    /// It had ended before, or is being committed.
    Ended,
}
