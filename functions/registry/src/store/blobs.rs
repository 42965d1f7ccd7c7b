//! The bytes of blobs and large manifests. They are appended under opaque keys, sealed once, then read or redirected
//! to, and deleted at last. To *seal* an upload is to make one immutable object of all its bodies.

use std::net::IpAddr;
use std::ops::{AddAssign, Range};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::Serialize;

use super::{Attempt, Context, Cursor, Location, SessionId, Slice, StoreError, Timestamp};

/// Why a request body did not arrive as a whole. Only [`BodyError::Store`] is a fault of the server; all others are
/// faults of the peer.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection ended before the body did.
    #[error("the body was cut off")]
    Cut,
    /// No byte arrived before the timeout.
    #[error("the body stalled")]
    Stalled,
    /// The body has more bytes than the upload may have; the limit in bytes.
    #[error("the body exceeds {0} bytes")]
    TooLarge(u64),
    /// The body's length is not what its `Content-Range` or `Content-Length` said.
    #[error("the body does not have the length that was declared")]
    LengthMismatch,
    /// Another request has claimed or ended the session while the body was streaming.
    #[error("the upload was taken over by another request")]
    ClaimLost,
    /// The claim could not be renewed, because the session store failed while a body was streaming.
    #[error("the session store failed")]
    Store(#[source] StoreError),
}

/// A request body on its way into a store: chunks in order. The core hashes them as they pass.
#[async_trait]
pub trait Source: Send {
    /// The next chunk, never empty. `None`: the body has ended and is complete. After an error the body has ended.
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError>;

    /// How many bytes will follow, if the client declared it. A hint: stores must not rely on it.
    fn remaining(&self) -> Option<u64>;

    /// The SHA-256 of all bytes of this body, once it has ended, if the core has computed it anyway. A store that sends
    /// a checksum then need not compute it again. `None`: unknown.
    fn sha256(&self) -> Option<[u8; 32]>;
}

/// Why a body was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A fault of the peer. No write for this attempt is in flight any more.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// A fault of the peer. The store does not know whether all writes for this attempt have ended: one may be in
    /// flight.
    #[error(transparent)]
    WriteInFlight(BodyError),
    /// A fault of the server.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of [`BlobStore::append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The new state. The caller passes it to the next append and to the seal.
    pub state: Vec<u8>,
    /// A record of the part that this body became. The session keeps these records in the order of the bodies. For
    /// stores whose state would otherwise grow with the number of bodies.
    pub part: Option<Vec<u8>>,
}

/// Everything that a session has stored, as [`BlobStore::seal`] needs it.
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

/// What the caller of [`BlobStore::redirect`] needs.
#[derive(Clone, Debug)]
pub struct RedirectRequest {
    /// The media type with which the object store must serve the object.
    pub content_type: &'static str,
    /// The client that must be able to reach the object store; otherwise the store returns no redirect.
    pub reached_by: Reached,
}

/// The client that must be able to reach the object store, so that a redirect is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Every client: the operator says that all can reach it.
    ByAll,
    /// This client. A store on a private or loopback address returns `None` for clients in other networks.
    By(IpAddr),
    /// A client with an unknown address. Only a store that every client reaches returns a redirect.
    ByAnyone,
}

/// A URL with which any client that has it can fetch the bytes, until it expires.
#[derive(Clone, PartialEq, Eq)]
pub struct Redirect {
    /// An absolute URL. It grants GET of one object, and nothing else.
    pub url: String,
    /// The remaining validity of the URL.
    pub lifetime: Duration,
}

/// The result of [`BlobStore::discard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Discarded {
    /// Everything was deleted.
    All,
    /// Everything that is known without a search was deleted. The session's row must stay: collection reads there what
    /// to search for.
    Known,
}

/// An object that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectToDelete {
    /// The object.
    pub location: Location,
    /// Whether to delete everything else that the attempt of this name has left: unfinished writes under its key, and
    /// objects whose keys are the attempt's key, a `.` and more. Costs a search.
    pub unfinished: bool,
}

/// What [`BlobStore::delete`] has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeletedObjects {
    /// The number of keys under which an object existed.
    pub objects: u64,
    /// The bytes of these objects, and of what was deleted beside them.
    pub bytes: u64,
}

impl AddAssign for DeletedObjects {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

/// An object, as a walk over the store finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its location.
    pub location: Location,
    /// Bytes.
    pub size: u64,
}

