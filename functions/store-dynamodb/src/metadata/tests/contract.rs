//! The contract on a good day, and on a bad one: conflicts, throttles, batches that are done in parts.
//!
//! Lost answers are left to the schedules in `tests` of the crate: what such a request may yet do late is guarded by a
//! claim that stays, for a deep collection to find, and the contract wants no claim to stay.

use ::contract::Guard;

use super::*;
use crate::memory::Faults;

mod good_day {
    use super::*;

    ::contract::metadata_contract_tests!(async {
        let store: Arc<dyn MetadataStore> = Arc::new(store_over(MemoryTable::new()));
        let guard: Guard = Box::new(());
        (store, guard)
    });
}

mod bad_day {
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
