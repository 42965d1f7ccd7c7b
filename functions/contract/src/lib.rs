//! The contract suite: what every store must do. Each rule of the contract is one test function, called a *clause*.
//!
//! A store's tests run it with one line:
//!
//! ```text
//! contract::contract_tests!(async { my_stores() });
//! ```
//!
//! The expression is a future of [`TestStores`], which each test evaluates anew. A crate that implements one trait alone uses
//! [`blob_contract_tests!`](crate::blob_contract_tests), [`session_contract_tests!`](crate::session_contract_tests),
//! [`metadata_contract_tests!`](crate::metadata_contract_tests) or [`access_contract_tests!`](crate::access_contract_tests) with
//! a future of `(store, guard)`.
//! [`collection_contract_tests!`](crate::collection_contract_tests),
//! [`record_contract_tests!`](crate::record_contract_tests) and [`audit_contract_tests!`](crate::audit_contract_tests) take a future of `(`[`MetadataStores`]`, guard)`. The calling
//! crate needs `tokio` with `macros`, `rt-multi-thread` and `time` among its development dependencies; this crate has no
//! runtime.
//!
//! Read in this order:
//!
//! 1. [`ContractTest`]: what a clause receives. Time and randomness come from it, so that no test sleeps; races run as
//!    tasks on several threads.
//! 2. [`blobs`], [`sessions`], [`metadata`], [`collection`], [`records`] and [`access`]: the clauses, a module for each
//!    trait of a store. [`audit`]: the clauses about changes of metadata and their events, which two traits share.
//! 3. [`checks`]: what a check must find in corrupted stores
//!    ([`check_contract_tests!`](crate::check_contract_tests)). [`churn`]: pushes, deletions and collections of a whole
//!    registry at the same time ([`churn_tests!`](crate::churn_tests)).
//! 4. For tests of the core and of shells: [`counting`], [`deadlines`] and [`faulty`] wrap stores, [`source`] has request
//!    bodies, [`fixed_clock`] an environment without time.
#![expect(
    clippy::missing_panics_doc,
    reason = "a clause is a test: it panics when the store breaks the contract"
)]

pub mod access;
pub mod audit;
pub mod blobs;
pub mod checks;
pub mod churn;
pub mod collection;
mod contract_test;
pub mod counting;
pub mod deadlines;
mod every_record;
pub mod faulty;
pub mod fixed_clock;
mod macros;
pub mod metadata;
pub mod records;
pub mod sessions;
pub mod source;

use std::sync::Arc;

/// For the macros, which name the traits of the stores through it.
#[doc(hidden)]
pub use registry;

pub use contract_test::{ContractTest, Guard, Spawn};

use registry::Stores;
use registry::store::access::AccessStore;
use registry::store::collection::CollectionStore;
use registry::store::memory::{MemoryBlobs, MemoryCollection, MemoryMetadata, MemorySessions};
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
    crate::__collection_clauses! { __compiled collection, crate::MetadataStores, }
    crate::__record_clauses! { __compiled records, crate::records::Pair, }
    crate::__audit_clauses! { __compiled audit, crate::MetadataStores, }
    crate::__access_clauses! { __compiled access, dyn registry::store::access::AccessStore, }
    crate::__check_clauses! { __compiled checks, crate::checks::CorruptibleStores, }
}

/// The stores of metadata, empty: what the clauses about collection, records and the events of changes receive.
#[derive(Clone)]
pub struct MetadataStores {
    /// The metadata store.
    pub metadata: Arc<dyn MetadataStore>,
    /// The session store.
    pub sessions: Arc<dyn SessionStore>,
    /// The collection over both.
    pub collection: Arc<dyn CollectionStore>,
    /// The records of the metadata store.
    pub records: Arc<dyn RecordStore>,
    /// The accounts and the audit trail of the metadata store.
    pub access: Arc<dyn AccessStore>,
}

/// All stores, empty: what a test of all contracts receives.
pub struct TestStores {
    /// The stores.
    pub stores: Stores,
    /// What must live as long as the stores, for example a temporary directory; `Box::new(())` if nothing must.
    pub guard: Guard,
}

impl TestStores {
    /// The reference stores, in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        let metadata = Arc::new(MemoryMetadata::new());
        let sessions = Arc::new(MemorySessions::new());
        let stores = Stores {
            blobs: Arc::new(MemoryBlobs::new()),
            metadata: metadata.clone(),
            sessions: sessions.clone(),
            collection: Arc::new(MemoryCollection::new(metadata.clone(), sessions)),
            records: metadata.clone(),
            access: metadata,
        };
        let guard = Box::new(());
        Self { stores, guard }
    }

    /// The stores of metadata, and the guard.
    #[must_use]
    pub fn into_metadata_stores(self) -> (MetadataStores, Guard) {
        let Stores {
            blobs,
            metadata,
            sessions,
            collection,
            records,
            access,
        } = self.stores;
        let stores = MetadataStores {
            metadata,
            sessions,
            collection,
            records,
            access,
        };
        // The blob store may depend on the guard too.
        (stores, Box::new((blobs, self.guard)))
    }
}
