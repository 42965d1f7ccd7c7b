//! The metadata contract without faults, and with faults: conflicts, throttles, and partly processed batches.
//!
//! The schedules in the crate's `tests` cover lost answers. After a lost answer a claim stays as a guard against a late
//! write, until a deep collection pass removes it; the contract requires that no claim stays.

use ::contract::Guard;

use super::*;
use crate::memory::Faults;

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
        let faults = Faults {
            lost: 0,
            ..Faults::SOME
        };
        let table = MemoryTable::faulty(faults, SEED.fetch_add(1, Ordering::SeqCst));
        let store: Arc<dyn MetadataStore> = Arc::new(store_over(table));
        let guard: Guard = Box::new(());
        (store, guard)
    });
}
