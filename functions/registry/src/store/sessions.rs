//! Uploads in progress: intents that name every object before it exists.
//!
//! Sessions are apart from the other records because they are never replicated between regions. A session's key comes
//! from its signed token, so opening an upload writes nothing; the row is first written by [`SessionStore::claim`],
//! before the first byte is stored.

use std::fmt;

use async_trait::async_trait;
use oci::Digest;

use super::{Context, Location, StoreError, Timestamp};

/// The random 128-bit id of a session, chosen when the upload was opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(oci::hex::write(&self.0.to_be_bytes(), &mut [0; 32]))
    }
}

/// The key of a session's row. Both parts can be read from the upload token, and rows sort by expiry, so that one row
/// serves the look-up and the question what is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey {
    /// When the token ends.
    pub expires: Timestamp,
    /// The session.
    pub id: SessionId,
}

/// The name of one attempt to store one request body.
///
/// Claims of a session are serialised by its version, so that counting them gives every attempt a name of its own; all
/// objects that a session may ever have made can be derived from its row: attempts 1 to [`Session::attempts`].
/// Displayed as `<id>.<number>`, which is the key of the object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Attempt {
    /// The session it belongs to.
    pub session: SessionId,
    /// 1 for the first claim of the session.
    pub number: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.number)
    }
}

/// The life of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Takes bodies.
    Open,
    /// A final PUT with a verified digest is publishing it; its objects must not be touched.
    Committing,
    /// Committed under the digest in [`Session::publishing`], and something beside that object may be left of it, which
    /// only collection finds.
    Published,
    /// Committed under the digest in [`Session::publishing`], and nothing but that object is left of it.
    Done,
    /// Ended without a commit: by DELETE, or by a digest that the bytes do not have.
    Cancelled,
    /// Expired, and its objects are on their way to the graveyard.
    Swept,
}

/// What a session becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publishing {
    /// The verified digest.
    pub digest: Digest,
    /// The sealed object.
    pub location: Location,
    /// Its bytes.
    pub size: u64,
}

/// What a session holds after its last complete body.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes stored, 0 or more.
    pub offset: u64,
    /// The saved state of the hash over them (see `oci::Hasher::save`); empty before the first body.
    pub hash: Vec<u8>,
    /// What the blob store needs to go on, opaque to everyone else; small, replaced by each body.
    pub store: Vec<u8>,
    /// How many part records there are (see [`SessionStore::parts`]).
    pub parts: u32,
}

/// A session's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Counts changes of the row; every write is conditional on it.
    pub version: u64,
    /// Where it is in its life.
    pub state: State,
    /// How many attempts were ever claimed.
    pub attempts: u32,
    /// The end of the live claim, if there is one. A claim that is not renewed ends by itself.
    pub claimed_until: Option<Timestamp>,
    /// What is stored.
    pub progress: Progress,
    /// What is being or was committed; `None` while open.
    pub publishing: Option<Publishing>,
}

/// The right to store one body in a session, until it is saved, released, or lost.
///
/// It is lost when the row's version has changed: another request claimed or cancelled the session. Its time passing
/// only lets that happen. A claim that ran out while nobody else came is as good as before, so that a seal which
/// takes longer than a minute does not cost an upload.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The session.
    pub key: SessionKey,
    /// This attempt.
    pub attempt: Attempt,
    /// The row's version as the claim left it. Renewals do not change it.
    pub version: u64,
    /// What was stored before.
    pub progress: Progress,
}

/// What a request lets one expect of its session before the row is looked at. A wrong guess costs a request of the
/// table, and changes no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// Nothing was stored yet: there is no row.
    New,
    /// Bytes were stored before: there is a row.
    Existing,
}

/// The answer to [`SessionStore::claim`].
#[derive(Clone, Debug)]
pub enum Claimed {
    /// The caller alone may store a body now.
    Granted(Claim),
    /// Another request holds a live claim; the session is as given.
    Busy(Session),
    /// The session is open, and has claimed as many attempts as it may; it is as given.
    AttemptsExhausted(Session),
    /// The session takes no more bodies; it is as given.
    Ended(Session),
}

/// How [`SessionStore::finish`] leaves a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Its digest is published, and something may be left of it.
    Published,
    /// Its digest is published, and nothing else is left of it.
    Done,
    /// It ended without a commit.
    Cancelled,
}

impl From<End> for State {
    fn from(end: End) -> Self {
        match end {
            End::Published => Self::Published,
            End::Done => Self::Done,
            End::Cancelled => Self::Cancelled,
        }
    }
}