/// The bytes of an object, in order. An error ends the stream; the bytes before it are correct.
pub type ByteStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// Stores the bytes of objects.
///
/// # Keys
///
/// The key of an object is the name of an [`Attempt`], or begins with that name and a `.`. A session's row names the
/// attempt before the object exists. So the row is enough to find everything that the session may have left (see
/// [`collection::remains`](super::collection::remains)).
///
/// # All methods
///
/// The memory of a call is bounded, whatever the size of the object. Implementations retry their own faults until the
/// deadline of the [`Context`].
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Stores one body after the bytes that `state` describes.
    ///
    /// Stores the body as a whole, or nothing visible: after an error the session continues from `state`, as if this
    /// attempt had not happened. Isolated from every other attempt of the session, also from an attempt whose claim has
    /// expired and which is still writing. Durable when it returns. An empty body becomes an object of no bytes.
    async fn append(
        &self,
        cx: Context,
        attempt: Attempt,
        state: &[u8],
        source: &mut dyn Source,
    ) -> Result<Appended, AppendError>;

    /// The state from which a session continues after `attempt` has failed cleanly. `None`: the state is unchanged.
    ///
    /// `attempt` must be the last one that was claimed. It was never appended, or its append failed with
    /// [`AppendError::Body`], and nothing was sealed under it. For stores in which the next attempt must know that it
    /// follows directly. Makes no request.
    fn after_failed_attempt(&self, _attempt: Attempt, _state: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Makes one durable object of everything that an upload has appended, and returns its permanent location.
    ///
    /// Idempotent: a second seal returns the same location. At least one append must have come before. The object of an
    /// upload of one body has the key of its attempt, and costs no copy of the bytes. The appended parts stay until
    /// they are discarded: the claim may be lost before the object is published, and then the session continues from
    /// its last saved state and seals another object.
    async fn seal(&self, cx: Context, upload: &Upload) -> Result<Location, StoreError>;

    /// Whether a seal of this upload writes to the store. It does not for an upload of one body, which is its object
    /// already. Makes no request.
    fn seal_writes(&self, upload: &Upload) -> bool;

    /// Whether an upload of one body, whose append returned `state`, leaves more than the sealed object in the store.
    /// If so, the caller discards it like an upload of several bodies. Makes no request.
    fn leaves_something(&self, state: &[u8]) -> bool;

    /// Deletes everything that attempts 1 to `attempts` of a session have left, as far as that is known without a
    /// search, except the object at `keep`. Returns whether that was everything. Idempotent. Only for sessions that
    /// cannot be committed any more: cancelled sessions (`keep` is `None`) and published ones (`keep` is the published
    /// object).
    async fn discard(
        &self,
        cx: Context,
        session: SessionId,
        attempts: u32,
        state: &[u8],
        keep: Option<&Location>,
    ) -> Result<Discarded, StoreError>;

    /// Streams `range` (half-open) of an object. `None`: the object does not exist, or it ends before the range does. A
    /// caller that knows the object's size then treats the object as missing. Reads no more than the range, and has
    /// only a bounded window of it in memory.
    async fn read(&self, cx: Context, location: &Location, range: Range<u64>)
    -> Result<Option<ByteStream>, StoreError>;

    /// A URL for the object. `None`: the registry itself must serve the bytes. Makes no request to the object store,
    /// and does not check whether the object exists.
    async fn redirect(
        &self,
        now: Timestamp,
        location: &Location,
        request: RedirectRequest,
    ) -> Result<Option<Redirect>, StoreError>;

    /// Deletes objects. Idempotent: an absent object counts as deleted. Returns what existed, or `None` if the store
    /// would need further requests to know that. After an error, some objects may be deleted, and the others still
    /// exist.
    async fn delete(&self, cx: Context, to_delete: &[ObjectToDelete]) -> Result<Option<DeletedObjects>, StoreError>;

    /// Deletes unfinished writes that the attempts of these names have left beside their objects. The objects are in
    /// use and stay. Only when no request can be writing under these names any more. Idempotent. Costs a search; no
    /// request of the protocol calls it.
    async fn tidy(&self, cx: Context, kept: &[Location]) -> Result<(), StoreError>;

    /// The size of an object in bytes. `None`: there is no such object.
    async fn stat(&self, cx: Context, location: &Location) -> Result<Option<u64>, StoreError>;

    /// Walks over all objects of the store, about `limit` in a slice. No request of the protocol calls it.
    async fn objects(
        &self,
        cx: Context,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<StoredObject>, StoreError>;
}
