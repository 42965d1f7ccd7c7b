//! Bytes: appended under opaque names, sealed once, then read, redirected to, and some day deleted.

use std::net::IpAddr;
use std::ops::{AddAssign, Range};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::Serialize;

use super::sessions::{Attempt, SessionId};
use super::{Context, Cursor, Location, Slice, StoreError, Timestamp};

/// Why a request body did not arrive whole. The peer's fault, never the store's.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection ended before the body did.
    #[error("the body was cut off")]
    Cut,
    /// No byte arrived for as long as the server waits.
    #[error("the body stalled")]
    Stalled,
    /// More bytes than may be stored under this upload; the limit in bytes.
    #[error("the body exceeds {0} bytes")]
    TooLarge(u64),
    /// The body's length is not what its `Content-Range` or `Content-Length` said.
    #[error("the body does not have the length that was declared")]
    LengthMismatch,
    /// The claim on the session passed to another request while the body was streaming.
    #[error("the upload was taken over by another request")]
    ClaimLost,
    /// The session could not be renewed: a store's fault met while a body was streaming.
    #[error("the session store failed")]
    Store(#[source] StoreError),
}

/// A request body on its way into a store: chunks in order, hashed by the core as they pass.
#[async_trait]
pub trait Source: Send {
    /// The next chunk, never empty; `None` at the end of a body that is whole. After an error the body is over.
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError>;

    /// How many bytes will follow, when the client declared it. A hint: stores must not rely on it.
    fn remaining(&self) -> Option<u64>;

    /// The SHA-256 of all bytes of this body, after its end was met, where it was computed anyway: a store that sends a
    /// checksum along need not compute it again. `None`: unknown.
    fn sha256(&self) -> Option<[u8; 32]>;
}

/// Why a body was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The peer's fault. Nothing is being written for this attempt any more.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The peer's fault; but the store could not tell that everything has ended which it was asked to write.
    #[error(transparent)]
    WriteInFlight(BodyError),
    /// Ours.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What [`BlobStore::append`] has stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Replaces the state that the next append and the seal are given.
    pub state: Vec<u8>,
    /// A record of what this body became, kept with the session in the order of the bodies; for stores whose state
    /// would otherwise grow with their number.
    pub part: Option<Vec<u8>>,
}

/// All that a session has stored, for [`BlobStore::seal`].
#[derive(Clone, Debug)]
pub struct Upload {
    /// The session.
    pub session: SessionId,
    /// The state that the last append returned; empty if there was none.
    pub state: Vec<u8>,
    /// The part records of all appends, in order.
    pub parts: Vec<Vec<u8>>,
    /// The sum of the bodies' lengths in bytes.
    pub size: u64,
}

/// What a redirect must bring about at the other end.
#[derive(Clone, Debug)]
pub struct RedirectRequest {
    /// The media type with which the object is to be served.
    pub content_type: &'static str,
    /// Only if these can probably reach the object store by themselves.
    pub reached_by: Reached,
}

/// Who has to reach the object store for a redirect to be of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Whoever asks does, as the operator says.
    ByAll,
    /// This client: a store on a private or loopback address answers `None` for those who are elsewhere.
    By(IpAddr),
    /// A client of whom nothing is known: only a store that everybody reaches is of use.
    ByAnyone,
}

/// A URL at which the bytes can be fetched by whoever holds it, until it expires.
#[derive(Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Absolute. Grants GET of one object, nothing else.
    pub url: String,
    /// For how long it works from now on.
    pub lifetime: Duration,
}

/// What [`BlobStore::discard`] has removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Discarded {
    /// Everything.
    All,
    /// All that can be told without a search. The session's row has to stay: it tells collection where to search.
    Known,
}

/// A key that is to hold nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectToDelete {
    /// The object.
    pub location: Location,
    /// Also everything else that the attempt of this name has left: what was begun under its key and never became an
    /// object, and objects whose keys are the attempt's with `.` and more behind it. Costs a search.
    pub unfinished: bool,
}

/// What was there of that which [`BlobStore::delete`] has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeletedObjects {
    /// How many of the keys held an object.
    pub objects: u64,
    /// Bytes of these, and of what lay beside them.
    pub bytes: u64,
}

impl AddAssign for DeletedObjects {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

/// An object as a walk over the store meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where it lies.
    pub location: Location,
    /// Bytes.
    pub size: u64,
}