/// A key that signs upload tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its public id.
    pub id: u32,
    /// 32 secret bytes.
    pub secret: [u8; 32],
    /// When it was made.
    pub created: Timestamp,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret must not reach a log through a derived Debug.
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Keeps upload sessions and the keys that sign their tokens.
///
/// Every method is atomic, and what it acknowledged is visible to the next call on every instance. Implementations
/// retry their own faults until the deadline of the [`Context`].
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// The row, or `None`: the token was issued and nothing was stored yet.
    async fn get(&self, cx: Context, key: SessionKey) -> Result<Option<Session>, StoreError>;

    /// Claims the session until `until` for one body, creating the row when there is none. Granted exactly when the
    /// session is open, has no claim that is live at `cx.now`, and has claimed fewer than `max_attempts` attempts (1 or more)
    /// before. Counts an attempt. Durable when it returns: the row names the object that the caller is about to write.
    /// `expected` only tells a store, in which looking and creating are requests of their own, which to try first.
    async fn claim(
        &self,
        cx: Context,
        key: SessionKey,
        expected: Expected,
        until: Timestamp,
        max_attempts: u32,
    ) -> Result<Claimed, StoreError>;

    /// Moves the end of a claim. `false`: the claim is lost, and the body must be given up.
    async fn renew(&self, cx: Context, claim: &Claim, until: Timestamp) -> Result<bool, StoreError>;

    /// Records a whole body and ends the claim. `progress` replaces the session's (its `parts` is counted by the
    /// store, what the caller sets there is ignored); `part`, if given, is added to the part records under the next
    /// number. `false`: the claim was lost, nothing is recorded.
    async fn save(
        &self,
        cx: Context,
        claim: &Claim,
        progress: Progress,
        part: Option<Vec<u8>>,
    ) -> Result<bool, StoreError>;

    /// Gives the claim back after a body that was cut or refused; the session is as before it. Without effect when
    /// the claim is lost.
    async fn release(&self, cx: Context, claim: &Claim) -> Result<(), StoreError>;

    /// All part records, in the order in which they were saved; empty when there is no row.
    async fn parts(&self, cx: Context, key: SessionKey) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Marks a claimed session as [`State::Committing`] and records what it becomes, so that a publication which was
    /// interrupted can be finished by whoever repeats the request. `false`: the claim was lost, and nothing may be
    /// published. From then on nobody else can claim or cancel it; it is swept only when it has expired, and then what
    /// it names is buried, not deleted.
    async fn commit(&self, cx: Context, claim: &Claim, publishing: &Publishing) -> Result<bool, StoreError>;

    /// Ends a session that the caller has claimed, or marked as committing with the same claim. Idempotent. The row
    /// stays until the token has expired, so that a replay meets it. What does not end as [`End::Done`] is swept. No
    /// commit is acknowledged before its end: a replay would publish once more what was deleted since.
    async fn finish(&self, cx: Context, claim: &Claim, end: End) -> Result<(), StoreError>;

    /// Ends a session that is committing, for a caller that has finished the publication of another. Without effect when
    /// it is anything else.
    async fn finish_committing(&self, cx: Context, key: SessionKey, end: End) -> Result<(), StoreError>;

    /// Cancels a session on a client's word, creating the row when there is none: a cancelled session stays
    /// cancelled for as long as its token lives. Answers the row as it was before (`None`: there was none) when it is
    /// cancelled now. A live claim does not protect it: the body that is streaming loses its claim, and learns that
    /// when it renews or saves it. A session that is committing or has ended stays as it is.
    async fn cancel(&self, cx: Context, key: SessionKey) -> Result<Cancelled, StoreError>;

    /// Sessions whose token ended before `before`, in an order of the store's own, at most `limit`, those after the
    /// session `after` in that order.
    async fn expired(
        &self,
        cx: Context,
        before: Timestamp,
        after: Option<SessionKey>,
        limit: usize,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError>;

    /// The keys that sign and verify upload tokens, newest first; stores `candidate` if there is none yet. Racing
    /// first calls all answer the same key.
    async fn signing_keys(&self, cx: Context, candidate: SigningKey) -> Result<Vec<SigningKey>, StoreError>;
}

/// The answer to [`SessionStore::cancel`].
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "short-lived, and almost always the large variant"
)]
pub enum Cancelled {
    /// It is cancelled now; this is how it was before, `None` when nothing had been stored.
    Now(Option<Session>),
    /// It had ended, or is being committed.
    Ended,
}
