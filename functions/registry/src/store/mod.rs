//! The contracts between the protocol core and whatever keeps its bytes and names.
//!
//! Read in this order: this file (the words that all contracts share), [`blobs`] (bytes), [`sessions`] (uploads in
//! progress), [`metadata`] (names); then what operators need: [`collection`] (reclaiming what nothing names any more)
//! and [`records`] (moving a registry to another store, and checking one). [`memory`] is the reference implementation
//! of all of them; the crate `contract` holds the suite that judges every implementation.
//!
//! A store never sees an HTTP type and never decides what a client is told. Absence, a refusal and a lost race are
//! values; an [`Err`] means that the store could not do its work. Stores hold the retries, the core never sleeps:
//! every call carries the present time and a deadline in its [`Context`].

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

pub use self::fault::{Cause, Damage, Reason, StoreError, StoreFault};
pub use self::location::{Location, LocationError};
use crate::budget::ClientKey;

/// A moment: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The moment `millis` milliseconds later (saturating).
    #[must_use]
    pub fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to `self`; 0 when `earlier` is later.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A random value that tells one life of a thing from the next life of the same name: a link, a manifest or a
/// back-link that is deleted and created again has another incarnation, so that cleaning up after the old one never
/// touches the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uid(pub u64);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What every call knows about the request that it serves.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The present time; stores have no clock of their own for what they record.
    pub now: Timestamp,
    /// Until when a store may go on retrying; past it, the call answers [`StoreError::Unavailable`]. Where a call
    /// streams a body, which takes as long as the peer likes, the span from `now` to here is what each of the store's
    /// own requests may take.
    pub deadline: Timestamp,
    /// Fresh randomness of this call: the incarnation of what it creates.
    pub uid: Uid,
    /// For whom a store holds memory or files meanwhile, where it shares them between clients.
    pub client: ClientKey,
}

/// Where a walk over everything goes on: text that only the store which made it can read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub String);

/// One slice of a walk over everything, in an order of the store's own. What is written or removed meanwhile may be
/// met or not; everything else is met at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice<T> {
    /// What this slice holds; may be empty before the end.
    pub items: Vec<T>,
    /// Where the next slice begins; `None` after the last.
    pub next: Option<Cursor>,
}

/// One page of a list in ASCII order of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many as were asked for.
    pub items: Vec<T>,
    /// Whether anything follows the last item.
    pub more: bool,
}
