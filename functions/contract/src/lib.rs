//! The contract suite: what every store must do, each rule stated once as a named test.
//!
//! A store's tests run it with one line:
//!
//! ```text
//! contract::contract_tests!(async { my_stores() });
//! ```
//!
//! where the expression is a future of [`Stores`], made anew for each test. A crate that implements one trait alone
//! uses [`blob_contract_tests!`](crate::blob_contract_tests), [`session_contract_tests!`](crate::session_contract_tests)
//! or [`metadata_contract_tests!`](crate::metadata_contract_tests) with a future of `(store, guard)`;
//! [`collection_contract_tests!`](crate::collection_contract_tests) and
//! [`record_contract_tests!`](crate::record_contract_tests) take a future of `(`[`Names`]`, guard)`. The calling crate
//! needs `tokio` with `macros`, `rt-multi-thread` and `time` among its development dependencies; this crate has no runtime.
//!
//! [`blobs`], [`sessions`], [`metadata`], [`collection`] and [`records`] hold the clauses; [`checks`] what a check must
//! find in names that were harmed ([`check_contract_tests!`](crate::check_contract_tests)); [`churn`] lets a whole
//! registry be pushed to, deleted from and collected at once ([`churn_tests!`](crate::churn_tests)). Time and randomness
//! come from the [`ContractTest`], so that nothing sleeps; races are run as tasks on several threads. [`source`] makes request
//! bodies, [`fixed_clock`] a clock that stands. [`counting`] and [`faulty`] wrap stores, for tests of the core and of shells.
#![expect(
    clippy::missing_panics_doc,
    reason = "a clause is a test: it panics when the store breaks the contract"
)]

pub mod blobs;
pub mod checks;
pub mod churn;
pub mod collection;
mod contract_test;
pub mod counting;
pub mod faulty;
pub mod fixed_clock;
mod macros;
pub mod metadata;
pub mod records;
pub mod sessions;
pub mod source;

use std::any::Any;
use std::sync::Arc;

/// For the macros, which name the stores' traits by it.
#[doc(hidden)]
pub use registry;

pub use contract_test::{ContractTest, Guard, Spawn};

use registry::AllStores;
use registry::store::blobs::BlobStore;
use registry::store::collection::CollectionStore;
use registry::store::metadata::MetadataStore;
use registry::store::records::RecordStore;
use registry::store::sessions::SessionStore;

/// A clause that runs.
#[doc(hidden)]
pub type ClauseFuture = futures_util::future::BoxFuture<'static, ()>;

/// The clauses as plain functions. The code of an `async fn` is compiled in the crate that polls it. Without these it
/// would be compiled again for each of the many crates with tests of stores, which would double the time of a build.
#[doc(hidden)]
pub mod compiled {
    crate::__session_clauses! { __compiled sessions, dyn registry::store::sessions::SessionStore, }
    crate::__blob_clauses! { __compiled blobs, dyn registry::store::blobs::BlobStore, }
    crate::__metadata_clauses! { __compiled metadata, dyn registry::store::metadata::MetadataStore, }
    crate::__collection_clauses! { __compiled collection, crate::Names, }
    crate::__record_clauses! { __compiled records, crate::records::Pair, }
    crate::__check_clauses! { __compiled checks, crate::checks::Harmed, }
}

/// All but the bytes: what the clauses about collection and records are given, empty.
#[derive(Clone)]
pub struct Names {
    /// Names.
    pub metadata: Arc<dyn MetadataStore>,
    /// Uploads in progress.
    pub sessions: Arc<dyn SessionStore>,
    /// Collection over both.
    pub collection: Arc<dyn CollectionStore>,
    /// The names as records.
    pub records: Arc<dyn RecordStore>,
}

/// What a test of all contracts is given, empty.
pub struct Stores {
    /// Bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Names.
    pub metadata: Arc<dyn MetadataStore>,
    /// Uploads in progress.
    pub sessions: Arc<dyn SessionStore>,
    /// Collection over the names and the uploads.
    pub collection: Arc<dyn CollectionStore>,
    /// The names as records.
    pub records: Arc<dyn RecordStore>,
    /// Whatever must live as long as they do, a temporary directory for example; `Box::new(())` if nothing must.
    pub guard: Box<dyn Any + Send>,
}

impl Stores {
    /// All of them, as a registry and its operator have them, and what keeps them alive.
    #[must_use]
    pub fn into_all(self) -> (AllStores, Guard) {
        let all = AllStores {
            blobs: self.blobs,
            metadata: self.metadata,
            sessions: self.sessions,
            collection: self.collection,
            records: self.records,
        };
        (all, self.guard)
    }

    /// All but the bytes.
    #[must_use]
    pub fn into_names(self) -> (Names, Guard) {
        let names = Names {
            metadata: self.metadata,
            sessions: self.sessions,
            collection: self.collection,
            records: self.records,
        };
        // The blob store may share what the guard keeps.
        (names, Box::new((self.blobs, self.guard)))
    }
}
