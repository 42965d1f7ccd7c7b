//! The contract suite: what every store must do, each rule stated once as a named test.
//!
//! A store's tests run it with one line:
//!
//! ```text
//! registry::contract_tests!(async { my_stores() });
//! ```
//!
//! where the expression is a future of [`Stores`], made anew for each test. A crate that implements one trait alone
//! uses [`blob_contract_tests!`](crate::blob_contract_tests), [`session_contract_tests!`](crate::session_contract_tests)
//! or [`metadata_contract_tests!`](crate::metadata_contract_tests) with a future of `(store, guard)`. The calling crate
//! needs `tokio` with `macros`, `rt-multi-thread` and `time` among its development dependencies; this crate does not.
//!
//! [`blobs`], [`sessions`] and [`metadata`] hold the clauses. Time and randomness come from the [`Trial`], so that
//! nothing sleeps; races are run as tasks on several threads. [`source`] makes request bodies. [`counting`] and
//! [`faulty`] wrap stores, for tests of the core and of shells.
#![expect(
    clippy::missing_panics_doc,
    reason = "a clause is a test: it panics when the store breaks the contract"
)]

pub mod blobs;
pub mod counting;
pub mod faulty;
mod macros;
pub mod metadata;
pub mod sessions;
pub mod source;
mod trial;
pub mod wrapped;

use std::any::Any;
use std::sync::Arc;

pub use trial::{Guard, Spawn, Trial};

use crate::store::blobs::BlobStore;
use crate::store::metadata::MetadataStore;
use crate::store::sessions::SessionStore;

/// What a test of all three contracts is given, empty.
pub struct Stores {
    /// Bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Names.
    pub metadata: Arc<dyn MetadataStore>,
    /// Uploads in progress.
    pub sessions: Arc<dyn SessionStore>,
    /// Whatever must live as long as they do, a temporary directory for example; `Box::new(())` if nothing must.
    pub guard: Box<dyn Any + Send>,
}
