//! The contract on a good day, and on a bad one: conflicts, throttles, lost answers, batches that are done in parts.

use registry::contract::Guard;

use super::*;
use crate::memory::Faults;

mod good_day {
    use super::*;

    registry::metadata_contract_tests!(async {
        let store: Arc<dyn MetadataStore> = Arc::new(store_over(MemoryTable::new()));
        let guard: Guard = Box::new(());
        (store, guard)
    });
}

mod bad_day {
    use super::*;

    registry::metadata_contract_tests!(async {
        static SEED: AtomicU64 = AtomicU64::new(1);
        let table = MemoryTable::faulty(Faults::SOME, SEED.fetch_add(1, Ordering::SeqCst));
        let store: Arc<dyn MetadataStore> = Arc::new(store_over(table));
        let guard: Guard = Box::new(());
        (store, guard)
    });
}
