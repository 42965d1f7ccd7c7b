//! A table in memory that behaves like DynamoDB, including its unpleasant properties.
//!
//! It enforces the limits of DynamoDB. An eventually consistent read may return the state before the last write.
//! Requests may fail in all the ways that the protocols have to handle ([`FaultRates`]). With a [`Scheduler`], every
//! request waits for its turn, so that one thread explores the interleavings of many instances. Without one, each
//! request lets other tasks run first.

mod faults;
mod items;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

pub(crate) use self::faults::FaultRates;
use self::faults::RequestFault;
pub(crate) use self::items::Items;
use self::items::{ItemPosition, reject};
use crate::scheduler::{Random, Scheduler, yield_once};
use crate::table::{
    BATCH_READS, BATCH_WRITES, Consistency, Item, ItemKey, ItemPage, RangeQuery, Table, TableError, Write,
    WriteCondition, Written,
};

/// A table in memory. Clones are the same table.
#[derive(Clone)]
pub(crate) struct MemoryTable {
    state: Arc<Mutex<MemoryState>>,
    scheduler: Option<Scheduler>,
}

struct MemoryState {
    items: Items,
    faults: FaultRates,
    random: Random,
    /// Writes that will be applied late: one after the other or, with a token, as a transaction.
    late: Vec<(Vec<Write>, Option<String>)>,
}

impl MemoryState {
    /// Applies a late write, with some probability. No caller receives its answer.
    fn perhaps_do_late_write(&mut self) {
        if self.late.is_empty() || !self.random.happens(200) {
            return;
        }
        let (writes, token) = self.late.swap_remove(self.random.below(self.late.len()));
        match token {
            Some(token) => drop(self.items.transact(&writes, &token)),
            None => {
                for write in writes {
                    drop(self.items.write(&[write]));
                }
            }
        }
    }
}

impl MemoryTable {
    /// An empty table without faults, for tasks of any runtime.
    pub(crate) fn new() -> Self {
        Self::with(FaultRates::NONE, 1, None)
    }

    /// An empty table with faults that `seed` selects.
    pub(crate) fn faulty(faults: FaultRates, seed: u64) -> Self {
        Self::with(faults, seed, None)
    }

    /// An empty table whose requests wait for their turn.
    pub(crate) fn scheduled(faults: FaultRates, seed: u64, scheduler: &Scheduler) -> Self {
        Self::with(faults, seed, Some(scheduler.clone()))
    }

    fn with(faults: FaultRates, seed: u64, scheduler: Option<Scheduler>) -> Self {
        Self {
            state: Arc::new(Mutex::new(MemoryState {
                items: Items::default(),
                faults,
                random: Random::new(seed),
                late: Vec::new(),
            })),
            scheduler,
        }
    }

    /// The same table for a caller that does not wait for its turn.
    pub(crate) fn unscheduled(&self) -> Self {
        Self {
            state: self.state.clone(),
            scheduler: None,
        }
    }

    /// Changes the faults of later requests, and drops late writes.
    pub(crate) fn set_faults(&self, faults: FaultRates) {
        let mut state = self.lock();
        state.faults = faults;
        state.late.clear();
    }

    /// Accesses the items between requests.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut Items) -> T) -> T {
        look(&mut self.lock().items)
    }

    fn lock(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn, then executes the request as one step, with a fault if one is chosen.
    async fn step<T: std::fmt::Debug>(
        &self,
        kind: faults::RequestKind,
        about: impl Fn() -> String,
        (writes, token): (&[Write], Option<&str>),
        request: impl FnOnce(&mut MemoryState) -> Result<T, TableError>,
    ) -> Result<T, TableError> {
        match &self.scheduler {
            Some(scheduler) => scheduler.turn().await,
            None => yield_once().await,
        }
        let answer = {
            let mut state = self.lock();
            state.perhaps_do_late_write();
            let MemoryState {
                faults, random, late, ..
            } = &mut *state;
            match faults.fault(kind, random) {
                None => request(&mut state),
                Some(RequestFault::Late) => {
                    late.push((writes.to_vec(), token.map(str::to_owned)));
                    Err(RequestFault::Late.error())
                }
                Some(RequestFault::Lost) => request(&mut state).and_then(|_| Err(RequestFault::Lost.error())),
                Some(fault) => Err(fault.error()),
            }
        };
        if let Some(scheduler) = &self.scheduler {
            scheduler.trace(|| format!("{} -> {answer:?}", about()));
        }
        answer
    }
}

