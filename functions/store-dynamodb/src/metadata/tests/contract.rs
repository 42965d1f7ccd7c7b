//! The metadata contract without faults, and with faults: conflicts, throttles, and partly processed batches.
//!
//! After a lost response a back-reference stays, because the write that needs it may still be applied. A deep pass
//! deletes it. The contract requires that none stays, so lost responses are tested only by the scheduler, in the
//! crate's `tests`.

use ::contract::Guard;

use super::*;
use crate::memory::FaultRates;

mod without_faults {
    use super::*;

    ::contract::metadata_contract_tests!(async {
        let store: Arc<dyn MetadataStore> = Arc::new(store_over(MemoryTable::new()));
        let guard: Guard = Box::new(());
        (store, guard)
    });
}

mod with_faults {
    use super::*;

    ::contract::metadata_contract_tests!(async {
        static SEED: AtomicU64 = AtomicU64::new(1);
        let faults = FaultRates {
            lost: 0,
            ..FaultRates::SOME
        };
        let table = MemoryTable::faulty(faults, SEED.fetch_add(1, Ordering::SeqCst));
        let store: Arc<dyn MetadataStore> = Arc::new(store_over(table));
        let guard: Guard = Box::new(());
        (store, guard)
    });
}
