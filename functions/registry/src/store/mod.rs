//! The contracts between the protocol core and the stores of blobs, sessions and metadata.
//!
//! Read in this order: this file (types that all contracts share), [`blobs`] (the bytes of objects), [`sessions`]
//! (uploads in progress), [`metadata`] (links, manifests and tags), [`access`] (accounts and the policy). Then the
//! contracts that operators need:
//! [`collection`] (garbage collection) and [`records`] (moving a registry to another store, and checking one).
//! [`memory`] is the reference implementation of all contracts. The crate `contract` has the test suite that every
//! implementation must pass.
//!
//! A store never sees an HTTP type and never decides what a client gets. Absence, a refusal and a lost race are values.
//! An [`Err`] means that the store could not do its work. Stores retry; the core does not sleep between attempts. Every
//! call has the current time and a deadline in its [`Context`].

pub mod access;
mod attempt;
pub mod blobs;
pub mod collection;
mod fault;
mod location;
pub mod memory;
pub mod metadata;
pub mod records;
pub mod sessions;
pub mod wrapped;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::attempt::{Attempt, AttemptError, SessionId};
pub use self::fault::{Cause, Damage, Reason, StoreError, StoreFault};
pub use self::location::{Location, LocationError};
use crate::budget::ClientKey;
pub use crate::timestamp::Timestamp;

/// A random value, one for each creation of a link, manifest or back-link. When such a record is deleted and created
/// again under the same key, it has another uid. So work that cleans up after the old record never changes the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uid(pub u64);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The context of a store call, from the request that makes it.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The current time. Stores record this time, and not a time of their own clock.
    pub now: Timestamp,
    /// The deadline of retries. After it, the call returns [`StoreError::Unavailable`]. A call that streams a body
    /// takes as long as the peer needs; there, the time from `now` to `deadline` is the timeout of each request of the
    /// store.
    pub deadline: Timestamp,
    /// A random value of this call: the uid of the records that it creates.
    pub uid: Uid,
    /// The client to which a store charges memory and files, if it shares them between clients.
    pub client: ClientKey,
}

impl Context {
    /// The context of a call that begins `now`, with a timeout of `timeout_ms` milliseconds, for the registry itself and not
    /// for a client.
    #[must_use]
    pub const fn internal(now: Timestamp, timeout_ms: u64, uid: Uid) -> Self {
        Self {
            now,
            deadline: now.plus_millis(timeout_ms),
            uid,
            client: ClientKey::INTERNAL,
        }
    }
}

/// A position in a walk over everything. Only the store that made it can read its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub String);

/// One slice of a walk over everything, in an order that the store chooses. Items that are written or deleted during
/// the walk may or may not be in it. All other items are in it at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice<T> {
    /// The items of this slice. It may be empty before the end of the walk.
    pub items: Vec<T>,
    /// The position of the next slice; `None` after the last slice.
    pub next: Option<Cursor>,
}

/// One page of a list in ASCII order of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, at most as many as the caller asked for.
    pub items: Vec<T>,
    /// Whether the list has items after the last one of this page.
    pub more: bool,
}