#[async_trait]
impl Table for MemoryTable {
    async fn get(&self, key: &ItemKey, consistency: Consistency) -> Result<Option<Item>, TableError> {
        let about = || format!("get {key:?} {consistency:?}");
        self.step(faults::RequestKind::Read, about, (&[], None), |state| {
            items::check_key(key)?;
            let stale = consistency == Consistency::Eventual && state.faults.is_stale(&mut state.random);
            Ok(state.items.get(key, stale))
        })
        .await
    }

    async fn query(&self, query: &RangeQuery) -> Result<ItemPage, TableError> {
        let about = || format!("{query:?}");
        self.step(faults::RequestKind::Read, about, (&[], None), |state| {
            let stale = query.consistency == Consistency::Eventual && state.faults.is_stale(&mut state.random);
            state.items.query(query, stale)
        })
        .await
    }

    async fn scan(&self, after: Option<&ItemKey>, limit: usize) -> Result<ItemPage, TableError> {
        let about = || format!("scan after {after:?}");
        self.step(faults::RequestKind::Read, about, (&[], None), |state| {
            state.items.scan(after, limit)
        })
        .await
    }

    async fn write(&self, write: &Write) -> Result<Written, TableError> {
        let about = || format!("{write:?}");
        let sent = (std::slice::from_ref(write), None);
        self.step(faults::RequestKind::Write, about, sent, |state| {
            if matches!(write, Write::Check { .. }) {
                return Err(reject("a check outside a transaction"));
            }
            state.items.write(std::slice::from_ref(write))
        })
        .await
    }

    async fn transact(&self, writes: &[Write], token: &str) -> Result<Written, TableError> {
        let about = || format!("transact {writes:#?}");
        self.step(
            faults::RequestKind::Transaction,
            about,
            (writes, Some(token)),
            |state| state.items.transact(writes, token),
        )
        .await
    }

    async fn batch_get(&self, keys: &[ItemKey]) -> Result<(Vec<Item>, Vec<ItemKey>), TableError> {
        let about = || format!("batch get {keys:?}");
        self.step(faults::RequestKind::Read, about, (&[], None), |state| {
            let positions: Vec<_> = keys.iter().map(ItemPosition::of).collect();
            items::check_batch(&positions, BATCH_READS)?;
            let MemoryState {
                items, faults, random, ..
            } = state;
            let (taken, left) = faults.take(keys, random);
            let found = taken.iter().filter_map(|key| items.get(key, false));
            // In another order than the keys, because callers must not rely on the order.
            Ok((found.rev().collect(), left))
        })
        .await
    }

    async fn batch_write(&self, writes: &[Write]) -> Result<Vec<Write>, TableError> {
        let about = || format!("batch write {writes:#?}");
        self.step(faults::RequestKind::Write, about, (writes, None), |state| {
            let positions: Vec<_> = writes
                .iter()
                .map(|write| ItemPosition::of(items::key_of(write)))
                .collect();
            items::check_batch(&positions, BATCH_WRITES)?;
            let plain = writes.iter().all(|write| match write {
                Write::Put { condition, .. } | Write::Delete { condition, .. } => *condition == WriteCondition::Always,
                Write::Update { .. } | Write::Check { .. } => false,
            });
            if !plain {
                return Err(reject("a batch holds unconditional puts and deletes"));
            }
            let MemoryState {
                items, faults, random, ..
            } = state;
            let (taken, left) = faults.take(writes, random);
            for write in &taken {
                items.write(std::slice::from_ref(write))?;
            }
            Ok(left)
        })
        .await
    }
}

#[cfg(test)]
mod tests;
