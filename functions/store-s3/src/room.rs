//! The memory that the bodies of all uploads may hold together.
//!
//! An upload waits, in turn, for a base with which it can go on to its end whatever others do, and asks for nothing
//! else while it waits: so uploads never wait for each other in a circle. More room makes it faster; it is taken only
//! if some is free and nobody waits for it, it goes with a part that is sent, and is given back when the part is stored.

use std::sync::Arc;
use std::time::Duration;

use registry::store::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::plan::{MEMORY, MIB, Parts};

/// The unit in which room is counted, in bytes.
const UNIT: usize = 64 << 10;

/// By how much an upload asks to grow, in bytes.
const STEP: usize = MIB;

/// For how long an upload waits: long, since clients start a refused layer from its beginning, or give up. That is more
/// than a claim lasts without renewal, which does no harm: a claim that has run out is as good as before until somebody
/// else asks for the session.
const PATIENCE: Duration = Duration::from_mins(5);

/// The bytes of buffers that all uploads of the process may hold.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    all: Arc<Semaphore>,
    /// How much there is in all.
    units: u32,
}

/// What one upload may hold.
#[derive(Debug)]
pub(crate) struct Allowance {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
    base: Held,
    more: Held,
}

/// Some room, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>);

/// What goes with a part.
#[derive(Debug)]
pub(crate) struct Lent {
    /// Has to come back.
    pub(crate) base: Held,
    /// Is given up when the part is stored.
    pub(crate) more: Held,
}

impl Room {
    /// At least one upload always has room.
    pub(crate) fn new(bytes: u64, parts: Parts) -> Self {
        let units = usize::try_from(bytes / UNIT as u64).unwrap_or(usize::MAX);
        let units = units.clamp(units_of(parts.base(usize::MAX)) as usize, Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(units)),
            units: u32::try_from(units).unwrap_or(u32::MAX),
        }
    }

    /// How many bytes are free.
    pub(crate) fn free(&self) -> u64 {
        self.all.available_permits() as u64 * UNIT as u64
    }

    /// Waits for room for an upload: `bytes` that it can go on with.
    pub(crate) async fn base(&self, bytes: usize) -> Result<Allowance, StoreError> {
        let own = Arc::new(Semaphore::new(MEMORY / UNIT));
        let units = units_of(bytes.min(MEMORY)).min(self.units);
        Ok(Allowance {
            base: wait(&self.all, &own, units).await?,
            more: Held::default(),
            all: Arc::clone(&self.all),
            own,
        })
    }
}

async fn wait(all: &Arc<Semaphore>, own: &Arc<Semaphore>, units: u32) -> Result<Held, StoreError> {
    let both = async {
        let own = Arc::clone(own).acquire_many_owned(units).await;
        let all = Arc::clone(all).acquire_many_owned(units).await;
        Ok(Held(Some((
            own.map_err(StoreError::failed)?,
            all.map_err(StoreError::failed)?,
        ))))
    };
    tokio::time::timeout(PATIENCE, both).await.unwrap_or_else(|_| {
        Err(StoreError::unavailable(
            "too many uploads at once: no memory became free for this one",
        ))
    })
}

impl Allowance {
    /// Whether more may be received while so many bytes wait: one chunk at least, whose size nobody knows before it is
    /// there. A body that fills its room exactly has room.
    pub(crate) fn has_room_behind(&self, bytes: usize) -> bool {
        let capacity = self.capacity();
        bytes <= capacity && capacity > 0
    }

    /// How many bytes may wait in memory, besides those that go with parts.
    fn capacity(&self) -> usize {
        self.base.bytes() + self.more.bytes()
    }

    /// Takes a little more, if there is some.
    pub(crate) fn grow(&mut self) -> bool {
        let units = units_of(STEP);
        let Ok(own) = Arc::clone(&self.own).try_acquire_many_owned(units) else {
            return false;
        };
        let Ok(all) = Arc::clone(&self.all).try_acquire_many_owned(units) else {
            return false;
        };
        self.more.merge(Held(Some((own, all))));
        true
    }

    /// Waits for more although it holds some: only for a body that is longer than was said, of which nothing can be
    /// sent yet. Such bodies could wait for each other, but not for ever.
    pub(crate) async fn wait(&mut self, parts: Parts) -> Result<(), StoreError> {
        let missing = parts.base(usize::MAX).saturating_sub(self.capacity()).max(STEP);
        let more = wait(&self.all, &self.own, units_of(missing)).await?;
        self.base.merge(more);
        Ok(())
    }

    /// Gives a part the room that it takes, from what is more than the base first.
    pub(crate) fn lend(&mut self, bytes: usize) -> Lent {
        let more = self.more.split(bytes);
        let base = self.base.split(bytes - more.bytes().min(bytes));
        Lent { base, more }
    }

    /// Takes back what a part had of the base.
    pub(crate) fn take_back(&mut self, base: Held) {
        self.base.merge(base);
    }
}

impl Held {
    fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |(own, _)| own.num_permits() * UNIT)
    }

    fn merge(&mut self, other: Self) {
        match (&mut self.0, other.0) {
            (Some((own, all)), Some(other)) => {
                own.merge(other.0);
                all.merge(other.1);
            }
            (none @ None, other) => *none = other,
            (Some(_), None) => {}
        }
    }

    /// Room for `bytes`, or what there is.
    fn split(&mut self, bytes: usize) -> Self {
        let Some((own, all)) = &mut self.0 else {
            return Self(None);
        };
        let units = own.num_permits().min(bytes.div_ceil(UNIT));
        Self(own.split(units).zip(all.split(units)))
    }
}

fn units_of(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use futures_util::FutureExt as _;

    use super::*;

    const BASE: usize = 10 * MIB;

    #[tokio::test]
    async fn an_upload_grows_while_there_is_room_and_gives_it_back() {
        let room = Room::new(128 << 20, Parts::Growing);
        let mut one = room.base(BASE).await.unwrap();
        while one.grow() {}
        assert_eq!(one.capacity(), MEMORY);
        let first = one.lend(8 * MIB);
        assert_eq!((first.base.bytes(), first.more.bytes()), (0, 8 * MIB));
        let all = one.lend(usize::MAX - UNIT);
        assert_eq!((all.base.bytes(), all.more.bytes()), (BASE, MEMORY - BASE - 8 * MIB));
        assert!(!one.grow(), "what is being sent counts");
        drop(first);
        assert!(one.grow());
        one.take_back(all.base);
        drop(all.more);
        assert_eq!(one.capacity(), BASE + STEP);
        drop(one);
        assert_eq!(room.free(), 128 << 20);
    }

    #[tokio::test]
    async fn those_who_wait_come_first() {
        let room = Room::new(20 << 20, Parts::Growing);
        let (mut first, second) = (room.base(BASE).await.unwrap(), room.base(BASE).await.unwrap());
        assert!(!first.grow());
        let mut waiting = Box::pin(room.base(BASE));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(second);
        assert!(!first.grow(), "the upload that waits comes first");
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_small_body_takes_little() {
        let room = Room::new(64 << 20, Parts::Growing);
        let small = room.base(1000).await.unwrap();
        assert_eq!(small.capacity(), UNIT);
        assert_eq!(room.free(), (64 << 20) - UNIT as u64);
    }

    #[tokio::test]
    async fn there_is_always_room_for_one() {
        for parts in [Parts::Growing, Parts::Equal] {
            Room::new(0, parts).base(parts.base(usize::MAX)).await.unwrap();
        }
    }
}