/// The bytes of an object, in order. An error ends the stream; what came before it is right.
pub type ByteStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// Keeps bytes.
///
/// Every object is named by an [`Attempt`] that a session's row holds before the object exists: its key is that of the
/// attempt, or begins with it and a `.`. So a session's row is enough to find all that it may have left (see
/// [`collection::remains`](super::collection::remains)). Memory per call is bounded whatever the size. Implementations
/// retry their own faults.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Stores one whole body after what `state` describes, or nothing that could be seen: after an error the session
    /// goes on from `state` as if this attempt had not been. Isolated from every other attempt of the session, also
    /// from one whose claim has passed and which is still writing. Durable when it returns. An empty body is stored
    /// too: an object of no bytes.
    async fn append(
        &self,
        cx: Context,
        attempt: Attempt,
        state: &[u8],
        source: &mut dyn Source,
    ) -> Result<Appended, AppendError>;

    /// The state from which a session goes on after `attempt`, the one that was claimed last, has come to nothing in good
    /// order: it was never appended, or failed with [`AppendError::Body`], and nothing was sealed under it. For stores in
    /// which the next attempt has to know that it follows directly. `None`: the state is as before. Asks nobody.
    fn after_failed_attempt(&self, _attempt: Attempt, _state: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Makes one object of all that an upload has appended, durably, and tells where it lies for ever. Idempotent:
    /// sealing again answers the same location. The object of an upload of one body has the key of its attempt. Costs
    /// no copy of the bytes when they arrived in one body. At least one append came before. What was appended stays
    /// until it is discarded: the claim may be lost before the object is published, and then the session goes on from
    /// its last saved state and seals something else.
    async fn seal(&self, cx: Context, upload: &Upload) -> Result<Location, StoreError>;

    /// Whether a seal of this upload writes to the store: an upload of one body is its object already. Asks nobody.
    fn seal_writes(&self, upload: &Upload) -> bool;

    /// Whether an upload of one body, whose append left `state`, leaves anything but the sealed object in the store: then
    /// it is discarded like one of several bodies. Asks nobody.
    fn leaves_something(&self, state: &[u8]) -> bool;

    /// Removes all that attempts 1 to `attempts` of a session have left, as far as it can be told without a search, but
    /// for the object at `keep`; and tells whether that was all. Idempotent. Only for sessions that can no longer be
    /// committed: they were cancelled (and nothing is kept), or they are published (and that is kept).
    async fn discard(
        &self,
        cx: Context,
        session: SessionId,
        attempts: u32,
        state: &[u8],
        keep: Option<&Location>,
    ) -> Result<Discarded, StoreError>;

    /// Streams `range` (half-open) of an object. `None`: there is no such object, or it ends before the range does: for
    /// those who know how long it was, it is lost. Reads no more than the range, and holds only a bounded window of it
    /// in memory.
    async fn read(&self, cx: Context, location: &Location, range: Range<u64>)
    -> Result<Option<ByteStream>, StoreError>;

    /// A URL for the object, or `None` when its bytes are served by the registry itself. Makes no request to the
    /// object store, and does not look whether the object exists.
    async fn redirect(
        &self,
        now: Timestamp,
        location: &Location,
        request: RedirectRequest,
    ) -> Result<Option<Redirect>, StoreError>;

    /// Deletes objects. Idempotent: an object that is not there is deleted. What was there; `None` by a store that
    /// could tell only by requests of their own. After an error some may be deleted, and the others are there.
    async fn delete(&self, cx: Context, to_delete: &[ObjectToDelete]) -> Result<Option<DeletedObjects>, StoreError>;

    /// Removes what the attempts of these names have begun and never finished beside their objects, which are in use
    /// and stay. Only when nobody can be writing under them any more. Idempotent. Costs a search; never called by a
    /// request of the protocol.
    async fn tidy(&self, cx: Context, kept: &[Location]) -> Result<(), StoreError>;

    /// How many bytes an object has; `None`: there is none.
    async fn stat(&self, cx: Context, location: &Location) -> Result<Option<u64>, StoreError>;

    /// Walks over the objects of the store, about `limit` in a slice. Never called by a request of the protocol.
    async fn objects(&self, cx: Context, after: Option<&Cursor>, limit: usize) -> Result<Slice<Stored>, StoreError>;
}
