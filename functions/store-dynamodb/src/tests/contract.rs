//! The contracts about sessions, collection, records and access, and a churn, over tables in memory with several threads:
//! without faults over two tables, and with faults over one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use contract::{Guard, MetadataStores, TestStores};
use registry::Stores;
use registry::store::access::AccessStore;
use registry::store::memory::MemoryBlobs;

use crate::DynamoStore;
use crate::memory::{FaultRates, MemoryTable};
use crate::retrying::RetryEnvironment;
use crate::scheduler::Random;

/// A pace whose waits are short.
struct QuickPace {
    start: Instant,
    random: Mutex<Random>,
}

impl QuickPace {
    fn pace(seed: u64) -> Arc<dyn RetryEnvironment> {
        Arc::new(Self {
            start: Instant::now(),
            random: Mutex::new(Random::new(seed)),
        })
    }
}

#[async_trait]
impl RetryEnvironment for QuickPace {
    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time / 100).await;
    }

    async fn alarm(&self, _at: Duration) {
        std::future::pending::<()>().await;
    }

    fn random(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

/// Every store of the process has a seed of its own.
static SEEDS: AtomicU64 = AtomicU64::new(1);

fn store(faults: FaultRates, tables: usize) -> Arc<DynamoStore> {
    let seed = SEEDS.fetch_add(1, Ordering::Relaxed);
    let tables: Vec<_> = (0..tables)
        .map(|number| MemoryTable::faulty(faults, seed + (1 << 32) * number as u64))
        .collect();
    let main = Arc::new(tables[0].clone());
    let local = Arc::new(tables[tables.len() - 1].clone());
    Arc::new(DynamoStore::over(main, local, &QuickPace::pace(seed)))
}

fn metadata_stores(faults: FaultRates, tables: usize) -> (MetadataStores, Guard) {
    let store = store(faults, tables);
    let stores = MetadataStores {
        metadata: store.clone(),
        sessions: store.clone(),
        collection: store.clone(),
        records: store.clone(),
        access: store,
    };
    (stores, Box::new(()))
}

fn access_store(faults: FaultRates, tables: usize) -> (Arc<dyn AccessStore>, Guard) {
    (store(faults, tables), Box::new(()))
}

fn stores(faults: FaultRates, tables: usize) -> TestStores {
    let store = store(faults, tables);
    let stores = Stores {
        blobs: Arc::new(MemoryBlobs::new()),
        metadata: store.clone(),
        sessions: store.clone(),
        collection: store.clone(),
        records: store.clone(),
        access: store,
    };
    let guard = Box::new(());
    TestStores { stores, guard }
}

mod without_faults {
    use super::{FaultRates, access_store, metadata_stores, stores};

    contract::session_contract_tests!(async {
        let (metadata_stores, guard) = metadata_stores(FaultRates::NONE, 2);
        (metadata_stores.sessions, guard)
    });
    contract::collection_contract_tests!(async { metadata_stores(FaultRates::NONE, 2) });
    contract::record_contract_tests!(async { metadata_stores(FaultRates::NONE, 2) });
    contract::audit_contract_tests!(async { metadata_stores(FaultRates::NONE, 2) });
    contract::access_contract_tests!(async { access_store(FaultRates::NONE, 2) });
    contract::churn_tests!(async { stores(FaultRates::NONE, 2) });
}

mod with_faults {
    use super::{FaultRates, access_store, metadata_stores, stores};

    contract::session_contract_tests!(async {
        let (metadata_stores, guard) = metadata_stores(FaultRates::SOME, 1);
        (metadata_stores.sessions, guard)
    });
    // A link whose response was lost leaves a back-link for a deep pass, and these clauses count the findings of such a
    // pass.
    contract::collection_contract_tests!(async { metadata_stores(FaultRates::ANSWERED, 1) });
    contract::record_contract_tests!(async { metadata_stores(FaultRates::SOME, 1) });
    contract::audit_contract_tests!(async { metadata_stores(FaultRates::ANSWERED, 1) });
    contract::access_contract_tests!(async { access_store(FaultRates::SOME, 1) });
    contract::churn_tests!(async { stores(FaultRates::SOME, 1) });
}
